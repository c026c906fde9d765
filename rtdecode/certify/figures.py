"""Percentiles with what stands behind them, and bounds on a share: arithmetic alone, no clock, no file.

A percentile is a window's own value (nearest rank: the smallest value that the share does not exceed), never one
between two windows. Its upper bound is another window's value, by the binomial law of how many values lie below a
quantile (Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2). Bounds on shares are those of Clopper
and Pearson (Biometrika 26, 1934). Both take windows for independent of each other; slow windows come in bursts, so the
true bounds are wider, and the number of bursts is told beside them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

#: Shares whose percentiles are told.
SHARES = (0.5, 0.95, 0.99, 0.999, 0.9999)

#: Confidence of all one-sided bounds, unless another is asked for.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile of some windows' times.

    Parameters
    ----------
    share : float
        0.99 for p99.
    ms : float
        Its value in milliseconds.
    upper_ms : float or None
        What the true percentile stays below, with the confidence asked for; None where too few windows came to say.
    beyond : int
        Windows that lie above it in rank.
    """

    share: float
    ms: float
    upper_ms: float | None
    beyond: int

    @property
    def supported(self) -> bool:
        """Whether enough windows stand behind it for a bound."""
        return self.upper_ms is not None


@dataclass(frozen=True, slots=True)
class Distribution:
    """Some windows' times in one stage.

    Parameters
    ----------
    windows : int
        How many.
    mean, sd, worst : float
        In milliseconds; `sd` is what BCI2000 calls jitter.
    percentiles : tuple of Percentile
        One for each of `SHARES`.
    """

    windows: int
    mean: float
    sd: float
    worst: float
    percentiles: tuple[Percentile, ...]

    def at(self, share: float) -> float:
        """One of the percentiles in milliseconds."""
        return next(one.ms for one in self.percentiles if one.share == share)

    @property
    def p50(self) -> float:
        """Median in milliseconds."""
        return self.at(0.5)

    @property
    def p99(self) -> float:
        """99th percentile in milliseconds."""
        return self.at(0.99)


def distribution(
    milliseconds: "NDArray[np.float64] | Sequence[float]", confidence: float = CONFIDENCE
) -> Distribution | None:
    """What there is to say of some times.

    Parameters
    ----------
    milliseconds : array of float, shape (windows,)
        NaN where a window has none; those do not count.
    confidence : float
        Of the percentiles' upper bounds.

    Returns
    -------
    Distribution or None
        None where no window has a time.
    """
    times = np.sort(np.asarray(milliseconds, np.float64))
    times = times[~np.isnan(times)]
    n = len(times)
    if not n:
        return None
    found = []
    for share in SHARES:
        rank = nearest_rank(n, share)
        upper = upper_rank(n, share, confidence)
        found.append(
            Percentile(share, float(times[rank - 1]), None if upper is None else float(times[upper - 1]), n - rank)
        )
    sd = float(times.std(ddof=1)) if n > 1 else 0.0
    return Distribution(n, float(times.mean()), sd, float(times[-1]), tuple(found))


def nearest_rank(n: int, share: float) -> int:
    """Place, from 1, of the smallest of `n` sorted values that at least `share` of them do not exceed."""
    return min(n, max(1, math.ceil(share * n - 1e-9)))


def upper_rank(n: int, share: float, confidence: float = CONFIDENCE) -> int | None:
    """Place, from 1, of the smallest of `n` sorted values that bounds a quantile from above; None where none does.

    The r-th value lies at or above the quantile unless r or more values lie below it, of which there are a binomial
    number with probability `share`: the smallest r with P(fewer than r below) >= `confidence`.
    """
    if share**n > 1 - confidence:  # even the largest may lie below
        return None
    low, high = 0, n - 1  # P(B <= high) = 1 - share**n, which is enough
    while low < high:
        middle = (low + high) // 2
        if _at_most(middle, n, share) >= confidence:
            high = middle
        else:
            low = middle + 1
    return low + 1


def windows_needed(share: float, confidence: float = CONFIDENCE) -> int:
    """Windows from which on a percentile has an upper bound, and a share without a miss is shown to be reached."""
    return math.ceil(math.log(1 - confidence) / math.log(share))


def lower_bound(good: int, windows: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound of Clopper and Pearson on the share of which `good` of `windows` were seen; 0 of none."""
    if not good:
        return 0.0
    return float(special.betaincinv(good, windows - good + 1, 1 - confidence))


def upper_bound(good: int, windows: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound on the same; 1 of none."""
    if good == windows:
        return 1.0
    return float(special.betaincinv(good + 1, windows - good, confidence))


def _at_most(k: int, n: int, share: float) -> float:
    """P(B <= k) of a binomial B."""
    return float(special.bdtr(k, n, share))


def bursts(missed: Sequence[bool]) -> int:
    """Runs of neighbours among windows in their order that were missed."""
    flags = np.asarray(missed, bool)
    if not len(flags):
        return 0
    return int(flags[0]) + int(np.count_nonzero(flags[1:] & ~flags[:-1]))
