"""The control sockets: status, stop, swapping a bundle while it decodes, and requests that are none."""

import json
import uuid
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import psutil
import pytest
import zmq
from daemon_kit import Session, endpoints_of, expected_windows, wait_for
from hypothesis import given, settings

from rtdecode.daemon.control import Request, Status, Stop
from rtdecode.daemon.progress import Owed, Progress, ProgressFile
from rtdecode.daemon.published import Published
from rtdecode.daemon.rpc import Client, Server
from rtdecode.decoder import Result
from rtdecode.decoder import Status as WindowStatus
from rtdecode.encode.bundle import Bundle
from rtdecode.errors import BundleError, ProcessError
from rtdecode.signal import Marker

pytestmark = pytest.mark.timeout(150)


def begin(session: Session, **config: Any) -> tuple[Path, Any, Any]:
    session.bundle()
    path = session.config(source='kind = "simulated"\nseconds = 12', **config)
    run = session.start("run", str(path), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    session.go(path)
    return path, run, listener


@pytest.mark.parametrize("other", [{"seed": 5}, {"seed": 5, "low": 3.0, "locked": True}])
def test_a_swap_loses_and_doubles_no_window(session: Session, other: dict[str, Any]) -> None:
    config, run, listener = begin(session)
    new = session.bundle("other", **other)
    wait_for(lambda: len(listener.windows) > 15, "windows")
    answer = session.ask(config, "swap", "p", str(new))["p"]
    ids = [Bundle.open(session.folder / name).id[:12] for name in ("bundle", "other")]
    assert [answer["old"], answer["new"]] == ids
    assert session.status(config, "p")["bundle"].startswith(ids[1])
    wait_for(lambda: len(listener.windows) > 45, "windows of the new bundle")
    assert run.terminate() == 0, run.text
    (event,) = listener.event("swapped")
    assert event.details["new"] == ids[1]
    assert [one.bundle for one in listener.descriptions if not one.retained][-1] == ids[1]
    messages = [message for message, _ in listener.windows]
    sliding = [message for message in messages if message.window == "sliding"]
    assert [message.start for message in sliding] == [25 * n for n in range(len(sliding))]
    keys = listener.keys()
    assert len(keys) == len(set(keys))
    order = [message.bundle for message in sliding]
    assert set(order) == set(ids)
    assert order == sorted(order, key=ids.index)
    # The new bundle's filters had settled: its payloads are those of a decoder that had it from the beginning.
    by_bundle = {name: expected_windows(session.folder / name, seconds=12) for name in ("bundle", "other")}
    digests = listener.digests()
    for message, key in zip(messages, keys, strict=True):
        assert digests[key] == by_bundle["bundle" if message.bundle == ids[0] else "other"][key]
    if other.get("locked"):
        assert any(message.window == "locked" for message in messages)
    health = listener.health[-1]
    assert health.due == sum(health.counts.values()) == len(messages)


def test_a_bundle_that_is_no_good_is_refused_and_the_old_one_goes_on(session: Session) -> None:
    config, run, listener = begin(session)
    damaged = session.bundle("damaged", seed=1)
    data = bytearray((damaged / "encoder.onnx").read_bytes())
    data[-1] ^= 1
    (damaged / "encoder.onnx").write_bytes(data)
    stranger = session.bundle("stranger", channels=("X1", "X2"))
    wait_for(lambda: len(listener.windows) > 5, "windows")
    assert "encoder.onnx" in session.ask(config, "swap", "p", str(damaged), code=5)["error"]
    assert "X1" in session.ask(config, "swap", "p", str(stranger), code=4)["error"]
    assert "nowhere" in session.ask(config, "swap", "p", str(session.folder / "nowhere"), code=5)["error"]
    assert len(listener.event("swap refused")) == 3
    seen = len(listener.windows)
    wait_for(lambda: len(listener.windows) > seen + 5, "windows")
    assert run.terminate() == 0, run.text
    keys = listener.keys()
    assert keys == list(expected_windows(session.folder / "bundle", seconds=12))[: len(keys)]
    assert {message.bundle for message, _ in listener.windows} == {Bundle.open(session.folder / "bundle").id[:12]}


def test_a_decoder_that_is_killed_after_a_swap_comes_back_with_the_new_bundle(session: Session) -> None:
    config, run, listener = begin(session)
    new = session.bundle("other", seed=5)
    wait_for(lambda: len(listener.windows) > 5, "windows")
    session.ask(config, "swap", "p", str(new))
    before = session.status(config, "p")
    (decoder,) = [one for one in psutil.Process(run.pid).children() if "decode" in one.cmdline()]
    decoder.kill()
    after = wait_for(lambda: (s := session.status(config, "p")).get("due", 0) > before["due"] and s, "the next decoder")
    assert after["bundle"] == before["bundle"]
    assert after["uptime_s"] < before["uptime_s"] + 30
    assert run.terminate() == 0, run.text
    assert len(listener.keys()) == len(set(listener.keys()))


def test_status_tells_how_it_goes_and_stop_ends_it_with_everything_published(session: Session) -> None:
    config, run, listener = begin(session)
    wait_for(lambda: len(listener.windows) > 5, "windows")
    status = session.ask(config, "status")
    assert status["acquire"]["state"] == "streaming"
    assert status["acquire"]["decoders"] == ["p"]
    assert status["p"]["engine"]["provider"] == "cpu"
    assert status["p"]["due"] == sum(status["p"]["counts"].values()) > 0
    assert "no process" in session.ask(config, "stop", "nobody", code=2)["error"]
    session.ask(config, "stop")
    assert session.end(run) == 0, run.text
    keys = listener.keys()
    assert keys == list(expected_windows(session.folder / "bundle", seconds=12))[: len(keys)]
    silent = session.start("control", str(config), "status", "--timeout", "0.3", "--json")
    assert silent.end() == 8
    assert {one["state"] for one in json.loads(silent.lines[0]).values()} == {"silent"}
    assert "acquire, p did not answer within 0.3 s" in silent.text


def test_malformed_requests_are_refused_and_decoding_goes_on(session: Session) -> None:
    config, run, listener = begin(session)
    wait_for(lambda: listener.windows, "windows")
    found = endpoints_of(session, config)
    rng = np.random.default_rng(0)
    with zmq.Context() as context:
        for endpoint in (found.acquire, found.log, found.decoders["p"]):
            with context.socket(zmq.DEALER) as dealer:
                dealer.setsockopt(zmq.LINGER, 0)
                dealer.connect(endpoint)
                for n in range(300):
                    frames = [rng.bytes(int(rng.integers(0, 60))) for _ in range(int(rng.integers(1, 5)))]
                    dealer.send_multipart(frames if n % 2 else [b"", *frames])
                dealer.send_multipart([b"", b'{"ask": "status"}'])
                dealer.send_multipart([b"", b'{"ask": "swap", "bundle": 3}'])
            with context.socket(zmq.REQ) as req:
                req.setsockopt(zmq.LINGER, 0)
                req.connect(endpoint)
                for body, word in [
                    (b"{", "not understood"),
                    (b'{"ask": "dance"}', "dance"),
                    (b'{"ask": "status", "why": 1}', "status" if endpoint == found.log else "why"),
                    (b"[" * 5000, "not understood"),
                ]:
                    req.send(body)
                    assert req.poll(5000)
                    answer = json.loads(req.recv())
                    assert not answer["ok"]
                    assert word in answer["text"]
    assert session.status(config, "p")["refused_requests"] > 100
    seen = len(listener.windows)
    wait_for(lambda: len(listener.windows) > seen + 5, "windows")
    assert run.terminate() == 0, run.text


def test_a_request_answered_late_is_not_taken_for_the_next_one() -> None:
    endpoint = f"inproc://{uuid.uuid4().hex}"
    with zmq.Context() as context:
        server: Server[Request] = Server(context, endpoint, Request)
        client = Client(context, endpoint, "the test")
        with pytest.raises(ProcessError, match="does not answer"):
            client.ask(Status(), 0.01)
        first, _ = server.receive() or pytest.fail("no request")
        with pytest.raises(ProcessError, match="does not answer"):
            client.ask(Stop(), 0.01)
        second, request = server.receive() or pytest.fail("no request")
        assert request == Stop()
        server.answer(first, {"for": "status"})
        server.refuse(second, BundleError("of this request"))
        with pytest.raises(ProcessError, match="does not answer"):
            client.ask(Status(), 0.05)  # both answers were to questions that were given up
        client.close()
        server.close()


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_any_frames_are_answered_or_refused(frames: list[bytes]) -> None:
    endpoint = f"inproc://{uuid.uuid4().hex}"
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        server: Server[Request] = Server(context, endpoint, Request)
        dealer.connect(endpoint)
        dealer.send_multipart(frames)
        received = server.receive()
        if received is None:
            assert server.refused == 1
        else:
            body = frames[-1]
            decode = msgspec.json.decode if body[:1] in b"{[" else msgspec.msgpack.decode
            assert decode(body, type=Request) == received[1]
        server.close()


def result(start: int, window: str = "sliding", marker: Marker | None = None, sfreq: float = 100.0) -> Result:
    return Result(window=window, segment=0, start=start, length=20, sfreq=sfreq, status=WindowStatus.OK, marker=marker)


def test_what_is_owed_after_a_swap() -> None:
    published = Published()
    for start in (0, 10, 20):
        published.note(result(start))
    marker = Marker(1.0, "a")
    published.note(result(5, "locked", marker))
    assert not published.follows(result(20))
    assert not published.follows(result(15))
    assert published.follows(result(21))
    assert not published.follows(result(40, sfreq=200.0))  # the same 0.2 s, at another rate
    assert not published.follows(result(6, "locked", marker))
    assert published.follows(result(6, "locked", Marker(2.0, "a")))
    assert not published.follows(result(3, "another"))
    assert published.follows(result(30, "another"))


@given(st.binary(max_size=200), st.integers(0, 300))
def test_a_damaged_account_counts_as_none(junk: bytes, cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.progress"
        file = ProgressFile(path)
        assert file.load() is None
        owed = [Owed("sliding", 0, 25, 50, 250.0), Owed("locked", 0, -1, 50, 250.0, (1.5, "a", "s"))]
        progress = Progress(run=7, taken=3, owed=owed, due=7, bundle="b", counts={"ok": 5})
        file.save(Progress(run=7, bundle="a much longer one" * 9))
        file.save(progress)
        assert file.load() == progress
        whole = path.read_bytes()
        path.write_bytes(whole[:cut] + junk)
        found = file.load()
        used = 8 + int.from_bytes(whole[:4], "little")
        assert found == (progress if path.read_bytes()[:used] == whole[:used] else None)
        file.close()
