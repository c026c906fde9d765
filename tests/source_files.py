"""Recordings of every format, small, written byte for byte after the formats' descriptions, with known contents."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

#: What most files here hold: integers of an amplifier with this step, in microvolts.
STEP_UV = 0.5


@dataclass(frozen=True)
class Known:
    """A file and what it must give: samples in SI, and (seconds from the first sample, description) of each marker."""

    path: Path
    samples: NDArray[np.float32]
    sfreq: float
    markers: tuple[tuple[float, str], ...]


def counts(n: int = 500, channels: int = 3, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-3000, 3000, (n, channels))


def in_volts(values: NDArray[np.int64], step_uv: float = STEP_UV) -> NDArray[np.float32]:
    return (values * step_uv * 1e-6).astype(np.float32)


def edf_bytes(
    values: NDArray[np.int64],
    *,
    rate: int = 100,
    annotations: Sequence[tuple[float, str]] = (),
    unit: str = "uV",
    labels: Sequence[str] = (),
    slow: int = 0,
    onsets: Sequence[float] | None = None,
    bdf: bool = False,
    status: NDArray[np.int64] | None = None,
    records: int | None = None,
    physical: tuple[float, float] | None = None,
) -> bytes:
    """An EDF+ or BDF file with records of one second.

    `slow` appends a channel with that many samples a record; `onsets` makes an EDF+D of it; `status` appends a trigger
    channel; `records` is written in place of the true number; `physical` in place of the true range.
    """
    n_records = len(values) // rate
    top = 8_000_000 if bdf else 32_000  # whose physical limits can be written in 8 characters
    low, high = physical if physical is not None else (-top * STEP_UV, top * STEP_UV)
    columns = [values[:, k] for k in range(values.shape[1])]
    names = list(labels) or [f"E{k + 1}" for k in range(values.shape[1])]
    units, sizes = [unit] * len(columns), [rate] * len(columns)
    ranges = [(low, high)] * len(columns)
    if slow:
        columns.append(np.zeros(n_records * slow, np.int64))
        names, units, sizes = [*names, "Slow"], [*units, "uV"], [*sizes, slow]
        ranges.append((low, high))
    if status is not None:
        columns.append(status)
        names, units, sizes = [*names, "Status"], [*units, "Boolean"], [*sizes, rate]
        ranges.append((-top, top))
    width = 3 if bdf else 2
    plus = bool(annotations) or onsets is not None
    tal = 60
    if plus:
        names, units, sizes = [*names, "BDF Annotations" if bdf else "EDF Annotations"], [*units, ""], [*sizes, tal]
        ranges.append((-1, 1))
    n = len(names)

    def field(texts: Sequence[object], size: int) -> bytes:
        return b"".join(str(text).encode("latin-1").ljust(size)[:size] for text in texts)

    kind = ("BDF" if bdf else "EDF") + "+" + ("D" if onsets is not None else "C") if plus else ""
    head = b"\xffBIOSEMI" if bdf else b"0       "
    head += field(["X X X X", "Startdate 01-JAN-2020 X X X"], 80) + b"01.01.2000.00.00"
    head += field([256 * (n + 1)], 8) + field([kind], 44)
    head += field([n_records if records is None else records], 8) + field([1], 8) + field([n], 4)
    head += field(names, 16) + field([""] * n, 80) + field(units, 8)
    head += field([f"{a:.8g}" for a, _ in ranges], 8) + field([f"{b:.8g}" for _, b in ranges], 8)
    head += field([-top] * n, 8) + field([top] * n, 8) + field([""] * n, 80) + field(sizes, 8) + field([""] * n, 32)
    body = b""
    starts = list(onsets) if onsets is not None else [float(k) for k in range(n_records)]
    for record in range(n_records):
        for column, size in zip(columns, sizes, strict=False):
            part = column[record * size : (record + 1) * size].astype("<i4")
            body += part.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
        if plus:
            text = f"+{starts[record]:g}".encode() + b"\x14\x14\x00"
            for onset, description in annotations:
                if starts[record] <= onset < starts[record] + 1 or (
                    record == n_records - 1 and onset >= starts[-1] + 1
                ):
                    text += f"+{onset:g}".encode() + b"\x14" + description.encode() + b"\x14\x00"
            assert len(text) <= tal * width
            body += text.ljust(tal * width, b"\0")
    return head + body


def gdf_bytes(values: NDArray[np.int64], *, rate: int = 100) -> bytes:
    """A GDF 1.25 file with records of one second and no events."""
    n, channels = values.shape
    head = (
        b"GDF 1.25"
        + b"X X".ljust(80)
        + b"rec".ljust(80)
        + b"2020010112000000"
        + struct.pack("<q", 256 * (channels + 1))
    )
    head += bytes(8 + 8 + 8 + 20) + struct.pack("<qIII", n // rate, 1, 1, channels)
    assert len(head) == 256
    table = b"".join(f"E{k + 1}".encode().ljust(16, b"\0") for k in range(channels))
    table += bytes(80 * channels) + b"uV".ljust(8, b"\0") * channels
    table += struct.pack("<d", -32768 * STEP_UV) * channels + struct.pack("<d", 32767 * STEP_UV) * channels
    table += struct.pack("<q", -32768) * channels + struct.pack("<q", 32767) * channels + bytes(80 * channels)
    table += struct.pack("<i", rate) * channels + struct.pack("<i", 3) * channels + bytes(32 * channels)
    body = b"".join(values[r * rate : (r + 1) * rate].T.astype("<i2").tobytes() for r in range(n // rate))
    return bytes(head + table) + body + struct.pack("<B", 1) + (100).to_bytes(3, "little") + struct.pack("<I", 0)


def write_brainvision(
    folder: Path, values: NDArray[np.int64], *, rate: int = 100, markers: Sequence[tuple[int, str, str]] = ()
) -> Path:
    """Header, markers (sample counted from 1, type, description) and data, 16-bit multiplexed."""
    n_channels = values.shape[1]
    lines = [f"Ch{k + 1}=E{k + 1},,{STEP_UV},µV" for k in range(n_channels)]
    (folder / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        f"MarkerFile=a.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nDataPoints={len(values)}\n"
        f"NumberOfChannels={n_channels}\n"
        f"SamplingInterval={1e6 / rate:g}\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n"
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )
    rows = [f"Mk{k + 1}={kind},{text},{at},1,0" for k, (at, kind, text) in enumerate(markers)]
    (folder / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        "[Marker Infos]\n" + "\n".join(rows) + "\n",
        encoding="utf-8",
    )
    (folder / "a.eeg").write_bytes(values.astype("<i2").tobytes())
    return folder / "a.vhdr"


def write_eeglab(
    folder: Path,
    values: NDArray[np.int64],
    *,
    rate: int = 100,
    events: Sequence[tuple[float, str, float]] = (),
    apart: bool = False,
) -> Path:
    """A .set file; `events` are (latency in samples from 1, type, duration in samples); `apart` puts data in a .fdt."""
    from scipy.io import savemat

    data = (values.T * STEP_UV).astype(np.float32)
    channels = np.array([(f"E{k + 1}",) for k in range(values.shape[1])], dtype=[("labels", "O")])
    event = np.array(
        [(float(at), kind, float(d)) for at, kind, d in events],
        dtype=[("latency", "O"), ("type", "O"), ("duration", "O")],
    )
    eeg = {
        "setname": "a", "nbchan": values.shape[1], "pnts": len(values), "trials": 1, "srate": rate, "xmin": 0.0,
        "xmax": (len(values) - 1) / rate, "data": "a.fdt" if apart else data, "chanlocs": channels, "event": event,
        "epoch": np.zeros(0), "icawinv": [], "icasphere": [], "icaweights": [],
    }  # fmt: skip
    if apart:
        (folder / "a.fdt").write_bytes(data.T.astype("<f4").tobytes())
    savemat(folder / "a.set", {"EEG": eeg}, appendmat=False)
    return folder / "a.set"


def xdf_bytes(streams: Sequence[Mapping[str, object]]) -> bytes:
    """An XDF file. Each stream has a name, type, sfreq, format, values, stamps, and perhaps channels and an offset.

    ``channels`` is a sequence of (label, type, unit); ``offset`` the clock offset that was measured twice.
    """
    parts = [b"XDF:", _xdf_chunk(1, b"<?xml version='1.0'?><info><version>1.0</version></info>")]
    for number, stream in enumerate(streams, start=1):
        parts += _xdf_stream(number, stream)
    return b"".join(parts)


def _xdf_chunk(tag: int, content: bytes) -> bytes:
    body = struct.pack("<H", tag) + content
    return b"\x04" + struct.pack("<I", len(body)) + body


def _xdf_stream(number: int, stream: Mapping[str, object]) -> list[bytes]:
    values, stamps = list(stream["values"]), list(stream["stamps"])  # type: ignore[call-overload]
    form = str(stream["format"])
    listed = stream.get("channels", ())
    channels = "".join(
        f"<channel><label>{escape(label)}</label><type>{kind}</type><unit>{unit}</unit></channel>"
        for label, kind, unit in listed  # type: ignore[attr-defined]
    )
    first = np.atleast_1d(values[0]) if len(values) else [""]
    number_bytes = struct.pack("<I", number)
    head = (
        f"<?xml version='1.0'?><info><name>{stream['name']}</name><type>{stream['type']}</type>"
        f"<channel_count>{len(first)}</channel_count><nominal_srate>{stream['sfreq']}</nominal_srate>"
        f"<channel_format>{form}</channel_format><source_id>{stream['name']}-id</source_id>"
        f"<desc><channels>{channels}</channels></desc></info>"
    )
    foot = f"<?xml version='1.0'?><info><sample_count>{len(values)}</sample_count></info>"
    code = {"float32": "<f", "double64": "<d", "int32": "<i", "int16": "<h"}.get(form)
    body = b"\x04" + struct.pack("<I", len(values))
    for row, stamp in zip(values, stamps, strict=True):
        body += b"\x08" + struct.pack("<d", stamp)
        for value in np.atleast_1d(row).tolist():
            if code is None:
                text = str(value).encode()
                body += b"\x04" + struct.pack("<I", len(text)) + text
            else:
                body += struct.pack(code, value)
    chunks = [_xdf_chunk(2, number_bytes + head.encode()), _xdf_chunk(3, number_bytes + body)]
    if "offset" in stream:
        chunks += [_xdf_chunk(4, number_bytes + struct.pack("<dd", at, stream["offset"])) for at in (0.0, 5.0)]
    return [*chunks, _xdf_chunk(6, number_bytes + foot.encode())]
