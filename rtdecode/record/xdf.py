"""The chunks of XDF 1.0 as bytes (https://github.com/sccn/xdf/wiki/Specifications). Nothing here opens a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import Origin
from rtdecode.sources.xdf_chunks import (
    BOUNDARY,
    BOUNDARY_ID,
    CLOCK_OFFSET,
    FILE_HEADER,
    SAMPLES,
    STREAM_FOOTER,
    STREAM_HEADER,
    read_head,
    sample_dtype,
)

_XML = '<?xml version="1.0"?>'

#: An element: its name, and its text or the elements in it.
Element = tuple[str, "str | Sequence[Element]"]


def varlen(number: int) -> bytes:
    """A variable-length integer: how many bytes follow (1, 4 or 8), then the number."""
    size = 1 if number < 1 << 8 else 4 if number < 1 << 32 else 8
    return bytes([size]) + number.to_bytes(size, "little")


def chunk(tag: int, content: bytes) -> bytes:
    """Length, tag, content."""
    return varlen(2 + len(content)) + tag.to_bytes(2, "little") + content


def _of_stream(tag: int, stream: int, content: bytes) -> bytes:
    return chunk(tag, stream.to_bytes(4, "little") + content)


def xml(elements: Sequence[Element]) -> str:
    """Elements as text; what XML 1.0 cannot hold becomes a question mark."""
    return "".join(
        f"<{name}>{_clean(inside) if isinstance(inside, str) else xml(inside)}</{name}>" for name, inside in elements
    )


def _clean(text: str) -> str:
    allowed = "".join(c if c in "\t\n\r" or (c >= " " and not 0xD800 <= ord(c) <= 0xDFFF) else "?" for c in text)
    return escape(allowed.replace("\ufffe", "?").replace("\uffff", "?"))


def file_header(elements: Sequence[Element] = ()) -> bytes:
    """The chunk that a file begins with; `elements` may say when and by whom it was written."""
    return chunk(FILE_HEADER, f"{_XML}<info><version>1.0</version>{xml(elements)}</info>".encode())


def stream_header(stream: int, origin: Origin, desc: Sequence[Element] = ()) -> bytes:
    """A stream's header: the sender's own description where it has a sound one, else one made of what is known.

    Parameters
    ----------
    stream : int
        Its number in the file.
    origin : Origin
        The stream.
    desc : sequence of Element
        Below ``desc``, where the sender's own description does not hold.
    """
    if origin.xml and _describes(origin):
        return _of_stream(STREAM_HEADER, stream, origin.xml.encode("utf-8", "replace"))
    inside = _desc_of(origin) if origin.xml else xml(desc)
    info = (
        ("name", origin.name),
        ("type", origin.type),
        ("channel_count", str(origin.n_channels)),
        ("nominal_srate", f"{origin.sfreq:.17g}"),
        ("channel_format", origin.format),
        ("source_id", origin.source_id),
        ("hostname", origin.hostname),
    )
    return _of_stream(STREAM_HEADER, stream, f"{_XML}<info>{xml(info)}<desc>{inside}</desc></info>".encode())


def _desc_of(origin: Origin) -> str:
    """What a sender's description says below ``desc``, where it is not a stream's whole one; empty where it is none."""
    try:
        found = ElementTree.fromstring(origin.xml).find("desc")
    except ElementTree.ParseError:
        return ""
    return "" if found is None else "".join(ElementTree.tostring(one, "unicode") for one in found)


def _describes(origin: Origin) -> bool:
    """Whether the sender's own description is one of this stream, so that readers find its samples by it."""
    try:
        head = read_head(origin.xml.encode("utf-8", "replace"))
    except ValueError:
        return False
    return bool(head.name) and (head.format, head.n_channels) == (origin.format, origin.n_channels)


def samples(stream: int, form: str, stamps: NDArray[np.float64], values: NDArray[Any]) -> bytes:
    """A samples chunk of numbers, each with its stamp.

    Parameters
    ----------
    stream : int
        Its number in the file.
    form : str
        ``int8``... ``double64``.
    stamps : ndarray of float64, shape (n,)
        Seconds.
    values : ndarray, shape (n, channels)
        Cast to `form` where they are of another type.
    """
    n, n_channels = values.shape
    dtype = sample_dtype(form, n_channels)
    ahead = stream.to_bytes(4, "little") + varlen(n)
    head = varlen(2 + len(ahead) + n * dtype.itemsize) + SAMPLES.to_bytes(2, "little") + ahead
    # One piece of memory from the start: a wide and fast stream is a hundred megabytes a second, and each copy counts.
    whole = np.empty(len(head) + n * dtype.itemsize, np.uint8)
    whole[: len(head)] = np.frombuffer(head, np.uint8)
    table = whole[len(head) :].view(dtype)
    table["size"] = 8
    table["stamp"] = stamps
    table["values"] = values
    return whole.tobytes()


def text_samples(stream: int, stamps: Iterable[float], rows: Sequence[Sequence[str]]) -> bytes:
    """A samples chunk of text; `rows` are n sequences of as many strings as the stream has channels."""
    parts = [varlen(len(rows))]
    for stamp, row in zip(stamps, rows, strict=True):
        parts.append(b"\x08" + np.float64(stamp).astype("<f8").tobytes())
        for value in row:
            encoded = _encoded(value)
            parts += (varlen(len(encoded)), encoded)
    return _of_stream(SAMPLES, stream, b"".join(parts))


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # bytes that were no UTF-8 go out as they came in
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def clock_offset(stream: int, time: float, value: float) -> bytes:
    """One measurement: at `time` on the sender's clock, `value` takes its stamps to this host's clock."""
    return _of_stream(CLOCK_OFFSET, stream, np.array([time, value], "<f8").tobytes())


def boundary() -> bytes:
    """Where a reader finds its way again after damage."""
    return chunk(BOUNDARY, BOUNDARY_ID)


@dataclass(slots=True)
class Tally:
    """What a stream's footer says: counted while its chunks are written or read."""

    n: int = 0
    first: float = 0.0
    last: float = 0.0
    offsets: list[tuple[float, float]] = field(default_factory=list)

    def count(self, stamps: NDArray[np.float64]) -> None:
        """Samples with these stamps have been written."""
        if len(stamps):
            self.first = self.first if self.n else float(stamps[0])
            self.last = float(stamps[-1])
            self.n += len(stamps)


def stream_footer(stream: int, tally: Tally, more: Mapping[str, str] | None = None) -> bytes:
    """A stream's footer."""
    info: list[Element] = [
        ("first_timestamp", repr(tally.first)),
        ("last_timestamp", repr(tally.last)),
        ("sample_count", str(tally.n)),
        (
            "clock_offsets",
            [("offset", (("time", repr(time)), ("value", repr(value)))) for time, value in tally.offsets],
        ),
        *(more or {}).items(),
    ]
    return _of_stream(STREAM_FOOTER, stream, f"{_XML}<info>{xml(info)}</info>".encode())
