"""Statistics and matrices that conditioning takes from training data: pure functions of arrays.

Training calls these, writes what they give as ``.npy`` beside the manifest, and names it there; `condition` applies it.
Nothing here may see data that a model is tested on.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtdecode.errors import ConfigError

Array = NDArray[np.float64]

#: Eigenvalues below this share of the largest count as zero: average references and projections leave some, float32
#: recordings keep them from being exactly zero.
RCOND = 1e-10


def euclidean_alignment(windows: ArrayLike) -> Array:
    r"""Matrix that makes the mean spatial covariance of a recording's windows the identity.

    .. math:: W = \bar R^{-1/2}, \qquad \bar R = \frac 1 n \sum_i \frac{X_i^\top X_i}{T}

    He and Wu, Transfer learning for brain-computer interfaces: a Euclidean space data alignment approach, IEEE TBME
    67(2), 2020, eq. 9-11 (the division by T only sets the scale). One matrix per subject or session.

    Parameters
    ----------
    windows : array_like, shape (n, time, channels)
        Filtered windows, without an offset: no mean is taken off.

    Returns
    -------
    ndarray of float64, shape (channels, channels)
        Symmetric. Directions without any signal (after an average reference) map to zero.

    Raises
    ------
    ConfigError
        The windows hold no signal, numbers that are not finite, or channels whose scales differ too much.
    """
    return inverse_sqrt(_checked(mean_covariance(windows)))


def mean_covariance(windows: ArrayLike) -> Array:
    """Mean over windows of ``X.T @ X / time``, without taking a mean off: where `RunningAlignment` starts.

    Parameters
    ----------
    windows : array_like, shape (n, time, channels)

    Returns
    -------
    ndarray of float64, shape (channels, channels)

    Raises
    ------
    ConfigError
        There are no windows, or they hold numbers that are not finite.
    """
    data = _windows(windows)
    total = np.zeros((data.shape[2], data.shape[2]))
    for window in data:
        x = window.astype(np.float64)
        total += x.T @ x
    total /= data.shape[0] * data.shape[1]
    return total


def mvnn(windows: ArrayLike, conditions: Sequence[object] | None = None) -> Array:
    """Multivariate noise normalisation: the inverse square root of the noise covariance.

    The covariance of each window over its samples, shrunk after Ledoit and Wolf, is averaged over the windows of a
    condition, then over conditions, so that each condition counts alike ("epochs" method). Guggenmos, Sterzer and
    Cichy, Multivariate pattern analysis for MEG: a comparison of dissimilarity measures, NeuroImage 173, 2018. As
    there, channels are brought to unit variance before they are shrunk and back afterwards.

    Parameters
    ----------
    windows : array_like, shape (n, time, channels)
    conditions : sequence of length n, optional
        The condition of each window; all one where not given.

    Returns
    -------
    ndarray of float64, shape (channels, channels)
        Symmetric.

    Raises
    ------
    ConfigError
        There are no windows, they hold numbers that are not finite or channels whose scales differ too much, or
        `conditions` has another length.
    """
    data = _windows(windows)
    labels: list[object] = [0] * len(data) if conditions is None else list(conditions)
    if len(labels) != len(data):
        raise ConfigError(f"mvnn: {len(labels)} conditions for {len(data)} windows; expected one for each")
    sums: dict[object, Array] = {}
    for window, label in zip(data, labels, strict=True):
        covariance = _scaled_ledoit_wolf(window.astype(np.float64))
        sums[label] = sums[label] + covariance if label in sums else covariance
    sigma = np.mean([total / labels.count(label) for label, total in sums.items()], axis=0)
    return inverse_sqrt(_checked(sigma))


def ledoit_wolf(x: ArrayLike) -> tuple[Array, float]:
    """Covariance shrunk towards a multiple of the identity, by the amount that minimises the expected squared error.

    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate
    Analysis 88, 2004, lemma 3.2-3.4.

    Parameters
    ----------
    x : array_like, shape (n, channels)
        Observations; their mean is taken off.

    Returns
    -------
    covariance : ndarray of float64, shape (channels, channels)
    shrinkage : float
        0 (the sample covariance) to 1 (a multiple of the identity).
    """
    data = np.asarray(x, dtype=np.float64)
    n, channels = data.shape
    data = data - data.mean(axis=0)
    sample = data.T @ data / n
    mu = np.trace(sample) / channels
    target = mu * np.eye(channels)
    dispersion = ((sample - target) ** 2).sum()
    # Sum over observations of ||x x' - S||^2, multiplied out.
    error = (((data**2).sum(axis=1) ** 2).sum() / n - (sample**2).sum()) / n
    shrinkage = float(np.clip(error / dispersion, 0, 1)) if dispersion > 0 else 0.0
    return shrinkage * target + (1 - shrinkage) * sample, shrinkage


def standard_statistics(data: ArrayLike) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel, for `Scale` of kind ``standard``.

    Parameters
    ----------
    data : array_like, shape (..., channels)
        Samples or windows.

    Returns
    -------
    center, scale : ndarray of float64, shape (channels,)

    Raises
    ------
    ConfigError
        A channel is flat, or holds numbers that are not finite.
    """
    rows = _rows(data)
    return rows.mean(axis=0), _no_flat_channel(rows.std(axis=0), rows)


def robust_statistics(data: ArrayLike) -> tuple[Array, Array]:
    """Median and interquartile range of each channel, for `Scale` of kind ``robust``.

    Parameters
    ----------
    data : array_like, shape (..., channels)
        Samples or windows.

    Returns
    -------
    center, scale : ndarray of float64, shape (channels,)

    Raises
    ------
    ConfigError
        A channel is flat, or holds numbers that are not finite.
    """
    rows = _rows(data)
    first, median, third = np.percentile(rows, (25, 50, 75), axis=0)
    return median, _no_flat_channel(third - first, rows)


def inverse_sqrt(covariance: Array) -> Array:
    """Symmetric inverse square root; directions with next to no variance (`RCOND`) map to zero.

    Parameters
    ----------
    covariance : ndarray of float64, shape (channels, channels)
        Symmetric, positive semidefinite.

    Returns
    -------
    ndarray of float64, shape (channels, channels)
        All zero where the covariance is.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    kept = values > RCOND * max(values[-1], 0.0)
    scaled = vectors[:, kept] / np.sqrt(np.sqrt(values[kept]))
    root: Array = scaled @ scaled.T
    return root


def _scaled_ledoit_wolf(x: Array) -> Array:
    scale = x.std(axis=0)
    scale[scale == 0] = 1.0
    covariance, _ = ledoit_wolf(x / scale)
    rescaled: Array = scale[:, np.newaxis] * covariance * scale
    return rescaled


def _windows(windows: ArrayLike) -> NDArray[np.floating]:
    data = np.asarray(windows)
    if data.ndim != 3 or 0 in data.shape:
        raise ConfigError(f"windows of shape {data.shape} to fit on; expected (n, time, channels), none of them 0")
    _finite(data)
    return data


def _rows(data: ArrayLike) -> Array:
    array = np.asarray(data, dtype=np.float64)
    if array.ndim < 2 or 0 in array.shape:
        raise ConfigError(f"data of shape {array.shape} to fit on; expected (..., channels), none of them 0")
    _finite(array)
    return array.reshape(-1, array.shape[-1])


def _finite(data: NDArray[np.floating]) -> None:
    if not np.isfinite(data).all():
        bad = np.argwhere(~np.isfinite(data))[0]
        raise ConfigError(f"the data to fit on hold {data[tuple(bad)]} in channel {bad[-1]}; expected finite numbers")


def _no_flat_channel(scale: Array, rows: Array) -> Array:
    # Rounding may leave a constant channel a standard deviation above zero; its range is zero exactly.
    flat = np.flatnonzero(~(scale > 0) | (np.ptp(rows, axis=0) == 0))
    if len(flat):
        raise ConfigError(
            f"channel {', '.join(map(str, flat))} (counted from 0) is flat in the data to fit on and cannot be scaled; "
            "leave it out with a `pick` step"
        )
    return scale


def _checked(covariance: Array) -> Array:
    """Refuse channels so far apart in scale that the smaller ones would be taken for rounding errors."""
    power = np.diag(covariance)
    if not power.max() > 0:
        raise ConfigError("the windows to fit a whitening on hold no signal; expected at least one channel that varies")
    small = np.flatnonzero((power > 0) & (power < RCOND * power.max()))
    if len(small):
        raise ConfigError(
            f"channel {small[0]} (counted from 0) has {power[small[0]] / power.max():.1e} of the power of the largest; "
            f"expected at least {RCOND:g}: bring the channels to one scale with a `scale` step before whitening"
        )
    return covariance
