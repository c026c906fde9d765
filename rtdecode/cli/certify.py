"""``rtdecode certify``: whether this machine serves a configuration in time, measured."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rtdecode.errors import ConfigError

#: Exit codes of a verdict that is not PASS; all others are those of docs/daemon.md.
FAILED, INCONCLUSIVE = 1, 10

#: Columns that the table takes; lines are as long as they are.
WIDTH = 118

#: Seconds from one look at what came so far to the next.
_SHOWN_EVERY_S = 1.0

_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def certify(
    config: Annotated[Path, typer.Argument(help="The session's TOML file.")],
    minutes: Annotated[float, typer.Option(min=0.01, max=10_080, help="How long to measure.")] = 5.0,
    seconds: Annotated[float | None, typer.Option(min=1.0, help="The same in seconds, in place of --minutes.")] = None,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds before that, which do not count.")] = 3.0,
    require: Annotated[
        float, typer.Option(min=1.0, max=99.9999, help="Percent of the windows that must come within the budget.")
    ] = 99.9,
    confidence: Annotated[float, typer.Option(min=50.0, max=99.999, help="Percent, of the verdict.")] = 95.0,
    budget_ms: Annotated[
        float | None, typer.Option(min=0.0001, help="For every pipeline, in place of its own budget.")
    ] = None,
    load: Annotated[
        str, typer.Option(help="What runs beside it: cpu=N, memory=GB, disk; any of them, as in cpu=2,disk.")
    ] = "",
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Samples that the stand-in sends at once; 20 ms of them.")
    ] = None,
    marker_s: Annotated[float, typer.Option(min=0.01, help="Seconds from one of its markers to the next.")] = 1.0,
    live: Annotated[bool, typer.Option("--live", help="Use the source as it is, with no sender in its place.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the certificate here; - is standard output.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write certificate.json, two pictures and a page here. Needs rtdecode[report]."
        ),
    ] = None,
) -> None:
    """Measure whether this machine serves a configuration in time, and say what to change.

    Runs the configuration's own processes for some minutes, with a sender in the amplifier's place and a subscriber of
    its own, and gives every stage's distribution, a verdict and advice. Nothing is published or recorded where the
    configuration says; results go to the certifier alone. Exits with 0 for PASS, 1 for FAIL, 10 for INCONCLUSIVE. See
    docs/certify.md.

    Example: rtdecode certify session.toml --minutes 5 --load cpu=1,disk --report certified
    """
    from rtdecode.certify import machine
    from rtdecode.certify.certificate import certificate
    from rtdecode.certify.load import parse_load
    from rtdecode.certify.plan import Wishes
    from rtdecode.certify.session import Session
    from rtdecode.certify.verdict import Rule
    from rtdecode.config import load as load_config

    if report is not None:
        _require_pictures(report)
    beside = parse_load(load, machine.usable_cores(), machine.available_gb())
    wishes = Wishes(live=live, chunk=chunk, marker_s=marker_s, budget_ms=budget_ms)
    length = minutes * 60.0 if seconds is None else seconds
    loaded = load_config(config)
    console = Console(stderr=True, highlight=False)
    for number in (signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else [])):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: with what there is, and no process left
    with _progress(console, length) as progress:
        measured = Session(loaded, wishes, length, warmup, beside, progress).run()
    found, windows = certificate(measured, Rule(require / 100, confidence / 100))
    _write(found, json_file)
    if report is not None:
        from rtdecode.certify.page import write_report

        write_report(report, found, windows)
        console.print(f"report: {report / 'certificate.html'}", soft_wrap=True)
    if json_file is None or str(json_file) != "-":
        page = Console(highlight=False, width=max(WIDTH, console.width))
        for part in shown(found):
            page.print(part)
    if found["verdict"] != "PASS":
        raise typer.Exit(FAILED if found["verdict"] == "FAIL" else INCONCLUSIVE)


def _require_pictures(report: Path) -> None:
    """What the report needs is there before minutes are spent on it."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise ConfigError('--report draws with matplotlib, which is not installed; pip install "rtdecode[report]"')
    try:
        report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--report: {report} cannot be made: {error.strerror}; expected a folder") from None


def _write(found: dict[str, Any], path: Path | None) -> None:
    text = json.dumps(found, indent=2, ensure_ascii=False)
    if path is None:
        return
    if str(path) == "-":
        typer.echo(text)
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json: {path} cannot be written: {error.strerror}") from None


@contextmanager
def _progress(console: Console, length: float) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[said]}"))
    hidden = not console.is_terminal
    with Progress(*columns, console=console, refresh_per_second=2, transient=True, disable=hidden) as bar:
        task = bar.add_task("starting", total=length, said="")

        phase, at = "", 0.0

        def show(what: str, seconds: float, measured: Any) -> None:
            nonlocal phase, at
            if what == phase and time.monotonic() < at + _SHOWN_EVERY_S:  # looking costs what is being measured
                return
            at = time.monotonic()
            if what != phase and not console.is_terminal:  # a log wants a line for each, and no bar
                console.print(what)
            phase = what
            late = sum(window.met is False for window in measured.windows)
            said = f"{len(measured.windows)} windows, {late} out of budget" if measured.windows else ""
            bar.update(task, description=what, completed=seconds, said=said)

        yield show


def shown(found: dict[str, Any]) -> Iterator[Any]:
    """The certificate for a terminal."""
    yield Text(f"{found['config']}, {found['seconds']:.0f} s, load: {found['load']}", style="bold")
    for note in found["notes"]:
        yield Text(f"  {note}", style="dim")
    for name, pipeline in found["pipelines"].items():
        for window, kind in pipeline["kinds"].items():
            yield _table(name, window, pipeline, kind)
        yield _windows_line(pipeline)
    if found["advice"]:
        yield Text("\nwhat to change", style="bold")
    for one in found["advice"]:
        who = f" ({one['pipeline']})" if one["pipeline"] else ""
        yield Text.assemble((f"  {one['rule']}{who}: ", "bold"), one["figure"], "\n    → ", one["change"])
        yield Text(f"    gains {one['gain']}", style="dim")
    yield Text.assemble("\n", (found["verdict"], _STYLES[found["verdict"]]))
    for reason in found["reasons"]:
        yield Text(f"  {reason}")


def _table(name: str, window: str, pipeline: dict[str, Any], kind: dict[str, Any]) -> Table:
    engine = pipeline["engine"] or {}
    title = f"{name}, windows {window!r}: bundle {pipeline['bundle']['id'][:12]} on {engine.get('runtime', '?')}"
    from rtdecode.certify.page import NAMES

    table = Table(title=title, caption="milliseconds; ~ too few windows stand behind it", title_justify="left")
    table.add_column("stage", no_wrap=True)
    for column in ("p50", "p95", "p99", "p99.9", "p99.99", "worst", "jitter (sd)"):
        table.add_column(column, justify="right")
    for stage, label in NAMES.items():
        figures = kind["stages"][stage]
        if figures is None:
            continue
        cells = [f"{'' if one['supported'] else '~'}{one['ms']:.3f}" for one in figures["percentiles"].values()]
        style = "bold" if stage in ("processing", "end_to_end") else ""
        table.add_row(label, *cells, f"{figures['worst_ms']:.3f}", f"{figures['sd_ms']:.3f}", style=style)
    return table


def _windows_line(pipeline: dict[str, Any]) -> Text:
    counts = " + ".join(f"{n} {status}" for status, n in pipeline["windows"].items() if n) or "none"
    total = sum(pipeline["windows"].values())
    line = Text(f"  {total} windows = {counts}")
    if pipeline["budget_ms"] is not None and pipeline["counted"]:
        line.append(
            f"; {pipeline['in_budget']} of {pipeline['counted']} within {pipeline['budget_ms']:g} ms "
            f"({100 * pipeline['share']:.4g} %; at least {100 * pipeline['lower']:.4g} %)"
        )
    return line
