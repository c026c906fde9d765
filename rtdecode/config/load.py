"""From the file to a checked `Config`."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rtdecode.config.explain import explain
from rtdecode.config.kinds import wrong_kinds
from rtdecode.config.many import spread
from rtdecode.config.problems import InvalidConfigError, Problem, key_lines, with_line
from rtdecode.config.sections import (
    Config,
    FieldTripConfig,
    PipelineConfig,
    RecordingConfig,
    SourceConfig,
    TritonConfig,
    ZmqConfig,
)
from rtdecode.errors import ConfigError
from rtdecode.wire.endpoint import check_endpoint

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


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
    lines = key_lines(text)
    problems = [
        with_line(problem, lines) for problem in (*_name_problems(data), *_endpoint_problems(data, path.parent))
    ]
    config: Config | None = None
    try:
        config, several = spread(_resolved(Config.model_validate(data), path))
        problems += [with_line(problem, lines) for problem in several]
    except ValidationError as error:
        problems += [with_line(explain(detail), lines) for detail in error.errors()]
    told = {problem.place for problem in problems}
    problems += [with_line(one, lines) for one in wrong_kinds([Config], data) if one.place not in told]
    if problems or config is None:
        raise InvalidConfigError(path, sorted(problems, key=lambda problem: problem.line or 0))
    return config


def _resolved(config: Config, path: Path) -> Config:
    """`config` with absolute paths."""
    folder = path.parent
    source = None if config.source is None else _resolved_source(config.source, folder)
    sources = {name: _resolved_source(one, folder) for name, one in config.sources.items()}
    bus = config.bus if config.bus.dir is None else config.bus.model_copy(update={"dir": folder / config.bus.dir})
    if bus.share is not None:
        bus = bus.model_copy(update={"share": _absolute(bus.share, folder)})
    recording = config.recording
    if recording is not None:
        recording = recording.model_copy(update={"dir": folder / recording.dir})
    pipelines = {name: _resolved_pipeline(pipeline, folder) for name, pipeline in config.pipelines.items()}
    update = {"source": source, "sources": sources, "bus": bus, "recording": recording, "pipelines": pipelines}
    resolved = config.model_copy(update=update)
    resolved._path = path
    return resolved


def _resolved_source(source: SourceConfig, folder: Path) -> SourceConfig:
    if isinstance(source, RecordingConfig):
        return source.model_copy(update={"path": folder / source.path})
    if isinstance(source, FieldTripConfig) and source.sensors is not None:
        return source.model_copy(update={"sensors": folder / source.sensors})
    if isinstance(source, ZmqConfig):
        return source.model_copy(update={"endpoint": _absolute(source.endpoint, folder)})
    return source


def _resolved_pipeline(pipeline: PipelineConfig, folder: Path) -> PipelineConfig:
    return pipeline.model_copy(
        update={
            "bundle": folder / pipeline.bundle,
            "variant": None if pipeline.variant is None else folder / pipeline.variant,
            "publish": _absolute(pipeline.publish, folder),
            "interpolation": None if pipeline.interpolation is None else folder / pipeline.interpolation,
            "triton": None if pipeline.triton is None else _resolved_triton(pipeline.triton, folder),
        }
    )


def _resolved_triton(server: TritonConfig, folder: Path) -> TritonConfig:
    files = {name: getattr(server, name) for name in ("ca", "certificate", "key")}
    return server.model_copy(update={name: folder / file for name, file in files.items() if file is not None})


def _absolute(endpoint: str, folder: Path) -> str:
    """`endpoint` with an absolute path, where it has one."""
    path = endpoint.removeprefix("ipc://")
    return f"ipc://{folder / path}" if endpoint.startswith("ipc://") and path[:1] not in ("", "@") else endpoint


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
    sources = data.get("sources")
    for name in sources if isinstance(sources, dict) else ():
        if not _NAME.fullmatch(name):
            yield Problem(
                f"sources.{name}", f"{name!r} cannot name a source; expected 1 to 64 letters, digits, - and _ (no dots)"
            )


def _endpoint_problems(data: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    """From the raw file, so that what else is wrong hides nothing."""
    for place, table in _source_tables(data):
        yield from _single_endpoint(table, folder, place, "endpoint", connects=True)
    yield from _single_endpoint(data.get("bus"), folder, "bus", "share", connects=False)
    pipelines = data.get("pipelines")
    apart = "processes" not in data and "sources" not in data  # else `spread` knows which of them share a process
    seen = dict(_bound_elsewhere(data, folder))
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
        first = next(
            (what for other, what in seen.items() if _collide(endpoint, other) and (apart or endpoint != other)), None
        )
        if first is not None:
            yield Problem(place, f"{endpoint} is where {first}; expected an endpoint of its own")
        seen.setdefault(endpoint, f"pipeline {name!r} publishes")


def _source_tables(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each source's table, and where it stands."""
    yield "source", data.get("source")
    sources = data.get("sources")
    for name, table in sources.items() if isinstance(sources, dict) else ():
        yield f"sources.{name}", table


def _bound_elsewhere(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """Endpoints that *acquire* binds, and what it does there."""
    bus = data.get("bus")
    for place, source in _source_tables(data):
        if isinstance(source, dict) and source.get("bind") is True and isinstance(source.get("endpoint"), str):
            yield _absolute(source["endpoint"], folder), f"the source listens ({place}.endpoint)"
    if isinstance(bus, dict) and isinstance(bus.get("share"), str):
        share = _absolute(bus["share"], folder)
        yield share, "the samples are shared (bus.share)"
        base, _, port = share.rpartition(":")
        if port.isdecimal():
            yield (
                f"{base}:{int(port) + 1}",
                "questions about the shared samples are answered (the port behind bus.share)",
            )


def _collide(one: str, other: str) -> bool:
    """Whether no two sockets can be bound to these."""
    (host, _, port), (host_2, _, port_2) = one.rpartition(":"), other.rpartition(":")
    if not (one.startswith("tcp://") and other.startswith("tcp://")):
        return one == other
    everywhere = {"tcp://*", "tcp://0.0.0.0"}
    return port == port_2 and port not in ("0", "*") and (host == host_2 or bool(everywhere & {host, host_2}))


def _single_endpoint(table: Any, folder: Path, section: str, key: str, *, connects: bool) -> Iterator[Problem]:
    if not isinstance(table, dict):
        return
    endpoint = table.get(key)
    if isinstance(endpoint, str):
        try:
            check_endpoint(_absolute(endpoint, folder), bind=not connects or table.get("bind") is True)
        except ConfigError as error:
            yield Problem(f"{section}.{key}", str(error))
