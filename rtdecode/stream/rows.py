"""Consecutive samples on their way through the steps before conditioning, and what is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Columns of `Rows.times`.
STAMP, ARRIVED, UNCERTAINTY = range(3)

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Consecutive samples of the channels that the conditioning chain takes.

    Parameters
    ----------
    samples : ndarray of float32, shape (n, channels)
        SI units. Nobody writes into them.
    times : ndarray of float64, shape (n, 3)
        Stamp, arrival and the stamp's uncertainty, in seconds.
    filled : ndarray of bool, shape (n,), or None
        Which of them stand in for samples that are missing.
    blanked : ndarray of bool, shape (n,), or None
        Which of them were replaced around a marker.
    """

    samples: NDArray[np.float32]
    times: NDArray[np.float64]
    filled: Flags | None = None
    blanked: Flags | None = None

    def __len__(self) -> int:
        return len(self.times)

    def cut(self, start: int, stop: int) -> "Rows":
        """Rows [start, stop)."""
        if start == 0 and stop >= len(self):
            return self
        return Rows(
            self.samples[start:stop],
            self.times[start:stop],
            None if self.filled is None else self.filled[start:stop],
            None if self.blanked is None else self.blanked[start:stop],
        )


def join(parts: Sequence[Rows]) -> Rows:
    """One after the other; at least one."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([part.samples for part in parts]),
        np.concatenate([part.times for part in parts]),
        _flags([part.filled for part in parts], parts),
        _flags([part.blanked for part in parts], parts),
    )


def _flags(found: Sequence[Flags | None], parts: Sequence[Rows]) -> Flags | None:
    if all(flags is None for flags in found):
        return None
    whole = [
        np.zeros(len(part), np.bool_) if flags is None else flags for flags, part in zip(found, parts, strict=True)
    ]
    return np.concatenate(whole)
