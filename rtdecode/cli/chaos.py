"""``rtdecode chaos``: faults on purpose, against a live daemon."""

import json
import shutil
import signal
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rtdecode.chaos.faults import FAULTS, faults_over, unknown
from rtdecode.chaos.run import Chaos, Row
from rtdecode.chaos.stage import Over, Stage
from rtdecode.errors import ConfigError, ProcessError


class _Over(StrEnum):
    LSL = "lsl"
    ZMQ = "zmq"
    FIELDTRIP = "fieldtrip"


def chaos(
    over: Annotated[
        list[_Over] | None,
        typer.Option(help="Transport; may be given more than once. All of them where none is given."),
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="Only faults whose name holds this; may be given more than once.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the faults and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The rows as one line of JSON on standard output.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave logs and recordings, and say where.")] = False,
) -> None:
    """Do harm to a live daemon and count the windows that come out wrong, which must be none.

    For each transport: a sender in a process of its own whose samples hold their own numbers, ``rtdecode run`` with a
    recording, and a subscriber. Sender, processes, disk and clock are then troubled one after the other. See
    docs/chaos.md for what the columns mean. Needs Linux; takes about five minutes.

    Example: rtdecode chaos --over lsl --fault killed --fault paused
    """
    names = tuple(fault or ())
    if wrong := unknown(names):
        raise ConfigError(f"no fault is called {wrong[0]!r}; see rtdecode chaos --list")
    if listed:
        for one in FAULTS:
            typer.echo(f"{one.name}  ({', '.join(one.over)})")
        return
    if sys.platform != "linux":
        raise ConfigError(f"chaos pauses processes and limits their files as Linux does; this is {sys.platform}")
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the processes must not outlive us
        signal.signal(number, signal.default_int_handler)
    console = Console(stderr=True, highlight=False)
    rows: list[Row] = []
    problems: list[str] = []
    for one_way in over or _Over:
        transport: Over = one_way.value
        if chosen := faults_over(transport, names):
            stage = Stage(transport)
            try:
                with stage:
                    run = Chaos(stage, lambda line: console.print(line, style="dim"))
                    done = run.run(chosen)
                    problems += [f"{transport}: {one}" for one in run.close()]
                    rows += done
            finally:  # also where somebody ends it
                if keep:
                    console.print(f"logs and recordings: {stage.folder}", soft_wrap=True)
                else:
                    shutil.rmtree(stage.folder, ignore_errors=True)
    if as_json:
        typer.echo(json.dumps({"rows": [row.as_dict() for row in rows], "problems": problems}))
    else:
        Console(highlight=False, width=max(120, console.width)).print(_table(rows))
    problems += [f"{row.over}, {row.fault}: {one}" for row in rows for one in row.problems]
    if problems:
        raise ProcessError("not everything was as it must be:\n  " + "\n  ".join(problems))


def _table(rows: list[Row]) -> Table:
    table = Table(title="one sender, one daemon, one fault after the other")
    for name in ("fault", "over", "detected\nafter", "recovered\nafter", "windows", "windows\nlost", "windows\nwrong"):
        table.add_column(name, justify="left" if name in ("fault", "over") else "right")
    table.add_column("recorded\nsamples lost", justify="right")
    for row in rows:
        cells = [row.fault, row.over, _seconds(row.detected_s), _seconds(row.recovered_s)]
        cells += [str(row.windows), str(row.lost), str(row.wrong)]
        table.add_row(*cells, f"{row.samples_lost}{f' ({row.outage})' if row.outage else ''}")
    return table


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"
