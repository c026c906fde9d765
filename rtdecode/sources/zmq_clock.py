"""Host time for messages that count their samples, with stamps or without, on a clock that may be any."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.holes import APART_S
from rtdecode.clock.offset import ClockOffset
from rtdecode.signal import Offset, even_stamps

#: A sender's stamps that stray further than this from what its own count says show a clock that was set.
STEP_S = 0.5
#: The delay between a stamp and its arrival is measured over this many seconds...
_DELAYS_S = 30.0
#: ... and each measurement is the least delay of this many seconds.
_DELAY_BLOCK_S = 0.5
#: What is not known of the least delay: a sender that stamps, and a network of one's own.
_FLOOR_S = 1e-3
#: Seconds between two notes of where the sender's clock stands.
_NOTE_EVERY_S = 5.0
#: Messages whose place in time is remembered, for markers that name a sample.
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Samples of one message, placed in time: as in `rtdecode.signal.Chunk`."""

    first_index: int
    segment: int
    stamps: NDArray[np.float64]
    uncertainty: float


@dataclass(frozen=True, slots=True)
class _Part:
    index: int
    n: int
    first: float
    last: float


class SenderClock:
    """The clock of one sender at a time.

    Where the sender's clock is this host's, its stamps are taken as they are. Otherwise the offset is that of the
    messages which took least time to come: what one hears of a clock that cannot be asked.

    Parameters
    ----------
    sfreq : float
        Nominal rate in Hz.
    """

    def __init__(self, sfreq: float) -> None:
        self._sfreq = sfreq
        self._segment = -1
        self._delays: deque[tuple[float, float]] = deque()
        self._noted_at = -math.inf
        self._newest = -math.inf
        self._shared = False
        self._base: int | None = None
        self._anew()

    def restart(self, *, shared: bool) -> None:
        """Another sender, or the same one from its start: what follows is another segment.

        Parameters
        ----------
        shared : bool
            Its stamps are host time.
        """
        self._shared = shared
        self._anew()
        self._next_segment()

    def _anew(self) -> None:
        self._offset = ClockOffset(same_host=self._shared)
        self._delays.clear()
        self._parts: deque[_Part] = deque(maxlen=_REMEMBERED)
        self._previous: tuple[int, float] | None = None

    def _next_segment(self) -> None:
        self._segment += 1
        self._base = None

    def place(self, index: int, n: int, stamp: float | None, arrived: float) -> Placed:
        """Place the samples of one message in time.

        Parameters
        ----------
        index : int
            The sender's number of the first one; never less than before within one run.
        n : int
            How many.
        stamp : float or None
            Its time on the sender's clock; the count is the clock where there is none.
        arrived : float
            Host time at which they were here.
        """
        first = self.sender_time(index, stamp)
        last = first + (n - 1) / self._sfreq
        if self._previous is not None:
            before, at = self._previous
            if abs(first - at - (index - before) / self._sfreq) > STEP_S + 1e-3 * (first - at):
                self._anew()
                self._next_segment()
            elif (index - before) / self._sfreq > APART_S:
                self._next_segment()
        self._previous = index, first
        self._hear(last, arrived)
        ends = self._offset.to_host(np.array([first, last]))
        begin, end = float(ends[0]), float(ends[1])
        if self._base is None:
            self._base = index
        step = 0.1 / self._sfreq
        begin = max(begin, self._newest + step)
        end = max(end, begin + step * (n - 1))
        self._newest = end
        self._parts.append(_Part(index, n, begin, end))
        return Placed(index - self._base, self._segment, even_stamps(begin, end, n), self.uncertainty)

    def sender_time(self, index: int, stamp: float | None) -> float:
        """Seconds on the sender's clock."""
        return index / self._sfreq if stamp is None else stamp

    @property
    def uncertainty(self) -> float:
        """Half-width of the error of what was placed last, in seconds."""
        return 0.0 if self._shared else self._offset.uncertainty

    @property
    def newest(self) -> float:
        """Host time of the newest sample."""
        return self._newest

    def _hear(self, stamp: float, arrived: float) -> None:
        if self._shared:
            return
        delay = arrived - stamp
        if self._delays and arrived - self._delays[-1][0] < _DELAY_BLOCK_S:
            if delay >= self._delays[-1][1]:
                return
            self._delays.pop()
        self._delays.append((arrived, delay))
        while arrived - self._delays[0][0] > _DELAYS_S:
            self._delays.popleft()
        least = min(one for _, one in self._delays)
        self._offset.measured(arrived, delay, delay - least + _FLOOR_S)

    def note(self, now: float) -> Offset | None:
        """Where the sender's clock stands, now and then."""
        if self._previous is None or now - self._noted_at < _NOTE_EVERY_S:
            return None
        self._noted_at = now
        part = self._parts[-1]
        return Offset(0, now, part.first - self._previous[1], self.uncertainty)

    def at_stamp(self, stamp: float) -> float | None:
        """Host time of a moment on the sender's clock; None before the first samples came."""
        if self._shared:
            return stamp
        if self._previous is None:
            return None
        return stamp + self._parts[-1].first - self._previous[1]

    def own_time(self, stamp: float) -> float:
        """Sender's time of a moment of host time, as far as it has samples."""
        assert self._previous is not None
        return stamp - self._parts[-1].first + self._previous[1]

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
                    return part.first + (index - part.index) / self._sfreq
                return behind.first - (behind.index - index) / self._sfreq
            behind = part
        raise LookupError(index)
