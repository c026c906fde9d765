"""``imagery``: people imagine moving a hand, the feet or the tongue, and the rhythms over that part of the cortex fade.

Event-related desynchronisation (Pfurtscheller and Lopes da Silva, Clinical Neurophysiology 110, 1999): mu and beta lose
power over the area that is imagined, contralateral for a hand, and gain a little over the others. Windows are simulated
as they come out of the declared band-pass, which is no further step for a window.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning, Filter
from rtdecode.stream.window import Locked
from rtdecode_models.data.spec import Fit
from rtdecode_models.data.trials import Ceiling
from rtdecode_models.data.windowed import Live, Windows
from rtdecode_models.simulated import spectral
from rtdecode_models.simulated.ceiling import Ideal, classification
from rtdecode_models.simulated.grid import Grid
from rtdecode_models.simulated.noise import over_sensors
from rtdecode_models.simulated.sensors import eeg
from rtdecode_models.simulated.spec import Simulated

Array = NDArray[np.float64]

#: The 22 electrodes of BCI competition IV, set 2a.
CHANNELS = (
    "Fz", "FC3", "FC1", "FCz", "FC2", "FC4", "C5", "C3", "C1", "Cz", "C2",
    "C4", "C6", "CP3", "CP1", "CPz", "CP2", "CP4", "P1", "Pz", "P2", "POz",
)  # fmt: skip
CLASSES = ("left", "right", "feet", "tongue")
#: Where the rhythm of each class lies (m): of a hand on the other side, of the feet at the midline.
AREAS = np.array([[0.045, 0.0, 0.058], [-0.045, 0.0, 0.058], [0.0, -0.005, 0.074], [0.0, 0.01, 0.062]])
#: The band-pass, in Hz.
BAND = (7.0, 30.0)
#: Standard deviation of the background and of the sensors' own noise in the band (V).
BACKGROUND, WHITE = 6e-6, 1.5e-6
#: Standard deviation of a rhythm at its strongest electrode at rest, in units of the background's.
RHYTHM = 1.5
#: Share of the power that is beta, and how much a rhythm gains where another part of the body is imagined.
BETA, REBOUND = 0.3, 0.15
#: Standard deviation of the logarithm of all rhythms' power from trial to trial.
DRIFT = 0.5
#: How far a trial's imagery goes, as a share of the full loss of power, and how often.
EFFORT = Grid(np.array([0.0, 0.5, 1.0]), np.array([0.15, 0.35, 0.5]))


class Imagery:
    """The experiment.

    Parameters
    ----------
    spec : Simulated
        The recipe's table. `snr`: the share of a rhythm's power that is lost at full effort, below 1.
    """

    def __init__(self, spec: Simulated) -> None:
        self._spec = spec
        self.n_subjects = spec.n_subjects or 3
        self.n_classes = spec.n_classes or 4
        self.loss = 0.5 if spec.snr is None else spec.snr
        if not 2 <= self.n_classes <= len(CLASSES):
            raise ConfigError(f"data.n_classes is {self.n_classes}; the imagery experiment has 2 to {len(CLASSES)}")
        if not 0 <= self.loss < 1:
            raise ConfigError(f"data.snr is {self.loss}; for imagery it is a share of power that is lost, 0 to below 1")
        self._sensors = eeg(spec.channels or CHANNELS)
        self.positions = self._sensors.flat
        sfreq = spec.sfreq or 128.0
        if sfreq < 2.2 * BAND[1]:
            raise ConfigError(f"data.sfreq is {sfreq:g} Hz; expected {2.2 * BAND[1]:g} Hz or more for a band to 30 Hz")
        tmin, tmax = spec.tmin or 0.5, spec.tmax or 3.5
        classes = CLASSES[: self.n_classes]
        window = Locked(tmin=tmin, tmax=tmax, markers=classes, name="cue")
        chain = Conditioning(stream=(Filter(low=BAND[0], high=BAND[1]),))
        self.live = Live(self._sensors.contract(sfreq), spec.conditioning or chain, window, {"label": classes})
        self.fit = Fit(whitening="none", scaling="standard", per="subject")
        self.about = {"classes": list(classes)}
        self._times = window.n_samples(sfreq)
        self._bins = spectral.frequencies(self._times, sfreq)
        self._drift = Grid.normal(DRIFT, 0.6 * DRIFT, 2.0).exp()
        self._head = lru_cache(maxsize=None)(self._draw_head)

    def windows(self, subject: int, test: bool) -> Windows:
        """One session, the classes in random order and equally often."""
        count = (self._spec.n_test or 200) if test else (self._spec.n_train or 200)
        rng = np.random.default_rng([self._spec.seed, 5 if test else 4, subject])
        label = rng.permutation(np.arange(count) % self.n_classes)
        drift = self._drift.draw(rng, count)
        effort = EFFORT.draw(rng, count)
        spectra = np.stack(
            [spectral.draw(rng, self.covariance(subject, *trial)) for trial in zip(label, drift, effort, strict=True)]
        )
        return Windows(spectral.windows_of(spectra, self._times), labels={"label": label.astype(np.int64)})

    def covariance(self, subject: int, label: int, drift: float, effort: float) -> Array:
        """Of the coefficients at each frequency, shape (bins, channels, channels)."""
        background, fields, centres = self._head(subject)
        covariance = background.copy()
        for area, (field, (mu, beta)) in enumerate(zip(fields, centres, strict=True)):
            change = 1.0 - effort * self.loss if area == label else 1.0 + effort * REBOUND
            rhythm = (1.0 - BETA) * spectral.peak(self._bins, mu, 1.0) + BETA * spectral.peak(self._bins, beta, 2.0)
            covariance += (drift * change * rhythm)[:, None, None] * np.outer(field, field)
        return np.asarray(covariance)

    def log_posterior(self, subject: int, windows: NDArray[np.floating]) -> Array:
        """Of the classes, given each window, with drift and effort summed out; shape (n, classes)."""
        spectra = spectral.coefficients(windows)
        total = np.full((len(windows), self.n_classes), -np.inf)
        for drift, often in self._drift.weighted():
            for effort, share in EFFORT.weighted():
                for label in range(self.n_classes):
                    seen = spectral.log_likelihood(spectra, self.covariance(subject, label, drift, effort))
                    total[:, label] = np.logaddexp(total[:, label], often + share + seen)
        return np.asarray(total - np.logaddexp.reduce(total, axis=1, keepdims=True))

    def ceiling(self) -> Ceiling:
        """By the posterior over the classes; the ideal decoder knows whose trial it is, and the head."""
        parts = []
        for subject in range(self.n_subjects):
            test = self.windows(subject, test=True)
            parts.append(Ideal(self.log_posterior(subject, test.x), test.labels["label"]))
        return classification(parts, "drift of the rhythms and effort")

    def _draw_head(self, subject: int) -> tuple[Array, Array, Array]:
        """Covariance of the background at each frequency, and field and frequencies of each rhythm."""
        rng = np.random.default_rng([self._spec.seed, 3, subject])
        low, high = BAND
        passed = 1.0 / (1.0 + ((self._bins**2 - low * high) / (self._bins * (high - low))) ** 8)
        power = spectral.pink(self._bins) * passed
        power /= power.sum()
        spread = BACKGROUND**2 * over_sensors(rng, self._sensors)
        # what the filter leaves of the sensors' noise; never nothing, so that every covariance can be inverted
        white = WHITE**2 * (passed + 1e-6) / passed.sum()
        background = power[:, None, None] * spread + white[:, None, None] * np.eye(len(spread))
        places = AREAS[: self.n_classes] + 0.006 * rng.standard_normal((self.n_classes, 3))
        moments = places / np.linalg.norm(places, axis=1, keepdims=True) + 0.4 * rng.standard_normal(
            (self.n_classes, 3)
        )
        fields = self._sensors.fields(places, moments)
        fields *= RHYTHM * BACKGROUND / np.abs(fields).max(axis=1, keepdims=True)
        centres = np.stack([rng.uniform(9.5, 12.5, self.n_classes), rng.uniform(18.0, 24.0, self.n_classes)], axis=1)
        return background, fields, centres
