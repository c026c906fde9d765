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
    if problems:
        raise typer.Exit(2)
