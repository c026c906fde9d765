"""What *decode* asks *acquire*'s log, and how log entries travel."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import WireError
from rtdecode.signal import Batch, Chunk, Marker, StreamInfo
from rtdecode.wire.framing import decode, encode_header
from rtdecode.wire.messages import VERSION, Array, Samples, WireMarker

SAMPLES_TOPIC = "acquire.samples"
_SAMPLES_TOPIC = SAMPLES_TOPIC.encode()
_DESCRIBED = ("samples", "<f4", "stamps", "<f8")
_samples_decoder = msgspec.msgpack.Decoder(Samples)
EVENT_TOPIC = "acquire.event"

#: Bytes of samples in one answer of the log; small enough that a reader looks up in between.
PAGE_BYTES = 4_000_000


def topic(kind: str, source: str) -> bytes:
    """Where a source's samples or events go out: `kind`, with the source's name where it has one.

    No name holds a dot. A subscription to ``s1`` hears ``s10`` too: whoever receives compares whole topics.
    """
    return f"{kind}.{source}".encode() if source else kind.encode()


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="ask"):
    pass


class _OfSource(_Ask, frozen=True, kw_only=True):
    source: str = ""
    """Of which source; one that is alone need not be named."""


class Info(_OfSource, tag="info", frozen=True, kw_only=True):
    """Which stream is it, which run of *acquire*, and what does the log hold."""


class Since(_OfSource, tag="since", frozen=True, kw_only=True):
    """The log's entries from `seq` on, as the very frames that were published (a page of them)."""

    seq: int
    max_bytes: int = PAGE_BYTES


class Follow(_OfSource, tag="follow", frozen=True, kw_only=True):
    """`name` is ready to decode: a recording may start, and the log stays at the end until it has left.

    One that is elsewhere (`remote`) is not waited for at the start. Where its windows are due at raw samples of a
    segment that are `first` and whole numbers of `every` behind it, it need not hear of others before (`every` 0:
    of all, at once): `lead` seconds before those can be here is soon enough for the ones before.
    """

    name: str
    every: int = 0
    first: int = 0
    lead: float = 1.0
    remote: bool = False


class Leave(_OfSource, tag="leave", frozen=True, kw_only=True):
    """`name` needs nothing more."""

    name: str


class Clock(_Ask, tag="clock", frozen=True, kw_only=True):
    """What time is it there. Answered with a `Reading`."""


LogRequest = Info | Since | Follow | Leave | Clock


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Host time at which the question was read, and at which the answer was given; the clock's name."""

    received: float
    answered: float
    clock: str


class LogState(msgspec.Struct, frozen=True, kw_only=True):
    """Part of every answer. `run` is another for each start of *acquire*; `first` to `next` are entries that follow."""

    run: int
    oldest: int
    next: int
    first: int = 0
    counts: tuple[int, ...] = ()
    """Frames of each entry that follows."""
    info: StreamInfo | None = None
    """The stream, where it was asked for."""


def read_state(result: dict[str, Any]) -> LogState:
    """The log's answer, checked; raises `WireError`."""
    try:
        return msgspec.convert(result, LogState)
    except msgspec.ValidationError as error:
        raise WireError(f"acquire's log answers in another version's words: {error}") from None


def samples_frames(
    batch: Batch, run: int, seq: int, position: tuple[int, int], now: float, *, end: bool = False
) -> list[bytes]:
    """A batch as the frames of a `Samples` message.

    Parameters
    ----------
    batch : Batch
        What the source gave.
    run : int
        Another for each start of *acquire*.
    seq : int
        Number in the log.
    position : tuple of int
        Segment and next index, for a batch without samples.
    now : float
        Host time, the arrival of a batch without samples.
    end : bool
        The source has ended.
    """
    chunk = batch.chunk
    arrays: tuple[Array, ...] = ()
    payload: list[bytes] = []
    if chunk is not None:
        n, n_channels = chunk.samples.shape
        arrays = (
            Array(name="samples", dtype="<f4", shape=(n, n_channels)),
            Array(name="stamps", dtype="<f8", shape=(n,)),
        )
        payload = [chunk.samples.astype("<f4", copy=False).tobytes(), chunk.stamps.astype("<f8", copy=False).tobytes()]
    # Straight to the header, without `wire.framing.encode`: each chunk passes here before anybody can decode it, and
    # what `encode` finds out about topic and arrays is known.
    message = Samples(
        seq=seq,
        publisher=run,
        arrays=arrays,
        segment=position[0] if chunk is None else chunk.segment,
        first_index=position[1] if chunk is None else chunk.first_index,
        arrived=now if chunk is None else chunk.arrived,
        markers=tuple(WireMarker(stamp=m.stamp, value=m.value, stream=m.stream) for m in batch.markers),
        watermark=batch.watermark,
        end=end,
        uncertainty=0.0 if chunk is None else float(chunk.uncertainty),
        invalidates=None if chunk is None else chunk.invalidates,
    )
    return [_SAMPLES_TOPIC, encode_header(message), *payload]


def read_samples(frames: Sequence[bytes]) -> tuple[Samples, Batch]:
    """The message and the batch again; raises `WireError`."""
    message, arrays = _own_arrays(frames) or _any_arrays(frames)
    chunk = None
    if arrays:
        chunk = Chunk(
            samples=arrays["samples"].astype(np.float32, copy=False),
            stamps=arrays["stamps"].astype(np.float64, copy=False),
            first_index=message.first_index,
            segment=message.segment,
            arrived=message.arrived,
            uncertainty=message.uncertainty,
            invalidates=message.invalidates,
        )
    markers = [Marker(marker.stamp, marker.value, marker.stream) for marker in message.markers]
    return message, Batch(chunk, markers, message.watermark)


def _own_arrays(frames: Sequence[bytes]) -> tuple[Samples, dict[str, NDArray[Any]]] | None:
    """What `samples_frames` made of a chunk, in a fraction of the time that any message takes; None for all else."""
    if len(frames) != 4 or frames[0] != _SAMPLES_TOPIC:
        return None
    try:
        message = _samples_decoder.decode(frames[1])
        first, second = message.arrays
        if message.v != VERSION or (first.name, first.dtype, second.name, second.dtype) != _DESCRIBED:
            return None
        samples = np.frombuffer(frames[2], "<f4").reshape(first.shape)
        stamps = np.frombuffer(frames[3], "<f8").reshape(second.shape)
    except ValueError:  # msgspec's errors are ValueErrors; `_any_arrays` says what is wrong
        return None
    return message, {"samples": samples, "stamps": stamps}


def _any_arrays(frames: Sequence[bytes]) -> tuple[Samples, dict[str, NDArray[Any]]]:
    topic, message, arrays = decode(frames)
    if not isinstance(message, Samples):
        raise WireError(f"{topic}: expected samples")
    if arrays and set(arrays) != {"samples", "stamps"}:
        raise WireError(f"{topic}: expected the arrays samples and stamps; got {', '.join(sorted(arrays))}")
    return message, arrays


def split(frames: Sequence[bytes], counts: Sequence[int]) -> Iterator[Sequence[bytes]]:
    """The entries of an answer, one by one."""
    at = 0
    for count in counts:
        yield frames[at : at + count]
        at += count
