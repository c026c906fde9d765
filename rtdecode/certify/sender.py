"""The process of the stand-ins: it announces streams, begins with the first line on standard input, and keeps pace.

The line ``stop`` ends it with a line of JSON on standard output, which says how many samples went out and how late: the
sender's own share of the way. It ends at once when standard input closes, which happens when its parent is gone.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from rtdecode import hostclock
from rtdecode.certify.figures import distribution
from rtdecode.certify.standin import StandIn, StandInSource
from rtdecode.errors import RtdecodeError
from rtdecode.sources.fieldtrip_sender import FieldTripSender
from rtdecode.sources.pacing import LEAD_S
from rtdecode.sources.sender import LslSender, require_consumers
from rtdecode.sources.zmq_sender import ZmqSender
from rtdecode.wire.clock import clock_id

#: Seconds for the stream to be taken, counted from the line.
CONSUMERS_TIMEOUT_S = 60.0

_PR_SET_TIMERSLACK = 29


class _StoppedError(Exception):
    """Somebody said stop."""


def make_sender(what: StandIn) -> LslSender | ZmqSender | FieldTripSender:
    """What serves the stand-in; it is to be found as soon as it is made."""
    info, chunk_s = what.info(), what.chunk / what.sfreq
    if what.transport == "zmq":
        return ZmqSender(
            info,
            what.name,
            what.endpoint,
            bind=what.bind,
            markers=bool(what.markers),
            chunk_s=chunk_s,
            clock=clock_id(),
        )
    if what.transport == "fieldtrip":
        host, _, port = what.endpoint.rpartition(":")
        return FieldTripSender(info, host, int(port), events=bool(what.markers), chunk_s=chunk_s)
    return LslSender(info, what.name, marker_name=what.marker_name, chunk_s=chunk_s, source_id=what.name)


def serve(standins: tuple[StandIn, ...]) -> None:
    """Serve all stand-ins, each by a thread of its own; see the module."""
    with contextlib.ExitStack() as stack:
        served = [_Served(one, make_sender(one), seed) for seed, one in enumerate(standins)]
        for one in served:
            stack.enter_context(one.sender)
        if not sys.stdin.readline():
            return
        stopped = threading.Event()
        threading.Thread(target=_obey, args=(stopped,), name="lifeline", daemon=True).start()
        for one in served:
            require_consumers(one.sender, CONSUMERS_TIMEOUT_S)
        if sys.platform == "linux":  # an amplifier keeps time
            ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
        gc.collect()
        gc.freeze()
        start = hostclock.now() + LEAD_S
        with ThreadPoolExecutor(len(served)) as pool:
            # Not all at once: amplifiers know nothing of each other.
            running = [
                pool.submit(one.run, start + n / len(served) * one.what.chunk / one.what.sfreq, stopped)
                for n, one in enumerate(served)
            ]
            for one_run in running:
                one_run.result()
        found = distribution([late for one in served for late in one.late])
        told: dict[str, float] = {"samples": sum(one.sender.samples_sent for one in served)}
        if found is not None:
            told |= {"chunks": found.windows, "p50_ms": found.p50, "p99_ms": found.p99, "worst_ms": found.worst}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        os._exit(0)  # liblsl's threads may take their time


class _Served:
    """One stand-in and how late each of its chunks went out, in milliseconds after its newest sample's stamp."""

    def __init__(self, what: StandIn, sender: LslSender | ZmqSender | FieldTripSender, seed: int) -> None:
        self.what = what
        self.sender = sender
        self.late: list[float] = []
        self._source = StandInSource(what, seed)

    def run(self, start: float, stopped: threading.Event) -> None:
        """Send until somebody says stop."""

        def progress(newest: float) -> None:
            self.late.append((hostclock.now() - start - newest) * 1e3)
            if stopped.is_set():
                raise _StoppedError

        with contextlib.suppress(_StoppedError):
            self.sender.serve(self._source, start=start, progress=progress)


def _obey(stopped: threading.Event) -> None:
    while line := sys.stdin.readline():
        if line.strip() == "stop":
            stopped.set()
    os._exit(0)


def main() -> int:
    """Entry of ``python -m rtdecode.certify.sender``."""
    parser = argparse.ArgumentParser(prog="rtdecode.certify.sender", description=__doc__)
    parser.add_argument("standins", type=Path, help="JSON file: a list of StandIns")
    arguments = parser.parse_args()
    try:
        serve(msgspec.json.decode(arguments.standins.read_bytes(), type=tuple[StandIn, ...]))
    except RtdecodeError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
