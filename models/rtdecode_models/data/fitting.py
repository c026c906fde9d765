"""Steps whose numbers come from training windows: what they are called, and how they are computed.

They are fitted on windows that went through the declared chain; of its window steps through `baseline` alone, which
is linear and does not mind whether matrices and scales come before it. Limits and scales of single windows come after.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.stream.fit import inverse_sqrt, mean_covariance, mvnn, robust_statistics, standard_statistics
from rtdecode.stream.steps import Baseline, Conditioning, Matrix, RunningAlignment, Scale, StreamStep
from rtdecode_models.data.spec import Fit
from rtdecode_models.data.trials import Trials

Arrays = dict[str, NDArray[np.float64]]

#: Names of the arrays, as they stand in the bundle.
ALIGNMENT, ALIGNMENT_START, WHITENING = "alignment.npy", "alignment_start.npy", "mvnn.npy"
CENTER, SCALE = "train_mean.npy", "train_std.npy"
MEDIAN, RANGE = "train_median.npy", "train_iqr.npy"

#: Windows that are multiplied in double precision at a time.
_BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The arrays of a chain.

    Parameters
    ----------
    everyone : dict of str to ndarray
        Fitted on all training windows.
    subjects, sessions : dict of str to dict of str to ndarray
        Fitted on those of each, where the recipe says so.
    """

    everyone: Arrays
    subjects: dict[str, Arrays] = field(default_factory=dict)
    sessions: dict[str, Arrays] = field(default_factory=dict)

    def of(self, subject: str, session: str) -> Arrays:
        """A session's own arrays, else its subject's, else those of everyone."""
        return self.sessions.get(session) or self.subjects.get(subject) or self.everyone


def to_fit_on(declared: Conditioning) -> Conditioning:
    """The chain that gives the windows to fit on."""
    return Conditioning(stream=declared.stream, window=tuple(s for s in declared.window if isinstance(s, Baseline)))


def appended(fit: Fit, declared: Conditioning) -> Conditioning:
    """The declared chain with the fitted steps behind its stream steps."""
    steps: list[StreamStep] = list(declared.stream)
    match fit.whitening:
        case "euclidean_alignment":
            steps.append(Matrix(array=ALIGNMENT, kind="euclidean_alignment"))
        case "mvnn":
            steps.append(Matrix(array=WHITENING, kind="mvnn"))
        case "running_alignment":
            steps.append(RunningAlignment(start=ALIGNMENT_START, half_life_s=fit.half_life_s))
    match fit.scaling:
        case "standard":
            steps.append(Scale(center=CENTER, scale=SCALE, kind="standard"))
        case "robust":
            steps.append(Scale(center=MEDIAN, scale=RANGE, kind="robust"))
    return Conditioning(stream=tuple(steps), window=declared.window)


def fit_arrays(fit: Fit, x: NDArray[np.float32], conditions: Sequence[object] | None = None) -> Arrays:
    """The arrays that the fitted steps name.

    Parameters
    ----------
    fit : Fit
        The recipe's table.
    x : ndarray of float32, shape (n, time, channels)
        Windows, cut by `to_fit_on`; nothing else is looked at.
    conditions : sequence of length n, optional
        The class or stimulus of each, for MVNN.

    Raises
    ------
    ConfigError
        A channel is flat, or holds numbers that are not finite.
    """
    arrays: Arrays = {}
    matrix: NDArray[np.float64] | None = None
    match fit.whitening:
        case "euclidean_alignment":
            arrays[ALIGNMENT] = matrix = alignment_matrix(x, fit.shrinkage)
        case "mvnn":
            arrays[WHITENING] = matrix = mvnn(x, conditions)
        case "running_alignment":
            # What it comes to while it follows differs from session to session: scaled is what it begins with.
            arrays[ALIGNMENT_START] = start = shrunk(mean_covariance(x), fit.shrinkage)
            matrix = inverse_sqrt(start)
    match fit.scaling:
        case "standard":
            arrays[CENTER], arrays[SCALE] = _statistics(x, matrix, standard=True)
        case "robust":
            arrays[MEDIAN], arrays[RANGE] = _statistics(x, matrix, standard=False)
    return arrays


def fit_groups(fit: Fit, seen: Trials, fit_on: NDArray[np.int64] | None = None) -> Fitted:
    """The arrays of everyone, and of each subject and session where the recipe says so.

    Parameters
    ----------
    fit : Fit
        The recipe's table.
    seen : Trials
        By the chain of `to_fit_on`.
    fit_on : ndarray of int64, optional
        Rows that may be looked at; all where not given.
    """
    rows = np.arange(len(seen)) if fit_on is None else fit_on
    condition = _conditions(seen)

    def of(chosen: NDArray[np.int64]) -> Arrays:
        # All windows as they lie, where they are all meant: a copy of them may not fit into memory.
        x = seen.x if len(chosen) == len(seen) else seen.x[chosen]
        return fit_arrays(fit, x, None if condition is None else condition[chosen].tolist())

    def of_each(names: Sequence[str], column: NDArray[np.int64]) -> dict[str, Arrays]:
        found = {}
        for at in np.unique(column[rows]):
            try:
                found[names[at]] = of(rows[column[rows] == at])
            except ConfigError as error:
                raise ConfigError(f"{names[at]}: {error}") from error
        return found

    return Fitted(
        of(rows),
        of_each(seen.subjects, seen.subject) if fit.per != "all" else {},
        of_each(seen.sessions, seen.session) if fit.per == "session" else {},
    )


def _conditions(trials: Trials) -> NDArray[np.int64] | None:
    """What MVNN averages over first: the stimulus, else the class."""
    return trials.item if trials.item is not None else next(iter(trials.labels.values()), None)


def alignment_matrix(x: NDArray[np.float32], shrinkage: float) -> NDArray[np.float64]:
    """Euclidean alignment, R^(-1/2), from the mean covariance R of windows.

    He and Wu, "Transfer Learning for Brain-Computer Interfaces: A Euclidean Space Data Alignment Approach", IEEE TBME
    2020, equations 9 and 10; R is first shrunk towards a multiple of the identity.

    Parameters
    ----------
    x : ndarray of float32, shape (n, time, channels)
        Band-passed windows.
    shrinkage : float
        Share of ``trace(R)/n I`` in R, from 0 to 1.

    Returns
    -------
    ndarray of float64, shape (channels, channels)
        Symmetric.
    """
    return inverse_sqrt(shrunk(mean_covariance(x), shrinkage))


def shrunk(covariance: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """``(1 - s) R + s trace(R)/n I``."""
    n = len(covariance)
    mixed: NDArray[np.float64] = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / n * np.eye(n)
    return mixed


def _statistics(
    x: NDArray[np.float32], matrix: NDArray[np.float64] | None, *, standard: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and scale of each channel after the matrix, a channel at a time: windows may be many."""
    rule = standard_statistics if standard else robust_statistics
    if matrix is not None:
        given, x = x, np.empty_like(x)
        for first in range(0, len(x), _BLOCK):
            x[first : first + _BLOCK] = given[first : first + _BLOCK] @ matrix.T
    center, scale = np.empty((2, x.shape[2]))
    for channel in range(x.shape[2]):
        try:
            center[channel], scale[channel] = (value[0] for value in rule(x[:, :, channel : channel + 1]))
        except ConfigError as error:
            raise ConfigError(f"channel {channel} (counted from 0) of the conditioned windows: {error}") from error
    return center, scale
