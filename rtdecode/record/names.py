"""File names from BIDS entities (Gorgolewski et al. 2016, Scientific Data 3; BIDS 1.9, "Filenames")."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rtdecode.errors import ConfigError
from rtdecode.signal import StreamInfo

#: MNE's channel types -> BIDS suffix; the type that most data channels have decides.
_SUFFIXES = {
    "eeg": "eeg",
    "csd": "eeg",
    "mag": "meg",
    "grad": "meg",
    "ref_meg": "meg",
    "seeg": "ieeg",
    "ecog": "ieeg",
    "dbs": "ieeg",
    "fnirs": "nirs",
}
#: Windows opens files as text unless told not to.
_BINARY = getattr(os, "O_BINARY", 0)
_LABEL = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Entities:
    """What a session is called.

    Parameters
    ----------
    subject, session, task, acquisition : str
        BIDS labels: letters and digits; an empty one is left out of the name.
    run : int or None
        Number of the run; None takes the first that is free.
    """

    subject: str = ""
    session: str = ""
    task: str = ""
    acquisition: str = ""
    run: int | None = None

    def __post_init__(self) -> None:
        for name in ("subject", "session", "task", "acquisition"):
            label = getattr(self, name)
            if label and not _LABEL.fullmatch(label):
                raise ConfigError(f"recording.{name} is {label!r}; expected letters and digits alone (a BIDS label)")

    def name(self, suffix: str, run: int, split: int = 1) -> str:
        """The file's name, ``sub-01_ses-01_task-gaze_run-01_eeg.xdf``; parts after the first have a ``split``."""
        parts = [
            *((f"sub-{self.subject}",) if self.subject else ()),
            *((f"ses-{self.session}",) if self.session else ()),
            f"task-{self.task or 'rtdecode'}",
            *((f"acq-{self.acquisition}",) if self.acquisition else ()),
            f"run-{run:02d}",
            *((f"split-{split:02d}",) if split > 1 else ()),
            suffix,
        ]
        return "_".join(parts) + ".xdf"


def suffix_of(info: StreamInfo) -> str:
    """BIDS suffix of a stream: ``eeg``, ``meg``, ``ieeg``, ``nirs``; ``eeg`` where its channels say nothing."""
    found = [_SUFFIXES[channel.type] for channel in info.channels if channel.type in _SUFFIXES]
    return max(found, key=found.count) if found else "eeg"


def first_run(folder: Path, entities: Entities, suffix: str) -> int:
    """The configured run, or the first one of which the folder holds nothing yet."""
    if entities.run is not None:
        return entities.run
    run = 1
    while any(folder.glob(entities.name(suffix, run).replace(f"_{suffix}.xdf", "_*"))):
        run += 1
    return run


def create(folder: Path, entities: Entities, suffix: str, run: int, split: int = 1) -> tuple[int, Path, int]:
    """Make the first file of this run from `split` on that is not there yet; what exists is never touched.

    Returns
    -------
    split : int
        Number of the part.
    path : Path
        The new, empty file.
    descriptor : int
        Open for appending.

    Raises
    ------
    OSError
        The folder or the file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / entities.name(suffix, run, split)
        try:
            return split, path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o644)
        except FileExistsError:
            split += 1
