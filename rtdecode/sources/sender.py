"""Serve any source over LSL, at its own rate, with its markers as a marker stream."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from rtdecode import hostclock
from rtdecode.errors import StreamNotFoundError
from rtdecode.signal import Chunk, StreamInfo
from rtdecode.sources.lsl_streams import pylsl
from rtdecode.sources.pacing import PacedSender

#: Seconds that outlets stay open after the last sample. LSL acknowledges nothing: this is what a consumer has to take
#: what lies in its own buffers, which liblsl throws away once it notices that the sender is gone.
LINGER_S = 2.0


class LslSender(PacedSender):
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
        super().__init__(info, chunk_s)
        identity = source_id or f"rtdecode-{name}"
        module = pylsl()
        self._data: Any = module.StreamOutlet(_data_info(module, info, name, stream_type, identity), max_buffered=60)
        self._markers: Any = None
        if marker_name is not None:
            described = module.StreamInfo(marker_name, "Markers", 1, 0.0, "string", f"{identity}-markers")
            self._markers = module.StreamOutlet(described)

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

    def _push(self, part: Chunk) -> None:
        self._data.push_chunk(part.samples, part.stamps.tolist())

    def _mark(self, value: str, stamp: float) -> bool:
        if self._markers is not None:
            self._markers.push_sample([value], stamp)
        return self._markers is not None

    def drain(self, linger_s: float = LINGER_S) -> None:
        """Stay until consumers have had `linger_s` seconds to take what was sent, or have gone."""
        deadline = hostclock.now() + linger_s
        while hostclock.now() < deadline and self._data.have_consumers():
            time.sleep(0.02)

    def close(self) -> None:
        """Take the outlets off the network. Safe to call twice."""
        self._data = self._markers = None


class _Awaits(Protocol):
    def wait_for_consumers(self, timeout: float) -> bool: ...


def require_consumers(sender: _Awaits, timeout: float) -> None:
    """As `LslSender.wait_for_consumers`, but an error where nobody came."""
    if not sender.wait_for_consumers(timeout):
        raise StreamNotFoundError(
            f"nobody took the stream within {timeout:g} s; start the consumer (of the markers too, where they are "
            "served), or wait longer"
        )


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
