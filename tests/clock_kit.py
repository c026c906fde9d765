"""Feeds a clock, and lays out what came of it sample by sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.given import Piece
from rtdecode.clock.stream_clock import StreamClock


@dataclass
class Told:
    """Sample by sample, in the order in which they came; and the pieces, with how many samples had come before each."""

    stamps: NDArray[np.float64]
    index: NDArray[np.int64]
    segment: NDArray[np.int64]
    uncertainty: NDArray[np.float64]
    pieces: list[tuple[int, Piece]]

    @property
    def holes(self) -> list[tuple[int, Piece]]:
        """The pieces that say that samples are missing."""
        return [(at, piece) for at, piece in self.pieces if piece.missing]

    def corrected(self) -> NDArray[np.int64]:
        """Indices as they are in the end: what was invalidated is counted anew."""
        index = self.index.copy()
        for at, piece in self.pieces:
            if piece.invalidates is not None:
                late = (np.arange(len(index)) < at) & (index >= piece.invalidates) & (self.segment == piece.segment)
                index[late] = -1
        return index


def feed(clock: StreamClock, stamps: NDArray[np.float64], sizes: Sequence[int] = (10,)) -> Told:
    """Feed stamps in pulls of these sizes, over and over."""
    pieces: list[tuple[int, Piece]] = []
    begin = k = 0
    while begin < len(stamps):
        stop = min(len(stamps), begin + sizes[k % len(sizes)])
        given = clock.stamped(stamps[begin:stop])
        assert [p.begin for p in given] == [0, *(p.stop for p in given[:-1])]
        assert given[-1].stop == stop - begin
        pieces += [(begin + p.begin, p) for p in given]
        begin, k = stop, k + 1
    return lay_out(pieces)


def lay_out(pieces: list[tuple[int, Piece]]) -> Told:
    """Sample by sample."""
    only = [piece for _, piece in pieces]
    each = [len(p.stamps) for p in only]
    return Told(
        np.concatenate([p.stamps for p in only]),
        np.concatenate([p.first_index + np.arange(len(p.stamps)) for p in only]),
        np.repeat([p.segment for p in only], each),
        np.repeat([p.uncertainty for p in only], each),
        pieces,
    )


def increasing(told: Told) -> bool:
    """Whether stamps increase within each segment."""
    return bool(((np.diff(told.stamps) > 0) | (np.diff(told.segment) > 0)).all())
