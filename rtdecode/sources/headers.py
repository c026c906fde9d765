"""EDF, BDF and GDF headers, as far as they say what a reader that forgives does not: units, rates, and the true size.

Sources: EDF (Kemp et al. 1992, Electroencephalogr Clin Neurophysiol 82:391), EDF+ (Kemp and Olivan 2003, Clin
Neurophysiol 114:1755), BDF (BioSemi), GDF 1.25 and 2.x (Schloegl 2006, arXiv:cs/0608052).
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rtdecode.errors import RecordingError

_TAL = ("EDF Annotations", "BDF Annotations")
_GDF_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 8, 8: 8, 16: 4, 17: 8, 279: 3, 535: 3}
#: ISO/IEEE 11073-10101 codes of GDF 2's physical dimensions.
_GDF_UNITS = {512: "1", 4256: "V", 4274: "mV", 4275: "uV", 4276: "nV"}


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of the file: its label, declared unit, samples in a record, and whether its scaling is defined."""

    label: str
    unit: str
    samples: int
    scaled: bool
    annotations: bool


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The header of an EDF, BDF or GDF file.

    Parameters
    ----------
    signals : tuple of Signal
        In file order, annotations included.
    records : int
        Data records in the file.
    record_s : float
        Length of a record in seconds.
    onsets : tuple of float
        Onset of each record in seconds where the file is EDF+ or BDF+ (discontinuous files have jumps here);
        otherwise empty.
    """

    signals: tuple[Signal, ...]
    records: int
    record_s: float
    onsets: tuple[float, ...]


def read_header(path: Path) -> RecordHeader:
    """Read the header of an EDF, BDF or GDF file, and hold the file's size against it.

    Raises
    ------
    RecordingError
        Where the header is damaged or the file is shorter or longer than its header says.
    """
    with path.open("rb") as file:
        magic = file.read(8)
        try:
            if magic.startswith(b"GDF"):
                return _read_gdf(file, path)
            if magic == b"0       " or magic == b"\xffBIOSEMI":
                return _read_edf(file, path, 3 if magic[0] == 0xFF else 2)
        except (ValueError, UnicodeDecodeError, struct.error) as error:
            raise RecordingError(
                f"{path}: the header is damaged ({error}); expected an EDF, BDF or GDF header; copy the file again"
            ) from error
    raise RecordingError(
        f"{path} begins with {magic!r}, which is no EDF, BDF or GDF header; check the file and its name's ending"
    )


def _read_edf(file: BinaryIO, path: Path, sample_bytes: int) -> RecordHeader:
    file.seek(0)
    fixed = file.read(256)
    header_bytes, records = int(fixed[184:192]), int(fixed[236:244])
    record_s, n = float(fixed[244:252]), int(fixed[252:256])
    table = file.read(256 * n)
    if n < 1 or len(table) < 256 * n:
        raise ValueError(f"it holds {len(table)} of the {256 * n} bytes that describe {n} signals")

    def column(offset: int, width: int) -> list[str]:
        start = n * offset
        return [table[start + k * width : start + (k + 1) * width].decode("latin-1").strip() for k in range(n)]

    labels, units = column(0, 16), column(96, 8)
    low, high = column(104, 8), column(112, 8)
    digital_low, digital_high = column(120, 8), column(128, 8)
    samples = [int(text) for text in column(216, 8)]
    signals = tuple(
        Signal(
            labels[k],
            units[k],
            samples[k],
            _number(high[k]) != _number(low[k]) and _number(digital_high[k]) > _number(digital_low[k]),
            labels[k] in _TAL,
        )
        for k in range(n)
    )
    record_bytes = sample_bytes * sum(samples)
    size = path.stat().st_size - header_bytes
    if records == -1:  # the recorder was not stopped; the size alone says how much there is
        records, rest = divmod(size, record_bytes)
        if rest:
            raise _cut_short(path, f"{size / record_bytes:.2f} data records of {record_bytes} bytes", "whole records")
    elif size != records * record_bytes:
        raise _cut_short(
            path, f"{size} bytes of data", f"{records * record_bytes} ({records} records), as the header says"
        )
    if records == 0 or all(signal.annotations for signal in signals):
        raise RecordingError(f"{path} holds no samples; expected a recording")
    onsets: tuple[float, ...] = ()
    if fixed[192:197] in (b"EDF+D", b"BDF+D", b"EDF+C", b"BDF+C") and any(s.annotations for s in signals):
        onsets = _record_onsets(file, header_bytes, records, record_bytes, sample_bytes, signals)
    return RecordHeader(signals, records, record_s or 1.0, onsets)


def _record_onsets(
    file: BinaryIO, header_bytes: int, records: int, record_bytes: int, sample_bytes: int, signals: tuple[Signal, ...]
) -> tuple[float, ...]:
    """EDF+ section 2.2.4: the first annotation of each record says when the record begins."""
    at = next(k for k, signal in enumerate(signals) if signal.annotations)
    offset = sample_bytes * sum(signal.samples for signal in signals[:at])
    width = sample_bytes * signals[at].samples
    onsets = []
    for record in range(records):
        file.seek(header_bytes + record * record_bytes + offset)
        onsets.append(float(file.read(width).split(b"\x14", 1)[0].split(b"\x00", 1)[0]))
    return tuple(onsets)


def _read_gdf(file: BinaryIO, path: Path) -> RecordHeader:
    file.seek(0)
    fixed = file.read(256)
    version = float(fixed[4:8])
    (records,) = struct.unpack("<q", fixed[236:244])
    if version < 1.9:
        (header_bytes,) = struct.unpack("<q", fixed[184:192])
        (n,) = struct.unpack("<I", fixed[252:256])
    else:
        header_bytes = 256 * struct.unpack("<H", fixed[184:186])[0]
        (n,) = struct.unpack("<H", fixed[252:254])
    num, den = struct.unpack("<II", fixed[244:252])
    table = file.read(256 * n)
    if n < 1 or len(table) < 256 * n:
        raise ValueError(f"it holds {len(table)} of the {256 * n} bytes that describe {n} signals")
    labels = [table[16 * k : 16 * k + 16].split(b"\0")[0].decode("latin-1").strip() for k in range(n)]
    if version < 1.9:
        units = [table[n * 96 + 8 * k : n * 96 + 8 * k + 8].split(b"\0")[0].decode("latin-1").strip() for k in range(n)]
    else:
        codes = struct.unpack_from(f"<{n}H", table, n * 102)
        units = [_GDF_UNITS.get(code, "") for code in codes]
    samples = struct.unpack_from(f"<{n}I", table, n * 216)
    types = struct.unpack_from(f"<{n}I", table, n * 220)
    unknown = sorted(set(types) - _GDF_BYTES.keys())
    if unknown:
        raise ValueError(f"sample type {unknown[0]} is unknown")
    record_bytes = sum(count * _GDF_BYTES[type_] for count, type_ in zip(samples, types, strict=True))
    size = path.stat().st_size - header_bytes
    if records == -1:
        records = size // record_bytes
    if size < records * record_bytes:
        raise _cut_short(
            path, f"{size} bytes of data", f"{records * record_bytes} ({records} records), as the header says"
        )
    if records == 0:
        raise RecordingError(f"{path} holds no samples; expected a recording")
    signals = tuple(Signal(labels[k], units[k], samples[k], True, False) for k in range(n))
    return RecordHeader(signals, records, num / den if num and den else 1.0, ())


def _number(text: str) -> float:
    return float(text.replace(",", ".").split("\0", 1)[0] or "nan")


def _cut_short(path: Path, found: str, expected: str) -> RecordingError:
    return RecordingError(
        f"{path} holds {found}, expected {expected}: the file was cut short or its header is damaged; copy it again "
        "from where it was recorded"
    )
