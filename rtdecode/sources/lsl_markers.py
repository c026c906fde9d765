"""A marker stream behind an LSL source: each marker as it came, and until when they are complete."""

import math
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.clock.offset import ClockOffset
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.signal import Marker, Notice, Raw
from rtdecode.sources.lsl_directory import Directory
from rtdecode.sources.lsl_links import Awake, Event, Link
from rtdecode.sources.lsl_search import Search, same_identity
from rtdecode.sources.lsl_streams import SETTLE_S, MarkerQuery, StreamQuery, describe_stream, pylsl
from rtdecode.sources.xdf_reader import marker_value

#: A pull of markers returns after this, and so the watermark is no staler.
_MARKER_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Marked:
    """A marker as it came, and on the host's clock; none where it has no stamp that could be mapped."""

    row: NDArray[np.generic]
    stamp: float
    marker: Marker | None


def raw_markers(stream: int, marked: list[Marked]) -> Raw:
    """Markers of one stream as they are recorded: numbers in their own type, text a value for each channel."""
    stamps = np.array([one.stamp for one in marked], np.float64)
    rows = np.stack([one.row for one in marked])
    if rows.dtype != object:
        return Raw(stream, rows, stamps)
    return Raw(stream, tuple(value.decode("utf-8", "surrogateescape") for value in rows.ravel().tolist()), stamps)


class MarkerLink(Link):
    """Pulls markers, and knows until when they are complete."""

    def __init__(
        self,
        query: MarkerQuery,
        events: "SimpleQueue[Event]",
        timeout_s: float,
        number: int,
        directory: Directory | None = None,
    ) -> None:
        super().__init__(query, events, timeout_s, number, directory)
        self.empty_at = -math.inf
        self.waiting: deque[Marked] = deque()
        self.beside: Link | None = None  # the stream of the samples

    def connect(self, query: StreamQuery, timeout: float, settle: float = SETTLE_S) -> None:
        """As for any stream; one with a regular rate carries samples and is refused."""
        super().connect(query, timeout, settle)
        self._check(self.info)

    def _check(self, info: Any) -> None:
        if info.nominal_srate() > 0:
            raise SourceError(
                f"the LSL stream with {self.query} has a regular rate ({describe_stream(info)}); expected a marker "
                "stream (irregular rate, 0 Hz)"
            )

    def _clock(self) -> ClockOffset:
        """One host has one clock: its markers and its samples are mapped alike."""
        beside = self.beside
        if beside is None or beside.info.hostname() != self.info.hostname():
            return self.offset
        return beside.offset

    def _run(self) -> None:
        module = pylsl()
        while not self.stop.is_set():
            try:
                self._pull()
            except module.util.LostError:
                # A dead sender has no more markers, and one that comes back stamps them later than now.
                self.empty_at = hostclock.now()
                self._say(f"the marker stream {self.info.name()!r} is lost; looking for it", lost=True)
                self._find_again()

    def _pull(self) -> None:
        """Wait for a marker, then take what else is there: until nothing is, nobody knows how far they are complete."""
        timeout = _MARKER_POLL_S
        while True:
            asked = hostclock.now()
            row, stamp = self.inlet.pull_sample(timeout)
            if row is None:
                self.empty_at = asked  # and not later: one may have come since, and wait for the next pull
                return
            timeout = 0.0
            marker = None
            if math.isfinite(stamp):
                marker = Marker(self._clock().to_host(float(stamp)), marker_value(row), self.info.name())
            self.waiting.append(Marked(row, stamp, marker))
            self.events.put(Awake())

    def _find_again(self) -> None:
        """Until it is there, or the source is closed."""
        search = Search(self.query, self.info, self.directory)
        while not self.stop.is_set():
            found = search.look()
            self.empty_at = hostclock.now()
            if found is None:
                continue
            if not same_identity(found, self.info):
                search.refuse(found)  # something else has taken its name; keep looking for what was there
                continue
            try:
                self.attach(found, self._check, 2.0)
            except StreamNotFoundError:
                continue
            except SourceError:
                search.refuse(found)
                continue
            self._say(f"the marker stream {self.info.name()!r} is found again", lost=False)
            return

    def _say(self, text: str, *, lost: bool) -> None:
        self.events.put(Notice("markers", text, details={"stream": self.info.name(), "lost": lost}))
