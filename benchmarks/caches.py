"""What a pause costs: the same code at once and after a rest, and a message from process to process.

    python benchmarks/caches.py

Prints JSON, medians in microseconds: conditioning of 10 samples of 306 channels after each pause; and a message of
12 kB, sent every 10 ms, from the call that sends it to the receiver's hands, over ZeroMQ's PUB and SUB and by a lane.
"""

import json
import multiprocessing
import struct
import tempfile
import time
from multiprocessing.connection import Connection

import accounts
import numpy as np
import zmq

from rtdecode.daemon.lane import Lane, Lanes, path_of
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Filter

PAUSES_MS = (0, 0.2, 0.5, 1, 2, 5, 10, 50)
CHANNELS, CHUNK, SENT, EVERY_S = 306, 10, 300, 0.01


def conditioning() -> dict[str, float]:
    """Microseconds that a chunk takes after each pause."""
    channels = tuple(Channel(f"MEG{n:04d}", "mag", "T") for n in range(CHANNELS))
    conditioner = Conditioner([Filter(low=0.5, high=40.0, order=4)], channels, 1000.0, {})
    samples = np.random.default_rng(0).standard_normal((CHUNK, CHANNELS)).astype(np.float32)
    found = {}
    for pause in PAUSES_MS:
        took = []
        for _ in range(min(300, 20 + int(1500 / (pause or 1)))):
            time.sleep(pause * 1e-3)
            began = time.perf_counter()
            conditioner.push(samples)
            took.append(time.perf_counter() - began)
        found[f"after {pause:g} ms"] = round(float(np.median(took[10:])) * 1e6, 1)
    return found


def send(way: str, address: str, ready: Connection) -> None:
    """The sending process."""
    context = zmq.Context()
    publisher = context.socket(zmq.PUB)
    path = path_of(address)
    assert path is not None
    lanes = Lanes(path)
    publisher.bind(address)
    ready.send(True)
    ready.recv()
    lanes.accept()
    payload = bytes(CHANNELS * CHUNK * 4)
    for _ in range(SENT):
        time.sleep(EVERY_S)
        frames = [b"t", struct.pack("<d", time.perf_counter()), payload]
        if way == "lane":
            lanes.send(frames)
        else:
            publisher.send_multipart(frames)
    ready.recv()
    lanes.close()
    publisher.close(linger=0)
    context.term()


def message(way: str) -> dict[str, float]:
    """Microseconds of a message's way, by ``zmq`` or ``lane``."""
    with tempfile.TemporaryDirectory(prefix="rtc") as folder:
        address = f"ipc://{folder}/samples"
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        sender = multiprocessing.get_context("spawn").Process(target=send, args=(way, address, theirs))
        sender.start()
        ours.recv()
        context = zmq.Context()
        subscriber = context.socket(zmq.SUB)
        subscriber.connect(address)
        subscriber.subscribe(b"")
        path = path_of(address)
        assert path is not None
        lane = Lane(path)
        poller = zmq.Poller()
        poller.register(lane.socket if way == "lane" else subscriber, zmq.POLLIN)
        time.sleep(0.5)  # the subscription takes effect
        ours.send(True)
        took = []
        for _ in range(SENT):
            poller.poll()
            frames = lane.receive() if way == "lane" else subscriber.recv_multipart()
            assert frames is not None
            took.append(time.perf_counter() - struct.unpack("<d", frames[1])[0])
        ours.send(True)
        sender.join()
        lane.close()
        subscriber.close(linger=0)
        context.term()
    return {f"p{q}": round(float(np.percentile(took[20:], q)) * 1e6, 1) for q in (50, 99)}


def main() -> None:
    """Measure, and print."""
    machine = accounts.machine()
    print(
        json.dumps(
            {
                "machine": machine,
                "conditioning_us": conditioning(),
                "message_us": {way: message(way) for way in ("zmq", "lane")},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
