"""A session that the daemon recorded, read back as the very batches that its decoders were given."""

import itertools
import json
import math
import mmap
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import RecordingError
from rtdecode.signal import Batch, Chunk, Marker, StreamInfo, even_stamps
from rtdecode.sources.units import to_si
from rtdecode.sources.xdf_chunks import (
    MAGIC,
    STREAM_FOOTER,
    STREAM_HEADER,
    Block,
    StreamHead,
    Torn,
    read_head,
    read_samples,
    scan,
)
from rtdecode.sources.xdf_chunks import (
    SAMPLES as SAMPLES_TAG,
)

#: Names of the streams that are the recorder's own; see ``docs/recording.md``.
CLOCK, MARKERS, EVENTS = "rtdecode.clock", "rtdecode.markers", "rtdecode.events"
SAMPLES, RESULTS = "rtdecode.samples", "rtdecode.results"


class ClockRow(NamedTuple):
    """One row of ``rtdecode.clock``: a piece of a batch whose stamps are evenly spaced.

    Parameters
    ----------
    entry : float
        Which batch; a batch may have several rows.
    segment, first_index, n : float
        The piece's samples; an `n` of 0 where only markers or the watermark moved.
    apart : float
        0: its samples are in the first stream of the file, raw. 1: in ``rtdecode.samples`` (in the first stream, where
        the source had nothing rawer), as they were decoded, with the very stamps.
    number, stamp_there : float
        Number of its first sample in that stream, counted from 0, and the stamp that it has there. All of the piece's
        samples are in one chunk of the file.
    arrived : float
        Host time at which the batch was in *acquire*'s hands; NaN in a replay.
    first_stamp, last_stamp : float
        Stamps of its first and last sample; those between are evenly spaced (`rtdecode.signal.even_stamps`).
    uncertainty : float
        Half-width of the stamps' error in seconds.
    invalidates : float
        See `Chunk.invalidates`; NaN where it is None.
    watermark : float
        The batch's. Its markers are the rows of ``rtdecode.markers`` that name the entry.
    """

    entry: float
    segment: float = 0
    first_index: float = 0
    n: float = 0
    apart: float = 0
    number: float = math.nan
    stamp_there: float = math.nan
    arrived: float = math.nan
    first_stamp: float = math.nan
    last_stamp: float = math.nan
    uncertainty: float = 0
    invalidates: float = math.nan
    watermark: float = -math.inf


@dataclass(slots=True)
class Stored:
    """One stream of the file, its samples joined."""

    head: StreamHead
    stamps: list[NDArray[np.float64]] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    @property
    def all_stamps(self) -> NDArray[np.float64]:
        """Of every sample."""
        return np.concatenate(self.stamps) if self.stamps else np.empty(0)

    @property
    def numbers(self) -> NDArray[Any]:
        """Every sample, shape (n, channels)."""
        return np.concatenate(self.values) if self.values else np.empty((0, self.head.n_channels))

    @property
    def lines(self) -> list[str]:
        """Every sample of a stream of text, first channel."""
        return [row[0] for values in self.values for row in values]


@dataclass(slots=True)
class StoredSession:
    """All streams of a file, by number."""

    streams: dict[int, Stored]
    torn: tuple[Torn, ...]
    footers: frozenset[int]

    def named(self, name: str) -> Stored | None:
        """The stream called `name`, or None."""
        return next((stream for stream in self.streams.values() if stream.head.name == name), None)


def load_session(path: Path, *, only_headers: bool = False) -> StoredSession:
    """Read a file's streams, raw: stamps as they were written, values in their own type.

    Parameters
    ----------
    path : Path
        An XDF file.
    only_headers : bool
        Samples are left where they are.

    Raises
    ------
    RecordingError
        It cannot be read, or is no XDF file.
    """
    streams: dict[int, Stored] = {}
    torn: list[Torn] = []
    footers: set[int] = set()
    last: dict[int, float] = {}
    with open_bytes(path) as data:
        for block in scan(data):
            if isinstance(block, Torn):
                torn.append(block)
                continue
            try:
                _take(block, streams, footers, last, only_headers)
            except ValueError:
                torn.append(Torn(block.start, block.stop))
    return StoredSession(streams, tuple(torn), frozenset(footers))


def _take(
    block: Block, streams: dict[int, Stored], footers: set[int], last: dict[int, float], only_headers: bool
) -> None:
    if block.tag == STREAM_HEADER:
        streams.setdefault(block.stream, Stored(read_head(block.content)))
    elif block.tag == STREAM_FOOTER:
        footers.add(block.stream)
    elif block.tag == SAMPLES_TAG and not only_headers:
        if block.stream not in streams:
            raise ValueError("samples of a stream without a header")
        stored = streams[block.stream]
        stamps, values = read_samples(stored.head, block.content, last.get(block.stream, 0.0))
        if len(stamps):
            last[block.stream] = float(stamps[-1])
            stored.stamps.append(stamps)
            stored.values.append(values)


class open_bytes:  # noqa: N801 - used as a function: `with open_bytes(path) as data`
    """A file's bytes, mapped; raises `RecordingError` where they cannot be had or are no XDF."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise RecordingError(f"{path} cannot be read ({error.strerror}); check the path") from None
        self.data: Any = b""
        if self._file.read(len(MAGIC)) != MAGIC:
            self._file.close()
            raise RecordingError(f"{path} is no XDF file: it does not begin with {MAGIC.decode()!r}")
        self.data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Any:
        return self.data

    def __exit__(self, *_: object) -> None:
        self.data.close()
        self._file.close()


def is_session(path: Path) -> bool:
    """Whether the daemon recorded this file: one of the streams it begins with is ``rtdecode.clock``."""
    try:
        opened = open_bytes(path)
    except RecordingError:
        return False
    with opened as data:
        for block in scan(data):
            if isinstance(block, Torn) or block.tag == SAMPLES_TAG:
                return False
            if block.tag == STREAM_HEADER:
                try:
                    if read_head(block.content).name == CLOCK:
                        return True
                except ValueError:
                    return False
    return False


class SessionReader:
    """The batches of a recorded session, as they were decoded: chunks, stamps, arrivals, markers and watermarks.

    Samples are the raw ones in SI by the same scaling, which the recorder has found equal to the last bit.

    Parameters
    ----------
    path : Path
        The file; one part of a recording that has several.

    Raises
    ------
    RecordingError
        The file is cut short or damaged, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        session = load_session(path)
        clock, markers = session.named(CLOCK), session.named(MARKERS)
        if session.torn or clock is None or markers is None:
            raise RecordingError(f"{path} was cut short or is damaged; `rtdecode session repair {path}` makes it whole")
        #: The same in all files of one recorder's life.
        self.identity = (clock.head.text("desc/clock_id"), clock.head.text("desc/utc_anchor"))
        version = clock.head.text("desc/version")
        if version != "1" or clock.head.n_channels != len(ClockRow._fields):
            raise RecordingError(f"{path} has the session format {version!r}; this version of rtdecode reads '1'")
        try:
            self.info = msgspec.json.decode(clock.head.text("desc/stream_info"), type=StreamInfo)
            scales = np.array(clock.head.text("desc/raw_scales").split(), np.float64)
        except ValueError as error:
            raise RecordingError(f"{path}: its description of the stream cannot be read ({error})") from None
        first = session.streams[min(session.streams)]
        apart = session.named(SAMPLES) or first
        raw = to_si(first.numbers, scales) if len(scales) else np.empty((0, 0), np.float32)
        self._places = ((raw, first.all_stamps), (apart.numbers, apart.all_stamps))
        self._markers: dict[int, list[Marker]] = {}
        for stamp, line in zip(markers.all_stamps.tolist(), markers.lines, strict=True):
            found = json.loads(line)
            self._markers.setdefault(found["entry"], []).append(Marker(stamp, found["value"], found["stream"]))
        self._rows = [ClockRow(*row) for row in clock.numbers.tolist()]
        self._at = 0
        #: Samples that the clock speaks of and the file has no more: chunks were damaged, and left out by a repair.
        self.n_lost = 0

    @property
    def n_samples(self) -> int:
        """Samples that will come."""
        return int(sum(row.n for row in self._rows))

    @property
    def zero(self) -> float:
        """Stamp of the first sample; 0 where there is none."""
        return next((row.first_stamp for row in self._rows if row.n), 0.0)

    @property
    def end(self) -> float:
        """Stamp of one period after the last sample; 0 where there is none."""
        return next((row.last_stamp + 1.0 / self.info.sfreq for row in reversed(self._rows) if row.n), 0.0)

    @property
    def n_holes(self) -> int:
        """Places where samples are missing within a segment."""
        pieces = [row for row in self._rows if row.n]
        return sum(
            a.segment == b.segment and a.first_index + a.n != b.first_index for a, b in itertools.pairwise(pieces)
        )

    def read(self) -> Batch | None:
        """The next batch; None at the end."""
        if self._at >= len(self._rows):
            return None
        first = self._rows[self._at]
        pieces = []
        while self._at < len(self._rows) and self._rows[self._at].entry == first.entry:
            if self._rows[self._at].n:
                pieces.append(self._piece(self._rows[self._at]))
            self._at += 1
        found = [piece for piece in pieces if piece is not None]
        chunk = _joined(found, first) if found and len(found) == len(pieces) else None
        return Batch(chunk, tuple(self._markers.get(int(first.entry), ())), first.watermark)

    def _piece(self, row: ClockRow) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
        """Its samples and stamps; None where the file has lost them."""
        samples, stamps = self._places[int(row.apart)]
        n, at = int(row.n), int(row.number)
        if at >= len(stamps) or stamps[at] != row.stamp_there:
            earlier = np.flatnonzero(stamps[:at] == row.stamp_there)  # chunks before it were lost
            if not len(earlier):
                self.n_lost += n
                return None
            at = int(earlier[-1])
        if row.apart:
            return samples[at : at + n], stamps[at : at + n]
        return samples[at : at + n], even_stamps(row.first_stamp, row.last_stamp, n)


def _joined(pieces: list[tuple[NDArray[np.float32], NDArray[np.float64]]], row: ClockRow) -> Chunk:
    return Chunk(
        samples=np.concatenate([samples for samples, _ in pieces]).astype(np.float32, copy=False),
        stamps=np.concatenate([stamps for _, stamps in pieces]),
        first_index=int(row.first_index),
        segment=int(row.segment),
        arrived=row.arrived,
        uncertainty=row.uncertainty,
        invalidates=None if math.isnan(row.invalidates) else int(row.invalidates),
    )


class SessionParts:
    """A recording in several files, as one: the file that is named, and those that went on from it.

    Parameters
    ----------
    path : Path
        The file to begin with: ``..._eeg.xdf``, or ``..._split-02_eeg.xdf``.

    Raises
    ------
    RecordingError
        One of them is cut short or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._readers = [SessionReader(path)]
        self.info = self._readers[0].info
        while (path := _next_part(path)).exists():
            reader = SessionReader(path)
            if reader.identity != self._readers[0].identity or not any(reader.identity):
                break  # another session that was given the same name
            self._readers.append(reader)
        self._at = 0

    @property
    def n_samples(self) -> int:
        """Samples that will come."""
        return sum(reader.n_samples for reader in self._readers)

    @property
    def zero(self) -> float:
        """Stamp of the first sample; 0 where there is none."""
        return next((reader.zero for reader in self._readers if reader.n_samples), 0.0)

    @property
    def duration(self) -> float:
        """Seconds from the first sample to one period after the last."""
        return next((reader.end for reader in reversed(self._readers) if reader.n_samples), self.zero) - self.zero

    @property
    def n_holes(self) -> int:
        """Places within a file where samples are missing."""
        return sum(reader.n_holes for reader in self._readers)

    def read(self) -> Batch | None:
        """The next batch; None at the end."""
        while self._at < len(self._readers):
            batch = self._readers[self._at].read()
            if batch is not None:
                return batch
            self._at += 1
        return None


_SPLIT = re.compile(r"_split-(\d+)(?=_[^_]*$)")


def _next_part(path: Path) -> Path:
    """Name of the file that goes on from this one."""
    found = _SPLIT.search(path.name)
    if found is not None:
        return path.with_name(_SPLIT.sub(f"_split-{int(found[1]) + 1:02d}", path.name))
    head, _, suffix = path.name.rpartition("_")
    return path.with_name(f"{head}_split-02_{suffix}")
