"""Sending a recording as if it were being recorded now: what all senders have in common."""

import heapq
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from queue import Full, Queue
from types import TracebackType
from typing import Self

from rtdecode import hostclock
from rtdecode.errors import SourceError
from rtdecode.signal import Batch, Chunk, Marker, StreamInfo
from rtdecode.sources.base import Source

#: Seconds between the first consumer and the first sample: a consumer that shows up may not be listening yet.
LEAD_S = 0.25


class PacedSender(ABC):
    """Paces what a source gives by deadlines counted from the start; how it is sent is its children's.

    Each sample has its own stamp: the host time of the recording's first sample, plus the sample's stamp in the
    recording. Marker stamps are mapped by the same sum, so that a marker falls on the same sample live as in a replay.

    Parameters
    ----------
    info : StreamInfo
        What the source said when it was opened.
    chunk_s : float
        Seconds of samples that are sent at once.
    """

    def __init__(self, info: StreamInfo, chunk_s: float) -> None:
        if chunk_s <= 0 or not math.isfinite(chunk_s):
            raise SourceError(f"chunks of {chunk_s} s cannot be sent; expected more than 0")
        self.info = info
        self._size = max(1, round(chunk_s * info.sfreq))
        self.samples_sent = 0
        self.markers_sent = 0

    @abstractmethod
    def _push(self, part: Chunk) -> None:
        """Send samples; their stamps are host time, index and segment are the recording's."""

    @abstractmethod
    def _mark(self, value: str, stamp: float) -> bool:
        """Send a marker with its host time; False where no markers are served."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Safe to call twice."""

    def serve(
        self,
        source: Source,
        *,
        speed: float = 1.0,
        start: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> float:
        """Send all that an open source gives, by deadlines counted from the start, so that no delay adds up.

        Parameters
        ----------
        source : Source
            Open, at its beginning.
        speed : float
            1 for the recording's own rate. Stamps keep the recording's spacing whatever the speed, so that at other
            speeds they run away from the clock.
        start : float, optional
            Host time of the recording's time 0; by default a moment from now.
        progress : callable, optional
            Called with the stamp (recording time, s) up to which has been sent.

        Returns
        -------
        float
            Host time of the recording's time 0.
        """
        if not (speed > 0 and math.isfinite(speed)):
            raise SourceError(f"a recording cannot be served at speed {speed}; expected more than 0")
        zero = start
        waiting: list[Marker] = []
        for batch in _read_ahead(source):
            if zero is None:
                zero = hostclock.now() + LEAD_S  # only now: the first read of a file is its slowest
            for marker in batch.markers:
                heapq.heappush(waiting, marker)
            if batch.chunk is not None:
                self._serve_chunk(batch.chunk, waiting, zero, speed, progress)
        if zero is None:
            zero = hostclock.now()
        while waiting:  # markers behind the last sample
            self._send_marker(heapq.heappop(waiting), zero)
        return zero

    def _serve_chunk(
        self,
        chunk: Chunk,
        waiting: list[Marker],
        zero: float,
        speed: float,
        progress: Callable[[float], None] | None,
    ) -> None:
        for begin in range(0, len(chunk), self._size):
            stamps = chunk.stamps[begin : begin + self._size]
            newest = float(stamps[-1])
            _sleep_until(zero + newest / speed)
            while waiting and waiting[0].stamp <= newest:
                self._send_marker(heapq.heappop(waiting), zero)
            samples = chunk.samples[begin : begin + self._size]
            self._push(Chunk(samples, zero + stamps, chunk.first_index + begin, chunk.segment))
            self.samples_sent += len(stamps)
            if progress is not None:
                progress(newest)

    def _send_marker(self, marker: Marker, zero: float) -> None:
        if self._mark(marker.value, zero + marker.stamp):
            self.markers_sent += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_ahead(source: Source, batches: int = 4) -> Iterator[Batch]:
    """What the source gives, read by another thread, so that a slow read does not delay what is due."""
    ready: Queue[Batch | BaseException | None] = Queue(batches)
    gone = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not gone.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except Full:
                continue

    def read() -> None:
        try:
            while not gone.is_set() and (batch := source.read(0.1)) is not None:
                put(batch)
            put(None)
        except BaseException as error:  # it is raised where the batches are taken
            put(error)

    thread = threading.Thread(target=read, name="sender-read", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        gone.set()
        thread.join()


def _sleep_until(moment: float) -> None:
    while (left := moment - hostclock.now()) > 0:
        time.sleep(left)
