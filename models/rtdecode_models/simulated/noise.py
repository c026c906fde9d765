"""Coloured noise whose exact likelihood is at hand."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import toeplitz

from rtdecode_models.simulated.sensors import Sensors, brain

Array = NDArray[np.float64]

#: Dipoles of the background, all over the brain.
N_BACKGROUND = 300


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Gaussian noise with covariance ``over_time x over_sensors + white^2 I`` (a Kronecker product).

    Brain noise, coloured in time and spread over neighbouring sensors, and the sensors' own. Both factors are brought
    to their eigenvectors, and there every value is independent: samples, and the exact likelihood, cost two products.

    Parameters
    ----------
    time_basis, sensor_basis : ndarray of float64, shape (times, times) and (sensors, sensors)
        Eigenvectors, in columns.
    deviation : ndarray of float64, shape (times, sensors)
        Standard deviation of each pair of eigenvectors.
    """

    time_basis: Array
    sensor_basis: Array
    deviation: Array

    @classmethod
    def of(cls, over_time: Array, over_sensors: Array, white: float) -> "Noise":
        """From the two covariances and the standard deviation of the white part."""
        time_values, time_basis = np.linalg.eigh(over_time)
        sensor_values, sensor_basis = np.linalg.eigh(over_sensors)
        variance = np.outer(np.maximum(time_values, 0), np.maximum(sensor_values, 0)) + white**2
        return cls(time_basis, sensor_basis, np.sqrt(variance))

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float32]:
        """`n` windows of noise, shape (n, times, sensors)."""
        drawn = rng.standard_normal((n, *self.deviation.shape), np.float32) * self.deviation.astype(np.float32)
        left, right = self.time_basis.astype(np.float32), self.sensor_basis.T.astype(np.float32)
        return np.asarray(left @ drawn @ right)

    def whiten(self, windows: NDArray[np.floating]) -> Array:
        """Coordinates in which this noise is white: (n, times, sensors) to the same shape."""
        return np.asarray(self.time_basis.T @ windows @ self.sensor_basis / self.deviation)


def over_time(n_times: int, sfreq: float, alpha: float, share: float) -> Array:
    """Covariance over time of 1/f noise with an alpha rhythm, variance 1, shape (times, times).

    The power falls as 1/f from half a hertz on, as that of the resting brain does between its rhythms (He, Neuron
    2014); alpha is a Gaussian peak, 1 Hz wide, so that it waxes and wanes.

    Parameters
    ----------
    n_times : int
        Samples.
    sfreq : float
        Hz.
    alpha : float
        Frequency of the rhythm in Hz.
    share : float
        Of the variance that is alpha.
    """
    # long enough that the circle of the discrete transform does not close on itself
    n = 8 * n_times
    frequencies = np.fft.rfftfreq(n, 1.0 / sfreq)
    pink = 1.0 / np.maximum(frequencies, 0.5)
    pink[0] = 0.0
    peak = np.exp(-0.5 * ((frequencies - alpha) / 1.0) ** 2)
    power = (1.0 - share) * pink / pink.sum() + share * peak / peak.sum()
    lagged = np.fft.irfft(power, n)[:n_times]
    return np.asarray(toeplitz(lagged / lagged[0]))


def over_sensors(rng: np.random.Generator, sensors: Sensors) -> Array:
    """Covariance over sensors of dipoles all over the brain, mean variance 1, shape (sensors, sensors)."""
    places = brain(rng, N_BACKGROUND, (0.0, 105.0), (0.0, 180.0))
    fields = sensors.fields(places, rng.standard_normal((N_BACKGROUND, 3)))
    fields *= rng.lognormal(0.0, 0.5, (N_BACKGROUND, 1))
    covariance = fields.T @ fields
    return np.asarray(covariance * len(covariance) / np.trace(covariance))
