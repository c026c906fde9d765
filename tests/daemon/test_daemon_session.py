"""Whole sessions of real processes: every due window exactly once, whatever dies meanwhile."""

import os
import signal
from typing import Any

import pytest
from daemon_kit import Session, children, expected_windows, wait_for

pytestmark = pytest.mark.timeout(150)


def assert_each_once(keys: list[tuple[Any, ...]], expected: Any) -> None:
    assert len(keys) == len(set(keys))
    assert set(keys) == set(expected)


def test_every_due_window_is_published_once_with_the_payload_of_a_replay(session: Session) -> None:
    bundle = session.bundle(locked=True)
    config = session.config(source='kind = "simulated"\nseconds = 4', pipelines={"p": "", "q": ""})
    run = session.start("run", str(config), "--hold", "1")
    listeners = [session.listen(name).connected() for name in ("p", "q")]
    ready = run.ready()
    assert all(session.out(name) in ready for name in ("p", "q"))
    session.go(config)
    assert session.end(run) == 0, run.text
    expected = expected_windows(bundle, seconds=4)
    for listener in listeners:
        assert len(listener.keys()) == len(set(listener.keys()))
        assert listener.digests() == expected
        assert listener.event("end")
        health = listener.health[-1]
        assert health.due == sum(health.counts.values()) == len(expected)
        for message, _ in listener.windows:
            ledger = message.ledger
            assert message.pipeline in ("p", "q")
            if message.status == "ok":
                times = [ledger.arrived, ledger.received, ledger.due, ledger.encoded, ledger.published]
                assert times == sorted(times)
    assert not (session.folder / "rtdecode").exists() or not list((session.folder / "rtdecode").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP to the whole group"])
def test_a_signal_to_end_publishes_everything_that_was_received(session: Session, number: int) -> None:
    bundle = session.bundle()
    config = session.config(source='kind = "simulated"')
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    session.go(config)
    wait_for(lambda: len(listener.windows) > 10, "windows")
    if number == signal.SIGHUP:  # a terminal that closes tells all its processes
        for child in children(run.pid).values():
            child.send_signal(number)
    run.send(number)
    assert session.end(run) == 0, run.text
    last = wait_for(lambda: listener.event("end"), "the end")
    assert last
    keys = listener.keys()
    expected = list(expected_windows(bundle, seconds=60))[: len(keys)]
    assert keys == expected
    assert listener.health[-1].due == len(keys)


def test_a_killed_decoder_is_replaced_and_no_window_is_missing_or_doubled(session: Session) -> None:
    bundle = session.bundle()
    config = session.config(source='kind = "simulated"\nseconds = 7')
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    session.go(config)
    wait_for(lambda: len(listener.windows) > 10, "windows")
    before = children(run.pid)
    before["p"].kill()
    after = wait_for(lambda: (c := children(run.pid)).get("p") not in (None, before["p"]) and c, "a new decoder")
    assert after["acquire"] == before["acquire"]
    assert session.end(run) == 0, run.text
    assert "SIGKILL" in run.text
    expected = expected_windows(bundle, seconds=7)
    keys = listener.keys()
    # Published by the first, received by nobody: what was on its way when the process was killed, or came before the
    # subscriber had found the new one. The daemon's own account has every window once.
    assert len(keys) == len(set(keys))
    assert set(keys) <= set(expected)
    assert listener.health[-1].due == sum(listener.health[-1].counts.values()) == len(expected)
    assert keys[-1] == list(expected)[-1]
    digests = listener.digests()
    assert all(digests[key] == expected[key] for key in keys)


def test_a_decoder_that_was_paused_catches_up_from_the_log(session: Session) -> None:
    bundle = session.bundle()
    config = session.config(source='kind = "simulated"\nseconds = 5')
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    session.go(config)
    wait_for(lambda: len(listener.windows) > 5, "windows")
    decoder = children(run.pid)["p"]
    decoder.suspend()
    seen = session.status(config, "acquire")["log"]["next"]
    wait_for(lambda: session.status(config, "acquire")["log"]["next"] > seen + 100, "two seconds")
    decoder.resume()
    assert session.end(run) == 0, run.text
    assert listener.digests() == expected_windows(bundle, seconds=5)
    assert_each_once(listener.keys(), expected_windows(bundle, seconds=5))


@pytest.mark.slow
def test_what_left_the_log_is_accounted_for_as_skipped(session: Session) -> None:
    bundle = session.bundle()
    # A log of half a second, and a queue that a paused decoder cannot hide behind: 1 ms chunks would fill it too, but
    # take longer. The source plays 40 times as fast as life.
    config = session.config(source='kind = "simulated"\nseconds = 400\nspeed = 40', bus="log_seconds = 0.2")
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    session.go(config)
    wait_for(lambda: len(listener.windows) > 50, "windows")
    decoder = children(run.pid)["p"]
    decoder.suspend()
    status = session.status(config, "acquire")
    start = status["next_index"]
    wait_for(
        lambda: (now := session.status(config, "acquire"))["next_index"] > start + 60_000 or now["state"] == "ended",
        "a long pause",
        60,
    )
    decoder.resume()
    assert session.end(run) == 0, run.text
    keys = listener.keys()
    expected = expected_windows(bundle, seconds=400)
    assert_each_once(keys, expected)
    skipped = [message for message, _ in listener.windows if message.status == "skipped"]
    assert skipped
    assert listener.event("lost")
    assert all("log" in message.reason for message in skipped)
    health = listener.health[-1]
    assert health.due == sum(health.counts.values()) == len(expected)
    assert health.counts["skipped"] == len(skipped)


def test_the_processes_run_alone_and_decode_may_come_late(session: Session) -> None:
    bundle = session.bundle()
    config = session.config(source='kind = "simulated"\nseconds = 4')
    acquire = session.start("acquire", str(config), "--hold", "2")
    assert "control=" in acquire.ready()
    decode = session.start("decode", str(config), "p")
    listener = session.listen().connected()
    decode.ready()
    session.go(config)
    assert decode.end() == 0, decode.text
    assert acquire.end() == 0, acquire.text
    assert listener.digests() == expected_windows(bundle, seconds=4)


@pytest.mark.slow
def test_acquire_started_again_begins_another_segment(session: Session) -> None:
    session.bundle()
    config = session.config(source='kind = "simulated"')
    acquire = session.start("acquire", str(config))
    decode = session.start("decode", str(config), "p")
    listener = session.listen().connected()
    decode.ready()
    wait_for(lambda: len(listener.windows) > 5, "windows")
    acquire.send(signal.SIGKILL)
    acquire.end()
    again = session.start("acquire", str(config))
    again.ready()
    wait_for(lambda: any(message.segment == 1 for message, _ in list(listener.windows)), "another segment")
    assert listener.event("restart")
    keys = listener.keys()
    assert len(keys) == len(set(keys))
    assert decode.terminate() == 0, decode.text


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
def test_the_runtime_folder_is_private(session: Session) -> None:
    session.bundle()
    config = session.config(source='kind = "simulated"')
    acquire = session.start("acquire", str(config))
    acquire.ready()
    for folder in [session.folder / "rtdecode", *(session.folder / "rtdecode").iterdir()]:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert acquire.terminate() == 0
    (session.folder / "rtdecode").chmod(0o755)
    refused = session.start("acquire", str(config))
    assert refused.end() == 8
    assert "open to other users" in refused.text
