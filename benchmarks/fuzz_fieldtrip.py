"""Malformed frames on both sides of the FieldTrip buffer: each is refused and counted, and nothing crashes or hangs.

``python benchmarks/fuzz_fieldtrip.py [--frames 100000] [--seed 0]``
"""

import argparse
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from rtdecode.sources import fieldtrip_wire as wire
from rtdecode.sources.fieldtrip import FieldTripSource
from rtdecode.sources.fieldtrip_client import Client
from rtdecode.sources.fieldtrip_server import FieldTripServer
from rtdecode.sources.fieldtrip_wire import Block, Command, DataType, Event, Header, Value

HEADER = Header(3, 0, 0, 100.0, DataType.FLOAT32)


def bad_requests(rng: np.random.Generator) -> Iterator[bytes]:
    """Requests that are none, of which the prefix is good where the connection is to be kept."""
    block = Block.of(np.zeros((4, 3)), DataType.FLOAT32)
    bodies = {
        Command.PUT_HDR: HEADER.encode(),
        Command.PUT_DAT: block.encode(),
        Command.PUT_EVT: wire.encode_events([Event(Value.of("a"), Value.of([1.5]), 3)]),
        Command.GET_DAT: wire.encode_range(0, 5),
        Command.WAIT_DAT: wire.encode_wait(0, 0, 0),
    }
    kinds = list(bodies)
    while True:
        command = kinds[int(rng.integers(len(kinds)))]
        body = bodies[command]
        order: wire.Order = "<" if rng.integers(2) else ">"
        match int(rng.integers(4)):
            case 0:  # cut short, but never to nothing: that asks for all
                yield wire.message(command, body[: int(rng.integers(1, len(body)))], order)
            case 1:  # longer than it is
                yield wire.message(command, body + rng.bytes(int(rng.integers(1, 24))), order)
            case 2:  # nothing but noise
                yield wire.message(command, rng.bytes(int(rng.integers(13, 24))), order)
            case _:  # a command that there is not
                yield wire.message(int(rng.integers(0x500, 0xFFFF)), rng.bytes(8), order)


def bad_answer(rng: np.random.Generator) -> bytes:
    """An answer to WAIT_DAT that is none."""
    match int(rng.integers(4)):
        case 0:
            return struct.pack("<H", int(rng.integers(2, 256))) + rng.bytes(30)
        case 1:
            return wire.message(int(rng.integers(0x500, 2**16)), rng.bytes(8))
        case 2:
            return struct.pack("<HHI", 1, Command.WAIT_OK, int(rng.integers(9, 2**32)))
        case _:
            return wire.message(Command.WAIT_OK, rng.bytes(int(rng.integers(0, 8))))


def fuzz_server(frames: int, seed: int) -> tuple[int, int]:
    """Send malformed requests to a server; how many it refused, and how many good ones it answered in between."""
    rng = np.random.default_rng(seed)
    good = 0
    with FieldTripServer() as server:
        peer = Client("127.0.0.1", server.port)
        peer.connect()
        peer.put_header(HEADER)
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.settimeout(30)
            for k, one in enumerate(itertools.islice(bad_requests(rng), frames)):
                raw.sendall(one)
                answer = b""
                while len(answer) < 8:
                    answer += raw.recv(8 - len(answer))
                if answer[2:4][:: 1 if answer[0] == 1 else -1][0] & 0xFF != 5:
                    raise AssertionError(f"frame {k} was not refused: {one.hex(' ')}")
                if k % 1000 == 0:
                    good += peer.header() is not None
        # Prefixes that are none end the connection.
        for _ in range(min(frames, 1000)):
            with socket.create_connection(("127.0.0.1", server.port)) as raw, suppress(ConnectionError):
                raw.sendall(struct.pack("<H", int(rng.integers(2, 256))) + rng.bytes(6))
                if raw.recv(1):
                    raise AssertionError("a prefix that is none was answered")
        if peer.header() is None:
            raise AssertionError("the server lost its header")
        peer.close()
        return server.refused.total(), good


def fuzz_source(frames: int, seed: int) -> int:
    """Answer a source with what is no answer; how many it refused."""
    rng = np.random.default_rng(seed)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            with suppress(OSError):
                peer, _ = listener.accept()
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with peer:
                    first = True
                    while peer.recv(64):
                        peer.sendall(wire.message(Command.GET_OK, HEADER.encode()) if first else bad_answer(rng))
                        first = False

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with FieldTripSource("127.0.0.1", listener.getsockname()[1], retry_s=0.0, timeout_s=60.0) as source:
            while source.refused < frames:
                batch = source.read(5.0)
                if batch is None or batch.chunk is not None:
                    raise AssertionError("the source ended, or took noise for samples")
            return source.refused
    finally:
        done.set()
        listener.close()


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    refused, good = fuzz_server(options.frames, options.seed)
    print(f"server: {refused} malformed requests refused, {good} good ones answered, {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    refused = fuzz_source(options.frames, options.seed)
    print(f"source: {refused} malformed answers refused, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
