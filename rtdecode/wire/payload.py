"""What a window decoded to, as canonical bytes: the part of its message that every replay and any cutting must repeat.

In the payload: the window's name, segment, start and length, its data status, the values of its heads, and its arrays,
byte for byte. Not in it: pipeline, bundle, sequence number, marker, reason and ledger, which tell of one run.

Data status is ``ok``, ``gap``, ``artifact`` or ``failed``. A ``late`` window was decoded from sound data and came out
after its budget: with results, its data status is ``ok`` and its payload is that of a replay. A ``skipped`` window, and
a late one that was given up before it had results, were not decoded: they have no payload.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

from rtdecode.errors import WireError
from rtdecode.wire.framing import check_version, read_array, topic_of, wire_array
from rtdecode.wire.messages import Message, Status, Window

_MAGIC = "rtdecode-payload-1"


def data_status(message: Window, arrays: Mapping[str, NDArray[Any]]) -> Status:
    """Status of a window with timing left out: ``ok`` for a late window that has results, else what it says."""
    if message.status == "late" and (arrays or message.retrieval is not None or message.label is not None):
        return "ok"
    return message.status


def has_payload(message: Window, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a window was decoded (or found undecodable) from its data alone, so that a replay must repeat it."""
    return data_status(message, arrays) not in ("late", "skipped")


def payload(message: Window, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Canonical bytes of what a window decoded to.

    A msgpack array ``[magic, window, segment, start, length, status, retrieval, label, [[name, dtype, shape]...]]``,
    numbers of heads as float64, then the arrays' bytes; arrays in the order of their names.

    Raises
    ------
    WireError
        The window has no payload (see `has_payload`), or an array's dtype cannot travel.
    """
    if not has_payload(message, arrays):
        raise WireError(f"a {message.status} window without results was not decoded and has no payload")
    ready = {name: wire_array(name, arrays[name]) for name in sorted(arrays)}
    retrieval, label = message.retrieval, message.label
    header = (
        _MAGIC,
        message.window,
        message.segment,
        message.start,
        message.length,
        data_status(message, arrays),
        retrieval
        and (
            retrieval.indices,
            retrieval.names,
            [float(score) for score in retrieval.scores],
            float(retrieval.margin),
            retrieval.none_of_these,
        ),
        label and (label.names, [float(probability) for probability in label.probabilities], label.best),
        [(name, array.dtype.str, array.shape) for name, array in ready.items()],
    )
    return b"".join([msgspec.msgpack.encode(header), *(array.tobytes() for array in ready.values())])


def payload_digest(message: Window, arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """SHA-256 of the payload in hex, or None where the window has none."""
    return hashlib.sha256(payload(message, arrays)).hexdigest() if has_payload(message, arrays) else None


class _JsonArray(msgspec.Struct, frozen=True, kw_only=True):
    dtype: str
    shape: tuple[int, ...]
    base64: str


class _JsonArrays(msgspec.Struct, frozen=True, kw_only=True):
    arrays: dict[str, _JsonArray] = {}


_json_encoder = msgspec.json.Encoder()
_arrays_decoder = msgspec.json.Decoder(_JsonArrays)


def to_json(message: Message, arrays: Mapping[str, NDArray[Any]], *, with_arrays: bool = True) -> bytes:
    """One message as one line of JSON, without the line's end.

    Every field of the header by its name; `topic`; `arrays` as an object of ``{"dtype", "shape", "base64"}`` by name;
    for a window also `payload_sha256` (null where it has no payload). Numbers are written with as many digits as bring
    the same float64 back; NaN and infinity in the header become null, which JSON can hold.

    Parameters
    ----------
    message : Message
    arrays : mapping of str to ndarray
    with_arrays : bool
        False leaves `base64` out: dtype and shape stay, and the line can no longer be read back.

    Raises
    ------
    WireError
        An array's dtype cannot travel, or a value cannot be written.
    """
    ready = {name: wire_array(name, array) for name, array in arrays.items()}
    line: dict[str, Any] = {"topic": topic_of(message)}
    try:
        line |= msgspec.to_builtins(message)
        line["arrays"] = {name: _array_as_json(array, with_arrays) for name, array in ready.items()}
        if isinstance(message, Window):
            line["payload_sha256"] = payload_digest(message, ready)
        return _json_encoder.encode(line)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a {type(message).__name__} message cannot be written as JSON: {error}") from error


def _array_as_json(array: NDArray[Any], with_bytes: bool) -> dict[str, Any]:
    described = {"dtype": array.dtype.str, "shape": array.shape}
    return described | {"base64": base64.b64encode(array.tobytes()).decode()} if with_bytes else described


def from_json(line: bytes | str) -> tuple[Message, dict[str, NDArray[Any]]]:
    """Read a line of `to_json` back: the message and its arrays (read-only).

    Raises
    ------
    WireError
        The line is no message, its arrays are damaged, or its payload is not the one its digest names.
    """
    try:
        raw = msgspec.json.decode(line, type=dict[str, Any])
        described = _arrays_decoder.decode(line).arrays
        check_version("a line of JSON", msgspec.convert(raw.get("v"), int))
        raw["arrays"] = [{"name": name, "dtype": a.dtype, "shape": a.shape} for name, a in described.items()]
        message: Message = msgspec.convert(raw, Message)
        frames = {name: base64.b64decode(a.base64, validate=True) for name, a in described.items()}
    except (ValueError, RecursionError) as error:
        raise WireError(f"no JSON message: {error}") from error
    topic = topic_of(message)
    arrays = {a.name: read_array(topic, a, frames[a.name]) for a in message.arrays}
    digest = raw.get("payload_sha256")
    if isinstance(message, Window) and digest is not None and payload_digest(message, arrays) != digest:
        raise WireError(f"{topic}: window {message.segment}/{message.start} does not have the payload its line names")
    return message, arrays
