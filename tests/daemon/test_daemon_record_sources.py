"""Sessions over ZeroMQ and FieldTrip, with a marker, a loss and a restart: a replay gives what was published."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from daemon_kit import SFREQ, Session, wait_for
from test_daemon_record import PATIENCE_S, recorded, replayed, with_recording

from rtdecode import hostclock
from rtdecode.chaos.transports import Identity, Transport, make_transport
from rtdecode.record.repair import examine

pytestmark = pytest.mark.timeout(300)

SOURCES = {
    "zmq": 'kind = "zmq"\nendpoint = "tcp://127.0.0.1:{port}"\n',
    "fieldtrip": 'kind = "fieldtrip"\nhost = "127.0.0.1"\nport = {port}\ndeclare = {{ unit = "uV" }}\n',
}


class Amplifier:
    """Sends by itself, 25 chunks a second, in a thread."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind, self.port = kind, port
        self._rng = np.random.default_rng(0)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.start()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def start(self) -> None:
        identity = Identity("amp", SFREQ, ("A", "B"), "uV")
        self._transport: Transport = make_transport(self.kind, f"127.0.0.1:{self.port}", identity)
        self._index = 0

    def _send(self) -> None:
        due = hostclock.now()
        while not self._over.wait(max(0.0, due - hostclock.now())):
            with self._lock:
                values = self._rng.standard_normal((10, 2)).astype(np.float32)
                self._transport.samples(values, due + np.arange(-10, 0) / SFREQ)
                self._index += 10
            due += 10 / SFREQ

    def mark(self, value: str) -> None:
        with self._lock:
            self._transport.marker(value, hostclock.now(), self._index)

    def lose(self, n: int) -> None:
        with self._lock:
            self._transport.skip(n)
            self._index += n

    def restart(self) -> None:
        with self._lock:
            self._transport.close()
            self.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._transport.close()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(params=sorted(SOURCES))
def amp(request: pytest.FixtureRequest, port: int) -> Iterator[Amplifier]:
    with contextlib.closing(Amplifier(request.param, port)) as one:
        yield one


def test_recorded_and_replayed_the_payloads_are_those_published(session: Session, amp: Amplifier) -> None:
    session.bundle(channels=("A", "B"), locked=True)
    source = SOURCES[amp.kind].format(port=amp.port) + f"timeout_s = {PATIENCE_S}\nlateness_s = 0.2\n"
    config = with_recording(session.config(source=source))
    run = session.start("run", str(config))
    listener = session.listen().connected()
    run.ready()

    def found(segment: int, **what: Any) -> list[Any]:
        messages = [m for m, _ in list(listener.windows) if m.segment >= segment]
        return [m for m in messages if all(getattr(m, key) == value for key, value in what.items())]

    wait_for(lambda: len(found(0, status="ok")) > 5, "windows", PATIENCE_S)
    amp.mark("concept/cat")
    wait_for(lambda: found(0, window="locked", status="ok"), "the cat", PATIENCE_S)
    amp.lose(100)
    n = len(found(0))
    wait_for(lambda: found(0, status="gap") and len(found(0)) > n + 15, "windows after the loss", PATIENCE_S)
    newest = max(m.segment for m in found(0))
    amp.restart()
    wait_for(lambda: len(found(newest + 1, status="ok")) > 5, "windows after the restart", PATIENCE_S)
    amp.mark("concept/dog")
    wait_for(lambda: found(newest + 1, window="locked", status="ok"), "the dog", PATIENCE_S)
    assert run.terminate() == 0, run.text
    listener.finished()

    (path,) = recorded(session)
    assert examine(path).whole
    again, published = replayed(session, path, config), listener.digests()
    assert len(published) == len(listener.keys())
    assert {key: again.get(key) for key in published} == published
    assert listener.health[-1].due == len(again)
