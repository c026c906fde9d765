"""A simulated experiment as a source of trials."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode_models.data.trials import Ceiling, Dataset
from rtdecode_models.data.windowed import WindowedSource, WindowSession
from rtdecode_models.simulated.emotion import Emotion
from rtdecode_models.simulated.experiment import Experiment
from rtdecode_models.simulated.imagery import Imagery
from rtdecode_models.simulated.objects import Objects
from rtdecode_models.simulated.spec import Name, Simulated
from rtdecode_models.simulated.ssvep import SSVEP
from rtdecode_models.simulated.viewing import Viewing
from rtdecode_models.simulated.words import Words

_EXPERIMENTS: dict[Name, Callable[[Simulated, Path], Experiment]] = {
    "things-eeg": Viewing,
    "things-meg": Viewing,
    "words": lambda spec, _: Words(spec),
    "imagery": lambda spec, _: Imagery(spec),
    "emotion": lambda spec, _: Emotion(spec),
    "emotion-arousal": lambda spec, _: Emotion(spec),
    "ssvep": lambda spec, _: SSVEP(spec),
    "objects": lambda spec, _: Objects(spec),
}


class SimulatedSource(WindowedSource):
    """Sessions ``s01-train``, ``s01-test``, ``s02-train``...: the latter can only be tested on.

    Parameters
    ----------
    spec : Simulated
        The recipe's table.
    folder : Path
        Where real embeddings are taken from, if they lie there.
    """

    def __init__(self, spec: Simulated, folder: Path) -> None:
        self.experiment = _EXPERIMENTS[spec.experiment](spec, folder)
        self._spec = spec
        self._ceiling: Ceiling | None = None
        sessions = [
            WindowSession(
                f"s{subject + 1:02d}-{'test' if test else 'train'}",
                f"s{subject + 1:02d}",
                partial(self.experiment.windows, subject, test),
                test,
            )
            for subject in range(self.experiment.n_subjects)
            for test in (False, True)
        ]
        super().__init__(sessions, self.experiment.live, spec.fit or self.experiment.fit)

    def dataset(self, train: Sequence[str], fit_on: NDArray[np.int64] | None = None) -> Dataset:
        """Trials of these sessions, with the ceiling of all test sessions; see `TrialSource.dataset`."""
        if self._ceiling is None:
            self._ceiling = self.experiment.ceiling()
        given = super().dataset(train, fit_on)
        about = {"simulated": msgspec.to_builtins(self._spec), **self.experiment.about}
        return replace(
            given, simulated=True, ceiling=self._ceiling, provenance=about, positions=self.experiment.positions
        )


def open_simulated(spec: Simulated, folder: Path) -> SimulatedSource:
    """The trials of a simulated experiment.

    Parameters
    ----------
    spec : Simulated
        The recipe's table ``data``.
    folder : Path
        The data folder of the command; it may hold real embeddings of test images (see `stimuli.real`).

    Raises
    ------
    ConfigError
        A number makes no sense for this experiment.
    RecordingError
        The folder's embeddings cannot be read.
    """
    return SimulatedSource(spec, folder)
