"""Serve any source as a FieldTrip buffer, at its own rate, with its markers as events."""

import math
import time

import numpy as np

from rtdecode import hostclock
from rtdecode.errors import SourceError
from rtdecode.signal import Chunk, StreamInfo
from rtdecode.sources.fieldtrip_sensors import UNITS_KEY
from rtdecode.sources.fieldtrip_server import FieldTripServer
from rtdecode.sources.fieldtrip_wire import Block, ChunkType, DataType, Event, Header, HeaderChunk, Value
from rtdecode.sources.pacing import PacedSender

#: A step between stamps of more periods than this is a hole.
_HOLE_PERIODS = 1.5
#: Seconds that followers have to take the last samples before another header takes them away, and after the last one.
SETTLE_S, LINGER_S = 0.2, 2.0


class FieldTripSender(PacedSender):
    """A buffer of its own, listening as soon as it is made.

    Samples are put as float32 in SI units, with names, types and units in the header's chunks. The buffer has no word
    for missing samples: at a hole the header is put anew, so that the counter begins at 0 again and consumers know that
    something is missing. Events stand at the sample nearest to their marker.

    Parameters
    ----------
    info : StreamInfo
        What the source said when it was opened.
    host : str
        Address to listen on.
    port : int
        0 takes a free one; see `port`.
    events : bool
        Put the markers.
    chunk_s : float
        Seconds of samples that are put at once.
    """

    def __init__(
        self, info: StreamInfo, host: str = "127.0.0.1", port: int = 0, *, events: bool = True, chunk_s: float = 0.02
    ) -> None:
        super().__init__(info, chunk_s)
        self._header = header_of(info)
        self._server = FieldTripServer(host, port)
        self.host, self.port = self._server.host, self._server.port
        self._server.store.put_header(self._header)
        self._with_events = events
        self._newest: float | None = None  # stamp of the newest sample
        self._zero = math.nan  # stamp of the sample that the counter calls 0
        self._waiting: list[tuple[str, float]] = []

    @property
    def server(self) -> FieldTripServer:
        """The buffer."""
        return self._server

    def wait_for_consumers(self, timeout: float) -> bool:
        """Wait until somebody waits for samples; False after `timeout` seconds."""
        deadline = hostclock.now() + timeout
        while not self._server.waits:
            if hostclock.now() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _push(self, part: Chunk) -> None:
        first = float(part.stamps[0])
        if self._newest is None:
            self._zero = first
        elif (first - self._newest) * self.info.sfreq > _HOLE_PERIODS:
            time.sleep(SETTLE_S)
            self._server.store.put_header(self._header)
            self._zero = first
        self._newest = float(part.stamps[-1])
        self._server.store.put_samples(Block.of(part.samples, DataType.FLOAT32))
        waiting, self._waiting = self._waiting, []
        for value, stamp in waiting:
            self._put(value, stamp)

    def _mark(self, value: str, stamp: float) -> bool:
        if self._with_events:
            if self._newest is None:
                self._waiting.append((value, stamp))  # until it is known where the counter begins
            else:
                self._put(value, stamp)
        return self._with_events

    def _put(self, value: str, stamp: float) -> None:
        sample = max(0, round((stamp - self._zero) * self.info.sfreq))
        self._server.store.put_events((event_of(value, sample),))

    def drain(self, linger_s: float = LINGER_S) -> None:
        """Stay until clients have had `linger_s` seconds to take what was put, or have gone."""
        deadline = hostclock.now() + linger_s
        while hostclock.now() < deadline and self._server.n_clients:
            time.sleep(0.02)

    def close(self) -> None:
        """Stop the buffer. Safe to call twice."""
        self._server.close()


def event_of(marker: str, sample: int) -> Event:
    """An event whose type and value, joined by a slash, are the marker: ``Stimulus/S  1``, or a type alone."""
    kind, _, value = marker.partition("/")
    if not (kind and value):
        kind, value = marker, ""
    return Event(Value.of(kind), Value.of(value), sample)


def header_of(info: StreamInfo) -> Header:
    """A header for float32 samples in SI, with names, types and units."""
    types = sorted({channel.type for channel in info.channels})
    if any("\0" in name for name in info.names) or len(types) > 255:
        raise SourceError("channel names with a zero byte cannot be served as a FieldTrip buffer")
    names = b"".join(name.encode() + b"\0" for name in info.names)
    # Flags are told apart by their names, joined by underscores: `ref_meg` has one of its own.
    words = "_".join(kind.replace("_", "") for kind in types).encode() + b"\0"
    flags = bytes(types.index(channel.type) + 1 for channel in info.channels)
    units = ",".join(channel.unit for channel in info.channels)
    pairs = "".join(f"{text}\0" for text in (UNITS_KEY, units)).encode() + b"\0"
    chunks = (
        HeaderChunk(ChunkType.CHANNEL_NAMES, names),
        HeaderChunk(ChunkType.CHANNEL_FLAGS, words + flags),
        HeaderChunk(ChunkType.ASCII_KEYVAL, pairs),
    )
    return Header(len(info.channels), 0, 0, float(np.float32(info.sfreq)), DataType.FLOAT32, chunks)
