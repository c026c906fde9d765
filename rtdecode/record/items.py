"""What waits in the recorder's queues, and how much it is."""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Batch


@dataclass(frozen=True, slots=True)
class Result:
    """A published window: its line of JSON, when it was published, and the arrays that get streams of their own."""

    pipeline: str
    line: str
    stamp: float
    arrays: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Line:
    """An event or another message, as a line of JSON."""

    line: str
    stamp: float


def samples_of(item: Batch | Line) -> int:
    """Samples of the data stream; those that are recorded and not decoded as well."""
    if not isinstance(item, Batch):
        return 0
    return len(item.chunk) if item.chunk is not None else sum(len(raw.stamps) for raw in item.raw if raw.stream == 0)


def size_of(batch: Batch) -> int:
    """Bytes that a batch holds in memory, near enough."""
    size = 200 + 100 * len(batch.markers)
    if batch.chunk is not None:
        size += batch.chunk.samples.nbytes + batch.chunk.stamps.nbytes
    for raw in batch.raw:
        size += raw.stamps.nbytes
        size += raw.values.nbytes if isinstance(raw.values, np.ndarray) else sum(map(len, raw.values))
    return size


class ResultQueue:
    """Messages of the pipelines that wait for the disk. Any thread may put them, one takes them.

    The oldest of too many, or of too many bytes, are dropped and counted: they can be had again, by a replay.

    Parameters
    ----------
    n_most : int
        Messages.
    bytes_most : int
        Bytes of their lines and arrays.
    """

    def __init__(self, n_most: int, bytes_most: int) -> None:
        self._n_most, self._bytes_most = n_most, bytes_most
        self._items: deque[Result | Line] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self.lost = 0

    def put(self, item: Result | Line) -> None:
        """One more, the newest."""
        with self._lock:
            self._items.append(item)
            self._bytes += _bytes_of(item)
            self._bound()

    def take(self) -> Result | Line | None:
        """The oldest; None where there is none."""
        with self._lock:
            if not self._items:
                return None
            item = self._items.popleft()
            self._bytes -= _bytes_of(item)
            return item

    def give_back(self, items: Sequence[Result | Line]) -> None:
        """Those that were taken last, the oldest first."""
        with self._lock:
            self._items.extendleft(reversed(items))
            self._bytes += sum(map(_bytes_of, items))
            self._bound()

    def drop(self) -> None:
        """One that was taken cannot be recorded."""
        with self._lock:
            self.lost += 1

    def _bound(self) -> None:
        while len(self._items) > self._n_most or (self._bytes > self._bytes_most and len(self._items) > 1):
            self._bytes -= _bytes_of(self._items.popleft())
            self.lost += 1


def _bytes_of(item: Result | Line) -> int:
    arrays = item.arrays.values() if isinstance(item, Result) else ()
    return len(item.line) + sum(array.nbytes for array in arrays)
