"""What comes in becomes windows: segments, holes, what is done about bad samples, conditioning, markers.

push -> pick -> fill -> blank -> look at quality -> interpolate -> condition -> segment -> Due
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from rtdecode.signal import Channel, Chunk, Marker
from rtdecode.stream.arrivals import Arrivals
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.fill import fill, last_of
from rtdecode.stream.front import Front, Listener
from rtdecode.stream.handling import Handling
from rtdecode.stream.held import HOLD_S, Held
from rtdecode.stream.incidents import Gap, Incident, filled
from rtdecode.stream.quality import Watch
from rtdecode.stream.rows import STAMP, Rows, join
from rtdecode.stream.segment import Due, Segment
from rtdecode.stream.times import TIE, Flaw
from rtdecode.stream.tools import tools
from rtdecode.stream.window import Locked, WindowSpec

#: Longest piece of a chunk that is conditioned and cut at once, in seconds; bounds the ring, changes no result.
BLOCK_S = 0.5


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
    handling : Handling
        What is done about samples that are missing, disturbed or bad.
    hold_s : float
        How long samples may wait for others while no window waits for either, in seconds; changes no result.

    Raises
    ------
    ConfigError, ContractError
        `handling` does not fit the channels.
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
        handling: Handling,
        hold_s: float = HOLD_S,
    ) -> None:
        self._conditioner = conditioner
        self._windows = tuple(windows)
        self._channels = tuple(channels)
        self._sfreq = sfreq
        #: Longest piece of a chunk that is conditioned and cut at once, in samples.
        self.block = max(1, math.floor(BLOCK_S * sfreq))
        longest = max(window.n_samples(conditioner.sfreq) for window in self._windows) / conditioner.sfreq
        self._capacity = math.ceil((longest + BLOCK_S + history_s) * conditioner.sfreq) + 2
        # How far before its marker a window may begin.
        self._reach = max((-window.tmin for window in self._windows if isinstance(window, Locked)), default=-math.inf)
        self._fill = handling.fill
        self._limits = handling.limits
        self._blankers, interpolator, self._known_bad = tools(handling, self._channels, sfreq)
        self._segments: list[Segment] = []
        self._markers: list[Marker] = []
        self._watermark = -math.inf
        self._loss: str | None = None
        ahead = max((-blank.tmin for blank in handling.blanks), default=None)
        self._arrivals = Arrivals(n_stream_channels, ahead)
        self._listener = listener
        self._front = Front(conditioner, listener, len(columns), interpolator, self._known_bad)
        self._next = 0  # raw index after what was taken; the segment's own lags behind while a blank is open
        self._newest: Rows | None = None  # the row before it, with its channels' last finite values
        self._gaps: list[tuple[Gap, Segment]] = []  # those not over, and the segment in which they cost windows
        self._incidents: list[Incident] = []
        takes_all = list(columns) == list(range(n_stream_channels))
        most = min(self.block, math.floor(hold_s * sfreq))
        self._held = Held(None if takes_all else np.asarray(columns, np.intp), most)

    def hold(self, chunk: Chunk | None, markers: Sequence[Marker], watermark: float) -> bool:
        """Let samples wait for the next ones, if no window can be due by them; whether they do. Raises as `push`."""
        if chunk is None or markers or self._loss is not None or not self._held.fits(chunk):
            return False
        if not self._follows(chunk):
            return False
        self._arrivals.check(chunk)
        self._watermark = max(self._watermark, watermark)
        self._held.put(chunk)
        self._next = chunk.stop_index
        return True

    @property
    def wanting(self) -> float:
        """Raw samples that have to come before a window can be due; minus infinity where a marker may say otherwise."""
        return -math.inf if self._reach > -math.inf else self._held.due_at - self._next

    def may_wait(self, patient: bool) -> None:
        """Whether samples may wait for others at all."""
        self._held.patient = patient

    def _follows(self, chunk: Chunk) -> bool:
        """Whether nothing lies between a chunk and what was given before."""
        place = (self.segment, self._next)
        return (chunk.segment, chunk.first_index) == place and chunk.invalidates is None

    def push(self, chunk: Chunk | None, markers: Iterable[Marker], watermark: float) -> Iterator[Due]:
        """Take samples and markers, as `Decoder.push` does; give the windows that this makes due.

        Each window's samples lie in a ring: use or copy them before the next one is asked for.
        """
        if self._held and (markers or chunk is None or not len(chunk)):
            yield from self._append([self._held.take()])
        for marker in markers:
            if marker.stamp <= self._watermark:
                self._not_blanked(marker)
                yield from self._late(marker)
            else:
                heapq.heappush(self._markers, marker)
                for blanker in self._blankers:
                    blanker.mark(marker)
        self._watermark = max(self._watermark, watermark)
        if chunk is not None and len(chunk):
            self._arrivals.put(chunk, self._loss)
            self._loss = None
        yield from self._release()
        if self._blankers or chunk is None or not len(chunk):  # else what the samples made due is out
            yield from self._cut()
        self._held.due_at = self._hold_until()

    def may_take_several(self, chunk: Chunk | None) -> bool:
        """Whether more than one block of samples may be taken when this chunk is pushed."""
        several = chunk is not None and len(self._held) + len(chunk) > self.block
        return several or self._fill is not None or bool(self._blankers)

    @property
    def segment(self) -> int:
        """The newest segment; -1 before there is one."""
        return self._segments[-1].number if self._segments else -1

    def lost(self, reason: str) -> None:
        """Say that samples between the last chunk and the next were lost on our side: they count as `skipped`."""
        self._loss = reason

    def resume(self, segment: int, first: int, stop: int, reason: str) -> Iterator[Due]:
        """Go on where another intake left off: it took samples [first, stop) of a segment.

        Windows that touch those that were not given here are `skipped`. Given now are those that end in them.
        """
        self._held.due_at = -math.inf
        if self._held:
            yield from self._append([self._held.take()])
        self._arrivals.resume(segment, stop)
        yield from self._flush()
        if self.segment != segment:
            for newest in self._segments[-1:]:
                yield from newest.end("skipped", reason, cut_short=True)
            kept = math.ceil(self._capacity / self._conditioner.ratio)  # what ended long ago need not be said again
            self._begin_segment(segment, max(first, stop - kept))
        self._skip_to(stop, reason)
        yield from self._cut()

    def finish(self, *, interrupted: bool = False) -> Iterator[Due]:
        """Give what is still due, now that the stream has ended; windows whose samples never came are `gap`.

        Sliding windows that had begun are among them where the stream was interrupted; at its end they were never due.
        """
        self._watermark, self._held.due_at = math.inf, -math.inf
        if self._held:
            yield from self._append([self._held.take()])
        yield from self._release()
        yield from self._flush()
        if not self._segments:
            while self._markers:
                yield from self._late(heapq.heappop(self._markers), "gap", "no samples came")
            return
        while self._markers:
            self._place(heapq.heappop(self._markers))
        how = "was interrupted" if interrupted else "ended"
        yield from self._segments[-1].end("gap", f"the stream {how} inside the window", cut_short=interrupted)
        yield from self._cut()
        self._incidents += [gap.over() for gap, _ in self._gaps]
        self._gaps = []

    def incidents(self) -> list[Incident]:
        """What happened since the last call."""
        found, self._incidents = self._incidents, []
        return found

    # --- chunks -------------------------------------------------------------------------------------------------------

    def _release(self) -> Iterator[Due]:
        for chunk, loss in self._arrivals.release(self._watermark):
            yield from self._take(chunk, loss)

    def _hold_until(self) -> float:
        """Raw samples with which a window may be due; minus infinity where that may be at once."""
        if self._fill is not None or self._blankers or self._gaps or self._markers or len(self._segments) != 1:
            return -math.inf
        segment = self._segments[0]
        if segment.waiting():
            return -math.inf
        stop = segment.next_stop
        return stop if math.isinf(stop) else self._conditioner.last_without(int(stop)) + 1

    def _take(self, chunk: Chunk, loss: str | None) -> Iterator[Due]:
        rows = self._held.rows(chunk)
        if self._held and self._follows(chunk):
            rows = join([self._held.take(), rows])
        elif self._held:
            yield from self._append([self._held.take()])
        newest = self._segments[-1] if self._segments else None
        if newest is None or chunk.segment != newest.number:
            yield from self._flush()
            yield from self._new_segment(newest, chunk, loss)
        elif chunk.invalidates is not None and chunk.invalidates < self._next:
            yield from self._flush()
            self._rewind(newest, chunk, chunk.invalidates)
        elif chunk.first_index > self._next:
            yield from self._hole(newest, chunk, rows, loss)
        self._next = chunk.stop_index
        if self._fill is not None:
            self._newest = last_of(rows, self._newest)
        yield from self._blank(rows)

    def _blank(self, rows: Rows) -> Iterator[Due]:
        """Through the blankers, one after the other."""
        parts = [rows]
        for blanker in self._blankers:
            parts = [out for part in parts for out in blanker.push(part)]
        yield from self._append(parts)

    def _flush(self) -> Iterator[Due]:
        """The rows after these do not continue them."""
        parts: list[Rows] = []
        for blanker in self._blankers:
            parts = [out for part in parts for out in blanker.push(part)] + blanker.flush()
        yield from self._append(parts)

    # --- holes and segments -------------------------------------------------------------------------------------------

    def _hole(self, segment: Segment, chunk: Chunk, rows: Rows, loss: str | None) -> Iterator[Due]:
        missing = chunk.first_index - self._next
        if self._fill is not None and missing <= self._fill.seconds * self._sfreq + TIE and self._newest is not None:
            before = self._newest
            made = fill(
                self._fill.method, before.samples[-1], rows.samples[0], missing, (before.times[-1], rows.times[0])
            )
            stamps = float(before.times[-1, STAMP]), float(rows.times[0, STAMP])
            self._incidents.append(
                filled(segment.number, self._next, missing, missing / self._sfreq, stamps, self._fill.method)
            )
            yield from self._blank(made)
            return
        yield from self._flush()
        reason = loss or f"{missing} samples are missing before index {chunk.first_index}"
        self._skip(segment, chunk, self._next, missing, "gap" if loss is None else "skipped", reason)

    def _rewind(self, segment: Segment, chunk: Chunk, index: int) -> None:
        """A hole that is found only now: samples that were given already lie behind it."""
        missing = chunk.first_index - self._next
        reason = f"a hole of {missing} samples at index {index} was found late"
        wrong = segment.rewind(index, self._conditioner.outputs_before, reason)
        self._skip(segment, chunk, index, missing, "gap", reason)
        if wrong:
            self._incidents.append(
                Incident(
                    "invalidated",
                    f"{reason}: windows that were given hold samples from behind it",
                    {"segment": segment.number, "index": index, "n": missing, "windows": len(wrong)},
                    tuple(wrong),
                )
            )

    def _skip(self, segment: Segment, chunk: Chunk, index: int, missing: int, flaw: Flaw, reason: str) -> None:
        output = self._conditioner.outputs_before(chunk.first_index)
        before, after = segment.times.last_stamp, float(chunk.stamps[0])
        gap = Gap(segment.number, index, missing, before, after, missing / self._sfreq, output)
        expected = segment.skip(chunk.first_index, output, flaw, reason, gap)
        self._gaps.append((gap, segment))
        self._incidents.append(gap.begin("gap", reason, expected))
        self._restart(chunk.first_index)

    def _new_segment(self, newest: Segment | None, chunk: Chunk, loss: str | None) -> Iterator[Due]:
        output = self._conditioner.outputs_before(chunk.first_index)
        if newest is not None:
            before, after = newest.times.last_stamp, float(chunk.stamps[0])
            seconds = max(0.0, after - before - 1 / self._sfreq)
            gap = Gap(chunk.segment, chunk.first_index, None, before, after, seconds, output)
            flaw: Flaw = "gap" if loss is None else "skipped"
            reason = loss or "the stream was interrupted inside the window"
            left = newest.end(flaw, reason, cut_short=True, gap=gap)
            self._gaps.append((gap, newest))
            self._incidents.append(gap.begin("reconnect", f"segment {chunk.segment} begins", dict(gap.lost)))
            yield from left
        if loss is None:
            self._begin_segment(chunk.segment, chunk.first_index)
        else:  # its first samples came, and were lost on our side
            self._begin_segment(chunk.segment, 0)
            self._skip_to(chunk.first_index, loss)

    def _begin_segment(self, number: int, first_index: int) -> None:
        self._restart(first_index)
        self._next = first_index
        self._segments.append(self._segment(number, first_index, self._conditioner.outputs_before(first_index)))

    def _skip_to(self, index: int, reason: str) -> None:
        """Samples up to `index` of the newest segment came, and were lost on our side."""
        if index > self._next:
            output = self._conditioner.outputs_before(index)
            self._segments[-1].skip(index, output, "skipped", reason)
            self._restart(index)
            self._next = index

    def _segment(self, number: int, first_index: int, output: int) -> Segment:
        ratio = self._conditioner.ratio
        return Segment(
            number,
            self._windows,
            sfreq=self._sfreq,
            ratio=ratio,
            conditioned_sfreq=self._conditioner.sfreq,
            n_conditioned=len(self._conditioner.channels),
            first_index=first_index,
            first_output=output,
            capacity=self._capacity,
            watch=Watch(
                self._limits,
                self._channels,
                self._known_bad,
                first_index=first_index,
                capacity=math.ceil((self._capacity + 2) / ratio),
            ),
        )

    def _restart(self, index: int) -> None:
        self._front.restart(index)
        self._newest = None

    # --- samples ------------------------------------------------------------------------------------------------------

    def _append(self, parts: Iterable[Rows]) -> Iterator[Due]:
        for rows in parts:
            for start in range(0, len(rows), self.block):
                self._add(rows.cut(start, start + self.block))
                yield from self._cut()

    def _add(self, rows: Rows) -> None:
        segment = self._segments[-1]
        conditioned, bad, seams = self._front.push(rows, segment.next_index)
        segment.append(rows, conditioned, bad)
        for index in seams:
            output = self._conditioner.outputs_before(index)
            segment.seam(output, f"a channel began at index {index}, and with it filters and encoder anew")

    # --- markers and windows ------------------------------------------------------------------------------------------

    def _place(self, marker: Marker) -> None:
        """Give a marker to the segment on whose samples it falls: the newest that had begun half a sample after it."""
        half = (0.5 + TIE) / self._sfreq
        for at in range(len(self._segments) - 1, 0, -1):
            begun = marker.stamp >= self._segments[at].times.first_stamp - half
            if begun or marker.stamp > self._segments[at - 1].times.last_stamp + half:
                self._announce(self._segments[at], marker)
                return
        self._announce(self._segments[0], marker)

    def _announce(self, segment: Segment, marker: Marker) -> None:
        """Queue a marker's windows, and tell the encoder of those that lie in what it hears."""
        begun = segment.add(marker)
        if segment is self._segments[-1]:
            for start, samples in begun:
                self._listener.begin(start, samples)

    def _not_blanked(self, marker: Marker) -> None:
        if any(blanker.takes(marker) for blanker in self._blankers):
            self._incidents.append(
                Incident(
                    "not blanked",
                    f"marker {marker.value!r} came after the watermark: the samples around it were not blanked",
                    {"marker": marker.value, "stamp": marker.stamp},
                )
            )

    def _late(self, marker: Marker, flaw: Flaw = "skipped", reason: str = "late marker") -> Iterator[Due]:
        for segment in reversed(self._segments):
            if marker.stamp >= segment.times.first_stamp or segment is self._segments[0]:
                yield from segment.late(marker)
                return
        for window in self._windows:
            if isinstance(window, Locked) and window.matches(marker.value):
                yield Due(window, -1, -1, marker, None, math.nan, math.nan, math.nan, flaw=flaw, reason=reason)

    def _cut(self) -> Iterator[Due]:
        if not self._segments:
            return
        while self._markers and self._markers[0].stamp <= self._segments[-1].times.last_stamp:
            self._place(heapq.heappop(self._markers))
        for segment in self._segments:
            for due in segment.due(self._watermark):
                for gap, _ in self._gaps:
                    gap.note(due.spec.name, due.segment, due.start, due.samples is not None)
                yield due
        if self._gaps:
            self._close()
        # An old segment is let go when no marker can fall on it any more.
        while len(self._segments) > 1 and not self._segments[0].waiting():
            if self._watermark <= self._segments[0].times.last_stamp + 1 / self._sfreq:
                break
            del self._segments[0]

    def _close(self) -> None:
        """Tell which gaps are over: a sound window after it is out, and no other can still touch it."""
        settled = min(self._watermark, self._segments[-1].times.last_stamp)
        left = []
        for gap, segment in self._gaps:
            waiting = segment.waiting(gap.stop if segment.number == gap.segment else math.inf)
            if gap.first is None or waiting or settled < gap.after + self._reach:
                left.append((gap, segment))
            else:
                self._incidents.append(gap.over())
        self._gaps = left
