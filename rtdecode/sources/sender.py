"""Serve any source over LSL, at its own rate, with its markers as a marker stream."""

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Full, Queue
from types import TracebackType
from typing import Any, Self

from rtdecode import hostclock
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.signal import Batch, Chunk, Marker, StreamInfo
from rtdecode.sources.base import Source
from rtdecode.sources.lsl_streams import pylsl

#: Seconds between the first consumer and the first sample: a consumer that shows up may not be listening yet.
LEAD_S = 0.25
#: Seconds that outlets stay open after the last sample. LSL acknowledges nothing: this is what a consumer has to take
#: what lies in its own buffers, which liblsl throws away once it notices that the sender is gone.
LINGER_S = 2.0


class LslSender:
    """A data outlet, and a marker outlet on the same clock.

    Samples go out as float32 in SI units, described channel by channel, each with its own stamp: the host time of the
    recording's first sample, plus the sample's stamp in the recording. Marker stamps are mapped by the same sum, so
    that a marker falls on the same sample live as in a replay.

    Parameters
    ----------
    info : StreamInfo
        What the source said when it was opened.
    name : str
        Name of the data stream.
    marker_name : str, optional
        Name of the marker stream; none is served without it.
    chunk_s : float
        Seconds of samples that are sent at once.
    stream_type : str
        LSL's content type of the data stream.
    source_id : str, optional
        Identity by which a consumer finds the stream again.
    """

    def __init__(
        self,
        info: StreamInfo,
        name: str,
        *,
        marker_name: str | None = None,
        chunk_s: float = 0.02,
        stream_type: str = "EEG",
        source_id: str | None = None,
    ) -> None:
        if chunk_s <= 0 or not math.isfinite(chunk_s):
            raise SourceError(f"chunks of {chunk_s} s cannot be sent; expected more than 0")
        self.info = info
        self._size = max(1, round(chunk_s * info.sfreq))
        identity = source_id or f"rtdecode-{name}"
        module = pylsl()
        self._data: Any = module.StreamOutlet(_data_info(module, info, name, stream_type, identity), max_buffered=60)
        self._markers: Any = None
        if marker_name is not None:
            described = module.StreamInfo(marker_name, "Markers", 1, 0.0, "string", f"{identity}-markers")
            self._markers = module.StreamOutlet(described)
        self.samples_sent = 0
        self.markers_sent = 0

    def wait_for_consumers(self, timeout: float) -> bool:
        """Wait until somebody takes the samples, and the markers where they are served; False after `timeout` s."""
        deadline = hostclock.now() + timeout
        outlets = [outlet for outlet in (self._data, self._markers) if outlet is not None]
        return all(self._await(outlet, deadline) for outlet in outlets)

    def _await(self, outlet: Any, deadline: float) -> bool:
        # In short waits: liblsl's own cannot be interrupted by Ctrl-C.
        while not outlet.have_consumers():
            left = deadline - hostclock.now()
            if left <= 0:
                return False
            outlet.wait_for_consumers(min(0.2, left))
        return True

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
            self._data.push_chunk(chunk.samples[begin : begin + self._size], (zero + stamps).tolist())
            self.samples_sent += len(stamps)
            if progress is not None:
                progress(newest)

    def _send_marker(self, marker: Marker, zero: float) -> None:
        if self._markers is not None:
            self._markers.push_sample([marker.value], zero + marker.stamp)
            self.markers_sent += 1

    def drain(self, linger_s: float = LINGER_S) -> None:
        """Stay until consumers have had `linger_s` seconds to take what was sent, or have gone."""
        deadline = hostclock.now() + linger_s
        while hostclock.now() < deadline and self._data.have_consumers():
            time.sleep(0.02)

    def close(self) -> None:
        """Take the outlets off the network. Safe to call twice."""
        self._data = self._markers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_consumers(sender: LslSender, timeout: float) -> None:
    """As `LslSender.wait_for_consumers`, but an error where nobody came."""
    if not sender.wait_for_consumers(timeout):
        raise StreamNotFoundError(
            f"nobody took the stream within {timeout:g} s; start the consumer (of the markers too, where they are "
            "served), or wait longer"
        )


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

    thread = threading.Thread(target=read, name="lsl-sender-read", daemon=True)
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


def _data_info(module: Any, info: StreamInfo, name: str, stream_type: str, identity: str) -> Any:
    described = module.StreamInfo(name, stream_type, len(info.channels), info.sfreq, "float32", identity)
    desc = described.desc()
    desc.append_child_value("manufacturer", "rtdecode")
    if info.source:
        desc.append_child_value("origin", info.source)
    listed = desc.append_child("channels")
    for channel in info.channels:
        one = listed.append_child("channel")
        one.append_child_value("label", channel.name)
        one.append_child_value("type", channel.type.upper())
        if channel.unit:
            one.append_child_value("unit", channel.unit)
        if channel.position is not None:
            _append_position(one, channel.position)
    return described


def _append_position(channel: Any, position: Sequence[float]) -> None:
    location = channel.append_child("location")
    for axis, metres in zip("XYZ", position, strict=True):
        location.append_child_value(axis, repr(round(metres * 1e3, 9)))
