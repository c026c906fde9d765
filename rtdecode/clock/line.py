"""A straight line of time over sample index, fitted as the samples come: the clock of a sender without its jitter."""

import math
from dataclasses import dataclass
from operator import mul

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
#: Blocks over whose means the noise is judged.
LENGTHS = (1, 4, 16)
#: Noise below this is that of the arithmetic, in seconds.
_FLOOR_S = 1e-9
#: Indices of a block, counted from its newest sample.
_INDEX = np.arange(-511.0, 1.0)
#: So few samples are taken in one by one, without arrays.
FEW = 32
_FEW = _INDEX[-FEW:].tolist()


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
    """

    phase: float
    period: float
    nominal: float
    origin: int = 0
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
    #: What the newest samples left of the weight of those before.
    _fade: float = 1.0

    def copy(self) -> "Line":
        """The line as it stands."""
        return Line(
            self.phase, self.period, self.nominal, self.origin,
            self.s0, self.s1, self.s2, self.t0, self.t1, self.scatter, self.spread,
        )  # fmt: skip

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

    def add(self, first: int, times: NDArray[np.float64]) -> NDArray[np.float64] | list[float]:
        """Take consecutive samples in, the first of this index; their times and what is left of them in seconds."""
        m = len(times)
        self._move(first + m - 1, m)
        if m <= FEW and (left := self._add_few(times.tolist())) is not None:
            return left
        x = _INDEX[-m:] if m <= len(_INDEX) else np.arange(1.0 - m, 1.0)
        residual: NDArray[np.float64] = times - (self.phase + self.period * x)
        weight = self._weights(residual)
        if weight is None:
            r0, r1 = float(residual.sum()), float(x @ residual)
            w0, w1, w2 = float(m), -m * (m - 1) / 2, m * (m - 1) * (2 * m - 1) / 6
        else:
            wx = weight * x
            r0, r1 = float(weight @ residual), float(wx @ residual)
            w0, w1, w2 = float(weight.sum()), float(wx.sum()), float(wx @ x)
        self.s0 += w0
        self.s1 += w1
        self.s2 += w2
        self.t0 += r0
        self.t1 += r1
        shift, turn = self._solve()
        self._scatter((r0 - w0 * shift - w1 * turn) / math.sqrt(m))
        return residual - (shift + turn * x)

    def _add_few(self, times: list[float]) -> list[float] | None:
        """The same of few samples, all of which count in full; None where one does not. No array is worth its while."""
        m, phase, period = len(times), self.phase, self.period
        x = _FEW[-m:]
        residual = [time - (phase + period * at) for time, at in zip(times, x, strict=True)]
        if self.s0 > 8 and max(max(residual), -min(residual)) > HUBER * self.spread:
            return None
        r0 = sum(residual)
        w0, w1 = float(m), -m * (m - 1) / 2
        self.s0 += w0
        self.s1 += w1
        self.s2 += m * (m - 1) * (2 * m - 1) / 6
        self.t0 += r0
        self.t1 += sum(map(mul, x, residual))
        shift, turn = self._solve()
        self._scatter((r0 - w0 * shift - w1 * turn) / math.sqrt(m))
        return [one - (shift + turn * at) for one, at in zip(residual, x, strict=True)]

    def add_one(self, index: int, time: float, spanned: int = 1) -> None:
        """Take the newest of `spanned` samples in: its index and its time in seconds."""
        self._move(index, spanned)
        residual = time - self.phase
        size = abs(residual)
        limit = HUBER * self.spread if self.s0 > 8 else math.inf
        weight = limit / size if size > limit else 1.0
        self.s0 += weight
        self.t0 += weight * residual
        self._solve()
        self._scatter(weight * (time - self.phase))

    def _move(self, index: int, spanned: int) -> None:
        """Forget with the time that so many samples took, and count from the newest one."""
        step = index - self.origin
        fade = math.exp(-spanned * self.period / MEMORY_S)  # a hole is not forgotten over: it keeps rate and phase
        # About the new origin: x' = x - step.
        self.phase += step * self.period
        self.origin = index
        self.s2 = fade * (self.s2 - 2 * step * self.s1 + step * step * self.s0)
        self.s1 = fade * (self.s1 - step * self.s0)
        self.t1 = fade * (self.t1 - step * self.t0)
        self.s0 *= fade
        self.t0 *= fade
        self._fade = fade

    def _weights(self, residual: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Of each residual; None where all count in full."""
        if self.s0 <= 8 or math.isinf(self.spread):
            return None
        size = np.abs(residual)
        limit = HUBER * self.spread
        if size.max() <= limit:
            return None
        weight: NDArray[np.float64] = limit / np.maximum(size, limit)
        return weight

    def _solve(self) -> tuple[float, float]:
        """Move the line to where the sums are least; by how much phase and period were moved."""
        prior = self._prior(self.noise(0.0))
        short = self.nominal - self.period
        determinant = self.s0 * (self.s2 + prior) - self.s1 * self.s1
        if determinant <= 0:
            return 0.0, 0.0
        right = self.t1 + prior * short
        turn = (self.s0 * right - self.s1 * self.t0) / determinant
        low, high = self.nominal * (1 - RATE_LIMIT), self.nominal * (1 + RATE_LIMIT)
        turn = min(max(self.period + turn, low), high) - self.period
        shift = (self.t0 - self.s1 * turn) / self.s0
        self.phase += shift
        self.period += turn
        self.t1 -= self.s1 * shift + self.s2 * turn
        self.t0 -= self.s0 * shift + self.s1 * turn
        return shift, turn

    def _scatter(self, mean: float) -> None:
        fade, scatter = self._fade, []
        for length, (weight, square, n, total) in zip(LENGTHS, self.scatter, strict=True):
            n, total = n + 1, total + mean
            if n < length:
                scatter.append((fade * weight, fade * square, n, total))
            else:
                scatter.append((fade * weight + 1.0, fade * square + total * total / length, 0, 0.0))
        self.scatter = tuple(scatter)
