"""``rtdecode run``: a whole session."""

import os
from pathlib import Path
from typing import Annotated

import typer


def run(
    config: Annotated[Path, typer.Argument(help="The session's TOML file.")],
    hold: Annotated[
        int,
        typer.Option(help="A recording or simulation waits for so many others, besides the pipelines.", min=0),
    ] = 0,
) -> None:
    """Run a session: one process that owns the source, and one for each pipeline.

    Prints a line that begins with READY when all decode. Ends with the source, or on SIGTERM or Ctrl-C, with every
    result published; the exit code is that of the first process that failed.

    Example: rtdecode run session.toml
    """
    from rtdecode.daemon.process import ONE_THREAD

    for name, value in ONE_THREAD.items():  # before numpy is imported
        os.environ.setdefault(name, value)
    from rtdecode.config import load
    from rtdecode.daemon.process import configure_logging
    from rtdecode.daemon.supervisor import Supervisor

    loaded = load(config)
    configure_logging(process="run")
    code = Supervisor(loaded, hold=hold).run()
    if code:
        raise typer.Exit(code)
