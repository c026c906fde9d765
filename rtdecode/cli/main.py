"""The command ``rtdecode``: one verb for each job, each in a file of its own.

A verb is imported only when it is called (or when all are listed), so that ``rtdecode listen`` starts without the
inference runtime and ``rtdecode acquire`` without the encoders.
"""

import errno
import importlib
import io
import os
import sys
from importlib.metadata import entry_points
from typing import Any, NoReturn

import typer
from rich.console import Console

from rtdecode.errors import ConfigError, RtdecodeError

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
    "session": "rtdecode.cli.session:session_app",
    "bundle": "rtdecode.cli.bundle:bundle_app",
    "chaos": "rtdecode.cli.chaos:chaos",
    "certify": "rtdecode.cli.certify:certify",
}

#: A disk that is full, or of which no more is allowed; Windows knows no quota. EFBIG: a file that may not grow further.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def build_app(verb: str | None) -> typer.Typer:
    """The command line with one verb, or with all of them where `verb` is none of them (``--help``, a typo)."""
    places = VERBS | {entry.name: entry.value for entry in entry_points(group="rtdecode.verbs")}
    app = typer.Typer(
        name="rtdecode",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        help="Decode brain recordings while they run.",
    )
    app.callback()(_root)
    if verb in places:
        places = {verb: places[verb]}
    for name, place in places.items() if verb != "--version" else ():
        command = _load(place)
        if isinstance(command, typer.Typer):
            for entry in entry_points(group=f"rtdecode.verbs.{name}"):  # sub-verbs that need more than the daemon does
                command.command(name=entry.name)(entry.load())
            app.add_typer(command, name=name)
        else:
            app.command(name=name)(command)
    return app


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rtdecode {version('rtdecode')}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Decode brain recordings while they run."""


def main() -> None:
    """Run the command line; an `RtdecodeError` becomes its message and its exit code, a bug a traceback and 70."""
    verb = sys.argv[1] if len(sys.argv) > 1 else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names and arrows reach terminals and logs that know only ASCII
            stream.reconfigure(errors="backslashreplace")
    try:
        build_app(verb)()
    except RtdecodeError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _FULL:
            sys.excepthook(*sys.exc_info())
            sys.exit(70)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's own flush at exit must not fail again
        what = "what is printed or written" if error.filename is None else error.filename
        _fail(ConfigError(f"{what} has no room ({error.strerror}); free some, or write elsewhere"))
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(70)


def _fail(error: RtdecodeError) -> NoReturn:
    Console(stderr=True, highlight=False).print(f"[bold red]rtdecode: {type(error).__name__}:[/]", end=" ")
    sys.stderr.write(f"{error}\n")
    sys.exit(error.exit_code)
