"""``rtdecode listen`` as a process: what it prints, and how it ends."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from rich.text import Text

from rtdecode import hostclock
from rtdecode.cli.listen import line_of
from rtdecode.wire.clock import clock_id, utc_anchor
from rtdecode.wire.messages import Array, Description, Event, Health, Label, Ledger, Retrieval, Window, WireMarker
from rtdecode.wire.payload import from_json
from rtdecode.wire.publisher import Publisher
from rtdecode.wire.subscriber import Received

DEADLINE_S = 30.0
MAIN = "from rtdecode.cli.main import main; main()"


def window(start: int, **changes: Any) -> Window:
    fields: dict[str, Any] = {
        "seq": 0,
        "kind": "retrieval",
        "pipeline": "gaze",
        "bundle": "0123456789ab",
        "window": "sliding",
        "segment": 2,
        "start": start,
        "length": 100,
        "sfreq": 100.0,
        "status": "ok",
        "retrieval": Retrieval(
            indices=(4, 1, 0, 2, 3, 5), names=("cup", "dog", "sun", "car", "key", "hat"), scores=(0.75,) * 6, margin=0.1
        ),
        "ledger": Ledger(stamp=10.0, arrived=10.010, published=10.0225, budget_ms=50.0, met=True),
    }
    return Window(**fields | changes)


DESCRIPTION = Description(
    seq=0,
    pipeline="gaze",
    source="a test",
    sfreq=160.0,
    channels=(),
    conditioned_sfreq=80.0,
    group_delay=0.012,
    bundle="0123456789ab",
    engine={"provider": "cpu"},
    items=("cup", "dog"),
    clock=hostclock.CLOCK_NAME,
    clock_id=clock_id(),
    utc_anchor=utc_anchor(),
)


class Listener:
    """A listening process, and a publisher's time to serve it."""

    def __init__(self, endpoint: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "listen", endpoint, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.read = {"out": b"", "err": b""}
        self._pipes = {self.process.stdout: "out", self.process.stderr: "err"}

    def serve_until(self, condition: Callable[[], bool], publisher: Publisher | None, what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"{what} did not happen: {self.read}"
            if publisher is not None:
                publisher.service()
            for pipe in select.select([p for p in self._pipes if not p.closed], [], [], 0.02)[0]:
                self.read[self._pipes[pipe]] += os.read(pipe.fileno(), 65536)

    def end(self, publisher: Publisher | None = None) -> int:
        """Wait for the process to end; its exit code."""
        self.serve_until(lambda: self.process.poll() is not None, publisher, "the end")
        for pipe, name in self._pipes.items():
            if not pipe.closed:
                self.read[name] += pipe.read()
        assert self.process.returncode is not None
        return self.process.returncode

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in self._pipes:
            pipe.close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher("tcp://127.0.0.1:*") as made:
        made.describe(DESCRIPTION)
        made.send("gaze.retrieval", window(0), {"embedding": np.arange(4, dtype=np.float32)})
        yield made


def test_json_lines_are_the_messages(publisher: Publisher) -> None:
    with Listener(publisher.endpoint, "--format", "json", "--count", "3") as listener:
        listener.serve_until(lambda: listener.read["out"].count(b"\n") == 2, publisher, "two lines")
        for start in (1, 2):
            publisher.send("gaze.retrieval", window(start), {"embedding": np.full(4, start, np.float32)})
        assert listener.end(publisher) == 0
        read = [from_json(line) for line in listener.read["out"].splitlines()]
    assert isinstance(read[0][0], Description)
    assert [message.start for message, _ in read if isinstance(message, Window)] == [0, 1, 2]
    np.testing.assert_array_equal(read[3][1]["embedding"], np.full(4, 2))


def test_text_topics_and_the_fate_of_the_publisher(publisher: Publisher) -> None:
    endpoint = publisher.endpoint
    with Listener(endpoint, "--topic", "gaze.event") as listener:
        listener.serve_until(lambda: b"a test" in listener.read["out"], publisher, "the description")
        publisher.send("gaze.retrieval", window(1))
        publisher.send("gaze.event", Event(seq=0, origin="gaze", event="gap", text="1.5 s lost", stamp=0.0))
        listener.serve_until(lambda: b"1.5 s lost" in listener.read["out"], publisher, "the event")
        assert b"cup" not in listener.read["out"]
        publisher.close()
        listener.serve_until(lambda: b"publisher gone" in listener.read["err"], None, "the note")
        with Publisher(endpoint) as second:
            second.send("gaze.event", Event(seq=0, origin="gaze", event="joined", text="back again", stamp=0.0))
            listener.serve_until(lambda: b"back again" in listener.read["out"], second, "the second publisher's event")
        listener.process.send_signal(signal.SIGINT)
        assert listener.end() == 0
        assert listener.read["err"].count(b"connected to") == 2


def test_a_reader_that_has_had_enough_ends_it_well(publisher: Publisher) -> None:
    with Listener(publisher.endpoint, "--format", "json") as listener:
        listener.serve_until(lambda: b"\n" in listener.read["out"], publisher, "a line")
        assert listener.process.stdout is not None
        listener.process.stdout.close()
        start = 0

        def ended() -> bool:
            nonlocal start
            start += 1
            publisher.send("gaze.retrieval", window(start))
            return listener.process.poll() is not None

        listener.serve_until(ended, publisher, "the end")
        assert listener.end() == 0
        assert b"Traceback" not in listener.read["err"]
        assert b"BrokenPipe" not in listener.read["err"]


def test_silence_ends_with_a_code_and_says_what_to_look_at(publisher: Publisher) -> None:
    publisher.close()  # a free port, and nobody there
    with Listener(publisher.endpoint, "--timeout", "0.4") as listener:
        assert listener.end() == 7
        said = " ".join(listener.read["err"].decode().split())
    assert "waiting for a publisher" in said
    assert f"no message from {publisher.endpoint} within 0.4 s: nobody publishes there" in said


def test_silence_after_messages_is_a_normal_end(publisher: Publisher) -> None:
    with Listener(publisher.endpoint, "--timeout", "1", "--format", "json", "--no-arrays") as listener:
        assert listener.end(publisher) == 0
        last = json.loads(listener.read["out"].splitlines()[-1])
    assert last["arrays"] == {"embedding": {"dtype": "<f4", "shape": [4]}}


def test_a_typo_in_the_endpoint_is_explained() -> None:
    with Listener("127.0.0.1:5555") as listener:
        assert listener.end() == 2
        assert "expected tcp://HOST:PORT" in " ".join(listener.read["err"].decode().split())


def plain(message: Any, age: float | None = None) -> str:
    """The line without its time and its colours."""
    return Text.from_ansi(line_of(Received("gaze.x", message, {}, 0.0, age))).plain.partition(" ")[2]


@pytest.mark.parametrize(
    ("message", "age", "line"),
    [
        (
            window(300, marker=WireMarker(stamp=1.0, value="cup")),
            0.085,
            "gaze sliding 2/300  ok        [cup]  cup 0.75, dog 0.75, sun 0.75, car 0.75, key 0.75  "
            "age 85 ms, latency 12.5 of 50 ms met",
        ),
        (
            window(
                300,
                kind="label",
                status="late",
                reason="encoder",
                retrieval=None,
                label=Label(names=("feet", "fists"), probabilities=(0.25, 0.75), best="fists"),
                ledger=Ledger(arrived=1.0, published=1.1, budget_ms=50.0, met=False),
            ),
            None,
            "gaze sliding 2/300  late      fists p=0.75  (encoder)  latency 100.0 of 50 ms MISSED",
        ),
        (
            window(
                1, kind="embedding", retrieval=None, arrays=(Array(name="e", dtype="<f4", shape=(4,)),), ledger=Ledger()
            ),
            None,
            "gaze sliding 2/1  ok        e[4]",
        ),
        (
            window(2, status="gap", retrieval=None, reason="no \x1b[2J data\n", ledger=Ledger(), retained=True),
            None,
            "gaze sliding 2/2  gap       (no ?[2J data?) (last value)",
        ),
        (
            Event(seq=0, origin="gaze", event="gap", text="lost\x1b]0;x\x07", stamp=0.0),
            None,
            "** gaze: gap: lost?]0;x?",
        ),
        (
            Health(seq=0, pipeline="gaze", due=5, counts={"ok": 4, "late": 0, "gap": 1}, dropped=2, uptime_s=1.0),
            None,
            "gaze: 5 windows due (4 ok, 1 gap), 2 messages dropped",
        ),
        (
            DESCRIPTION,
            None,
            "gaze: a test, 0 channels at 160 Hz, conditioned at 80 Hz with 12 ms delay, 2 items, "
            "bundle 0123456789ab cpu",
        ),
    ],
)
def test_a_line_says_it_all_and_cannot_steer_the_terminal(message: Any, age: float | None, line: str) -> None:
    assert plain(message, age) == line
