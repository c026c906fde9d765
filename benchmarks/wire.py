"""What sending and receiving one decoded window costs: ``python benchmarks/wire.py [--n 20000]`` prints a JSON object.

A window as the daemon sends it: 1024 float32 of embedding and the five best items, over loopback TCP, to a subscriber
in a process of its own (and, for the bare cost of the send path, to nobody).
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from rtdecode import hostclock
from rtdecode.wire.framing import decode, encode
from rtdecode.wire.messages import Event, Ledger, Retrieval, Window
from rtdecode.wire.payload import to_json
from rtdecode.wire.publisher import Publisher
from rtdecode.wire.subscriber import Subscriber

TOPIC = "gaze.retrieval"
EMBEDDING = {"embedding": np.random.default_rng(0).standard_normal(1024).astype(np.float32)}


def window(start: int) -> Window:
    """One result, published now."""
    now = hostclock.now()
    return Window(
        seq=0,
        kind="retrieval",
        pipeline="gaze",
        bundle="0123456789ab",
        window="sliding",
        segment=0,
        start=start,
        length=100,
        sfreq=100.0,
        status="ok",
        retrieval=Retrieval(
            indices=(1, 2, 3, 4, 5),
            names=("cup", "dog", "sun", "car", "key"),
            scores=(0.9, 0.8, 0.7, 0.6, 0.5),
            margin=0.1,
        ),
        ledger=Ledger(
            stamp=now, arrived=now, received=now, due=now, encoded=now, published=now, budget_ms=50.0, met=True
        ),
    )


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Microseconds at p50 and p99."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e6
    return {"p50_us": round(float(p50), 2), "p99_us": round(float(p99), 2)}


def timed(action: Any, n: int) -> list[float]:
    """Seconds of each of `n` calls with the call's number."""
    took = []
    for i in range(n):
        begin = time.perf_counter()
        action(i)
        took.append(time.perf_counter() - begin)
    return took


def subscribe(endpoint: str) -> None:
    """In a process of its own: count, and time from `published` to here, until the end."""
    with Subscriber(endpoint, hwm=100_000) as subscriber:
        latencies, begin = [], 0.0
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for received in subscriber:
            if isinstance(received.message, Event):
                break
            assert isinstance(received.message, Window)
            begin = begin or received.at
            latencies.append(received.at - (received.message.ledger.published or 0.0))
        took = received.at - begin
        result = {"received": len(latencies), "missed": sum(subscriber.missed.values()), **percentiles(latencies)}
        sys.stdout.write(json.dumps(result | {"per_s": round(len(latencies) / took)}) + "\n")


def to_a_process(n: int, every_s: float) -> dict[str, Any]:
    """Send `n` windows, one every `every_s` seconds (0: as fast as it goes), to a subscriber in another process."""
    with Publisher("tcp://127.0.0.1:*", hwm=100_000) as publisher:
        command = [sys.executable, __file__, "--subscribe", publisher.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            while not publisher.socket.poll(100):
                pass
            publisher.service()
            took, begin = [], time.perf_counter()
            for i in range(n):
                while every_s and time.perf_counter() < begin + i * every_s:
                    time.sleep(every_s / 20)
                message, start = window(i), time.perf_counter()
                publisher.send(TOPIC, message, EMBEDDING)
                took.append(time.perf_counter() - start)
            publisher.send("gaze.event", Event(seq=0, origin="gaze", event="end", text="", stamp=0.0))
            received = json.loads(child.stdout.readline())
        return {"send": percentiles(took), "sent": n, "subscriber": received, "dropped": publisher.dropped}


def main() -> None:
    """Print every figure as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--subscribe", metavar="ENDPOINT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subscribe:
        subscribe(options.subscribe)
        return
    frames = [bytes(frame) for frame in encode(TOPIC, window(0), EMBEDDING)]
    with Publisher("tcp://127.0.0.1:*") as publisher:
        alone = timed(lambda i: publisher.send(TOPIC, window(i), EMBEDDING), options.n)
    result = {
        "frame_bytes": [len(frame) for frame in frames],
        "build_message": percentiles(timed(window, options.n)),
        "encode": percentiles(timed(lambda i: encode(TOPIC, window(i), EMBEDDING), options.n)),
        "decode": percentiles(timed(lambda i: decode(frames), options.n)),
        "to_json": percentiles(timed(lambda i: to_json(window(i), EMBEDDING), options.n)),
        "send_to_nobody": percentiles(alone),
        "100_per_s": to_a_process(300, 0.01),
        "flat_out": to_a_process(options.n, 0.0),
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
