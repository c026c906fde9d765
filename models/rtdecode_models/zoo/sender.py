"""Noise over LSL, as a process of its own: an amplifier with a bundle's channels, rate and units, and its markers.

It announces its streams, waits for a line on standard input, serves so many seconds, and ends; or as soon as standard
input closes.
"""

import argparse
import os
import sys
import threading
from pathlib import Path

from rtdecode.encode.bundle import Bundle
from rtdecode.errors import RtdecodeError
from rtdecode.sources.sender import LslSender, require_consumers
from rtdecode_models.zoo.noise import NoiseSource, markers_of

#: Seconds for the streams to be taken.
CONSUMERS_TIMEOUT_S = 90.0


def serve(bundle: Path, name: str, seconds: float) -> None:
    """Serve noise on the stream `name`, and its markers, where the bundle's windows have some, on ``name-markers``.

    Raises
    ------
    StreamNotFoundError
        Nobody took the streams.
    """
    manifest = Bundle.open(bundle).manifest
    source = NoiseSource(manifest.contract, manifest.windows, seconds)
    marked = f"{name}-markers" if markers_of(manifest.windows) else None
    with source, LslSender(source.info, name, marker_name=marked, source_id=name) as sender:
        if not sys.stdin.readline():
            return
        threading.Thread(target=_end_with_stdin, name="lifeline", daemon=True).start()
        require_consumers(sender, CONSUMERS_TIMEOUT_S)
        sender.serve(source)
        sender.drain()


def _end_with_stdin() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)


def main() -> int:
    """Entry of ``python -m rtdecode_models.zoo.sender``."""
    parser = argparse.ArgumentParser(prog="rtdecode_models.zoo.sender", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    try:
        serve(arguments.bundle, arguments.name, arguments.seconds)
    except RtdecodeError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
