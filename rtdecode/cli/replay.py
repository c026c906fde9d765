"""``rtdecode replay``: a recording through the same decoder, with a score where its markers tell the truth."""

import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rtdecode.daemon.process import ONE_THREAD
from rtdecode.errors import ConfigError

if TYPE_CHECKING:
    from rtdecode.encode.bundle import Bundle
    from rtdecode.encode.kserve import TritonServer
    from rtdecode.score import Score
    from rtdecode.sources.recording import RecordingSource
    from rtdecode.stream.handling import Handling
    from rtdecode.stream.window import WindowSpec

#: Incidents that the summary lists.
_SHOWN = 10

Provider = Literal["cpu", "cuda", "tensorrt", "tensorrt-native", "openvino"]


def replay(
    recording: Annotated[Path, typer.Argument(help="FIF, EDF, BDF, BrainVision, EEGLAB, GDF or XDF.")],
    bundle: Annotated[Path | None, typer.Option(help="The bundle (folder or zip).")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A daemon's TOML instead: its bundle, windows, triggers and declarations.")
    ] = None,
    pipeline: Annotated[str | None, typer.Option(help="Which pipeline of CONFIG, where it has several.")] = None,
    speed: Annotated[str, typer.Option(help="Multiples of real time, or max.")] = "max",
    out: Annotated[Path | None, typer.Option(help="Write every result as a line of JSON.")] = None,
    hop: Annotated[
        float | None, typer.Option(help="Decode sliding windows, one every HOP seconds, in place of the bundle's own.")
    ] = None,
    channels: Annotated[
        Literal["strict", "by-name"] | None,
        typer.Option(help="strict: the recording's data channels are the contract's; by-name: they are picked."),
    ] = None,
    provider: Annotated[Provider | None, typer.Option(help="What the encoder runs on; cpu by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads inside one operator; 1 by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Decode a recording with the very decoder that runs live, and say how well it went.

    Windows, statuses and payloads are those of the live daemon, byte for byte, on the same machine and versions.

    Example: rtdecode replay S001R14.edf --bundle fists_feet.zip --out results.jsonl
    """
    # The thread count is part of what makes a replay equal to the live run; it is read when NumPy is loaded.
    os.environ.update(ONE_THREAD)
    pace = _speed(speed)
    if out is not None and out.exists() and recording.exists() and out.samefile(recording):
        raise ConfigError(f"--out is the recording itself, {out}; expected another file")
    settings = _settings(recording, bundle, config, pipeline)
    settings.channels = channels or settings.channels
    if provider is not None:
        settings.provider, settings.triton = provider, None
    settings.threads = threads or settings.threads
    summary = _run(settings, pace, out, hop, quiet=as_json or not sys.stderr.isatty())
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _print(summary, Console())


@dataclass
class _Settings:
    """What to decode, and with what."""

    source: "RecordingSource"
    bundle: Path
    name: str = "replay"
    windows: "tuple[WindowSpec, ...]" = ()
    channels: Literal["strict", "by-name"] = "strict"
    provider: Provider = "cpu"
    fallback: Literal["forbid", "allow"] = "forbid"
    threads: int = 1
    incremental: Literal["auto", "off"] = "auto"
    triton: "TritonServer | None" = None
    handling: "Handling | None" = None


def _speed(text: str) -> float:
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise ConfigError(f"--speed {text}: expected max, or a positive multiple of real time such as 1.0")
    return speed


def _settings(recording: Path, bundle: Path | None, config: Path | None, pipeline: str | None) -> _Settings:
    from rtdecode.sources.recording import RecordingSource

    if (bundle is None) == (config is None):
        raise ConfigError("expected either --bundle BUNDLE or --config CONFIG.toml")
    if bundle is not None:
        return _Settings(RecordingSource(recording), bundle)
    assert config is not None
    from rtdecode.config import RecordingConfig, SimulatedConfig, load
    from rtdecode.config.handling import handling
    from rtdecode.config.server import triton_server

    loaded = load(config)
    if pipeline is None and len(loaded.pipelines) != 1:
        raise ConfigError(f"{config} has {len(loaded.pipelines)} pipelines; say which with --pipeline NAME")
    name = pipeline or next(iter(loaded.pipelines))
    chosen, of = loaded.pipeline(name), loaded.source_of(name)
    if isinstance(of, SimulatedConfig):
        source = RecordingSource(recording)
    else:
        source = RecordingSource(
            recording,
            declare=of.declare.declare(),
            triggers=[trigger.rule() for trigger in of.triggers],
            stream=of.stream if isinstance(of, RecordingConfig) else None,
        )
    return _Settings(
        source,
        chosen.bundle,
        name,
        chosen.window_specs(),
        chosen.channels,
        chosen.provider,
        chosen.fallback,
        chosen.threads,
        chosen.incremental,
        triton_server(chosen),
        handling(chosen),
    )


def _run(settings: _Settings, speed: float, out: Path | None, hop: float | None, *, quiet: bool) -> dict[str, Any]:
    import msgspec

    from rtdecode.decoder import Decoder
    from rtdecode.encode.bundle import Bundle
    from rtdecode.encode.engines import make_engine
    from rtdecode.encode.golden import check_golden
    from rtdecode.offline import replay as play
    from rtdecode.score import Score
    from rtdecode.stream.handling import AS_IT_COMES
    from rtdecode.stream.window import describe_window
    from rtdecode.wire.payload import to_json
    from rtdecode.wire.results import ResultWriter

    with ExitStack() as stack:
        bundle = Bundle.open(settings.bundle)
        source = stack.enter_context(settings.source)
        windows = settings.windows if hop is None else (_sliding(bundle, hop),)
        engine = make_engine(
            bundle,
            provider=settings.provider,
            fallback=settings.fallback,
            threads=settings.threads,
            incremental=settings.incremental,
            triton=settings.triton,
            windows=windows,
        )
        stack.callback(engine.close)
        check_golden(bundle, engine)
        decoder = Decoder.from_bundle(
            bundle,
            source.info,
            engine,
            channels=settings.channels,
            windows=windows,
            handling=settings.handling or AS_IT_COMES,
        )
        writer = ResultWriter(settings.name, bundle.id, decoder)
        score = Score(bundle.manifest.heads[0], decoder.heads[0].names)
        lines = stack.enter_context(_Lines(out)) if out is not None else None
        bar = stack.enter_context(_progress(quiet))
        task = bar.add_task(escape(source.path.name), total=source.n_samples)
        statuses: Counter[str] = Counter()
        began = time.perf_counter()
        results = play(source, decoder, speed=speed, progress=lambda chunk: bar.advance(task, len(chunk)))
        for seq, result in enumerate(results):
            statuses[result.status.value] += 1
            if result.heads and result.marker is not None:
                score.add(result.marker.value, result.heads[0])
            if lines is not None:
                message, arrays = writer.write(result)
                lines.write(to_json(msgspec.structs.replace(message, seq=seq), arrays) + b"\n")
        seconds = time.perf_counter() - began
        return {
            "recording": source.path.name,
            "bundle": bundle.manifest.name,
            "bundle_id": bundle.id[:12],
            "engine": f"{engine.info.runtime}, {engine.info.provider}",
            "declared_by_user": list(source.info.declared_by_user),
            "duration_s": source.duration,
            "wall_s": seconds,
            "times_real_time": source.duration / seconds,
            "cut": [describe_window(window) for window in decoder.windows],
            "windows": statuses.total(),
            "statuses": dict(sorted(statuses.items())),
            "incidents": [
                {"event": incident.event, "text": incident.text, **incident.details} for incident in decoder.incidents()
            ],
            "accuracy": _accuracy(score),
        }


class _Lines:
    """The file of results; what keeps it from being written is the argument's fault, not a bug."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained():
            self._file = path.open("wb")

    def write(self, line: bytes) -> None:
        """Append bytes."""
        with self._explained():
            self._file.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._explained():
            self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"--out {self._path} cannot be written: {error.strerror or error}; "
                "expected a file in a folder that exists, may be written to and has room"
            ) from error


def _sliding(bundle: "Bundle", hop: float) -> "WindowSpec":
    """Sliding windows of the bundle's own length."""
    from rtdecode.stream.window import Sliding

    if not 0 < hop < math.inf:
        raise ConfigError(f"--hop {hop}: expected seconds, more than 0")
    return Sliding(name="sliding", length=bundle.manifest.windows[0].duration, hop=hop)


def _accuracy(score: "Score") -> dict[str, Any] | None:
    import msgspec

    accuracy = score.accuracy()
    if accuracy is None:
        return None
    confusion = [{"truth": truth, "decoded": name, "n": n} for (truth, name), n in sorted(score.confusion.items())]
    return {**msgspec.to_builtins(accuracy), "confusion": confusion}


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
        transient=True,
    )


# --- the summary ------------------------------------------------------------------------------------------------------


def _print(summary: dict[str, Any], console: Console) -> None:
    console.print(
        f"[bold]{escape(summary['recording'])}[/] with [bold]{escape(summary['bundle'])}[/] "
        f"({summary['bundle_id']}) on {escape(summary['engine'])}"
    )
    for flag in summary["declared_by_user"]:
        console.print(f"declared by you, not by the recording: {escape(flag)}", style="yellow")
    counts = ", ".join(f"{n} {status}" for status, n in summary["statuses"].items()) or "none"
    console.print(f"{summary['windows']} windows due: {counts}")
    console.print(
        f"{summary['duration_s']:.1f} s decoded in {summary['wall_s']:.2f} s: "
        f"{summary['times_real_time']:.0f} times real time"
    )
    for incident in summary["incidents"][:_SHOWN]:
        console.print(escape(f"{incident['event']}: {incident['text']}"), style="yellow")
    if len(summary["incidents"]) > _SHOWN:
        console.print(f"... and {len(summary['incidents']) - _SHOWN} more; --json has them all", style="yellow")
    if not summary["windows"]:
        cut = "; ".join(summary["cut"])
        console.print(f"nothing was due ({escape(cut)}): is the recording long enough, and does it hold such markers?")
        return
    accuracy = summary["accuracy"]
    if accuracy is None:
        console.print("no marker of the decoded windows tells the truth: nothing to score")
        return
    hits = round(accuracy["top1"] * accuracy["windows"])
    line = f"right: {hits} of {accuracy['windows']}, top-1 {accuracy['top1']:.1%} (chance {accuracy['chance']:.1%}"
    line += f", p = {accuracy['p_value']:.2g})"
    if accuracy["k"] > 1:
        line += f"; top-{accuracy['k']} {accuracy['topk']:.1%} (chance {accuracy['chance_topk']:.1%})"
    console.print(line)
    names = sorted({row[key] for row in accuracy["confusion"] for key in ("truth", "decoded")})
    if len(names) <= 12:
        console.print(_confusion(accuracy["confusion"], names))


def _confusion(rows: list[dict[str, Any]], names: list[str]) -> Table:
    counts = {(row["truth"], row["decoded"]): row["n"] for row in rows}
    table = Table(title="truth (rows) against decoded (columns)", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(escape(name), justify="right")
    for truth in names:
        table.add_row(escape(truth), *(str(counts.get((truth, name), 0)) for name in names))
    return table
