"""The one clock of a live source: stamps or counters of a sender in, even host stamps, indices and segments out.

How a source composes it::

    clock = StreamClock(sfreq)                      # sender and host share a clock, or stamps are host time already
    clock = StreamClock(sfreq, offset=ClockOffset())  # offset.measured(...) may be called from another thread

    pieces = clock.stamped(stamps)                  # a sender that stamps each sample (LSL)
    pieces = clock.stamped(stamps, number=first)    # ... and numbers them too (number of the first sample of the pull)
    pieces = clock.counted(first, n, arrived)       # a sender that only numbers them (FieldTrip): fitted to arrival
    clock.restart()                                 # the sender is a new one: the next piece begins a segment

    for piece in pieces:
        Chunk(samples[piece.begin : piece.stop], piece.stamps, piece.first_index, piece.segment, arrived,
              piece.uncertainty, piece.invalidates)

See docs/clock.md for the model.
"""

import math

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.counted import Counted
from rtdecode.clock.given import Given, Piece
from rtdecode.clock.heard import HeardOffset
from rtdecode.clock.offset import ClockOffset
from rtdecode.clock.stamped import Stamped
from rtdecode.errors import StampError

__all__ = ["Piece", "StreamClock"]


class StreamClock:
    """Even host stamps for the samples of one sender.

    Not to be called from two threads at once; `ClockOffset.measured` may be.

    Parameters
    ----------
    sfreq : float
        Nominal rate in Hz; the true one may differ by 5 %.
    offset : ClockOffset or HeardOffset, optional
        Maps the sender's clock to the host's; without it they are one.
    """

    def __init__(self, sfreq: float, offset: ClockOffset | HeardOffset | None = None) -> None:
        self._nominal = 1.0 / sfreq
        self._offset: ClockOffset | HeardOffset = offset if offset is not None else ClockOffset(same_host=True)
        self._given = Given()
        self._sender: Stamped | Counted | None = None

    @property
    def period(self) -> float:
        """Seconds per sample, as fitted."""
        return self._nominal if self._sender is None else self._sender.period

    @property
    def jitter(self) -> float:
        """Seconds: 95 of 100 stamps lie closer to the line; for a sender that counts, half the spread of arrivals."""
        return 0.0 if self._sender is None else self._sender.jitter

    @property
    def segment(self) -> int:
        """Of the next sample."""
        return self._given.segment

    def restart(self, offset: ClockOffset | HeardOffset | None = None) -> None:
        """Begin another segment: what follows comes from another sender, or from one that began anew."""
        self._offset = offset if offset is not None else self._offset
        self._given.next_segment("the sender began anew")
        self._sender = None

    def stamped(self, stamps: NDArray[np.float64], number: int | None = None) -> list[Piece]:
        """Take one pull of consecutive samples.

        Parameters
        ----------
        stamps : ndarray of float64, shape (n,)
            The sender's own, in seconds; they may repeat or run backwards by their jitter.
        number : int, optional
            The sender's number of the first one, where it counts its samples. Holes are then what the numbers say, and
            a step of the stamps that they do not explain is a clock that was set.

        Returns
        -------
        list of Piece
            They cover the pull, in order.

        Raises
        ------
        StampError
            A stamp is not a number.
        """
        if not len(stamps):
            return []
        if not isinstance(self._sender, Stamped):
            if self._sender is not None:
                self._given.next_segment("the sender stamps now")
            self._sender = Stamped(self._given, self._nominal, self._offset)
        return self._sender.take(stamps, number)

    def counted(self, number: int, n: int, arrived: float) -> list[Piece]:
        """Take one pull of a sender that numbers its samples and stamps none.

        Time is fitted to arrival. What arrives can only be late, so that what lies above the line weighs less; a delay
        that is always there stays in the stamps.

        Parameters
        ----------
        number : int
            The sender's number of the first sample; one that goes back is a restart.
        n : int
            How many samples came.
        arrived : float
            Host time at which the last one was in our hands.

        Returns
        -------
        list of Piece
            One, or none where `n` is 0.

        Raises
        ------
        StampError
            `arrived` is not a number.
        """
        if not math.isfinite(arrived):
            raise StampError(f"sample {number + n - 1} arrived at {arrived}; expected seconds")
        if n <= 0:
            return []
        if not isinstance(self._sender, Counted):
            if self._sender is not None:
                self._given.next_segment("the sender stamps no more")
            self._sender = Counted(self._given, self._nominal)
        return [self._sender.take(number, n, arrived)]
