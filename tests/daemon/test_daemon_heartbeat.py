"""What a supervisor concludes from beats, and that nobody waits for it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rtdecode.daemon.heartbeat import LEAVE_S, LONGEST_STEP_S, Phase, Pulse, WakingClock
from rtdecode.daemon.supervised import News, Supervised


def test_time_in_which_the_supervisor_slept_counts_against_nobody() -> None:
    clock = WakingClock(100.0)
    pulse = Pulse(began=clock.tick(100.0), start_s=10.0, hang_s=2.0)
    pulse.beat(clock.now)
    assert clock.tick(100.25) == 0.25
    assert clock.slept == 0.0
    clock.tick(4000.0)
    assert clock.now == 0.25 + LONGEST_STEP_S
    assert clock.slept == pytest.approx(4000.0 - 100.25 - LONGEST_STEP_S)
    assert not pulse.overdue(clock.now)
    clock.tick(3999.0)  # a clock that steps back costs nothing
    assert clock.now == 0.25 + LONGEST_STEP_S


@pytest.mark.parametrize(
    ("phase", "limit"), [(Phase.STARTING, 30.0), (Phase.BEATING, 2.0), (Phase.LEAVING, LEAVE_S)], ids=str
)
def test_each_phase_has_its_own_patience(phase: Phase, limit: float) -> None:
    pulse = Pulse(began=5.0, start_s=30.0, hang_s=2.0)
    if phase is not Phase.STARTING:
        pulse.beat(5.0)
    if phase is Phase.LEAVING:
        pulse.leave(5.0)
        pulse.beat(5.0)  # one that was on its way changes nothing
    assert pulse.phase is phase
    assert not pulse.overdue(5.0 + limit)
    assert pulse.overdue(5.0 + limit + 0.01)
    assert f"{limit:g} s" in pulse.describe()


def test_a_process_has_lived_from_its_first_beat_to_its_last() -> None:
    pulse = Pulse(began=0.0, start_s=30.0, hang_s=2.0)
    assert pulse.lived == 0.0
    pulse.beat(20.0)
    pulse.beat(21.5)
    assert pulse.lived == 1.5
    assert pulse.overdue(30.0)
    assert pulse.lived == 1.5  # its silence was no life


def test_news_are_given_once_and_nonsense_is_none() -> None:
    supervised = Supervised()
    supervised.hear(b'{"event": "restarted", "text": "again", "details": {"restarts": 3}}')
    for nonsense in (b"", b"\xff", b"[]", b'{"event": 1, "text": "x"}', b'{"event": "x"}'):
        supervised.hear(nonsense)
    assert list(supervised.attend()) == [News(event="restarted", text="again", details={"restarts": 3})]
    assert not list(supervised.attend())
    assert supervised.restarts == 3


@pytest.mark.skipif(sys.platform == "win32", reason="pipes that never block are POSIX's")
def test_a_supervisor_that_does_not_read_holds_up_no_main_loop() -> None:
    code = (
        "import sys; from rtdecode.daemon import supervised\n"
        "supervised.BEAT_EVERY_S = 0.0\n"
        "one = supervised.Supervised(beats=True)\n"
        "for _ in range(50_000): list(one.attend())\n"  # 250 kB; a pipe takes 64
        "one.leave(); sys.stderr.write('through')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.read() == "through"
        assert process.stdout.readline() == "BEAT\n"
        process.stdout.read()
        assert process.wait(20) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pipes that never block are POSIX's")
def test_a_log_that_nobody_reads_holds_nobody_up() -> None:
    code = """
from rtdecode.daemon.process import configure_logging
import structlog
configure_logging(process="acquire")
logger = structlog.get_logger()
for n in range(5000):
    logger.info("a line that is long enough to fill a pipe soon")
print("through", flush=True)
input()
logger.info("read again")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        waits = threading.Timer(60.0, process.kill)  # or this test would wait with it
        waits.start()
        assert process.stdout.readline() == "through\n"
        waits.cancel()
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        os.set_blocking(process.stderr.fileno(), False)
        lines += process.stderr.read().splitlines()  # what the pipe held
        os.set_blocking(process.stderr.fileno(), True)
        _, last = process.communicate("\n", timeout=60.0)
    finally:
        process.kill()
        process.wait()
    lost = 5000 - len(lines)
    assert 0 < lost < 5000
    assert f"({lost} lines before this one were not read in time" in last
    assert "read again" in last
