"""The one place that knows every kind of data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rtdecode.errors import ConfigError, RecordingError
from rtdecode.sources.declare import Declare
from rtdecode_models.data.arrays import open_arrays
from rtdecode_models.data.bids import open_bids
from rtdecode_models.data.epochs import open_epochs
from rtdecode_models.data.galleries import read_gallery
from rtdecode_models.data.recorded import RecordedSource, Session
from rtdecode_models.data.recordings import Recording, read_recording
from rtdecode_models.data.source import TrialSource
from rtdecode_models.data.spec import Arrays, Bids, DataSpec, Epochs, Recordings, ThingsEeg2
from rtdecode_models.data.things_eeg2 import open_things_eeg2
from rtdecode_models.simulated.spec import Simulated


def parse_data(table: Mapping[str, Any], where: str = "[data]") -> DataSpec | Simulated:
    """The table ``[data]``; raise `ConfigError` naming the key that is unknown, missing or wrong."""
    try:
        return msgspec.convert(table, DataSpec | Simulated)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def open_source(spec: DataSpec | Simulated, folder: Path) -> TrialSource:
    """The trials that a recipe's table ``[data]`` declares.

    No recording is read yet; that the files are there is looked at.

    Parameters
    ----------
    spec : DataSpec
        The table.
    folder : Path
        What its paths are relative to.

    Raises
    ------
    ConfigError, RecordingError
        The table contradicts itself, or a file is not there.
    """
    match spec:
        case Recordings():
            return _recordings(spec, folder)
        case Bids():
            return open_bids(spec, folder)
        case Epochs():
            return open_epochs(spec, folder)
        case ThingsEeg2():
            return open_things_eeg2(spec, folder)
        case Arrays():
            return open_arrays(spec, folder)
        case Simulated():
            from rtdecode_models.simulated.open import open_simulated  # generative models, which others do not need

            return open_simulated(spec, folder)


def _recordings(spec: Recordings, folder: Path) -> TrialSource:
    declare = Declare(unit=spec.declare.unit, type=spec.declare.type)
    rules = [trigger.rule for trigger in spec.triggers]
    sessions: dict[str, Session] = {}
    for subject, patterns in spec.subjects.items():
        for name in (name for pattern in patterns for name in _files(folder, pattern)):
            if name in sessions:
                raise ConfigError(
                    f"data.subjects.{subject} names {name} again, which is {sessions[name].subject}'s already"
                )

            def read(name: str = name) -> Recording:
                return read_recording(folder, name, declare, rules)

            sessions[name] = Session(name, subject, read)
    if not sessions:
        raise ConfigError("data.subjects names no file; expected at least one")
    return RecordedSource(spec, tuple(sessions.values()), read_gallery(spec.stimuli, folder) if spec.stimuli else None)


def _files(folder: Path, pattern: str) -> list[str]:
    """Names, relative to the folder, of the files that a name or a pattern means, sorted."""
    if (folder / pattern).is_file():
        return [pattern]
    found = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file())
    if not found:
        raise RecordingError(f"the recording {folder / pattern} does not exist; is the data folder right?")
    return found
