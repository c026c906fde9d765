"""A message as frames, and frames as a message: ``topic | header | array | array...``.

Reading trusts nothing: whatever the frames hold, the outcome is a message or a `WireError` that names the frame and
what is wrong with it.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import WireError
from rtdecode.wire.messages import VERSION, Array, Description, Event, Health, Message, Samples, Window

Frame = bytes | bytearray | memoryview

#: The only dtypes on the wire: numbers of a fixed size, little-endian. No objects, strings or structures.
DTYPES = frozenset({"<f2", "<f4", "<f8", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8"})

_MAX_DIMENSIONS = 32
_MAX_EXTENT = 2**40
_PIPELINE_NAME = re.compile(r"[\w-]{1,64}")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class _Version(msgspec.Struct):
    v: int


_version_decoder = msgspec.msgpack.Decoder(_Version)


@functools.lru_cache(maxsize=1024)
def check_pipeline_name(name: str) -> str:
    """Give `name` back when it can stand in a topic.

    Raises
    ------
    WireError
        The name is empty, longer than 64 characters, or holds anything but letters, digits, ``_`` and ``-``.
    """
    if not _PIPELINE_NAME.fullmatch(name):
        raise WireError(
            f"pipeline name {name!r} cannot stand in a topic: use 1 to 64 letters, digits, '_' or '-', and no dots"
        )
    return name


def topic_of(message: Message) -> str:
    """Topic that a message belongs to, ``PIPELINE.KIND``.

    Raises
    ------
    WireError
        The message's pipeline (or origin) cannot stand in a topic.
    """
    match message:
        case Window():
            return f"{check_pipeline_name(message.pipeline)}.{message.kind}"
        case Event():
            return f"{check_pipeline_name(message.pipeline or message.origin)}.event"
        case Description():
            return f"{check_pipeline_name(message.pipeline)}.description"
        case Health():
            return f"{check_pipeline_name(message.pipeline)}.health"
        case Samples():
            return "acquire.samples"


def wire_array(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """`array` as it travels: little-endian and C-contiguous; copied only where it is not so already.

    Raises
    ------
    WireError
        Its dtype is not one of `DTYPES`.
    """
    little = array.dtype.newbyteorder("<")
    if little.str not in DTYPES:
        raise WireError(f"array {name!r} has dtype {array.dtype.str}; the wire carries {', '.join(sorted(DTYPES))}")
    return np.asarray(array, dtype=little, order="C")


def encode(topic: str, message: Message, arrays: Mapping[str, NDArray[Any]] | None = None) -> list[Frame]:
    """Frames of one message; the header's `arrays` is made from `arrays`.

    Parameters
    ----------
    topic : str
        Must be `topic_of` the message.
    message : Message
        Any message of version 1.
    arrays : mapping of str to ndarray, optional
        Published as raw frames, in the mapping's order. The frames are views of contiguous little-endian arrays: send
        or copy them before those change.

    Returns
    -------
    list of bytes or memoryview
        Topic, header, then one frame for each array.

    Raises
    ------
    WireError
        A topic that is not the message's, a dtype outside `DTYPES`, or a value that msgpack cannot hold.
    """
    if topic != (expected := topic_of(message)):
        raise WireError(f"topic {topic!r} does not belong to this message; it goes out as {expected!r}")
    described, buffers = describe_arrays(arrays or {})
    return [topic.encode(), encode_header(msgspec.structs.replace(message, arrays=described)), *buffers]


def describe_arrays(arrays: Mapping[str, NDArray[Any]]) -> tuple[tuple[Array, ...], list[memoryview]]:
    """What a header says of `arrays`, and their frames."""
    ready = {name: wire_array(name, array) for name, array in arrays.items()}
    described = tuple(Array(name=name, dtype=array.dtype.str, shape=array.shape) for name, array in ready.items())
    return described, [_bytes_of(array) for array in ready.values()]


def encode_header(message: Message) -> bytes:
    """Header frame of a message whose `arrays` is already right."""
    try:
        return _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"a {type(message).__name__} message cannot be written as msgpack: {error}") from error


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def decode(frames: Sequence[Frame]) -> tuple[str, Message, dict[str, NDArray[Any]]]:
    """Topic, message and arrays of one multipart message.

    Parameters
    ----------
    frames : sequence of bytes-like
        As they were received.

    Returns
    -------
    topic : str
    message : Message
    arrays : dict of str to ndarray
        Read-only views of the frames (a copy only where a frame is not aligned for its dtype).

    Raises
    ------
    WireError
        Anything is wrong with the frames; the message says which frame and what was expected.
    """
    if len(frames) < 2:
        raise WireError(f"a message is topic, header and arrays; got {len(frames)} frame(s)")
    topic = _topic(frames[0])
    message = _message(topic, frames[1])
    if topic != (expected := topic_of(message)):
        raise WireError(f"topic {topic!r} does not belong to its header, which says {expected!r}")
    if len(frames) - 2 != len(message.arrays):
        raise WireError(
            f"{topic}: the header describes {len(message.arrays)} array(s), {len(frames) - 2} frame(s) follow it"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for described, frame in zip(message.arrays, frames[2:], strict=True):
        if described.name in arrays:
            raise WireError(f"{topic}: two arrays are called {described.name!r}")
        arrays[described.name] = read_array(topic, described, frame)
    return topic, message, arrays


def _topic(frame: Frame) -> str:
    try:
        return bytes(frame).decode()
    except UnicodeDecodeError as error:
        raise WireError(f"the topic frame is not UTF-8: {bytes(frame[:32])!r}") from error


def _message(topic: str, frame: Frame) -> Message:
    """A header of another version may fail on its fields: the version is what its reader must hear then."""
    fault: Exception
    try:
        message: Message = _decoder.decode(frame)
    except (ValueError, RecursionError, MemoryError) as error:  # ValueError: msgspec's, Unicode's
        fault = error
    else:
        check_version(topic, message.v)
        return message
    try:
        check_version(topic, _version_decoder.decode(frame).v)
    except (ValueError, RecursionError, MemoryError) as error:
        fault = error
    raise WireError(f"{topic}: the header is no message of version {VERSION}: {fault}") from fault


def check_version(topic: str, version: int) -> None:
    """Refuse a message of another version.

    Raises
    ------
    WireError
        `version` is not the one that this release reads.
    """
    if version != VERSION:
        raise WireError(
            f"{topic}: the message is of wire version {version}, this rtdecode reads version {VERSION}; "
            "run the same release on both sides"
        )


def read_array(topic: str, described: Array, frame: Frame) -> NDArray[Any]:
    """Array over the bytes of a frame, read-only.

    Raises
    ------
    WireError
        The dtype, the shape or the number of bytes is not what it may be.
    """
    where = f"{topic}: array {described.name!r}"
    if described.dtype not in DTYPES:
        raise WireError(f"{where} has dtype {described.dtype!r}; expected one of {', '.join(sorted(DTYPES))}")
    shape = described.shape
    if len(shape) > _MAX_DIMENSIONS or any(not 0 <= extent <= _MAX_EXTENT for extent in shape):
        raise WireError(f"{where} has an impossible shape {shape[:_MAX_DIMENSIONS]}")
    dtype = np.dtype(described.dtype)
    expected, got = math.prod(shape) * dtype.itemsize, memoryview(frame).nbytes
    if expected != got:
        raise WireError(f"{where} of shape {shape} and dtype {described.dtype} takes {expected} bytes, its frame {got}")
    try:
        array = np.frombuffer(frame, dtype).reshape(shape)
    except ValueError as error:
        raise WireError(f"{where} has an impossible shape {shape}: {error}") from error
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array
