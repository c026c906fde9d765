"""Malformed frames on the sockets of a real session: *acquire*'s log, its control socket and its samples.

``rtdecode run`` streams to a decoder all the while. Each malformed request must be refused by an answer; the sockets of
samples take subscriptions alone, and get noise beside; and no window may be lost.
"""

import contextlib
import itertools
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import zmq

import rtdecode
from rtdecode.config import load
from rtdecode.daemon.control import Status, ask
from rtdecode.daemon.endpoints import Endpoints, endpoints
from rtdecode.daemon.rpc import Answer
from rtdecode.errors import ProcessError
from rtdecode.wire.messages import Window
from rtdecode.wire.subscriber import Subscriber

#: The bundle of `rtdecode demo`, for the simulated subject.
BUNDLE = Path(rtdecode.__file__).parent / "demo" / "bundle.zip"
#: Malformed requests that are on their way at a time, and a good one after them.
BATCH = 100
#: An answer, or a window, that takes so long does not come.
HUNG_S = 60.0


@dataclass
class Session:
    """A session that runs, and what it publishes."""

    endpoints: Endpoints
    windows: list[Window] = field(default_factory=list)

    def status(self) -> dict[str, object]:
        """What *acquire* says of itself."""
        return ask(self.endpoints.acquire, Status(), HUNG_S)

    def lost(self) -> int:
        """Windows that are missing between the first and the last, or that were not decoded."""
        due = (self.windows[-1].start - self.windows[0].start) // _hop(self.windows) + 1
        return due - sum(window.status in ("ok", "late") for window in self.windows)


def _hop(windows: list[Window]) -> int:
    return min(b.start - a.start for a, b in itertools.pairwise(windows))


@contextlib.contextmanager
def session() -> Iterator[Session]:
    """A simulated subject without end, decoded by a real *acquire* and a real *decode*."""
    with tempfile.TemporaryDirectory(prefix="rtf") as text:
        folder = Path(text)
        config = folder / "s.toml"
        config.write_text(
            f'[source]\nkind = "simulated"\n[bus]\ndir = "."\n[pipelines.p]\nbundle = "{BUNDLE}"\n'
            'publish = "ipc://out"\nhwm = 100000\nwindows = [{ length = 0.7, hop = 0.1 }]\n'
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "rtdecode", "run", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        one = Session(endpoints(load(config)))
        over = threading.Event()
        listener = threading.Thread(target=_listen, args=(f"ipc://{folder / 'out'}", one, over))
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith(b"READY"):
                raise ProcessError(f"the session did not start: {process.communicate()[1].decode()}")
            listener.start()
            _wait(lambda: len(one.windows) >= 5)
            yield one
            n = len(one.windows)
            _wait(lambda: len(one.windows) >= n + 5)  # it goes on
        finally:
            over.set()
            with contextlib.suppress(RuntimeError):  # it was never started
                listener.join()
            process.terminate()
            process.communicate()


def _listen(endpoint: str, into: Session, over: threading.Event) -> None:
    subscriber = Subscriber(endpoint)
    while not over.is_set():
        received = subscriber.receive(timeout=0.05)
        if received is not None and isinstance(received.message, Window) and not received.message.retained:
            into.windows.append(received.message)
    subscriber.close()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HUNG_S
    while not condition():
        if time.monotonic() > deadline:
            raise ProcessError(f"no window came within {HUNG_S:g} s")
        time.sleep(0.01)


@dataclass
class Outcome:
    """What came of the frames."""

    sent: int = 0
    refused: int = 0
    good_sent: int = 0
    good_taken: int = 0
    windows: int = 0
    windows_lost: int = 0


def fuzz(n: int, rng: np.random.Generator, bad: Callable[[np.random.Generator], list[bytes]]) -> Outcome:
    """Send `n` malformed requests, one half to the log, one half to the control socket of *acquire*."""
    told = Outcome()
    with session() as one, zmq.Context() as context, contextlib.ExitStack() as stack:
        pid = one.status()["pid"]
        noise = stack.enter_context(contextlib.closing(context.socket(zmq.XSUB)))
        noise.setsockopt(zmq.LINGER, 0)
        noise.setsockopt(zmq.SNDHWM, 100)
        noise.connect(one.endpoints.samples)
        asked = [(one.endpoints.log, b'{"ask":"info"}'), (one.endpoints.acquire, b'{"ask":"status"}')]
        dealers = [stack.enter_context(contextlib.closing(context.socket(zmq.DEALER))) for _ in asked]
        for dealer, (endpoint, _) in zip(dealers, asked, strict=True):
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(endpoint)
        while told.sent < n:
            for dealer, (endpoint, good) in zip(dealers, asked, strict=True):
                batch = min(BATCH, n - told.sent)
                for _ in range(batch):
                    dealer.send_multipart([b"", *bad(rng)])
                    with contextlib.suppress(zmq.Again):
                        noise.send_multipart(bad(rng), zmq.NOBLOCK)
                dealer.send_multipart([b"", good])
                told.sent += batch
                told.good_sent += 1
                for _ in range(batch + 1):
                    if not dealer.poll(round(HUNG_S * 1e3)):
                        raise ProcessError(f"{endpoint} does not answer any more")
                    answer = read_answer(dealer.recv_multipart()[1])
                    told.good_taken += answer.ok
                    told.refused += not answer.ok
                _shout(endpoint, rng)
        if one.status()["pid"] != pid or one.status()["restarts"]:
            raise ProcessError("acquire was started again")
        ask(one.endpoints.decoders["p"], Status(), HUNG_S)
    told.windows, told.windows_lost = len(one.windows), one.lost()
    return told


def read_answer(frame: bytes) -> Answer:
    """An answer in either language."""
    if frame[:1] == b"{":
        return msgspec.json.decode(frame, type=Answer)
    return msgspec.msgpack.decode(frame, type=Answer)


def _shout(endpoint: str, rng: np.random.Generator) -> None:
    """At the socket itself, without ZeroMQ's protocol."""
    if endpoint.startswith("ipc://"):
        with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(OSError):
            raw.connect(endpoint.removeprefix("ipc://"))
            raw.sendall(rng.bytes(int(rng.integers(1, 2000))))
