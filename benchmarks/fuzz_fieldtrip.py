"""Malformed frames on both sides of the FieldTrip buffer; see `fuzz`."""

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


def fuzz_server(frames: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Send malformed requests to a server: how many were sent and refused, and good ones asked and answered."""
    asked = good = 0
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
                    asked += 1
                    good += peer.header() is not None
        refused = server.refused.total()
        # Beside: prefixes that are none end the connection.
        for _ in range(min(frames, 1000)):
            with socket.create_connection(("127.0.0.1", server.port)) as raw, suppress(ConnectionError):
                raw.sendall(struct.pack("<H", int(rng.integers(2, 256))) + rng.bytes(6))
                if raw.recv(1):
                    raise AssertionError("a prefix that is none was answered")
        if peer.header() is None:
            raise AssertionError("the server lost its header")
        peer.close()
        return frames, refused, asked, good


def fuzz_source(frames: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Answer a source with what is no answer: how many were sent and refused, and good ones given and taken.

    Good are the headers that it asks for on each connection; without one it would ask for nothing more.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.settimeout(0.1)  # closing it does not wake who accepts
    done = threading.Event()
    headers = taken = sent = 0

    def serve() -> None:
        nonlocal headers, taken, sent
        while not done.is_set():
            with suppress(OSError):
                peer, _ = listener.accept()
                peer.settimeout(None)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with peer:
                    asked = 0
                    while peer.recv(64):
                        asked += 1
                        taken += asked == 2  # it knows the header, and asks for samples
                        if asked == 1:
                            headers += 1
                            peer.sendall(wire.message(Command.GET_OK, HEADER.encode()))
                        elif sent < frames:
                            sent += 1
                            peer.sendall(bad_answer(rng))
                        else:
                            peer.sendall(wire.message(Command.WAIT_OK, struct.pack("<II", 0, 0)))
                            time.sleep(0.01)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with FieldTripSource("127.0.0.1", listener.getsockname()[1], retry_s=0.0, timeout_s=60.0) as source:
            while source.refused < frames:
                batch = source.read(5.0)
                if batch is None or batch.chunk is not None:
                    raise AssertionError("the source ended, or took noise for samples")
            deadline = time.monotonic() + 10.0
            while taken < headers and time.monotonic() < deadline:
                source.read(0.1)
            return sent, source.refused, headers, taken
    finally:
        done.set()
        thread.join(1.0)
        listener.close()
