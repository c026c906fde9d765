"""The messages of the FieldTrip buffer, version 1: bytes to structures and back, in either byte order.

After the protocol's public description (fieldtriptoolbox.org, "Low-level FieldTrip buffer TCP network protocol"). A
message is a prefix of 8 bytes (version, command, size) and a body. Whoever asks chooses the byte order, and shows it by
the version; the answer comes in the same order.

Everything inside this module is little-endian, whatever the wire had; `encode` and `decode` take the order, ``<`` or
``>``.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import SourceError

Order = Literal["<", ">"]

VERSION = 1
PREFIX = 8

#: Channels that a header may have: more are a number of something else, and would be a list of as many names.
MAX_CHANNELS = 65_536


class MalformedError(SourceError):
    """Bytes that are no message of the FieldTrip buffer."""


class Command(IntEnum):
    """What is asked, and how it was answered."""

    PUT_HDR = 0x101
    PUT_DAT = 0x102
    PUT_EVT = 0x103
    PUT_OK = 0x104
    PUT_ERR = 0x105
    GET_HDR = 0x201
    GET_DAT = 0x202
    GET_EVT = 0x203
    GET_OK = 0x204
    GET_ERR = 0x205
    FLUSH_HDR = 0x301
    FLUSH_DAT = 0x302
    FLUSH_EVT = 0x303
    FLUSH_OK = 0x304
    FLUSH_ERR = 0x305
    WAIT_DAT = 0x402
    WAIT_OK = 0x404
    WAIT_ERR = 0x405


class DataType(IntEnum):
    """Number formats, by their codes on the wire."""

    CHAR = 0
    UINT8 = 1
    UINT16 = 2
    UINT32 = 3
    UINT64 = 4
    INT8 = 5
    INT16 = 6
    INT32 = 7
    INT64 = 8
    FLOAT32 = 9
    FLOAT64 = 10

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """NumPy's, little-endian; characters count as int8."""
        return _DTYPES[self]


_DTYPES: dict[DataType, np.dtype[np.generic]] = {
    kind: np.dtype(code)
    for kind, code in zip(
        DataType, ("i1", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f4", "<f8"), strict=True
    )
}


class ChunkType(IntEnum):
    """What a chunk of the header holds."""

    UNSPECIFIED = 0
    CHANNEL_NAMES = 1
    CHANNEL_FLAGS = 2
    RESOLUTIONS = 3
    ASCII_KEYVAL = 4
    NIFTI1 = 5
    SIEMENS_AP = 6
    CTF_RES4 = 7
    NEUROMAG_HEADER = 8
    NEUROMAG_ISOTRAK = 9
    NEUROMAG_HPIRESULT = 10


def data_type(code: int) -> DataType:
    """The number format with this code; raises `MalformedError` where there is none."""
    try:
        return DataType(code)
    except ValueError:
        raise MalformedError(f"data type {code} is unknown; expected 0 (char) to 10 (float64)") from None


def swapped(data: bytes, itemsize: int) -> bytes:
    """The same numbers in the other byte order."""
    return data if itemsize == 1 else np.frombuffer(data, f"<u{itemsize}").byteswap().tobytes()


def _unpack(layout: str, order: Order, body: bytes, at: int, what: str) -> tuple[int, ...]:
    size = struct.calcsize(order + layout)
    if at + size > len(body):
        raise MalformedError(f"{what} is cut short: {len(body) - at} bytes; expected at least {size}")
    return struct.unpack_from(order + layout, body, at)


def message(command: int, body: bytes = b"", order: Order = "<") -> bytes:
    """A whole message."""
    return struct.pack(order + "HHI", VERSION, command, len(body)) + body


def prefix(data: bytes) -> tuple[Order, int, int]:
    """Byte order, command and size of the body of a message, from its first 8 bytes.

    Raises
    ------
    MalformedError
        The version is 1 in neither byte order: whoever sent this speaks another protocol.
    """
    for order in ("<", ">"):
        version, command, size = struct.unpack(order + "HHI", data)
        if version == VERSION:
            return order, command, size
    raise MalformedError(f"version {data[:2].hex(' ')}; expected 1 in either byte order")


@dataclass(frozen=True, slots=True)
class HeaderChunk:
    """One chunk of a header: its type, and its bytes (resolutions are little-endian in them)."""

    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What the buffer holds: the fixed part of 24 bytes, and any number of chunks.

    Parameters
    ----------
    n_channels, n_samples, n_events : int
        The counts are of all that was ever put.
    sfreq : float
        Hz.
    data_type : DataType
        Format of the samples.
    chunks : tuple of HeaderChunk
        In the sender's order.
    """

    n_channels: int
    n_samples: int
    n_events: int
    sfreq: float
    data_type: DataType
    chunks: tuple[HeaderChunk, ...] = ()

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return self.n_channels * self.data_type.dtype.itemsize

    def chunk(self, kind: ChunkType) -> bytes | None:
        """Bytes of the first chunk of that type; None where there is none."""
        return next((one.data for one in self.chunks if one.type == kind), None)

    def encode(self, order: Order = "<") -> bytes:
        """As a body of PUT_HDR and of the answer to GET_HDR."""
        chunks = b"".join(
            struct.pack(order + "II", one.type, len(one.data)) + _chunk_swapped(one.type, one.data, order)
            for one in self.chunks
        )
        fixed = (self.n_channels, self.n_samples, self.n_events, self.sfreq, self.data_type, len(chunks))
        return struct.pack(order + "IIIfII", *fixed) + chunks

    @classmethod
    def decode(cls, body: bytes, order: Order = "<") -> "Header":
        """Read a body; raises `MalformedError`."""
        n_channels, n_samples, n_events, sfreq, kind, size = _unpack("IIIfII", order, body, 0, "a header")
        if not 1 <= n_channels <= MAX_CHANNELS:
            raise MalformedError(f"a header of {n_channels} channels; expected 1 to {MAX_CHANNELS}")
        if not 0 < sfreq < float("inf"):
            raise MalformedError(f"a header with a sampling rate of {sfreq} Hz; expected more than 0")
        if size != len(body) - 24:
            raise MalformedError(f"a header claims {size} bytes of chunks and has {len(body) - 24}")
        chunks = []
        at = 24
        while at < len(body):
            type_, length = _unpack("II", order, body, at, "a header's chunk")
            at += 8
            if length > len(body) - at:
                raise MalformedError(f"a chunk of type {type_} claims {length} bytes; {len(body) - at} are left")
            chunks.append(HeaderChunk(type_, _chunk_swapped(type_, body[at : at + length], order)))
            at += length
        return cls(n_channels, n_samples, n_events, sfreq, data_type(kind), tuple(chunks))


def _chunk_swapped(type_: int, data: bytes, order: Order) -> bytes:
    """Resolutions are the only chunk whose numbers follow the byte order of the message."""
    if order == "<" or type_ != ChunkType.RESOLUTIONS or len(data) % 8:
        return data
    return swapped(data, 8)


@dataclass(frozen=True, slots=True)
class Block:
    """Samples: the fixed part of 16 bytes, and the values sample by sample.

    Parameters
    ----------
    n_channels, n_samples : int
        Of this block.
    data_type : DataType
        Format of the values.
    data : bytes
        Little-endian; ``n_samples * n_channels`` values.
    """

    n_channels: int
    n_samples: int
    data_type: DataType
    data: bytes

    @property
    def values(self) -> NDArray[np.generic]:
        """Shape (n, channels), read-only."""
        return np.frombuffer(self.data, self.data_type.dtype).reshape(self.n_samples, self.n_channels)

    @classmethod
    def of(cls, values: NDArray[np.generic], kind: DataType) -> "Block":
        """A block of these values, shape (n, channels), cast to `kind`."""
        n_samples, n_channels = values.shape
        return cls(n_channels, n_samples, kind, np.ascontiguousarray(values, kind.dtype).tobytes())

    def encode(self, order: Order = "<") -> bytes:
        """As a body of PUT_DAT and of the answer to GET_DAT."""
        fixed = struct.pack(order + "IIII", self.n_channels, self.n_samples, self.data_type, len(self.data))
        return fixed + (self.data if order == "<" else swapped(self.data, self.data_type.dtype.itemsize))

    @classmethod
    def decode(cls, body: bytes, order: Order = "<") -> "Block":
        """Read a body; raises `MalformedError`."""
        n_channels, n_samples, code, size = _unpack("IIII", order, body, 0, "a block of samples")
        kind = data_type(code)
        data = body[16:]
        expected = n_channels * n_samples * kind.dtype.itemsize
        if not size == len(data) == expected:
            raise MalformedError(
                f"{n_samples} samples of {n_channels} channels in {kind.name} are {expected} bytes; {size} are "
                f"claimed and {len(data)} came"
            )
        return cls(n_channels, n_samples, kind, data if order == "<" else swapped(data, kind.dtype.itemsize))


@dataclass(frozen=True, slots=True)
class Value:
    """An event's type or its value: text, or numbers.

    Parameters
    ----------
    type : DataType
        CHAR for text.
    data : bytes
        Little-endian.
    """

    type: DataType
    data: bytes

    @classmethod
    def of(cls, value: str | Sequence[float]) -> "Value":
        """Text as CHAR, whole numbers as INT32, others as FLOAT64."""
        if isinstance(value, str):
            return cls(DataType.CHAR, value.encode())
        whole = all(float(one).is_integer() and abs(one) < 2**31 for one in value)
        kind = DataType.INT32 if whole else DataType.FLOAT64
        return cls(kind, np.array(value, kind.dtype).tobytes())

    @property
    def text(self) -> str:
        """As text: numbers without a fraction where they have none, several joined by commas."""
        if self.type is DataType.CHAR:
            return self.data.rstrip(b"\0").decode("utf-8", "replace")
        numbers = np.frombuffer(self.data, self.type.dtype).tolist()
        return ",".join(str(int(n)) if float(n).is_integer() else repr(n) for n in numbers)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a sample.

    Parameters
    ----------
    type, value : Value
        ``stimulus`` and ``left``, say.
    sample : int
        Index of the sample, from 0 (MATLAB's side of FieldTrip counts the same one from 1).
    offset, duration : int
        Samples.
    """

    type: Value
    value: Value
    sample: int
    offset: int = 0
    duration: int = 0

    @property
    def text(self) -> str:
        """``type/value``, or whichever of the two is there."""
        return "/".join(part for part in (self.type.text, self.value.text) if part)


def encode_events(events: Sequence[Event], order: Order = "<") -> bytes:
    """As a body of PUT_EVT and of the answer to GET_EVT."""
    parts = []
    for one in events:
        counts = [n for v in (one.type, one.value) for n in (v.type, len(v.data) // v.type.dtype.itemsize)]
        where = (one.sample, one.offset, one.duration, len(one.type.data) + len(one.value.data))
        parts.append(struct.pack(order + "IIIIiiiI", *counts, *where))
        pair = (one.type, one.value)
        parts += [v.data if order == "<" else swapped(v.data, v.type.dtype.itemsize) for v in pair]
    return b"".join(parts)


def decode_events(body: bytes, order: Order = "<") -> tuple[Event, ...]:
    """Read a body; raises `MalformedError`."""
    events = []
    at = 0
    while at < len(body):
        fixed = _unpack("IIIIiiiI", order, body, at, "an event")
        at += 32
        values = []
        for code, count in (fixed[0:2], fixed[2:4]):
            kind = data_type(code)
            size = count * kind.dtype.itemsize
            if size > len(body) - at:
                raise MalformedError(f"an event claims {size} bytes of type or value; {len(body) - at} are left")
            data = body[at : at + size]
            values.append(Value(kind, data if order == "<" else swapped(data, kind.dtype.itemsize)))
            at += size
        if fixed[7] != sum(len(value.data) for value in values):
            raise MalformedError(f"an event claims {fixed[7]} bytes; its type and value are {values}")
        events.append(Event(values[0], values[1], *fixed[4:7]))
    return tuple(events)


def encode_range(begin: int, stop: int, order: Order = "<") -> bytes:
    """The samples or events `begin` to `stop` (which is left out), as a body of GET_DAT or GET_EVT."""
    return struct.pack(order + "II", begin, stop - 1)


def decode_range(body: bytes, order: Order = "<") -> tuple[int, int]:
    """First index and one past the last; raises `MalformedError`."""
    if len(body) != 8:
        raise MalformedError(f"a selection of {len(body)} bytes; expected 8, or none for all")
    begin, last = struct.unpack(order + "II", body)
    return begin, last + 1


def encode_wait(n_samples: int, n_events: int, milliseconds: int, order: Order = "<") -> bytes:
    """Until there are more samples or more events than these, as a body of WAIT_DAT."""
    return struct.pack(order + "III", n_samples, n_events, milliseconds)


def decode_wait(body: bytes, order: Order = "<") -> tuple[int, int, int]:
    """Samples, events and milliseconds; raises `MalformedError`."""
    if len(body) != 12:
        raise MalformedError(f"a wait of {len(body)} bytes; expected 12")
    n_samples, n_events, milliseconds = struct.unpack(order + "III", body)
    return n_samples, n_events, milliseconds


def encode_counts(n_samples: int, n_events: int, order: Order = "<") -> bytes:
    """What there is, as the body of the answer to WAIT_DAT."""
    return struct.pack(order + "II", n_samples, n_events)


def decode_counts(body: bytes, order: Order = "<") -> tuple[int, int]:
    """Samples and events; raises `MalformedError`."""
    if len(body) != 8:
        raise MalformedError(f"counts of {len(body)} bytes; expected 8")
    n_samples, n_events = struct.unpack(order + "II", body)
    return n_samples, n_events
