"""From the user's configuration to the one that is certified: the same, but for its source and its places."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdecode.certify.standin import StandIn, Trigger, examples
from rtdecode.config import (
    Config,
    FieldTripConfig,
    LslConfig,
    PipelineConfig,
    RecordingConfig,
    SimulatedConfig,
    ZmqConfig,
)
from rtdecode.demo.staging import free_port
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.manifest import ContractChannel
from rtdecode.errors import ConfigError
from rtdecode.stream.window import Locked, WindowSpec

#: Chunks per second of a stand-in whose chunk size is not given, as the simulation and a recording have them.
CHUNK_RATE = 50.0

#: The stand-in's name on its transport.
NAME = "rtdecode-certify"

#: Keys of a section that say how a stream is found, in favour of the stand-in's own.
_FOUND_BY = {
    "lsl": ("name", "type", "source_id", "markers", "declare"),
    "zmq": ("endpoint", "stream", "bind", "pattern", "topic", "declare"),
    "fieldtrip": ("host", "port", "sensors", "declare"),
}


@dataclass(slots=True)
class Plan:
    """What is run.

    Parameters
    ----------
    config : Config
        The user's own.
    table : dict
        What is written in its place.
    bundles : dict of str to Bundle
        Of each pipeline, opened.
    standins : dict of str to StandIn
        What the sender sends in place of each source; none where a source is used as it is.
    notes : list of str
        Everything in which it is not what the user's configuration says.
    made : list of Path
        Folders that were made for it.
    """

    config: Config
    table: dict[str, Any]
    bundles: dict[str, Bundle]
    standins: dict[str, StandIn] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)

    @property
    def budgets(self) -> dict[str, float | None]:
        """Budget of each pipeline in milliseconds."""
        return {name: one.get("budget_ms") for name, one in self.table["pipelines"].items()}

    def windows(self, name: str) -> tuple[WindowSpec, ...]:
        """The windows that a pipeline cuts."""
        return self.config.pipelines[name].window_specs() or self.bundles[name].manifest.windows


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asks for.

    Parameters
    ----------
    live : bool
        Use the source as it is.
    chunk : int or None
        Samples that the stand-in sends at once.
    marker_s : float
        Seconds from one of its markers to the next.
    budget_ms : float or None
        For every pipeline, in place of its own.
    """

    live: bool = False
    chunk: int | None = None
    marker_s: float = 1.0
    budget_ms: float | None = None


def make_plan(config: Config, wishes: Wishes, folder: Path) -> Plan:
    """Plan a certification.

    Parameters
    ----------
    config : Config
        The user's own.
    wishes : Wishes
    folder : Path
        For sockets and files of this run.

    Raises
    ------
    ConfigError
        It has no pipelines, or its source cannot be stood in for.
    BundleError
        A bundle is damaged.
    """
    if not config.pipelines:
        raise ConfigError(f"{config.path} has no pipeline; expected at least one [pipelines.NAME]")
    if wishes.live and wishes.chunk is not None:
        raise ConfigError("--chunk and --live are both given; a live source has chunks of its own")
    bundles = {name: Bundle.open(pipeline.bundle) for name, pipeline in config.pipelines.items()}
    table = _plain(config.model_dump(exclude_unset=True))
    if sys.platform == "linux":
        bus = {key: value for key, value in table.get("bus", {}).items() if key not in ("tcp", "share")}
        table["bus"] = bus | {"dir": str(folder)}
    for n, pipeline in enumerate(table["pipelines"].values()):
        pipeline["publish"] = _address(folder, f"results{n}")
        if wishes.budget_ms is not None:
            pipeline["budget_ms"] = wishes.budget_ms
    plan = Plan(config, table, bundles)
    if wishes.budget_ms is not None:
        plan.notes.append(f"every pipeline has a budget of {wishes.budget_ms:g} ms, asked for here")
    _record_elsewhere(plan)
    for n, name in enumerate(config.inputs):
        _replace_source(plan, name, wishes, _address(folder, f"source{n}"))
    return plan


def _address(folder: Path, name: str) -> str:
    return f"ipc://{folder / name}" if sys.platform == "linux" else f"tcp://127.0.0.1:{free_port()}"


def _record_elsewhere(plan: Plan) -> None:
    """The certified session records as the user's does, on the same disk, and what it records is thrown away."""
    if plan.config.recording is None:
        return
    there = plan.config.recording.dir
    while not there.exists() and there != there.parent:
        there = there.parent
    made = Path(tempfile.mkdtemp(prefix=".certify-", dir=there))
    plan.made.append(made)
    plan.table["recording"]["dir"] = str(made)
    plan.notes.append(f"it records to {made}, on the same disk, and what it recorded is removed")


def _replace_source(plan: Plan, name: str, wishes: Wishes, endpoint: str) -> None:
    """A source that a sender can stand in for is replaced; a played one keeps its own rate."""
    source = plan.config.inputs[name]
    table = plan.table["sources"][name] if name else plan.table["source"]
    if isinstance(source, RecordingConfig | SimulatedConfig):
        if wishes.chunk is not None:
            raise ConfigError(f"--chunk is for senders; a source of kind {source.kind} has chunks of its own (20 ms)")
        if source.speed != 1.0:
            plan.notes.append(f"the source is played at its own rate, and not {source.speed:g} times as fast")
        table["speed"] = 1.0
        if isinstance(source, SimulatedConfig) and table.pop("seconds", None) is not None:
            plan.notes.append("the simulation goes on for as long as is measured")
        return
    if wishes.live:
        return
    if isinstance(source, ZmqConfig) and source.format == "rtdecode":
        raise ConfigError("source.format is 'rtdecode': another machine's acquire cannot be stood in for; use --live")
    if isinstance(source, FieldTripConfig):
        endpoint = f"127.0.0.1:{free_port()}"
    standin = plan.standins[name] = _standin(plan, name, source, wishes, endpoint)
    for key in _FOUND_BY[source.kind]:
        table.pop(key, None)
    if isinstance(source, LslConfig):
        table["name"] = standin.name
        if standin.marker_name is not None:
            table["markers"] = [{"name": standin.marker_name}]
    elif isinstance(source, ZmqConfig):
        table |= {"endpoint": standin.endpoint, "stream": standin.name, "bind": not standin.bind}
    else:
        host, _, port = standin.endpoint.rpartition(":")
        table |= {"host": host, "port": int(port)}
    plan.notes.append(
        f"a sender of {len(standin.channels)} channels of noise at {standin.sfreq:g} Hz over {source.kind}, "
        f"{standin.chunk} samples at once, stands in for the source{f' {name!r}' if name else ''}"
    )


def _standin(
    plan: Plan, name: str, source: LslConfig | ZmqConfig | FieldTripConfig, wishes: Wishes, endpoint: str
) -> StandIn:
    pipelines = [one for one in plan.bundles if plan.config.pipelines[one].source in ("", name)]
    channels, sfreq = stream_for(
        {one: plan.config.pipelines[one] for one in pipelines}, {one: plan.bundles[one] for one in pipelines}
    )
    triggers = tuple(
        Trigger(one.channel, one.mask, one.debounce_s)
        for one in source.triggers
        if one.channel not in {channel.name for channel in channels}
    )
    patterns = [
        pattern
        for one in pipelines
        for window in plan.windows(one)
        if isinstance(window, Locked)
        for pattern in window.markers
    ]
    values = examples(patterns)
    codes = tuple(
        int(value) for value in values if triggers and value.isdecimal() and 0 < int(value) <= triggers[0].mask
    )
    takes_markers = bool(source.markers) if isinstance(source, LslConfig) else getattr(source, "events", True)
    rest = tuple(value for value in values if not (value.isdecimal() and int(value) in codes))
    if rest and not takes_markers:
        plan.notes.append(f"markers {', '.join(rest)} are not sent: the source names neither markers nor a trigger")
    own_name = f"{NAME}-{name}" if name else NAME
    return StandIn(
        transport=source.kind,
        name=own_name,
        channels=(
            *((channel.name, channel.type, channel.unit) for channel in channels),
            *((trigger.channel, "stim", "1") for trigger in triggers),
        ),
        sfreq=sfreq,
        chunk=wishes.chunk if wishes.chunk is not None else max(1, round(sfreq / CHUNK_RATE)),
        endpoint=endpoint,
        bind=not (isinstance(source, ZmqConfig) and source.bind),
        marker_name=f"{own_name}-markers" if isinstance(source, LslConfig) and source.markers else None,
        markers=rest if takes_markers else (),
        codes=codes,
        triggers=triggers,
        every_s=wishes.marker_s,
    )


def stream_for(
    pipelines: Mapping[str, PipelineConfig], bundles: Mapping[str, Bundle]
) -> tuple[Sequence[ContractChannel], float]:
    """The channels and the rate of a stream that every pipeline can decode.

    Raises
    ------
    ConfigError
        There is none: rates differ, a channel is another for another pipeline, or pipelines that take their channels
        strictly want others.
    """
    rates = sorted({bundle.manifest.contract.sfreq for bundle in bundles.values()})
    if len(rates) > 1:
        raise ConfigError(
            f"the bundles are for {', '.join(f'{rate:g}' for rate in rates)} Hz; expected one rate for all"
        )
    channels: dict[str, ContractChannel] = {}
    strict_first = sorted(bundles, key=lambda name: pipelines[name].channels != "strict")
    for name in strict_first:
        for channel in bundles[name].manifest.contract.channels:
            other = channels.setdefault(channel.name, channel)
            if other != channel:
                raise ConfigError(
                    f"channel {channel.name!r} is {channel.unit} for one pipeline, {other.unit} for another"
                )
    for name in strict_first:
        own = [channel.name for channel in bundles[name].manifest.contract.channels]
        if pipelines[name].channels == "strict" and own != list(channels):
            raise ConfigError(
                f"pipeline {name!r} takes its {len(own)} channels strictly, and all pipelines together need "
                f'{len(channels)}; set channels = "by-name" there, or certify with --live'
            )
    return list(channels.values()), rates[0]


def _plain(value: Any) -> Any:
    """What TOML can hold: no path, no tuple, nothing that is None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def toml(table: Mapping[str, Any]) -> str:
    """A configuration as TOML: one ``[section]`` for each table, and what lies deeper in line."""
    return "\n".join(_section([key], one) for key, one in table.items())


def _section(path: Sequence[str], table: Mapping[str, Any]) -> str:
    if path in (["pipelines"], ["sources"]):  # a table of sections
        return "\n".join(_section([*path, key], one) for key, one in table.items())
    lines = [f"[{'.'.join(map(_text, path))}]"]
    lines += [f"{_text(key)} = {_value(one)}" for key, one in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_text(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
