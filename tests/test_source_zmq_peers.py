"""The ``zmq`` source and its peers: one that hangs, several, one whose stamps lie behind, one that marks ahead."""

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq
from test_source_zmq import TEN, joined, notice, open_with, opened, read_until, samples
from zmq_outlet import ZmqOutlet

from rtdecode import hostclock
from rtdecode.signal import SourceState
from rtdecode.sources.declare import Declare
from rtdecode.sources.zmq_source import ZmqSource


@pytest.fixture
def outlet() -> Iterator[ZmqOutlet]:
    with ZmqOutlet() as one:
        yield one


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_sender_that_hangs_is_not_lost_and_goes_on(outlet: ZmqOutlet) -> None:
    with contextlib.closing(opened(outlet)) as source:
        samples(source)
        outlet.process.send_signal(signal.SIGSTOP)
        batches = [source.read(0.1) for _ in range(5)]
        outlet.process.send_signal(signal.SIGCONT)
        assert all(batch.chunk is None and not batch.notices for batch in batches)
        outlet.push(TEN, index=10)
        chunk = samples(source)
        assert (chunk.segment, chunk.first_index) == (0, 10)


def message(stream: str, index: int) -> list[bytes]:
    header = {"v": 1, "kind": "samples", "stream": stream, "run": 1, "index": index, "n": 10, "dtype": "<f4",
              "sfreq": 100.0, "channels": ["A", "B"], "unit": "uV"}  # fmt: skip
    return [json.dumps(header).encode(), TEN.astype("<f4").tobytes()]


def test_of_several_that_connect_to_us_one_is_read_and_the_last_to_go_is_the_loss() -> None:
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        source = ZmqSource("tcp://127.0.0.1:0", bind=True, pattern="pull", stream="amp", timeout_s=20)
        stack.callback(source.close)
        peers: dict[str, zmq.Socket[Any]] = {}

        def connect() -> None:
            while not hasattr(source._link, "endpoint"):
                pass
            for name in ("other", "amp"):
                peers[name] = context.socket(zmq.PUSH)
                peers[name].setsockopt(zmq.LINGER, 0)
                stack.callback(peers[name].close)
                peers[name].connect(source.endpoint)
                peers[name].send_multipart(message(name, 0))

        open_with(source, connect)
        first = samples(source)
        peers["other"].send_multipart(message("other", 10))
        read_until(source, lambda batch: source.ignored == 2)
        peers["other"].close()
        peers["amp"].send_multipart(message("amp", 10))
        batches = read_until(source, lambda batch: batch.chunk is not None)
        assert SourceState.RECOVERING not in [one.state for batch in batches for one in batch.notices]
        assert batches[-1].chunk is not None
        assert batches[-1].chunk.first_index == first.stop_index
        peers["amp"].close()
        notice(source, state=SourceState.RECOVERING)


def test_a_marker_sent_before_its_run_s_first_samples_falls_on_them(outlet: ZmqOutlet) -> None:
    source = ZmqSource(outlet.endpoint, timeout_s=20, declare=Declare(unit="uV"))

    def start() -> None:
        outlet.joined()
        outlet.send(kind="marker", value="first", index=0)
        outlet.push(TEN, index=0)

    with contextlib.closing(open_with(source, start)):
        batch = read_until(source, lambda batch: batch.markers)[-1]
        assert batch.chunk is not None
        assert [(one.stamp, one.value) for one in batch.markers] == [(batch.chunk.stamps[0], "first")]
        outlet.kill()
        notice(source, state=SourceState.RECOVERING)
        outlet.restart(run=2)
        joined(source, outlet)
        outlet.send(kind="marker", value="again", stamp=1000.03)
        outlet.send(kind="marker", value="whose", index=0, run=7)
        outlet.push(TEN, index=0, stamp=1000.0)
        batch = read_until(source, lambda batch: batch.markers)[-1]
        assert batch.chunk is not None
        assert batch.chunk.segment == 1
        assert batch.markers[0].value == "again"
        assert batch.markers[0].stamp == pytest.approx(batch.chunk.stamps[3], abs=1e-6)
        assert source.refused == 1


def test_a_sender_whose_stamps_lie_behind_has_its_markers_in_time(outlet: ZmqOutlet) -> None:
    """By an hour, on our own clock: markers are complete by the samples' stamps, not by when they came."""
    behind = 3600.0
    source = ZmqSource(outlet.endpoint, timeout_s=20, lateness_s=0.2, clock="ours", declare=Declare(unit="uV"))
    zero = hostclock.now() - behind
    open_with(source, lambda: (outlet.joined(), outlet.push(TEN, index=0, stamp=zero, clock="ours")))
    with contextlib.closing(source):
        newest = [read_until(source, lambda batch: batch.chunk is not None)[-1]]
        for k in range(1, 10):
            outlet.push(TEN, index=10 * k, stamp=zero + 0.1 * k, clock="ours")
            newest += read_until(source, lambda batch: batch.chunk is not None)
            if k == 5:
                outlet.send(kind="marker", value="x", stamp=zero + 0.55)
                marked = read_until(source, lambda batch: batch.markers)
                assert max(batch.watermark for batch in [*newest, *marked[:-1]]) < marked[-1].markers[0].stamp
        assert newest[-1].watermark == pytest.approx(zero + 0.99 - 0.2)
        assert np.all(np.diff([batch.watermark for batch in newest]) >= 0)
