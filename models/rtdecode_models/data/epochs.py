"""MNE epochs on disk, with their metadata: how THINGS-MEG and many laboratories publish what they preprocessed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ConfigError
from rtdecode.signal import DATA_TYPES
from rtdecode.sources.mne_reader import FIFF_UNITS
from rtdecode_models.data.arrays import classes_of, sha256
from rtdecode_models.data.galleries import read_gallery
from rtdecode_models.data.spec import Epochs
from rtdecode_models.data.trials import Gallery
from rtdecode_models.data.windowed import Live, WindowedSource, Windows, WindowSession, locked


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """One subject's epochs, not loaded, and what each row of their metadata says as text."""

    path: Path
    epochs: Any
    rows: Sequence[Mapping[str, str]]


def open_epochs(spec: Epochs, folder: Path) -> WindowedSource:
    """The subjects' epochs, as sessions.

    Headers and metadata are read here, samples later.

    Raises
    ------
    ConfigError
        A file is missing or no epochs, a column is not in the metadata, or subjects differ in channels, rate or time.
    """
    if not spec.subjects:
        raise ConfigError("data.subjects names no file; expected at least one")
    files = {subject: _open(folder / name, spec) for subject, name in spec.subjects.items()}
    first = next(iter(files.values()))
    channels = _channels(first, spec)
    times = first.epochs.times
    rate = float(first.epochs.info["sfreq"])
    for file in files.values():
        if _channels(file, spec) != channels or float(file.epochs.info["sfreq"]) != rate:
            raise ConfigError(f"{file.path} has other channels or another rate than {first.path}; expected the same")
    tmin = float(times[0]) if spec.tmin is None else spec.tmin
    tmax = float(times[-1]) + 1 / rate if spec.tmax is None else spec.tmax
    classes = {label: _values(files.values(), column) for label, column in spec.label_columns.items()}
    gallery = None
    if spec.stimuli is not None:
        gallery = read_gallery(spec.stimuli, folder)
    elif spec.item_column:
        gallery = Gallery(_values(files.values(), spec.item_column), {})
    sessions = []
    for subject, file in files.items():
        for name, (at, test) in _sessions(subject, file, spec).items():

            def read(file: _File = file, at: Sequence[int] = at) -> Windows:
                return _read(file, at, spec, (tmin, tmax), classes, gallery)

            sessions.append(WindowSession(name, subject, read, test))
    live = Live(
        contract=Contract(channels=channels, sfreq=spec.sfreq),
        conditioning=spec.conditioning,
        window=locked(tmin, tmax, spec.markers),
        classes=classes,
        markers=spec.markers,
    )
    return WindowedSource(sessions, live, spec.fit)


def _open(path: Path, spec: Epochs) -> _File:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; is the data folder right?")
    try:
        import mne
    except ImportError as error:
        raise ConfigError(f'reading {path} needs MNE: pip install "rtdecode[files]"') from error
    try:
        epochs = mne.read_epochs(path, preload=False, verbose="error")
    except Exception as error:  # a damaged file shows as almost any error
        raise ConfigError(f"{path} cannot be read as epochs ({error}); expected a file that MNE saved") from error
    metadata = epochs.metadata
    if metadata is None:
        metadata = [{} for _ in range(len(epochs))]
    elif not isinstance(metadata, list):
        metadata = metadata.to_dict("records")
    rows = [{key: _text(value) for key, value in row.items()} for row in metadata]
    asked = [spec.session_column, spec.item_column, spec.test_column, *spec.label_columns.values(), *spec.leave_out]
    for column in filter(None, asked):
        if rows and column not in rows[0]:
            there = ", ".join(rows[0]) or "nothing"
            raise ConfigError(f"the metadata of {path} have no column {column!r}; they have {there}")
    return _File(path, epochs, rows)


def _text(value: object) -> str:
    """A value of the metadata; whole numbers without a fraction, as pandas gives them one beside missing values."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _values(files: Iterable[_File], column: str) -> tuple[str, ...]:
    """What a column holds, over all files: numbers by size, text by letters."""
    found = {row[column] for file in files for row in file.rows}
    return tuple(sorted(found, key=lambda text: (0, float(text), text) if _is_number(text) else (1, 0.0, text)))


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def _channels(file: _File, spec: Epochs) -> tuple[ContractChannel, ...]:
    info = file.epochs.info
    wanted = spec.channel_types or tuple(DATA_TYPES)
    found = tuple(
        ContractChannel(name=name, type=kind, unit=FIFF_UNITS.get(int(one["unit"]), ""))
        for name, kind, one in zip(info["ch_names"], info.get_channel_types(), info["chs"], strict=True)
        if kind in wanted
    )
    if not found:
        raise ConfigError(f"{file.path} has no channel of type {', '.join(sorted(wanted))}")
    return found


def _sessions(subject: str, file: _File, spec: Epochs) -> dict[str, tuple[list[int], bool]]:
    """Name -> rows, and whether they can only be tested on."""
    found: dict[str, tuple[list[int], bool]] = {}
    for at, row in enumerate(file.rows):
        if any(row[column] in values for column, values in spec.leave_out.items()):
            continue
        test = bool(spec.test_column) and row[spec.test_column] in spec.test_values
        name = subject + (f"/{row[spec.session_column]}" if spec.session_column else "") + ("/test" if test else "")
        found.setdefault(name, ([], test))[0].append(at)
    return found


def _read(
    file: _File,
    at: Sequence[int],
    spec: Epochs,
    span: tuple[float, float],
    classes: Mapping[str, tuple[str, ...]],
    gallery: Gallery | None,
) -> Windows:
    rate = float(file.epochs.info["sfreq"])
    start = round((span[0] - float(file.epochs.times[0])) * rate)
    stop = start + round((span[1] - span[0]) * rate)
    if start < 0 or stop > len(file.epochs.times):
        raise ConfigError(
            f"{file.path} spans {file.epochs.times[0]:g} to {file.epochs.times[-1]:g} s; data.tmin and tmax ask for "
            f"{span[0]:g} to {span[1]:g} s"
        )
    names = [channel.name for channel in _channels(file, spec)]
    data = file.epochs[list(at)].get_data(picks=names, verbose="error")

    def column(name: str) -> NDArray[Any]:
        return np.array([file.rows[row][name] for row in at])

    return Windows(
        np.ascontiguousarray(data[:, :, start:stop].transpose(0, 2, 1), np.float32),
        {
            label: classes_of(column(name), classes[label], f"data.label_columns.{label}")
            for label, name in spec.label_columns.items()
        },
        classes_of(column(spec.item_column), gallery.names, "data.item_column") if gallery is not None else None,
        gallery,
        {file.path.name: sha256(file.path)},
    )
