"""The demo's amplifier and stimulus computer as a process of its own: the simulated subject over LSL.

It announces its streams, waits for a line on standard input, serves the session in real time, and ends with it; or as
soon as standard input closes, which happens when the demo is gone, however it went.
"""

import argparse
import os
import sys
import threading

from rtdecode.errors import RtdecodeError
from rtdecode.sources.sender import LslSender, require_consumers
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
    source = SimulatedSource(seed=seed, seconds=seconds, speed=None)
    with source, LslSender(source.info, name, marker_name=f"{name}-markers", source_id=name) as sender:
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
    """Entry of ``python -m rtdecode.demo.sender``."""
    parser = argparse.ArgumentParser(prog="rtdecode.demo.sender", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    try:
        serve(arguments.name, arguments.seed, arguments.seconds)
    except RtdecodeError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
