"""The sections of the file, and what each key may hold."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PrivateAttr,
    Tag,
    field_validator,
    model_validator,
)

from rtdecode.config.problems import suggest
from rtdecode.errors import ConfigError
from rtdecode.sources.declare import Declare
from rtdecode.sources.trigger import TriggerRule
from rtdecode.stream.window import Locked, Sliding, WindowSpec

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[PositiveFloat, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SessionConfig(_Section):
    """What this run is called, and when it ends."""

    name: str = Field(default="session", pattern=r"^[A-Za-z0-9_-]+$", max_length=64)
    """Up to 64 letters, digits, ``-`` and ``_``; names the runtime folder and the log lines."""
    exit_at_end: bool = True
    """End when the source has ended and everything decoded has been published; otherwise wait for SIGTERM."""
    hang_s: float = Field(default=10.0, ge=2.0, le=3600.0, allow_inf_nan=False)
    """A process whose main loop has not turned for so many seconds hangs, and is replaced. Longer than the longest
    encode, and than anything that a loaded machine does to a process that is well."""
    start_s: float = Field(default=300.0, ge=1.0, le=86_400.0, allow_inf_nan=False)
    """Seconds that a process may take to be ready, beyond the source's `timeout_s`; an engine may have to be built."""


class ProcessesConfig(_Section):
    """How many processes a session has, and whether they may be given more than they can do."""

    acquire: int | None = Field(default=None, ge=1, le=256)
    """Processes that own sources, each a row of them; one for every 64 sources where absent."""
    decode: int | None = Field(default=None, ge=1, le=256)
    """Processes that run pipelines, each a row of them. Where absent: one for each pipeline for up to 8 of them (a
    crash costs one pipeline), as many as there are CPUs for more (a crash costs all that are in it)."""
    admission: Literal["refuse", "warn", "off"] | None = None
    """A pipeline whose predicted load, with those before it, is more than its process or the machine can do: ``refuse``
    (an error, with the figures), ``warn``, or ``off``. Where absent: ``refuse`` where pipelines share a process, and
    ``warn`` where none do."""


class ProcessRealtime(_Section):
    """Real-time settings of one kind of process."""

    priority: int = Field(default=0, ge=0, le=99)
    """``SCHED_FIFO`` with this priority; 0: ordinary scheduling."""
    lock_memory: bool = False
    """Keep what has been touched in memory (``mlockall``)."""
    cpus: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Run on these CPUs alone; on all where empty."""


class AcquireRealtime(ProcessRealtime):
    """*acquire*. Its priority is for live sources; a recording or a simulation has ordinary scheduling."""

    priority: int = Field(default=5, ge=0, le=99)
    """``SCHED_FIFO`` with this priority, for all its threads; 0: ordinary scheduling."""
    lock_memory: bool = True
    """Keep what has been touched in memory (``mlockall``)."""


class DecodeRealtime(ProcessRealtime):
    """Each *decode*. An encoder may use a core for long: a priority, below *acquire*'s, needs a core to spare."""


class RealtimeConfig(_Section):
    """Real-time settings, used where the system permits them. Linux alone."""

    policy: Literal["off", "try", "require"] = "try"
    """``try``: what is refused is said once, with what to grant; ``require``: it is an error; ``off``: nothing is asked
    for."""
    acquire: AcquireRealtime = AcquireRealtime()
    """The process that owns the source."""
    decode: DecodeRealtime = DecodeRealtime()
    """Each pipeline's process."""


class DeclareConfig(_Section):
    """What the stream leaves undeclared. It is published, flagged as declared by the user."""

    unit: str = ""
    """Unit of the data channels that declare none: ``V``, ``mV``, ``uV``, ``nV``, ``T``, ``fT``..."""
    names: tuple[str, ...] = ()
    """Names of all channels, in the order of the stream's columns, where the stream has none."""
    type: str = ""
    """MNE channel type of the channels that declare none: ``eeg``, ``mag``, ``grad``, ``seeg``..."""

    def declare(self) -> Declare:
        """As the sources take it."""
        return Declare(unit=self.unit, names=self.names, type=self.type)


class TriggerConfig(_Section):
    """How a trigger channel becomes markers."""

    channel: str
    """Name of the channel: ``STI101``, ``Status``, ``UPPT001``..."""
    mask: int = Field(default=0xFFFF, ge=1, le=0xFFFFFFFF)
    """Bits that count: 255 for 8 bits, 65535 for 16."""
    edge: Literal["rising", "falling", "change"] = "rising"
    """``rising``: a code other than 0 begins; ``falling``: it ends; ``change``: any code begins, 0 included."""
    debounce_s: NonNegative = 0.0
    """A code shorter than this many seconds gives none."""
    delay_s: Finite = 0.0
    """Seconds from the code to what it stands for (a screen's lag, say); added to the marker's stamp."""

    def rule(self) -> TriggerRule:
        """As the sources take it."""
        return TriggerRule(
            channel=self.channel, mask=self.mask, edge=self.edge, debounce_s=self.debounce_s, delay_s=self.delay_s
        )


class StreamMatch(_Section):
    """Which LSL stream: each given key must match."""

    name: str | None = None
    """Stream name."""
    type: str | None = None
    """Stream type."""
    source_id: str | None = None
    """The sender's own identity."""

    @model_validator(mode="after")
    def _one_key(self) -> "StreamMatch":
        if self.name is None and self.type is None and self.source_id is None:
            raise ValueError("matches every stream; expected at least one of name, type and source_id")
        return self


class _Watched(_Section):
    stall_s: Positive | None = None
    """Seconds without samples after which the source counts as stalled; three of its chunk periods (which are learned;
    what *acquire* takes together is one chunk), and 0.1 s at least, where absent."""


class _Source(_Watched):
    declare: DeclareConfig = DeclareConfig()
    """What the stream leaves undeclared."""
    triggers: tuple[TriggerConfig, ...] = ()
    """Trigger channels that become markers."""


class LslConfig(_Source, StreamMatch):
    """A live stream over LSL. At least one of `name`, `type` and `source_id`."""

    kind: Literal["lsl"]
    """``lsl``"""
    timeout_s: Positive = 10.0
    """Seconds to look for the stream, at the start and after a loss, before giving up."""
    lateness_s: NonNegative = 0.5
    """How late a marker may come after the samples of its time; shorter marker-locked windows wait that long for it."""
    end_when_lost: bool = False
    """End when the stream is lost, instead of looking for it again."""
    markers: tuple[StreamMatch, ...] = ()
    """Marker streams that go with it."""


class FieldTripConfig(_Source):
    """A live stream from a FieldTrip buffer."""

    kind: Literal["fieldtrip"]
    """``fieldtrip``"""
    host: str = Field(pattern=r"^\S+$")
    """Name or address of the machine that the buffer runs on."""
    port: int = Field(default=1972, ge=1, le=65535)
    """The buffer's TCP port."""
    sensors: Path | None = None
    """What the channels are, where the buffer's header does not say: a FIF file, or a .tsv file with the columns name,
    type and units (BIDS). Relative to the configuration's folder."""
    events: bool = True
    """Take the buffer's events as markers (``type/value``)."""
    timeout_s: Positive = 10.0
    """Seconds to look for the buffer, and for a header on it, at the start and after a loss, before giving up."""
    lateness_s: NonNegative = 0.5
    """How late an event may be put after its sample; shorter marker-locked windows wait that long for it."""
    catch_up_s: Positive = 2.0
    """Of samples that waited on the buffer, the newest seconds that are decoded; older ones are recorded only."""
    end_when_lost: bool = False
    """End when the buffer is lost, instead of looking for it again."""

    @field_validator("sensors")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.name.endswith((".fif", ".fif.gz", ".tsv")):
            raise ValueError(f"is {str(value)!r}; expected a FIF file (.fif, .fif.gz) or a table (.tsv)")
        return value


class ZmqConfig(_Source):
    """A live stream over ZeroMQ: the minimal format, or another machine's *acquire*."""

    kind: Literal["zmq"]
    """``zmq``"""
    endpoint: str
    """Where: ``tcp://HOST:PORT`` or ``ipc://PATH``; with ``format = "rtdecode"`` the other machine's `bus.share`."""
    format: Literal["json", "rtdecode"] = "json"
    """``json``: a JSON header and a raw frame (docs/zmq-source.md); ``rtdecode``: another machine's *acquire*."""
    stream: str | None = Field(default=None, min_length=1)
    """Name of the stream; the first one that comes where absent. Of ``json`` alone, as are the next three."""
    bind: bool = False
    """Listen at `endpoint`, instead of connecting to it."""
    pattern: Literal["sub", "pull"] = "sub"
    """``sub`` where senders have a PUB socket, ``pull`` where they have a PUSH socket."""
    topic: str = ""
    """Prefix of the topics that are taken, where senders put one first."""
    timeout_s: Positive = 10.0
    """Seconds to wait for the first samples, and for the sender after a loss, before giving up."""
    lateness_s: NonNegative = 0.5
    """How late a marker may come after the samples of its time; shorter marker-locked windows wait that long for it. Of
    ``json`` alone."""
    end_when_lost: bool = False
    """End when the sender is lost, instead of waiting for it."""

    @model_validator(mode="after")
    def _own_keys(self) -> "ZmqConfig":
        if self.format == "rtdecode":
            strange = {"stream", "bind", "pattern", "topic", "lateness_s", "declare"} & self.model_fields_set
            if strange:
                raise ValueError(f"has {', '.join(sorted(strange))} with format = 'rtdecode'; expected none of these")
        if self.pattern == "pull" and self.topic:
            raise ValueError("has a topic with pattern = 'pull', which takes everything; expected pattern = 'sub'")
        return self


class RecordingConfig(_Source):
    """A recorded file, played at a steady rate."""

    kind: Literal["recording"]
    """``recording``"""
    path: Path
    """FIF, EDF, BDF, BrainVision, EEGLAB, GDF or XDF; relative to the configuration's folder."""
    speed: Positive = 1.0
    """Multiples of real time. At 1 samples are stamped on the host clock, otherwise in the recording's own time."""
    stream: str | None = None
    """XDF only: name or type of the stream that is decoded, where the file holds several."""
    markers: tuple[str, ...] | None = None
    """XDF only: names of the marker streams; all of irregular rate where absent."""


class SimulatedConfig(_Watched):
    """A simulated subject who looks at things."""

    kind: Literal["simulated"]
    """``simulated``"""
    seed: int = Field(default=0, ge=0)
    """The session: same seed, same data."""
    subject: int = Field(default=0, ge=0)
    """The head."""
    sfreq: Positive = 250.0
    """Hz."""
    soa: Positive = 1.0
    """Mean seconds from one stimulus to the next."""
    seconds: Positive | None = None
    """Length; endless where absent."""
    speed: Positive = 1.0
    """Multiples of real time."""


class BusConfig(_Section):
    """Between *acquire* and *decode*."""

    dir: Path | None = None
    """Folder of the ``ipc://`` endpoints; a private folder (mode 0700) under ``XDG_RUNTIME_DIR`` where absent."""
    tcp: str | None = Field(default=None, pattern=r"^tcp://(127\.0\.0\.1|localhost):[0-9]+$")
    """Loopback base address in place of ``ipc://``, e.g. ``tcp://127.0.0.1:5600``: the endpoints take this port and the
    next ones. The default on Windows and macOS, with a port made from the file's path."""
    log_seconds: float = Field(default=60.0, ge=0.1, le=86_400.0, allow_inf_nan=False)
    """How far back *decode* can ask for what it missed."""
    log_mb: float = Field(default=256.0, ge=0.1, le=1e6, allow_inf_nan=False)
    """Largest size of that log in megabytes."""
    share: str | None = None
    """Where another machine's rtdecode may read the samples: ``tcp://HOST:PORT``; its questions go to the next port.
    Neither encrypted nor authenticated: a network of your own, or a tunnel."""
    drain_s: Positive = 5.0
    """How long *acquire* waits at its end for decoders that still ask for samples."""

    @model_validator(mode="after")
    def _one_address(self) -> "BusConfig":
        if self.dir is not None and self.tcp is not None:
            raise ValueError("has both dir and tcp; expected one of them")
        return self


_Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]*$", max_length=48)]  # four of them are one file's name


class RecorderConfig(_Section):
    """What *acquire* records, and where. Nothing is recorded where the section is absent."""

    dir: Path
    """Folder of the recordings; relative to the configuration's folder. Made if it is not there."""
    subject: _Label = ""
    """BIDS label (letters and digits), names the file: ``sub-``."""
    session: _Label = ""
    """BIDS label: ``ses-``."""
    task: _Label = "rtdecode"
    """BIDS label: ``task-``."""
    acquisition: _Label = ""
    """BIDS label: ``acq-``."""
    run: int | None = Field(default=None, ge=1, le=1_000_000)
    """Number of the run; the first that is free where absent. A file that exists is never overwritten: what goes on in
    the same run gets ``split-02`` and so on."""
    start: bool = True
    """Record from the start; otherwise from ``rtdecode control SESSION record start`` on."""
    results: bool = True
    """Record what the pipelines publish as well."""
    flush_s: float = Field(default=0.25, gt=0, le=0.4, allow_inf_nan=False)
    """Seconds between writes to the operating system: what the death of the process may cost."""
    sync_s: NonNegative = 10.0
    """Seconds between writes to the medium (``fdatasync``): what a power cut may cost. 0 leaves it to the system, which
    takes half a minute or more."""
    min_free_mb: NonNegative = 50.0
    """Megabytes that stay free on the disk: below them recording pauses as on a full disk."""
    queue_mb: float = Field(default=64.0, ge=0.1, le=1e6, allow_inf_nan=False)
    """Megabytes that wait for a slow or full disk before samples are left unrecorded (and counted)."""


class SlidingWindow(_Section):
    """A window of `length` seconds every `hop` seconds."""

    length: Positive
    """Seconds."""
    hop: Positive
    """Seconds from one window's start to the next one's."""
    name: str = Field(default="sliding", pattern=r"^[A-Za-z0-9_-]+$")
    """Tells the pipeline's windows apart."""

    def spec(self) -> WindowSpec:
        """As the decoder takes it."""
        return Sliding(length=self.length, hop=self.hop, name=self.name)


class LockedWindow(_Section):
    """A window over [tmin, tmax) seconds around each marker that matches."""

    tmin: Finite
    """Seconds from the marker; negative is before it."""
    tmax: Finite
    """Seconds from the marker."""
    markers: tuple[str, ...] = Field(min_length=1)
    """Patterns of marker values, with shell wildcards."""
    name: str = Field(default="locked", pattern=r"^[A-Za-z0-9_-]+$")
    """Tells the pipeline's windows apart."""

    @model_validator(mode="after")
    def _forward(self) -> "LockedWindow":
        if not self.tmax > self.tmin:
            raise ValueError(f"tmax is {self.tmax:g} s; expected more than tmin, {self.tmin:g} s")
        return self

    def spec(self) -> WindowSpec:
        """As the decoder takes it."""
        return Locked(tmin=self.tmin, tmax=self.tmax, markers=self.markers, name=self.name)


def _window_kind(value: Any) -> str:
    if isinstance(value, LockedWindow):
        return "locked"
    keys = set(value) if isinstance(value, Mapping) else set()
    return "locked" if keys & {"tmin", "tmax", "markers"} and not keys & {"length", "hop"} else "sliding"


WindowConfig = Annotated[
    Annotated[SlidingWindow, Tag("sliding")] | Annotated[LockedWindow, Tag("locked")], Discriminator(_window_kind)
]


class GapsConfig(_Section):
    """What is done about missing samples. By default nothing: windows that touch a hole are ``gap``."""

    fill_ms: float = Field(default=0.0, ge=0, le=10_000, allow_inf_nan=False)
    """Holes of up to so many milliseconds are filled, and the windows that hold such samples decoded and flagged."""
    method: Literal["hold", "linear", "zero"] = "linear"
    """With the last sample, with a straight line to the next one, or with zeros."""


class BlankConfig(_Section):
    """Samples around markers that are replaced before the filters see them: a stimulation artefact, say."""

    markers: tuple[str, ...] = Field(min_length=1)
    """Patterns of marker values, with shell wildcards."""
    tmin: float = Field(ge=-60, le=60, allow_inf_nan=False)
    """Seconds from the marker; negative is before it. Samples wait for markers that long."""
    tmax: float = Field(ge=-60, le=60, allow_inf_nan=False)
    """Seconds from the marker."""
    method: Literal["hold", "linear", "zero"] = "linear"
    """With the last sample before, with a straight line to the next one after, or with zeros."""
    channels: tuple[str, ...] = ()
    """Which of the bundle's channels; all where absent."""

    @model_validator(mode="after")
    def _forward(self) -> "BlankConfig":
        if not self.tmax > self.tmin:
            raise ValueError(f"tmax is {self.tmax:g} s; expected more than tmin, {self.tmin:g} s")
        return self


class QualityConfig(_Section):
    """When a channel is bad within a window. Found on the samples before conditioning, and published."""

    flat: float | dict[str, float] | None = None
    """Flat below this peak-to-peak value, in V (or T, T/m); by channel type: ``{ mag = 1e-14, grad = 1e-12 }``."""
    clip: int | None = Field(default=None, ge=2, le=100_000)
    """Clipped where so many samples in a row stand at the window's highest or lowest value."""
    range: float | dict[str, float] | None = None
    """Out of range beyond this absolute value; as for `flat`."""
    max_bad: int = Field(default=0, ge=0)
    """Windows with more bad channels than this are ``artifact``. Samples that are NaN or infinite make a channel bad,
    whatever else is looked for."""

    @field_validator("flat", "range", mode="before")
    @classmethod
    def _limits(cls, value: Any) -> Any:
        for one in value.values() if isinstance(value, Mapping) else [value]:
            number = isinstance(one, int | float) and not isinstance(one, bool)
            if one is not None and not (number and 0 < one < math.inf):
                raise ValueError(f"is {value!r}; expected a value above 0 in SI units, or one for each channel type")
            if one is not None and one >= 1:
                raise ValueError(f"is {one!r}; expected SI units (V, T, T/m), where 100 uV are 1e-4")
        return value

    @model_validator(mode="after")
    def _can_be_good(self) -> "QualityConfig":
        for kind in ("",) if not isinstance(self.flat, dict) else self.flat:
            flat = self.flat[kind] if isinstance(self.flat, dict) else self.flat
            limit = self.range.get(kind) if isinstance(self.range, dict) else self.range
            if flat is not None and limit is not None and flat >= 2 * limit:
                raise ValueError(
                    f"flat is {flat:g} and range {limit:g}: every channel is flat or out of range; expected a flat "
                    "below twice the range"
                )
        return self


class TritonConfig(_Section):
    """A shared Triton server that encodes a pipeline's windows."""

    url: str
    """``HOST:PORT`` of its gRPC endpoint."""
    model: str = Field(min_length=1)
    """Name of the model in its repository."""
    version: str = ""
    """Version of the model; empty for the one that the server chooses."""
    timeout_ms: Positive = 1000
    """How long one window may take at most. With a budget, what is left of it where that is less."""
    shared_memory: Literal["auto", "on", "off"] = "auto"
    """Whether windows go through memory that both processes see: ``auto``, where the server can."""
    tls: bool = False
    """Whether the connection is encrypted, and the server has to prove who it is."""
    ca: Path | None = None
    """With `tls`: file (PEM) of the authorities that it is believed by; the system's where there is none."""
    certificate: Path | None = None
    """With `tls`: file (PEM) by which this machine proves who it is; together with `key`."""
    key: Path | None = None
    """With `tls`: file (PEM) of the certificate's private key."""

    @field_validator("url")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536) or "/" in value:
            raise ValueError(f"is {value!r}; expected HOST:PORT of the server's gRPC endpoint, e.g. 127.0.0.1:8001")
        return value

    @model_validator(mode="after")
    def _whole_tls(self) -> "TritonConfig":
        given = [key for key in ("ca", "certificate", "key") if getattr(self, key) is not None]
        if given and not self.tls:
            raise ValueError(f"has {', '.join(given)} without tls; expected tls = true")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("has one of certificate and key; expected both or neither")
        return self


class PipelineConfig(_Section):
    """One bundle, decoding one source."""

    bundle: Path
    """Folder or zip; relative to the configuration's folder."""
    publish: str
    """Where results go: ``tcp://HOST:PORT`` (port 0 takes a free one) or ``ipc://PATH``. Pipelines of one process may
    share one. Where a pipeline of many sources runs in several processes, they take this port and the next ones
    (``PATH``, ``PATH.2``...)."""
    source: str | tuple[str, ...] = ""
    """Which of the `sources`; the only one where absent. With a list, or ``"*"`` for all, there is one pipeline for
    each, called ``NAME-SOURCE``."""
    provider: Literal["cpu", "cuda", "tensorrt", "tensorrt-native", "openvino"] = "cpu"
    """What the encoder runs on."""
    fallback: Literal["forbid", "allow"] = "forbid"
    """Whether the CPU may stand in where the provider, or the server, is not to be had."""
    options: dict[str, bool | int | float | str] = {}
    """Options of the provider, by its own names: docs/engines.md lists them."""
    engine: Literal["local", "triton"] = "local"
    """``triton``: windows are sent to a Triton server that holds the bundle's encoder, named in `triton`; `provider` is
    then the server's affair, and with ``fallback = "allow"`` the bundle's own encoder stands in on the CPU here."""
    triton: TritonConfig | None = None
    """The server, for ``engine = "triton"``."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads inside one operator of the encoder."""
    incremental: Literal["auto", "off"] = "auto"
    """``auto``: the encoder works on samples as they come, where the bundle was split for that and the windows fit;
    ``off``: it is run on whole windows, when they are due."""
    channels: Literal["strict", "by-name"] = "strict"
    """``strict``: the stream's data channels are the contract's, in its order; ``by-name``: they are picked by name."""
    windows: tuple[WindowConfig, ...] = ()
    """Windows in place of the bundle's own."""
    gaps: GapsConfig = GapsConfig()
    """What is done about missing samples."""
    blank: tuple[BlankConfig, ...] = ()
    """Samples around markers that are replaced."""
    quality: QualityConfig = QualityConfig()
    """When a channel is bad within a window."""
    bad: tuple[str, ...] = ()
    """Channels of the bundle that are known to be bad, and are made of good ones by `interpolation`."""
    interpolation: Path | None = None
    """File (``.npy``, float64, channels x channels of the bundle's contract): the row of a bad channel holds weights on
    good channels, the row of a good one is that of the identity. Relative to the configuration's folder."""
    budget_ms: Positive | None = None
    """Allowed time from the arrival of a window's last sample to its publication."""
    on_late: Literal["mark", "keep", "skip", "variant"] = "mark"
    """A window that is predicted to miss its budget: ``mark`` and ``keep`` decode it all the same; ``skip`` does not;
    ``variant`` has it decoded by `variant`, or skips it where that would be late too. One that was out of budget is
    published as ``late``; with ``keep`` its status stays, and its ledger reports it."""
    variant: Path | None = None
    """A bundle with a cheaper encoder for the same windows, for ``on_late = "variant"``: of the same contract,
    conditioning, length of windows and kinds of heads. Folder or zip; relative to the configuration's folder."""
    queue: int = Field(default=32, ge=1, le=10_000)
    """With a budget: windows that may wait to be decoded. When more do, the oldest are skipped."""
    quantile: float = Field(default=0.9, gt=0, le=1, allow_inf_nan=False)
    """With a budget: a stage is predicted to take this quantile of what it took lately."""
    warmup: int = Field(default=3, ge=0, le=10_000)
    """Windows encoded before READY, beyond the golden ones."""
    hwm: int = Field(default=1000, ge=1)
    """Messages that wait for a slow subscriber before it loses some."""

    @model_validator(mode="after")
    def _whole_budget(self) -> "PipelineConfig":
        if self.on_late in ("skip", "variant") and self.budget_ms is None:
            raise ValueError(f"on_late is {self.on_late!r} without a budget; expected budget_ms")
        fields = type(self).model_fields
        idle = [key for key in ("on_late", "queue", "quantile") if getattr(self, key) != fields[key].default]
        if idle and self.budget_ms is None:
            raise ValueError(f"has {', '.join(idle)} without a budget; expected budget_ms")
        if self.variant is not None and self.variant == self.bundle:
            raise ValueError(f"variant is the bundle itself, {str(self.bundle)!r}; expected one with a cheaper encoder")
        if (self.on_late == "variant") != (self.variant is not None):
            there = "no variant" if self.variant is None else f"a variant, and on_late is {self.on_late!r}"
            raise ValueError(f"has {there}; expected both on_late = 'variant' and variant = 'BUNDLE', or neither")
        return self

    @model_validator(mode="after")
    def _engine_and_server(self) -> "PipelineConfig":
        if (self.engine == "triton") != (self.triton is not None):
            there = "no server" if self.triton is None else f"a server, and engine is {self.engine!r}"
            raise ValueError(f"has {there}; expected both engine = 'triton' and a section triton, or neither")
        if self.engine == "triton" and self.provider != "cpu":
            raise ValueError(
                f"has engine = 'triton' with provider = {self.provider!r}; what a server runs on is set there: "
                "expected no provider"
            )
        return self

    @model_validator(mode="after")
    def _bad_and_matrix(self) -> "PipelineConfig":
        if bool(self.bad) != (self.interpolation is not None):
            has, lacks = ("bad", "interpolation") if self.bad else ("interpolation", "bad")
            raise ValueError(f"has {has} without {lacks}; expected both: bad channels, and the matrix that makes them")
        return self

    @model_validator(mode="after")
    def _own_names(self) -> "PipelineConfig":
        names = [window.name for window in self.windows]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"windows: {', '.join(doubles)} occurs twice; expected a name of its own for each window")
        return self

    def window_specs(self) -> tuple[WindowSpec, ...]:
        """The windows given here; empty where the bundle's own hold."""
        return tuple(window.spec() for window in self.windows)


SourceConfig = Annotated[
    LslConfig | ZmqConfig | FieldTripConfig | RecordingConfig | SimulatedConfig, Field(discriminator="kind")
]


class Config(_Section):
    """The whole file."""

    session: SessionConfig = SessionConfig()
    """What this run is called, and when it ends."""
    source: SourceConfig | None = None
    """Where samples come from. Exactly one of `source` and `sources`."""
    sources: dict[str, SourceConfig] = {}
    """Where samples come from, where there are several streams: by name (letters, digits, ``-`` and ``_``)."""
    processes: ProcessesConfig = ProcessesConfig()
    """How many processes there are."""
    realtime: RealtimeConfig = RealtimeConfig()
    """Real-time settings, used where the system permits them. Linux alone."""
    bus: BusConfig = BusConfig()
    """Between *acquire* and *decode*."""
    recording: RecorderConfig | None = None
    """What *acquire* records, and where."""
    pipelines: dict[str, PipelineConfig] = {}
    """The decoders, by name: letters, digits, ``-`` and ``_``."""

    _path: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _one_form(self) -> "Config":
        if self.source is not None and self.sources:
            raise ValueError("has both [source] and [sources]; expected one of them")
        if self.source is None and not self.sources:
            raise ValueError("source is missing; expected [source], or [sources.NAME] for each of several streams")
        return self

    @property
    def path(self) -> Path:
        """The file it was loaded from."""
        return self._path

    @property
    def inputs(self) -> dict[str, SourceConfig]:
        """The sources by name; a single one has none (an empty string)."""
        return self.sources if self.source is None else {"": self.source}

    def source_of(self, pipeline: str) -> SourceConfig:
        """The source that a pipeline decodes."""
        source = self.pipeline(pipeline).source
        assert isinstance(source, str)  # since `load` gives one for each source
        return self.inputs[source]

    @property
    def paced(self) -> bool:
        """Whether every source is a recording or a simulation, which waits for its decoders."""
        return all(isinstance(source, RecordingConfig | SimulatedConfig) for source in self.inputs.values())

    def pipeline(self, name: str) -> PipelineConfig:
        """The pipeline called `name`; raises `ConfigError`, naming those there are."""
        if name not in self.pipelines:
            known = ", ".join(self.pipelines) or "none"
            raise ConfigError(f"{self.path} has no pipeline {name!r}{suggest(name, self.pipelines)}; it has: {known}")
        return self.pipelines[name]
