"""A straight line of time over sample index, fitted as the samples come: the clock of a sender without its jitter."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Seconds after which a sample counts a third of what it counted: long against jitter, short against the drift of a
#: clock's rate.
MEMORY_S = 30.0
#: The rate is nominal give or take this much (one standard deviation), as far as the samples do not say otherwise...
RATE_PRIOR = 0.03
#: ... and never further from it than this.
RATE_LIMIT = 0.06
#: Residuals beyond this many times the noise count less (Huber 1964: 95 % efficiency on normal noise).
HUBER = 1.345
#: Weight of a residual above the line where noise can only delay: expectile regression (Newey & Powell 1987).
LATE_WEIGHT = 0.1
#: Blocks over whose means the noise is judged.
LENGTHS = (1, 4, 16)
#: Noise below this is that of the arithmetic, in seconds.
_FLOOR_S = 1e-9


@dataclass(slots=True)
class Line:
    """``time(index) = phase + period (index - origin)``, by least squares with exponential forgetting over time.

    The sums are of weighted residuals against the line itself, about the index `origin`, which moves along: numbers
    stay small however long the stream runs. Each update solves the two normal equations anew (recursive least squares
    in information form; Ljung 1999, *System Identification*, ch. 11), with the nominal period as the prior.

    Parameters
    ----------
    phase : float
        Time in seconds of the sample `origin`.
    period, nominal : float
        Seconds per sample: as fitted, and as declared.
    origin : int
        Index of the newest sample that went in.
    one_sided : bool
        Noise can only delay: what lies above the line weighs `LATE_WEIGHT`.
    """

    phase: float
    period: float
    nominal: float
    origin: int = 0
    one_sided: bool = False
    s0: float = 0.0
    s1: float = 0.0
    s2: float = 0.0
    t0: float = 0.0
    t1: float = 0.0
    #: For each of `LENGTHS`: weight and sum of the squared means of so many blocks (times the square root of how many
    #: samples they are of), and number and sum of the blocks of a mean that is not complete yet.
    scatter: tuple[tuple[float, float, int, float], ...] = ((0.0, 0.0, 0, 0.0),) * len(LENGTHS)
    #: Size of an ordinary residual in seconds; set by who measures the jitter.
    spread: float = math.inf

    def at(self, index: float) -> float:
        """Time of a sample, in seconds."""
        return self.phase + self.period * (index - self.origin)

    def noise(self, ignorance: float) -> float:
        """Standard deviation of one sample as far as means of many are concerned, in seconds.

        Means stray more than their number suggests where neighbours stray together (bursts). So means over several
        lengths are looked at, and the worst counts (batch means; Alexopoulos & Seila 1998, *Output Data Analysis*).

        Parameters
        ----------
        ignorance : float
            Seconds; what one block is taken to stray by before it is seen. It wears off.
        """
        extra = ignorance * ignorance
        return math.sqrt(max((square + extra) / (weight + 1.0) for weight, square, _, _ in self.scatter)) + _FLOOR_S

    def uncertainty(self, index: float) -> float:
        """Two standard deviations of the fitted time of a sample, in seconds; at first, a period is unknown."""
        noise = self.noise(self.period)
        if self.s0 <= 0:
            return 2 * noise
        x = index - self.origin
        prior = self._prior(noise)
        determinant = self.s0 * (self.s2 + prior) - self.s1 * self.s1
        variance = (self.s2 + prior - 2 * x * self.s1 + x * x * self.s0) / max(determinant, 1e-300)
        return float(2 * noise * max(variance, 0.0) ** 0.5)

    def _prior(self, noise: float) -> float:
        return (noise / (RATE_PRIOR * self.nominal)) ** 2

    def add(self, index: NDArray[np.int64], times: NDArray[np.float64], spanned: int | None = None) -> None:
        """Take samples in: their indices, increasing, and their times in seconds.

        `spanned` is how many samples came, where not each of them has a time.
        """
        m = len(index)
        step = int(index[-1]) - self.origin
        fade = math.exp(
            -(spanned or m) * self.period / MEMORY_S
        )  # a hole is not forgotten over: it keeps rate and phase
        # About the new origin: x' = x - step.
        self.phase += step * self.period
        self.origin += step
        self.s2 = fade * (self.s2 - 2 * step * self.s1 + step * step * self.s0)
        self.s1 = fade * (self.s1 - step * self.s0)
        self.t1 = fade * (self.t1 - step * self.t0)
        self.s0 *= fade
        self.t0 *= fade
        x = (index - self.origin).astype(np.float64)
        residual = times - (self.phase + self.period * x)
        weight = self._weights(residual)
        self.s0 += float(weight.sum())
        wx = weight * x
        wr = weight * residual
        self.s1 += float(wx.sum())
        self.s2 += float(wx @ x)
        self.t0 += float(wr.sum())
        self.t1 += float(wx @ residual)
        self._solve()
        left = times - (self.phase + self.period * x)
        self._scatter(float((weight * left).sum()) / m**0.5, fade)

    def _weights(self, residual: NDArray[np.float64]) -> NDArray[np.float64]:
        size = np.abs(residual)
        limit = HUBER * self.spread if self.s0 > 8 else np.inf
        weight: NDArray[np.float64] = np.where(size > limit, limit / np.maximum(size, 1e-300), 1.0)
        return np.where(residual > 0, LATE_WEIGHT * weight, weight) if self.one_sided else weight

    def _solve(self) -> None:
        prior = self._prior(self.noise(0.0))
        short = self.nominal - self.period
        determinant = self.s0 * (self.s2 + prior) - self.s1 * self.s1
        if determinant <= 0:
            return
        right = self.t1 + prior * short
        turn = (self.s0 * right - self.s1 * self.t0) / determinant
        low, high = self.nominal * (1 - RATE_LIMIT), self.nominal * (1 + RATE_LIMIT)
        turn = min(max(self.period + turn, low), high) - self.period
        shift = (self.t0 - self.s1 * turn) / self.s0
        self.phase += shift
        self.period += turn
        self.t1 -= self.s1 * shift + self.s2 * turn
        self.t0 -= self.s0 * shift + self.s1 * turn

    def _scatter(self, mean: float, fade: float) -> None:
        scatter = []
        for length, (weight, square, n, total) in zip(LENGTHS, self.scatter, strict=True):
            n, total = n + 1, total + mean
            whole = n == length
            square = fade * square + (total * total / length if whole else 0.0)
            weight = fade * weight + whole
            scatter.append((weight, square, 0 if whole else n, 0.0 if whole else total))
        self.scatter = tuple(scatter)
