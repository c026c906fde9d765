"""Publisher and subscriber over real sockets: who gets what, when, and what is known of the rest."""

import asyncio
import logging
import operator
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from rtdecode import hostclock
from rtdecode.errors import ConfigError, PortInUseError, WireError
from rtdecode.wire.clock import clock_id, utc_anchor
from rtdecode.wire.endpoint import check_endpoint
from rtdecode.wire.framing import encode
from rtdecode.wire.messages import Description, Event, Ledger, Samples, Window
from rtdecode.wire.publisher import EVENTS_KEPT, Publisher
from rtdecode.wire.report import LossReport, write_report
from rtdecode.wire.subscriber import Received, Subscriber

ANY_PORT = "tcp://127.0.0.1:*"
TOPIC = "gaze.embedding"
DEADLINE_S = 20.0


def window(start: int, **changes: Any) -> Window:
    fields: dict[str, Any] = {
        "seq": 0,
        "kind": "embedding",
        "pipeline": "gaze",
        "bundle": "0123456789ab",
        "window": "sliding",
        "segment": 0,
        "start": start,
        "length": 100,
        "sfreq": 100.0,
        "status": "ok",
        "ledger": Ledger(stamp=hostclock.now()),
    }
    return Window(**fields | changes)


def description(clock: str | None = None) -> Description:
    return Description(
        seq=0,
        pipeline="gaze",
        source="a test",
        sfreq=100.0,
        channels=(),
        conditioned_sfreq=100.0,
        group_delay=0.0,
        bundle="0123456789ab",
        engine={},
        clock=hostclock.CLOCK_NAME,
        clock_id=clock_id() if clock is None else clock,
        utc_anchor=utc_anchor(),
    )


def until(condition: Callable[[], bool], step: Callable[[], object], what: str) -> None:
    """Step until a condition holds; fail after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE_S} s"
        step()


def serve(publisher: Publisher) -> None:
    publisher.socket.poll(10)
    publisher.service()


def collect(subscriber: Subscriber, publisher: Publisher, n: int) -> list[Received]:
    """`n` messages, while the publisher answers subscriptions."""
    got: list[Received] = []

    def step() -> None:
        serve(publisher)
        while len(got) < n and (received := subscriber.receive(0)) is not None:
            got.append(received)

    until(lambda: len(got) == n, step, f"message {n}")
    return got


@pytest.fixture(params=["tcp", "ipc"])
def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Publisher]:
    endpoint = ANY_PORT if request.param == "tcp" else f"ipc://{os.path.relpath(tmp_path)}/s"
    with Publisher(endpoint) as made:
        yield made


# Who gets what


def test_a_late_subscriber_gets_the_description_then_the_last_values(publisher: Publisher) -> None:
    for start in range(3):
        publisher.send(TOPIC, window(start), {"embedding": np.full(4, start, np.float32)})
    publisher.describe(description())
    with Subscriber(publisher.endpoint) as early, Subscriber(publisher.endpoint) as late:
        first = collect(early, publisher, 2)
        assert [received.topic for received in first] == ["gaze.description", TOPIC]
        assert [received.message.retained for received in first] == [True, True]
        np.testing.assert_array_equal(first[1].arrays["embedding"], np.full(4, 2))

        collect(late, publisher, 2)
        publisher.send(TOPIC, window(3))
        (live,) = collect(early, publisher, 1)  # not what was sent again for the other
        assert isinstance(live.message, Window)
        assert (live.message.start, live.message.seq, live.message.retained) == (3, 3, False)
        assert early.missed == late.missed == {}


def test_a_late_subscriber_gets_the_last_events_in_order_and_nobody_gets_one_twice(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(n: int) -> None:
        publisher.send("gaze.event", Event(seq=0, origin="gaze", event=f"number {n}", text="", stamp=0.0))

    for n in range(EVENTS_KEPT + 3):
        say(n)
    with Subscriber(publisher.endpoint) as early, Subscriber(publisher.endpoint) as late:
        heard = collect(early, publisher, EVENTS_KEPT)
        assert [one.message.seq for one in heard] == list(range(3, EVENTS_KEPT + 3))
        assert all(one.message.retained for one in heard)
        collect(late, publisher, EVENTS_KEPT)
        say(EVENTS_KEPT + 3)
        (live,) = collect(early, publisher, 1)  # not what was sent again for the other
        assert (live.message.seq, live.message.retained) == (EVENTS_KEPT + 3, False)
        assert early.missed == late.missed == {}
    monkeypatch.setattr(
        "rtdecode.wire.publisher.EVENTS_KEPT_S", -1.0
    )  # they are old: the last one is kept all the same
    with Subscriber(publisher.endpoint) as later:
        (last,) = collect(later, publisher, 1)
        assert last.message.seq == EVENTS_KEPT + 3
        say(EVENTS_KEPT + 4)
        (live,) = collect(later, publisher, 1)
        assert live.message.seq == EVENTS_KEPT + 4


def test_what_is_kept_for_late_subscribers_is_what_was_sent(publisher: Publisher) -> None:
    array = np.arange(4, dtype=np.float32)
    publisher.send(TOPIC, window(0), {"embedding": array})
    array[:] = -1
    with Subscriber(publisher.endpoint) as subscriber:
        (received,) = collect(subscriber, publisher, 1)
    np.testing.assert_array_equal(received.arrays["embedding"], np.arange(4))


def test_a_topic_brings_the_description_of_its_pipeline_and_nothing_else(publisher: Publisher) -> None:
    publisher.describe(description())
    publisher.send("other.event", Event(seq=0, origin="other", event="gap", text="", stamp=0.0))
    publisher.send("gaze.event", Event(seq=0, origin="gaze", event="gap", text="", stamp=0.0))
    publisher.send(TOPIC, window(0))
    with Subscriber(publisher.endpoint, [TOPIC]) as subscriber:
        got = collect(subscriber, publisher, 2)
        publisher.send("gaze.event", Event(seq=0, origin="gaze", event="gap", text="", stamp=0.0))
        publisher.send(TOPIC, window(1))
        got += collect(subscriber, publisher, 1)
        assert [received.topic for received in got] == ["gaze.description", TOPIC, TOPIC]
        assert subscriber.description == got[0].message
        assert subscriber.descriptions == {"gaze": got[0].message}


def test_sequence_numbers_count_each_topic_and_samples_keep_their_own(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        publisher.describe(description())
        collect(subscriber, publisher, 1)
        assert [publisher.send(TOPIC, window(0)) for _ in range(2)] == [0, 1]
        assert (
            publisher.send("acquire.samples", Samples(seq=70, segment=0, first_index=0, arrived=0.0, watermark=0.0))
            == 70
        )
        assert publisher.send("gaze.label", window(0, kind="label")) == 0
        assert [received.message.seq for received in collect(subscriber, publisher, 4)] == [0, 1, 70, 0]
    with Subscriber(publisher.endpoint) as late:
        topics = {received.topic for received in collect(late, publisher, 3)}
    assert topics == {"gaze.description", TOPIC, "gaze.label"}  # a log's entry is nobody's last value


def test_a_message_under_a_foreign_topic_is_refused(publisher: Publisher) -> None:
    with pytest.raises(WireError, match=r"goes out as 'gaze\.embedding'"):
        publisher.send("gaze.label", window(0))


@pytest.mark.parametrize("same_clock", [True, False])
def test_ages_are_told_only_on_the_publishers_clock(publisher: Publisher, same_clock: bool) -> None:
    publisher.describe(description(clock_id() if same_clock else "lsl:elsewhere:1"))
    publisher.send(TOPIC, window(0, ledger=Ledger(stamp=hostclock.now() - 0.5)))
    publisher.send("gaze.label", window(0, kind="label", ledger=Ledger(stamp=None)))
    publisher.send("gaze.event", Event(seq=0, origin="gaze", event="gap", text="", stamp=hostclock.now() - 0.5))
    with Subscriber(publisher.endpoint) as subscriber:
        ages = {received.topic: received.age for received in collect(subscriber, publisher, 4)}
    assert ages["gaze.description"] is None
    assert ages["gaze.label"] is None  # of a sample that never came
    for topic in (TOPIC, "gaze.event"):
        age = ages[topic]
        assert (age is not None and 0.5 <= age < DEADLINE_S) if same_clock else age is None


def test_closing_lets_what_was_sent_leave() -> None:
    publisher = Publisher(ANY_PORT, hwm=5000)
    with Subscriber(publisher.endpoint, hwm=5000) as subscriber:
        publisher.describe(description())
        collect(subscriber, publisher, 1)
        for start in range(2000):
            publisher.send(TOPIC, window(start), {"embedding": np.zeros(256, np.float32)})
        done = threading.Thread(target=publisher.close, kwargs={"linger": DEADLINE_S})
        done.start()
        subscriber.timeout = 2.0
        seen = [r.message.start for r in subscriber if isinstance(r.message, Window)]
        done.join()
    publisher.close()
    assert seen == list(range(2000))


# Both kinds of loop


def test_a_for_loop_ends_after_its_timeout(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, timeout=0.3) as subscriber:
        publisher.describe(description())
        collect(subscriber, publisher, 1)
        for start in range(3):
            publisher.send(TOPIC, window(start))
        assert [received.message.seq for received in subscriber] == [0, 1, 2]
        assert subscriber.receive(0) is None


def test_an_async_for_loop_leaves_the_event_loop_free(publisher: Publisher) -> None:
    async def publish(n: int) -> None:
        for start in range(n):
            publisher.send(TOPIC, window(start))
            await asyncio.sleep(0)

    async def follow() -> list[int]:
        async with Subscriber(publisher.endpoint, timeout=DEADLINE_S) as subscriber:
            publisher.describe(description())
            while await subscriber.receive_async(0.01) is None:
                serve(publisher)
            sender = asyncio.create_task(publish(20))  # runs only while the loop below waits
            got = []
            async for received in subscriber:
                got.append(received.message.seq)
                if len(got) == 20:
                    break
            await sender
            assert await subscriber.receive_async(0.01) is None
            return got

    assert asyncio.run(follow()) == list(range(20))


# Loss, restarts, rubbish


def raw_publisher() -> tuple[zmq.Context[Any], zmq.Socket[bytes], str]:
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind(ANY_PORT)
    return context, socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def test_jumps_are_counted_restarts_and_last_values_are_not(caplog: pytest.LogCaptureFixture) -> None:
    context, socket, endpoint = raw_publisher()
    with Subscriber(endpoint) as subscriber:
        assert socket.recv() == b"\x01"

        def put(seq: int, publisher: int, **changes: Any) -> None:
            socket.send_multipart(encode(TOPIC, window(0, seq=seq, publisher=publisher, **changes)))

        put(57, 1)  # where one comes in is no loss
        put(58, 1)
        put(61, 1)  # 59 and 60
        put(61, 1, retained=True)  # sent again for another
        put(63, 1, retained=True)  # 62 is lost; 63 was lost too, and came after all
        put(64, 1)
        put(0, 2)  # another life of the publisher
        put(2, 2)  # 1
        received = [subscriber.receive(DEADLINE_S) for _ in range(7)]
        assert [each.message.seq for each in received if each is not None] == [57, 58, 61, 63, 64, 0, 2]
        assert subscriber.missed == {TOPIC: 4}

        with caplog.at_level(logging.WARNING, "rtdecode.wire"):
            header = msgspec.msgpack.encode(msgspec.to_builtins(window(0, seq=3, publisher=2)) | {"v": 2})
            socket.send_multipart([b"", b"\xc1"])
            socket.send_multipart([TOPIC.encode(), header])
            put(3, 2)
            good = subscriber.receive(DEADLINE_S)
        assert good is not None
        assert good.message.seq == 3
        assert subscriber.malformed == 2
        assert "cannot be read" in caplog.text
    socket.close()
    context.term()


def test_a_restarted_publisher_is_followed() -> None:
    first = Publisher(ANY_PORT)
    endpoint = first.endpoint
    first.describe(description())
    for start in range(5):
        first.send(TOPIC, window(start))
    with Subscriber(endpoint) as subscriber:
        collect(subscriber, first, 2)
        until(lambda: subscriber.connected, lambda: subscriber.receive(0), "the connection")
        first.close()
        until(lambda: not subscriber.connected, lambda: subscriber.receive(0.05), "the disconnection")
        with Publisher(endpoint) as second:
            second.describe(description("lsl:after:restart"))
            second.send(TOPIC, window(77))
            got = collect(subscriber, second, 2)
            until(lambda: subscriber.connected, lambda: subscriber.receive(0), "the reconnection")
            assert [received.message.seq for received in got] == [0, 0]
            assert subscriber.description is not None
            assert subscriber.description.clock_id == "lsl:after:restart"
            assert subscriber.missed == {}


def test_a_publisher_survives_what_strangers_send_it() -> None:
    with Publisher(ANY_PORT) as publisher, zmq.Context() as context, context.socket(zmq.XSUB) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(publisher.endpoint)
        publisher.describe(description())
        for upstream in (b"\x02", b"\x02\xc1", b"junk", b"", write_report(LossReport(1, 2**60)), b"\x01"):
            stranger.send(upstream)
        until(lambda: bool(stranger.poll(0)), lambda: serve(publisher), "the description")
        assert stranger.recv_multipart()[0] == b"gaze.description"
        assert publisher.dropped == 1  # a loss of more than was ever sent is not believed


CHILD = """
import sys
from rtdecode.wire.subscriber import Subscriber

endpoint, pace = sys.argv[1:]
with Subscriber(endpoint, hwm=20) as subscriber:
    assert subscriber.receive(20) is not None
    print("ready", flush=True)
    if pace == "slow":
        sys.stdin.readline()
    n = 0
    while (received := subscriber.receive(20)) is not None and received.topic != "gaze.event":
        n += 1
        print("got", n, flush=True)
    print("end", n, sum(subscriber.missed.values()), flush=True)
    sys.stdin.read()
"""


class Child:
    """A subscriber in a process of its own, that tells what it got."""

    def __init__(self, endpoint: str, pace: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, endpoint, pace], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: Queue[list[str]] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.said: list[str] = [""]

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line.split())

    def listen(self) -> None:
        try:
            self.said = self._lines.get(timeout=0.005)
        except Empty:
            assert self.process.poll() is None, "the subscriber died"

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def test_a_slow_subscriber_costs_itself_alone_and_its_loss_is_counted() -> None:
    n = 600
    big = {"embedding": np.zeros(16384, np.float32)}  # 64 KiB, so that the kernel's buffers fill soon
    with Publisher(ANY_PORT, hwm=20) as publisher:
        publisher.describe(description())
        with Child(publisher.endpoint, "fast") as fast, Child(publisher.endpoint, "slow") as slow:

            def wait(child: Child, condition: Callable[[list[str]], bool], what: str) -> None:
                def step() -> None:
                    publisher.service()
                    child.listen()

                until(lambda: condition(child.said), step, what)

            for child in (fast, slow):
                wait(child, lambda said: said[0] == "ready", "a subscriber's start")
            for sent in range(1, n + 1):
                publisher.send(TOPIC, window(sent), big)
                if sent % 10 == 0:
                    wait(fast, partial(operator.eq, ["got", str(sent)]), "the fast subscriber")
            assert publisher.dropped >= 1  # known at once: a queue filled up

            assert slow.process.stdin is not None
            slow.process.stdin.write("go\n")
            slow.process.stdin.flush()
            # Only when the slow one has made room does a later message reach it, and shows it the hole.
            wait(slow, lambda said: said[0] == "got" and int(said[1]) >= 40, "the slow subscriber")
            total = n
            while slow.said[0] != "end":
                publisher.send(TOPIC, window(total))
                publisher.send("gaze.event", Event(seq=0, origin="gaze", event="end", text="", stamp=0.0))
                total += 1
                slow.listen()
                if fast.said[0] != "end":
                    wait(fast, lambda said: said[0] == "end", "the fast subscriber's end")

            assert fast.said == ["end", str(n + 1), "0"]
            missed = int(slow.said[2])
            assert missed > 0
            until(lambda: publisher.dropped >= missed, lambda: serve(publisher), "the loss report")
            assert publisher.dropped == missed


# Addresses


def test_an_address_in_use_is_refused(publisher: Publisher) -> None:
    with pytest.raises(PortInUseError, match=re.escape(publisher.endpoint)):
        Publisher(publisher.endpoint)
    with Subscriber(publisher.endpoint) as subscriber:  # and its owner goes on
        publisher.describe(description())
        collect(subscriber, publisher, 1)


def test_a_socket_file_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    endpoint = f"ipc://{os.path.relpath(tmp_path)}/s"
    dead = f"import os; from rtdecode.wire.publisher import Publisher; Publisher({endpoint!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", dead], check=True)
    assert (tmp_path / "s").exists()
    with Publisher(endpoint) as publisher, Subscriber(endpoint) as subscriber:
        publisher.describe(description())
        collect(subscriber, publisher, 1)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("127.0.0.1:5555", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1", "expected tcp://HOST:PORT"),
        ("tcp:/127.0.0.1:5555", "expected tcp://HOST:PORT"),
        ("http://127.0.0.1:5555", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:55555555", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:65536", "above 65535"),
        ("tcp://127.0.0.1:0", "leaves host or port open"),
        ("tcp://*:5555", "leaves host or port open"),
        ("ipc://", "names no path"),
        ("ipc://" + "x" * 108, "at most 107 bytes"),
        ("", "expected tcp://HOST:PORT"),
    ],
)
def test_what_is_no_endpoint_is_explained(endpoint: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Subscriber(endpoint)


def test_endpoints_to_bind_may_leave_things_open_but_not_everything(tmp_path: Path) -> None:
    for endpoint in ("tcp://*:*", "tcp://127.0.0.1:0", "tcp://[::1]:*", f"ipc://{os.path.relpath(tmp_path)}/s"):
        assert check_endpoint(endpoint, bind=True) == endpoint
    with pytest.raises(ConfigError, match=r"the folder .*nowhere does not exist"):
        Publisher(f"ipc://{os.path.relpath(tmp_path)}/nowhere/s")
    with pytest.raises(WireError, match=r"cannot publish on tcp://no\.such\.interface:5555"):
        Publisher("tcp://no.such.interface:5555")


def test_the_utc_anchor_names_one_moment() -> None:
    before, (host, utc), after = hostclock.now(), utc_anchor(), hostclock.now()
    assert before <= host <= after
    assert utc == pytest.approx(time.time() - (hostclock.now() - host), abs=0.1)
