"""Host time for messages that count their samples, with stamps or without, on a clock that may be any."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.heard import HeardOffset
from rtdecode.clock.offset import ClockOffset
from rtdecode.clock.stream_clock import Piece, StreamClock
from rtdecode.signal import Offset

#: Seconds between two notes of where the sender's clock stands.
_NOTE_EVERY_S = 5.0
#: Pieces whose place in time is remembered, for markers that name a sample.
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class _Part:
    """Samples from number `index` on, the host time of the first, and the seconds from each to the next."""

    index: int
    n: int
    first: float
    step: float


class SenderClock:
    """The clock of one sender at a time.

    A sender that stamps by this host's clock is taken at its word. The offset of another clock is learned from the
    messages that took least time to come, which is all that can be heard of a clock that cannot be asked: what every
    message takes stays in the stamps. Where there are no stamps, the count is the clock, fitted to arrival.

    Parameters
    ----------
    sfreq : float
        Nominal rate in Hz.
    """

    def __init__(self, sfreq: float) -> None:
        self._sfreq = sfreq
        self._clock: StreamClock | None = None
        self._noted_at = -math.inf
        self._uncertainty = 0.0

    def restart(self, *, shared: bool) -> None:
        """Another sender, or the same one from its start: what follows is another segment.

        Parameters
        ----------
        shared : bool
            Its stamps are host time.
        """
        self._shared = shared
        self._offset: ClockOffset | HeardOffset = ClockOffset(same_host=True) if shared else HeardOffset()
        self._parts: deque[_Part] = deque(maxlen=_REMEMBERED)
        self._own = math.nan  # sender's time of the first sample of the newest part; nan without stamps
        if self._clock is None:
            self._clock = StreamClock(self._sfreq, self._offset)
        else:
            self._clock.restart(self._offset)

    def place(self, index: int, stamps: NDArray[np.float64] | None, n: int, arrived: float) -> list[Piece]:
        """Place the samples of one message in time.

        Parameters
        ----------
        index : int
            The sender's number of the first one; never less than before within one run.
        stamps : ndarray of float64, shape (n,), or None
            Their times on the sender's clock.
        n : int
            How many.
        arrived : float
            Host time at which they were here.
        """
        assert self._clock is not None
        if stamps is None:
            pieces = self._clock.counted(index, n, arrived)
        else:
            if isinstance(self._offset, HeardOffset):
                self._offset.heard(float(stamps[-1]), arrived)
            pieces = self._clock.stamped(stamps, number=index)
        for piece in pieces:
            first = float(piece.stamps[0])
            n_there = piece.stop - piece.begin
            step = (float(piece.stamps[-1]) - first) / (n_there - 1) if n_there > 1 else 1 / self._sfreq
            self._parts.append(_Part(index + piece.begin, n_there, first, step))
            self._own = math.nan if stamps is None else float(stamps[piece.begin])
            self._uncertainty = piece.uncertainty
        return pieces

    def note(self, now: float) -> Offset | None:
        """Where the sender's clock stands, now and then."""
        if not self._parts or now - self._noted_at < _NOTE_EVERY_S:
            return None
        self._noted_at = now
        return Offset(0, now, self._parts[-1].first - self._own_newest(), self._uncertainty)

    def _own_newest(self) -> float:
        """Sender's time of the newest part's first sample; the count is the clock where there are no stamps."""
        return self._parts[-1].index / self._sfreq if math.isnan(self._own) else self._own

    @property
    def stamps(self) -> bool:
        """Whether the sender has a clock that moments can be told by; False before its first samples."""
        return not math.isnan(self._own)

    def at_stamp(self, stamp: float) -> float:
        """Host time of a moment on the sender's clock."""
        return self._offset.to_host(stamp)

    def own_time(self, stamp: float) -> float:
        """Sender's time of a moment of host time."""
        return stamp - self._parts[-1].first + self._own_newest()

    def at_index(self, index: int) -> float | None:
        """Host time of a sample of this run; of one that was lost, by those around it. None where it has not come yet.

        Raises
        ------
        LookupError
            It came so long ago that it is not known any more.
        """
        if not self._parts or index >= self._parts[-1].index + self._parts[-1].n:
            return None
        behind: _Part | None = None
        for part in reversed(self._parts):
            if part.index <= index:
                if index < part.index + part.n or behind is None:
                    return part.first + (index - part.index) * part.step
                return behind.first - (behind.index - index) / self._sfreq
            behind = part
        raise LookupError(index)
