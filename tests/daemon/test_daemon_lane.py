"""The short way between processes of a host: whole messages in order, no wait for a slow reader, an end that shows."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
import zmq
from hypothesis import given

from rtdecode import hostclock
from rtdecode.daemon import bus, lane
from rtdecode.daemon.endpoints import Endpoints
from rtdecode.daemon.inbox import Inbox, Tap
from rtdecode.daemon.lane import LARGEST, Lane, Lanes, path_of

pytestmark = pytest.mark.skipif(path_of("ipc:///tmp/x") is None, reason="n/a: lanes are for Linux alone")


@contextlib.contextmanager
def lanes_at() -> Iterator[tuple[Lanes, Path]]:
    with tempfile.TemporaryDirectory(prefix="rtl") as folder:
        path = path_of(f"ipc://{folder}/samples")
        assert path is not None
        lanes = Lanes(path)
        yield lanes, path
        lanes.close()


@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=8), max_size=20))
def test_messages_come_whole_and_in_order(messages: list[list[bytes]]) -> None:
    with lanes_at() as (lanes, path), contextlib.closing(Lane(path)) as reader:
        lanes.accept()
        for frames in messages:
            lanes.send(frames)
        assert [reader.receive() for _ in messages] == messages
        assert reader.receive() is None
        assert not reader.over


def test_what_is_too_large_for_a_packet_ends_the_lanes() -> None:
    with lanes_at() as (lanes, path):
        for large in ([b"a", bytes(LARGEST)], [b"x"] * 9):
            with contextlib.closing(Lane(path)) as reader:
                lanes.accept()
                lanes.send([b"b", b"before"])
                lanes.send(large)
                lanes.send([b"c", b"after"])
                assert reader.receive() == [b"b", b"before"]
                assert reader.receive() is None
                assert reader.over, "it hears nothing, and does not know"


def test_a_reader_that_does_not_read_holds_nobody_up() -> None:
    with lanes_at() as (lanes, path), contextlib.closing(Lane(path)) as slow, contextlib.closing(Lane(path)) as quick:
        lanes.accept()
        n = 0
        while True:  # until the slow one's queue is full
            lanes.send([b"%06d" % n, bytes(10_000)])
            assert quick.receive() == [b"%06d" % n, bytes(10_000)]
            n += 1
            if n * 10_000 > 4 * lane.KEPT:
                break
        got = []
        while (frames := slow.receive()) is not None:
            got.append(int(frames[0]))
        assert got == list(range(len(got)))
        assert 0 < len(got) < n, "nothing was left out for one who never read"
        lanes.send([b"again"])
        assert slow.receive() == [b"again"]


def test_a_reader_that_is_gone_is_forgotten() -> None:
    with lanes_at() as (lanes, path), contextlib.closing(Lane(path)) as stays:
        gone = Lane(path)
        lanes.accept()
        gone.close()
        for n in range(3):
            lanes.send([b"%d" % n])
            assert stays.receive() == [b"%d" % n]
        assert len(lanes._open) == 1


def test_the_end_is_seen_after_what_was_sent() -> None:
    with lanes_at() as (lanes, path), contextlib.closing(Lane(path)) as reader:
        lanes.accept()
        lanes.send([b"last"])
        lanes.close()
        assert reader.receive() == [b"last"]
        assert reader.receive() is None
        assert reader.over
        with pytest.raises(OSError, match="No such file"):
            Lane(path)


def test_the_file_of_one_that_crashed_is_in_nobodys_way() -> None:
    with lanes_at() as (lanes, path):
        lanes.socket.close()  # as the kernel does for a process that is killed: the file stays
        assert path.exists()
        with contextlib.closing(Lanes(path)) as again, contextlib.closing(Lane(path)) as reader:
            again.accept()
            again.send([b"here"])
            assert reader.receive() == [b"here"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5555", "ipc:///tmp/" + "x" * 100])
def test_where_there_can_be_none(address: str) -> None:
    assert path_of(address) is None


def test_the_subscription_stands_in_for_a_lane_that_is_over() -> None:
    topic = bus.topic(bus.SAMPLES_TOPIC, "")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtl")))
        address = f"ipc://{folder}/samples"
        found = Endpoints(folder, address, f"ipc://{folder}/log", f"ipc://{folder}/control", {}, {}, {})
        context = stack.enter_context(zmq.Context())
        publisher = stack.enter_context(context.socket(zmq.PUB))
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(address)
        inbox = stack.enter_context(contextlib.closing(Inbox(context, found)))
        tap = inbox.tap("")
        path = path_of(address)
        assert path is not None
        inbox.open_lane()
        assert not inbox.renewed, "there is no lane yet"
        while not inbox.socket.poll(20):
            publisher.send_multipart([topic, b"before"])
        publisher.send_multipart([topic, b"before"])  # may come while nobody reads the subscription any more
        lanes = Lanes(path)
        inbox.open_lane()
        assert inbox.readable is not inbox.socket
        early = []
        while (one := inbox.next(tap)) is not None:
            early.append(one[0])
        assert early
        assert all(frames == [topic, b"before"] for frames in early)
        lanes.accept()
        lanes.send([topic, b"by lane"])
        taken = inbox.next(tap)
        assert taken is not None
        assert taken[0] == [topic, b"by lane"]
        inbox.renewed = False
        lanes.close()
        assert inbox.next(tap) is None
        assert inbox.renewed, "whoever polls has to look elsewhere"
        assert inbox.readable is inbox.socket
        assert _by_subscription(inbox, tap, publisher, topic) == [topic, b"by subscription"]


def _by_subscription(inbox: Inbox, tap: Tap, publisher: "zmq.Socket[bytes]", topic: bytes) -> list[bytes]:
    deadline = hostclock.now() + 20
    while hostclock.now() < deadline:
        publisher.send_multipart([topic, b"by subscription"])
        inbox.socket.poll(20)
        # What was on its way when the lane was opened may come late; by its number a follower knows that it is old.
        if (taken := inbox.next(tap)) is not None and taken[0] != [topic, b"before"]:
            return taken[0]
    raise AssertionError("the subscription never took effect")
