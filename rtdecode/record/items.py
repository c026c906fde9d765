"""What waits in the recorder's queues, and how much it is."""

from collections.abc import Mapping
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
