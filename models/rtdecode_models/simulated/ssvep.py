"""``ssvep``: somebody looks at one of three lights that flicker, and the occipital cortex answers at that rate.

The answer is a sinusoid at the flicker's rate and one at twice of it (Vialatte et al., Progress in Neurobiology 90,
2010), from two sources that lag by different phases. A trial has its own gain, and each sinusoid its own phase, for the
window does not start with the light. Windows are stationary on a circle, as they come out of the declared band-pass,
and every rate has a whole number of waves in them, so that the likelihood is exact.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e

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
Complex = NDArray[np.complex128]

#: The electrodes of the SSVEP exoskeleton recordings, and the rates of its lights in Hz.
CHANNELS = ("Oz", "O1", "O2", "PO3", "POz", "PO7", "PO8", "PO4")
FREQUENCIES = (13.0, 17.0, 21.0)
#: The band-pass in Hz.
BAND = (5.0, 45.0)
#: Standard deviation of the background and of the sensors' own noise in the band (V), and the background's share that
#: is alpha.
BACKGROUND, WHITE, ALPHA = 8e-6, 1.5e-6, 0.3
#: How strong the answer is at the rate and at its multiples.
HARMONICS = (1.0, 0.5)
#: Where the two sources lie (m).
PLACES = np.array([[-0.018, -0.068, 0.012], [0.018, -0.068, 0.012]])
#: Standard deviation of the logarithm of a trial's gain, on a grid.
GAIN = 0.5


class SSVEP:
    """The experiment.

    Parameters
    ----------
    spec : Simulated
        The recipe's table. `snr`: of the sinusoid at the flicker's rate at its best electrode, at a gain of 1, the root
        mean square over the background's standard deviation.
    """

    def __init__(self, spec: Simulated) -> None:
        self._spec = spec
        self.n_subjects = spec.n_subjects or 2
        self.n_classes = spec.n_classes or len(FREQUENCIES)
        if not 2 <= self.n_classes <= len(FREQUENCIES):
            raise ConfigError(f"data.n_classes is {self.n_classes}; the ssvep experiment has 2 to {len(FREQUENCIES)}")
        self.strength = 0.1 if spec.snr is None else spec.snr
        self._sensors = eeg(spec.channels or CHANNELS)
        self.positions = self._sensors.flat
        sfreq = spec.sfreq or 256.0
        if sfreq < 2.2 * BAND[1]:
            raise ConfigError(f"data.sfreq is {sfreq:g} Hz; expected {2.2 * BAND[1]:g} Hz or more for a band to 45 Hz")
        tmin, tmax = spec.tmin or 2.0, spec.tmax or 5.0
        classes = tuple(f"{rate:g} Hz" for rate in FREQUENCIES[: self.n_classes])
        window = Locked(tmin=tmin, tmax=tmax, markers=classes, name="trial")
        chain = Conditioning(stream=(Filter(low=BAND[0], high=BAND[1]),))
        self.live = Live(self._sensors.contract(sfreq), spec.conditioning or chain, window, {"label": classes})
        self.fit = Fit(whitening="none", scaling="standard", per="subject")
        self.about = {"frequencies": list(FREQUENCIES[: self.n_classes])}
        self._times = window.n_samples(sfreq)
        self._bins = spectral.frequencies(self._times, sfreq)
        rates = np.outer(FREQUENCIES[: self.n_classes], 1.0 + np.arange(len(HARMONICS)))
        waves = rates * self._times / sfreq
        if not np.allclose(waves, np.round(waves)):
            raise ConfigError(
                f"a window of {tmax - tmin:g} s has {waves.min():g} waves of a light; expected whole numbers, as in 3 s"
            )
        # the first bin is the frequency of one wave
        self._at = np.round(waves).astype(np.int64) - 1
        self._gain = Grid.normal(GAIN, 0.25 * GAIN).exp()
        self._head = lru_cache(maxsize=None)(self._draw_head)

    def windows(self, subject: int, test: bool) -> Windows:
        """One session, the lights in random order and equally often."""
        count = (self._spec.n_test or 300) if test else (self._spec.n_train or 300)
        rng = np.random.default_rng([self._spec.seed, 5 if test else 4, subject])
        label = rng.permutation(np.arange(count) % self.n_classes)
        gain = self._gain.draw(rng, count)
        phase = np.exp(2j * np.pi * rng.random((count, len(HARMONICS))))
        background, answers = self._head(subject)
        spectra = np.stack([spectral.draw(rng, background) for _ in label])
        for row, (light, loud) in enumerate(zip(label, gain, strict=True)):
            spectra[row, self._at[light]] += loud * phase[row][:, None] * answers[light]
        return Windows(spectral.windows_of(spectra, self._times), labels={"label": label.astype(np.int64)})

    def log_posterior(self, subject: int, windows: NDArray[np.floating]) -> Array:
        r"""Of the lights, given each window, with gain and phases integrated out; shape (n, lights).

        A coefficient x with covariance C and mean g e^{i phi} a has, against one without mean, the log likelihood
        2 g Re(e^{-i phi} a' C^-1 x) - g^2 a' C^-1 a; its mean over phi is that of a Bessel function,
        log I_0(2 g |a' C^-1 x|) - g^2 a' C^-1 a. Bins where no light flickers say the same of all lights.
        """
        background, answers = self._head(subject)
        spectra = spectral.coefficients(windows)
        total = np.empty((len(windows), self.n_classes))
        for light, at in enumerate(self._at):
            filters = np.linalg.solve(background[at], answers[light][:, :, None])[:, :, 0]
            seen = np.abs(np.einsum("hc,nhc->nh", filters.conj(), spectra[:, at]))
            power = np.einsum("hc,hc->h", answers[light].conj(), filters).real
            over_gain = [
                often + (np.log(i0e(2 * gain * seen)) + 2 * gain * seen - gain**2 * power).sum(axis=1)
                for gain, often in self._gain.weighted()
            ]
            total[:, light] = np.logaddexp.reduce(over_gain, axis=0)
        return np.asarray(total - np.logaddexp.reduce(total, axis=1, keepdims=True))

    def ceiling(self) -> Ceiling:
        """By the posterior over the lights; the ideal decoder knows whose trial it is, and the head."""
        parts = []
        for subject in range(self.n_subjects):
            test = self.windows(subject, test=True)
            parts.append(Ideal(self.log_posterior(subject, test.x), test.labels["label"]))
        return classification(parts, "gain and phases")

    def _draw_head(self, subject: int) -> tuple[Array, Complex]:
        """Covariance of the background at each frequency; the mean coefficients (lights, harmonics, channels)."""
        rng = np.random.default_rng([self._spec.seed, 3, subject])
        low, high = BAND
        passed = 1.0 / (1.0 + ((self._bins**2 - low * high) / (self._bins * (high - low))) ** 8)
        pink = spectral.pink(self._bins) * passed
        power = (1.0 - ALPHA) * pink / pink.sum() + ALPHA * spectral.peak(self._bins, rng.uniform(9.0, 11.0), 1.0)
        spread = BACKGROUND**2 * over_sensors(rng, self._sensors)
        # what the filter leaves of the sensors' noise; never nothing, so that every covariance can be inverted
        white = WHITE**2 * (passed + 1e-6) / passed.sum()
        background = power[:, None, None] * spread + white[:, None, None] * np.eye(len(spread))
        places = PLACES + 0.006 * rng.standard_normal(PLACES.shape)
        moments = places / np.linalg.norm(places, axis=1, keepdims=True) + 0.4 * rng.standard_normal(places.shape)
        fields = self._sensors.fields(places, moments)
        fields /= np.abs(fields).max(axis=1, keepdims=True)
        # each source lags by its own phase, differently at each rate
        lags = np.exp(2j * np.pi * rng.random((self.n_classes, len(HARMONICS), len(PLACES))))
        answers = lags @ fields
        answers /= np.abs(answers).max(axis=2, keepdims=True)
        sizes = np.exp(0.2 * rng.standard_normal((self.n_classes, 1))) * np.array(HARMONICS)
        return background, np.asarray(self.strength * BACKGROUND * sizes[:, :, None] * answers)
