"""One segment of a stream on its conditioned grid: which windows are due, and what each of them holds."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Marker
from rtdecode.stream.ring import Ring
from rtdecode.stream.window import Locked, Sliding, WindowSpec, round_half_up

#: Two samples are equally near a marker when their distances differ by less than this share of a period: a marker half
#: way between two samples then falls on the earlier one, whatever the last bits of its stamp.
TIE = 1e-3

Flaw = Literal["gap", "skipped", "artifact"]

#: What is wrong with a place, and why.
Fault = tuple[Flaw, str]


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
    flaw: Flaw | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Hole:
    """Conditioned samples [start, stop) that are missing."""

    start: int
    stop: int
    flaw: Flaw
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class _Pending:
    """A marker-locked window that waits for its samples or for the watermark."""

    stop: int
    start: int
    marker: Marker
    order: int
    fault: Fault | None = field(default=None, compare=False)


class _SlidingCursor:
    """The next window of a sliding kind that is not out yet."""

    def __init__(self, window: Sliding, order: int, length: int, sfreq: float, first_output: int) -> None:
        self.window = window
        self.order = order
        self.length = length
        self._step = window.step(sfreq)
        # Windows that begin before the first sample that is here were never due.
        self._n = max(0, math.floor(first_output / self._step) - 1)
        while round_half_up(self._n * self._step) < first_output:
            self._n += 1
        self.start = round_half_up(self._n * self._step)

    @property
    def stop(self) -> int:
        return self.start + self.length

    def advance(self) -> None:
        self._n += 1
        self.start = round_half_up(self._n * self._step)


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
    channels : sequence of str
        Names of the channels before conditioning, for the reasons given.
    n_conditioned : int
        Number of channels after conditioning.
    first_index : int
        Raw index of the first sample that is here.
    first_output : int
        Conditioned index that belongs to it.
    capacity : int
        Conditioned samples kept; must hold the longest window and how long a marker may come after its samples.
    """

    def __init__(
        self,
        number: int,
        windows: Sequence[WindowSpec],
        *,
        sfreq: float,
        ratio: Fraction,
        conditioned_sfreq: float,
        channels: Sequence[str],
        n_conditioned: int,
        first_index: int,
        first_output: int,
        capacity: int,
    ) -> None:
        self.number = number
        self.next_index = first_index
        self.last_stamp = -math.inf
        self.first_stamp = math.inf
        self._windows = tuple(windows)
        self._lengths = tuple(window.n_samples(conditioned_sfreq) for window in windows)
        self._sfreq = sfreq
        self._ratio = ratio
        self._conditioned_sfreq = conditioned_sfreq
        self._channels = tuple(channels)
        self._first_index = first_index
        self._first_output = first_output
        self._ended: tuple[Flaw, str] | None = None
        self._ring = Ring(capacity, n_conditioned, np.float32, first_output)
        # Stamp and arrival of every raw sample, for markers and for the ledger.
        self._times = Ring(math.ceil(capacity / ratio) + 1, 2, np.float64, first_index)
        self._holes: list[_Hole] = []
        self._bad: list[tuple[int, NDArray[np.bool_]]] = []
        self._pending: list[_Pending] = []
        self._sliding = [
            _SlidingCursor(window, order, length, conditioned_sfreq, first_output)
            for order, (window, length) in enumerate(zip(self._windows, self._lengths, strict=True))
            if isinstance(window, Sliding)
        ]

    # --- samples ------------------------------------------------------------------------------------------------------

    def append(
        self,
        stamps: NDArray[np.float64],
        arrived: float,
        conditioned: NDArray[np.float32],
        bad: NDArray[np.bool_] | None,
    ) -> None:
        """Take consecutive samples.

        Parameters
        ----------
        stamps : ndarray of float64, shape (n,)
            Of the raw samples, seconds.
        arrived : float
            When they were in our hands.
        conditioned : ndarray of float32, shape (m, channels)
            What the chain made of them.
        bad : ndarray of bool, shape (n, raw channels), or None
            Which raw samples were not finite.
        """
        if not len(stamps):
            return
        first = self.next_index
        if math.isinf(self.first_stamp):
            self.first_stamp = float(stamps[0])
        times = np.empty((len(stamps), 2))
        times[:, 0] = stamps
        times[:, 1] = arrived
        self._times.write(times)
        self._ring.write(conditioned)
        self.next_index += len(stamps)
        self.last_stamp = float(stamps[-1])
        if bad is not None:
            for row in np.flatnonzero(bad.any(axis=1)):
                # The conditioned samples that this raw sample is the newest of; with a lower rate, the next one.
                start = math.ceil((first + int(row)) * self._ratio)
                stop = max(math.ceil((first + int(row) + 1) * self._ratio), start + 1)
                self._bad += [(output, bad[row]) for output in range(start, stop)]

    def skip(self, next_index: int, next_output: int, flaw: Flaw, reason: str) -> None:
        """Note a hole: raw samples up to `next_index`, conditioned ones up to `next_output`, never came."""
        start = self._ring.next_index
        # A hole shorter than one conditioned period still parts the sample before it from the one after it.
        self._holes.append(_Hole(start, max(next_output, start + 1), flaw, reason))
        self._ring.skip(next_output - start)
        missing = next_index - self.next_index
        filler = np.full((min(missing, self._times.capacity), 2), self.last_stamp)
        self._times.skip(missing - len(filler))
        self._times.write(filler)
        self.next_index = next_index

    # --- markers ------------------------------------------------------------------------------------------------------

    def add(self, marker: Marker) -> None:
        """Queue the windows of a marker whose stamp is not after this segment's newest sample (or never will be)."""
        for order, start, fault in self._locked(marker):
            stop = start + self._lengths[order]
            heapq.heappush(self._pending, _Pending(stop, start, marker, order, fault))

    def _locked(self, marker: Marker) -> list[tuple[int, int, Fault | None]]:
        """Order, start and fault (of the marker's place) of each window that hangs on this marker."""
        index, fault = self._nearest(marker.stamp)
        anchor = round_half_up(index * self._ratio)
        return [
            (order, anchor + window.offset(self._conditioned_sfreq), fault)
            for order, window in enumerate(self._windows)
            if isinstance(window, Locked) and window.matches(marker.value)
        ]

    def _nearest(self, stamp: float) -> tuple[int, Fault | None]:
        """Raw index of the sample nearest to a stamp, and what is wrong with it where none is near."""
        if math.isinf(self.first_stamp):
            return self._first_index, ("gap", "the marker's segment holds no samples")
        half = 0.5 + TIE
        if stamp < self.first_stamp:
            ahead = (self.first_stamp - stamp) * self._sfreq
            if ahead <= half:
                return self._first_index, None
            return self._first_index + _nearest_whole(-ahead), (
                "gap",
                "the marker lies before the segment's first sample",
            )
        if stamp > self.last_stamp:
            after = (stamp - self.last_stamp) * self._sfreq
            if after <= half:
                return self.next_index - 1, None
            return self.next_index - 1 + _nearest_whole(after), (
                "gap",
                "the marker lies after the segment's last sample",
            )
        oldest = self._times.oldest_index
        stamps = self._times.view(oldest, self._times.next_index)[:, 0]
        if stamp < stamps[0]:
            before = (float(stamps[0]) - stamp) * self._sfreq
            return oldest + _nearest_whole(-before), ("skipped", "its samples are no longer kept")
        right = int(np.searchsorted(stamps, stamp, side="left"))
        before = float(stamps[max(right - 1, 0)])
        # Where samples are missing their stamps repeat the last one that came; the first of equals is that sample.
        left = int(np.searchsorted(stamps, before, side="left"))
        to_left, to_right = (stamp - before) * self._sfreq, (float(stamps[right]) - stamp) * self._sfreq
        index = oldest + (right if right == left or to_right < to_left - TIE else left)
        in_hole = right - left > 1 and min(to_left, to_right) > half
        return index, ("gap", "the marker lies in a gap") if in_hole else None

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

    def end(self, flaw: Flaw, reason: str, *, cut_short: bool) -> list[Due]:
        """Nothing follows in this segment.

        Parameters
        ----------
        flaw, reason : str
            What becomes of windows that this leaves incomplete.
        cut_short : bool
            Whether samples are missing after it, so that the sliding windows that had begun touch a gap; at the end
            of a recording they were never due.

        Returns
        -------
        list of Due
            Those sliding windows. Marker-locked ones come from `due`, when the watermark passes their markers.
        """
        self._ended = (flaw, reason)
        left: list[Due] = []
        for cursor in self._sliding if cut_short else ():
            while cursor.start < self._ring.next_index:
                left.append(self._flawed(cursor.window, cursor.start, None, flaw, reason))
                cursor.advance()
        return left

    @property
    def waiting(self) -> bool:
        """Whether marker-locked windows are still open."""
        return bool(self._pending)

    def late(self, marker: Marker) -> list[Due]:
        """The windows of a marker that came after the watermark had passed it: one `skipped` each."""
        return [
            self._flawed(self._windows[order], start, marker, "skipped", "late marker")
            for order, start, _ in self._locked(marker)
        ]

    def _cut_pending(self, pending: _Pending) -> Due:
        window = self._windows[pending.order]
        if pending.fault is not None:
            return self._flawed(window, pending.start, pending.marker, *pending.fault)
        if self._ended is not None and pending.stop > self._ring.next_index:
            return self._flawed(window, pending.start, pending.marker, *self._ended)
        return self._cut(window, pending.start, self._lengths[pending.order], pending.marker)

    def _cut(self, window: WindowSpec, start: int, length: int, marker: Marker | None) -> Due:
        stop = start + length
        if start < self._first_output:
            before = (self._first_output - start) / self._conditioned_sfreq
            return self._flawed(window, start, marker, "gap", f"begins {before:.3f} s before the first sample")
        for hole in self._holes:
            if hole.start < stop and start < hole.stop:
                return self._flawed(window, start, marker, hole.flaw, hole.reason)
        if start < self._ring.oldest_index:
            return self._flawed(window, start, marker, "skipped", "its samples are no longer kept")
        if (reason := self._artifact(start, stop)) is not None:
            return self._flawed(window, start, marker, "artifact", reason)
        stamp, arrived = self._time_of(stop - 1)
        return Due(window, self.number, start, marker, self._ring.view(start, stop), stamp, arrived)

    def _flawed(self, window: WindowSpec, start: int, marker: Marker | None, flaw: Flaw, reason: str) -> Due:
        stamp, arrived = self._time_of(start + window.n_samples(self._conditioned_sfreq) - 1)
        return Due(window, self.number, start, marker, None, stamp, arrived, flaw, reason)

    def _artifact(self, start: int, stop: int) -> str | None:
        rows = [mask for at, mask in self._bad if start <= at < stop]
        if not rows:
            return None
        counts = np.sum(rows, axis=0)
        names = [f"{self._channels[at]} ({counts[at]})" for at in np.flatnonzero(counts)]
        return f"samples that are not finite: {', '.join(names)}"

    def _time_of(self, output: int) -> tuple[float, float]:
        """Stamp and arrival of the raw sample that completed a conditioned one; NaN where it never came."""
        index = math.floor(output / self._ratio)
        if not self._times.oldest_index <= index < self._times.next_index:
            return math.nan, math.nan
        if any(hole.start <= output < hole.stop for hole in self._holes):
            return math.nan, math.nan
        stamp, arrived = self._times.view(index, index + 1)[0]
        return float(stamp), float(arrived)

    def _forget(self) -> None:
        oldest = self._ring.oldest_index
        if self._holes and self._holes[0].stop <= oldest:
            self._holes = [hole for hole in self._holes if hole.stop > oldest]
        if self._bad and self._bad[0][0] < oldest:
            self._bad = [item for item in self._bad if item[0] >= oldest]


def _nearest_whole(samples: float) -> int:
    """Nearest whole number of samples; half way it is the earlier one, within `TIE`."""
    return math.ceil(samples - 0.5 - TIE)
