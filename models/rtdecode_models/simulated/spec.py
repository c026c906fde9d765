"""The recipe's table ``data`` of kind ``simulated``.

::

    [data]
    kind = "simulated"
    experiment = "things-eeg"
    n_subjects = 2
    n_train = 1500
"""

from typing import Literal

import msgspec

from rtdecode.stream.steps import Conditioning
from rtdecode_models.data.spec import Fit

Name = Literal["things-eeg", "things-meg", "words", "imagery", "emotion", "emotion-arousal", "ssvep", "objects"]


class Simulated(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="simulated"
):
    """A simulated experiment; nothing of it was measured.

    Every number that is left out is the experiment's own; ``docs/simulated.md`` has them, and what each stands for.

    Parameters
    ----------
    experiment : str
        Which one.
    seed : int
        Of the people, the stimuli and the noise; not of the networks.
    n_subjects : int
        People; each has a session ``NAME-train`` and a session ``NAME-test``.
    n_train, n_test : int
        Training and test stimuli, which each subject sees; where there are classes instead of stimuli, trials of each
        subject.
    test_repetitions : int
        Test trials of each stimulus; each is scored alone, none are averaged.
    n_classes : int
        Where there are classes.
    snr : float
        How strong the part is that tells stimuli or classes apart; what it is a ratio of is the experiment's.
    tmin, tmax : float
        Seconds around onset.
    sfreq : float
        Hz.
    n_channels : int
        Sensors of a helmet, contacts of an electrode.
    channels : tuple of str
        Electrodes of a cap.
    embeddings : str
        ``standardised``: each dimension of the targets has mean 0 and standard deviation 1 over the training stimuli;
        ``raw``: vectors of length 1, as the image model gives them.
    captions : bool
        Stimuli have a second target, ``caption``: a fixed linear image of their embeddings that stands for the
        embeddings of captions, of which there are none here.
    conditioning : Conditioning
        From the stream to the windows: stream steps that have been done, window steps that will be.
    fit : Fit
        What is fitted on the training sessions.
    """

    experiment: Name
    seed: int = 0
    n_subjects: int | None = None
    n_train: int | None = None
    n_test: int | None = None
    test_repetitions: int = 2
    n_classes: int | None = None
    snr: float | None = None
    tmin: float | None = None
    tmax: float | None = None
    sfreq: float | None = None
    n_channels: int | None = None
    channels: tuple[str, ...] = ()
    embeddings: Literal["standardised", "raw"] = "standardised"
    captions: bool = False
    conditioning: Conditioning | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no experiment."""
        for name in ("n_subjects", "n_train", "n_test", "n_classes", "n_channels", "test_repetitions", "sfreq"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; expected more than 0")
        if self.snr is not None and not self.snr >= 0:
            raise ValueError(f"snr is {self.snr}; expected 0 or more")
        if self.tmin is not None and self.tmax is not None and not self.tmin < self.tmax:
            raise ValueError(f"the window ends at {self.tmax} s, before it starts at {self.tmin} s")
