"""BIDS data sets (EEG, MEG, iEEG): which runs there are, and each as a recording with its sidecars' word.

The daemon's own `RecordingSource` reads the samples, MNE those of CTF and KIT. ``channels.tsv`` says types,
units and which channels are bad, ``events.tsv`` what the markers are, ``electrodes.tsv`` and ``coordsystem.json`` where
the sensors are. Gorgolewski and others, "The brain imaging data structure", Scientific Data 3, 2016, and the
specification 1.10.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rtdecode.errors import ConfigError, RecordingError
from rtdecode.signal import DATA_TYPES, Batch, Channel, Marker
from rtdecode.sources.units import channel_type, si_unit, to_si
from rtdecode_models.data.galleries import read_gallery
from rtdecode_models.data.helmets import READERS, read_helmet
from rtdecode_models.data.recorded import RecordedSource, Session
from rtdecode_models.data.recordings import Recording, read_recording
from rtdecode_models.data.spec import Bids

#: Endings of recordings that BIDS allows and that are read here; then those that are not.
_READ = (".fif", ".vhdr", ".edf", ".bdf", ".set", *READERS)
_NOT_READ = (".kdf", ".nwb", ".mefd", ".raw", ".pdf")
#: Metres in a unit of coordinates.
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
_NOT_THERE = ("n/a", "")
#: Types that only BIDS spells so.
_REFERENCES = ("MEGREFMAG", "MEGREFGRADAXIAL", "MEGREFGRADPLANAR")

Row = Mapping[str, str]
Place = tuple[float, float, float]


def open_bids(spec: Bids, folder: Path) -> RecordedSource:
    """The runs that the recipe chooses.

    Raises
    ------
    ConfigError
        There is no such run, or a sidecar that is needed is missing or not what BIDS says.
    """
    root = folder / spec.root
    if not (root / "dataset_description.json").is_file():
        raise ConfigError(f"{root} is no BIDS data set: it has no dataset_description.json")
    chosen = [path for path in _runs(root, spec) if _is_chosen(entities(path), spec)]
    if not chosen:
        there = sorted({name_of(path) for path in _runs(root, spec)})
        raise ConfigError(
            f"{root} has no {spec.datatype} run of task {spec.task or 'any'}, subjects {_or_any(spec.subjects)}, "
            f"sessions {_or_any(spec.sessions)}, runs {_or_any(spec.runs)}; there are {', '.join(there[:8]) or 'none'}"
        )
    gallery = read_gallery(spec.stimuli, folder) if spec.stimuli is not None else None
    return RecordedSource(spec, [_session(root, path, spec) for path in chosen], gallery)


def read_run(root: Path, path: Path, event_column: str) -> Recording:
    """One run: its samples in SI units, with types, units, positions and markers as its sidecars say.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    path : Path
        The file of samples.
    event_column : str
        Column of ``events.tsv`` that becomes the marker; rows without a value (``n/a``) are none.

    Raises
    ------
    ConfigError
        ``events.tsv`` has no such column, or an onset that is no number.
    RecordingError
        A data channel has no unit, or another than the file itself declares.
    """
    recording = read_helmet(path) if path.suffix in READERS else read_recording(path.parent, path.name)
    table = {row["name"]: row for row in _table(sidecar(root, path, "channels", ".tsv"), ("name", "type", "units"))}
    known = [name for name in recording.info.names if name in table]
    if table and not known:
        raise ConfigError(
            f"{path}: its channels ({', '.join(recording.info.names[:4])}...) are none of those in channels.tsv "
            f"({', '.join(list(table)[:4])}...)"
        )
    places = _electrodes(root, path)
    found = [_channel(channel, table.get(channel.name), places, path) for channel in recording.info.channels]
    scales = np.array([scale for _, scale in found])
    info = replace(recording.info, channels=tuple(channel for channel, _ in found))
    # All markers first, and the watermark later: what is decoded does not depend on when they come.
    batches = [Batch(None, _markers(root, path, event_column), -math.inf)]
    for batch in recording.batches:
        chunk = batch.chunk
        if chunk is not None:
            chunk = replace(chunk, samples=to_si(chunk.samples, scales))
        batches.append(replace(batch, chunk=chunk, markers=()))
    return replace(recording, name=name_of(path), info=info, batches=tuple(batches))


def name_of(path: Path) -> str:
    """The entities of a file, without its suffix: ``sub-01_ses-1_task-rest_run-2``."""
    return path.name.partition(".")[0].rpartition("_")[0]


def entities(path: Path) -> dict[str, str]:
    """``{"sub": "01", "task": "rest"}``, from a file's name."""
    parts = [part.partition("-") for part in path.name.partition(".")[0].split("_")]
    return {key: value for key, dash, value in parts if dash}


def sidecar(root: Path, path: Path, suffix: str, ending: str) -> Path | None:
    """The file of this suffix that applies to a run, by BIDS's principle of inheritance; None where there is none.

    It lies in the run's folder or above, and says nothing of its name that the run's name does not (``space`` apart).
    The nearest one applies; of several in one folder, the most specific.
    """
    own = entities(path).items()
    at = path.parent
    while True:
        found = [
            candidate
            for candidate in sorted(at.glob(f"*{suffix}{ending}"))
            if candidate.name.partition(".")[0].split("_")[-1] == suffix
            and {pair for pair in entities(candidate).items() if pair[0] != "space"} <= set(own)
        ]
        if found:
            return max(found, key=lambda candidate: len(entities(candidate)))
        if at == root or at == at.parent:
            return None
        at = at.parent


def _runs(root: Path, spec: Bids) -> list[Path]:
    found = []
    for folder in sorted([*root.glob(f"sub-*/{spec.datatype}"), *root.glob(f"sub-*/ses-*/{spec.datatype}")]):
        for path in sorted(folder.iterdir()):
            is_run = path.name.partition(".")[0].endswith(f"_{spec.datatype}") and path.suffix in _READ + _NOT_READ
            # A FIF file in parts names those that follow it.
            if is_run and entities(path).get("split", "01").lstrip("0") in ("1", ""):
                found.append(path)
    return found


def _is_chosen(has: Mapping[str, str], spec: Bids) -> bool:
    wanted = {
        "sub": spec.subjects,
        "ses": spec.sessions,
        "run": spec.runs,
        "task": (spec.task,) if spec.task else (),
    }
    return all(not values or has.get(key) in values for key, values in wanted.items())


def _or_any(names: Sequence[str]) -> str:
    return ", ".join(names) or "any"


def _session(root: Path, path: Path, spec: Bids) -> Session:
    if path.suffix in _NOT_READ:
        raise ConfigError(
            f"{path} is of a format that is not read here; save it as FIF, EDF, BDF, BrainVision or EEGLAB "
            "(mne_bids.write_raw_bids does)"
        )
    if sidecar(root, path, "channels", ".tsv") is None:
        raise ConfigError(f"{path} has no channels.tsv; BIDS needs one, for types and units")
    if spec.window is not None and sidecar(root, path, "events", ".tsv") is None:
        raise ConfigError(f"{path} has no events.tsv, and [data] asks for a window around its events")
    bad: frozenset[str] = frozenset()
    if spec.bad_channels == "drop":
        rows = _table(sidecar(root, path, "channels", ".tsv"), ("name",))
        bad = frozenset(row["name"] for row in rows if row.get("status") == "bad")
    subject = f"sub-{entities(path)['sub']}"
    return Session(name_of(path), subject, lambda: read_run(root, path, spec.event_column), bad)


def _channel(channel: Channel, row: Row | None, places: Mapping[str, Place], path: Path) -> tuple[Channel, float]:
    """The channel as the table has it, and the factor that takes its samples to SI."""
    place = places.get(channel.name, channel.position)
    if row is None:
        return replace(channel, position=place), 1.0
    kind = "ref_meg" if row["type"] in _REFERENCES else channel_type(row["type"]) or channel.type
    unit, factor = si_unit(row["units"]) if row["units"] not in _NOT_THERE else ("", 1.0)
    if kind not in DATA_TYPES:
        return Channel(channel.name, kind, channel.unit, place), 1.0
    if channel.unit:
        # The reader has brought the samples to SI by what the file itself says of each channel.
        if unit not in ("", channel.unit):
            raise RecordingError(
                f"{path}: channel {channel.name!r} is in {channel.unit} by the file, and in {row['units']} by "
                "channels.tsv; correct the one that is wrong"
            )
        return Channel(channel.name, kind, channel.unit, place), 1.0
    if unit not in ("V", "T", "T/m"):
        raise RecordingError(
            f"{path}: channel {channel.name!r} has no unit in the file, and {row['units']!r} in channels.tsv; expected "
            "one of brain data, as uV or fT"
        )
    return Channel(channel.name, kind, unit, place), factor


def _markers(root: Path, path: Path, column: str) -> tuple[Marker, ...]:
    events = sidecar(root, path, "events", ".tsv")
    if events is None:
        return ()
    markers = []
    for row in _table(events, ("onset", column)):
        if row[column] in _NOT_THERE:
            continue
        try:
            markers.append(Marker(float(row["onset"]), row[column], "events"))
        except ValueError as error:
            raise ConfigError(f"{events}: the onset {row['onset']!r} is no number of seconds") from error
    return tuple(sorted(markers))


def _electrodes(root: Path, path: Path) -> dict[str, Place]:
    """Places in metres; none where no table gives them, or no file says in which unit they are."""
    table = sidecar(root, path, "electrodes", ".tsv")
    system = sidecar(root, path, "coordsystem", ".json")
    if table is None or system is None:
        return {}
    try:
        said = json.loads(system.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ConfigError(f"{system} is not JSON: {error}") from error
    units = [said[key] for key in ("EEGCoordinateUnits", "iEEGCoordinateUnits", "MEGCoordinateUnits") if key in said]
    metres = _METRES.get(units[0]) if units else None
    if metres is None:
        return {}
    places = {}
    for row in _table(table, ("name", "x", "y", "z")):
        if not any(row[axis] in _NOT_THERE for axis in "xyz"):
            x, y, z = (_coordinate(table, row, axis) * metres for axis in "xyz")
            places[row["name"]] = (x, y, z)
    return places


def _coordinate(table: Path, row: Row, axis: str) -> float:
    try:
        value = float(row[axis])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f"{table}: {axis} of the electrode {row['name']!r} is {row[axis]!r}; expected a number, or n/a where it is "
            "not known"
        )
    return value


def _table(path: Path | None, columns: Sequence[str]) -> list[Row]:
    """Rows of a TSV; raise `ConfigError` where a column is missing."""
    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no table in UTF-8: {error}") from error
    with io.StringIO(text) as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(
                f"{path} has no column {missing[0]!r}; it has {', '.join(map(repr, reader.fieldnames or ()))}"
            )
        return [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
