"""XDF files (LSL recordings) through pyxdf: one data stream, any number of marker streams, one clock."""

import gzip
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.clock.holes import find_holes, smooth
from rtdecode.errors import RecordingError, SourceError
from rtdecode.signal import Marker
from rtdecode.sources.declare import Declare, RawChannel, describe
from rtdecode.sources.pieces import Contents, Piece
from rtdecode.sources.units import to_si


class XdfReader:
    """An XDF file. XDF has no index, so its samples are read into memory once.

    Parameters
    ----------
    path : Path
        The file.
    declare : Declare
        The user's word on what the stream leaves open.
    stream : str, optional
        Name or type of the data stream.
    markers : sequence of str, optional
        Names of the marker streams; by default all streams of irregular rate.
    """

    def __init__(
        self, path: Path, declare: Declare, stream: str | None = None, markers: Sequence[str] | None = None
    ) -> None:
        streams = _load(path)
        data = _choose(streams, stream, path)
        info = data["info"]
        n_channels, sfreq = int(info["channel_count"][0]), float(info["nominal_srate"][0])
        raw = _channels(data, n_channels)
        found = describe(raw, declare, f"{path}, stream {_text(info, 'name')!r}", _text(info, "type"))
        self._samples = to_si(np.asarray(data["time_series"]), found.scales)
        stamps = np.asarray(data["time_stamps"], np.float64)
        if not np.isfinite(stamps).all():
            raise RecordingError(
                f"{path}: stream {_text(info, 'name')!r} has stamps that are no numbers; expected seconds"
            )
        starts = find_holes(stamps, sfreq)
        smoothed, missing = smooth(stamps, starts, sfreq)
        zero = float(smoothed[0])
        self._stamps = smoothed - zero
        edges = [0, *starts.tolist(), len(stamps)]
        jumps = np.concatenate([[0], np.cumsum(missing)]).astype(np.int64).tolist()
        self.contents = Contents(
            channels=found.channels,
            sfreq=sfreq,
            pieces=[Piece(a, b, a + jump) for a, b, jump in zip(edges[:-1], edges[1:], jumps, strict=True)],
            markers=_markers(streams, data, markers, zero, path),
            declared_by_user=found.declared_by_user,
            source_id=_text(info, "source_id"),
        )

    def samples(self, start: int, stop: int) -> NDArray[np.float32]:
        """File samples `start` to `stop` in SI, shape (n, channels)."""
        return self._samples[start:stop]

    def stamps(self, piece: Piece, start: int, stop: int) -> NDArray[np.float64]:
        """Their stamps, de-jittered within the piece, in seconds from the first sample."""
        return self._stamps[start:stop]

    def close(self) -> None:
        """Nothing is held open."""


class _Complaints(logging.Handler):
    """pyxdf logs what it finds damaged, and reads on."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        import pyxdf
    except ImportError as error:
        raise RecordingError(
            f'reading {path} needs pyxdf, which is not installed; pip install "rtdecode[files]"'
        ) from error
    log = logging.getLogger("pyxdf")
    complaints, propagated, level = _Complaints(), log.propagate, log.level
    log.addHandler(complaints)
    log.propagate = False
    try:
        packed = path.suffix.lower() in (".xdfz", ".gz")
        with gzip.open(path, "rb") if packed else path.open("rb") as file:  # which pyxdf itself may leave open
            streams, _ = pyxdf.load_xdf(file, dejitter_timestamps=False, synchronize_clocks=True, verbose=False)
    except Exception as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    finally:
        log.removeHandler(complaints)
        log.propagate = propagated
        log.setLevel(level)
    if complaints.said:
        raise _damaged(path, complaints.said[0])
    for stream in streams:
        footer = (stream.get("footer") or {}).get("info") or {}
        count = (footer.get("sample_count") or [None])[0]
        if count is not None and len(stream["time_stamps"]) < int(count):
            raise _damaged(path, f"stream {_text(stream['info'], 'name')!r} has lost samples of {count}")
    return list(streams)


def _damaged(path: Path, why: str) -> RecordingError:
    return RecordingError(
        f"{path} cannot be read as XDF ({why}): the file was cut short or is damaged; copy it again from where it was "
        "recorded"
    )


def _text(info: Any, key: str) -> str:
    return ((info.get(key) or [""])[0] or "").strip() if info else ""


def _choose(streams: list[dict[str, Any]], wanted: str | None, path: Path) -> dict[str, Any]:
    """The data stream: the one that is asked for, or the only regular one, or the only one of type EEG or MEG."""
    regular = [
        s
        for s in streams
        if float(s["info"]["nominal_srate"][0]) > 0 and _text(s["info"], "channel_format") != "string"
    ]
    listed = "; ".join(_describe(s) for s in streams) or "none"
    found = regular
    if wanted is not None:
        found = [s for s in regular if _text(s["info"], "name") == wanted]
        found = found or [s for s in regular if _text(s["info"], "type").lower() == wanted.lower()]
    elif len(regular) > 1:
        found = [s for s in regular if _text(s["info"], "type").upper() in ("EEG", "MEG", "ECOG", "SEEG", "IEEG")]
    if len(found) != 1:
        what = f"{len(found)} data streams" + (f" with the name or type {wanted!r}" if wanted else "")
        raise SourceError(f"{path} has {what}, expected one; name it with `stream`. Its streams: {listed}")
    if len(found[0]["time_stamps"]) == 0:
        raise RecordingError(f"{path}: the stream {_text(found[0]['info'], 'name')!r} holds no samples; expected some")
    return found[0]


def _describe(stream: dict[str, Any]) -> str:
    info = stream["info"]
    return (
        f"{_text(info, 'name')!r} ({_text(info, 'type')}, {_text(info, 'channel_count')} x "
        f"{float(_text(info, 'nominal_srate') or 0):g} Hz {_text(info, 'channel_format')})"
    )


def _channels(stream: dict[str, Any], n_channels: int) -> list[RawChannel]:
    desc = (stream["info"].get("desc") or [None])[0] or {}
    groups = desc.get("channels") or [None]
    listed = (groups[0] or {}).get("channel", []) if groups[0] else []
    if len(listed) != n_channels:  # a description of other channels than those that came describes nothing
        return [RawChannel() for _ in range(n_channels)]
    return [
        RawChannel(_text(one, "label") or _text(one, "name"), _text(one, "type"), _text(one, "unit"), _position(one))
        for one in listed
    ]


def _position(channel: Any) -> tuple[float, float, float] | None:
    """XDF wiki, EEG meta-data: location X, Y, Z in millimetres."""
    location = (channel.get("location") or [None])[0] if channel else None
    try:
        x, y, z = (float(_text(location, axis)) * 1e-3 for axis in "XYZ")
    except ValueError:
        return None
    return x, y, z


def _markers(
    streams: list[dict[str, Any]], data: dict[str, Any], names: Sequence[str] | None, zero: float, path: Path
) -> list[Marker]:
    chosen = [s for s in streams if s is not data and float(s["info"]["nominal_srate"][0]) == 0]
    if names is None:  # a session's own streams speak of samples and results
        chosen = [s for s in chosen if not _text(s["info"], "name").startswith("rtdecode.")]
    if names is not None:
        missing = sorted(set(names) - {_text(s["info"], "name") for s in chosen})
        if missing:
            listed = "; ".join(_describe(s) for s in chosen) or "none"
            raise SourceError(f"{path} has no marker stream {missing[0]!r}. Its marker streams: {listed}")
        chosen = [s for s in chosen if _text(s["info"], "name") in names]
    return sorted(
        Marker(float(stamp) - zero, marker_value(row), _text(s["info"], "name"))
        for s in chosen
        for stamp, row in zip(s["time_stamps"], s["time_series"], strict=True)
    )


def marker_value(row: Any) -> str:
    """A marker's value as text: numbers without a fraction where they have none, several channels joined by commas."""
    parts = []
    for value in np.atleast_1d(np.asarray(row, dtype=object)).tolist():
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, bytes):
            parts.append(value.decode("utf-8", "replace"))
        else:
            number = float(value)
            parts.append(str(int(number)) if number.is_integer() else repr(number))
    return ",".join(parts)
