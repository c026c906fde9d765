"""How often scores as high come up where there is nothing, and which are kept."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError

Array = NDArray[np.float64]


def shuffles(n: int, count: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """`count` random orders of `n` rows that are exchangeable where there is no effect."""
    for _ in range(count):
        yield random.permutation(n)


def shifts(n: int, count: int, least: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Circular shifts of `n` samples by at least `least` either way: they keep what the signals are in time.

    All of them are different: `count` at random, or every one there is where there are no more. A short recording has
    no p-value that only many different ones could give.

    Raises
    ------
    ConfigError
        `n` is too short for any.
    """
    if n <= 2 * least:
        raise ConfigError(f"{n} samples cannot be shifted by {least} or more either way; expected a longer recording")
    for by in random.permutation(np.arange(least, n - least + 1))[:count]:
        yield np.roll(np.arange(n), int(by))


def null_scores(
    score: Callable[[Array], Array],
    responses: Array,
    orders: Iterable[NDArray[np.int64]],
    progress: Callable[[], object] = lambda: None,
) -> Array:
    """Scores of responses in other orders.

    Parameters
    ----------
    score : callable
        From responses (n, ...) to scores (sites,).
    responses : ndarray of float64, shape (n, ...)
        As measured.
    orders : iterable of ndarray of int64, shape (n,)
        From `shuffles` or `shifts`.
    progress : callable
        Called after each.

    Returns
    -------
    ndarray of float64, shape (orders, sites)
    """
    rows = []
    for order in orders:
        rows.append(score(responses[order]))
        progress()
    return np.array(rows)


def p_values(observed: Array, null: Array, *, family: bool = False) -> Array:
    """Share of the scores under the null that are as high, the observed one counted among them.

    Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9, 2010, eq. 2: never 0.

    Parameters
    ----------
    observed : ndarray of float64, shape (sites,)
        Scores.
    null : ndarray of float64, shape (permutations, sites)
        From `null_scores`.
    family : bool
        Compare with the highest score of all sites in each permutation, which controls the chance of any false one
        (Nichols and Holmes, Human Brain Mapping 15, 2002).

    Returns
    -------
    ndarray of float64, shape (sites,)
    """
    against = null.max(axis=1, keepdims=True) if family else null
    p: Array = (1 + (against >= observed).sum(axis=0)) / (1 + len(null))
    return p


def false_discovery(p: Array) -> Array:
    """Smallest false discovery rate at which each is kept.

    Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995.

    Parameters
    ----------
    p : ndarray of float64, shape (sites,)

    Returns
    -------
    ndarray of float64, shape (sites,)
        ``q <= 0.05`` keeps a set of which 5 % are expected to be false.
    """
    order = np.argsort(p)
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(stepped[::-1])[::-1]
    return np.minimum(q, 1.0)


def permutations_needed(sites: int, level: float, correction: Literal["fdr", "max"]) -> int:
    """Permutations with which a single site that responds can be told, with some to spare.

    The smallest p-value is one in their number plus one; false discovery control asks ``level / sites`` of the first.
    """
    return max(1000, round(2 * sites / level)) if correction == "fdr" else max(1000, round(10 / level))
