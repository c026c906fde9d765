"""The stamps that samples were given, by their counter: an event falls on the very stamp of its sample."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import even_stamps

#: Chunks that are remembered.
_CHUNKS = 4096


class Given:
    """What the newest chunks' samples were stamped.

    Parameters
    ----------
    period : float
        Nominal seconds from sample to sample, for events whose samples were never given.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self._spans: deque[tuple[int, int, float, float]] = deque(maxlen=_CHUNKS)

    def add(self, first: int, stamps: NDArray[np.float64]) -> None:
        """Samples from `first` on, by the counter, were given these evenly spaced stamps."""
        self._spans.append((first, first + len(stamps), float(stamps[0]), float(stamps[-1])))

    def clear(self) -> None:
        """The counter begins anew."""
        self._spans.clear()

    @property
    def newest(self) -> tuple[int, float] | None:
        """Counter and stamp of the newest sample; None before the first."""
        if not self._spans:
            return None
        _, stop, _, last = self._spans[-1]
        return stop - 1, last

    def stamp(self, number: int) -> float:
        """Stamp of a sample in seconds; one that was not given keeps its distance to those that were."""
        later = None
        for first, stop, begin, end in reversed(self._spans):
            if number >= stop:
                return end + (number - stop + 1) * self.period
            if number >= first:
                return float(even_stamps(begin, end, stop - first)[number - first])
            later = begin + (number - first) * self.period
        if later is None:
            raise ValueError("no sample has been given yet")
        return later
