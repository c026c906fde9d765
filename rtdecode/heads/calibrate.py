"""Calibration of heads, offline: the threshold of "none of these", and the temperature of probabilities."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

#: Temperatures are looked for in this range. Where the best lies at its edge, the data do not determine it.
TEMPERATURES = (0.05, 100.0)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold for "none of these", and what it does on the windows it was made from.

    Parameters
    ----------
    threshold : float
        A best score below it reads "none of these".
    false_accept : float
        The declared rate: how often, at most, a window of something else is given a name.
    accepted_unknown : float
        Share of the unknown windows at or above the threshold.
    rejected_known : float
        Share of the known windows below it: what the declared rate costs.
    """

    threshold: float
    false_accept: float
    accepted_unknown: float
    rejected_known: float


def calibrate_threshold(scores_known: ArrayLike, scores_unknown: ArrayLike, false_accept: float = 0.05) -> Threshold:
    """Find the lowest threshold that keeps a declared false-accept rate.

    With n best scores of windows whose thing is not in the gallery, sorted upwards, the threshold lies just above the
    one of rank ceil((n + 1) (1 - a)). A new such window then reaches it with probability at most a (split conformal
    prediction: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Angelopoulos and Bates,
    arXiv:2107.07511, appendix D), whatever the scores' distribution, provided that it is exchangeable with the n: same
    subject and session, and not the windows that the encoder was trained on. The probability is over the n as well as
    the new window: with few, the rate of one calibration scatters around it (its standard deviation is about
    sqrt(a (1 - a) / n)).

    Parameters
    ----------
    scores_known : array_like, shape (m,)
        Best scores of windows whose thing is in the gallery. They set nothing; they show the price.
    scores_unknown : array_like, shape (n,)
        Best scores of windows whose thing is not.
    false_accept : float
        The rate a, between 0 and 1.

    Raises
    ------
    ValueError
        The rate is no share, scores are not finite, or there are too few of them: a rate of a needs n >= 1 / a - 1.
    """
    known, unknown = np.asarray(scores_known, np.float64).ravel(), np.asarray(scores_unknown, np.float64).ravel()
    if not 0 < false_accept < 1:
        raise ValueError(f"false_accept = {false_accept}; expected a share between 0 and 1")
    if not (np.isfinite(known).all() and np.isfinite(unknown).all()):
        raise ValueError("scores have NaN or Inf")
    n = len(unknown)
    rank = math.ceil((n + 1) * (1 - false_accept))
    if rank > n or n == 0:
        needed = math.ceil(1 / false_accept - 1)
        raise ValueError(
            f"{n} windows of unknown things cannot show a false-accept rate of {false_accept:g}; "
            f"expected {needed} or more"
        )
    threshold = float(np.nextafter(np.sort(unknown)[rank - 1], np.inf))
    return Threshold(
        threshold=threshold,
        false_accept=false_accept,
        accepted_unknown=float((unknown >= threshold).mean()),
        rejected_known=float((known < threshold).mean()) if len(known) else math.nan,
    )


@dataclass(frozen=True, slots=True)
class Temperature:
    """A temperature, and what it does on the windows it was made from.

    Parameters
    ----------
    temperature : float
        Logits are divided by it.
    nll : float
        Mean negative log-likelihood of the true classes with it, in nats.
    nll_before : float
        The same at temperature 1.
    """

    temperature: float
    nll: float
    nll_before: float


def calibrate_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """Find the temperature under which the true classes are most likely.

    Temperature scaling (Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017, section
    4.2): one number, which leaves the order of the classes as it is. The negative log-likelihood is convex in 1 / T, so
    there is one minimum. Use windows that the encoder was not trained on.

    Parameters
    ----------
    logits : array_like, shape (windows, classes)
        As the encoder gives them.
    labels : array_like of int, shape (windows,)
        Index of each window's true class.

    Raises
    ------
    ValueError
        Shapes do not fit, a label is no class, or the data determine no temperature between `TEMPERATURES` (every
        window right with room to spare, or the logits tell nothing).
    """
    x, y = np.asarray(logits, np.float64), np.asarray(labels)
    if x.ndim != 2 or not len(x) or y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"logits of shape {x.shape} and labels of shape {y.shape}; expected (windows, classes) and (windows,)"
        )
    if not np.isfinite(x).all():
        raise ValueError("logits have NaN or Inf")
    if y.min() < 0 or y.max() >= x.shape[1]:
        raise ValueError(f"labels from {y.min()} to {y.max()}; expected 0 to {x.shape[1] - 1}")
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: nll(x, y, math.exp(log_t)), bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    temperature = math.exp(float(found.x))
    if min(float(found.x) - low, high - float(found.x)) < 1e-3:
        raise ValueError(
            f"the {len(x)} windows determine no temperature between {TEMPERATURES[0]:g} and {TEMPERATURES[1]:g}; "
            "expected more of them, some of which are classified wrong"
        )
    return Temperature(temperature, nll(x, y, temperature), nll(x, y, 1.0))


def nll(logits: NDArray[np.float64], labels: NDArray[np.integer], temperature: float) -> float:
    """Mean negative log-likelihood of the true classes, in nats."""
    scaled = logits / temperature
    top = scaled.max(axis=1)
    log_sums = top + np.log(np.exp(scaled - top[:, np.newaxis]).sum(axis=1))
    return float((log_sums - scaled[np.arange(len(labels)), labels]).mean())
