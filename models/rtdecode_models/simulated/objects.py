"""``objects``: somebody sees the picture of an object for a second, and then for six seconds how it turns.

Each object has a class and a colour. Some components answer briefly to the picture, others slowly to the turning; how
strongly each does is the sum of a number of the class, one of the colour, and one of the trial alone. A trial has its
own gain. Noise is stationary on a circle, so that whitening it costs one Fourier transform, also of 3,500 samples; what
is left is a normal model in as many dimensions as there are components, and its likelihood is exact.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Clamp, Conditioning, Filter, WindowScale
from rtdecode.stream.window import Locked
from rtdecode_models.data.spec import NOTHING_FITTED
from rtdecode_models.data.trials import Ceiling
from rtdecode_models.data.windowed import Live, Windows
from rtdecode_models.simulated import spectral
from rtdecode_models.simulated.ceiling import Ideal, classification
from rtdecode_models.simulated.grid import Grid
from rtdecode_models.simulated.noise import over_sensors
from rtdecode_models.simulated.sensors import brain, eeg
from rtdecode_models.simulated.spec import Simulated

Array = NDArray[np.float64]

#: Seconds of the picture; colours; components of the picture and of the turning.
PICTURE, COLOURS, STATIC, DYNAMIC = 1.0, 6, 8, 8
#: Standard deviation of the background and of the sensors' own noise (V), and the background's share that is alpha.
BACKGROUND, WHITE, ALPHA = 10e-6, 3e-6, 0.3
#: Standard deviations of a component's amplitude over classes, over colours, and from trial to trial of one object.
CLASS, COLOUR, WANDER = 1.0, 0.5, 1.0
#: Standard deviation of a component's amplitude that all objects have in common.
COMMON = 2.0
#: Standard deviation of the logarithm of a trial's gain, on a grid.
GAIN = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """One person.

    Parameters
    ----------
    answers : ndarray of complex128, shape (components, bins, channels)
        Fourier coefficients of each component's answer, in volts.
    basis : ndarray of float64, shape (channels, channels)
        Eigenvectors of the background over channels, in columns.
    deviation : ndarray of float64, shape (bins, channels)
        Of each eigenvector's coefficient.
    """

    answers: NDArray[np.complex128]
    basis: Array
    deviation: Array

    def whiten(self, spectra: NDArray[np.complex128]) -> Array:
        """Real coordinates in which the noise is white, of coefficients (n, bins, channels): (n, 2 bins channels)."""
        white = np.sqrt(2.0) * (spectra @ self.basis) / self.deviation
        return np.concatenate([white.real, white.imag], axis=1).reshape(len(spectra), -1)


class Objects:
    """The experiment; its labels are called ``label`` (the class) and ``colour``.

    Parameters
    ----------
    spec : Simulated
        The recipe's table. `snr`: r.m.s. over sensors of a component at its peak, for an amplitude of 1, over the
        standard deviation of the noise.
    """

    def __init__(self, spec: Simulated) -> None:
        self._spec = spec
        self.n_subjects = spec.n_subjects or 1
        self.n_classes = spec.n_classes or 72
        if self.n_classes < 2:
            raise ConfigError(f"data.n_classes is {self.n_classes}; expected two classes of objects or more")
        self._snr = 0.5 if spec.snr is None else spec.snr
        self._sensors = eeg(spec.channels)
        self.positions = self._sensors.flat
        sfreq = spec.sfreq or 500.0
        tmin, tmax = spec.tmin or 0.0, spec.tmax or 7.0
        if tmin > 0 or tmax < PICTURE + 1.0:
            raise ConfigError(
                f"a window from {tmin:g} to {tmax:g} s; expected the picture's second and one or more of the turning"
            )
        window = Locked(tmin=tmin, tmax=tmax, markers=("class *",), name="object")
        # the published band, where the rate has it
        high = 100.0 if sfreq > 220.0 else None
        chain = Conditioning(
            stream=(Filter(low=0.1, high=high, order=2),), window=(WindowScale(method="zscore"), Clamp(limit=20.0))
        )
        classes = {
            "label": tuple(f"class {at + 1}" for at in range(self.n_classes)),
            "colour": tuple(f"colour {at + 1}" for at in range(COLOURS)),
        }
        self.live = Live(self._sensors.contract(sfreq), spec.conditioning or chain, window, classes)
        self.fit = NOTHING_FITTED
        self.about = {"components": STATIC + DYNAMIC}
        self._times = tmin + np.arange(window.n_samples(sfreq)) / sfreq
        self._bins = spectral.frequencies(len(self._times), sfreq)
        self._gain = Grid.normal(GAIN, 0.5 * GAIN).exp()
        rng = np.random.default_rng([spec.seed, 1])
        n = STATIC + DYNAMIC
        self._common = COMMON * rng.standard_normal(n)
        self._of_class = CLASS * rng.standard_normal((self.n_classes, n))
        self._of_colour = COLOUR * rng.standard_normal((COLOURS, n))
        self._course = self._draw_courses(rng)
        self._places = brain(rng, n, (60.0, 105.0), (100.0, 180.0))
        self._moments = rng.standard_normal((n, 3))
        self._head = lru_cache(maxsize=None)(self._draw_head)

    def windows(self, subject: int, test: bool) -> Windows:
        """One session, the classes in random order and equally often, colours by lot."""
        count = (self._spec.n_test or 4 * self.n_classes) if test else (self._spec.n_train or 8 * self.n_classes)
        rng = np.random.default_rng([self._spec.seed, 5 if test else 4, subject])
        label = rng.permutation(np.arange(count) % self.n_classes)
        colour = rng.integers(COLOURS, size=count)
        gain = self._gain.draw(rng, count)
        own = WANDER * rng.standard_normal((count, STATIC + DYNAMIC))
        amplitudes = gain[:, None] * (self._common + self._of_class[label] + self._of_colour[colour] + own)
        head = self._head(subject)
        x = np.empty((count, len(self._times), len(head.basis)), np.float32)
        for row, amplitude in enumerate(amplitudes):
            white = rng.standard_normal((*head.deviation.shape, 2)) @ np.array([1.0, 1.0j]) / np.sqrt(2.0)
            spectra = (white * head.deviation) @ head.basis.T + np.tensordot(amplitude, head.answers, axes=1)
            x[row] = spectral.windows_of(spectra[None], len(self._times))[0]
        return Windows(x, labels={"label": label.astype(np.int64), "colour": colour.astype(np.int64)})

    def log_posterior(self, subject: int, windows: NDArray[np.floating]) -> Array:
        """Of the classes, given each window, with colour and gain summed out; shape (n, classes).

        With B the components' whitened answers in rows, all that a window x says of its amplitudes is B x; see
        `ceiling.log_posterior` for the density.
        """
        head = self._head(subject)
        rows = head.whiten(head.answers)
        gram = rows @ rows.T
        along = np.concatenate([head.whiten(spectral.coefficients(window[None])) @ rows.T for window in windows])
        weights = (self._common + self._of_class[:, None] + self._of_colour).reshape(-1, len(rows))
        logs = []
        for gain, often in self._gain.weighted():
            inverse = np.linalg.inv(np.eye(len(rows)) + (gain * WANDER) ** 2 * gram)
            seen = along @ inverse
            trial = 0.5 * (gain * WANDER) ** 2 * (seen * along).sum(axis=1) + 0.5 * np.linalg.slogdet(inverse)[1]
            power = 0.5 * gain**2 * ((weights @ inverse @ gram) * weights).sum(axis=1)
            logs.append(often + trial[:, None] + gain * (seen @ weights.T) - power)
        objects = logsumexp(np.stack(logs), axis=0).reshape(len(windows), self.n_classes, COLOURS)
        total = logsumexp(objects, axis=2)
        return np.asarray(total - logsumexp(total, axis=1, keepdims=True))

    def ceiling(self) -> Ceiling:
        """By the posterior over the classes, from windows that have not been scaled."""
        parts = []
        for subject in range(self.n_subjects):
            test = self.windows(subject, test=True)
            parts.append(Ideal(self.log_posterior(subject, test.x), test.labels["label"]))
        return classification(parts, "colour, gain and the trial's own amplitudes")

    def _draw_courses(self, rng: np.random.Generator) -> Array:
        """Course of each component, shape (components, times), 1 at most: brief waves, then slow ones."""
        n = STATIC + DYNAMIC
        end = self._times[-1]
        peak = np.concatenate([rng.uniform(0.1, 0.6, STATIC), rng.uniform(PICTURE + 0.3, end - 0.3, DYNAMIC)])
        width = np.concatenate([rng.uniform(0.03, 0.08, STATIC), rng.uniform(0.3, 0.8, DYNAMIC)])
        rate = np.concatenate([rng.uniform(3.0, 8.0, STATIC), rng.uniform(0.5, 2.0, DYNAMIC)])
        late = self._times - peak[:, None]
        waves = np.cos(2 * np.pi * rate[:, None] * late + rng.uniform(0, 2 * np.pi, (n, 1)))
        course = np.exp(-0.5 * (late / width[:, None]) ** 2) * waves
        # nothing of the turning before the object turns
        course[STATIC:, self._times < PICTURE] = 0.0
        return np.asarray(course)

    def _draw_head(self, subject: int) -> Head:
        rng = np.random.default_rng([self._spec.seed, 3, subject])
        n = STATIC + DYNAMIC
        pink = spectral.pink(self._bins)
        power = (1.0 - ALPHA) * pink + ALPHA * spectral.peak(self._bins, rng.uniform(9.0, 11.0), 1.0)
        values, basis = np.linalg.eigh(BACKGROUND**2 * over_sensors(rng, self._sensors))
        variance = np.outer(power, np.maximum(values, 0.0)) + WHITE**2 / len(self._bins)
        places = self._places + 0.006 * rng.standard_normal((n, 3))
        fields = self._sensors.fields(places, self._moments + 0.35 * rng.standard_normal((n, 3)))
        fields *= self._snr * np.hypot(BACKGROUND, WHITE) / np.sqrt((fields**2).mean(axis=1, keepdims=True))
        answers = spectral.coefficients(self._course[:, :, None] * fields[:, None, :])
        return Head(answers, basis, np.sqrt(variance))
