"""A recording as a source: FIF, EDF, BDF, GDF, BrainVision, EEGLAB, XDF, and the sessions that the daemon recorded."""

import bisect
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rtdecode.clock.holes import APART_S
from rtdecode.errors import RecordingError
from rtdecode.signal import Batch, Chunk, Marker, Origin, StreamInfo
from rtdecode.sources.declare import Declare
from rtdecode.sources.pieces import Piece, Reader
from rtdecode.sources.session_reader import SessionParts, is_session
from rtdecode.sources.trigger import TriggerRule, Triggers

_BY_MNE = (".fif", ".edf", ".bdf", ".gdf", ".vhdr", ".ahdr", ".set")
_BY_PYXDF = (".xdf", ".xdfz")
_INSTEAD = {".eeg": ".vhdr", ".vmrk": ".vhdr", ".fdt": ".set", ".amrk": ".ahdr"}


class RecordingSource:
    """Reads a file from its beginning to its end, a chunk at a time.

    Stamps are seconds from the recording's first sample. A place where samples are missing is a jump of
    `Chunk.first_index`, or another segment where it is longer than an hour; no chunk crosses it. Markers (the file's
    annotations or marker streams, and what `triggers` make of its trigger channels) come with the chunk that they fall
    in.

    A session that the daemon recorded (an XDF file with a stream ``rtdecode.clock``) gives the very batches that were
    decoded: chunks, host stamps, arrivals, segments, markers and watermarks. `declare`, `triggers` and `chunk` do
    nothing to it, for what they do was done when it was recorded. Of a recording in several files the one that is
    named is read, and those that went on from it (``_split-02``...). With `stream` it is read as any other XDF file.

    Parameters
    ----------
    path : str or Path
        The file; for BrainVision the ``.vhdr``, for EEGLAB the ``.set``.
    declare : Declare
        What the file leaves undeclared.
    triggers : sequence of TriggerRule
        How trigger channels become markers.
    chunk : int, optional
        Samples in a chunk at most; one second of them by default.
    stream : str, optional
        XDF: name or type of the data stream, where the file has more than one.
    markers : sequence of str, optional
        XDF: names of the marker streams; by default all streams of irregular rate.

    Raises
    ------
    RecordingError
        At `open`: the file is missing, empty, cut short, damaged or of an unknown format.
    SourceError
        At `open`: the declaration or a trigger rule does not fit the file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        declare: Declare | None = None,
        triggers: Sequence[TriggerRule] = (),
        chunk: int | None = None,
        stream: str | None = None,
        markers: Sequence[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self._declare = declare or Declare()
        self._rules = tuple(triggers)
        self._chunk = chunk
        self._stream = stream
        self._marker_names = markers
        self._reader: Reader | None = None
        self._session: SessionParts | None = None
        self._closed = False

    def open(self) -> StreamInfo:
        """Open the file and say what it holds."""
        if self._stream is None and self.path.suffix.lower() == ".xdf" and is_session(self.path):
            self._session = SessionParts(self.path)
            self._info = dataclasses.replace(self._session.info, source=f"recording:{self.path.name}")
            return self._info
        self._reader = reader = self._open()
        contents = reader.contents
        self._info = StreamInfo(
            contents.channels,
            contents.sfreq,
            f"recording:{self.path.name}",
            contents.source_id,
            contents.declared_by_user,
        )
        self._triggers = Triggers(self._rules, self._info)
        self._size = self._chunk or max(1, round(contents.sfreq))
        self._markers = list(contents.markers)
        self._stamps = [marker.stamp for marker in self._markers]
        self._given = 0
        self._piece = 0
        self._segment, self._origin = 0, 0  # the segment, and the index at which it began
        self._at = contents.pieces[0].start
        self._ended = False
        return self._info

    @property
    def info(self) -> StreamInfo:
        """What `open` gave."""
        if self._session is None:
            self._opened()
        return self._info

    @property
    def zero(self) -> float:
        """Stamp of the first sample: 0, or the host time at which it was recorded in a session of the daemon's own."""
        return 0.0 if self._session is None else self._session.zero

    @property
    def n_samples(self) -> int:
        """Samples that will come, holes not counted."""
        if self._session is not None:
            return self._session.n_samples
        return sum(piece.stop - piece.start for piece in self._opened().contents.pieces)

    @property
    def duration(self) -> float:
        """Seconds from the first sample to one period after the last, holes counted."""
        if self._session is not None:
            return self._session.duration
        reader = self._opened()
        last = reader.contents.pieces[-1]
        return float(reader.stamps(last, last.stop - 1, last.stop)[0]) + 1.0 / reader.contents.sfreq

    @property
    def n_holes(self) -> int:
        """Places where samples are missing."""
        if self._session is not None:
            return self._session.n_holes
        return len(self._opened().contents.pieces) - 1

    @property
    def left_out(self) -> tuple[str, ...]:
        """Channels of the file that are not read, since they have another rate than the fastest."""
        return () if self._session is not None else self._opened().contents.left_out

    @property
    def origins(self) -> tuple[Origin, ...]:
        """None: nothing is rawer than its chunks."""
        return ()

    def read(self, timeout: float = 0.0) -> Batch | None:
        """The next chunk with its markers; None at the end. `timeout` does not matter: a file never waits."""
        if self._session is not None:
            return None if self._closed else self._session.read()
        reader = self._opened()
        if self._ended or self._closed:
            return None
        pieces = reader.contents.pieces
        piece = pieces[self._piece]
        stop = min(self._at + self._size, piece.stop)
        chunk = self._cut(reader, piece, self._at, stop)
        self._at = stop
        if stop == piece.stop:
            self._piece += 1
            if self._piece == len(pieces):
                self._ended = True
            else:
                self._step_over(piece, pieces[self._piece])
        markers = self._triggers.feed(chunk) if self._rules else []
        newest = math.inf if self._ended else float(chunk.stamps[-1])
        watermark = math.inf if self._ended else min(newest, self._triggers.watermark)
        return Batch(chunk, self._due(newest) + markers, watermark)

    def _due(self, newest: float) -> list[Marker]:
        begin, self._given = self._given, bisect.bisect_right(self._stamps, newest)
        return self._markers[begin : self._given]

    def _step_over(self, before: Piece, after: Piece) -> None:
        """Go on behind a hole."""
        self._at = after.start
        missing = after.first_index - (before.first_index + before.stop - before.start)
        if missing > APART_S * self._info.sfreq:
            self._segment, self._origin = self._segment + 1, after.first_index

    def _cut(self, reader: Reader, piece: Piece, start: int, stop: int) -> Chunk:
        return Chunk(
            reader.samples(start, stop).copy(),  # the reader's block is used again; a chunk is its receiver's own
            reader.stamps(piece, start, stop),
            start - piece.start + piece.first_index - self._origin,
            self._segment,
        )

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._closed = True
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> Reader:
        if self._reader is None:
            raise RecordingError(f"{self.path} is not open; call open() first, or use `with`")
        return self._reader

    def _open(self) -> Reader:
        path = self.path
        kind = path.suffix.lower()
        if kind == ".gz":
            kind = Path(path.stem).suffix.lower()
        if not path.is_file():
            raise RecordingError(f"{path} does not exist or is no file; check the path")
        if kind in _INSTEAD:
            raise RecordingError(
                f"{path} is one part of a recording; give its header instead ({path.stem}{_INSTEAD[kind]})"
            )
        if kind not in _BY_MNE + _BY_PYXDF:
            raise RecordingError(
                f"{path}: the ending {path.suffix!r} is not known; expected one of {', '.join((*_BY_MNE, *_BY_PYXDF))}"
            )
        if path.stat().st_size == 0:
            raise RecordingError(f"{path} is empty (0 bytes); expected a recording; copy it again")
        if kind in _BY_PYXDF:
            from rtdecode.sources.xdf_reader import XdfReader

            return XdfReader(path, self._declare, self._stream, self._marker_names)
        from rtdecode.sources.mne_reader import MneReader

        return MneReader(path, kind, self._declare)
