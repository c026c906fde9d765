"""A hole whose length is not sure yet: what the samples behind it say of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rtdecode.clock.line import Line
from rtdecode.clock.steps import LEAST, Block

#: A step lasts so many times the jitter: a stall of a sender that stamps on arrival is made up for by then.
LASTING = 20.0
#: How much further than the jitter stamps may stray: what is evenly spread lies within this.
FARTHEST = 1.06
#: ... and how much further the mean of many, times the square root of how many (three standard deviations).
MEANS = 1.8


@dataclass(slots=True)
class OpenHole:
    """A hole that stamps showed at once.

    Parameters
    ----------
    first : int
        Index of the first sample behind it.
    held : int
        How many samples it is held to have swallowed.
    n : int
        Samples that came since.
    total : float
        The sum of their stamps.
    """

    first: int
    held: int
    n: int = 0
    total: float = 0.0

    def take(self, n: int, total: float) -> None:
        """So many more samples came, whose stamps add up to `total`."""
        self.n += n
        self.total += total

    def lag(self, line: Line) -> float:
        """By how much the stamps behind it lie above the line, in seconds, on average."""
        return self.total / self.n - line.at(self.first + (self.n - 1) / 2) if self.n else 0.0

    def likely_lag(self, line: Line, jitter: float) -> float:
        """Seconds: the middle between the fewest and the most periods by which the samples may be late."""
        if not self.n:
            return 0.0
        lag = self.lag(line) / line.period
        doubt = (min(FARTHEST, MEANS / math.sqrt(self.n)) * jitter + line.uncertainty(self.first)) / line.period
        least, most = math.ceil(lag - doubt), math.floor(lag + doubt)
        return (round(lag) if least > most else (least + most) / 2) * line.period

    def settled(self, line: Line, blocks: Sequence[Block], jitter: float, look_back: int) -> tuple[float, float] | None:
        """How far the samples behind it lie above the line, and the standard error of that; None while it is open.

        The newer half of the blocks says so: what a stall held back has come in before.

        Parameters
        ----------
        line : Line
            As before the hole.
        blocks : sequence of Block
            The samples since the hole.
        jitter : float
            Seconds.
        look_back : int
            Samples after which it is settled in any case.
        """
        half = blocks[len(blocks) // 2 :]
        count = sum(map(len, half))
        middle = (half[0].first + half[-1].first + len(half[-1]) - 1) / 2
        lag = sum(b.total for b in half) / count - line.at(middle)
        error = line.noise(0.0) / count**0.5
        ready = self.n >= look_back or (self.n >= LASTING * jitter / line.period and 6 * error <= line.period)
        if lag < -LEAST * line.period:  # too many were held to be missing: let first come in what a stall held back
            ready &= self.n >= min(2 * self.held, 5 * look_back)
        return (lag, error) if ready else None
