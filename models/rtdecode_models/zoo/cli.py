"""The verb ``rtdecode zoo``."""

import contextlib
import json
import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rtdecode.errors import ConfigError
from rtdecode_export.cli import require_export_packages

if TYPE_CHECKING:
    from rtdecode_models.zoo.check import Row
    from rtdecode_models.zoo.entry import Entry


def zoo(
    names: Annotated[list[str] | None, typer.Argument(help="Which systems; all of them by default.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Build, export, time and run each of them, and compare with what it claims.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="A folder for their bundles, with weights at random: NAME.zip each.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="With --check: seconds of each live session; 0 runs none in the daemon.")
    ] = 10.0,
    page: Annotated[Path | None, typer.Option(help="With --check: write the table as this Markdown page, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each system.")] = False,
) -> None:
    """List the published systems that can be trained, exported and run, or check that each is what it claims to be.

    Example: rtdecode zoo --check atm-s nice
    """
    require_export_packages()
    import torch

    from rtdecode_models.zoo.registry import entries

    if not 0 <= seconds < math.inf:
        raise ConfigError(f"--seconds is {seconds:g}; expected 0 or more")
    torch.set_num_threads(1)
    chosen = _chosen(entries(), names or [])
    if page is not None and not check:
        raise ConfigError("--page is what --check found; give both")
    if out is not None:
        _make(out, "--out")
    if page is not None:
        _make(page.parent, "--page")
    if check:
        rows = _check(chosen, out, seconds or None, as_json)
        if page is not None:
            from rtdecode_models.zoo.page import write_page

            write_page(page, chosen, rows)
        raise typer.Exit(0 if all(row.good for row in rows) else 1)
    if out is not None:
        _write(chosen, out)
    elif as_json:
        for entry in chosen:
            typer.echo(json.dumps(_described(entry)))
    else:
        Console(highlight=False).print(_list(chosen))


def _chosen(all_: "Sequence[Entry]", names: Sequence[str]) -> "list[Entry]":
    known = {entry.name: entry for entry in all_}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"there is no system {unknown[0]!r} in the zoo; expected some of {', '.join(known)}")
    return [known[name] for name in names] or list(all_)


def _make(folder: Path, option: str) -> None:
    """Make a folder before the work that is to be kept there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option}: {folder} cannot be written: {error.strerror}; choose another folder") from error


def _write(chosen: "Sequence[Entry]", out: Path) -> None:
    from rtdecode_models.zoo.bundle import untrained

    for entry in chosen:
        report = untrained(entry, out / f"{entry.name}.zip")
        typer.echo(f"{report.bundle}: {report.parameters:,} parameters, weights at random")


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, or a terminal that is closed, ends the live session's processes and removes its folder, too."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _check(chosen: "Sequence[Entry]", out: Path | None, live_s: float | None, as_json: bool) -> "list[Row]":
    from rtdecode_models.zoo.check import check, scratch
    from rtdecode_models.zoo.results import read_results

    results = read_results()
    rows: list[Row] = []
    told = Console(stderr=True, highlight=False)
    with _ended_as_by_ctrl_c(), scratch() as folder, told.status("") as status:
        for number, entry in enumerate(chosen, start=1):

            def say(what: str, at: str = f"{number} of {len(chosen)}, {entry.name}") -> None:
                status.update(f"{at}: {what}")

            row = check(entry, out or Path(folder), results.get(entry.name, {}), live_s=live_s, say=say)
            rows.append(row)
            if as_json:
                typer.echo(json.dumps(asdict(row) | {"good": row.good}))
            elif row.fault:
                told.print(f"{entry.name}: {row.fault}", markup=False)
    if not as_json:
        Console(highlight=False).print(_table(rows))
    return rows


def _described(entry: "Entry") -> dict[str, object]:
    return {
        "name": entry.name,
        "title": entry.title,
        "paper": entry.paper,
        "card": f"docs/models/{entry.card}",
        "parameters": entry.parameters,
        "published": entry.published,
        "channels": len(entry.contract.channels),
        "sfreq": entry.contract.sfreq,
        "seconds": entry.window.duration,
        "budget_ms": entry.budget_ms,
        "hardware": entry.hardware,
        "recipe": entry.recipe,
    }


def _list(chosen: "Sequence[Entry]") -> Table:
    """One line for each system, within 80 columns: its name, what it takes, its size and its budget."""
    table = Table(title="published systems", caption="each has a card in docs/models/")
    table.add_column("name", no_wrap=True)
    table.add_column("input", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("budget", justify="right", no_wrap=True)
    for entry in chosen:
        stream = f"{len(entry.contract.channels)} ch, {entry.contract.sfreq:g} Hz, {entry.window.duration:.3g} s"
        table.add_row(entry.name, stream, f"{entry.parameters:,}", f"{entry.budget_ms:g} ms")
    return table


def _table(rows: "Sequence[Row]") -> Table:
    """One line for each system, within 80 columns: what it claims, and what was seen."""
    from rtdecode_models.zoo.page import share

    table = Table(
        title="published systems, checked",
        caption="parameters: = as published, ? not known; live: 99th percentile of what the budget allows;\n"
        "ceil: share of an ideal decoder's score (simulated), base: ridge's or a baseline's share;\n"
        "*: of fewer than three seeds",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for heading in ("system", "parameters", "parity", "p50 ms", "live ms", "ceil", "base"):
        table.add_column(heading, justify="left" if heading == "system" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            _counted(row),
            f"{row.parity:.0e}",
            f"{row.p50_ms:.2f}",
            _lived(row),
            share(row.result, "share"),
            share(row.result, "baseline_share"),
        )
    return table


def _counted(row: "Row") -> str:
    if row.published is None:
        return f"{row.parameters:,} ?"
    if row.published == row.parameters:
        return f"{row.parameters:,} ="
    return f"{row.parameters:,}  \nof {row.published:,}  "


def _lived(row: "Row") -> str:
    if row.live is None:
        return "not run"
    verdict = "yes" if row.live.good else "NO"
    return f"{verdict} {row.live.p99_ms:.1f}/{row.live.budget_ms:g}"
