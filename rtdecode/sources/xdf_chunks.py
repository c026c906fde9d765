"""The chunks of an XDF file, and what is no chunk: for reading a session back, and for making a cut file whole.

Format: XDF 1.0 (Kothe, Medine, Grivich 2014 and later; https://github.com/sccn/xdf/wiki/Specifications).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

MAGIC = b"XDF:"
FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, BOUNDARY, STREAM_FOOTER = range(1, 7)
#: The 16 bytes that a boundary chunk holds.
BOUNDARY_ID = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")
#: NumPy's names of the value types of XDF, all little-endian; text has none.
DTYPES = {
    "int8": "<i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float32": "<f4",
    "double64": "<f8",
}
#: More channels than any device has: a header that claims more is damaged, or made to cost memory.
MAX_CHANNELS = 1_000_000
_OF_A_STREAM = frozenset({STREAM_HEADER, SAMPLES, CLOCK_OFFSET, STREAM_FOOTER})


@dataclass(frozen=True, slots=True)
class Block:
    """One whole chunk at bytes `start` to `stop`; `content` is what follows its tag and stream id."""

    tag: int
    stream: int
    content: bytes
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Torn:
    """Bytes `start` to `stop` that are no chunk."""

    start: int
    stop: int


def scan(data: Any) -> Iterator[Block | Torn]:
    """Every chunk of a file in order, and the bytes between that are none.

    After damage reading goes on behind the next boundary chunk.

    Parameters
    ----------
    data : bytes or mmap
        The whole file, beginning with the magic bytes.
    """
    at = len(MAGIC)
    while at < len(data):
        block = _block(data, at)
        if block is None:
            found = data.find(BOUNDARY_ID, at)
            stop = len(data) if found < 0 else found + len(BOUNDARY_ID)
            yield Torn(at, stop)
            at = stop
        else:
            yield block
            at = block.stop


def _block(data: Any, at: int) -> Block | None:
    """The chunk at `at`, or None where there is no whole one."""
    read = read_varlen(data, at)
    if read is None:
        return None
    length, begin = read
    stop = begin + length
    if length < 2 or stop > len(data):
        return None
    tag = int.from_bytes(data[begin : begin + 2], "little")
    content = begin + 2
    stream = 0
    if tag in _OF_A_STREAM:
        if length < 6:
            return None
        stream = int.from_bytes(data[content : content + 4], "little")
        content += 4
    elif tag not in (FILE_HEADER, BOUNDARY):
        return None
    body = bytes(data[content:stop])
    if tag == BOUNDARY and body != BOUNDARY_ID:
        return None
    return Block(tag, stream, body, at, stop)


def read_varlen(data: Any, at: int) -> tuple[int, int] | None:
    """A variable-length integer at `at`: its value and where it ends; None where there is none."""
    size = data[at] if at < len(data) else 0
    if size not in (1, 4, 8) or at + 1 + size > len(data):
        return None
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


@dataclass(slots=True)
class StreamHead:
    """What a stream's header says."""

    name: str
    type: str
    format: str
    n_channels: int
    sfreq: float
    root: ElementTree.Element = field(repr=False)

    def text(self, path: str) -> str:
        """Text of an element below ``info``; empty where there is none."""
        return (self.root.findtext(path) or "").strip()


def read_xml(content: bytes) -> ElementTree.Element:
    """The XML of a header or a footer; raises `ValueError` where it is none."""
    try:
        return ElementTree.fromstring(content.decode("utf-8", "replace"))
    except ElementTree.ParseError as error:
        raise ValueError(f"a header or footer that is no XML ({error})") from None


def read_head(content: bytes) -> StreamHead:
    """A stream's header; raises `ValueError` where it is none."""
    root = read_xml(content)
    form = (root.findtext("channel_format") or "").strip()
    n_channels = int(root.findtext("channel_count") or 0)
    if form not in DTYPES and form != "string":
        raise ValueError(f"a stream of unknown format {form!r}")
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise ValueError(f"a stream of {n_channels} channels")
    return StreamHead(
        name=(root.findtext("name") or "").strip(),
        type=(root.findtext("type") or "").strip(),
        format=form,
        n_channels=n_channels,
        sfreq=float(root.findtext("nominal_srate") or 0),
        root=root,
    )


def sample_dtype(form: str, n_channels: int) -> np.dtype[Any]:
    """One sample of numbers as it lies in a chunk: how many bytes its stamp has (8), the stamp, the values."""
    return np.dtype([("size", "u1"), ("stamp", "<f8"), ("values", DTYPES[form], (n_channels,))])


def read_samples(
    head: StreamHead, content: bytes, previous: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[Any] | list[tuple[str, ...]]]:
    """Stamps and values of a samples chunk.

    Parameters
    ----------
    head : StreamHead
        Whose samples.
    content : bytes
        Of the chunk.
    previous : float
        Stamp of the stream's sample before, from which samples without a stamp of their own count.

    Returns
    -------
    stamps : ndarray of float64, shape (n,)
    values : ndarray of shape (n, channels), or list of n tuples of str

    Raises
    ------
    ValueError
        The content is not so many samples.
    """
    read = read_varlen(content, 0)
    if read is None:
        raise ValueError("a samples chunk without a number of samples")
    n, at = read
    if head.format != "string":
        one = sample_dtype(head.format, head.n_channels)
        if len(content) - at == n * one.itemsize:
            table = np.frombuffer(content, one, n, at)
            if (table["size"] == 8).all():
                return table["stamp"].astype(np.float64), np.ascontiguousarray(table["values"])
    return _walk(head, content, n, at, previous)


def _walk(
    head: StreamHead, content: bytes, n: int, at: int, previous: float
) -> tuple[NDArray[np.float64], NDArray[Any] | list[tuple[str, ...]]]:
    """Sample by sample: text, and numbers whose stamps are not all there."""
    if n > len(content):  # each takes a byte at least
        raise ValueError(f"a samples chunk of {len(content)} bytes for {n} samples")
    step = 1.0 / head.sfreq if head.sfreq > 0 else 0.0
    dtype = np.dtype(DTYPES.get(head.format, "u1"))
    stamps = np.empty(n)
    text: list[tuple[str, ...]] = []
    numbers: list[NDArray[Any]] = []
    for k in range(n):
        size = _byte(content, at)
        at += 1
        if size == 8 and at + 8 <= len(content):
            previous = float(np.frombuffer(content, "<f8", 1, at)[0])
            at += 8
        elif size == 0:
            previous += step
        else:
            raise ValueError("a samples chunk with a stamp of unknown size")
        stamps[k] = previous
        if head.format == "string":
            row = []
            for _ in range(head.n_channels):
                read = read_varlen(content, at)
                if read is None or sum(read) > len(content):
                    raise ValueError("a samples chunk with text that ends early")
                length, at = read
                row.append(content[at : at + length].decode("utf-8", "surrogateescape"))
                at += length
            text.append(tuple(row))
        else:
            numbers.append(np.frombuffer(content, dtype, head.n_channels, at))  # a ValueError where it ends early
            at += head.n_channels * dtype.itemsize
    if at != len(content):
        raise ValueError(f"a samples chunk with {len(content) - at} bytes too many")
    if head.format == "string":
        return stamps, text
    return stamps, np.array(numbers, dtype).reshape(n, head.n_channels)


def _byte(content: bytes, at: int) -> int:
    if at >= len(content):
        raise ValueError("a samples chunk that ends early")
    return content[at]


def read_offset(content: bytes) -> tuple[float, float]:
    """Time (on the sender's clock) and value of a clock offset; raises `ValueError`."""
    time, value = np.frombuffer(content, "<f8")
    return float(time), float(value)
