"""One segment of a stream on its conditioned grid: which windows are due, and what each of them holds."""

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Marker
from rtdecode.stream.incidents import Gap, WindowRef
from rtdecode.stream.quality import Quality, Watch
from rtdecode.stream.ring import Ring
from rtdecode.stream.rows import Rows
from rtdecode.stream.times import Fault, Flaw, Times
from rtdecode.stream.window import Locked, Sliding, SlidingCursor, WindowSpec, round_half_up


@dataclass(frozen=True, slots=True, eq=False)
class Due:
    """A window that is due.

    Parameters
    ----------
    spec : Sliding or Locked
        Which window of the pipeline.
    segment : int
        Number of its segment; -1 where no samples came at all.
    start : int
        First conditioned sample, counted from the segment's start.
    marker : Marker or None
        The marker of a marker-locked window.
    samples : ndarray of float32, shape (time, channels), or None
        A view into the ring, valid until more samples are appended; None where `flaw` says why there is none.
    stamp : float
        Stamp of its newest sample in seconds; NaN where that sample never came.
    arrived : float
        When that sample was in our hands (host time); NaN in a replay.
    uncertainty : float
        Half-width of the stamp's error in seconds.
    quality : Quality or None
        What is wrong with its samples, as far as that alone does not keep it from being decoded; of an artifact, why.
    flaw : {"gap", "skipped", "artifact"} or None
        Why it cannot be decoded.
    reason : str
        The same in words.
    """

    spec: WindowSpec
    segment: int
    start: int
    marker: Marker | None
    samples: NDArray[np.float32] | None
    stamp: float
    arrived: float
    uncertainty: float
    quality: Quality | None = None
    flaw: Flaw | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Hole:
    """Conditioned samples [start, stop) that are missing."""

    start: int
    stop: int
    flaw: Flaw
    reason: str
    gap: Gap | None = None


@dataclass(frozen=True, slots=True, order=True)
class _Pending:
    """A marker-locked window that waits for its samples or for the watermark."""

    stop: int
    start: int
    marker: Marker
    order: int
    fault: Fault | None = field(default=None, compare=False)


class Segment:
    """Samples of one segment, the windows cut from them, and the markers that fall on them.

    Parameters
    ----------
    number : int
        The segment's number in the stream.
    windows : sequence of Sliding or Locked
        What to cut.
    sfreq : float
        Raw rate in Hz.
    ratio : Fraction
        Conditioned rate over raw rate.
    conditioned_sfreq : float
        Conditioned rate in Hz.
    n_conditioned : int
        Number of channels after conditioning.
    first_index : int
        Raw index of the first sample that is here.
    first_output : int
        Conditioned index that belongs to it.
    capacity : int
        Conditioned samples kept; must hold the longest window and how long a marker may come after its samples.
    watch : Watch
        Fresh; follows the raw samples.
    """

    def __init__(
        self,
        number: int,
        windows: Sequence[WindowSpec],
        *,
        sfreq: float,
        ratio: Fraction,
        conditioned_sfreq: float,
        n_conditioned: int,
        first_index: int,
        first_output: int,
        capacity: int,
        watch: Watch,
    ) -> None:
        self.number = number
        self.times = Times(math.ceil(capacity / ratio) + 1, sfreq, first_index)
        self._windows = tuple(windows)
        self._lengths = tuple(window.n_samples(conditioned_sfreq) for window in windows)
        self._half = 0.5 / sfreq
        self._ratio = ratio
        self._conditioned_sfreq = conditioned_sfreq
        self._first_index = first_index
        self._first_output = first_output
        self._ended: tuple[Flaw, str, Gap | None] | None = None
        self._ring = Ring(capacity, n_conditioned, np.float32, first_output)
        self._watch = watch
        self._holes: list[_Hole] = []
        self._seams: list[tuple[int, str]] = []
        self._pending: list[_Pending] = []
        self._out: deque[tuple[int, WindowRef]] = deque()  # sound windows that were given, with where they stop
        self._sliding = [
            SlidingCursor(window, order, length, conditioned_sfreq, first_output)
            for order, (window, length) in enumerate(zip(self._windows, self._lengths, strict=True))
            if isinstance(window, Sliding)
        ]

    # --- samples ------------------------------------------------------------------------------------------------------

    @property
    def next_index(self) -> int:
        """Raw index of the sample that comes next."""
        return self.times.next_index

    @property
    def next_stop(self) -> float:
        """Conditioned samples that there must be before the next sliding window is due; infinite without any."""
        return min((cursor.stop for cursor in self._sliding), default=math.inf)

    def append(self, rows: Rows, conditioned: NDArray[np.float32], bad: NDArray[np.bool_] | None) -> None:
        """Take consecutive samples, at least one.

        Parameters
        ----------
        rows : Rows
            Raw.
        conditioned : ndarray of float32, shape (m, channels)
            What the chain made of them.
        bad : ndarray of bool, shape (n, raw channels), or None
            Which raw samples were not finite.
        """
        self.times.append(rows.times)
        self._ring.write(conditioned)
        self._watch.push(rows, bad)

    def skip(self, next_index: int, next_output: int, flaw: Flaw, reason: str, gap: Gap | None = None) -> Counter[str]:
        """Note a hole: raw samples up to `next_index`, conditioned ones up to `next_output`, never came.

        Returns
        -------
        Counter of str
            Sliding windows that it will have cost, by name; those that touch an earlier hole too are not counted.
        """
        start = self._ring.next_index
        # A hole shorter than one conditioned period still parts the sample before it from the one after it.
        hole = _Hole(start, max(next_output, start + 1), flaw, reason, gap)
        earlier = self._holes[-1].stop if self._holes else 0
        cost: Counter[str] = Counter()
        for cursor in self._sliding:
            if n := cursor.coming(max(hole.start - cursor.length + 1, earlier), hole.stop):
                cost[cursor.window.name] += n
        self._holes.append(hole)
        self._ring.skip(next_output - start)
        self.times.skip(next_index)
        self._watch.skip(next_index)
        return cost

    def rewind(self, index: int, outputs_before: Callable[[int], int], reason: str) -> list[WindowRef]:
        """A hole was found late: raw samples from `index` on are not what they seemed. `skip` must follow.

        Parameters
        ----------
        index : int
            The first of them.
        outputs_before : callable
            Conditioned samples that the raw ones before an index determine.
        reason : str
            For windows of markers that were placed by them.

        Returns
        -------
        list of WindowRef
            Windows that were given as sound, and hold such samples or hang on a marker that was placed by them.
        """
        output = outputs_before(self.times.rewind(index))
        self._ring.rewind(output)
        last = self.times.last_stamp + self._half
        self._pending = [
            replace(one, fault=one.fault or ("gap", reason)) if one.marker.stamp > last else one
            for one in self._pending
        ]
        given, self._out = self._out, deque()
        wrong: list[WindowRef] = []
        for stop, ref in given:
            misplaced = ref.marker is not None and ref.marker.stamp > last
            if stop > output or misplaced:
                wrong.append(ref)
            else:
                self._out.append((stop, ref))
        return wrong

    def seam(self, output: int, reason: str) -> None:
        """Filters and encoder began anew at a conditioned sample; windows across it are artifacts."""
        self._seams.append((output, reason))

    # --- markers ------------------------------------------------------------------------------------------------------

    def add(self, marker: Marker) -> list[tuple[int, NDArray[np.float32]]]:
        """Queue the windows of a marker whose stamp is not after this segment's newest sample (or never will be).

        Gives, of each that is sound so far, its first conditioned sample and what is here of its samples (a view).
        """
        begun = []
        for order, start, fault in self._locked(marker):
            stop = start + self._lengths[order]
            heapq.heappush(self._pending, _Pending(stop, start, marker, order, fault))
            here = self._ring.next_index
            sound = fault is None and self._ended is None and self._touched(start, stop) is None
            if sound and start >= max(self._first_output, self._ring.oldest_index):
                begun.append((start, self._ring.view(min(start, here), min(stop, here))))
        return begun

    def _locked(self, marker: Marker) -> list[tuple[int, int, Fault | None]]:
        """Order, start and fault (of the marker's place) of each window that hangs on this marker."""
        index, fault = self.times.nearest(marker.stamp)
        anchor = round_half_up(index * self._ratio)
        return [
            (order, anchor + window.offset(self._conditioned_sfreq), fault)
            for order, window in enumerate(self._windows)
            if isinstance(window, Locked) and window.matches(marker.value)
        ]

    # --- windows ------------------------------------------------------------------------------------------------------

    def due(self, watermark: float) -> list[Due]:
        """Windows that are due now, in order of their last sample.

        A sliding window is due when its last sample is in, or has turned out to be missing; a marker-locked one when,
        besides, the watermark has passed its marker.
        """
        available = self._ring.next_index
        found: list[tuple[int, int, int, Due]] = []
        for cursor in self._sliding:
            while cursor.stop <= available:
                due = self._cut(cursor.window, cursor.start, cursor.length, None)
                found.append((cursor.stop, cursor.order, cursor.start, due))
                cursor.advance()
        waiting: list[_Pending] = []
        while self._pending and (self._ended is not None or self._pending[0].stop <= available):
            pending = heapq.heappop(self._pending)
            if pending.marker.stamp > watermark:
                waiting.append(pending)
            else:
                found.append((pending.stop, pending.order, pending.start, self._cut_pending(pending)))
        for pending in waiting:
            heapq.heappush(self._pending, pending)
        found.sort(key=lambda item: item[:3])
        self._forget()
        return [item[3] for item in found]

    def end(self, flaw: Flaw, reason: str, *, cut_short: bool, gap: Gap | None = None) -> list[Due]:
        """Nothing follows in this segment.

        Parameters
        ----------
        flaw, reason : str
            What becomes of windows that this leaves incomplete.
        cut_short : bool
            Whether samples are missing after it, so that the sliding windows that had begun touch a gap; at the end
            of a recording they were never due.
        gap : Gap, optional
            What they are added to.

        Returns
        -------
        list of Due
            Those sliding windows. Marker-locked ones come from `due`, when the watermark passes their markers.
        """
        self._ended = (flaw, reason, gap)
        left: list[Due] = []
        for cursor in self._sliding if cut_short else ():
            while cursor.start < self._ring.next_index:
                left.append(self._flawed(cursor.window, cursor.start, None, flaw, reason, gap))
                cursor.advance()
        return left

    def waiting(self, before: float = math.inf) -> bool:
        """Whether marker-locked windows that begin before a conditioned sample are still open."""
        return any(pending.start < before for pending in self._pending)

    def late(self, marker: Marker) -> list[Due]:
        """The windows of a marker that came after the watermark had passed it: one `skipped` each."""
        return [
            self._flawed(self._windows[order], start, marker, "skipped", "late marker")
            for order, start, _ in self._locked(marker)
        ]

    def _cut_pending(self, pending: _Pending) -> Due:
        window = self._windows[pending.order]
        if pending.fault is not None:
            hole = self._touched(pending.start, pending.stop)
            return self._flawed(window, pending.start, pending.marker, *pending.fault, hole.gap if hole else None)
        if self._ended is not None and pending.stop > self._ring.next_index:
            return self._flawed(window, pending.start, pending.marker, *self._ended)
        return self._cut(window, pending.start, self._lengths[pending.order], pending.marker)

    def _cut(self, window: WindowSpec, start: int, length: int, marker: Marker | None) -> Due:
        stop = start + length
        if start < self._first_output:
            before = (self._first_output - start) / self._conditioned_sfreq
            return self._flawed(window, start, marker, "gap", f"begins {before:.3f} s before the first sample")
        if (hole := self._touched(start, stop)) is not None:
            return self._flawed(window, start, marker, hole.flaw, hole.reason, hole.gap)
        if start < self._ring.oldest_index:
            return self._flawed(window, start, marker, "skipped", "its samples are no longer kept")
        quality = self._watch.quality(*self._raw(start, stop))
        if quality is not None and len(quality.bad) > self._watch.max_bad:
            return replace(
                self._flawed(window, start, marker, "artifact", self._watch.explain(quality)), quality=quality
            )
        for seam, reason in self._seams:
            if start < seam < stop:
                return replace(self._flawed(window, start, marker, "artifact", reason), quality=quality)
        self._out.append((stop, WindowRef(window.name, self.number, start, marker)))
        times = self._times_of(stop - 1)
        return Due(window, self.number, start, marker, self._ring.view(start, stop), *times, quality=quality)

    def _touched(self, start: int, stop: int) -> _Hole | None:
        """The first hole that a window touches."""
        for hole in self._holes:
            if hole.start < stop and start < hole.stop:
                return hole
        return None

    def _flawed(
        self, window: WindowSpec, start: int, marker: Marker | None, flaw: Flaw, reason: str, gap: Gap | None = None
    ) -> Due:
        if gap is not None:
            gap.lost[window.name] += 1
        times = self._times_of(start + window.n_samples(self._conditioned_sfreq) - 1)
        return Due(window, self.number, start, marker, None, *times, flaw=flaw, reason=reason)

    def _raw(self, start: int, stop: int) -> tuple[int, int]:
        """The raw samples that conditioned ones [start, stop) follow, filters' memory apart."""
        # A raw sample is the newest of conditioned ones; with a lower rate, it goes into the next one.
        first = min(self._raw_index(start), self._raw_index(start - 1) + 1)
        last = self._raw_index(stop - 1)
        return max(first, self._first_index), min(last + 1, self.next_index)

    def _raw_index(self, output: int) -> int:
        """Raw index at which a conditioned sample stands, rounded down; in whole numbers, which is quick."""
        return output * self._ratio.denominator // self._ratio.numerator

    def _times_of(self, output: int) -> tuple[float, float, float]:
        """Stamp, arrival and uncertainty of the raw sample that completed a conditioned one; NaN where none did."""
        if any(hole.start <= output < hole.stop for hole in self._holes):
            return math.nan, math.nan, math.nan
        return self.times.of(self._raw_index(output))

    def _forget(self) -> None:
        oldest = self._ring.oldest_index
        if self._holes and self._holes[0].stop <= oldest:
            self._holes = [hole for hole in self._holes if hole.stop > oldest]
        if self._seams and self._seams[0][0] <= oldest:
            self._seams = [seam for seam in self._seams if seam[0] > oldest]
        while self._out and self._out[0][0] <= oldest:
            self._out.popleft()
        self._watch.forget(self._raw(oldest, oldest + 1)[0])
