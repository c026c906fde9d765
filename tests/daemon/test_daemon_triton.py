"""A session whose windows are encoded on a Triton server that dies in mid-stream and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_kit import Session, expected_windows, wait_for

pytest.importorskip("grpc", reason='not run: needs grpcio (pip install "rtdecode[triton]")')

import triton_kit

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.triton_repository import ModelSettings, write_model

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_kit.ROOT is None, reason=triton_kit.WHY_NOT),
    pytest.mark.slow,
]

SOURCE = 'kind = "simulated"\nseconds = 120'


@pytest.fixture
def server(session: Session, tmp_path: Path) -> Iterator[triton_kit.Server]:
    bundle = Bundle.open(session.bundle())
    write_model(bundle.onnx_bytes(), tmp_path / "models", "tiny", ModelSettings("python"))
    one = triton_kit.Server(tmp_path, tmp_path / "models")
    try:
        one.start()
        yield one
    finally:
        one.close()


def pipeline(server: triton_kit.Server, more: str) -> str:
    return f'engine = "triton"\nbudget_ms = 80\n{more}\n[pipelines.p.triton]\nurl = "{server.url}"\nmodel = "tiny"\n'


@pytest.mark.parametrize("fallback", ["forbid", "allow"])
def test_a_server_that_dies_and_returns(session: Session, server: triton_kit.Server, fallback: str) -> None:
    """Every window has one message all along; what came from the server, and what did not, is said of each."""
    config = session.config(source=SOURCE, pipelines={"p": pipeline(server, f'fallback = "{fallback}"')})
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    engine = listener.descriptions[-1].engine
    assert (engine["provider"], engine["asked"], engine["model"]) == ("triton", "triton", "tiny")
    run.ready()
    session.go(config)
    good = ("ok", "late")  # on a machine with other things to do

    def windows(made: bool, fell_back: bool, after: int = 0) -> list[int]:
        """Places of windows that have outputs or none, of the one origin or the other."""
        return [
            n
            for n, (message, _) in enumerate(list(listener.windows))
            if n >= after and (message.status in good) == made and message.fell_back == fell_back
        ]

    wait_for(lambda: len(windows(True, False)) > 5, "windows from the server")
    server.kill()
    killed = len(listener.windows)
    allowed = fallback == "allow"
    wait_for(lambda: len(windows(allowed, allowed, killed)) > 5, "windows without it")
    (lost,) = wait_for(lambda: listener.event("server lost"), "the news")
    assert lost.details["stands_in"] == allowed
    server.start()
    back = len(listener.windows)
    wait_for(lambda: len(windows(True, False, back)) > 5, "windows from the server again", 60)
    assert len(listener.event("server back")) == 1
    run.terminate()
    listener.finished()
    keys = listener.keys()
    expected = expected_windows(session.folder / "bundle", seconds=120)
    assert sorted(keys) == sorted(list(expected)[: len(keys)])  # behind, the newest goes first
    made = {n for n, (message, _) in enumerate(listener.windows) if message.status in good}
    digests = listener.digests()
    assert all(digests[key] == expected[key] for n, key in enumerate(keys) if n in made)
    failed = [message for message, _ in listener.windows if message.status == "failed"]
    assert all("server" in message.reason for message in failed)
    assert bool(failed) or allowed
    health = listener.health[-1]
    assert health.due == sum(health.counts.values()) == len(keys)
