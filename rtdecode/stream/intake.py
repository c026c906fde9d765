"""What comes in becomes windows: segments, holes, conditioning, markers.

push -> pick -> condition -> segment -> Due
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import StampError
from rtdecode.signal import Channel, Chunk, Marker, check_stamps
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.finite import hold_finite
from rtdecode.stream.segment import TIE, Due, Flaw, Segment
from rtdecode.stream.window import Locked, WindowSpec

#: Longest piece of a chunk that is conditioned and cut at once, in seconds; bounds the ring, changes no result.
BLOCK_S = 0.5


class Listener(Protocol):
    """Who hears every conditioned sample: the encoder, which may work while it listens."""

    def restart(self, first_index: int) -> None:
        """Forget all state: the next conditioned sample is `first_index` and follows a gap (or nothing)."""
        ...

    def advance(self, samples: NDArray[np.float32], first_index: int) -> None:
        """Take conditioned samples, shape (n, channels), in order, as they come."""
        ...


class Intake:
    """Takes samples and markers; gives every window when it is due.

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
    windows : sequence of Sliding or Locked
        Which windows to cut.
    listener : Listener
        Hears every conditioned sample.
    history_s : float
        Seconds of conditioned samples kept beyond the longest window.
    """

    def __init__(
        self,
        *,
        columns: Sequence[int],
        channels: Sequence[Channel],
        n_stream_channels: int,
        sfreq: float,
        conditioner: Conditioner,
        windows: Sequence[WindowSpec],
        listener: Listener,
        history_s: float,
    ) -> None:
        self._conditioner = conditioner
        self._listener = listener
        self._windows = tuple(windows)
        self._columns = np.asarray(columns, np.intp)
        self._takes_all = list(columns) == list(range(n_stream_channels))
        self._channels = tuple(channels)
        self._n_stream_channels = n_stream_channels
        self._sfreq = sfreq
        self._block = max(1, math.floor(BLOCK_S * sfreq))
        longest = max(window.n_samples(conditioner.sfreq) for window in self._windows) / conditioner.sfreq
        self._capacity = math.ceil((longest + BLOCK_S + history_s) * conditioner.sfreq) + 2
        self._segments: list[Segment] = []
        self._markers: list[Marker] = []
        self._watermark = -math.inf
        self._finite = np.zeros(len(self._columns), np.float32)
        self._begun = np.zeros(len(self._columns), np.bool_)  # channels that had a finite sample since the last hole
        self._loss: str | None = None

    def push(self, chunk: Chunk | None, markers: Iterable[Marker], watermark: float) -> Iterator[Due]:
        """Take samples and markers, as `Decoder.push` does; give the windows that this makes due.

        Each window's samples lie in a ring: use or copy them before the next one is asked for.
        """
        for marker in markers:
            if marker.stamp <= self._watermark:
                yield from self._late(marker)
            else:
                heapq.heappush(self._markers, marker)
        self._watermark = max(self._watermark, watermark)
        if chunk is None or not len(chunk):
            yield from self._cut()
            return
        chunk.check(self._n_stream_channels)
        yield from self._open(chunk)
        check_stamps(chunk.stamps[:1], chunk.first_index, self._segments[-1].last_stamp)
        for start in range(0, len(chunk), self._block):
            self._append(chunk, start, min(start + self._block, len(chunk)))
            yield from self._cut()

    def lost(self, reason: str) -> None:
        """Say that samples between the last chunk and the next were lost on our side: they count as `skipped`."""
        self._loss = reason

    def finish(self) -> Iterator[Due]:
        """Give what is still due, now that the stream has ended; windows whose samples never came are `gap`."""
        if not self._segments:
            while self._markers:
                yield from self._late(heapq.heappop(self._markers), "gap", "no samples came")
            return
        newest = self._segments[-1]
        while self._markers:
            self._place(heapq.heappop(self._markers))
        newest.end("gap", "the stream ended inside the window", cut_short=False)
        self._watermark = math.inf
        yield from self._cut()

    # --- segments -----------------------------------------------------------------------------------------------------

    def _open(self, chunk: Chunk) -> list[Due]:
        """Make the segment and the index ready for a chunk: a new segment, a hole, or nothing to do."""
        flaw: Flaw = "gap" if self._loss is None else "skipped"
        reason, self._loss = self._loss or "", None
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
            output = self._conditioner.outputs_before(chunk.first_index)
            newest.skip(chunk.first_index, output, flaw, reason)
            self._restart(chunk.first_index, output)
        return []

    def _new_segment(self, newest: Segment | None, chunk: Chunk, flaw: Flaw, reason: str) -> list[Due]:
        left: list[Due] = []
        if newest is not None:
            if chunk.segment < newest.number:
                raise StampError(f"a chunk of segment {chunk.segment} came after segment {newest.number} had begun")
            # Its stamps may lie before the last ones: a sender that was restarted may come back with another clock.
            left = newest.end(flaw, reason, cut_short=True)
        output = self._conditioner.outputs_before(chunk.first_index)
        self._restart(chunk.first_index, output)
        self._segments.append(
            Segment(
                chunk.segment,
                self._windows,
                sfreq=self._sfreq,
                ratio=self._conditioner.ratio,
                conditioned_sfreq=self._conditioner.sfreq,
                channels=[channel.name for channel in self._channels],
                n_conditioned=len(self._conditioner.channels),
                first_index=chunk.first_index,
                first_output=output,
                capacity=self._capacity,
            )
        )
        return left

    def _restart(self, index: int, output: int) -> None:
        """Nothing that was learnt from the samples before a hole may colour those after it."""
        self._conditioner.restart(index)
        self._listener.restart(output)
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
        first = self._conditioner.outputs_before(segment.next_index)
        segment.append(chunk.stamps[start:stop], chunk.arrived, conditioned, bad)
        if len(conditioned):
            self._listener.advance(conditioned, first)

    def _condition(
        self, samples: NDArray[np.float32], bad: NDArray[np.bool_] | None, index: int
    ) -> NDArray[np.float32]:
        """Condition; begin anew where a channel has its first finite sample.

        Zeros stood in its place, and the step from there to an amplifier's offset would ring in the filters long after
        the last window that is an artifact.
        """
        if self._begun.all():
            return self._conditioner.push(samples)
        finite = np.ones(samples.shape, np.bool_) if bad is None else ~bad
        firsts = finite.argmax(axis=0)[finite.any(axis=0) & ~self._begun]
        self._begun |= finite.any(axis=0)
        parts = []
        begin = 0
        for row in np.unique(firsts).tolist():
            parts.append(self._conditioner.push(samples[begin:row]))
            self._conditioner.restart(index + row)
            begin = row
        return np.concatenate([*parts, self._conditioner.push(samples[begin:])])

    def _place(self, marker: Marker) -> None:
        """Give a marker to the segment on whose samples it falls: the newest that had begun half a sample after it."""
        half = (0.5 + TIE) / self._sfreq
        for at in range(len(self._segments) - 1, 0, -1):
            begun = marker.stamp >= self._segments[at].first_stamp - half
            if begun or marker.stamp > self._segments[at - 1].last_stamp + half:
                self._segments[at].add(marker)
                return
        self._segments[0].add(marker)

    def _late(self, marker: Marker, flaw: Flaw = "skipped", reason: str = "late marker") -> Iterator[Due]:
        for segment in reversed(self._segments):
            if marker.stamp >= segment.first_stamp or segment is self._segments[0]:
                yield from segment.late(marker)
                return
        for window in self._windows:
            if isinstance(window, Locked) and window.matches(marker.value):
                yield Due(window, -1, -1, marker, None, math.nan, math.nan, flaw, reason)

    def _cut(self) -> Iterator[Due]:
        if not self._segments:
            return
        newest = self._segments[-1]
        while self._markers and self._markers[0].stamp <= newest.last_stamp:
            self._place(heapq.heappop(self._markers))
        for segment in self._segments:
            yield from segment.due(self._watermark)
        # An old segment is let go when no marker can fall on it any more.
        while len(self._segments) > 1 and not self._segments[0].waiting:
            if self._watermark <= self._segments[0].last_stamp + 1 / self._sfreq:
                break
            del self._segments[0]
