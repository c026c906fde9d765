"""The sender of a chaos run, as a process of its own: an amplifier that can be told to misbehave.

It samples by the host's clock, sends every 40 ms what is due, and obeys lines of JSON on standard input: ``drop``,
``hold``, ``jitter``, ``skew``, ``spoil``. What it does it says on standard output, a line of JSON each, so that the run
knows the truth: its life's first stamp, the samples that it never sent, the clock that its stamps were read from.
"""

import argparse
import json
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.chaos import truth
from rtdecode.chaos.transports import Identity, Transport, make_transport
from rtdecode.errors import RtdecodeError

#: Seconds of samples that are sent at once.
BLOCK_S = 0.04


@dataclass(slots=True)
class Manner:
    """How the sender misbehaves at the moment."""

    drop: int = 0
    hold_until: float = 0.0
    jitter: float = 0.0
    skew: float = 0.0
    spoil: str = ""


class Sender:
    """Sends the truth by one transport.

    Parameters
    ----------
    transport : Transport
        Where samples and markers go.
    life : int
        Which life of the sender this is.
    sfreq : float
        Samples per second, in truth and as declared.
    """

    def __init__(self, transport: Transport, life: int, sfreq: float) -> None:
        self._transport = transport
        self._life = life
        self._sfreq = sfreq
        self._manner = Manner()
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._random = np.random.default_rng(life)
        self._next = 0

    def run(self) -> None:
        """Send until standard input closes."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        zero = hostclock.now()
        _say(life=self._life, zero=zero, sfreq=self._sfreq)
        while True:
            while not self._orders.empty():
                if not self._obey(self._orders.get()):
                    return
            now = hostclock.now()
            due = int((now - zero) * self._sfreq)
            if now >= self._manner.hold_until and due > self._next:
                self._send(zero, due - self._next)
            time.sleep(BLOCK_S)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._orders.put(json.loads(line))
        self._orders.put({"do": "end"})

    def _obey(self, order: dict[str, Any]) -> bool:
        match order["do"]:
            case "drop":
                self._manner.drop = int(order["n"])
            case "hold":
                self._manner.hold_until = hostclock.now() + float(order["s"])
            case "jitter":
                self._manner.jitter = float(order["s"])
            case "skew":
                self._manner.skew = float(order["s"])
                _say(life=self._life, skew=self._manner.skew, first=self._next)
            case "spoil":
                self._manner.spoil = str(order["how"])
            case "end":
                self._transport.close()
                return False
        return True

    def _send(self, zero: float, n: int) -> None:
        first, self._next = self._next, self._next + n
        if self._manner.drop:
            lost = min(n, self._manner.drop)
            self._manner.drop -= lost
            _say(life=self._life, dropped=[first, first + lost])
            self._transport.skip(lost)
            first, n = first + lost, n - lost
        if not n:
            return
        stamps = zero + self._manner.skew + np.arange(first, first + n) / self._sfreq
        if self._manner.jitter:
            stamps += self._random.uniform(-self._manner.jitter, self._manner.jitter, n)
        self._transport.samples(self._spoilt(truth.samples(first, n, self._life)), stamps)
        for at in range(first + -first % truth.MARK_EVERY, first + n, truth.MARK_EVERY):
            self._transport.marker(f"n{at}", float(stamps[at - first]), at)

    def _spoilt(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._manner.spoil == "nan":
            samples[:, -1] = np.nan
        elif self._manner.spoil == "flat":
            samples[:, -1] = 0.0
        return samples


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Entry of ``python -m rtdecode.chaos.sender``."""
    parser = argparse.ArgumentParser(prog="rtdecode.chaos.sender", description=__doc__)
    parser.add_argument("--transport", choices=["lsl", "zmq", "fieldtrip"], required=True)
    parser.add_argument("--address", required=True, help="name of the stream, or where it is served")
    parser.add_argument("--life", type=int, required=True)
    parser.add_argument("--source-id", default="chaos")
    parser.add_argument("--sfreq", type=float, default=truth.SFREQ)
    parser.add_argument("--names", default=",".join(truth.NAMES))
    parser.add_argument("--unit", default=truth.UNIT)
    arguments = parser.parse_args()
    identity = Identity(arguments.source_id, arguments.sfreq, tuple(arguments.names.split(",")), arguments.unit)
    try:
        transport = make_transport(arguments.transport, arguments.address, identity)
        Sender(transport, arguments.life, arguments.sfreq).run()
    except RtdecodeError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    sys.stdout.flush()
    os._exit(0)  # liblsl's threads may take their time


if __name__ == "__main__":
    sys.exit(main())
