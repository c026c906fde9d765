"""What a session's file holds, chunk by chunk. Nothing here opens it: every method gives the bytes to append.

Streams, in the order of their numbers: the source's own, as they came (`Source.origins`), or its samples where it has
nothing rawer; ``rtdecode.clock``, a row for each piece of what the source gave; ``rtdecode.markers``;
``rtdecode.events``; and those that are opened when there is something for them: ``rtdecode.samples``,
``rtdecode.results.PIPELINE`` and the arrays of its results. `docs/recording.md` is the reference.
"""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.record import xdf
from rtdecode.signal import Batch, Chunk, Marker, Offset, Origin, Raw, StreamInfo, even_stamps
from rtdecode.sources.session_reader import CLOCK, EVENTS, MARKERS, RESULTS, SAMPLES, ClockRow
from rtdecode.sources.units import to_si
from rtdecode.sources.xdf_chunks import DTYPES, MAGIC

#: Raw samples, in bytes of float32, that wait for the chunk that is made of them.
_UNCLAIMED = 64_000_000

#: XDF's names of the array types that a result may have.
_FORMATS = {np.dtype(code): form for form, code in DTYPES.items()}

#: Values of an array that get a stream of their own; larger ones stand in the line of JSON.
_WIDEST = 65_536


@dataclass(frozen=True, slots=True)
class About:
    """What a file's header says beside the streams.

    Parameters
    ----------
    file : mapping
        Elements of the file's header: when, by which version, the BIDS entities.
    session : mapping
        Elements of ``rtdecode.clock``'s description, beside the stream's own: clock, anchor, configuration.
    """

    file: Mapping[str, str]
    session: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Raw samples in SI, of which no chunk has been seen yet: the number of the first one, and their stamps."""

    number: int
    samples: NDArray[np.float32]
    stamps: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the file a piece of a chunk is, and the stamps that its samples have there; see `ClockRow`."""

    apart: bool
    number: int
    stamps: NDArray[np.float64]


class SessionFile:
    """The chunks of one file.

    Parameters
    ----------
    info : StreamInfo
        What the source declares, in SI.
    origins : sequence of Origin
        The streams behind it.
    about : About
        For the headers.
    now : float
        Host time.
    """

    def __init__(self, info: StreamInfo, origins: Sequence[Origin], about: About, now: float) -> None:
        self._info = info
        self._origins = tuple(origins)
        self._about = about
        self._now = now
        self._streams: list[Origin] = []
        self._tallies: list[xdf.Tally] = []
        self._byname: dict[tuple[str, int, str], int] = {}
        self._entry = 0
        self._watermark = -math.inf
        scales = self._origins[0].scales if self._origins else ()
        self._scales = np.array(scales, np.float64) if len(scales) == len(info.channels) else None
        self._unclaimed: deque[_Waiting] = deque()
        self._held = 0
        self.n_samples = 0
        #: Samples that were recorded a second time, since they are not the raw ones scaled.
        self.n_apart = 0

    # --- begin and end ------------------------------------------------------------------------------------------------

    def begin(self) -> bytes:
        """Magic bytes, the file's header, and the headers of the streams that every session has."""
        parts = [MAGIC, xdf.file_header(tuple(self._about.file.items()))]
        parts += [self._open(origin) for origin in self._origins]
        if not self._origins:
            parts.append(self._open_samples(self._info.source.partition(":")[2] or self._info.source or "samples"))
        desc: tuple[xdf.Element, ...] = (
            ("version", "1"),
            ("stream_info", msgspec.json.encode(self._info).decode()),
            ("columns", " ".join(ClockRow._fields)),
            ("raw_scales", "" if self._scales is None else " ".join(map(repr, self._scales.tolist()))),
            *self._about.session.items(),
        )
        parts.append(self._open(Origin(CLOCK, "rtdecode", format="double64", n_channels=len(ClockRow._fields)), desc))
        parts += [self._open(Origin(name, "rtdecode")) for name in (MARKERS, EVENTS)]
        return b"".join(parts)

    def end(self, more: Mapping[str, str]) -> bytes:
        """The footers; `more` stands in that of ``rtdecode.clock``."""
        return xdf.boundary() + b"".join(
            xdf.stream_footer(number, tally, more if stream.name == CLOCK else None)
            for number, (stream, tally) in enumerate(zip(self._streams, self._tallies, strict=True), start=1)
        )

    def _open(self, origin: Origin, desc: Sequence[xdf.Element] = ()) -> bytes:
        self._streams.append(origin)
        self._tallies.append(xdf.Tally())
        number = len(self._streams)
        self._byname.setdefault((origin.name, origin.n_channels, origin.format), number)
        header = xdf.stream_header(number, origin, desc)
        if number <= len(self._origins):
            return header
        # Stamped on this host's clock: readers that align streams by their offsets need to be told so.
        self._tallies[-1].offsets.append((self._now, 0.0))
        return header + xdf.clock_offset(number, self._now, 0.0)

    def _open_samples(self, name: str) -> bytes:
        kinds = [channel.type for channel in self._info.channels]
        kind = {"eeg": "EEG", "mag": "MEG", "grad": "MEG", "ref_meg": "MEG"}.get(max(kinds, key=kinds.count), "EEG")
        channels = [
            (
                "channel",
                (
                    ("label", channel.name),
                    ("type", channel.type),
                    ("unit", channel.unit),
                    *(
                        (("location", [(a, repr(v * 1e3)) for a, v in zip("XYZ", channel.position, strict=True)]),)
                        if channel.position
                        else ()
                    ),
                ),
            )
            for channel in self._info.channels
        ]
        origin = Origin(
            name, kind, self._info.source_id, sfreq=self._info.sfreq, format="float32", n_channels=len(kinds)
        )
        opened = self._open(origin, (("channels", channels),))
        self._byname[SAMPLES, 0, ""] = len(self._streams)
        return opened

    # --- what the source gave -----------------------------------------------------------------------------------------

    def batch(self, batch: Batch, now: float) -> bytes:
        """All of a batch: raw samples and clock offsets first, so that no row speaks of samples that are not there."""
        self._now = now
        parts = [self._raw(raw) for raw in batch.raw]
        parts += [self._offset(offset) for offset in batch.offsets]
        parts += self._clocked(batch, now)
        return b"".join(parts)

    def _raw(self, raw: Raw) -> bytes:
        if not 0 <= raw.stream < len(self._origins) or not len(raw.stamps):
            return b""
        origin = self._origins[raw.stream]
        values = _table(raw, origin)
        if raw.stream == 0 and self._scales is not None and isinstance(values, np.ndarray):
            self._wait_for_its_chunk(values, raw.stamps)
        return self._append(raw.stream + 1, raw.stamps, values)

    def _append(self, number: int, stamps: NDArray[np.float64], values: NDArray[np.generic] | list[list[str]]) -> bytes:
        self._tallies[number - 1].count(stamps)
        if isinstance(values, np.ndarray):
            return xdf.samples(number, self._streams[number - 1].format, stamps, values)
        return xdf.text_samples(number, stamps.tolist(), values)

    def _offset(self, offset: Offset) -> bytes:
        if not 0 <= offset.stream < len(self._origins):
            return b""
        at = offset.time - offset.value  # on the sender's clock, as readers of XDF expect it
        self._tallies[offset.stream].offsets.append((at, offset.value))
        return xdf.clock_offset(offset.stream + 1, at, offset.value)

    def _clocked(self, batch: Batch, now: float) -> Iterator[bytes]:
        """The rows of ``rtdecode.clock`` of one batch, and its markers."""
        chunk = batch.chunk
        if chunk is None and not batch.markers and batch.watermark <= self._watermark:
            return
        self._watermark = max(self._watermark, batch.watermark)
        self._entry += 1
        if batch.markers:
            yield self._markers(batch.markers)
        rest = ClockRow(self._entry, watermark=batch.watermark)
        rows: list[ClockRow] = []
        if chunk is not None and len(chunk):
            for part, found in self._placed(chunk):
                place = found or self._next_apart()
                if place.apart:
                    yield self._apart(part)
                rows += _rows(rest, part, place)
            self.n_samples += len(chunk)
        at = chunk.arrived if chunk is not None and math.isfinite(chunk.arrived) else now
        table = np.array(rows or [rest], np.float64)
        yield self._append(self._byname[CLOCK, len(ClockRow._fields), "double64"], np.full(len(table), at), table)

    def _markers(self, markers: Sequence[Marker]) -> bytes:
        number = self._byname[MARKERS, 1, "string"]
        stamps = np.array([marker.stamp for marker in markers], np.float64)
        rows = [[json.dumps({"entry": self._entry, "value": m.value, "stream": m.stream})] for m in markers]
        parts = [self._append(number, stamps, rows)]
        if not self._origins:  # for other readers: plain text, a stream for each sender
            for name in dict.fromkeys(marker.stream for marker in markers):
                own = [marker for marker in markers if marker.stream == name]
                parts.append(self._line(name or "markers", "Markers", [m.stamp for m in own], [m.value for m in own]))
        return b"".join(parts)

    # --- which raw samples a chunk was made of ------------------------------------------------------------------------

    def _wait_for_its_chunk(self, values: NDArray[np.generic], stamps: NDArray[np.float64]) -> None:
        assert self._scales is not None
        if values.shape != (len(stamps), len(self._scales)):
            return
        plain = values.dtype == np.float32 and (self._scales == 1.0).all()
        scaled = np.asarray(values, np.float32) if plain else to_si(values, self._scales)
        self._unclaimed.append(_Waiting(self._tallies[0].n, scaled, stamps))
        self._held += scaled.nbytes
        while self._held > _UNCLAIMED and len(self._unclaimed) > 1:
            self._held -= self._unclaimed.popleft().samples.nbytes

    def _placed(self, chunk: Chunk) -> Iterator[tuple[Chunk, _Place | None]]:
        """Pieces of a chunk, each with its place among the raw samples; None where it has none there.

        Compared bit by bit, so that a replay of the raw samples is what was decoded, whatever a source does.
        """
        done = 0
        while done < len(chunk):
            found = self._claim(chunk.samples[done:])
            if found is None:
                yield _part(chunk, done, len(chunk)), None
                return
            place, n = found
            yield _part(chunk, done, done + n), place
            done += n

    def _claim(self, samples: NDArray[np.float32]) -> tuple[_Place, int] | None:
        """Where the raw samples are that `samples` begins with, and how many of them there are in one piece."""
        bits = samples.view(np.uint32)
        for k, waiting in enumerate(self._unclaimed):
            ours = waiting.samples.view(np.uint32)
            for at in np.flatnonzero(ours[:, 0] == bits[0, 0]).tolist():
                n = min(len(ours) - at, len(bits))
                # A source that needs no scaling gives the very samples that came: then there is nothing to compare.
                same = _same_memory(ours[at : at + n], bits[:n])
                if same or ((ours[at] == bits[0]).all() and (ours[at : at + n] == bits[:n]).all()):
                    for _ in range(k + 1):  # what came before was never given
                        self._held -= self._unclaimed.popleft().samples.nbytes
                    if at + n < len(ours):
                        left = slice(at + n, None)
                        rest = _Waiting(waiting.number + at + n, waiting.samples[left], waiting.stamps[left])
                        self._unclaimed.appendleft(rest)
                        self._held += rest.samples.nbytes
                    return _Place(False, waiting.number + at, waiting.stamps[at : at + n]), n
        return None

    def _next_apart(self) -> _Place:
        number = self._byname.get((SAMPLES, 0, ""))
        return _Place(True, self._tallies[number - 1].n if number else 0, np.empty(0))

    def _apart(self, chunk: Chunk) -> bytes:
        """Samples that are no raw ones, as they were decoded, with stamps of their own."""
        opened = b"" if (SAMPLES, 0, "") in self._byname else self._open_samples(SAMPLES)
        if self._origins:
            self.n_apart += len(chunk)
        return opened + self._append(self._byname[SAMPLES, 0, ""], chunk.stamps, chunk.samples)

    # --- what the decoders published ----------------------------------------------------------------------------------

    def result(self, pipeline: str, line: str, stamp: float, arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
        """A window as a line of JSON, and each of its arrays as a sample of a stream of its own."""
        parts = [self._line(f"{RESULTS}.{pipeline}", "rtdecode", [stamp], [line])]
        for name, array in arrays.items():
            form = _FORMATS[array.dtype]
            origin = Origin(f"{RESULTS}.{pipeline}.{name}", "rtdecode", format=form, n_channels=array.size)
            number, opened = self._stream(origin)
            parts += [opened, self._append(number, np.array([stamp]), array.reshape(1, -1))]
        return b"".join(parts)

    def event(self, line: str, stamp: float) -> bytes:
        """An event, a description or a pipeline's counters, as a line of JSON."""
        return self._line(EVENTS, "rtdecode", [stamp], [line])

    def _line(self, name: str, kind: str, stamps: Sequence[float], lines: Sequence[str]) -> bytes:
        number, opened = self._stream(Origin(name, kind))
        return opened + self._append(number, np.array(stamps, np.float64), [[line] for line in lines])

    def _stream(self, origin: Origin) -> tuple[int, bytes]:
        """The stream's number, and its header where it is new."""
        number = self._byname.get((origin.name, origin.n_channels, origin.format))
        return (number, b"") if number else (len(self._streams) + 1, self._open(origin))


def _same_memory(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> bool:
    return a.shape == b.shape and a.strides == b.strides and a.ctypes.data == b.ctypes.data


def fits_a_stream(array: NDArray[np.generic]) -> bool:
    """Whether an array of a result gets a stream of its own."""
    return array.dtype in _FORMATS and 0 < array.size <= _WIDEST


def _table(raw: Raw, origin: Origin) -> NDArray[np.generic] | list[list[str]]:
    """Raw values as rows of the stream's channels; text may come as one string for each sample, or for each value."""
    n, wide, values = len(raw.stamps), origin.n_channels, raw.values
    if isinstance(values, np.ndarray) and origin.format != "string":
        return values.reshape(n, wide)
    flat = [_text(value) for value in np.asarray(values, object).ravel()]
    if len(flat) == n * wide:
        rows = [flat[at : at + wide] for at in range(0, len(flat), wide)]
    else:
        rows = [[text, *[""] * (wide - 1)] for text in flat]
    if origin.format == "string":
        return rows
    # Codes that were made text, several channels joined by commas.
    numbers = [[float(part) for value in row if value for part in value.split(",")] for row in rows]
    return np.array(numbers, np.float64).reshape(n, wide)


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _part(chunk: Chunk, start: int, stop: int) -> Chunk:
    if start == 0 and stop == len(chunk):
        return chunk
    return Chunk(
        chunk.samples[start:stop],
        chunk.stamps[start:stop],
        chunk.first_index + start,
        chunk.segment,
        chunk.arrived,
        chunk.uncertainty,
        chunk.invalidates,
    )


def _rows(rest: ClockRow, chunk: Chunk, place: _Place) -> Iterator[ClockRow]:
    """The rows of a piece of a chunk: one, or one for each run of evenly spaced stamps."""
    for at, run in [(0, chunk)] if place.apart else _even(chunk):
        yield rest._replace(
            segment=chunk.segment,
            first_index=run.first_index,
            n=len(run),
            apart=place.apart,
            number=place.number + at,
            stamp_there=float(run.stamps[0]) if place.apart else place.stamps[at],
            arrived=chunk.arrived,
            first_stamp=float(run.stamps[0]),
            last_stamp=float(run.stamps[-1]),
            uncertainty=chunk.uncertainty,
            invalidates=math.nan if chunk.invalidates is None else chunk.invalidates,
        )


def _even(chunk: Chunk) -> Iterator[tuple[int, Chunk]]:
    """Runs whose stamps their first and last give back to the last bit, and where in the chunk each begins."""
    n = len(chunk)
    if n < 3 or (even_stamps(chunk.stamps[0], chunk.stamps[-1], n) == chunk.stamps).all():
        yield 0, chunk
        return
    half = n // 2
    yield from _even(_part(chunk, 0, half))
    for at, run in _even(_part(chunk, half, n)):
        yield half + at, run
