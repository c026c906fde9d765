"""``rtdecode session``: recorded sessions, after the fact."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtdecode.errors import ConfigError

if TYPE_CHECKING:
    from rtdecode.record.repair import Progress

session_app = typer.Typer(no_args_is_help=True, help="Look at, repair and convert what the daemon recorded.")

File = Annotated[Path, typer.Argument(help="A recorded session, or any XDF file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


#: What a copy without names and dates still tells.
_STAYS = (
    "texts of markers, names of streams (a played file's is the file's own), of channels and of pipelines, and host "
    "names of one or two letters are as they were: look whether they tell who it is"
)


class Form(StrEnum):
    """What a session can become."""

    fif = "fif"
    bids = "bids"
    xdf = "xdf"


@session_app.command()
def info(file: File, as_json: AsJson = False) -> None:
    """Say what a file holds: streams, samples, holes, events, results, and whether it is whole.

    Ends with 0 whether or not the file is whole; `whole` in the JSON tells.

    Example: rtdecode session info sub-01_task-gaze_run-01_eeg.xdf
    """
    from rtdecode.record.info import describe

    with _bar(file, "reading", quiet=as_json) as progress:
        found = describe(file, progress)
    typer.echo(json.dumps(found)) if as_json else _print(found)


@session_app.command()
def repair(
    file: File,
    out: Annotated[
        Path | None, typer.Option(help="Write the whole file here, and leave FILE alone; by default it takes its name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a file whole that was cut short (a kill, a power cut, a full disk) or damaged.

    Sound chunks are kept as they are, and the missing ends are added. The file as it was stays, as FILE.cut.

    Example: rtdecode session repair sub-01_task-gaze_run-01_eeg.xdf
    """
    from rtdecode.record.repair import repair as make_whole

    with _bar(file, "reading", quiet=as_json) as progress:
        done = make_whole(file, out, progress)
    findings = done.findings
    told = {
        "file": str(done.path),
        "kept": None if done.kept is None else str(done.kept),
        "was_whole": findings.whole,
        "lost_bytes": findings.lost_bytes,
        "closed_streams": len(findings.unclosed),
    }
    if as_json:
        typer.echo(json.dumps(told))
    elif findings.whole:
        typer.echo(f"{done.path} is whole" if out is None else f"{file} is whole; copied to {done.path}")
    else:
        typer.echo(
            f"{done.path} is whole now: {findings.lost_bytes} bytes of {findings.size} were no sound chunk, "
            f"{len(findings.unclosed)} streams had no end"
            + ("" if done.kept is None else f"; as it was it is kept as {done.kept}")
        )


@session_app.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(help="The FIF or XDF file, or the folder of the BIDS data set.")],
    to: Annotated[Form, typer.Option("--to", help="fif, bids (needs the extra 'bids'), or xdf (with --deidentify).")],
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Leave out names and dates. Samples and texts of markers stay.")
    ] = False,
    subject: Annotated[str, typer.Option(help="bids: the subject's label.")] = "",
    session: Annotated[str, typer.Option(help="bids: the session's label.")] = "",
    task: Annotated[str, typer.Option(help="bids: the task's label.")] = "rtdecode",
    run: Annotated[int | None, typer.Option(min=1, help="bids: the run's number.")] = None,
) -> None:
    """Convert a session to FIF or BIDS, or copy it without names and dates.

    Holes become zeros that are annotated BAD_ACQ_SKIP; markers become annotations.

    Examples: rtdecode session convert s.xdf s_raw.fif --to fif; rtdecode session convert s.xdf anonymous.xdf --to xdf
    --deidentify
    """
    if to is Form.xdf:
        _to_xdf(file, out, deidentify)
        return
    from rtdecode.record.convert import to_bids, to_fif
    from rtdecode.record.names import Entities

    with _bar(file, "converting", quiet=False):
        if to is Form.fif:
            to_fif(file, out, anonymous=deidentify)
        else:
            entities = Entities(subject=subject, session=session, task=task, run=run)
            out = to_bids(file, out, entities, anonymous=deidentify)
    typer.echo(f"wrote {out}; {_STAYS}" if deidentify else f"wrote {out}")


def _to_xdf(file: Path, out: Path, deidentify: bool) -> None:
    from rtdecode.record.deidentify import deidentify as copy_without

    if not deidentify:
        raise ConfigError("--to xdf copies without names and dates: add --deidentify")
    with _bar(file, "copying", quiet=False) as progress:
        copy_without(file, out, progress)
    typer.echo(f"wrote {out}; {_STAYS}")


@contextmanager
def _bar(file: Path, what: str, *, quiet: bool) -> "Iterator[Progress]":
    """A bar over the bytes of a file, where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    ) as bar:
        task = bar.add_task(f"{what} {file.name}".replace("[", "("), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rtdecode.record.repair import NO_STREAM

    console = Console()
    state = "whole" if found["whole"] else "being written" if found["written"] else "NOT WHOLE"
    console.print(f"[bold]{escape(found['file'])}[/]: {found['bytes']} bytes, {state}")
    if not found["whole"]:
        told = f"{found['lost_bytes']} bytes are no sound chunk, {found['unclosed']} streams have no end: "
        if found["written"]:
            told += "it is being recorded now, or repaired"
        elif not found["streams"]:
            told = f"it {NO_STREAM}"
        else:
            told += "rtdecode session repair makes it whole"
        console.print(told, style="yellow", soft_wrap=True)
    table = Table("stream", "type", "format", "channels", "Hz", "samples", "seconds", box=None, header_style="bold")
    for one in found["streams"]:
        table.add_row(
            escape(one["name"]),
            escape(one["type"]),
            one["format"],
            str(one["channels"]),
            f"{one['sfreq']:g}",
            str(one["samples"]),
            f"{one['seconds']:.3f}",
        )
    console.print(table)
    session = found["session"]
    if session is None:
        return
    console.print(
        f"recorded by {escape(session['writer'] or 'rtdecode')} from {escape(session['source'])}: {session['samples']} "
        f"samples in {session['seconds']:.1f} s, {session['segments']} segments, {session['holes']} holes, "
        f"{session['markers']} markers"
    )
    for name, counts in session["results"].items():
        told = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        console.print(f"published by {escape(name)}: {told}")
    for name, n in sorted(session["events"].items()):
        console.print(f"event {escape(name)}: {n}", style="dim")
