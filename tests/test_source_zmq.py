"""What the ``zmq`` source does beyond the conformance suite: losses, restarts, changes, clocks, hostile frames."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq_acquire import Shared
from zmq_outlet import ZmqOutlet

from rtdecode import hostclock
from rtdecode.daemon.remote import RemoteSource
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.signal import Batch, Channel, Chunk, Marker, Notice, SourceState, StreamInfo
from rtdecode.sources.change import ChangedError
from rtdecode.sources.declare import Declare
from rtdecode.sources.zmq_format import MalformedError, read_message
from rtdecode.sources.zmq_source import ZmqSource

DOC = Path(__file__).parents[1] / "docs" / "zmq-source.md"
TEN = np.arange(20.0).reshape(10, 2)


def opened(outlet: ZmqOutlet, **options: Any) -> Any:
    """A source whose first ten samples have come."""
    options.setdefault("declare", Declare(unit="uV"))
    source = ZmqSource(outlet.endpoint, timeout_s=20, **options)
    return open_with(source, lambda: (outlet.joined(), outlet.push(TEN, index=0)))


def open_with(source: Any, send: Callable[[], object]) -> Any:
    thread = threading.Thread(target=send)
    thread.start()
    source.open()
    thread.join()
    return source


def read_until(source: Any, condition: Callable[[Batch], object], timeout: float = 30.0) -> list[Batch]:
    """Batches up to the first that meets the condition."""
    batches = []
    deadline = hostclock.now() + timeout
    while hostclock.now() < deadline:
        batch = source.read(0.2)
        assert batch is not None, "the source has ended"
        batches.append(batch)
        if condition(batch):
            return batches
    raise AssertionError(f"waited {timeout} s; got {batches[-3:]}")


def joined(source: Any, outlet: ZmqOutlet) -> None:
    """Read on until the sender has been found again; what libzmq gives up, the reader makes anew."""
    thread = threading.Thread(target=outlet.joined)
    thread.start()
    while thread.is_alive():
        assert source.read(0.05) is not None


def samples(source: Any) -> Chunk:
    chunk = read_until(source, lambda batch: batch.chunk is not None)[-1].chunk
    assert chunk is not None
    return chunk


def notice(source: Any, event: str = "state", state: SourceState | None = None) -> Notice:
    def found(batch: Batch) -> list[Notice]:
        return [one for one in batch.notices if one.event == event and (state is None or one.state is state)]

    return found(read_until(source, found)[-1])[0]


@pytest.fixture
def outlet() -> Iterator[ZmqOutlet]:
    with ZmqOutlet() as one:
        yield one


# --- the minimal format -----------------------------------------------------------------------------------------------


def test_a_lost_message_is_a_hole_of_as_many_samples(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        first = samples(source)
        outlet.push(TEN, index=25)
        second = samples(source)
        assert (first.first_index, second.first_index) == (0, 25)
        assert second.segment == first.segment


def test_who_comes_late_begins_at_index_0(outlet: ZmqOutlet) -> None:
    source = ZmqSource(outlet.endpoint, timeout_s=20, declare=Declare(unit="uV"))
    open_with(source, lambda: (outlet.joined(), outlet.push(TEN, index=70_000)))
    assert samples(source).first_index == 0
    outlet.push(TEN, index=70_010)
    assert samples(source).first_index == 10
    source.close()


@pytest.mark.parametrize("run", [1, 2], ids=["the same run number", "another"])
def test_a_sender_that_is_started_again_begins_a_segment(outlet: ZmqOutlet, run: int) -> None:
    with contextlib.closing(opened(outlet)) as source:
        assert samples(source).segment == 0
        outlet.kill()
        notice(source, state=SourceState.RECOVERING)
        outlet.restart(run=run)
        outlet.joined()
        notice(source, state=SourceState.STREAMING)
        outlet.push(TEN, index=0)
        chunk = samples(source)
        assert (chunk.segment, chunk.first_index) == (1, 0)


def test_samples_that_come_again_are_refused(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        samples(source)
        outlet.push(TEN, index=5)
        text = notice(source, "refused").text
        assert text.startswith("refused a message: ")
        assert "came again" in text
        outlet.push(TEN, index=10)
        assert samples(source).first_index == 10
        assert source.refused == 1


def test_a_sender_that_was_replaced_is_refused_when_it_goes_on(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        samples(source)
        outlet.push(TEN, index=0, run="another")
        assert samples(source).segment == 1
        outlet.push(TEN, index=10)
        assert "another sender has replaced" in notice(source, "refused").text
        outlet.push(TEN, index=10, run="another")
        assert (samples(source).segment, source.refused) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sfreq": 200.0}, "rate: 200 Hz instead of 100 Hz"),
        ({"channels": ["B", "A"]}, "order of channels: 'B' at place 1 instead of 'A'"),
        ({"channels": ["A", "C"]}, "names of channels: 'C' at place 2 instead of 'B'"),
        ({"channels": ["A"]}, "number of channels: 1 instead of 2"),
        ({"unit": "mV"}, "unit of channel 'A': mV instead of uV"),
        ({"dtype": "<f8"}, "format: <f8 instead of <f4"),
    ],
)
def test_what_came_back_as_something_else_is_refused_and_named(changes: dict[str, Any], named: str) -> None:
    with ZmqOutlet(unit="uV") as outlet, contextlib.closing(opened(outlet, declare=Declare())) as source:
        samples(source)
        outlet.kill()
        notice(source, state=SourceState.RECOVERING)
        as_it_was = dict(outlet.spec)
        outlet.restart(run=2, **changes)
        joined(source, outlet)
        outlet.push(TEN[:, : len(outlet.spec["channels"])], index=0)
        assert named in notice(source, state=SourceState.CHANGED).text
        assert source.refused == 1
        outlet.kill()
        notice(source, state=SourceState.RECOVERING)
        outlet.spec = as_it_was
        outlet.restart(run=3)
        joined(source, outlet)
        outlet.push(TEN, index=0)
        batches = read_until(source, lambda batch: batch.chunk is not None)
        assert SourceState.STREAMING in [one.state for batch in batches for one in batch.notices]
        assert batches[-1].chunk is not None
        assert batches[-1].chunk.segment == 1


def test_what_stays_something_else_ends_the_source(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        samples(source)
        source._timeout_s = 0.3
        outlet.push(TEN, index=10, sfreq=50.0)
        notice(source, state=SourceState.CHANGED)
        with pytest.raises(ChangedError, match="other rate: 50 Hz instead of 100 Hz"):
            read_until(source, lambda batch: False)


def test_a_sender_that_stays_away_ends_the_source(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        source._timeout_s = 0.3
        outlet.kill()
        batches = []
        while (batch := source.read(5.0)) is not None:
            batches.append(batch)
        assert batches[-1].watermark == np.inf


def test_markers_by_the_sample_wait_for_it_and_hold_the_watermark(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet, lateness_s=0.0)) as source:
        first = samples(source)
        outlet.send(kind="marker", value="ahead", index=12)
        outlet.send(kind="marker", value="behind", index=3)
        batches = read_until(source, lambda batch: batch.markers)
        assert [m.value for batch in batches for m in batch.markers] == ["behind"]
        assert batches[-1].markers[0].stamp == first.stamps[3]
        newest = first.stamps[-1]
        assert read_until(source, lambda batch: True)[-1].watermark == newest
        outlet.push(TEN, index=10)
        batch = read_until(source, lambda batch: batch.markers)[-1]
        assert batch.chunk is not None
        assert batch.markers[0].value == "ahead"
        assert batch.markers[0].stamp == pytest.approx(batch.chunk.stamps[2], abs=1e-9)
        outlet.send(kind="marker", value="b", stamp=5.0)
        assert "have no stamps" in notice(source, "refused").text


def test_stamps_of_another_clock_follow_its_quickest_messages() -> None:
    ahead = 1234.5
    with ZmqOutlet(sfreq=1000.0) as outlet:
        source = ZmqSource(outlet.endpoint, timeout_s=20, declare=Declare(unit="uV"))
        began = hostclock.now() - 0.009  # nothing is sent before it was sampled
        open_with(source, lambda: (outlet.joined(), outlet.push(TEN, index=0, stamp=began + ahead)))
        samples(source)
        for k in range(1, 100):
            stamp = began + 0.01 * k
            while hostclock.now() < stamp + 0.009:
                pass
            outlet.push(TEN, index=10 * k, stamp=stamp + ahead)
            chunk = samples(source)
            # Never before it was sampled: delay only adds.
            assert chunk.stamps[0] >= stamp - 1e-3
        assert chunk.stamps[0] <= chunk.arrived
        source.close()


def test_an_end_is_the_end(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        samples(source)
        outlet.send(kind="end")
        assert read_until(source, lambda batch: batch.watermark == np.inf)
        assert source.read(0.1) is None


def test_another_stream_is_ignored_and_said_once(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        samples(source)
        outlet.push(TEN, index=0, stream="other")
        outlet.push(TEN, index=10, stream="other")
        outlet.push(TEN, index=10)
        batches = read_until(source, lambda batch: batch.chunk is not None)
        notices = [one for batch in batches for one in batch.notices]
        assert [one.event for one in notices] == ["other stream"]
        assert (source.ignored, source.refused) == (2, 0)


def test_nobody_there_names_the_endpoint_and_what_came_instead(outlet: ZmqOutlet) -> None:
    source = ZmqSource(outlet.endpoint, stream="mine", timeout_s=1.0)
    thread = threading.Thread(target=lambda: (outlet.joined(), outlet.push(TEN, index=0), outlet.send(kind="what")))
    thread.start()
    with pytest.raises(StreamNotFoundError, match=r"'mine'.*messages of 'amp' came; 1 messages were refused.*kind"):
        source.open()
    thread.join()


def test_an_address_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SourceError, match="cannot be listened on"):
            ZmqSource(endpoint, bind=True).open()


def test_a_push_socket_can_connect_to_us() -> None:
    probe = socket.create_server(("127.0.0.1", 0))
    endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    probe.close()
    source = ZmqSource(endpoint, bind=True, pattern="pull", timeout_s=20, declare=Declare(unit="uV"))
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.connect(endpoint)
        header = {"v": 1, "kind": "samples", "stream": "amp", "run": 1, "index": 0, "n": 10, "dtype": "<f8",
                  "sfreq": 10.0, "channels": ["A", "B"]}  # fmt: skip
        push.send_multipart([b"a topic", json.dumps(header).encode(), TEN.tobytes()])
        source.open()
        assert np.array_equal(samples(source).samples, (TEN * 1e-6).astype(np.float32))
    source.close()


# --- hostile frames ---------------------------------------------------------------------------------------------------

GOOD = {"v": 1, "kind": "samples", "stream": "amp", "run": 1, "index": 0, "n": 10, "dtype": "<f4", "sfreq": 100.0,
        "channels": ["A", "B"]}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"v": 2}, "v"),
        ({"kind": "sample"}, "kind"),
        ({"n": 0}, "n"),
        ({"n": 2**62}, "n"),
        ({"n": 9}, "take 72 bytes; the raw frame has 80"),
        ({"index": -1}, "index"),
        ({"index": 10**400}, "index|JSON"),
        ({"dtype": "O"}, "dtype is 'O'"),
        ({"dtype": "<U4"}, "dtype"),
        ({"sfreq": 0}, "sfreq is 0"),
        ({"sfreq": 1e300}, "sfreq"),
        ({"channels": []}, "channels"),
        ({"channels": ["A"] * 5000}, "channels"),
        ({"channels": [["A"]] * 2}, "channels"),
        ({"units": ["uV"]}, "units has 1 entries, channels has 2"),
        ({"unit": "uV", "units": ["uV", "uV"]}, "both unit and units"),
        ({"stamp": 1e300}, "stamp"),
        ({"stamp": "now"}, "stamp"),
        ({"sampling_rate": 3}, "sampling_rate"),
        ({"run": None}, "run"),
        ({"stream": "x" * 200}, "stream"),
    ],
)
def test_a_wrong_header_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(MalformedError, match=named):
        read_message([json.dumps(GOOD | change).encode(), TEN.astype("<f4").tobytes()])


@pytest.mark.parametrize(
    "frames",
    [
        [], [b""], [b"{"], [b"\xff" * 10], [b"[" * 100_000], [b'{"x":' * 100_000], [b"topic"], [b"a", b"b", b"c"],
        [b'{"v":1,"kind":"marker","stream":"a","run":1,"value":"x"}'],
        [b'{"v":1,"kind":"marker","stream":"a","run":1,"value":"x","index":1,"stamp":1.0}'],
        [b'{"v":1,"kind":"marker","stream":"a","run":1,"value":"x","stamp":1e9999}'],
        [b'{"v":1,"kind":"marker","stream":"a","run":1,"value":"x","stamp":NaN}'],
        [b'{"v":1,"kind":"end","stream":"a","run":1}', b"raw"],
    ],
    ids=repr,
)  # fmt: skip
def test_no_message_at_all_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        read_message([frame[:10] + frame[10:] for frame in frames])


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_whatever_comes_is_a_message_or_refused(frames: list[bytes]) -> None:
    with contextlib.suppress(MalformedError):
        read_message(frames)


def mutated(rng: np.random.Generator) -> list[bytes]:
    """A good message that one thing was done to; never a good one."""
    header, raw = json.dumps(GOOD | {"index": 10}).encode(), TEN.astype("<f4").tobytes()
    match int(rng.integers(6)):
        case 0:
            return [header[: rng.integers(len(header))], raw]
        case 1:
            return [header, raw[: rng.integers(len(raw))]]
        case 2:
            return [header, raw + rng.bytes(int(rng.integers(1, 1000)))]
        case 3:
            return [rng.bytes(int(rng.integers(0, 300))), raw]
        case 4:
            return [b"topic", header, raw, *[b"more"] * int(rng.integers(1, 50))]
        case _:
            at = int(rng.integers(len(header)))
            return [header[:at] + b"\xff" + header[at + 1 :], raw]


def test_malformed_messages_are_refused_one_by_one_and_the_stream_goes_on() -> None:
    rng = np.random.default_rng(5)
    n = 2000
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.SNDHWM, 100)
        port = push.bind_to_random_port("tcp://127.0.0.1")
        source = ZmqSource(f"tcp://127.0.0.1:{port}", pattern="pull", timeout_s=20, declare=Declare(unit="uV"))

        def send() -> None:
            push.send_multipart([json.dumps(GOOD).encode(), TEN.astype("<f4").tobytes()])
            for _ in range(n):
                push.send_multipart(mutated(rng))
            push.send_multipart([json.dumps(GOOD | {"index": 10}).encode(), TEN.astype("<f4").tobytes()])

        thread = threading.Thread(target=send)
        thread.start()
        source.open()
        assert samples(source).first_index == 0
        batches = read_until(source, lambda batch: batch.chunk is not None)
        thread.join()
        assert batches[-1].chunk is not None
        assert batches[-1].chunk.first_index == 10
        assert source.refused == n
        told = [one for batch in batches for one in batch.notices if one.event == "refused"]
        assert 1 <= len(told) < n / 10
        source.close()


def test_a_peer_that_speaks_something_else_is_let_go_and_the_stream_goes_on() -> None:
    """Also one that announces a frame of 2^62 bytes: libzmq never connects again by itself after that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        source = ZmqSource(f"tcp://127.0.0.1:{port}", timeout_s=30, declare=Declare(unit="uV"))

        def serve() -> None:
            for greeting in (b"HTTP/1.1 400 Bad Request\r\n\r\n", _hello() + b"\x02" + (2**62).to_bytes(8, "big")):
                peer, _ = listener.accept()
                with peer, contextlib.suppress(OSError):
                    peer.sendall(greeting)
                    peer.settimeout(2.0)
                    while peer.recv(4096):
                        pass
            listener.close()
            push.bind(f"tcp://127.0.0.1:{port}")
            push.poll(20_000)
            push.recv()
            push.send_multipart([json.dumps(GOOD).encode(), TEN.astype("<f4").tobytes()])

        with zmq.Context() as context, context.socket(zmq.XPUB) as push:
            open_with(source, serve)
            assert samples(source).first_index == 0
            source.close()


def _hello() -> bytes:
    """A PUB socket's greeting and READY command (ZMTP 3.0, rfc.zeromq.org/spec/23), mechanism NULL."""
    greeting = b"\xff" + b"\x00" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\x00") + b"\x00" + b"\x00" * 31
    ready = b"\x05READY" + b"\x0bSocket-Type" + (3).to_bytes(4, "big") + b"PUB"
    return greeting + b"\x04" + bytes([len(ready)]) + ready


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1], ids=["samples", "counter and markers"])
def test_the_scripts_of_the_page_run_as_they_stand(which: int, tmp_path: Path) -> None:
    script = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)[which]
    assert len(script.strip().splitlines()) <= 15
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    assert "tcp://*:5600" in script
    (tmp_path / "sender.py").write_text(script.replace("tcp://*:5600", f"tcp://127.0.0.1:{port}"))
    process = subprocess.Popen([sys.executable, "sender.py"], cwd=tmp_path)
    try:
        with ZmqSource(f"tcp://127.0.0.1:{port}", timeout_s=30) as source:
            first, second = samples(source), samples(source)
            assert second.first_index == first.stop_index
            assert [channel.unit for channel in source.info.channels] == (["V", "V", "1"] if which else ["V", "V"])
            if which:
                assert read_until(source, lambda batch: batch.markers)
            assert source.refused == 0
    finally:
        process.kill()
        process.wait()


# --- another machine's acquire ----------------------------------------------------------------------------------------

CHANNELS = (Channel("A", "eeg", "V"), Channel("B", "eeg", "V"))
INFO = StreamInfo(CHANNELS, 100.0, "test")


def chunk_of(index: int, segment: int = 0, zero: float = 0.0) -> Chunk:
    stamps = (zero or 1000.0) + (index + np.arange(10)) / 100
    return Chunk(TEN.astype(np.float32), stamps, index, segment, arrived=hostclock.now())


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with Shared(INFO, tmp_path_factory.mktemp("s")) as one:
        yield one


def test_what_was_lost_on_the_way_comes_from_the_log(shared: Shared) -> None:
    shared.send(Batch(chunk_of(0), (), 0.0))
    with RemoteSource(shared.endpoint, timeout_s=20) as source:
        assert samples(source).first_index == 0
        shared.send(Batch(chunk_of(10), [Marker(1000.1, "go", "cues")], 0.0), live=False)
        shared.send(Batch(chunk_of(20), (), 0.0))
        batches = read_until(source, lambda batch: batch.chunk is not None and batch.chunk.first_index == 20)
        assert [batch.chunk.first_index for batch in batches if batch.chunk is not None] == [10, 20]
        assert [marker.value for batch in batches for marker in batch.markers] == ["go"]


def test_the_same_clock_leaves_stamps_to_the_last_bit(shared: Shared) -> None:
    shared.send(Batch(chunk_of(0), (), 0.0))
    with RemoteSource(shared.endpoint, timeout_s=20) as source:
        chunk = samples(source)
        assert np.abs(chunk.stamps - chunk_of(0).stamps).max() < 1e-12
        assert (chunk.stamps[0], chunk.stamps[-1]) == (1000.0, chunk_of(0).stamps[-1])
        assert chunk.uncertainty == 0.0


def test_another_clock_is_measured_to_within_its_uncertainty(tmp_path: Path) -> None:
    with Shared(INFO, tmp_path, clock="another", ahead=5000.0) as shared:
        zero = hostclock.now()
        shared.send(Batch(chunk_of(0, zero=zero + 5000.0), [Marker(zero + 5000.0, "go", "cues")], zero + 5000.0))
        with RemoteSource(shared.endpoint, timeout_s=20) as source:
            batch = read_until(source, lambda batch: batch.chunk is not None)[-1]
            assert batch.chunk is not None
            assert 0.0 < batch.chunk.uncertainty < 1.0
            assert abs(batch.chunk.stamps[0] - zero) <= batch.chunk.uncertainty
            assert abs(batch.markers[0].stamp - zero) <= batch.chunk.uncertainty
            assert batch.markers[0].stamp <= batch.watermark
            assert [offset.value for offset in batch.offsets[:1]] == pytest.approx([-5000.0], abs=1.0)
            assert batch.raw[0].stamps[0] == zero + 5000.0


def test_another_acquire_begins_a_segment_or_is_refused_when_it_reads_something_else(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("s")
    with Shared(INFO, folder) as shared:
        shared.send(Batch(chunk_of(0), (), 0.0))
        source = RemoteSource(shared.endpoint, timeout_s=30)
        source.open()
        assert samples(source).segment == 0
    notice(source, state=SourceState.RECOVERING)
    with Shared(StreamInfo(CHANNELS, 200.0, "test"), folder, run=2) as shared:
        shared.send(Batch(chunk_of(0), (), 0.0))
        assert "200 Hz instead of 100 Hz" in notice(source, state=SourceState.CHANGED).text
        read_until(source, lambda batch: source.refused == 1)
    with Shared(INFO, folder, run=3) as shared:
        shared.send(Batch(chunk_of(0), (), 0.0))
        chunk = samples(source)
        assert (chunk.segment, chunk.first_index) == (1, 0)
    source.close()


def test_what_its_publisher_sends_amiss_is_refused_and_the_log_makes_it_good(shared: Shared) -> None:
    shared.send(Batch(chunk_of(0), (), 0.0))
    rng = np.random.default_rng(1)
    with RemoteSource(shared.endpoint, timeout_s=20) as source:
        samples(source)
        for _ in range(500):
            shared.send_raw(b"acquire.samples", *(rng.bytes(int(rng.integers(100))) for _ in range(rng.integers(5))))
        shared.send(Batch(chunk_of(10), (), 0.0))
        assert samples(source).first_index == 10  # perhaps from the log, before all the others have been read
        if source.refused < 500:
            read_until(source, lambda _: source.refused == 500)
        assert source.refused == 500


def test_nobody_shares(tmp_path: Path) -> None:
    with pytest.raises(StreamNotFoundError, match="share"):
        RemoteSource(f"ipc://{tmp_path / 'share'}", timeout_s=0.3).open()


def test_the_last_thing_before_a_silence_comes_from_the_log(shared: Shared) -> None:
    shared.send(Batch(chunk_of(0), (), 0.0))
    with RemoteSource(shared.endpoint, timeout_s=20) as source:
        assert samples(source).first_index == 0
        shared.send(Batch(chunk_of(10), (), 0.0), live=False)  # published before our subscription had arrived
        assert samples(source).first_index == 10
