"""Malformed frames on all that listens: some hundreds here, 100,000 by ``benchmarks/fuzz.py`` (docs/results.md)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = {"zmq", "zmq-rtdecode", "control", "session", "fieldtrip-server", "fieldtrip-source"}


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="ipc:// endpoints")
def test_every_malformed_frame_is_refused_and_no_window_is_lost() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "benchmarks" / "fuzz.py"), "--frames", "600", "--target", "all", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=root,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (told, done.stderr)
    assert {one["target"] for one in told} == TARGETS
    assert all(one["sent"] == one["refused"] == 600 and one["good_taken"] > 0 for one in told)
