"""``rtdecode decode``: the process that runs one pipeline."""

import os
from pathlib import Path
from typing import Annotated

import typer


def decode(
    config: Annotated[Path, typer.Argument(help="The session's TOML file.")],
    pipeline: Annotated[str, typer.Argument(help="Which of its pipelines.")],
) -> None:
    """Decode with one pipeline of a session, and publish its results. `run` starts one for each.

    Prints a line that begins with READY once the bundle is verified on this machine and the stream meets its contract.
    Ends with the source, or on SIGTERM, with every result published.

    Example: rtdecode decode session.toml gaze
    """
    from rtdecode.daemon.process import ONE_THREAD

    for name, value in ONE_THREAD.items():  # before numpy is imported
        os.environ.setdefault(name, value)
    from rtdecode.config import load
    from rtdecode.daemon import realtime
    from rtdecode.daemon.decode import Decode
    from rtdecode.daemon.endpoints import endpoints
    from rtdecode.daemon.process import announce, configure_logging, stop_on_signals

    loaded = load(config)
    configure_logging(process="decode", pipeline=pipeline)
    loaded.pipeline(pipeline)
    control = endpoints(loaded).decoders[pipeline]

    def ready(publish: str) -> None:
        announce(f"READY decode pipeline={pipeline} publish={publish} control={control}")

    with stop_on_signals() as stop:
        realtime.apply(loaded, "decode", stop.supervised)
        Decode(loaded, pipeline, stop).run(ready)
