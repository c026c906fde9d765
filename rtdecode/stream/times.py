"""When each raw sample of a segment was taken and came, and which one a marker falls on."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.stream.ring import Ring
from rtdecode.stream.rows import STAMP

#: Two samples are equally near a marker when their distances differ by less than this share of a period: a marker half
#: way between two samples then falls on the earlier one, whatever the last bits of its stamp.
TIE = 1e-3

Flaw = Literal["gap", "skipped", "artifact"]

#: What is wrong with a place, and why.
Fault = tuple[Flaw, str]


class Times:
    """Stamp, arrival and uncertainty of the newest raw samples.

    Parameters
    ----------
    capacity : int
        Samples kept.
    sfreq : float
        Raw rate in Hz.
    first_index : int
        Raw index of the first sample that is here.
    """

    def __init__(self, capacity: int, sfreq: float, first_index: int) -> None:
        self.first_stamp = math.inf
        self.last_stamp = -math.inf
        self._sfreq = sfreq
        self._first_index = first_index
        self._ring = Ring(capacity, 3, np.float64, first_index)

    @property
    def next_index(self) -> int:
        """Index of the sample that comes next."""
        return self._ring.next_index

    @property
    def oldest_index(self) -> int:
        """Index of the oldest sample that is still known."""
        return self._ring.oldest_index

    def append(self, times: NDArray[np.float64]) -> None:
        """Take the `Rows.times` of consecutive samples; at least one."""
        if math.isinf(self.first_stamp):
            self.first_stamp = float(times[0, STAMP])
        self._ring.write(times)
        self.last_stamp = float(times[-1, STAMP])

    def skip(self, next_index: int) -> None:
        """Samples up to `next_index` never came; their stamps repeat the last one that did."""
        missing = next_index - self.next_index
        filler = np.full((min(missing, self._ring.capacity), 3), self.last_stamp)
        self._ring.skip(missing - len(filler))
        self._ring.write(filler)

    def rewind(self, index: int) -> int:
        """Samples from `index` on were not what they seemed; give the index from which they are taken back.

        The oldest one that is known stays. `skip`, up to where they ended at least, must follow.
        """
        index = min(max(index, self.oldest_index + 1), self.next_index)
        self.last_stamp = float(self._ring.view(index - 1, index)[0, STAMP])
        self._ring.rewind(index)
        return index

    def of(self, index: int) -> tuple[float, float, float]:
        """Stamp, arrival and uncertainty of one sample; NaN where it is not known."""
        if not self.oldest_index <= index < self.next_index:
            return math.nan, math.nan, math.nan
        stamp, arrived, uncertainty = self._ring.view(index, index + 1)[0].tolist()
        return stamp, arrived, uncertainty

    def nearest(self, stamp: float) -> tuple[int, Fault | None]:
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
        oldest = self.oldest_index
        stamps = self._ring.view(oldest, self.next_index)[:, STAMP]
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


def _nearest_whole(samples: float) -> int:
    """Nearest whole number of samples; half way it is the earlier one, within `TIE`."""
    return math.ceil(samples - 0.5 - TIE)
