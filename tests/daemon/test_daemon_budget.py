"""Encoders that are too slow, decoders that are killed, logs that have moved on: every due window has one fate."""

import itertools
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from daemon_kit import Listener, Session, children, expected_windows, make_bundle, wait_for

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine

pytestmark = pytest.mark.timeout(240)

HOP = 0.02

#: Seconds that the slow encoder takes at least, on whatever machine and however busy it was just then.
SLOW_S = 5 * HOP


def slow_bundle(session: Session, folder: str = "bundle") -> tuple[Path, float]:
    """A bundle whose encoder cannot hold its hop here, and what it takes in seconds."""
    window = np.zeros((50, 64), np.float32)  # one thread, whose own time is nobody else's: a busy machine is not slow
    for n in itertools.count(3):
        path = session.folder / f"{folder}-{n}"
        bundle = Bundle.open(make_bundle(path, hop=HOP, work=400 * n))
        engine = make_engine(bundle)
        seconds = math.inf
        for _ in range(3):
            began = time.thread_time()
            engine.finish(window, 0)
            seconds = min(seconds, time.thread_time() - began)
        engine.close()
        if seconds >= SLOW_S:
            path.rename(session.folder / folder)
            return session.folder / folder, seconds
    raise AssertionError


def assert_adds_up(listener: Listener, n_expected: int) -> None:
    """What the pipeline said of itself was true at every moment, and at the end."""
    for health in listener.health:
        assert health.due == sum(health.counts.values()), health
    last = listener.health[-1]
    assert last.due == n_expected
    assert last.pending == 0


def test_an_encoder_that_is_too_slow(session: Session) -> None:
    bundle, seconds = slow_bundle(session)
    cheap = session.bundle("cheap", hop=HOP, seed=1)
    # While one is encoded five more become due, two at the least. So six that wait are always more than the budget
    # allows for, the pipeline is behind from its first windows to the end, and who encodes one encodes the newest.
    budget = f"budget_ms = {2e3 * seconds:.0f}\nquantile = 0.5"
    config = session.config(
        source='kind = "simulated"\nseconds = 2',
        pipelines={
            "mark": f"{budget}\nqueue = 6",
            "skip": f'{budget}\nqueue = 1000\non_late = "skip"',
            "variant": f'{budget}\nqueue = 1000\non_late = "variant"\nvariant = "cheap"',
        },
    )
    run = session.start("run", str(config), "--hold", "1")
    mark, skip, variant = listeners = [session.listen(name).connected() for name in ("mark", "skip", "variant")]
    run.ready()
    session.go(config)
    assert session.end(run) == 0, run.text
    expected = expected_windows(cheap, seconds=2)
    for listener in listeners:
        keys = listener.keys()
        assert len(keys) == len(set(keys))
        assert set(keys) == set(expected)
        assert_adds_up(listener, len(expected))
        health = listener.health[-1]
        assert health.p99_ms["encode"] >= health.p50_ms["encode"] > 0
        assert {"queue", "publish"} <= set(health.p50_ms)
        statuses = {message.status for message, _ in listener.windows}
        assert "skipped" in statuses or listener is variant
        assert statuses <= {"ok", "late", "skipped"}
        for message, arrays in listener.windows:
            assert bool(arrays) == (message.status != "skipped")

    # A full queue gives up the oldest: what was encoded meanwhile is newer, and out before.
    assert all(health.pending <= 6 for health in mark.health)
    full = [message for message, _ in mark.windows if message.status == "skipped"]
    assert {message.reason for message in full} == {"the queue is full: 6 newer windows wait"}
    order = [(message.start, message.status) for message, _ in mark.windows]
    assert any(
        one > other and status != "skipped" and fate == "skipped"
        for (one, status), (other, fate) in itertools.combinations(order, 2)
    )
    # Encoded, newest first: among the windows that were decoded before the end, each is newer than the one before it,
    # but for those that still waited when the stream was over.
    decoded = [start for start, status in order if status != "skipped"]
    falls = [n for n, (one, other) in enumerate(itertools.pairwise(decoded)) if other < one]
    assert all(n >= len(decoded) - 1 - 6 for n in falls)

    predicted = [message for message, _ in skip.windows if message.status == "skipped"]
    assert all(
        message.reason.startswith("predicted to take ") and message.reason.endswith(" ms left") for message in predicted
    )

    by_variant = [(message, arrays) for message, arrays in variant.windows if message.variant]
    assert by_variant
    assert variant.health[-1].variants == len(by_variant)
    cheap_id = Bundle.open(cheap).id[:12]
    assert {message.bundle for message, _ in by_variant} == {cheap_id}
    assert {message.bundle for message, _ in variant.windows if not message.variant} <= {Bundle.open(bundle).id[:12]}
    assert variant.descriptions[-1].variant == cheap_id


def test_a_decoder_killed_under_load_again_and_again(session: Session) -> None:
    _, seconds = slow_bundle(session)
    config = session.config(
        source='kind = "simulated"\nseconds = 3',
        pipelines={"p": f"budget_ms = {8e3 * seconds:.0f}\nqueue = 8"},
        bus="drain_s = 60",
    )
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    session.go(config)
    rng = random.Random(os.environ.get("PYTEST_SEED", "7"))
    killed = 0
    for _ in range(2):
        seen = len(listener.windows) + rng.randint(3, 15)
        wait_for(lambda: len(listener.windows) >= seen or listener.event("end"), "windows", 60)  # noqa: B023
        if listener.event("end"):
            break
        before = children(run.pid)["p"]
        before.kill()
        killed += 1
        wait_for(lambda: children(run.pid).get("p") not in (None, before), "a new decoder", 60)  # noqa: B023
    assert killed
    assert session.end(run) == 0, run.text
    expected = expected_windows(session.bundle("quick", hop=HOP), seconds=3)
    assert_adds_up(listener, len(expected))
    keys = listener.keys()
    assert set(keys) <= set(expected)
    # What was handed to the socket in the instant of a crash may come twice; nothing else.
    assert len(keys) - len(set(keys)) <= killed


def test_windows_that_left_the_log_while_no_decoder_ran_are_skipped(session: Session) -> None:
    session.bundle()
    config = session.config(source='kind = "simulated"\nspeed = 20', bus="log_seconds = 0.2\ndrain_s = 60")
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    session.go(config)
    wait_for(lambda: len(listener.windows) > 50, "windows")
    seen = len(listener.health)
    psutil.Process(children(run.pid)["p"].pid).kill()
    wait_for(lambda: any(health.counts["skipped"] for health in listener.health[seen:]), "its successor", 90)
    after = len(listener.windows)
    wait_for(lambda: len(listener.windows) > after + 50, "its windows")
    assert run.terminate() == 0, run.text
    listener.finished()
    # The new process says so before anybody can have found it: in the log of its own, and in its account.
    assert "chunks left the log while no process decoded; markers in them are not known here" in run.text
    keys = listener.keys()
    # The one that was sent and not yet noted when the kill came is twice on the wire, and once in the account.
    assert len(keys) - len(set(keys)) <= 1
    newest = max(start for _, _, start, _ in keys)
    assert_adds_up(listener, 1 + newest // 25)
    # Those that were on their way in the instant of the crash, and before we had found the new process, apart.
    assert {key[:2] for key in keys} == {("sliding", 0)}
    assert {start % 25 for _, _, start, _ in keys} == {0}


def test_a_variant_for_other_windows_is_refused_by_name(session: Session) -> None:
    session.bundle("bundle")
    session.bundle("other", low=2.0)
    config = session.config(pipelines={"p": 'budget_ms = 50\non_late = "variant"\nvariant = "other"'})
    for verb in ("check", "run"):
        process = session.start(verb, str(config))
        assert process.end() != 0
        said = "\n".join([*process.lines, *process.errors])
        assert "cannot stand in" in said
        assert "Filter(low=2.0" in said


def test_what_acquire_announces_is_passed_on(session: Session) -> None:
    session.bundle()
    config = session.config(source='kind = "simulated"', pipelines={"p": "", "q": ""})
    run = session.start("run", str(config))
    listener = session.listen("p").connected()
    run.ready()
    children(run.pid)["q"].kill()
    wait_for(lambda: any(event.origin == "acquire" and event.event == "crashed" for event in listener.events), "it")
    assert run.terminate() == 0, run.text
    listener.finished()
    assert {event.event for event in listener.events if event.origin == "acquire"}.isdisjoint({"stop", "end"})
