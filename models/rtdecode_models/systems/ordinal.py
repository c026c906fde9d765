"""Labels whose classes have an order, such as ratings from one to five: soft targets, and a score for them.

After HiSTN, arXiv 2408.15255: a rating is trained as a Gaussian over the class index instead of as one-hot, and a
decoder is scored by whether its two most probable ratings lie side by side and hold the true one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def gaussian_smoothing(n_classes: int, sigma: float = 0.5) -> NDArray[np.float32]:
    """Soft targets for ordered classes: ``p[i, j] ~ exp(-(i - j)^2 / (2 sigma^2))``, each row adding up to one.

    With five classes and 0.5 an inner class keeps .787 and gives each neighbour .1065; the first and the last keep
    .8805 and give .119.

    Parameters
    ----------
    n_classes : int
        Two or more.
    sigma : float
        In steps from one class to the next.

    Returns
    -------
    ndarray of float32, shape (n_classes, n_classes)
        Row ``i`` is the target of class ``i``.

    Raises
    ------
    ValueError
        There are fewer than two classes, or sigma is not above zero.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes is {n_classes}; expected 2 or more")
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected a number of classes above 0")
    index = np.arange(n_classes)
    weights: NDArray[np.float64] = np.exp(-np.square(index[:, None] - index[None, :]) / (2 * sigma**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Seq2HR:
    """Sequential top-2 hit rate, in its two readings.

    Parameters
    ----------
    first : float
        Share of the windows whose two most probable classes are neighbours and whose true class is the more probable.
    either : float
        Share of the windows whose two most probable classes are neighbours and whose true class is one of them.
    """

    first: float
    either: float


def seq2hr(scores: NDArray[np.floating], truth: NDArray[np.integer]) -> Seq2HR:
    """Score a decoder of ordered classes by its two best guesses (Seq2HR of HiSTN, both readings of the name).

    Parameters
    ----------
    scores : ndarray, shape (n, classes)
        Logits or probabilities; of equal ones the lower class counts as the more probable.
    truth : ndarray of int, shape (n,)
        True classes.

    Raises
    ------
    ValueError
        There are no windows, fewer than two classes, or another number of labels than of windows.
    """
    if scores.ndim != 2 or len(scores) == 0 or scores.shape[1] < 2 or truth.shape != (len(scores),):
        raise ValueError(
            f"scores have shape {scores.shape} and truth {truth.shape}; expected (n, classes) with 2 classes or more, "
            "and (n,)"
        )
    order = np.argsort(-scores, axis=1, kind="stable")
    best, second = order[:, 0], order[:, 1]
    neighbours = np.abs(best - second) == 1
    return Seq2HR(
        first=float(np.mean(neighbours & (best == truth))),
        either=float(np.mean(neighbours & ((best == truth) | (second == truth)))),
    )
