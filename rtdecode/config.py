"""One TOML file that says everything about a session, and every problem in it at once.

`load` needs neither liblsl, MNE nor an inference runtime: what a file says can be checked on any machine.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from rtdecode.errors import ConfigError
from rtdecode.sources.declare import Declare
from rtdecode.sources.trigger import TriggerRule
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode.wire.endpoint import check_endpoint

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[PositiveFloat, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    place : str
        The key at fault: ``pipelines.gaze.budget_ms``; empty where the whole file is.
    message : str
        What is wrong, what was expected, what to do.
    line : int, optional
        Line of the file, counted from 1.
    """

    place: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.place if self.line is None else f"{self.place} (line {self.line})".strip()
        return f"{where}: {self.message}" if where else self.message


class InvalidConfigError(ConfigError):
    """A configuration with problems, all of them in `problems`."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path}: {len(problems)} problem{'s' if len(problems) != 1 else ''}{lines}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SessionConfig(_Section):
    """What this run is called, and when it ends."""

    name: str = Field(default="session", pattern=r"^[A-Za-z0-9_-]+$")
    """Letters, digits, ``-`` and ``_``; names the runtime folder and the log lines."""
    exit_at_end: bool = True
    """End when the source has ended and everything decoded has been published; otherwise wait for SIGTERM."""


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


class _Source(_Section):
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
    """How late a marker may arrive after its stamp; marker-locked windows wait that long for it."""
    end_when_lost: bool = False
    """End when the stream is lost, instead of looking for it again."""
    markers: tuple[StreamMatch, ...] = ()
    """Marker streams that go with it."""


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


class SimulatedConfig(_Section):
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
    log_seconds: Positive = 60.0
    """How far back *decode* can ask for what it missed."""
    log_mb: Positive = 256.0
    """Largest size of that log in megabytes."""
    drain_s: Positive = 5.0
    """How long *acquire* waits at its end for decoders that still ask for samples."""

    @model_validator(mode="after")
    def _one_address(self) -> "BusConfig":
        if self.dir is not None and self.tcp is not None:
            raise ValueError("has both dir and tcp; expected one of them")
        return self


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


class PipelineConfig(_Section):
    """One bundle, decoding the source in a process of its own."""

    bundle: Path
    """Folder or zip; relative to the configuration's folder."""
    publish: str
    """Where results go: ``tcp://HOST:PORT`` (port 0 takes a free one) or ``ipc://PATH``."""
    provider: Literal["cpu", "cuda", "tensorrt", "openvino"] = "cpu"
    """What the encoder runs on."""
    fallback: Literal["forbid", "allow"] = "forbid"
    """Whether another provider may be used where the named one is not to be had."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads inside one operator of the encoder."""
    channels: Literal["strict", "by-name"] = "strict"
    """``strict``: the stream's data channels are the contract's, in its order; ``by-name``: they are picked by name."""
    windows: tuple[WindowConfig, ...] = ()
    """Windows in place of the bundle's own."""
    budget_ms: Positive | None = None
    """Allowed time from the arrival of a window's last sample to its publication."""
    on_late: Literal["mark", "keep"] = "mark"
    """A window out of budget: ``mark`` publishes it as ``late``; ``keep`` leaves its status and only reports it."""
    warmup: int = Field(default=3, ge=0, le=10_000)
    """Windows encoded before READY, beyond the golden ones."""
    hwm: int = Field(default=1000, ge=1)
    """Messages that wait for a slow subscriber before it loses some."""

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


SourceConfig = Annotated[LslConfig | RecordingConfig | SimulatedConfig, Field(discriminator="kind")]


class Config(_Section):
    """The whole file."""

    session: SessionConfig = SessionConfig()
    """What this run is called, and when it ends."""
    source: SourceConfig
    """Where samples come from."""
    bus: BusConfig = BusConfig()
    """Between *acquire* and *decode*."""
    pipelines: dict[str, PipelineConfig] = {}
    """The decoders, by name: letters, digits, ``-`` and ``_``."""

    _path: Path = PrivateAttr(default=Path())

    @property
    def path(self) -> Path:
        """The file it was loaded from."""
        return self._path

    def pipeline(self, name: str) -> PipelineConfig:
        """The pipeline called `name`; raises `ConfigError`, naming those there are."""
        if name not in self.pipelines:
            known = ", ".join(self.pipelines) or "none"
            raise ConfigError(f"{self.path} has no pipeline {name!r}{_suggest(name, self.pipelines)}; it has: {known}")
        return self.pipelines[name]


def load(path: str | Path) -> Config:
    """Read and validate a configuration.

    Parameters
    ----------
    path : str or Path
        A TOML file. Relative paths in it are taken from its folder.

    Returns
    -------
    Config
        With absolute paths.

    Raises
    ------
    InvalidConfigError
        Everything that is wrong with it, each with its place (a `ConfigError`).
    """
    path = Path(path).absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidConfigError(path, [Problem("", f"cannot be read: {reason}; expected a TOML file")]) from None
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """As `load`, from the file's text; `path` gives the folder and the name for messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) if at else None
        raise InvalidConfigError(path, [Problem("", f"is no TOML: {error}", line)]) from None
    lines = _key_lines(text)
    problems = [
        _with_line(problem, lines) for problem in (*_name_problems(data), *_endpoint_problems(data, path.parent))
    ]
    config: Config | None = None
    try:
        config = _resolved(Config.model_validate(data), path)
    except ValidationError as error:
        problems += [_with_line(_problem(detail), lines) for detail in error.errors()]
    if problems or config is None:
        raise InvalidConfigError(path, sorted(problems, key=lambda problem: problem.line or 0))
    return config


def _resolved(config: Config, path: Path) -> Config:
    """`config` with absolute paths."""
    folder = path.parent
    source = config.source
    if isinstance(source, RecordingConfig):
        source = source.model_copy(update={"path": folder / source.path})
    bus = config.bus if config.bus.dir is None else config.bus.model_copy(update={"dir": folder / config.bus.dir})
    pipelines = {name: _resolved_pipeline(pipeline, folder) for name, pipeline in config.pipelines.items()}
    resolved = config.model_copy(update={"source": source, "bus": bus, "pipelines": pipelines})
    resolved._path = path
    return resolved


def _resolved_pipeline(pipeline: PipelineConfig, folder: Path) -> PipelineConfig:
    return pipeline.model_copy(
        update={"bundle": folder / pipeline.bundle, "publish": _absolute(pipeline.publish, folder)}
    )


def _absolute(endpoint: str, folder: Path) -> str:
    """`endpoint` with an absolute path, where it has one."""
    path = endpoint.removeprefix("ipc://")
    return f"ipc://{folder / path}" if endpoint.startswith("ipc://") and path[:1] not in ("", "@") else endpoint


# --- problems ---------------------------------------------------------------------------------------------------------


def _name_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    pipelines = data.get("pipelines")
    for name in pipelines if isinstance(pipelines, dict) else ():
        if name == "acquire":
            yield Problem(f"pipelines.{name}", "'acquire' is the process that owns the source; expected another name")
        if not _NAME.fullmatch(name):
            yield Problem(
                f"pipelines.{name}",
                f"{name!r} cannot name a pipeline; expected 1 to 64 letters, digits, - and _ (no dots)",
            )


def _endpoint_problems(data: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    """From the raw file, so that what else is wrong hides nothing."""
    pipelines = data.get("pipelines")
    seen: dict[str, str] = {}
    for name, pipeline in pipelines.items() if isinstance(pipelines, dict) else ():
        publish = pipeline.get("publish") if isinstance(pipeline, dict) else None
        if not isinstance(publish, str):
            continue
        place = f"pipelines.{name}.publish"
        endpoint = _absolute(publish, folder)
        try:
            check_endpoint(endpoint, bind=True)
        except ConfigError as error:
            yield Problem(place, str(error))
            continue
        first = seen.setdefault(endpoint, name)
        if first != name and not endpoint.endswith((":0", ":*")):
            yield Problem(place, f"{endpoint} is where pipeline {first!r} publishes; expected an endpoint of its own")


#: Parts that pydantic puts into an error's place for the members of a union; they are no keys of the file.
_TAGS: dict[str, type[BaseModel]] = {
    "lsl": LslConfig,
    "recording": RecordingConfig,
    "simulated": SimulatedConfig,
    "sliding": SlidingWindow,
    "locked": LockedWindow,
}


def _problem(detail: Any) -> Problem:
    """One of pydantic's error details, in our words."""
    parent, place = _walk(detail["loc"])
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "extra_forbidden":
            known = [name for model in parent for name in model.model_fields]
            message = f"unknown key{_suggest(key, known)}; known here: {', '.join(known)}"
        case "missing":
            message = f"is missing{_expected(parent, key)}"
        case "union_tag_not_found":
            place = f"{place}.kind"
            message = "is missing; expected lsl, recording or simulated"
        case "union_tag_invalid":
            place = f"{place}.kind"
            given = detail["ctx"]["tag"]
            message = f"is {given!r}{_suggest(given, _TAGS)}; expected lsl, recording or simulated"
        case "value_error":
            message = str(detail["ctx"]["error"])
        case "literal_error":
            given = detail["input"]
            choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            message = f"is {given!r}{_suggest(str(given), choices)}; expected {detail['ctx']['expected']}"
        case _:
            what = detail["msg"].replace("Input should be", "expected").replace("String should", "should")
            message = f"is {detail['input']!r}; {what}{_expected(parent, key)}"
    return Problem(place, message)


def _walk(loc: tuple[int | str, ...]) -> tuple[list[type[BaseModel]], str]:
    """The models whose key the last part of `loc` is, and `loc` as the file's user would write it."""
    here: list[type[BaseModel]] = [Config]
    parent = here
    place = ""
    open_keys = False  # the next part is a key that the user chose
    for part in loc:
        if isinstance(part, int):
            place += f"[{part}]"
            continue
        if _TAGS.get(part) in here and len(here) > 1:
            here = [_TAGS[part]]
            continue
        place += f".{part}" if place else part
        if open_keys:
            open_keys = False
            continue
        parent = here
        annotations = [model.model_fields[part].annotation for model in here if part in model.model_fields]
        here = [model for annotation in annotations for model in _models(annotation)]
        open_keys = any(getattr(annotation, "__origin__", None) is dict for annotation in annotations)
    return parent, place


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every section within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _expected(models: list[type[BaseModel]], key: str) -> str:
    for model in models:
        if key in model.model_fields and model.model_fields[key].description:
            text = " ".join((model.model_fields[key].description or "").split())
            return f" ({text.rstrip('.')})"
    return ""


def _suggest(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


# --- lines ------------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def _key_lines(text: str) -> dict[str, int]:
    """Where keys and tables stand, by place. `tomllib` does not tell, so lines are read for their beginnings only."""
    lines: dict[str, int] = {}
    arrays: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header:
            table = _table_place(_PART.findall(header[2]), arrays, begins=header[1] == "[[")
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            parts = [part.strip("\"'") for part in _PART.findall(key[1])]
            lines.setdefault(".".join([table, *parts] if table else parts), number)
    return lines


def _table_place(parts: list[str], arrays: dict[str, int], *, begins: bool) -> str:
    """A table's place, with the number of each array of tables on the way (``pipelines.x.windows[1]``)."""
    place = ""
    for n, part in enumerate(parts, start=1):
        part = part.strip("\"'")
        place = f"{place}.{part}" if place else part
        if begins and n == len(parts):
            arrays[place] = arrays.get(place, -1) + 1
        if place in arrays:
            place += f"[{arrays[place]}]"
    return place


def _with_line(problem: Problem, lines: Mapping[str, int]) -> Problem:
    """`problem` with the line of its place, or of the nearest table around it."""
    place = problem.place
    while place:
        if place in lines:
            return Problem(problem.place, problem.message, lines[place])
        cut = max(place.rfind("."), place.rfind("["))
        place = place[:cut] if cut > 0 else ""
    return problem
