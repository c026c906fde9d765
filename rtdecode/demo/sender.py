"""The demo's amplifier and stimulus computer as a process of its own: the simulated subject over LSL.

It announces its streams, waits for a line on standard input, serves the session in real time, and ends with it; or as
soon as standard input closes, which happens when the demo is gone, however it went.
"""

import argparse
import sys

from rtdecode.sources.child_sender import exit_code_of, serve_when_told
from rtdecode.sources.simulated import SimulatedSource

#: Seconds for both streams to be taken, counted from the line.
CONSUMERS_TIMEOUT_S = 10.0


def serve(name: str, seed: int, seconds: float) -> None:
    """Serve one session on the streams `name` and ``name-markers``; see the module.

    Raises
    ------
    StreamNotFoundError
        Nobody took the streams.
    """
    with SimulatedSource(seed=seed, seconds=seconds, speed=None) as source:
        serve_when_told(source, source.info, name, f"{name}-markers", CONSUMERS_TIMEOUT_S)


def main() -> int:
    """Entry of ``python -m rtdecode.demo.sender``."""
    parser = argparse.ArgumentParser(prog="rtdecode.demo.sender", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    return exit_code_of(lambda: serve(arguments.name, arguments.seed, arguments.seconds))


if __name__ == "__main__":
    sys.exit(main())
