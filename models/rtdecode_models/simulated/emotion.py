"""``emotion`` and ``emotion-arousal``: windows of a second while somebody watches a film, rated from 1 to 5.

The rating shifts band powers and one coupling, step by step, so that neighbouring ratings look alike: frontal alpha
moves from one side to the other (Davidson, Brain and Cognition 20, 1992), frontal theta and temporal gamma rise, and
frontal and parietal beta go together more closely. How strong each of these is differs between people.

That is valence. Arousal moves the same sources otherwise: alpha falls everywhere, theta and gamma rise (Barry et al.,
Clinical Neurophysiology 118, 2007), and the coupling stays.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning, Filter, WindowScale
from rtdecode.stream.window import Locked
from rtdecode_models.data.spec import NOTHING_FITTED
from rtdecode_models.data.trials import Ceiling
from rtdecode_models.data.windowed import Live, Windows
from rtdecode_models.simulated import spectral
from rtdecode_models.simulated.ceiling import Ideal, classification
from rtdecode_models.simulated.grid import Grid
from rtdecode_models.simulated.noise import over_sensors
from rtdecode_models.simulated.sensors import eeg
from rtdecode_models.simulated.spec import Simulated

Array = NDArray[np.float64]

#: The 14 electrodes of an Emotiv EPOC, in the order of HiSTN's regions.
CHANNELS = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
#: Standard deviation of the background and of the sensors' own noise (V).
BACKGROUND, WHITE = 10e-6, 1.5e-6
#: Sources: place (m), frequency and width of the rhythm (Hz), strength at the best electrode in units of the
#: background, and by how much the logarithm of its power rises over the whole scale, at an snr of 1.
SOURCES: tuple[tuple[tuple[float, float, float], float, float, float, float], ...] = (
    ((-0.035, 0.055, 0.035), 10.0, 1.0, 0.5, 1.0),
    ((0.035, 0.055, 0.035), 10.0, 1.0, 0.5, -1.0),
    ((0.0, 0.065, 0.045), 6.0, 1.0, 0.5, 0.8),
    ((-0.068, 0.0, 0.015), 36.0, 5.0, 0.3, 0.8),
    ((0.068, 0.0, 0.015), 36.0, 5.0, 0.3, 0.8),
    ((0.0, -0.075, 0.035), 10.0, 1.0, 0.7, 0.0),
)
#: What arousal has in place of the last column.
AROUSAL = (-0.6, -0.6, 0.6, 0.8, 0.8, -0.8)
#: Two places whose beta is coherent, its frequency, width and strength, and the coherence at the middle of the scale.
COUPLED, BETA, COHERENCE = ((-0.04, 0.05, 0.045), (-0.045, -0.055, 0.045)), (20.0, 3.0, 0.4), 0.5
#: Standard deviation of the logarithm of all rhythms' power from window to window.
DRIFT = 0.4


class Emotion:
    """The experiment; its one label is called ``valence``, or ``arousal``.

    Parameters
    ----------
    spec : Simulated
        The recipe's table. `snr` multiplies all effects of the rating.
    """

    def __init__(self, spec: Simulated) -> None:
        self._spec = spec
        self.n_subjects = spec.n_subjects or 1
        self.n_classes = spec.n_classes or 5
        if self.n_classes < 2:
            raise ConfigError(f"data.n_classes is {self.n_classes}; expected two ratings or more")
        self.effect = 2.0 if spec.snr is None else spec.snr
        self._arousal = spec.experiment == "emotion-arousal"
        self.label = "arousal" if self._arousal else "valence"
        self._sensors = eeg(spec.channels or CHANNELS)
        self.positions = self._sensors.flat
        sfreq = spec.sfreq or 128.0
        classes = tuple(str(rating + 1) for rating in range(self.n_classes))
        window = Locked(tmin=spec.tmin or 0.0, tmax=spec.tmax or 1.0, markers=classes, name=self.label)
        chain = Conditioning(stream=(Filter(low=0.5),), window=(WindowScale(method="maxabs"),))
        self.live = Live(self._sensors.contract(sfreq), spec.conditioning or chain, window, {self.label: classes})
        self.fit = NOTHING_FITTED
        self.about = {"label": self.label}
        self._times = window.n_samples(sfreq)
        self._bins = spectral.frequencies(self._times, sfreq)
        self._drift = Grid.normal(DRIFT, 0.6 * DRIFT, 2.0).exp()
        self._head = lru_cache(maxsize=None)(self._draw_head)

    def windows(self, subject: int, test: bool) -> Windows:
        """One session, the ratings in random order and equally often."""
        count = (self._spec.n_test or 500) if test else (self._spec.n_train or 2000)
        rng = np.random.default_rng([self._spec.seed, 5 if test else 4, subject])
        label = rng.permutation(np.arange(count) % self.n_classes)
        drift = self._drift.draw(rng, count)
        spectra = np.stack(
            [spectral.draw(rng, self.covariance(subject, *trial)) for trial in zip(label, drift, strict=True)]
        )
        return Windows(spectral.windows_of(spectra, self._times), labels={self.label: label.astype(np.int64)})

    def covariance(self, subject: int, rating: int, drift: float) -> Array:
        """Of the coefficients at each frequency, shape (bins, channels, channels)."""
        background, fields, weights = self._head(subject)
        step = rating / (self.n_classes - 1) - 0.5
        covariance = background.copy()
        slopes = AROUSAL if self._arousal else tuple(slope for *_, slope in SOURCES)
        for (_, centre, width, *_), slope, field, weight in zip(SOURCES, slopes, fields, weights, strict=False):
            power = drift * np.exp(self.effect * weight * slope * step) * spectral.peak(self._bins, centre, width)
            covariance += power[:, None, None] * np.outer(field, field)
        # coherent sources: logistic, so that coherence stays between 0 and 1
        odds = np.log(COHERENCE / (1.0 - COHERENCE)) + (0.0 if self._arousal else self.effect * weights[-1] * step)
        coherence = 1.0 / (1.0 + np.exp(-odds))
        pair = fields[-2:].T @ np.array([[1.0, coherence], [coherence, 1.0]]) @ fields[-2:]
        covariance += (drift * spectral.peak(self._bins, *BETA[:2]))[:, None, None] * pair
        return np.asarray(covariance)

    def log_posterior(self, subject: int, windows: NDArray[np.floating]) -> Array:
        """Of the ratings, given each window, with the drift summed out; shape (n, ratings)."""
        spectra = spectral.coefficients(windows)
        total = np.full((len(windows), self.n_classes), -np.inf)
        for drift, often in self._drift.weighted():
            for rating in range(self.n_classes):
                seen = spectral.log_likelihood(spectra, self.covariance(subject, rating, drift))
                total[:, rating] = np.logaddexp(total[:, rating], often + seen)
        return np.asarray(total - np.logaddexp.reduce(total, axis=1, keepdims=True))

    def ceiling(self) -> Ceiling:
        """By the posterior over the ratings, from windows that have not been scaled by their maximum."""
        parts = []
        for subject in range(self.n_subjects):
            test = self.windows(subject, test=True)
            parts.append(Ideal(self.log_posterior(subject, test.x), test.labels[self.label]))
        return classification(parts, "drift of the rhythms")

    def _draw_head(self, subject: int) -> tuple[Array, Array, Array]:
        """Covariance of the background at each frequency, fields of the sources, and how strong each effect is."""
        rng = np.random.default_rng([self._spec.seed, 3, subject])
        spread = BACKGROUND**2 * over_sensors(rng, self._sensors)
        white = np.full(len(self._bins), WHITE**2 / len(self._bins))
        background = spectral.pink(self._bins)[:, None, None] * spread + white[:, None, None] * np.eye(len(spread))
        places = np.array([place for place, *_ in SOURCES] + list(COUPLED))
        places = places + 0.006 * rng.standard_normal(places.shape)
        moments = places / np.linalg.norm(places, axis=1, keepdims=True) + 0.4 * rng.standard_normal(places.shape)
        fields = self._sensors.fields(places, moments)
        strengths = np.array([strength for *_, strength, _ in SOURCES] + [BETA[2]] * 2)
        fields *= BACKGROUND * strengths[:, None] / np.abs(fields).max(axis=1, keepdims=True)
        return background, fields, rng.uniform(0.5, 1.5, len(SOURCES) + 1)
