"""Where trials come from: sessions of people, and the chain that is fitted on some of them and applied to others."""

from collections.abc import Sequence
from typing import Protocol

from rtdecode_models.data.trials import Dataset, Trials


class TrialSource(Protocol):
    """Recordings, a BIDS data set, arrays on disk, or a simulated experiment.

    What a recipe splits are sessions; each belongs to one subject.
    """

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of all sessions, in the order of the data."""
        ...

    def subject_of(self, session: str) -> str:
        """Whose session it is."""
        ...

    def dataset(self, train: Sequence[str]) -> Dataset:
        """Trials of these sessions, conditioned by a chain whose fitted steps saw nothing else; `test` is None.

        Raises
        ------
        RecordingError
            A session cannot be read, or a label has no usable window.
        """
        ...

    def test(self, sessions: Sequence[str], fitted: Dataset) -> Trials:
        """Trials of other sessions, by the chain of `fitted`; its subjects come first, in its order."""
        ...
