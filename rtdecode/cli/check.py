"""``rtdecode check``: everything that is wrong with a session, before it is started."""

import json
from pathlib import Path
from typing import Annotated

import typer


def check(
    config: Annotated[Path, typer.Argument(help="The session's TOML file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: file, ok, problems.")] = False,
) -> None:
    """Say everything that is wrong at once, each with its place. Exits with 0 where nothing is, else with 2.

    Example: rtdecode check session.toml
    """
    from rtdecode.daemon.check import check as look

    problems = look(config)
    if as_json:
        listed = [{"place": one.place, "line": one.line, "message": one.message} for one in problems]
        typer.echo(json.dumps({"file": str(config), "ok": not problems, "problems": listed}))
    elif problems:
        typer.echo(f"{config}: {len(problems)} problem{'s' if len(problems) != 1 else ''}", err=True)
        for problem in problems:
            typer.echo(f"  {problem}", err=True)
    else:
        typer.echo(f"{config}: nothing is wrong")
        _say_processes(config)
    if problems:
        raise typer.Exit(2)


def _say_processes(config: Path) -> None:
    """Which process has what, where one has more than one thing."""
    from rtdecode.config import load
    from rtdecode.config.processes import layout

    hosts = layout(load(config))
    if all(len(host.members) == 1 for host in (*hosts.acquire, *hosts.decode)):
        return
    for host, what in [*((one, "source") for one in hosts.acquire), *((one, "pipeline") for one in hosts.decode)]:
        n = len(host.members)
        typer.echo(f"  process {host.name}: {n} {what}{'s' if n > 1 else ''} ({', '.join(host.members)})")
