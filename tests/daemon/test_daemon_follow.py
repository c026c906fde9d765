"""What a decoder hears and what it fetches are put in order: each entry once, of the run that goes on."""

import contextlib
import math
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from rtdecode import hostclock
from rtdecode.daemon import bus
from rtdecode.daemon.endpoints import Endpoints
from rtdecode.daemon.follow import Arrival, Follower, Restarted
from rtdecode.daemon.inbox import Inbox
from rtdecode.daemon.rpc import Server
from rtdecode.signal import Batch


def entry(run: int, seq: int) -> list[bytes]:
    return bus.samples_frames(Batch(None, (), float(seq)), run, seq, (0, 0), 0.0)


class Log:
    """Answers for the entries of one run, as *acquire* does."""

    def __init__(self, context: "zmq.Context[Any]", endpoint: str) -> None:
        self.run, self.n = 1, 0
        self._server = Server[bus.LogRequest](context, endpoint, bus.LogRequest)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while not self._over.is_set():
            self._server.socket.poll(10)
            while (asked := self._server.receive()) is not None:
                caller, request = asked
                first = request.seq if isinstance(request, bus.Since) else self.n
                entries = [entry(self.run, seq) for seq in range(first, self.n)]
                counts = tuple(len(frames) for frames in entries)
                state = bus.LogState(run=self.run, oldest=0, next=self.n, first=first, counts=counts)
                self._server.answer(caller, msgspec.to_builtins(state), [one for frames in entries for one in frames])

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._server.close()


@dataclass
class Stage:
    log: Log
    inbox: Inbox
    follower: Follower

    def hear(self, run: int, seq: int) -> None:
        self.follower.tap.waiting.append((entry(run, seq), hostclock.now()))

    def read(self) -> list[int | str]:
        found: list[int | str] = []
        for one in self.follower.read(100):
            assert isinstance(one, Arrival | Restarted)
            found.append(one.seq if isinstance(one, Arrival) else "restarted")
        return found


@pytest.fixture
def stage() -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtf")))
        found = Endpoints(folder, f"ipc://{folder}/samples", f"ipc://{folder}/log", "", {}, {}, {})
        context = stack.enter_context(zmq.Context())
        log = stack.enter_context(contextlib.closing(Log(context, found.log)))
        inbox = stack.enter_context(contextlib.closing(Inbox(context, found)))
        follower = Follower(inbox, "one")
        follower.run = log.run
        yield Stage(log, inbox, follower)


def test_what_is_heard_before_it_stands_in_the_log_is_not_lost(stage: Stage) -> None:
    stage.log.n = 1
    assert stage.read() == [0]
    stage.log.n = 2
    stage.hear(1, 2)
    assert stage.read() == []
    assert stage.read() == [1]
    assert stage.read() == [2]
    assert not stage.follower.behind


def test_what_still_waits_of_a_run_that_is_over_begins_nothing(stage: Stage) -> None:
    stage.log.n = 1
    assert stage.read() == [0]
    for seq in (2, 3):
        stage.hear(1, seq)
    assert stage.read() == []
    stage.log.run, stage.log.n = 2, 2
    assert stage.read() == ["restarted"]
    assert stage.read() == [0, 1]
    stage.hear(2, 2)
    assert stage.read() == [2]


def test_one_that_gives_no_answer_is_not_asked_because_messages_wait(stage: Stage) -> None:
    stage.log.n = 1
    assert stage.read() == [0]
    stage.hear(1, 2)
    assert stage.follower.waiting
    assert stage.read() == []
    stage.inbox.silent_until = math.inf
    assert not stage.follower.waiting
