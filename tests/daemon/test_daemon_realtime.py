"""Real-time settings, permitted and refused, in processes of their own: they would stay with this one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rtdecode.config import Config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has them all")

#: Imports first: who has no rights may not read the files either.
_APPLY = """
import json, os, resource, sys, threading
from rtdecode.config.sections import ProcessRealtime
from rtdecode.daemon import realtime
wanted, scheduled, drop = ProcessRealtime(**json.loads(sys.argv[1])), sys.argv[2] == "live", sys.argv[3] == "drop"
if drop:
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
refused = realtime.refused(wanted, scheduled=scheduled)
found = {"refused": refused}
def look():
    found["policy"] = os.sched_getscheduler(0)
    found["priority"] = os.sched_getparam(0).sched_priority
    found["cpus"] = sorted(os.sched_getaffinity(0))
thread = threading.Thread(target=look)
thread.start()
thread.join()
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
found["locked_kb"] = int(status["VmLck"].split()[0])
found["slack_ns"] = int(open("/proc/self/timerslack_ns").read()) if os.getuid() == 0 else None
print(json.dumps(found))
"""


def applied(wanted: dict[str, Any], *, live: bool = True, drop: bool = False) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _APPLY, json.dumps(wanted), "live" if live else "paced", "drop" if drop else "keep"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_what_is_refused_names_what_to_grant_and_changes_nothing() -> None:
    found = applied({"priority": 5, "lock_memory": True}, drop=True)
    scheduling, memory = found["refused"]
    assert "SCHED_FIFO, priority 5" in scheduling
    assert "LimitRTPRIO=5" in scheduling
    assert "CAP_SYS_NICE" in scheduling
    assert "the limit is 0.0655 MB" in memory
    assert "LimitMEMLOCK=infinity" in memory
    assert "CAP_IPC_LOCK" in memory
    assert found["policy"] == os.SCHED_OTHER
    assert found["locked_kb"] == 0


def test_what_is_permitted_holds_for_threads_started_later() -> None:
    found = applied({"priority": 5, "lock_memory": True})
    if found["refused"]:
        pytest.skip("this user is refused real-time scheduling or locked memory; run as root to see them granted")
    assert (found["policy"], found["priority"]) == (os.SCHED_FIFO, 5)
    assert found["locked_kb"] > 1000


def test_wake_ups_are_not_put_off() -> None:
    assert applied({})["slack_ns"] in (1, None)


def test_a_source_that_is_paced_gets_no_priority() -> None:
    found = applied({"priority": 5}, live=False)
    assert found["refused"] == []
    assert found["policy"] == os.SCHED_OTHER


def test_affinity_is_applied_or_refused_with_what_there_is() -> None:
    one = max(os.sched_getaffinity(0))
    found = applied({"cpus": [one]}, drop=True)  # needs no rights
    assert found["refused"] == []
    assert found["cpus"] == [one]
    found = applied({"cpus": [one, 4095]})
    assert f"{sorted(os.sched_getaffinity(0))}" in found["refused"][0]
    assert found["cpus"] == sorted(os.sched_getaffinity(0))


def test_by_default_only_acquire_asks_for_more_than_its_share() -> None:
    realtime = Config.model_validate({"source": {"kind": "lsl", "name": "x"}}).realtime
    assert realtime.policy == "try"
    assert (realtime.acquire.priority, realtime.acquire.lock_memory) == (5, True)
    assert (realtime.decode.priority, realtime.decode.lock_memory) == (0, False)


def test_the_service_grants_what_acquire_asks_for() -> None:
    text = (Path(__file__).parents[2] / "systemd" / "rtdecode@.service").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    realtime = Config.model_validate({"source": {"kind": "lsl", "name": "x"}}).realtime
    assert int(unit["LimitRTPRIO"]) >= realtime.acquire.priority
    assert unit["LimitMEMLOCK"] == "infinity"
    assert unit["RestrictRealtime"] == "no"
    assert (unit["Type"], unit["NotifyAccess"], unit["KillMode"]) == ("notify", "main", "mixed")
    assert int(unit["WatchdogSec"]) > 0
