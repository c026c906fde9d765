"""How a chaos run's sender reaches the daemon: LSL, ZeroMQ or a FieldTrip buffer."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

from rtdecode.signal import Channel, StreamInfo
from rtdecode.sources.fieldtrip_sender import SETTLE_S, event_of, header_of
from rtdecode.sources.fieldtrip_server import FieldTripServer
from rtdecode.sources.fieldtrip_wire import Block, DataType
from rtdecode.sources.lsl_streams import pylsl
from rtdecode.sources.zmq_format import Mark, Samples, write_message
from rtdecode.wire.clock import clock_id


@dataclass(frozen=True, slots=True)
class Identity:
    """What the sender declares."""

    source_id: str
    sfreq: float
    names: tuple[str, ...]
    unit: str


class Transport(Protocol):
    """One way out."""

    def samples(self, values: NDArray[np.float32], stamps: NDArray[np.float64]) -> None:
        """Send consecutive samples, shape (n, channels), with their stamps in seconds of the sender's clock."""
        ...

    def marker(self, value: str, stamp: float, index: int) -> None:
        """Send a marker that falls on sample number `index` of this life."""
        ...

    def skip(self, n: int) -> None:
        """`n` samples are lost on the way to here; a transport that counts samples counts them."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


def make_transport(kind: str, address: str, identity: Identity) -> Transport:
    """The transport called `kind`."""
    return _TRANSPORTS[kind](address, identity)


class LslTransport:
    """A data outlet and a marker outlet on one clock."""

    def __init__(self, name: str, identity: Identity) -> None:
        module = pylsl()
        info = module.StreamInfo(name, "EEG", len(identity.names), identity.sfreq, "float32", identity.source_id)
        listed = info.desc().append_child("channels")
        for label in identity.names:
            one = listed.append_child("channel")
            for key, value in (("label", label), ("type", "EEG"), ("unit", identity.unit)):
                one.append_child_value(key, value)
        self._data: Any = module.StreamOutlet(info)
        markers = module.StreamInfo(f"{name}-markers", "Markers", 1, 0.0, "string", f"{identity.source_id}-markers")
        self._markers: Any = module.StreamOutlet(markers)

    def samples(self, values: NDArray[np.float32], stamps: NDArray[np.float64]) -> None:
        """Push, each sample with its own stamp."""
        self._data.push_chunk(values, stamps.tolist())

    def marker(self, value: str, stamp: float, index: int) -> None:
        """Push."""
        self._markers.push_sample([value], stamp)

    def skip(self, n: int) -> None:
        """LSL counts nothing."""

    def close(self) -> None:
        """Take the outlets off the network."""
        self._data = self._markers = None


class ZmqTransport:
    """A PUB socket that sends the minimal format, stamps and all."""

    def __init__(self, address: str, identity: Identity) -> None:
        self._identity = identity
        self._run = secrets.token_hex(8)
        self._next = 0
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(f"tcp://{address}")

    def samples(self, values: NDArray[np.float32], stamps: NDArray[np.float64]) -> None:
        """Send them as one message, stamped by its first sample."""
        header = Samples(
            v=1,
            stream="chaos",
            run=self._run,
            index=self._next,
            n=len(values),
            dtype="<f4",
            sfreq=self._identity.sfreq,
            channels=self._identity.names,
            unit=self._identity.unit,
            stamp=float(stamps[0]),
            clock=clock_id(),
        )
        self._next += len(values)
        self._socket.send_multipart(write_message(header, values))

    def marker(self, value: str, stamp: float, index: int) -> None:
        """Send it with the number of its sample."""
        self._socket.send_multipart(write_message(Mark(v=1, stream="chaos", run=self._run, value=value, index=index)))

    def skip(self, n: int) -> None:
        """Numbers are counted on."""
        self._next += n

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        self._context.term()


class FieldTripTransport:
    """A buffer of its own. It has no word for lost samples: behind them the header is put anew and counts from 0."""

    def __init__(self, address: str, identity: Identity) -> None:
        host, _, port = address.partition(":")
        channels = tuple(Channel(name, "eeg", identity.unit) for name in identity.names)
        self._header = header_of(StreamInfo(channels, identity.sfreq, "chaos"))
        self._server = FieldTripServer(host, int(port))
        self._server.store.put_header(self._header)
        self._sent = self._zero = 0

    def samples(self, values: NDArray[np.float32], stamps: NDArray[np.float64]) -> None:
        """Put them; the buffer has no stamps."""
        self._server.store.put_samples(Block.of(values, DataType.FLOAT32))
        self._sent += len(values)

    def marker(self, value: str, stamp: float, index: int) -> None:
        """Put it as an event."""
        self._server.store.put_events((event_of(value, index - self._zero),))

    def skip(self, n: int) -> None:
        """Begin anew behind the loss, once what was there has been taken."""
        time.sleep(SETTLE_S)
        self._server.store.put_header(self._header)
        self._sent += n
        self._zero = self._sent

    def close(self) -> None:
        """Stop the buffer."""
        self._server.close()


_TRANSPORTS: dict[str, Callable[[str, Identity], Transport]] = {
    "lsl": LslTransport,
    "zmq": ZmqTransport,
    "fieldtrip": FieldTripTransport,
}
