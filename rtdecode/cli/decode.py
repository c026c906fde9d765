"""``rtdecode decode``: the process that runs a pipeline, or a row of them."""

import os
from pathlib import Path
from typing import Annotated

import typer


def decode(
    config: Annotated[Path, typer.Argument(help="The session's TOML file.")],
    name: Annotated[str, typer.Argument(help="Which of its pipelines; or which of its processes, such as decode.1.")],
) -> None:
    """Decode with one pipeline of a session, or those that share a process, and publish the results. `run` starts all.

    Prints a line that begins with READY once the bundle is verified on this machine and the stream meets its contract.
    Ends with the source, or on SIGTERM, with every result published.

    Example: rtdecode decode session.toml gaze
    """
    from rtdecode.daemon.process import ONE_THREAD

    for variable, value in ONE_THREAD.items():  # before numpy is imported
        os.environ.setdefault(variable, value)
    from rtdecode.config import load
    from rtdecode.daemon import realtime
    from rtdecode.daemon.decode import Decode, members
    from rtdecode.daemon.endpoints import endpoints
    from rtdecode.daemon.process import announce, configure_logging, stop_on_signals

    loaded = load(config)
    configure_logging(process="decode", pipeline=name)
    names = members(loaded, name)
    control = endpoints(loaded).decoders[names[0]]
    who = f"pipeline={name}" if names == (name,) else f"process={name} pipelines={len(names)}"

    def ready(publish: str) -> None:
        announce(f"READY decode {who} publish={publish} control={control}")

    with stop_on_signals() as stop:
        realtime.apply(loaded, "decode", stop.supervised)
        Decode(loaded, name, stop).run(ready)
