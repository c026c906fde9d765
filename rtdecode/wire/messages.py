"""Every message rtdecode sends, version 1.

A message is multipart: ``topic | header | array | array...``. The header is msgpack of one of these structs; each array
is a raw little-endian frame that the header's `arrays` describes, in order. The JSON Schema in ``docs/`` is made from
this file.
"""

from typing import Literal

import msgspec

# What heads give travels as it is, and is part of the wire format.
from rtdecode.heads.outputs import Label as Label
from rtdecode.heads.outputs import Retrieval as Retrieval
from rtdecode.stream.quality import Quality as Quality

VERSION = 1

Status = Literal["ok", "late", "skipped", "gap", "artifact", "failed"]


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """How to read one raw frame: name, numpy dtype (``<f4``, ``<f8``, ``<i4``...) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class WireMarker(msgspec.Struct, frozen=True, kw_only=True):
    """A marker: stamp in seconds of the stream's clock, value, and the stream it came from."""

    stamp: float
    value: str
    stream: str = ""


class WireWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A window that was published before: its name, segment and start, and its marker where it hangs on one."""

    window: str
    segment: int
    start: int
    marker: WireMarker | None = None


class WireChannel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel of a described stream; units are SI."""

    name: str
    type: str
    unit: str
    position: tuple[float, float, float] | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one window went: host-clock seconds, null where a stage did not happen (or in a replay)."""

    stamp: float | None = None
    """Stamp of the window's newest sample; null where that sample never came."""
    uncertainty: float | None = None
    """Half-width of that stamp's error, as far as the clock knows it."""
    arrived: float | None = None
    """That sample was in *acquire*'s hands."""
    received: float | None = None
    """Its chunk was in *decode*'s hands."""
    due: float | None = None
    """The window was complete and conditioned."""
    encoded: float | None = None
    """The encoder was done."""
    published: float | None = None
    """The message was handed to the socket."""
    budget_ms: float | None = None
    """Allowed time from `arrived` to `published`."""
    met: bool | None = None
    """Whether it was."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    v: int = VERSION
    seq: int
    """Counts the messages of this topic from this publisher; a jump is a loss."""
    publisher: int = 0
    """A random number for one publisher's life: when it changes, the publisher was restarted and `seq` began again."""
    arrays: tuple[Array, ...] = ()
    retained: bool = False
    """True when this is the last value, sent again for a late subscriber."""


class Window(_Message, frozen=True, kw_only=True, tag="window"):
    """The one message of one due window. Topic: ``PIPELINE.KIND``."""

    kind: Literal["embedding", "retrieval", "label"]
    pipeline: str
    bundle: str
    """First 12 hex digits of the bundle's id."""
    window: str
    """Which of the pipeline's windows."""
    segment: int
    start: int
    """First conditioned sample, counted from the segment's start."""
    length: int
    sfreq: float
    """Rate of the conditioned samples in Hz."""
    status: Status
    reason: str = ""
    marker: WireMarker | None = None
    retrieval: Retrieval | None = None
    label: Label | None = None
    quality: Quality | None = None
    """What is wrong with its samples: bad channels, and how many samples were filled or blanked; null where nothing."""
    variant: bool = False
    """Made by the pipeline's cheaper variant; `bundle` is then the variant's."""
    fell_back: bool = False
    """Encoded by another provider than the configuration asks for, e.g. on the CPU while a server was gone."""
    ledger: Ledger


class Event(_Message, frozen=True, kw_only=True, tag="event"):
    """Something happened: gap, reconnect, swap, joined, lost, end... Topic: ``PIPELINE.event`` or ``acquire.event``."""

    origin: str
    """Who says so: a pipeline, or ``acquire``."""
    pipeline: str = ""
    """Whose topic it goes out on, where that is not its origin's: a pipeline passes on what *acquire* says."""
    event: str
    text: str
    stamp: float
    details: dict[str, str | int | float | bool | None] = {}
    windows: tuple[WireWindow, ...] = ()
    """``invalidated``: windows that are out and should not be."""


class Description(_Message, frozen=True, kw_only=True, tag="description"):
    """What the publisher's stream is. Sent first to every subscriber. Topic: ``PIPELINE.description``."""

    pipeline: str
    source: str
    sfreq: float
    channels: tuple[WireChannel, ...]
    declared_by_user: tuple[str, ...] = ()
    interpolated: tuple[str, ...] = ()
    """Bad channels that are made of good ones."""
    conditioned_sfreq: float
    group_delay: float
    """Delay of the conditioning chain in seconds."""
    bundle: str
    variant: str = ""
    """Id of the cheaper variant; empty where there is none."""
    engine: dict[str, str | int | tuple[int, ...]]
    items: tuple[str, ...] = ()
    """Names of the gallery or of the classes."""
    clock: str
    """``lsl`` or ``perf_counter``."""
    clock_id: str
    """Host and boot: stamps of two messages may be compared only where it is the same."""
    utc_anchor: tuple[float, float]
    """A host-clock time and the UTC time (seconds since 1970) at that moment."""


class Health(_Message, frozen=True, kw_only=True, tag="health"):
    """Counters of a pipeline: due = ok + late + skipped + gap + artifact + failed. Topic: ``PIPELINE.health``."""

    pipeline: str
    due: int
    counts: dict[str, int]
    dropped: int
    """Messages that at least one slow subscriber did not get."""
    uptime_s: float
    pending: int = 0
    """Windows that are due and wait; not in `due` until their turn has come."""
    missed: int = 0
    """Windows that were decoded and out of budget."""
    variants: int = 0
    """Windows that the cheaper variant made."""
    p50_ms: dict[str, float] = {}
    """What the stages took lately: median in milliseconds. ``queue``: from due to its turn; ``encode``, ``variant``:
    window steps, encoder and heads; ``publish``: from there to the socket."""
    p99_ms: dict[str, float] = {}
    """The same, 99th percentile."""


class Samples(_Message, frozen=True, kw_only=True, tag="samples"):
    """One entry of *acquire*'s log: samples, markers, watermark. Topic: ``acquire.samples``.

    `seq` is the log's own index. Arrays: ``samples`` (<f4, (n, channels)) and ``stamps`` (<f8, (n,)), both absent where
    only markers or the watermark moved.
    """

    segment: int
    first_index: int
    arrived: float
    markers: tuple[WireMarker, ...] = ()
    watermark: float
    end: bool = False
    """The source has ended; nothing follows."""
    uncertainty: float = 0.0
    """Half-width of the stamps' error in seconds, as far as the clock knows it."""
    invalidates: int | None = None
    """A hole was found late: samples from this index on, given earlier, lie behind it and were stamped as if it was not
    there. The jump of `first_index` is that hole's length."""


Message = Window | Event | Description | Health | Samples
