"""Encoding models: how well a ridge regression from stimulus features tells responses that it was not fitted on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError

Array = NDArray[np.float64]

#: Penalties that are tried, as multiples of the features' mean squared singular value.
PENALTIES = tuple(10.0 ** (power / 2) for power in range(-6, 9))

#: Rows that are trained on, and rows that are told.
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


class Encoding:
    """Ridge regression with cross-validation, from fixed features to any number of responses.

    Decomposed once, so that thousands of permuted responses cost a few products each. In each fold features are
    standardised by its training rows, and each response gets the penalty with the least generalised cross-validation
    error on them (Golub, Heath and Wahba, Technometrics 21, 1979): nothing of the rows that are told is looked at.

    Parameters
    ----------
    features : ndarray of float64, shape (n, width)
        Of each row.
    folds : sequence of Fold
        See `shuffled_folds` and `block_folds`.
    penalties : sequence of float
        See `PENALTIES`.

    Raises
    ------
    ConfigError
        There are no folds, or all features are the same on the training rows of one.
    """

    def __init__(self, features: Array, folds: Sequence[Fold], penalties: Sequence[float] = PENALTIES) -> None:
        if not folds:
            raise ConfigError("no folds to cross-validate by; expected two or more")
        self._folds = [_Decomposed(features, fold, np.asarray(penalties)) for fold in folds]

    def score(self, responses: Array) -> Array:
        """Pearson correlation of what is told with what was measured, mean over folds.

        Parameters
        ----------
        responses : ndarray of float64, shape (n, columns)
            Each column is told by a model of its own.

        Returns
        -------
        ndarray of float64, shape (columns,)
            0 where a response never changes.
        """
        scores: Array = np.mean([fold.score(responses) for fold in self._folds], axis=0)
        return scores


class _Decomposed:
    """One fold: the singular value decomposition of its training features, and the others in its basis."""

    def __init__(self, features: Array, fold: Fold, penalties: Array) -> None:
        self._train, self._test = fold
        rows = features[self._train]
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        varies = deviation > 1e-12 * np.abs(rows).max(axis=0, initial=0.0)
        if not varies.any():
            raise ConfigError(f"the {rows.shape[1]} features are the same on all {len(rows)} rows of a fold")
        mean, deviation = mean[varies], deviation[varies]
        self._u, s, vt = np.linalg.svd((rows[:, varies] - mean) / deviation, full_matrices=False)
        self._told = (features[self._test][:, varies] - mean) / deviation @ vt.T
        square = s**2
        alphas = penalties[:, np.newaxis] * square.mean()
        self._weights = s / (square + alphas)
        shrunk = square / (square + alphas)
        # Residual sum of squares is that of the response less these shares of its squared projections.
        self._explained = 2 * shrunk - shrunk**2
        self._freedom = 1 - (1 + shrunk.sum(axis=1)) / len(rows)

    def score(self, responses: Array) -> Array:
        """Correlations (columns,)."""
        train = responses[self._train]
        train = train - train.mean(axis=0)
        projected = self._u.T @ train
        residual = (train**2).sum(axis=0) - self._explained @ projected**2
        error = residual / np.maximum(self._freedom, 1e-9)[:, np.newaxis] ** 2
        told = self._told @ (self._weights[error.argmin(axis=0)].T * projected)
        return correlation(told, responses[self._test])


def correlation(one: Array, other: Array) -> Array:
    """Pearson correlation of each column; 0 where one of the two never changes."""
    a, b = one - one.mean(axis=0), other - other.mean(axis=0)
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    flat = (np.ptp(one, axis=0) == 0) | (np.ptp(other, axis=0) == 0) | ~(norm > 0)
    r: Array = np.where(flat, 0.0, (a * b).sum(axis=0) / np.where(flat, 1.0, norm))
    return r


def shuffled_folds(n: int, k: int, random: np.random.Generator) -> list[Fold]:
    """`k` folds of rows in random order, for rows that know nothing of one another."""
    _enough(n, k)
    order = random.permutation(n)
    return [
        (np.sort(np.concatenate([part for j, part in enumerate(parts) if j != i])), np.sort(parts[i]))
        for parts in [np.array_split(order, k)]
        for i in range(k)
    ]


def block_folds(n: int, k: int, gap: int) -> list[Fold]:
    """`k` folds of consecutive rows, for samples of one recording.

    Rows within `gap` of those that are told are not trained on either.
    """
    _enough(n, k)
    folds = []
    rows = np.arange(n)
    for test in np.array_split(rows, k):
        train = rows[(rows < test[0] - gap) | (rows > test[-1] + gap)]
        if len(train) < 3:
            raise ConfigError(f"{k} folds of {n} samples leave {len(train)} to train on beside a gap of {gap}")
        folds.append((train, test))
    return folds


def _enough(n: int, k: int) -> None:
    if k < 2:
        raise ConfigError(f"{k} folds; expected 2 or more")
    if n < 3 * k:
        raise ConfigError(f"{n} rows for {k} folds; expected at least {3 * k}, three to a fold")
