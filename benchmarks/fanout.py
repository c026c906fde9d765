"""What publishing costs with 1, 10 and 100 subscribers: the publisher's call, and delivery to the first and the last.

    python benchmarks/fanout.py --json fanout.json

Windows of a retrieval go out 20 times a second. The subscribers are connections of their own, held by one process that
takes each message's bytes and the moment, and reads them afterwards: with two cores, reading a hundred times would be
what is measured.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import accounts
import figures
import numpy as np
import zmq

from rtdecode import hostclock
from rtdecode.wire.framing import decode
from rtdecode.wire.messages import Ledger, Retrieval, Window
from rtdecode.wire.publisher import Publisher

SUBSCRIBERS = (1, 10, 100)
TOPIC = "gaze.retrieval"


def window(n: int) -> Window:
    """One window's message, published now."""
    now = hostclock.now()
    found = Retrieval(
        indices=tuple(range(5)),
        names=tuple(f"item {k:07d}" for k in range(5)),
        scores=(0.5, 0.4, 0.3, 0.2, 0.1),
        margin=0.1,
        none_of_these=None,
    )
    return Window(
        seq=0,
        kind="retrieval",
        pipeline="gaze",
        bundle="0" * 12,
        window="sliding",
        segment=0,
        start=50 * n,
        length=1000,
        sfreq=1000.0,
        status="ok",
        retrieval=found,
        ledger=Ledger(stamp=now, arrived=now, received=now, due=now, encoded=now, published=now),
    )


def take(endpoint: str, subscribers: int, messages: int) -> None:
    """In a process of its own: take every message on every connection, and say how long each was on its way."""
    context = zmq.Context()
    poller = zmq.Poller()
    for _ in range(subscribers):
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.SUBSCRIBE, TOPIC.encode())
        socket.connect(endpoint)
        poller.register(socket, zmq.POLLIN)
    print("READY", flush=True)
    got: list[tuple[float, list[bytes]]] = []
    while len(got) < subscribers * messages and (ready := poller.poll(5000)):
        for socket, _ in ready:
            frames = socket.recv_multipart()
            got.append((hostclock.now(), frames))
    taken: dict[int, list[float]] = {}
    for at, frames in got:
        _, message, _ = decode(frames)
        assert isinstance(message, Window)
        if not message.retained and message.ledger.published is not None:
            taken.setdefault(message.seq, []).append((at - message.ledger.published) * 1e3)
    whole = [times for times in taken.values() if len(times) == subscribers]
    print(
        json.dumps(
            {
                "first_ms": figures.quantiles(np.array([min(times) for times in whole])),
                "last_ms": figures.quantiles(np.array([max(times) for times in whole])),
                "lost": subscribers * messages - sum(map(len, taken.values())),
            }
        ),
        flush=True,
    )
    context.destroy(linger=0)


def measure(subscribers: int, messages: int, pause: float) -> dict[str, Any]:
    """Publish to so many."""
    with Publisher("tcp://127.0.0.1:*") as publisher:
        command = [sys.executable, __file__, "--take", publisher.endpoint, str(subscribers), str(messages)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            joined = 0
            while joined < subscribers and publisher.socket.poll(5000):
                joined += 1
                publisher.service()
                if not publisher.socket.poll(200):
                    break
            took = []
            cpu = time.process_time()
            for n in range(messages):
                time.sleep(pause)
                began = time.perf_counter()
                publisher.send(TOPIC, window(n))
                took.append((time.perf_counter() - began) * 1e3)
            cpu = time.process_time() - cpu
            told = json.loads(child.stdout.readline())
    cost = {"send_ms": figures.quantiles(np.array(took)), "cpu_ms_per_message": round(cpu / messages * 1e3, 4)}
    return {"subscribers": subscribers, **cost, **told}


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2 subscribers, 5 messages")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.take:
        take(options.take[0], int(options.take[1]), int(options.take[2]))
        return
    machine = accounts.machine()
    rows = [measure(2, 5, 0.01)] if options.quick else [measure(n, 300, 0.05) for n in SUBSCRIBERS]
    figures.save(options.json, {"benchmark": "fanout", "machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
