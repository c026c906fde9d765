"""How a chaos run's sender reaches the daemon: LSL, ZeroMQ or a FieldTrip buffer."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.sources.lsl_streams import pylsl


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
    return LslTransport(address, identity)


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
