"""The protobuf wire format, as far as it is read and written here without the ``protobuf`` package.

A message is a sequence of fields, each a number with its type and a value
(https://protobuf.dev/programming-guides/encoding). Which field means what stands where the messages are used.
"""

from collections.abc import Iterable, Iterator
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: Varints hold 64 bits, negative numbers as their two's complement.
_64_BITS: Final = (1 << 64) - 1


class NotProtobufError(Exception):
    """Bytes are no protobuf message, or not the one that was expected."""


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message: number, and a number or bytes; raises `NotProtobufError`."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in {_FIXED32, _FIXED64}:
            length = 4 if wire == _FIXED32 else 8
        else:
            raise NotProtobufError(f"wire type {wire} at byte {at}")
        if at + length > len(data):
            raise NotProtobufError(f"it is cut short: {length} bytes wanted at byte {at} of {len(data)}")
        yield number, data[at : at + length]
        at += length


def text(value: int | memoryview) -> str:
    """A field of text."""
    return bytes(contents(value)).decode(errors="replace")


def contents(value: int | memoryview) -> memoryview:
    """A field of bytes, text or a message; `NotProtobufError` where it is a number."""
    if isinstance(value, int):
        raise NotProtobufError("a number where bytes are expected")
    return value


def integers(value: int | memoryview) -> tuple[int, ...]:
    """The signed integers of a repeated field: one, or several that are packed."""
    if isinstance(value, int):
        return (signed(value),)
    found, at = [], 0
    while at < len(value):
        one, at = _varint(value, at)
        found.append(signed(one))
    return tuple(found)


def signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - (1 << 64) if value >> 63 else value


def number_field(number: int, value: int) -> bytes:
    """A field that holds an integer or a boolean."""
    return _written(number << 3 | _VARINT) + _written(value & _64_BITS)


def bytes_field(number: int, value: bytes | bytearray | memoryview | str) -> bytes:
    """A field that holds bytes, text or a message."""
    data = value.encode() if isinstance(value, str) else value
    return b"".join((_written(number << 3 | _BYTES), _written(len(data)), data))


def packed_field(number: int, values: Iterable[int]) -> bytes:
    """A repeated field of integers."""
    return bytes_field(number, b"".join(_written(value & _64_BITS) for value in values))


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise NotProtobufError(f"a number at byte {at} does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
