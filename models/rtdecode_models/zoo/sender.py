"""Noise over LSL, as a process of its own: an amplifier with a bundle's channels, rate and units, and its markers.

It announces its streams, waits for a line on standard input, serves so many seconds, and ends; or as soon as standard
input closes.
"""

import argparse
import sys
from pathlib import Path

from rtdecode.encode.bundle import Bundle
from rtdecode.sources.child_sender import exit_code_of, serve_when_told
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
    marked = f"{name}-markers" if markers_of(manifest.windows) else None
    with NoiseSource(manifest.contract, manifest.windows, seconds) as source:
        serve_when_told(source, source.info, name, marked, CONSUMERS_TIMEOUT_S)


def main() -> int:
    """Entry of ``python -m rtdecode_models.zoo.sender``."""
    parser = argparse.ArgumentParser(prog="rtdecode_models.zoo.sender", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    return exit_code_of(lambda: serve(arguments.bundle, arguments.name, arguments.seconds))


if __name__ == "__main__":
    sys.exit(main())
