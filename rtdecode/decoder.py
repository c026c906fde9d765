"""The pipeline: samples and markers in, one result for every due window out.

No socket, no file, no thread, and no clock of its own: a live daemon, a replay, a batch over a thousand sessions and a
test all drive the same `Decoder`.

    push -> pick -> condition -> window -> encode -> head -> Result
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.contract import check_contract
from rtdecode.encode.engine import Engine
from rtdecode.errors import ConfigError, EncodeError, StampError
from rtdecode.heads.base import Head
from rtdecode.heads.build import build_heads
from rtdecode.heads.outputs import HeadOutput
from rtdecode.result import Result, Status, Timing
from rtdecode.signal import Channel, Chunk, Marker, StreamInfo, check_stamps
from rtdecode.stream.condition import Conditioner, window_conditioner
from rtdecode.stream.finite import hold_finite
from rtdecode.stream.segment import TIE, Due, Segment
from rtdecode.stream.steps import WindowStep
from rtdecode.stream.window import Locked, WindowSpec

__all__ = ["Decoder", "Result", "Status", "Timing"]

#: Seconds of conditioned samples kept beyond the longest window: how long a marker may come after its samples.
HISTORY_S = 10.0

#: Longest piece of a chunk that is conditioned and cut at once, in seconds; bounds the ring, changes no result.
BLOCK_S = 0.5


class Decoder:
    """Decodes one stream with one encoder.

    Parameters
    ----------
    columns : sequence of int
        Columns of the stream that the conditioning chain takes, in its order.
    channels : sequence of Channel
        Those channels.
    n_stream_channels : int
        Columns of the stream.
    sfreq : float
        The stream's rate in Hz.
    conditioner : Conditioner
        The stream steps.
    window_steps : sequence of WindowStep
        The window steps.
    windows : sequence of Sliding or Locked
        Which windows to cut; all as long as the encoder's input.
    engine : Engine
        Runs the encoder.
    heads : sequence of Head
        What is made of its outputs.
    clock : callable, optional
        Returns host-clock seconds, for `Result.timing`. Without one nothing is timed.
    history_s : float
        Seconds of conditioned samples kept beyond the longest window.

    Raises
    ------
    ConfigError
        A sliding window hops by less than a sample.

    Notes
    -----
    Two laws hold, whatever the timing. However the same samples are cut into chunks, and in whatever order markers come
    before the watermark passes them, the windows and their payloads are the same, byte for byte. And every due window
    gives exactly one result: a sliding window when its last sample is in (or has turned out to be missing), a
    marker-locked one when, besides, the watermark has passed its marker.
    """

    def __init__(
        self,
        *,
        columns: Sequence[int],
        channels: Sequence[Channel],
        n_stream_channels: int,
        sfreq: float,
        conditioner: Conditioner,
        window_steps: Sequence[WindowStep],
        windows: Sequence[WindowSpec],
        engine: Engine,
        heads: Sequence[Head],
        clock: Callable[[], float] | None = None,
        history_s: float = HISTORY_S,
    ) -> None:
        for window in windows:
            if (fault := window.fault(conditioner.sfreq)) is not None:
                raise ConfigError(fault)
        self.conditioner = conditioner
        self.engine = engine
        self.heads = tuple(heads)
        self.windows = tuple(windows)
        self.counts: Counter[Status] = Counter()
        self._columns = np.asarray(columns, np.intp)
        self._takes_all = list(columns) == list(range(n_stream_channels))
        self._channels = tuple(channels)
        self._n_stream_channels = n_stream_channels
        self._sfreq = sfreq
        self._clock = clock if clock is not None else _no_clock
        self._window_steps = {
            window.name: window_conditioner(window_steps, window, conditioner) for window in self.windows
        }
        self._lengths = {window.name: window.n_samples(conditioner.sfreq) for window in self.windows}
        self._block = max(1, math.floor(BLOCK_S * sfreq))
        longest = max(self._lengths.values()) / conditioner.sfreq + BLOCK_S + history_s
        self._capacity = math.ceil(longest * conditioner.sfreq) + 2
        self._segments: list[Segment] = []
        self._markers: list[Marker] = []
        self._watermark = -math.inf
        self._finite = np.zeros(len(self._columns), np.float32)
        self._begun = np.zeros(len(self._columns), np.bool_)  # channels that had a finite sample since the last hole
        self._loss: str | None = None

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        info: StreamInfo,
        engine: Engine,
        *,
        channels: Literal["strict", "by-name"] = "strict",
        windows: Sequence[WindowSpec] = (),
        clock: Callable[[], float] | None = None,
        history_s: float = HISTORY_S,
    ) -> Self:
        """Build the decoder that a bundle describes, for one stream.

        Parameters
        ----------
        bundle : Bundle
            The model.
        info : StreamInfo
            What the stream declares.
        engine : Engine
            Runs the bundle's encoder.
        channels : {"strict", "by-name"}
            Whether the stream must offer exactly the contract's channels in their order, or they are picked by name.
        windows : sequence of Sliding or Locked
            Instead of the bundle's own; of the same length.
        clock, history_s
            As for the class.

        Raises
        ------
        ContractError
            The stream does not meet the contract: the channel, unit or rate at fault is named.
        ConfigError
            `windows` are not as long as the bundle's, or one hops by less than a sample.
        """
        manifest = bundle.manifest
        columns = check_contract(info, manifest.contract, channels)
        picked = tuple(info.channels[at] for at in columns)
        conditioner = bundle.conditioner()
        expected = manifest.windows[0].n_samples(conditioner.sfreq)
        for window in windows:
            if (found := window.n_samples(conditioner.sfreq)) != expected:
                raise ConfigError(
                    f"window {window.name!r} has {found} samples at {conditioner.sfreq:g} Hz; the encoder of "
                    f"{bundle.source} takes {expected} ({expected / conditioner.sfreq:g} s)"
                )
        return cls(
            columns=columns,
            channels=picked,
            n_stream_channels=len(info.channels),
            sfreq=manifest.contract.sfreq,
            conditioner=conditioner,
            window_steps=manifest.conditioning.window,
            windows=windows or manifest.windows,
            engine=engine,
            heads=build_heads(bundle),
            clock=clock,
            history_s=history_s,
        )

    # --- in -----------------------------------------------------------------------------------------------------------

    def push(
        self, chunk: Chunk | None, markers: Iterable[Marker] = (), marker_watermark: float = -math.inf
    ) -> list[Result]:
        """Take samples and markers; give the result of every window that this makes due.

        Parameters
        ----------
        chunk : Chunk or None
            The next samples. A jump in the index is a hole; another segment number a new segment.
        markers : iterable of Marker
            In any order, before or after their samples.
        marker_watermark : float
            Every marker with a stamp up to this one has been given by now. It never goes back; a marker that comes
            after the watermark has passed it gives `skipped: late marker`.

        Returns
        -------
        list of Result
            In the order in which the windows became due.

        Raises
        ------
        StampError
            Wrong shapes or types, stamps that do not increase, or an index that goes back.
        """
        results: list[Result] = []
        for marker in markers:
            if marker.stamp <= self._watermark:
                results += self._late(marker)
            else:
                heapq.heappush(self._markers, marker)
        self._watermark = max(self._watermark, marker_watermark)
        if chunk is None or not len(chunk):
            return results + self._cut()
        chunk.check(self._n_stream_channels)
        results += self._open(chunk)
        check_stamps(chunk.stamps[:1], chunk.first_index, self._segments[-1].last_stamp)
        for start in range(0, len(chunk), self._block):
            self._append(chunk, start, min(start + self._block, len(chunk)))
            results += self._cut()
        return results

    def lost(self, reason: str) -> None:
        """Say that samples between the last chunk and the next were lost on our side: they count as `skipped`."""
        self._loss = reason

    def finish(self) -> list[Result]:
        """Give what is still due, now that the stream has ended; windows whose samples never came are `gap`."""
        results: list[Result] = []
        if not self._segments:
            while self._markers:
                results += self._late(heapq.heappop(self._markers), "gap", "no samples came")
            return results
        newest = self._segments[-1]
        while self._markers:
            self._place(heapq.heappop(self._markers))
        newest.end("gap", "the stream ended inside the window", cut_short=False)
        self._watermark = math.inf
        return results + self._cut()

    # --- segments -----------------------------------------------------------------------------------------------------

    def _open(self, chunk: Chunk) -> list[Result]:
        """Make the segment and the index ready for a chunk: a new segment, a hole, or nothing to do."""
        flaw, reason = ("skipped", self._loss) if self._loss is not None else ("gap", "")
        self._loss = None
        newest = self._segments[-1] if self._segments else None
        if newest is None or chunk.segment != newest.number:
            return self._new_segment(newest, chunk, flaw, reason or "the stream was interrupted inside the window")
        if chunk.first_index < newest.next_index:
            raise StampError(
                f"a chunk begins at index {chunk.first_index} of segment {chunk.segment}; expected "
                f"{newest.next_index} or later: samples are never given twice"
            )
        if chunk.first_index > newest.next_index:
            missing = chunk.first_index - newest.next_index
            reason = reason or f"{missing} samples are missing before index {chunk.first_index}"
            output = self.conditioner.outputs_before(chunk.first_index)
            newest.skip(chunk.first_index, output, "skipped" if flaw == "skipped" else "gap", reason)
            self._restart(chunk.first_index, output)
        return []

    def _new_segment(self, newest: Segment | None, chunk: Chunk, flaw: str, reason: str) -> list[Result]:
        results: list[Result] = []
        if newest is not None:
            if chunk.segment < newest.number:
                raise StampError(f"a chunk of segment {chunk.segment} came after segment {newest.number} had begun")
            # Its stamps may lie before the last ones: a sender that was restarted may come back with another clock.
            left = newest.end("skipped" if flaw == "skipped" else "gap", reason, cut_short=True)
            results = [self._result(newest, due) for due in left]
        output = self.conditioner.outputs_before(chunk.first_index)
        self._restart(chunk.first_index, output)
        self._segments.append(
            Segment(
                chunk.segment,
                self.windows,
                sfreq=self._sfreq,
                ratio=self.conditioner.ratio,
                conditioned_sfreq=self.conditioner.sfreq,
                channels=[channel.name for channel in self._channels],
                n_conditioned=len(self.conditioner.channels),
                first_index=chunk.first_index,
                first_output=output,
                capacity=self._capacity,
            )
        )
        return results

    def _restart(self, index: int, output: int) -> None:
        """Nothing that was learnt from the samples before a hole may colour those after it."""
        self.conditioner.restart(index)
        self.engine.restart(output)
        self._finite[:] = 0
        self._begun[:] = False

    # --- samples and markers ------------------------------------------------------------------------------------------

    def _append(self, chunk: Chunk, start: int, stop: int) -> None:
        samples = chunk.samples[start:stop]
        if not self._takes_all:
            samples = samples[:, self._columns]
        bad = None
        if not np.isfinite(samples).all():
            samples, bad = hold_finite(samples, self._finite)
        self._finite[:] = samples[-1]
        segment = self._segments[-1]
        conditioned = self._condition(samples, bad, segment.next_index)
        first = self.conditioner.outputs_before(segment.next_index)
        segment.append(chunk.stamps[start:stop], chunk.arrived, conditioned, bad)
        if len(conditioned):
            self.engine.advance(conditioned, first)

    def _condition(
        self, samples: NDArray[np.float32], bad: NDArray[np.bool_] | None, index: int
    ) -> NDArray[np.float32]:
        """Condition; begin anew where a channel has its first finite sample.

        Zeros stood in its place, and the step from there to an amplifier's offset would ring in the filters long after
        the last window that is an artifact.
        """
        if self._begun.all():
            return self.conditioner.push(samples)
        finite = np.ones(samples.shape, np.bool_) if bad is None else ~bad
        firsts = finite.argmax(axis=0)[finite.any(axis=0) & ~self._begun]
        self._begun |= finite.any(axis=0)
        parts = []
        begin = 0
        for row in np.unique(firsts).tolist():
            parts.append(self.conditioner.push(samples[begin:row]))
            self.conditioner.restart(index + row)
            begin = row
        return np.concatenate([*parts, self.conditioner.push(samples[begin:])])

    def _place(self, marker: Marker) -> None:
        """Give a marker to the segment on whose samples it falls: the newest that had begun half a sample after it."""
        half = (0.5 + TIE) / self._sfreq
        for at in range(len(self._segments) - 1, 0, -1):
            begun = marker.stamp >= self._segments[at].first_stamp - half
            if begun or marker.stamp > self._segments[at - 1].last_stamp + half:
                self._segments[at].add(marker)
                return
        self._segments[0].add(marker)

    def _late(self, marker: Marker, flaw: str = "skipped", reason: str = "late marker") -> list[Result]:
        for segment in reversed(self._segments):
            if marker.stamp >= segment.first_stamp or segment is self._segments[0]:
                return [self._result(segment, due) for due in segment.late(marker)]
        return [
            self._count(
                Result(
                    window=window.name,
                    segment=-1,
                    start=-1,
                    length=self._lengths[window.name],
                    sfreq=self.conditioner.sfreq,
                    status=Status(flaw),
                    reason=reason,
                    marker=marker,
                )
            )
            for window in self.windows
            if isinstance(window, Locked) and window.matches(marker.value)
        ]

    # --- out ----------------------------------------------------------------------------------------------------------

    def _cut(self) -> list[Result]:
        if not self._segments:
            return []
        newest = self._segments[-1]
        while self._markers and self._markers[0].stamp <= newest.last_stamp:
            self._place(heapq.heappop(self._markers))
        results = [self._result(segment, due) for segment in self._segments for due in segment.due(self._watermark)]
        # An old segment is let go when no marker can fall on it any more.
        while len(self._segments) > 1 and not self._segments[0].waiting:
            if self._watermark <= self._segments[0].last_stamp + 1 / self._sfreq:
                break
            del self._segments[0]
        return results

    def _result(self, segment: Segment, due: Due) -> Result:
        name = due.spec.name
        at = self._clock()
        status, reason = Status.OK, ""
        outputs: Mapping[str, NDArray[np.float32]] = {}
        heads: tuple[HeadOutput, ...] = ()
        encoded = math.nan
        if due.samples is None:
            status, reason = Status(due.flaw or "failed"), due.reason
        else:
            try:
                outputs = self.engine.finish(self._window_steps[name](due.samples), due.start)
                encoded = self._clock()
                heads = tuple(head(outputs) for head in self.heads)
            except EncodeError as error:
                status, reason, outputs, heads = Status.FAILED, str(error), {}, ()
        return self._count(
            Result(
                window=name,
                segment=segment.number,
                start=due.start,
                length=self._lengths[name],
                sfreq=self.conditioner.sfreq,
                status=status,
                reason=reason,
                marker=due.marker,
                outputs=outputs,
                heads=heads,
                timing=Timing(due.stamp, due.arrived, at, encoded),
            )
        )

    def _count(self, result: Result) -> Result:
        self.counts[result.status] += 1
        return result


def _no_clock() -> float:
    return math.nan
