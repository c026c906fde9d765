"""A recorded session as an MNE object, a FIF file, or a BIDS data set. Needs the extras ``files`` and ``bids``."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError, RecordingError
from rtdecode.record.names import Entities, suffix_of
from rtdecode.signal import Chunk, Marker, StreamInfo
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.session_reader import CLOCK, load_session

#: How MNE's files mark samples that were never taken, and places where two recordings meet.
_MISSING, _EDGE = "BAD_ACQ_SKIP", "EDGE boundary"

#: Longest hole that is filled with zeros; after a longer one the samples follow each other, and the place is marked.
_FILLED_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Span:
    """Consecutive samples of a segment, and the column of the output at which they begin."""

    column: int
    chunk: Chunk


def to_mne(path: Path, *, anonymous: bool = False) -> Any:
    """A recording as `mne.io.RawArray`: the samples bit for bit, holes as zeros that are annotated, markers.

    Parameters
    ----------
    path : Path
        Any file that `RecordingSource` reads.
    anonymous : bool
        Without the date.

    Raises
    ------
    RecordingError
        MNE is not installed, or the file cannot be read.
    """
    try:
        import mne
    except ImportError:
        raise RecordingError('converting needs MNE, which is not installed; pip install "rtdecode[files]"') from None
    with RecordingSource(path) as source:
        info = source.info
        chunks, markers = _all(source)
    if not chunks:
        raise RecordingError(f"{path} holds no samples; there is nothing to convert")
    spans, n = _spans(chunks, info.sfreq)
    data = np.zeros((len(info.channels), n), np.float64)
    for span in spans:
        data[:, span.column : span.column + len(span.chunk)] = span.chunk.samples.T
    raw = mne.io.RawArray(data, _mne_info(mne, info), verbose="error")
    notes = [*_holes(spans, info.sfreq), *_placed(markers, spans, info.sfreq)]
    date = None if anonymous else _began(path, float(chunks[0].stamps[0]))
    if date is not None:
        raw.set_meas_date(date)
    onsets, durations, texts = zip(*notes, strict=True) if notes else ((), (), ())
    raw.set_annotations(mne.Annotations(list(onsets), list(durations), list(texts), orig_time=raw.info["meas_date"]))
    return raw


def _all(source: RecordingSource) -> tuple[list[Chunk], list[Marker]]:
    chunks: list[Chunk] = []
    markers: list[Marker] = []
    while (batch := source.read(0.0)) is not None:
        markers += batch.markers
        if batch.chunk is not None and len(batch.chunk):
            chunks.append(batch.chunk)
    return chunks, markers


def _mne_info(mne: Any, info: StreamInfo) -> Any:
    known = set(mne.io.get_channel_type_constants())
    types = [channel.type if channel.type in known else "misc" for channel in info.channels]
    made = mne.create_info(list(info.names), info.sfreq, types, verbose="error")
    for entry, channel in zip(made["chs"], info.channels, strict=True):
        if channel.position is not None:
            entry["loc"][:3] = channel.position
    return made


def _spans(chunks: list[Chunk], sfreq: float) -> tuple[list[_Span], int]:
    """Where each chunk goes; holes of a segment take their place, unless they are very long."""
    spans: list[_Span] = []
    column = 0
    before: Chunk | None = None
    for chunk in chunks:
        if before is not None and chunk.segment == before.segment:
            missing = chunk.first_index - before.stop_index
            column += missing if 0 < missing <= _FILLED_S * sfreq else 0
        spans.append(_Span(column, chunk))
        column += len(chunk)
        before = chunk
    return spans, column


def _holes(spans: list[_Span], sfreq: float) -> Iterator[tuple[float, float, str]]:
    for before, after in itertools.pairwise(spans):
        stop = before.column + len(before.chunk)
        if after.column > stop:
            yield stop / sfreq, (after.column - stop) / sfreq, _MISSING
        elif after.chunk.segment != before.chunk.segment or after.chunk.first_index != before.chunk.stop_index:
            yield stop / sfreq, 0.0, _EDGE


def _placed(markers: list[Marker], spans: list[_Span], sfreq: float) -> Iterator[tuple[float, float, str]]:
    """Markers at their places among the columns; one outside the samples stands at the nearest end."""
    starts = np.array([span.chunk.stamps[0] for span in spans])
    order = np.argsort(starts, kind="stable")
    for marker in sorted(markers):
        at = int(np.searchsorted(starts[order], marker.stamp, side="right")) - 1
        span = spans[int(order[max(at, 0)])]
        stamps: NDArray[np.float64] = span.chunk.stamps
        if marker.stamp <= stamps[-1]:
            place = float(np.interp(marker.stamp, stamps, np.arange(len(stamps))))
        else:
            place = len(stamps) - 1 + min((marker.stamp - float(stamps[-1])) * sfreq, 1.0)
        yield max(0.0, (span.column + place) / sfreq), 0.0, marker.value


def _began(path: Path, stamp: float) -> datetime | None:
    """Time of day of a stamp, where the file says how the host's clock relates to it."""
    if path.suffix.lower() != ".xdf":
        return None
    clock = load_session(path, only_headers=True).named(CLOCK)
    anchor = clock.head.text("desc/utc_anchor").split() if clock is not None else []
    with contextlib.suppress(ValueError):
        host, utc = map(float, anchor)
        if math.isfinite(utc) and utc > 0:
            return datetime.fromtimestamp(utc + stamp - host, UTC)
    return None


def to_fif(path: Path, out: Path, *, anonymous: bool = False) -> None:
    """Write a recording as FIF, samples in single precision as they were decoded.

    Raises
    ------
    ConfigError
        The output exists, or its name is none that FIF files have.
    RecordingError
        See `to_mne`.
    """
    if not out.name.endswith(("_raw.fif", "_eeg.fif", "_meg.fif", "_ieeg.fif", "raw.fif")):
        raise ConfigError(f"{out}: a FIF file of raw samples ends in _raw.fif, _eeg.fif, _meg.fif or _ieeg.fif")
    if out.exists():
        raise ConfigError(f"{out} exists; expected a new file")
    to_mne(path, anonymous=anonymous).save(out, fmt="single", verbose="error")


def to_bids(path: Path, root: Path, entities: Entities, *, anonymous: bool = False) -> Path:
    """Add a recording to a BIDS data set: BrainVision for EEG and iEEG, FIF for MEG.

    Returns
    -------
    Path
        The file of samples.

    Raises
    ------
    ConfigError
        No subject is named.
    RecordingError
        mne-bids is not installed, or does not take it.
    """
    if not entities.subject:
        raise ConfigError("BIDS needs a subject; say which with --subject")
    try:
        import mne_bids
    except ImportError:
        raise RecordingError('BIDS needs mne-bids, which is not installed; pip install "rtdecode[bids]"') from None
    with RecordingSource(path) as source:
        suffix = suffix_of(source.info)
    raw = to_mne(path, anonymous=anonymous)
    raw.info["line_freq"] = None
    target = mne_bids.BIDSPath(
        subject=entities.subject,
        session=entities.session or None,
        task=entities.task or "rtdecode",
        acquisition=entities.acquisition or None,
        run=None if entities.run is None else f"{entities.run:02d}",
        datatype=suffix,
        root=root,
    )
    form = "FIF" if suffix == "meg" else "BrainVision"
    try:
        written = mne_bids.write_raw_bids(raw, target, format=form, allow_preload=True, verbose="error")
    except (ValueError, FileExistsError, RuntimeError) as error:
        raise RecordingError(f"{path} cannot become BIDS: {error}") from error
    return Path(written.fpath)
