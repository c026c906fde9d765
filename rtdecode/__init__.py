"""rtdecode: decode brain recordings while they run.

The names below are the public API; each is loaded when it is first used, so that a subscriber needs no inference
runtime.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtdecode.decoder import Decoder
    from rtdecode.encode.bundle import Bundle
    from rtdecode.encode.engines import make_engine
    from rtdecode.errors import RtdecodeError
    from rtdecode.offline import replay
    from rtdecode.result import Result, Status
    from rtdecode.signal import Batch, Channel, Chunk, Marker, StreamInfo
    from rtdecode.sources.recording import RecordingSource
    from rtdecode.wire.messages import Description, Event, Health, Window
    from rtdecode.wire.subscriber import Received, Subscriber

_HOME = {
    "Batch": "rtdecode.signal",
    "Bundle": "rtdecode.encode.bundle",
    "Channel": "rtdecode.signal",
    "Chunk": "rtdecode.signal",
    "Decoder": "rtdecode.decoder",
    "Description": "rtdecode.wire.messages",
    "Event": "rtdecode.wire.messages",
    "Health": "rtdecode.wire.messages",
    "Marker": "rtdecode.signal",
    "Received": "rtdecode.wire.subscriber",
    "RecordingSource": "rtdecode.sources.recording",
    "Result": "rtdecode.result",
    "RtdecodeError": "rtdecode.errors",
    "Status": "rtdecode.result",
    "StreamInfo": "rtdecode.signal",
    "Subscriber": "rtdecode.wire.subscriber",
    "Window": "rtdecode.wire.messages",
    "make_engine": "rtdecode.encode.engines",
    "replay": "rtdecode.offline",
}

__all__ = [
    "Batch",
    "Bundle",
    "Channel",
    "Chunk",
    "Decoder",
    "Description",
    "Event",
    "Health",
    "Marker",
    "Received",
    "RecordingSource",
    "Result",
    "RtdecodeError",
    "Status",
    "StreamInfo",
    "Subscriber",
    "Window",
    "make_engine",
    "replay",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rtdecode' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
