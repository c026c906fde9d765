"""A ring whose cost is that of the chunk written, and whose windows are contiguous views."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Ring:
    """The newest `capacity` rows of a stream, addressed by their index in it.

    Every row is written twice, `capacity` rows apart, so that any run of up to `capacity` rows lies in one piece
    somewhere: a write costs O(rows written), a view costs nothing, and neither depends on the capacity.

    Parameters
    ----------
    capacity : int
        Rows kept.
    n_columns : int
        Columns of a row.
    dtype : dtype
        Of the values.
    first_index : int
        Index of the first row that will be written.
    """

    def __init__(self, capacity: int, n_columns: int, dtype: DTypeLike = np.float32, first_index: int = 0) -> None:
        self.capacity = capacity
        self._rows: NDArray[Any] = np.zeros((2 * capacity, n_columns), dtype)
        self._first = self._next = first_index

    @property
    def next_index(self) -> int:
        """Index of the row that will be written next."""
        return self._next

    @property
    def oldest_index(self) -> int:
        """Index of the oldest row that can still be viewed."""
        return max(self._first, self._next - self.capacity)

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows, shape (n, columns). Of more than `capacity` rows only the newest are kept."""
        n = len(rows)
        if n > self.capacity:
            self._next += n - self.capacity
            rows = rows[n - self.capacity :]
            n = self.capacity
        at = self._next % self.capacity
        head = min(n, self.capacity - at)
        self._rows[at : at + head] = rows[:head]
        self._rows[at + self.capacity : at + self.capacity + head] = rows[:head]
        if head < n:
            self._rows[: n - head] = rows[head:]
            self._rows[self.capacity : self.capacity + n - head] = rows[head:]
        self._next += n

    def skip(self, n: int) -> None:
        """Count `n` rows that never came. What a view of them shows is undefined."""
        self._next += n

    def rewind(self, index: int) -> None:
        """Take rows from `index` on back. Rows before them may be gone: `skip` or `write` as many at least."""
        self._next = index

    def view(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) as a read-only, contiguous view; the next writes may change it.

        Raises
        ------
        IndexError
            Some of these rows are not there yet, or not there any more.
        """
        if not self.oldest_index <= start <= stop <= self._next:
            raise IndexError(f"rows [{start}, {stop}) asked for; the ring holds [{self.oldest_index}, {self._next})")
        at = start % self.capacity
        view = self._rows[at : at + stop - start]
        view.flags.writeable = False
        return view
