"""What every file reader gives: channels, markers, and pieces of samples between holes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Channel, Marker


@dataclass(frozen=True, slots=True)
class Piece:
    """File samples `start` to `stop`, with no hole between; the first of them has index `first_index`."""

    start: int
    stop: int
    first_index: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Parameters
    ----------
    channels : tuple of Channel
        In SI.
    sfreq : float
        Nominal rate in Hz.
    pieces : sequence of Piece
        In order; at least one.
    markers : sequence of Marker
        In order, stamps in seconds from the first sample.
    declared_by_user : tuple of str
        What the configuration had to add.
    left_out : tuple of str
        Channels of the file that are not read (those at another rate).
    source_id : str
        The recorded device's own identity, where the file has it.
    """

    channels: tuple[Channel, ...]
    sfreq: float
    pieces: Sequence[Piece]
    markers: Sequence[Marker]
    declared_by_user: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    source_id: str = field(default="")


class Reader(Protocol):
    """An open file."""

    contents: Contents

    def samples(self, start: int, stop: int) -> NDArray[np.float32]:
        """File samples `start` to `stop` in SI, shape (n, channels)."""
        ...

    def stamps(self, piece: Piece, start: int, stop: int) -> NDArray[np.float64]:
        """Their stamps in seconds from the first sample of the recording."""
        ...

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        ...


def cut(n_samples: int, holes: Sequence[tuple[int, int, int]]) -> list[Piece]:
    """Pieces of a file of `n_samples`, given its holes.

    Parameters
    ----------
    n_samples : int
        Samples in the file.
    holes : sequence of (int, int, int)
        File samples `start` to `stop` that are no data (padding), and how many samples were missing there beyond
        those. In any order; they may touch or overlap.
    """
    pieces: list[Piece] = []
    begin = index = 0
    for start, stop, missing in sorted(holes):
        start, stop = max(start, begin), min(max(stop, begin), n_samples)
        if start >= n_samples:
            break
        if start > begin:
            pieces.append(Piece(begin, start, index + begin))
        begin = stop
        index += missing
    if begin < n_samples:
        pieces.append(Piece(begin, n_samples, index + begin))
    # The recording's own time begins at its first sample, whatever padding stood before it.
    return [Piece(p.start, p.stop, p.first_index - pieces[0].first_index) for p in pieces]


def index_at(position: float, pieces: Sequence[Piece]) -> float:
    """Where a position in the file (in samples, fractional) lies on the index that holes advance."""
    here = pieces[0]
    for piece in pieces:
        if piece.start <= position + 1e-6:
            here = piece
    return position - here.start + here.first_index
