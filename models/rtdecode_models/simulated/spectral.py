"""Stationary Gaussian signals by their cross-spectra, with the exact likelihood.

A window is made on a circle: its Fourier coefficients are independent between frequencies, each normal with that
frequency's covariance over channels. Whatever differs between classes is a difference of these covariances, and the
likelihood of a window is a sum over frequencies, exactly.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def frequencies(n_times: int, sfreq: float) -> Array:
    """Those of a window's coefficients in Hz, without 0 and without half the rate, shape (bins,)."""
    return np.asarray(np.fft.rfftfreq(n_times, 1.0 / sfreq)[1 : (n_times - 1) // 2 + 1], np.float64)


def coefficients(windows: NDArray[np.floating]) -> Complex:
    """Fourier coefficients, scaled so that their covariances add up to the variance: (n, times, c) -> (n, bins, c)."""
    n_times = windows.shape[1]
    found = np.fft.rfft(windows.astype(np.float64), axis=1) * (np.sqrt(2.0) / n_times)
    return np.asarray(found[:, 1 : (n_times - 1) // 2 + 1])


def windows_of(spectra: Complex, n_times: int) -> NDArray[np.float32]:
    """The windows of such coefficients, shape (n, times, channels)."""
    whole = np.zeros((len(spectra), n_times // 2 + 1, spectra.shape[2]), complex)
    whole[:, 1 : spectra.shape[1] + 1] = spectra * (n_times / np.sqrt(2.0))
    return np.fft.irfft(whole, n_times, axis=1).astype(np.float32)


def draw(rng: np.random.Generator, covariance: Array) -> Complex:
    """One draw of coefficients from covariances (..., bins, channels, channels); shape (..., bins, channels)."""
    root = np.linalg.cholesky(covariance)
    white = rng.standard_normal((*root.shape[:-1], 2)) @ np.array([1.0, 1.0j]) / np.sqrt(2.0)
    return np.asarray((root @ white[..., None])[..., 0])


def log_likelihood(spectra: Complex, covariance: Array) -> Array:
    """Log density of windows, up to a constant: (n, bins, channels) and (bins, channels, channels) -> (n,)."""
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, np.moveaxis(spectra, 0, 2))
    power = (white.real**2 + white.imag**2).sum(axis=(0, 1))
    logdet = 2.0 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum()
    return np.asarray(-logdet - power)


def peak(at: Array, centre: float, width: float) -> Array:
    """A rhythm's power over frequency, summing to 1 over the bins `at`."""
    power = np.exp(-0.5 * ((at - centre) / width) ** 2)
    return np.asarray(power / power.sum())


def pink(at: Array) -> Array:
    """1/f from half a hertz up, summing to 1 over the bins `at`."""
    power = 1.0 / np.maximum(at, 0.5)
    return np.asarray(power / power.sum())
