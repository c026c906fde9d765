"""FIF, EDF, BDF, GDF, BrainVision and EEGLAB files, read in pieces through MNE."""

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import RecordingError
from rtdecode.signal import Marker
from rtdecode.sources.declare import Declare, RawChannel, describe
from rtdecode.sources.headers import RecordHeader, Signal, read_header
from rtdecode.sources.pieces import Contents, Piece, cut, index_at
from rtdecode.sources.units import channel_type, to_si

_READERS = {
    ".fif": "read_raw_fif",
    ".edf": "read_raw_edf",
    ".bdf": "read_raw_bdf",
    ".gdf": "read_raw_gdf",
    ".vhdr": "read_raw_brainvision",
    ".ahdr": "read_raw_brainvision",
    ".set": "read_raw_eeglab",
}
_HEADERED = (".edf", ".bdf", ".gdf")
#: What MNE warns of and reads on; a decoder must not.
_FATAL = re.compile(r"not found|does not match|truncat|corrupt|incomplete|could not (?:read|be read)", re.IGNORECASE)
#: Annotations that say where samples are missing (MNE, EEGLAB, BrainVision).
_SKIP = "BAD_ACQ_SKIP"
_BOUNDARY = re.compile(r"^(EDGE )?boundary$", re.IGNORECASE)
_NEW_SEGMENT = re.compile(r"^New Segment/")
#: FIFF unit codes, from the FIFF standard: none, volt, tesla, tesla per metre.
FIFF_UNITS = {107: "V", 112: "T", 201: "T/m"}
#: Samples times channels that are read at a time.
_BLOCK = 1 << 20


class MneReader:
    """An open file of any format above.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        Its ending, in lower case.
    declare : Declare
        The user's word on what the file leaves open.
    """

    def __init__(self, path: Path, kind: str, declare: Declare) -> None:
        self._path = path
        header = read_header(path) if kind in _HEADERED else None
        if kind in (".vhdr", ".ahdr"):
            _check_brainvision(path)
        self._raw, warned = _open(path, kind, header)
        if self._raw.n_times == 0:
            raise RecordingError(f"{path} holds no samples; expected a recording")
        if kind == ".set":
            _check_eeglab(path, self._raw)
        found = describe(_channels(self._raw, kind, header), declare, str(path))
        self._scales = found.scales
        sfreq = float(self._raw.info["sfreq"])
        annotations = _annotations(self._raw, path, warned)
        pieces = _pieces(self._raw, annotations, header, sfreq, path)
        self._first = 0
        self._block = np.empty((0, len(found.channels)), np.float32)
        self._sfreq = sfreq
        self.contents = Contents(
            channels=found.channels,
            sfreq=sfreq,
            pieces=pieces,
            markers=_markers(annotations, pieces, header, sfreq),
            declared_by_user=found.declared_by_user,
            left_out=tuple(s.label for s in _split(header)[1]) if header else (),
        )

    def samples(self, start: int, stop: int) -> NDArray[np.float32]:
        """File samples `start` to `stop` in SI, shape (n, channels); read in blocks, since MNE's cost is per call."""
        if not (self._first <= start and stop <= self._first + len(self._block)):
            n = max(stop - start, _BLOCK // max(1, len(self._scales)))
            self._first = start
            end = min(start + n, self._raw.n_times)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    data = self._raw.get_data(start=start, stop=end, verbose="error")
            except Exception as error:
                raise RecordingError(
                    f"{self._path} cannot be read from sample {start} on ({_first_line(error)}): the file was cut "
                    "short or is damaged; copy it again from where it was recorded"
                ) from error
            self._block = to_si(data.T, self._scales)
        return self._block[start - self._first : stop - self._first]

    def stamps(self, piece: Piece, start: int, stop: int) -> NDArray[np.float64]:
        """Seconds from the first sample: index / sfreq, never a sum of periods."""
        index = np.arange(start, stop, dtype=np.float64) + (piece.first_index - piece.start)
        return index / self._sfreq

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        self._raw.close()


def _open(path: Path, kind: str, header: RecordHeader | None) -> tuple[Any, bool]:
    """The file as MNE sees it, and whether MNE left annotations out."""
    try:
        import mne
    except ImportError as error:
        raise RecordingError(
            f'reading {path} needs MNE, which is not installed; pip install "rtdecode[files]"'
        ) from error
    # MNE holds its warnings back below this level, and some of them must be seen here.
    options: dict[str, Any] = {"preload": False, "verbose": "warning"}
    if header is not None:
        options["exclude"] = sorted({signal.label for signal in _split(header)[1]})
    if kind == ".fif":
        options["allow_maxshield"] = True
        options["on_split_missing"] = "raise"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            raw = getattr(mne.io, _READERS[kind])(path, **options)
        except Exception as error:
            raise RecordingError(
                f"{path} cannot be read as {kind[1:].upper()} ({_first_line(error)}): the file is cut short, damaged "
                "or of another format; open it in the program that wrote it, or copy it again"
            ) from error
    said = [str(warning.message) for warning in caught]
    for message in said:
        # A count of records that does not fit was held against the file's size before, by rules less forgiving.
        if _FATAL.search(message) and not (header is not None and message.startswith("Number of records")):
            raise RecordingError(f"{path}: {message}")
    return raw, any("Omitted" in message for message in said)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _split(header: RecordHeader) -> tuple[list[Signal], list[Signal]]:
    """Signals at the fastest rate, and slower ones, which no causal reader can put on the same samples."""
    signals = [signal for signal in header.signals if not signal.annotations]
    fastest = max(signal.samples for signal in signals)
    slow = {signal.label for signal in signals if signal.samples != fastest}
    return [s for s in signals if s.label not in slow], [s for s in signals if s.label in slow]


def _channels(raw: Any, kind: str, header: RecordHeader | None) -> list[RawChannel]:
    types = raw.get_channel_types()
    if header is not None:
        signals = _split(header)[0]
        if len(signals) == len(types):
            pairs = zip(signals, raw.ch_names, types, strict=True)
            return [_record_channel(signal, name, type_, kind) for signal, name, type_ in pairs]
    to_head = raw.info["dev_head_t"]
    channels = []
    for name, type_, info in zip(raw.ch_names, types, raw.info["chs"], strict=True):
        declared_type = "" if kind in (".vhdr", ".ahdr") and type_ == "eeg" else type_
        unit = FIFF_UNITS.get(int(info["unit"]), "")
        channels.append(RawChannel(name, declared_type or "eeg", unit, sensor_position(info, to_head)))
    return channels


def _record_channel(signal: Signal, name: str, type_: str, kind: str) -> RawChannel:
    """EDF, BDF, GDF: MNE scales microvolts and millivolts, and takes any other unit for volts; so undo and say."""
    if type_ == "stim":
        return RawChannel(name, "stim", "1")
    said = signal.unit if signal.scaled else ""
    micro = said in ("uV", "\u00b5V", "\u03bcV", "\x83\xcaV") or (kind == ".gdf" and said.startswith("uV"))
    applied = 1e-6 if micro else 1e-3 if said == "mV" else 1.0
    # EDF+ (section 2.1.3) labels signals "EEG Fpz-Cz": the first word is the type.
    word, _, rest = name.partition(" ")
    prefix = channel_type(word) if rest and word.isupper() else ""
    return RawChannel(name, prefix if prefix not in ("", "misc") else "eeg", said, None, 1.0 / applied)


def sensor_position(info: Any, to_head: Any) -> tuple[float, float, float] | None:
    """Metres, head coordinates (MEG sensors lie in device coordinates: FIFF frame 1)."""
    x = np.asarray(info["loc"][:3], np.float64)
    if not np.isfinite(x).all() or not x.any():
        return None
    if int(info["coord_frame"]) == 1:
        if to_head is None:
            return None
        x = to_head["trans"][:3, :3] @ x + to_head["trans"][:3, 3]
    return float(x[0]), float(x[1]), float(x[2])


def _annotations(raw: Any, path: Path, omitted: bool) -> list[tuple[float, float, str]]:
    """Onset from the first sample, duration, description; those outside the data too, which MNE leaves out."""
    first = float(raw.first_time)
    found = raw.annotations
    if omitted:
        import mne

        with warnings.catch_warnings(), mne.utils.use_log_level("error"):
            warnings.simplefilter("ignore")
            found = mne.read_annotations(path)
        if found.orig_time is not None and raw.info["meas_date"] is not None:
            first += (raw.info["meas_date"] - found.orig_time).total_seconds()
        elif found.orig_time is None:
            first = 0.0
    return [
        (float(onset) - first, float(duration), str(text))
        for onset, duration, text in zip(found.onset, found.duration, found.description, strict=True)
    ]


def _pieces(
    raw: Any, annotations: list[tuple[float, float, str]], header: RecordHeader | None, sfreq: float, path: Path
) -> list[Piece]:
    n = int(raw.n_times)
    holes = []
    for onset, duration, text in annotations:
        at = onset * sfreq
        if text == _SKIP:
            holes.append((round(at), round(at + duration * sfreq), 0))
        elif _BOUNDARY.match(text):
            # EEGLAB cut out `duration` seconds between two samples; where it does not say, at least one is missing.
            lost = round(duration * sfreq) if math.isfinite(duration) else 0
            holes.append((math.ceil(at - 1e-6),) * 2 + (max(1, lost),))
        elif _NEW_SEGMENT.match(text) and at > 0.5:
            holes.append((round(at), round(at), 1))
    if header is not None and header.onsets:
        per_record = max(s.samples for s in _split(header)[0])
        for k in range(1, len(header.onsets)):
            lost = round((header.onsets[k] - header.onsets[k - 1] - header.record_s) * sfreq)
            if lost < 0:
                raise RecordingError(
                    f"{path}: data record {k + 1} begins {-lost} samples before record {k} ends; expected records in "
                    "order of time"
                )
            if lost:
                holes.append((k * per_record, k * per_record, lost))
    pieces = cut(n, [hole for hole in holes if hole[1] > 0])
    if not pieces:
        raise RecordingError(f"{path} holds nothing but skipped samples; expected a recording")
    return pieces


def _markers(
    annotations: list[tuple[float, float, str]], pieces: list[Piece], header: RecordHeader | None, sfreq: float
) -> list[Marker]:
    markers = []
    for onset, _, text in annotations:
        if text == _SKIP or _BOUNDARY.match(text):
            continue
        if header is not None and header.onsets:
            stamp = onset  # EDF+ annotations are in real time, whatever the records skip
        elif len(pieces) == 1 and pieces[0].start == 0:
            stamp = onset
        else:
            stamp = index_at(onset * sfreq, pieces) / sfreq
        markers.append(Marker(stamp, text, "annotations"))
    return sorted(markers)


def _check_brainvision(path: Path) -> None:
    """A data file that ends in the middle of a sample, or before the header's ``DataPoints``, was cut short."""
    text = path.read_bytes().decode("utf-8", "replace")
    fields = dict(re.findall(r"^(\w+)=(.*?)\s*$", text, re.MULTILINE))
    if not text.lstrip("\ufeff").startswith(("Brain Vision", "BrainVision")):
        raise RecordingError(f"{path} is no BrainVision header; expected it to begin with 'Brain Vision'")
    data = path.parent / fields.get("DataFile", "").replace("$b", path.stem)
    width = {"INT_16": 2, "UINT_16": 2, "IEEE_FLOAT_32": 4}.get(fields.get("BinaryFormat", ""))
    if not data.is_file():
        raise RecordingError(
            f"{path} names {data.name!r} as its data file, which is not there; copy it beside the header"
        )
    if data.stat().st_size == 0:
        raise RecordingError(f"{data}, the data file of {path.name}, is empty; expected samples")
    if width is None or not fields.get("NumberOfChannels", "").isdigit() or path.suffix.lower() == ".ahdr":
        return
    frame = width * int(fields["NumberOfChannels"])
    expected = int(fields["DataPoints"]) * frame if fields.get("DataPoints", "").isdigit() else None
    size = data.stat().st_size
    if size % frame or (expected is not None and size < expected):
        raise RecordingError(
            f"{data} holds {size} bytes, expected {expected or f'a multiple of {frame}'}: the file was cut short; copy "
            "it again from where it was recorded"
        )


def _check_eeglab(path: Path, raw: Any) -> None:
    """Data beside the header, in a .fdt file of float32, must be as many as the header says."""
    data = Path(raw.filenames[0])
    expected = 4 * raw.n_times * len(raw.ch_names)
    if data.suffix.lower() == ".fdt" and data.stat().st_size != expected:
        raise RecordingError(
            f"{data} holds {data.stat().st_size} bytes, expected {expected} as {path.name} says: the file was cut "
            "short; copy it again from where it was recorded"
        )
