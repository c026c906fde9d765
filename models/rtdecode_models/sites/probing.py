"""Site probing: each electrode's score against stimulus features, and those of them that respond.

After Subramaniam and others, "Revealing Vision-Language Integration in the Brain with Multimodal Deep Neural Networks"
(ICML 2024, arXiv 2406.14481): a cross-validated ridge regression from a network's features to the response of each
intracranial site in each time after a stimulus, scored by Pearson's correlation on held-out stimuli, with the false
discovery rate controlled over sites.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode_models.sites.encoding import Encoding, block_folds, shuffled_folds
from rtdecode_models.sites.significance import (
    false_discovery,
    null_scores,
    p_values,
    permutations_needed,
    shifts,
    shuffles,
)

Array = NDArray[np.float64]

#: How false sites are held down: their expected share among those kept, or the chance of any.
Correction = Literal["fdr", "max"]


@dataclass(frozen=True, slots=True, eq=False)
class Probed:
    """What came of it.

    Parameters
    ----------
    scores : ndarray of float64, shape (sites,)
        Correlation on held-out rows at each site's best time.
    times : ndarray of int64, shape (sites,)
        Which time that is.
    p : ndarray of float64, shape (sites,)
        Chance of a score as high where the site knows nothing of the features; of any site's, with ``max``.
    level : ndarray of float64, shape (sites,)
        The level at which the site is kept: for ``fdr`` its q-value, for ``max`` its p-value.
    responds : ndarray of bool, shape (sites,)
        Whether that is at most the level that was asked for.
    permutations : int
        How many there were.
    """

    scores: Array
    times: NDArray[np.int64]
    p: Array
    level: Array
    responds: NDArray[np.bool_]
    permutations: int


def probe(
    features: Array,
    responses: Array,
    *,
    continuous_gap: int | None = None,
    folds: int = 5,
    correction: Correction = "fdr",
    level: float = 0.05,
    permutations: int | None = None,
    seed: int = 0,
    progress: Callable[[int], Callable[[], object]] = lambda total: lambda: None,
) -> Probed:
    """Score sites and tell which respond.

    A site's score is that of its best time, and so are those that it is compared with: many times make no site
    likelier to be kept.

    Parameters
    ----------
    features : ndarray of float64, shape (n, width)
        Of stimuli or of moments.
    responses : ndarray of float64, shape (n, sites, times)
        Of the same.
    continuous_gap : int, optional
        Rows are consecutive moments: folds are blocks with a gap of so many, and responses are shifted instead of
        shuffled. None where rows are stimuli, which are exchangeable.
    folds : int
        Of the cross-validation.
    correction : {"fdr", "max"}
        What is controlled at `level`: the false discovery rate, or the chance of any false site.
    level : float
        Between 0 and 1.
    permutations : int, optional
        As many as are needed for one site to be told among so many, where not given. Of moments there are no more than
        different shifts.
    seed : int
        Of the folds and permutations.
    progress : callable
        Given the number of permutations; what it gives is called after each.

    Raises
    ------
    ConfigError
        Shapes or settings make no sense, or there are too few rows.
    """
    if features.ndim != 2 or responses.ndim != 3 or len(features) != len(responses) or 0 in responses.shape:
        raise ConfigError(
            f"features of shape {features.shape} and responses of shape {responses.shape}; "
            "expected (n, width) and (n, sites, times)"
        )
    if not 0 < level < 1:
        raise ConfigError(f"level is {level:g}; expected a number between 0 and 1")
    n, sites, times = responses.shape
    count = permutations_needed(sites, level, correction) if permutations is None else permutations
    random = np.random.default_rng(seed)
    if continuous_gap is None:
        encoding = Encoding(features, shuffled_folds(n, folds, random))
        orders = list(shuffles(n, count, random))
    else:
        encoding = Encoding(features, block_folds(n, folds, continuous_gap))
        orders = list(shifts(n, count, max(n // 10, continuous_gap + 1), random))
    if len(orders) < 1 / level:
        needed = permutations_needed(sites, level, correction)
        raise ConfigError(f"{len(orders)} permutations of {n} rows cannot reach p = {level:g}; expected {needed}")

    def best(values: Array) -> Array:
        highest: Array = encoding.score(values).reshape(sites, times).max(axis=1)
        return highest

    flat = responses.reshape(n, sites * times)
    by_time = encoding.score(flat).reshape(sites, times)
    scores = by_time.max(axis=1)
    null = null_scores(best, flat, orders, progress(len(orders)))
    p = p_values(scores, null, family=correction == "max")
    reached = p if correction == "max" else false_discovery(p)
    responds = (reached <= level) & (scores > 0)
    return Probed(scores, by_time.argmax(axis=1), p, reached, responds, len(orders))
