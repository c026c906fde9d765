"""Where trials come from: sessions of people, and the chain that is fitted on some of them and applied to others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode_models.data.trials import Dataset, Trials


@dataclass(frozen=True, slots=True, eq=False)
class Deployed:
    """What a bundle for one subject needs beside the encoder.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What the chain names, for this subject.
    windows : ndarray of float32, shape (n, time, channels)
        Some of the windows that were trained on, none that was held out, by this very chain; the first of them lie in
        `raw`.
    raw : ndarray of float32, shape (samples, contract channels), optional
        A piece of recording from the start of a segment, in SI units; None where the data hold windows only.
    raw_starts : tuple of int
        Where windows begin in `raw`, in conditioned samples.
    labels : mapping of str to ndarray of int64, shape (n,)
        Label name -> class of each of `windows`, where they have classes.
    """

    arrays: Mapping[str, NDArray[Any]]
    windows: NDArray[np.float32]
    raw: NDArray[np.float32] | None = None
    raw_starts: tuple[int, ...] = ()
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


class TrialSource(Protocol):
    """Recordings, a BIDS data set, arrays on disk, or a simulated experiment.

    What a recipe splits are sessions; each belongs to one subject.
    """

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of all sessions, in the order of the data."""
        ...

    @property
    def test_sessions(self) -> tuple[str, ...]:
        """Those that the data themselves declare for testing alone; mostly none."""
        ...

    def subject_of(self, session: str) -> str:
        """Whose session it is."""
        ...

    def dataset(self, train: Sequence[str], fit_on: NDArray[np.int64] | None = None) -> Dataset:
        """Trials of these sessions, conditioned by a chain whose fitted steps saw nothing else; `test` is None.

        Parameters
        ----------
        train : sequence of str
            Sessions. Trials come session by session, in the order of `sessions`.
        fit_on : ndarray of int64, optional
            Rows of the trials that fitted steps may see; all of them where not given. Which trials there are, and in
            what order, does not depend on it.

        Raises
        ------
        RecordingError
            A session cannot be read, or a label has no usable window.
        """
        ...

    def test(self, sessions: Sequence[str], fitted: Dataset) -> Trials:
        """Trials of other sessions, by the chain of `fitted`; its subjects come first, in its order."""
        ...

    def deployed(self, fitted: Dataset, subject: str | None = None) -> Deployed:
        """What a bundle for this subject of `fitted` needs; for any subject where None."""
        ...
