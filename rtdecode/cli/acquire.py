"""``rtdecode acquire``: the process that owns the source."""

from pathlib import Path
from typing import Annotated

import typer


def acquire(
    config: Annotated[Path, typer.Argument(help="The session's TOML file.")],
    process: Annotated[
        str, typer.Argument(help="Which of the processes that own sources, where there are several.")
    ] = "acquire",
    hold: Annotated[
        int, typer.Option(help="Wait for so many decoders before a recording or a simulation starts.", min=0)
    ] = 0,
    resumed: Annotated[
        bool, typer.Option("--resumed", help="The session has begun already, in a process that crashed.")
    ] = False,
) -> None:
    """Read the source (or a row of them), and serve its samples to the decoders. One process of a session.

    Prints a line that begins with READY once the stream is found. Ends with the source, or on SIGTERM.

    Example: rtdecode acquire session.toml
    """
    from rtdecode.config import load
    from rtdecode.daemon import realtime
    from rtdecode.daemon.acquire import Acquire
    from rtdecode.daemon.endpoints import endpoints
    from rtdecode.daemon.process import announce, configure_logging, stop_on_signals

    loaded = load(config)
    configure_logging(process=process)

    def ready() -> None:
        found = endpoints(loaded).at(process)
        announce(f"READY acquire samples={found.samples} log={found.log} control={found.acquire}")

    with stop_on_signals() as stop:
        realtime.apply(loaded, "acquire", stop.supervised)
        Acquire(loaded, stop, process=process).run(ready, hold=hold, resumed=resumed)
