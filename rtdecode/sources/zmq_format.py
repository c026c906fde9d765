"""The minimal format of the ``zmq`` source: ``topic? | JSON header | raw frame``. docs/zmq-source.md is its reference.

Reading trusts nothing: whatever the frames hold, the outcome is a message, or a `MalformedError` that says what is
wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import SourceError

VERSION: Literal[1] = 1

#: Number formats, and how XDF names them: whole numbers with a sign and floats, of either byte order.
DTYPES = {
    "<f4": "float32", ">f4": "float32", "<f8": "double64", ">f8": "double64", "|i1": "int8", "<i2": "int16",
    ">i2": "int16", "<i4": "int32", ">i4": "int32", "<i8": "int64", ">i8": "int64",
}  # fmt: skip

#: Largest frame, header, and message in these terms. libzmq ends a connection that announces a larger frame.
MAX_FRAME_BYTES = 8 << 20
MAX_HEADER_BYTES = 512 << 10
MAX_FRAMES = 3
MAX_CHANNELS = 4096
MAX_RATE = 1e6
#: Largest index: exact in a float64, and centuries of samples.
MAX_INDEX = 2**53

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_INDEX)]
Run = Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class MalformedError(SourceError):
    """A message that is none of this format."""


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    v: Literal[1]
    stream: Name
    """The stream's name."""
    run: Run
    """Anything that is another at each start of the sender."""


class Samples(_Header, frozen=True, kw_only=True, tag="samples"):
    """Consecutive samples; the raw frame holds them, row by row, shape (n, channels)."""

    index: Index
    """Number of the first sample since the start of the sender; samples that were lost are counted."""
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_FRAME_BYTES)]
    dtype: str
    sfreq: float
    channels: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=MAX_CHANNELS)]
    """Names."""
    unit: Text = ""
    """Of all channels, or `units` for each."""
    units: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_CHANNELS)] = ()
    type: Text = ""
    """Of all channels, or `types` for each; EEG where absent."""
    types: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_CHANNELS)] = ()
    stamp: float | None = None
    """Sender's time of the first sample in seconds."""
    clock: Text = ""
    """Which clock `stamp` was read from."""

    @property
    def declared(self) -> tuple[Any, ...]:
        """What must not change from message to message."""
        return (
            self.sfreq, self.dtype, self.channels, self.unit, self.units, self.type, self.types, self.clock,
            self.stamp is None,
        )  # fmt: skip


class Mark(_Header, frozen=True, kw_only=True, tag="marker"):
    """A marker, at a sample or at a time."""

    value: Text
    index: Index | None = None
    """Number of the sample that it falls on."""
    stamp: float | None = None
    """Or its time on the clock of the samples' `stamp`."""


class End(_Header, frozen=True, kw_only=True, tag="end"):
    """Nothing more will come."""


Header = Samples | Mark | End

_decoder = msgspec.json.Decoder(Header)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A header, and the samples that came with it, shape (n, channels); None with a marker or an end."""

    header: Header
    values: NDArray[np.generic] | None = None


def read_message(frames: Sequence[bytes]) -> Message:
    """The message that the frames hold.

    Parameters
    ----------
    frames : sequence of bytes
        All that belong together; a first one that does not begin with ``{`` is a topic, and passed over.

    Raises
    ------
    MalformedError
        They hold none.
    """
    if len(frames) > 1 and frames[0][:1] != b"{":
        frames = frames[1:]
    if not 1 <= len(frames) <= 2:
        raise MalformedError(f"a message is a header and at most one raw frame, behind a topic; got {len(frames)} more")
    if len(frames[0]) > MAX_HEADER_BYTES:
        raise MalformedError(f"the header has {len(frames[0])} bytes; at most {MAX_HEADER_BYTES} are read")
    try:
        header = _decoder.decode(frames[0])
    except (ValueError, RecursionError) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise MalformedError(f"the header is not understood: {_shorten(str(error))}") from None
    if isinstance(header, Samples):
        return Message(header, _values(header, frames[1:]))
    if len(frames) > 1:
        raise MalformedError("a raw frame came with a header that is not of kind 'samples'")
    if isinstance(header, Mark) and (header.index is None) == (header.stamp is None):
        raise MalformedError("a marker has `index` or `stamp`: the sample or the time that it falls on, not both")
    if isinstance(header, Mark) and header.stamp is not None:
        _check_stamp(header.stamp)
    return Message(header)


def _values(header: Samples, frames: Sequence[bytes]) -> NDArray[np.generic]:
    n_channels = len(header.channels)
    if header.dtype not in DTYPES:
        raise MalformedError(f"dtype is {_shorten(header.dtype)!r}; expected one of {', '.join(DTYPES)}")
    if not 0 < header.sfreq <= MAX_RATE:
        raise MalformedError(f"sfreq is {header.sfreq:g}; expected Hz, up to {MAX_RATE:g}")
    for key, each in (("units", header.units), ("types", header.types)):
        if each and len(each) != n_channels:
            raise MalformedError(f"{key} has {len(each)} entries, channels has {n_channels}; expected as many")
    for key, whole, each in (("unit", header.unit, header.units), ("type", header.type, header.types)):
        if whole and each:
            raise MalformedError(f"both {key} and {key}s are given; expected one of them")
    if header.stamp is not None:
        _check_stamp(header.stamp)
    if not frames:
        raise MalformedError("the raw frame with the samples is missing")
    dtype = np.dtype(header.dtype)
    expected = header.n * n_channels * dtype.itemsize
    if len(frames[0]) != expected:
        raise MalformedError(
            f"{header.n} samples of {n_channels} channels of {header.dtype} take {expected} bytes; "
            f"the raw frame has {len(frames[0])}"
        )
    # Native order, in memory of its own where it was not: everything behind reads it more than once.
    return np.frombuffer(frames[0], dtype).reshape(header.n, n_channels).astype(dtype.newbyteorder("="), copy=False)


def _check_stamp(stamp: float) -> None:
    # A century, and the finest step that a float64 still tells there is far below a sample.
    if not (math.isfinite(stamp) and abs(stamp) < 1e10):
        raise MalformedError(f"stamp is {stamp:g}; expected seconds")


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


def write_message(header: Header, values: NDArray[np.generic] | None = None, topic: str = "") -> list[bytes]:
    """Frames of a message; `values` in the header's dtype, shape (n, channels)."""
    frames = [topic.encode()] if topic else []
    frames.append(_encoder.encode(header))
    if values is not None:
        assert isinstance(header, Samples)
        frames.append(np.ascontiguousarray(values, header.dtype).tobytes())
    return frames
