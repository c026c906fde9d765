"""Takes what the pipelines of one process publish, in a process of its own, and notes each result in its stream's file.

    python benchmarks/many_subscriber.py FOLDER PREFIX ENDPOINT...

The topic `PREFIX-STREAM.retrieval` goes to `FOLDER/STREAM.results`. Of a header it reads what it notes, and no more: it
shares the cores with what is measured.
"""

import os
import sys
from pathlib import Path

import msgspec
import zmq
from subscriber import RECORD

from rtdecode import hostclock


class _Ledger(msgspec.Struct):
    stamp: float | None = None


class _Retrieval(msgspec.Struct):
    names: list[str]
    scores: list[float]


class _Window(msgspec.Struct):
    ledger: _Ledger
    retained: bool = False
    retrieval: _Retrieval | None = None


def main() -> None:
    """Listen until killed."""
    folder, prefix, *endpoints = sys.argv[1:]
    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 100_000)
    socket.setsockopt_string(zmq.SUBSCRIBE, f"{prefix}-")
    for endpoint in endpoints:
        socket.connect(endpoint)
    files: dict[bytes, int] = {}
    decoder = msgspec.msgpack.Decoder(_Window)
    print("READY", flush=True)
    while True:
        frames = socket.recv_multipart()
        at = hostclock.now()
        name, _, kind = frames[0].partition(b".")
        if kind != b"retrieval":
            continue
        window = decoder.decode(frames[1])
        if window.retained or window.retrieval is None or window.ledger.stamp is None:
            continue
        if name not in files:
            path = Path(folder) / f"{name.decode().removeprefix(prefix + '-')}.results"
            files[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        items = [int(one.rpartition(" ")[2]) for one in window.retrieval.names]
        os.write(files[name], RECORD.pack(window.ledger.stamp, at, *items, *window.retrieval.scores))


if __name__ == "__main__":
    main()
