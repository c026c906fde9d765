"""THINGS-EEG2 as it is published, preprocessed: one pickled dictionary for each subject and part.

Gifford, Dwivedi, Roig and Cichy, "A large and rich EEG dataset for modeling human visual object recognition",
NeuroImage 264, 2022. ``sub-XX/preprocessed_eeg_training.npy`` and ``..._test.npy`` hold ``preprocessed_eeg_data``
(conditions, repetitions, channels, times), ``ch_names`` and ``times``: 16540 conditions, 4 times each, to train on and
200, 80 times each, to test on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning, Resample
from rtdecode_models.data.arrays import sha256
from rtdecode_models.data.galleries import read_gallery
from rtdecode_models.data.pickled_array import read_pickled
from rtdecode_models.data.spec import ThingsEeg2
from rtdecode_models.data.trials import Gallery
from rtdecode_models.data.windowed import Live, WindowedSource, Windows, WindowSession, locked

#: Rate of the amplifier, in Hz.
AMPLIFIER = 1000.0


def open_things_eeg2(spec: ThingsEeg2, folder: Path) -> WindowedSource:
    """The subjects' two sessions each.

    One file is read, to see what channels and times it has.

    Raises
    ------
    ConfigError
        No subject is there, a file is missing or not of this layout, or a channel is not among those of the files.
    """
    root = folder / spec.root
    subjects = spec.subjects or tuple(sorted(path.name for path in root.glob("sub-*") if path.is_dir()))
    if not subjects:
        raise ConfigError(f"{root} has no folder sub-01, sub-02...; expected those of THINGS-EEG2")
    files = {(subject, part): _file(root, subject, part) for subject in subjects for part in ("training", "test")}
    first = _read(files[subjects[0], "test"])
    names = spec.channels or tuple(first.names)
    rate = _rate(first.times, files[subjects[0], "test"])
    stimuli = {"training": spec.training_stimuli, "test": spec.test_stimuli}
    galleries: dict[str, Gallery] = {
        part: read_gallery(given, folder) for part, given in stimuli.items() if given is not None
    }
    sessions = []
    for (subject, part), path in files.items():
        averaged = (spec.training_repetitions if part == "training" else spec.test_repetitions) == "averaged"

        def read(path: Path = path, part: str = part, averaged: bool = averaged) -> Windows:
            return _windows(path, part, spec, names, rate, averaged, galleries.get(part))

        sessions.append(WindowSession(f"{subject}/{part}", subject, read, part == "test"))
    channels = tuple(ContractChannel(name=name, type="eeg", unit="V") for name in names)
    chain = spec.conditioning
    if chain is None:
        chain = Conditioning(stream=(Resample(sfreq=rate),) if rate != AMPLIFIER else ())
    live = Live(
        contract=Contract(channels=channels, sfreq=AMPLIFIER),
        conditioning=chain,
        window=locked(spec.tmin, spec.tmax, {}),
    )
    return WindowedSource(sessions, live, spec.fit)


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """One file's dictionary, checked."""

    data: NDArray[np.floating]
    names: list[str]
    times: NDArray[np.float64]


def _file(root: Path, subject: str, part: str) -> Path:
    path = root / subject / f"preprocessed_eeg_{part}.npy"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; expected THINGS-EEG2 as it is published, preprocessed")
    return path


def _read(path: Path) -> _File:
    found = read_pickled(path)
    try:
        data, names = np.asarray(found["preprocessed_eeg_data"]), [str(name) for name in found["ch_names"]]
        times = np.asarray(found["times"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no dictionary with preprocessed_eeg_data, ch_names and times ({error}); expected THINGS-EEG2 "
            "as it is published, preprocessed"
        ) from error
    if data.ndim != 4 or data.dtype.kind != "f" or data.shape[2:] != (len(names), len(times)) or 0 in data.shape:
        raise ConfigError(
            f"{path}: preprocessed_eeg_data is {data.dtype} of shape {data.shape}, for {len(names)} channels and "
            f"{len(times)} times; expected floating point (conditions, repetitions, channels, times)"
        )
    return _File(data, names, times)


def _rate(times: NDArray[np.float64], path: Path) -> float:
    """Hz, from the times; published ones are rounded."""
    steps = np.diff(times)
    if len(times) < 2 or not (steps > 0).all() or np.ptp(steps) > 0.1 * steps.mean():
        raise ConfigError(f"{path}: its times are not evenly spaced seconds")
    return round(float((len(times) - 1) / (times[-1] - times[0])), 3)


def _windows(
    path: Path,
    part: str,
    spec: ThingsEeg2,
    names: tuple[str, ...],
    rate: float,
    averaged: bool,
    gallery: Gallery | None,
) -> Windows:
    file = _read(path)
    if gallery is None:
        gallery = Gallery(tuple(f"{part}/{row + 1:05d}" for row in range(len(file.data))), {})
    missing = [name for name in names if name not in file.names]
    if missing:
        raise ConfigError(f"{path} has no channel {missing[0]!r}; it has {', '.join(file.names)}")
    if abs(_rate(file.times, path) - rate) > 1e-3:
        raise ConfigError(f"{path} is at {_rate(file.times, path):g} Hz; expected {rate:g} Hz, as the others are")
    if len(file.data) != len(gallery.names):
        raise ConfigError(f"{path} has {len(file.data)} conditions for {len(gallery.names)} stimuli; expected as many")
    first = int(np.argmin(np.abs(file.times - spec.tmin)))
    length = round((spec.tmax - spec.tmin) * rate)
    if abs(file.times[first] - spec.tmin) > 0.51 / rate or first + length > len(file.times):
        raise ConfigError(
            f"{path} spans {file.times[0]:g} to {file.times[-1]:g} s; data.tmin and tmax ask for {spec.tmin:g} to "
            f"{spec.tmax:g} s"
        )
    columns = [file.names.index(name) for name in names]
    conditions, repetitions = file.data.shape[:2]
    per = 1 if averaged else repetitions
    x = np.empty((conditions, per, length, len(names)), np.float32)
    for row, condition in enumerate(file.data):  # one at a time: the whole may be larger than what is free
        chosen = condition[:, columns, first : first + length].transpose(0, 2, 1)
        x[row] = chosen.mean(axis=0, dtype=np.float64, keepdims=True) if averaged else chosen
    item = np.repeat(np.arange(conditions), per)
    place = f"{path.parent.name}/{path.name}"
    return Windows(x.reshape(-1, length, len(names)), item=item, gallery=gallery, files={place: sha256(path)})
