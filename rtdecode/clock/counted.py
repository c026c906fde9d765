"""Samples that are numbered and not stamped: time fitted to the arrival of their count.

What arrives can only be late. So the rate is that of a line through the arrivals, and the phase is that of the early
ones among the newest; what comes before its time proves the line wrong. A delay that is always there stays in the
stamps: nothing that arrives can tell it.

A sender that loses samples without counting them makes arrivals lag behind its count, lastingly and by an even amount;
one that stood still makes up for it. The first is a hole, found late.
"""

import math
from collections import deque
from dataclasses import dataclass

from rtdecode.clock.given import Given, Piece
from rtdecode.clock.holes import APART_S
from rtdecode.clock.line import Line

#: Pulls whose delays are looked at, and how many must have come before their spread is believed.
PULLS, LEARNED = 100, 8
#: The part of the delays that lies within their spread.
LOW, HIGH = 0.05, 0.95
#: How far the phase moves to the early ones at once, each time that they are looked at.
FOLLOW = 0.25
#: Delays beyond so many spreads, so many periods and so many seconds may be a hole...
SPREADS, PERIODS, LEAST_S = 3.0, 2.0, 0.05
#: ... (seconds, before the spread is known)...
WARM_UP_LEAST_S = 0.5
#: ... where they last for so many seconds and so many pulls, and do not shrink.
LASTING_S, LASTING_PULLS = 1.0, 4
#: Two halves of a lasting delay differ by this part of it at most.
EVEN = 0.1


@dataclass(frozen=True, slots=True)
class _Pull:
    """`n` samples up to index `last`, here at host time `arrived`, `delay` seconds after its time."""

    last: int
    n: int
    arrived: float
    delay: float


class Counted:
    """Even stamps for one sender that counts.

    Parameters
    ----------
    given : Given
        Where the pieces are counted; shared with who else gives of the same stream.
    nominal : float
        Seconds per sample, as declared.
    """

    def __init__(self, given: Given, nominal: float) -> None:
        self._given = given
        self._nominal = nominal
        self._number: int | None = None  # the sender's, of the next sample
        self._fresh()

    def _fresh(self) -> None:
        self._line: Line | None = None
        self._recent: deque[tuple[int, float]] = deque(maxlen=PULLS)  # indices and arrivals
        self._pulls = 0
        self._longest = 0
        self._level = 0.0  # of the early arrivals, above the line
        self._middle = self._width = 0.0  # of the delays
        self._found = False  # a hole
        self._late: list[_Pull] = []  # pulls that may lie behind a hole

    @property
    def period(self) -> float:
        """Seconds per sample, as fitted."""
        return self._nominal if self._line is None else self._line.period

    @property
    def spread(self) -> float:
        """Seconds between the early and the late arrivals (5 and 95 of 100); at first, the longest pull counts too."""
        ignorance = self._longest * self.period / max(1, self._pulls)
        return max(self._width, ignorance)

    @property
    def jitter(self) -> float:
        """Seconds: half the spread."""
        return self.spread / 2

    def _time(self, index: int) -> float:
        assert self._line is not None
        return self._line.at(index) + self._level

    def take(self, number: int, n: int, arrived: float) -> Piece:
        """Place one pull of `n` samples, at least one, from the sender's `number` on, here at host time `arrived`."""
        self._follow(number, n)
        last = self._given.index + n - 1
        if self._line is not None and self._impossible(last, n, arrived):
            self._given.next_segment("samples came late, and fewer were missing than it seemed")
            self._fresh()
            last = n - 1
        if self._line is None:
            self._line = Line(arrived, self._nominal, self._nominal, last)
        if self._pulls < LEARNED:
            self._longest = max(self._longest, n)
        pull = _Pull(last, n, arrived, arrived - self._time(last))
        if pull.delay > self._limit():
            self._late.append(pull)
            self._look_for_hole()
        else:
            for late in self._late:  # only that
                self._fit(late)
            self._late.clear()
            self._fit(pull)
        return self._piece(n, arrived)

    def _follow(self, number: int, n: int) -> None:
        expected, self._number = self._number, number + n
        if expected is None or number == expected:
            return
        if number < expected or (number - expected) * self.period > APART_S:
            why = "the sender's numbers went back" if number < expected else "a break of over an hour"
            self._given.next_segment(why)
            self._fresh()
        else:
            self._given.jump(number - expected, None, "numbers are missing")
            for late in self._late:
                self._fit(late)
            self._late.clear()

    def _impossible(self, last: int, n: int, arrived: float) -> bool:
        """Whether a pull came so early that no samples can have been missing; else the phase is moved to it."""
        early = self._time(last) - arrived
        if early <= self._uncertainty(last):
            return False
        if self._found and early > n * self.period:
            return True
        self._level -= early
        return False

    def _limit(self) -> float:
        if self._pulls < LEARNED:
            return WARM_UP_LEAST_S
        return max(SPREADS * self.spread, PERIODS * self.period, LEAST_S)

    def _look_for_hole(self) -> None:
        """Where the delay lasts and is even, samples are missing, and they were before the first late pull."""
        late = self._late
        if len(late) < LASTING_PULLS or late[-1].arrived - late[0].arrived < LASTING_S:
            return
        assert self._line is not None
        half = len(late) // 2
        delays = [one.delay for one in late]
        least = min(delays)
        if abs(min(delays[:half]) - min(delays[half:])) > max(self.spread, self.period, EVEN * least):
            self._late = late[1:]  # it shrinks or grows: look again at what follows
            return
        size = sorted(delays)[len(delays) // 2] - self._middle
        missing = round(size / self.period)
        low = late[0].last - late[0].n + 1
        self._found = True
        self._given.jump(missing, low, f"arrivals lag behind the count by {size:.3f} s: samples are missing")
        rest = size - missing * self.period
        if abs(rest) > self.spread:
            self._level += rest
        self._late = []
        for one in late:
            self._fit(_Pull(one.last + missing, one.n, one.arrived, one.delay - size))

    def _fit(self, pull: _Pull) -> None:
        assert self._line is not None
        line = self._line
        line.spread = max(self.spread / 2, line.period / 20) if self._pulls >= LEARNED else math.inf
        line.add_one(pull.last, pull.arrived, pull.n)
        self._recent.append((pull.last, pull.arrived))
        self._pulls += 1
        if self._pulls < LEARNED or self._pulls % LEARNED == 0:
            self._look_at_delays(line)

    def _look_at_delays(self, line: Line) -> None:
        ordered = sorted(arrived - line.at(last) for last, arrived in self._recent)
        low, self._middle, high = (ordered[round(part * (len(ordered) - 1))] for part in (LOW, 0.5, HIGH))
        self._width = high - low
        self._level += (low - self._level) * (FOLLOW if self._pulls > LEARNED else 1.0)
        self._middle -= self._level

    def _uncertainty(self, index: int) -> float:
        """Two standard deviations of the line, half the spread of the delays, a period, and a delay that lasts."""
        assert self._line is not None
        lag = min((one.delay for one in self._late), default=0.0)
        return self._line.uncertainty(index) + self.spread / 2 + self.period + lag

    def _piece(self, n: int, arrived: float) -> Piece:
        assert self._line is not None
        line, index = self._line, self._given.index
        ends = self._time(index), min(self._time(index + n - 1), arrived)
        return self._given.piece(0, n, ends, line.period, self._uncertainty(index + n - 1))
