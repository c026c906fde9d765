"""What the channels of a FieldTrip buffer are: from the chunks of its header, or from a declared file."""

import csv
import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtdecode.errors import SourceError
from rtdecode.sources.declare import Declare, Described, RawChannel, describe
from rtdecode.sources.fieldtrip_fif import big_endian
from rtdecode.sources.fieldtrip_wire import ChunkType, DataType, Header

#: Key (of the chunk of keys and values) of the units, as `rtdecode stream` says them; the protocol has none.
UNITS_KEY = "rtdecode.units"


def describe_header(header: Header, declare: Declare, source: str, sensors: Path | None = None) -> Described:
    """The channels in SI, and the factors that take samples there.

    What speaks, in this order: the declared file; a FIF header in the chunks; the chunks of names and flags; then
    `declare`, for what is still open. Whole numbers are scaled by the chunk of resolutions, or else by the FIF header's
    range and cal (FIFF: value = raw * range * cal); floating-point samples are taken as scaled already.

    Raises
    ------
    SourceError
        A chunk or the file does not fit the number of channels, or they contradict each other.
    """
    names = _names(header, source)
    channels = _from_chunks(header, names, source)
    flags: tuple[str, ...] = ()
    if sensors is not None:
        channels = _matched(_read(sensors), names, header, str(sensors), source)
        flags = (f"sensors of {header.n_channels} channels: {sensors.name}",)
    whole = header.data_type not in (DataType.FLOAT32, DataType.FLOAT64)
    resolutions = _resolutions(header, source)
    if not whole:
        channels = [dataclasses.replace(one, scale=1.0) for one in channels]
    elif resolutions is not None:
        channels = [dataclasses.replace(one, scale=r) for one, r in zip(channels, resolutions, strict=True)]
    found = describe(channels, declare, source)
    return dataclasses.replace(found, declared_by_user=flags + found.declared_by_user)


def _from_chunks(header: Header, names: list[str], source: str) -> list[RawChannel]:
    fif = header.chunk(ChunkType.NEUROMAG_HEADER)
    if fif is not None:
        return _matched(_read_fif_bytes(fif, source), names, header, "its FIF header", source)
    types, units = _flags(header, source), _units(header)
    return [RawChannel(name, type_, unit) for name, type_, unit in zip(names, types, units, strict=True)]


def _names(header: Header, source: str) -> list[str]:
    data = header.chunk(ChunkType.CHANNEL_NAMES)
    if data is None:
        return [""] * header.n_channels
    parts = data.split(b"\0")
    if parts[-1] == b"":
        parts.pop()
    if len(parts) != header.n_channels:
        raise SourceError(
            f"{source} has {header.n_channels} channels and a list of {len(parts)} names; correct the sender"
        )
    return [part.decode("utf-8", "replace").strip() for part in parts]


def _flags(header: Header, source: str) -> list[str]:
    """The chunk names the kinds once (``meg_ad_eog``), then says of each channel which one it is, counted from 1."""
    data = header.chunk(ChunkType.CHANNEL_FLAGS)
    if data is None:
        return [""] * header.n_channels
    words, _, flags = data.partition(b"\0")
    kinds = ["", *words.decode("ascii", "replace").split("_")]
    if len(flags) != header.n_channels or max(flags, default=0) >= len(kinds):
        raise SourceError(
            f"{source} has {header.n_channels} channels and flags that do not fit them ({len(flags)} flags of "
            f"{len(kinds) - 1} kinds); correct the sender"
        )
    return [kinds[flag] for flag in flags]


def _units(header: Header) -> list[str]:
    """Only `rtdecode stream` says them, in the chunk of keys and values: one for each channel, joined by commas."""
    texts = (header.chunk(ChunkType.ASCII_KEYVAL) or b"").decode("utf-8", "replace").split("\0")
    pairs = dict(zip(texts[::2], texts[1::2], strict=False))
    units = pairs.get(UNITS_KEY, "").split(",")
    return units if len(units) == header.n_channels else [""] * header.n_channels


def _resolutions(header: Header, source: str) -> list[float] | None:
    data = header.chunk(ChunkType.RESOLUTIONS)
    if data is None:
        return None
    if len(data) != 8 * header.n_channels:
        raise SourceError(
            f"{source} has {header.n_channels} channels and {len(data)} bytes of resolutions; expected 8 for each"
        )
    values = np.frombuffer(data, "<f8")
    if not (np.isfinite(values).all() and values.all()):
        raise SourceError(f"{source} has a resolution that is 0 or no number; correct the sender")
    return [float(value) for value in values]


def _matched(
    known: Sequence[RawChannel], names: list[str], header: Header, said_by: str, source: str
) -> list[RawChannel]:
    """One of `known` for each channel: by name where the buffer has names, in order otherwise."""
    if not any(names):
        if len(known) != header.n_channels:
            raise SourceError(
                f"{source} has {header.n_channels} channels without names, {said_by} has {len(known)}; expected as many"
            )
        return list(known)
    by_name = {one.name: one for one in known}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise SourceError(
            f"{source} has the channel {missing[0]!r}, {said_by} has not ({len(missing)} of {len(names)} are missing); "
            "expected the sensors of this recording"
        )
    return [by_name[name] for name in names]


def _read(path: Path) -> list[RawChannel]:
    if not path.is_file():
        raise SourceError(f"{path}, the `sensors` of [source], does not exist or is no file; check the path")
    if path.name.endswith((".fif", ".fif.gz")):
        return _read_fif(path, str(path))
    if path.suffix == ".tsv":
        return _read_tsv(path)
    raise SourceError(f"{path}: expected a FIF file, or a .tsv file with the columns name, type and units (BIDS)")


def _read_tsv(path: Path) -> list[RawChannel]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or not {"name", "type", "units"} <= set(rows[0]):
        found = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise SourceError(f"{path} has {found}; expected the columns name, type and units, and a row for each channel")
    return [RawChannel(_cell(row, "name"), _cell(row, "type"), _cell(row, "units")) for row in rows]


def _cell(row: dict[str, str | None], key: str) -> str:
    text = (row[key] or "").strip()
    return "" if text.lower() == "n/a" else text


def _read_fif_bytes(data: bytes, source: str) -> list[RawChannel]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header_info.fif"
        path.write_bytes(big_endian(data, f"the FIF header of {source}"))
        return _read_fif(path, f"the FIF header of {source}")


def _read_fif(path: Path, what: str) -> list[RawChannel]:
    # Imported here: only sessions whose sensors stand in a FIF file need MNE.
    try:
        import mne
    except ImportError as error:
        raise SourceError(f'{what} needs MNE, which is not installed; pip install "rtdecode[files]"') from error
    from rtdecode.sources.mne_reader import FIFF_UNITS, sensor_position

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            info: Any = mne.io.read_info(path, verbose="error")
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise SourceError(f"{what} cannot be read ({type(error).__name__}: {''.join(first)}); expected FIF") from error
    types = info.get_channel_types()
    return [
        RawChannel(
            one["ch_name"],
            type_,
            FIFF_UNITS.get(int(one["unit"]), ""),
            sensor_position(one, info["dev_head_t"]),
            float(one["range"]) * float(one["cal"]) or 1.0,
        )
        for one, type_ in zip(info["chs"], types, strict=True)
    ]
