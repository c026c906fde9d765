"""What every simulated experiment has: people, sessions, windows, and the score that nobody can beat."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode_models.data.spec import Fit
from rtdecode_models.data.trials import Ceiling
from rtdecode_models.data.windowed import Live, Windows


class Experiment(Protocol):
    """A generative model of a whole experiment; a pure function of its seed."""

    @property
    def live(self) -> Live:
        """The stream that its windows would be cut from."""
        ...

    @property
    def fit(self) -> Fit:
        """What is fitted on training windows, where the recipe does not say."""
        ...

    @property
    def n_subjects(self) -> int:
        """People."""
        ...

    @property
    def positions(self) -> NDArray[np.float64] | None:
        """Flat layout of the sensors, shape (channels, 2)."""
        ...

    @property
    def about(self) -> Mapping[str, Any]:
        """For the record, beside the recipe."""
        ...

    def windows(self, subject: int, test: bool) -> Windows:
        """One session, the same at every call."""
        ...

    def ceiling(self) -> Ceiling:
        """What an ideal decoder scores on all test sessions."""
        ...
