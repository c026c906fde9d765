"""The command ``rtdecode``: one verb for each job, each in a file of its own.

A verb is imported only when it is called (or when all are listed), so that ``rtdecode listen`` starts without the
inference runtime and ``rtdecode acquire`` without the encoders.
"""

import importlib
import sys
from importlib.metadata import entry_points
from typing import Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from rtdecode.errors import RtdecodeError

#: Verb -> where its function (or its group of sub-verbs) lives, in the order in which ``--help`` lists them.
VERBS = {
    "demo": "rtdecode.cli.demo:demo",
    "run": "rtdecode.cli.run:run",
    "acquire": "rtdecode.cli.acquire:acquire",
    "decode": "rtdecode.cli.decode:decode",
    "listen": "rtdecode.cli.listen:listen",
    "stream": "rtdecode.cli.stream:stream",
    "replay": "rtdecode.cli.replay:replay",
    "check": "rtdecode.cli.check:check",
    "control": "rtdecode.cli.control:control",
    "bundle": "rtdecode.cli.bundle:bundle_app",
}


class _Verbs(TyperGroup):
    """Finds a verb by name when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *sorted(entry.name for entry in entry_points(group="rtdecode.verbs"))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        function = _load(cmd_name)
        if function is None:
            return None
        if isinstance(function, typer.Typer):
            group = typer.main.get_command(function)
            group.name = cmd_name
            return group
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name=cmd_name)(function)
        return typer.main.get_command(single)


def _load(name: str) -> Any:
    if name in VERBS:
        module, _, attribute = VERBS[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for entry in entry_points(group="rtdecode.verbs"):
        if entry.name == name:
            return entry.load()
    return None


app = typer.Typer(
    cls=_Verbs,
    name="rtdecode",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Decode brain recordings while they run.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rtdecode {version('rtdecode')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Decode brain recordings while they run."""


def main() -> None:
    """Run the command line; an `RtdecodeError` becomes its message and its exit code."""
    try:
        app()
    except RtdecodeError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]rtdecode: {type(error).__name__}:[/] ", end=""
        )
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
