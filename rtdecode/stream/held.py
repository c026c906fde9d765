"""Chunks that wait for the next ones, as long as no window waits for either."""

import math

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Chunk
from rtdecode.stream.rows import STAMP, Rows, join

#: How long samples may wait for others. To begin with any costs as much as a hundred samples do, after a pause.
HOLD_S = 0.1


class Held:
    """Keeps consecutive chunks, to be taken together.

    What is decoded does not depend on how samples are cut. So those by which no window is due may wait, and are
    conditioned with the next ones; the last chunk before a window's end does not, so that only that end is left then.

    Parameters
    ----------
    columns : ndarray of int, or None
        Columns of the chunks that are taken; None takes all.
    most : int
        Samples that may wait.
    """

    def __init__(self, columns: NDArray[np.intp] | None, most: int) -> None:
        #: Raw samples of the segment with which a window may be due. Until then samples may wait.
        self.due_at = -math.inf
        #: Whether any may wait. What an encoder does while it listens may take longer than a window's end can wait.
        self.patient = True
        self._columns = columns
        self._most = most
        self._chunks: list[Chunk] = []
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def fits(self, chunk: Chunk) -> bool:
        """Whether a chunk that follows may wait."""
        n = len(chunk)
        return self.patient and n > 0 and chunk.first_index + 2 * n < self.due_at and self._n + n <= self._most

    def put(self, chunk: Chunk) -> None:
        """One more, that follows those before."""
        self._chunks.append(chunk)
        self._n += len(chunk)

    def take(self) -> Rows:
        """All that wait, at least one, in one piece."""
        chunks, self._chunks, self._n = self._chunks, [], 0
        return join([self.rows(chunk) for chunk in chunks])

    def rows(self, chunk: Chunk) -> Rows:
        """A chunk as it goes on."""
        samples = chunk.samples if self._columns is None else chunk.samples[:, self._columns]
        times = np.empty((len(chunk), 3))
        times[:] = (math.nan, chunk.arrived, chunk.uncertainty)
        times[:, STAMP] = chunk.stamps
        return Rows(samples, times)
