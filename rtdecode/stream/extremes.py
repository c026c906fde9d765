"""Highest and lowest values over any stretch of samples, at a cost that hardly grows with its length."""

import numpy as np
from numpy.typing import NDArray

from rtdecode.stream.ring import Ring

#: Samples that are summed up in one block, counted from the start of the segment.
BLOCK = 32

Extreme = tuple[NDArray[np.float32], NDArray[np.float32]]


class _Summed:
    """The highest and lowest of each block, and the samples themselves for a stretch's two ends; NaN is nothing."""

    def __init__(self, n_channels: int, capacity: int, first_index: int) -> None:
        self._rows = Ring(capacity + BLOCK, n_channels, np.float32, first_index)
        n_blocks = capacity // BLOCK + 3
        self._high = Ring(n_blocks, n_channels, np.float32, first_index // BLOCK)
        self._low = Ring(n_blocks, n_channels, np.float32, first_index // BLOCK)

    def push(self, samples: NDArray[np.float32]) -> None:
        # In pieces, so that no block leaves the ring before it is summed up.
        for at in range(0, len(samples), BLOCK):
            self._rows.write(samples[at : at + BLOCK])
            while (self._high.next_index + 1) * BLOCK <= self._rows.next_index:
                start = self._high.next_index * BLOCK
                rows = self._rows.view(max(start, self._rows.oldest_index), start + BLOCK)
                self._high.write(np.fmax.reduce(rows, axis=0)[None])
                self._low.write(np.fmin.reduce(rows, axis=0)[None])

    def skip(self, next_index: int) -> None:
        # Blocks that a hole touches lie in no stretch that anybody asks for.
        self._rows.skip(next_index - self._rows.next_index)
        blocks = next_index // BLOCK - self._high.next_index
        self._high.skip(blocks)
        self._low.skip(blocks)

    def between(self, start: int, stop: int) -> Extreme:
        first, last = -(-start // BLOCK), stop // BLOCK
        if first >= last:
            rows = self._rows.view(start, stop)
            return np.fmax.reduce(rows, axis=0), np.fmin.reduce(rows, axis=0)
        ends = [self._rows.view(start, first * BLOCK), self._rows.view(last * BLOCK, stop)]
        high = np.fmax.reduce(np.concatenate([self._high.view(first, last), *ends]), axis=0)
        low = np.fmin.reduce(np.concatenate([self._low.view(first, last), *ends]), axis=0)
        return high, low


class Extremes:
    """Highest and lowest values of each channel, and those at which it stood still.

    Parameters
    ----------
    n_channels : int
    capacity : int
        Samples that can be looked back on.
    first_index : int
        Of the first sample.
    still : int, optional
        Equal samples in a row that count as standing still; not looked for where None.
    """

    def __init__(self, n_channels: int, capacity: int, first_index: int = 0, still: int | None = None) -> None:
        self._all = _Summed(n_channels, capacity, first_index)
        self._stood = None if still is None else _Summed(n_channels, capacity, first_index)
        self._still = still or 0
        self._last = np.full(n_channels, np.nan, np.float32)
        self._run = np.zeros(n_channels, np.int64)

    def push(self, samples: NDArray[np.float32]) -> None:
        """Take consecutive samples, shape (n, channels); NaN counts as absent."""
        self._all.push(samples)
        if self._stood is not None:
            self._stood.push(np.where(self._runs(samples) >= self._still, samples, np.float32(np.nan)))

    def skip(self, next_index: int) -> None:
        """Samples up to `next_index` never came."""
        self._all.skip(next_index)
        if self._stood is not None:
            self._stood.skip(next_index)
        self._last[:] = np.nan

    def between(self, start: int, stop: int) -> Extreme:
        """Highest and lowest of samples [start, stop), of each channel; NaN where all are."""
        return self._all.between(start, stop)

    def rails(self, start: int, stop: int) -> Extreme:
        """The same over those samples alone that end `still` equal ones within the stretch; NaN where none do."""
        assert self._stood is not None
        start += self._still - 1
        if start >= stop:
            none = np.full(len(self._last), np.nan, np.float32)
            return none, none
        return self._stood.between(start, stop)

    def _runs(self, samples: NDArray[np.float32]) -> NDArray[np.int64]:
        """How many equal samples in a row end at each one."""
        before = np.concatenate([self._last[None], samples[:-1]])
        numbers = np.arange(len(samples))[:, None]
        begins = np.maximum.accumulate(np.where(samples == before, -1, numbers), axis=0)
        runs: NDArray[np.int64] = np.where(begins < 0, self._run + numbers + 1, numbers - begins + 1)
        self._last, self._run = samples[-1].copy(), runs[-1]
        return runs
