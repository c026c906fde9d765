"""Malformed frames on what listens: ``python benchmarks/fuzz.py --frames 100000 --target all``.

Each target is the real thing behind its real socket: the ``zmq`` source in both formats, the control socket, both sides
of the FieldTrip buffer, and a session of real processes that streams meanwhile. Frames are garbage, good messages that
one thing was done to, and messages of the wrong shape; never a good one. Now and then a good message is sent, which
must get through: that is what "no hang" means. Prints a line of JSON for each target: sent, refused, good ones sent and
taken, crashed, hung, seconds. The exit code is 1 where a frame was not refused, or anything crashed or hung.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import fuzz_fieldtrip
import fuzz_session
import msgspec
import numpy as np
import zmq

from rtdecode import hostclock
from rtdecode.daemon import bus, control
from rtdecode.daemon.endpoints import log_of
from rtdecode.daemon.remote import RemoteSource
from rtdecode.daemon.rpc import Server
from rtdecode.signal import Batch, Channel, Chunk, StreamInfo
from rtdecode.sources.base import Source
from rtdecode.sources.declare import Declare
from rtdecode.sources.zmq_source import ZmqSource
from rtdecode.wire.clock import clock_id

#: A good message after so many malformed ones.
EVERY = 1000
#: A target that does nothing for so long is hung.
HUNG_S = 60.0

Generator = np.random.Generator


@dataclass
class Tally:
    """What came of it."""

    target: str
    sent: int = 0
    refused: int = 0
    good_sent: int = 0
    good_taken: int = 0
    crashed: str = ""
    hung: bool = False
    windows: int | None = None
    """Of the session: published while it was fuzzed; and of those that were due, not decoded."""
    windows_lost: int | None = None
    seconds: float = 0.0


def spoilt(rng: Generator, frames: list[bytes]) -> list[bytes]:
    """`frames` with one thing done to them that leaves no good message: the header is cut, broken or not itself."""
    header = frames[0]
    match int(rng.integers(7)):
        case 0:
            return [header[: rng.integers(len(header))], *frames[1:]]
        case 1:
            return [rng.bytes(int(rng.integers(1, 2000))), *frames[1:]]
        case 2:
            return [*frames, *[rng.bytes(3)] * int(rng.integers(3, 40))]
        case 3:
            return [b"[" * int(rng.integers(1, 20_000)), *frames[1:]]
        case 4:
            return [b'{"v":' * int(rng.integers(1, 5000)), *frames[1:]]
        case 5:
            return [header + b"\xc1}" + rng.bytes(int(rng.integers(1, 9))), *frames[1:]]
        case _:
            return [rng.bytes(100_000) if rng.integers(50) == 0 else b"\xc1" * int(rng.integers(1, 100))]


# --- the zmq source, minimal format -----------------------------------------------------------------------------------

RAW = np.zeros((10, 2), "<f4").tobytes()


def good_json(number: int) -> list[bytes]:
    header = {"v": 1, "kind": "samples", "stream": "amp", "run": 1, "index": 10 * number, "n": 10, "dtype": "<f4",
              "sfreq": 100.0, "channels": ["A", "B"]}  # fmt: skip
    return [json.dumps(header).encode(), RAW]


def bad_json(rng: Generator) -> list[bytes]:
    frames = good_json(10**9)
    if rng.integers(2):
        return spoilt(rng, frames)
    header = json.loads(frames[0])
    key = str(rng.choice(list(header)))
    wrong: list[Any] = [None, -1, 1e308, [], {}, "x" * 3000, [[]], True, 2.5, "\x00", [1] * 100]
    header[key] = wrong[int(rng.integers(len(wrong)))]
    if key in ("stream", "run", "sfreq", "index", "channels"):  # these may be good or ignored: what follows is not
        header["n"] = 11
    return [json.dumps(header).encode(), RAW]


def fuzz_zmq(n: int, rng: Generator, tally: Tally) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        port = push.bind_to_random_port("tcp://127.0.0.1")
        source = ZmqSource(f"tcp://127.0.0.1:{port}", pattern="pull", stream="amp", declare=Declare(unit="uV"))
        drive(tally, source, n, lambda k: push.send_multipart(good_json(k)), lambda: push.send_multipart(bad_json(rng)))
        tally.refused = source.refused + source.ignored


# --- the zmq source, another machine's acquire ------------------------------------------------------------------------


def bad_samples(rng: Generator) -> list[bytes]:
    chunk = Chunk(np.zeros((10, 2), np.float32), np.arange(10) / 100 + 1e6, 0, arrived=0.0)
    topic, *frames = bus.samples_frames(Batch(chunk), 1, 10**6, (0, 0), 0.0)
    return [topic, *spoilt(rng, list(frames))]


def fuzz_zmq_rtdecode(n: int, rng: Generator, tally: Tally) -> None:
    info = StreamInfo((Channel("A", "eeg", "V"), Channel("B", "eeg", "V")), 100.0, "fuzz")
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.setsockopt(zmq.XPUB_NODROP, 1)  # waits for the reader, so that each frame is seen
        endpoint = f"ipc://{Path(folder) / 's'}"
        publisher.bind(endpoint)
        server = Server[bus.LogRequest](context, log_of(endpoint), bus.LogRequest)
        stop = threading.Event()

        def answer() -> None:
            while not stop.is_set():
                server.socket.poll(20)
                while (asked := server.receive()) is not None:
                    caller, request = asked
                    now = hostclock.now()
                    reply: msgspec.Struct = bus.LogState(run=1, oldest=0, next=0, info=info)
                    if isinstance(request, bus.Clock):
                        reply = bus.Reading(received=now, answered=now, clock=clock_id())
                    server.answer(caller, msgspec.to_builtins(reply))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()

        def good(k: int) -> None:
            chunk = Chunk(np.zeros((10, 2), np.float32), 1e3 + k + np.arange(10) / 100, 10 * k, arrived=0.0)
            publisher.send_multipart(bus.samples_frames(Batch(chunk), 1, k, (0, 0), 0.0))

        source = RemoteSource(endpoint, timeout_s=20)
        drive(tally, source, n, good, lambda: publisher.send_multipart(bad_samples(rng)), before=publisher.recv)
        tally.refused = source.refused
        stop.set()
        thread.join()
        server.close()


def drive(
    tally: Tally,
    source: Source,
    n: int,
    good: Callable[[int], object],
    bad: Callable[[], object],
    before: Callable[[], object] = lambda: None,
) -> None:
    """Malformed messages from a thread, and the source read here until the last good one has come."""

    def send() -> None:
        before()
        good(0)
        tally.good_sent = 1
        for k in range(n):
            bad()
            tally.sent += 1
            if tally.sent % EVERY == 0 or k == n - 1:
                good(tally.good_sent)
                tally.good_sent += 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    newest = time.monotonic()
    try:
        source.open()
        while thread.is_alive() or tally.good_taken < tally.good_sent:
            batch = source.read(0.1)
            if batch is None:
                tally.crashed = "the source ended"
                break
            if batch.chunk is not None:
                tally.good_taken += 1
                newest = time.monotonic()
            if time.monotonic() - newest > HUNG_S:
                tally.hung = True
                break
    except Exception as error:
        tally.crashed = f"{type(error).__name__}: {error}"
    finally:
        source.close()


# --- the control socket -----------------------------------------------------------------------------------------------


def bad_request(rng: Generator) -> list[bytes]:
    good = msgspec.msgpack.encode(control.Status()) if rng.integers(2) else b'{"ask":"status"}'
    if rng.integers(3) == 0:
        return [b'{"ask":"status","x":1}', b'{"ask":1}', b"", b"null", b"\x80", b'{"ask":"swap"}'][rng.integers(6) :][
            :1
        ]
    return spoilt(rng, [good])


def fuzz_control(n: int, rng: Generator, tally: Tally) -> None:
    """A server as every process has it. Each request is answered; that is how its refusal is known over here."""
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context:
        endpoint = f"ipc://{Path(folder) / 'c'}"
        server = Server[control.Request](context, endpoint, control.Request)
        stop = threading.Event()

        def serve() -> None:
            try:
                while not stop.is_set():
                    server.socket.poll(20)
                    while (asked := server.receive()) is not None:
                        server.answer(asked[0], {"state": "fine"})
            except Exception as error:
                tally.crashed = f"{type(error).__name__}: {error}"

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(endpoint)
            while tally.sent < n and not tally.crashed and not tally.hung:
                batch = min(100, n - tally.sent)
                for _ in range(batch):
                    dealer.send_multipart([b"", *bad_request(rng)])
                dealer.send_multipart([b"", b'{"ask":"status"}'])
                tally.sent += batch
                tally.good_sent += 1
                for _ in range(batch + 1):
                    if not dealer.poll(round(HUNG_S * 1e3)):
                        tally.hung = True
                        break
                    taken = b'"fine"' in dealer.recv_multipart()[1]
                    tally.good_taken += taken
        stop.set()
        thread.join()
        tally.refused = server.refused
        server.close()


# --- a session, and the FieldTrip buffer ------------------------------------------------------------------------------


def fuzz_session_sockets(n: int, rng: Generator, tally: Tally) -> None:
    told = fuzz_session.fuzz(n, rng, bad_request)
    for one in fields(told):
        setattr(tally, one.name, getattr(told, one.name))


def fuzz_fieldtrip_server(n: int, rng: Generator, tally: Tally) -> None:
    told = fuzz_fieldtrip.fuzz_server(n, rng)
    tally.sent, tally.refused, tally.good_sent, tally.good_taken = told


def fuzz_fieldtrip_source(n: int, rng: Generator, tally: Tally) -> None:
    told = fuzz_fieldtrip.fuzz_source(n, rng)
    tally.sent, tally.refused, tally.good_sent, tally.good_taken = told


TARGETS: dict[str, Callable[[int, Generator, Tally], None]] = {
    "zmq": fuzz_zmq,
    "zmq-rtdecode": fuzz_zmq_rtdecode,
    "control": fuzz_control,
    "session": fuzz_session_sockets,
    "fieldtrip-server": fuzz_fieldtrip_server,
    "fieldtrip-source": fuzz_fieldtrip_source,
}


def fuzz(target: str, frames: int, seed: int) -> Tally:
    """One target."""
    tally = Tally(target)
    began = time.perf_counter()
    try:
        TARGETS[target](frames, np.random.default_rng(seed), tally)
    except Exception as error:  # whatever it is, the other targets are tried too
        tally.crashed = f"{type(error).__name__}: {error}"
    tally.seconds = round(time.perf_counter() - began, 1)
    return tally


def whole(tally: Tally, frames: int) -> bool:
    """Every frame was sent and refused, every good one taken, and nothing else happened."""
    counted = tally.refused == tally.sent == frames and tally.good_taken == tally.good_sent > 0
    return counted and not tally.crashed and not tally.hung and not tally.windows_lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="for each target")
    parser.add_argument("--target", choices=[*TARGETS, "all"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = False
    for target in TARGETS if arguments.target == "all" else [arguments.target]:
        tally = fuzz(target, arguments.frames, arguments.seed)
        print(json.dumps(asdict(tally)), flush=True)
        failed |= not whole(tally, arguments.frames)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
