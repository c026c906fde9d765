"""``things-eeg`` and ``things-meg``: people look at images of things, and nobody trains on an image that is tested."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Clamp, Conditioning
from rtdecode.stream.window import Locked
from rtdecode_models.data.spec import Fit
from rtdecode_models.data.trials import Ceiling, Gallery
from rtdecode_models.data.windowed import Live, Windows
from rtdecode_models.simulated import sensors, things
from rtdecode_models.simulated.ceiling import Ideal, log_posterior, retrieval
from rtdecode_models.simulated.spec import Simulated
from rtdecode_models.simulated.stimuli import FEATURES, real, stand_in, unit

Array = NDArray[np.float64]

#: Training stimuli from which the mean and the standard deviation of the targets are taken.
_STANDARD = 4000


class Viewing:
    """The experiment; see `rtdecode_models.simulated.things` for what happens in it.

    Parameters
    ----------
    spec : Simulated
        The recipe's table.
    folder : Path
        Test stimuli are the real embeddings that lie there; seeded stand-ins where there are none.
    """

    def __init__(self, spec: Simulated, folder: Path) -> None:
        meg = spec.experiment == "things-meg"
        if spec.n_classes is not None:
            raise ConfigError(f"data.n_classes: {spec.experiment} has stimuli and no classes; leave it out")
        self.n_subjects = spec.n_subjects or 2
        self._spec = spec
        n_test = spec.n_test or 200
        self._stimuli = real(folder, n_test) if (folder / FEATURES).is_file() else stand_in(n_test, spec.seed)
        self._sensors = sensors.meg(spec.n_channels or 272) if meg else sensors.eeg(spec.channels)
        self.positions = self._sensors.flat
        sfreq = spec.sfreq or (120.0 if meg else 250.0)
        tmin = (-0.5 if meg else 0.0) if spec.tmin is None else spec.tmin
        # 181 samples at 120 Hz, as published: the sample at one second is among them
        tmax = (1.0 + 1.0 / sfreq if meg else 1.0) if spec.tmax is None else spec.tmax
        window = Locked(tmin=tmin, tmax=tmax, markers=("image/*",), name="image")
        clamp = Conditioning(window=(Clamp(limit=5.0),)) if meg else Conditioning()
        self.live = Live(self._sensors.contract(sfreq), spec.conditioning or clamp, window)
        self.fit = Fit(whitening="none" if meg else "mvnn", scaling="standard", per="subject")
        self._times = tmin + np.arange(window.n_samples(sfreq)) / sfreq
        stages = (things.EARLY, things.LATE, things.OFFSET) if meg else (things.EARLY, things.LATE)
        width = self._stimuli.test.shape[1]
        self._components = things.Components.draw(np.random.default_rng([spec.seed, 1]), stages, width)
        self.about = {"test_stimuli": self._stimuli.origin, "training_stimuli": "drawn; never test stimuli"}
        self._subject = lru_cache(maxsize=None)(self._draw_subject)
        self._shown = lru_cache(maxsize=None)(self._show_test)

    def windows(self, subject: int, test: bool) -> Windows:
        """One session: every stimulus once, test stimuli `test_repetitions` times."""
        if test:
            shown = self._shown(subject)
        else:
            rng = np.random.default_rng([self._spec.seed, 4, subject])
            shown = things.show(rng, self._subject(subject), self._amplitudes(self._training), 1)
        return Windows(shown.windows, item=shown.item, gallery=self._gallery(test))

    def ceiling(self) -> Ceiling:
        """By the posterior over the test stimuli; the ideal decoder knows whose trial it is, as all decoders do."""
        amplitudes = self._amplitudes(self._stimuli.test)
        parts = []
        for subject in range(self.n_subjects):
            shown = self._shown(subject)
            parts.append(Ideal(log_posterior(self._subject(subject), shown, amplitudes), shown.item))
        return retrieval(parts)

    def _draw_subject(self, subject: int) -> things.Subject:
        rng = np.random.default_rng([self._spec.seed, 3, subject])
        snr = 1.0 if self._spec.snr is None else self._spec.snr
        sfreq = self.live.contract.sfreq
        return things.draw_subject(rng, self._components, self._sensors, self._times, sfreq, snr)

    def _show_test(self, subject: int) -> things.Shown:
        rng = np.random.default_rng([self._spec.seed, 5, subject])
        amplitudes = self._amplitudes(self._stimuli.test)
        return things.show(rng, self._subject(subject), amplitudes, self._spec.test_repetitions)

    @property
    def _training(self) -> Array:
        """Embeddings of the training stimuli, the same for all people."""
        rng = np.random.default_rng([self._spec.seed, 2])
        return self._stimuli.distribution.draw(rng, self._spec.n_train or 1500)

    def _amplitudes(self, embeddings: Array) -> Array:
        return self._components.amplitudes(self._stimuli.distribution, embeddings)

    def _gallery(self, test: bool) -> Gallery:
        rows = self._stimuli.test if test else self._training
        names = self._stimuli.names if test else tuple(f"training/{at + 1:05d}" for at in range(len(rows)))
        if self._spec.embeddings == "standardised":
            drawn = self._stimuli.distribution.draw(np.random.default_rng([self._spec.seed, 6]), _STANDARD)
            rows = (rows - drawn.mean(axis=0)) / drawn.std(axis=0)
        else:
            rows = unit(rows)
        targets = {"image": rows.astype(np.float32)}
        if self._spec.captions:
            targets["caption"] = self._captions(rows)
        return Gallery(names, targets)

    def _captions(self, rows: Array) -> NDArray[np.float32]:
        """Stand-ins for embeddings of captions: a fixed mixture of the images', the same for all stimuli."""
        width = rows.shape[1]
        mixture = np.random.default_rng([self._spec.seed, 7]).standard_normal((width, width)) / np.sqrt(width)
        return np.asarray(rows @ mixture, np.float32)
