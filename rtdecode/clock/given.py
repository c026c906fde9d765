"""What a clock gives: pieces of a pull, their indices, segments and even stamps."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import even_stamps

#: Stamps of a segment increase, by this part of a period at least.
CLOSEST = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Consecutive samples of one pull, of one segment, with no hole in between.

    Parameters
    ----------
    begin, stop : int
        Which of the pull's samples.
    first_index, segment : int
        As in `Chunk`.
    stamps : ndarray of float64, shape (stop - begin,)
        Host time in seconds, made by `even_stamps`; increasing, also from piece to piece of a segment.
    uncertainty : float
        Half-width of their error in seconds.
    invalidates : int or None
        As in `Chunk`.
    missing : int
        Samples missing before it in this segment, that earlier pieces did not say.
    why : str
        Why it begins a segment or follows a hole, for people; else empty.
    """

    begin: int
    stop: int
    first_index: int
    segment: int
    stamps: NDArray[np.float64]
    uncertainty: float
    invalidates: int | None = None
    missing: int = 0
    why: str = ""


class Given:
    """Keeps count of what was given, and of what is to be said with the next piece."""

    def __init__(self) -> None:
        self.segment = -1
        self.next_segment("")

    def next_segment(self, why: str) -> None:
        """The next piece begins another segment."""
        self.segment += 1
        self.index = 0  # of the next sample
        self._newest = -math.inf
        self._missing = 0
        self._invalidates: int | None = None
        self.why = why

    def jump(self, missing: int, low: int | None, why: str) -> None:
        """Samples are missing before the next piece, or before `low`, which was given as if they were not."""
        if low is not None and low < self.index:
            self._invalidates = low if self._invalidates is None else min(low, self._invalidates)
        self.index += missing
        self._missing += missing
        self.why = why

    def piece(self, begin: int, stop: int, ends: tuple[float, float], period: float, uncertainty: float) -> Piece:
        """Give these samples of a pull: from and to these host times, or later where they would not increase."""
        n = stop - begin
        wanted, end = ends
        first = max(min(wanted, end - (n - 1) * CLOSEST * period), self._newest + CLOSEST * period)
        last = max(end, first + (n - 1) * CLOSEST * period)
        uncertainty += max(abs(first - wanted), last - end)  # nothing where they increase of themselves
        piece = Piece(
            begin,
            stop,
            self.index,
            self.segment,
            even_stamps(first, last, n),
            uncertainty,
            self._invalidates,
            self._missing,
            self.why,
        )
        self.index += n
        self._newest = last
        self._missing, self._invalidates, self.why = 0, None, ""
        return piece
