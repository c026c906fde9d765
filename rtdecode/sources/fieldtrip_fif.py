"""FIF headers as Neuromag's real-time interface sends them: little-endian, and without an end.

FIFF itself is big-endian. A file is a chain of tags, each of a kind, a type, a size and where the next one lies, all
int32 (FIFF file format description 1.3, sections 2 and 4).
"""

import struct

import numpy as np

from rtdecode.errors import SourceError

#: Tag kinds: the first of every file, the pointer to a list of all tags, and such a list.
_FILE_ID, _DIR_POINTER, _DIR = 100, 101, 102
#: Tag types by the size of their numbers. Types that are not here hold 4-byte numbers.
_BYTES = {0, 1, 10}
_PAIRS = {2, 7, 13, 14, 16}
_EIGHTS = {5, 18, 19, 21}
#: Channel information: 20 numbers of 4 bytes, and a name of 16 characters.
_CHANNEL, _CHANNEL_NUMBERS = 30, 80
_NEXT_FOLLOWS, _NEXT_NONE = 0, -1


def big_endian(data: bytes, what: str) -> bytes:
    """The same file in FIFF's own byte order, as a plain chain of tags; raises `SourceError` where it is none.

    Parameters
    ----------
    data : bytes
        The file; its last tag may lack its end.
    what : str
        For the message.
    """
    for order in (">", "<"):
        if len(data) >= 16 and struct.unpack_from(order + "i", data)[0] == _FILE_ID:
            break
    else:
        raise SourceError(f"{what} does not begin with a FIF file's identity; expected a FIF file")
    tags = []
    at = 0
    while at + 16 <= len(data):
        kind, type_, size, following = struct.unpack_from(order + "iiii", data, at)
        body = data[at + 16 : at + 16 + size]
        if size < 0 or len(body) != size:
            raise SourceError(f"{what} is cut short in the tag at byte {at} ({size} bytes are claimed)")
        if kind not in (_DIR_POINTER, _DIR):  # both tell where tags lay, and they may lie elsewhere now
            tags.append((kind, type_, body if order == ">" else _swapped(type_, body)))
        if following not in (_NEXT_FOLLOWS, _NEXT_NONE) and following <= at:
            raise SourceError(f"{what} has a tag at byte {at} that leads back to byte {following}")
        if following == _NEXT_NONE:
            break
        at = following or at + 16 + size
    # A reader expects the pointer second; -1 says that there is no list.
    tags.insert(1, (_DIR_POINTER, 3, struct.pack(">i", -1)))
    nexts = [_NEXT_FOLLOWS] * (len(tags) - 1) + [_NEXT_NONE]
    return b"".join(
        struct.pack(">iiii", kind, type_, len(body), following) + body
        for (kind, type_, body), following in zip(tags, nexts, strict=True)
    )


def _swapped(type_: int, body: bytes) -> bytes:
    base = type_ & 0xFFFF  # above it stand the flags of a matrix, whose dimensions are int32 behind its values
    if type_ >> 16:
        behind = 4 * (struct.unpack_from("<i", body, len(body) - 4)[0] + 1) if len(body) >= 4 else 0
        values, dimensions = body[: len(body) - behind], body[len(body) - behind :]
        return _numbers(base, values) + _numbers(3, dimensions)
    if base == _CHANNEL:
        return _numbers(3, body[:_CHANNEL_NUMBERS]) + body[_CHANNEL_NUMBERS:]
    return _numbers(base, body)


def _numbers(base: int, body: bytes) -> bytes:
    width = 1 if base in _BYTES else 2 if base in _PAIRS else 8 if base in _EIGHTS else 4
    usable = len(body) - len(body) % width
    return np.frombuffer(body[:usable], f"<u{width}").byteswap().tobytes() + body[usable:]
