"""``words``: somebody says one of some words, recorded from a depth electrode.

Each contact answers to each word by a course of its high-gamma power (70 to 150 Hz: Mugler et al., Journal of Neural
Engineering 11, 2014; Bouchard et al., Nature 495, 2013) and by a slow potential. A trial has its own onset and its own
level of high gamma. Noise is 1/f, and independent between contacts, as it nearly is after bipolar referencing.

Signals are made from an orthonormal local cosine basis (the modified discrete cosine transform, Princen and Bradley,
IEEE TASSP 34, 1986): each coefficient belongs to 50 ms and 10 Hz and is independent of the others, so that power may
change over time and the likelihood is exact all the same.
"""

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked
from rtdecode_models.data.spec import Fit
from rtdecode_models.data.trials import Ceiling
from rtdecode_models.data.windowed import Live, Windows
from rtdecode_models.simulated.ceiling import Ideal, classification
from rtdecode_models.simulated.grid import Grid
from rtdecode_models.simulated.spec import Simulated

Array = NDArray[np.float64]

#: Seconds of a frame of the basis.
FRAME = 0.05
#: High gamma in Hz; below which frequency the slow potential lies; the spectrum's knee and its exponent.
GAMMA, SLOW, KNEE, EXPONENT = (70.0, 150.0), 10.0, 20.0, 2.0
#: Standard deviation of the noise (V), and of high gamma at rest in units of the noise in its band.
NOISE, REST = 30e-6, 1.0
#: Standard deviations, at an snr of 1: of the logarithm of high-gamma power between words and moments, and of the slow
#: potential in units of the noise in its band.
MODULATION, POTENTIAL = 1.5, 0.6
#: Centres of a word's parts in seconds after its onset, and the width of each.
PARTS, WIDTH = np.arange(0.0, 1.3, 0.2), 0.08
#: Standard deviation and step of a trial's onset (s), and standard deviation of the logarithm of its high-gamma power.
ONSET, ONSET_STEP, LEVEL = 0.06, 0.03, 0.3


class Words:
    """The experiment.

    Parameters
    ----------
    spec : Simulated
        The recipe's table. `snr` multiplies `MODULATION` and `POTENTIAL`.
    """

    positions = None

    def __init__(self, spec: Simulated) -> None:
        self._spec = spec
        self.n_subjects = spec.n_subjects or 1
        self.n_classes = spec.n_classes or 61
        self.n_channels = spec.n_channels or 10
        self.effect = 1.0 if spec.snr is None else spec.snr
        sfreq = spec.sfreq or 1000.0
        if self.n_classes < 2:
            raise ConfigError(f"data.n_classes is {self.n_classes}; expected two words or more")
        if sfreq < 2 * GAMMA[1]:
            raise ConfigError(f"data.sfreq is {sfreq:g} Hz; expected {2 * GAMMA[1]:g} Hz or more for high gamma")
        classes = tuple(f"word-{at + 1:02d}" for at in range(self.n_classes))
        tmin, tmax = (-0.5 if spec.tmin is None else spec.tmin), (2.5 if spec.tmax is None else spec.tmax)
        window = Locked(tmin=tmin, tmax=tmax, markers=("word-*",), name="word")
        names = [f"B{at + 1}-B{at + 2}" for at in range(self.n_channels)]
        contract = Contract(tuple(ContractChannel(name=name, type="seeg", unit="V") for name in names), sfreq)
        self.live = Live(contract, spec.conditioning or Conditioning(), window, {"label": classes})
        self.fit = Fit(whitening="none", scaling="standard", per="subject")
        self.about = {"frame_s": FRAME}
        self._samples = round(FRAME * sfreq)
        self._frames, rest = divmod(window.n_samples(sfreq), self._samples)
        if rest or self._frames < 2:
            raise ConfigError(f"a window of {tmax - tmin:g} s is no whole number of frames of {FRAME:g} s, two or more")
        self._centres = tmin + FRAME * (np.arange(self._frames) + 1.0)
        self._bins = (np.arange(self._samples) + 0.5) * sfreq / (2 * self._samples)
        self._gamma = (self._bins > GAMMA[0]) & (self._bins < GAMMA[1])
        self._onset = Grid.normal(ONSET, ONSET_STEP, 2.0)
        self._level = Grid.normal(LEVEL, LEVEL, 2.0).exp()
        self._person = lru_cache(maxsize=None)(self._draw_person)

    def windows(self, subject: int, test: bool) -> Windows:
        """One session, the words in random order and equally often."""
        count = (self._spec.n_test or 10 * self.n_classes) if test else (self._spec.n_train or 40 * self.n_classes)
        rng = np.random.default_rng([self._spec.seed, 5 if test else 4, subject])
        label = rng.permutation(np.arange(count) % self.n_classes)
        onset = self._onset.draw(rng, count)
        level = self._level.draw(rng, count)
        x = np.empty((count, self._frames * self._samples, self.n_channels), np.float32)
        for row, (word, start, loud) in enumerate(zip(label, onset, level, strict=True)):
            mean, variance = self.moments(subject, int(word), float(start), float(loud))
            x[row] = synthesise(mean + np.sqrt(variance) * rng.standard_normal(mean.shape))
        return Windows(x, labels={"label": label.astype(np.int64)})

    def moments(self, subject: int, word: int, onset: float, level: float) -> tuple[Array, Array]:
        """Mean and variance of every coefficient, both of shape (frames, bins, channels)."""
        modulation, potential = self._person(subject)
        at = (self._centres[:, None] - onset - PARTS) / WIDTH
        course = np.exp(-0.5 * at**2)
        mean = np.zeros((self._frames, self._samples, self.n_channels))
        mean[:, self._bins < SLOW] = (course @ potential[word])[:, None, :] * np.sqrt(self._noise[0])
        variance = np.tile(self._noise[None, :, None], (self._frames, 1, self.n_channels))
        active = REST * level * np.exp(course @ modulation[word])
        variance[:, self._gamma] += active[:, None, :] * self._noise[self._gamma][:, None]
        return mean, variance

    @cached_property
    def _noise(self) -> Array:
        """Variance of a coefficient of the noise, by frequency, shape (bins,)."""
        power = 1.0 / (1.0 + (self._bins / KNEE) ** EXPONENT)
        return np.asarray(NOISE**2 * power / power.mean())

    def log_posterior(self, subject: int, windows: NDArray[np.floating]) -> Array:
        """Of the words, given each window, with onset and level summed out; shape (n, words)."""
        used = self._gamma | (self._bins < SLOW)
        found = np.stack([analyse(window, self._samples)[:, used] for window in windows.astype(np.float64)])
        flat, square = found.reshape(len(found), -1), (found**2).reshape(len(found), -1)
        total = np.full((len(windows), self.n_classes), -np.inf)
        for onset, often in self._onset.weighted():
            for level, share in self._level.weighted():
                for word in range(self.n_classes):
                    mean, variance = (part[:, used].ravel() for part in self.moments(subject, word, onset, level))
                    fixed = (mean**2 / variance + np.log(variance)).sum()
                    seen = -0.5 * (square @ (1.0 / variance) - 2.0 * flat @ (mean / variance) + fixed)
                    total[:, word] = np.logaddexp(total[:, word], often + share + seen)
        return np.asarray(total - np.logaddexp.reduce(total, axis=1, keepdims=True))

    def ceiling(self) -> Ceiling:
        """By the posterior over the words."""
        parts = []
        for subject in range(self.n_subjects):
            test = self.windows(subject, test=True)
            parts.append(Ideal(self.log_posterior(subject, test.x), test.labels["label"]))
        return classification(parts, "onset and level of high gamma")

    def _draw_person(self, subject: int) -> tuple[Array, Array]:
        """Of each word, part and contact: the change of log power, and of the slow potential."""
        rng = np.random.default_rng([self._spec.seed, 3, subject])
        shape = (self.n_classes, len(PARTS), self.n_channels)
        # some contacts answer well and some hardly at all
        contact = rng.uniform(0.2, 1.0, self.n_channels)
        modulation = self.effect * MODULATION * contact * rng.standard_normal(shape)
        return modulation, self.effect * POTENTIAL * contact * rng.standard_normal(shape)


@lru_cache
def basis(samples: int) -> Array:
    """Local cosines of one frame under a sine window, shape (samples, 2 samples); a frame overlaps half of the next."""
    at = np.arange(2 * samples) + 0.5
    window = np.sin(np.pi * at / (2 * samples))
    phases = np.pi / samples * np.outer(np.arange(samples) + 0.5, at + samples / 2)
    return np.asarray(np.sqrt(2.0 / samples) * window * np.cos(phases))


def synthesise(found: Array) -> Array:
    """Coefficients (frames, bins, channels) to samples (frames * bins, channels); the last frame reaches round."""
    frames, samples, channels = found.shape
    pieces = np.einsum("fkc,kn->fnc", found, basis(samples), optimize=True)
    first, second = pieces[:, :samples], pieces[:, samples:]
    return np.asarray((first + np.roll(second, 1, axis=0)).reshape(frames * samples, channels))


def analyse(window: Array, samples: int) -> Array:
    """Samples (frames * bins, channels) to coefficients (frames, bins, channels); undoes `synthesise`."""
    cut = window.reshape(-1, samples, window.shape[1])
    pieces = np.concatenate([cut, np.roll(cut, -1, axis=0)], axis=1)
    return np.asarray(np.einsum("fnc,kn->fkc", pieces, basis(samples), optimize=True))
