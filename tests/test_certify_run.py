"""``rtdecode certify`` with its real processes: verdicts, an early end, and that nothing is left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtdecode.chaos import BUNDLE
from rtdecode.demo import BUNDLE as DEMO_BUNDLE

SOURCES = {
    "lsl": 'kind = "lsl"\ntype = "EEG"\nmarkers = [{ name = "cues" }]',
    "zmq": 'kind = "zmq"\nendpoint = "tcp://127.0.0.1:5600"',
    "fieldtrip": 'kind = "fieldtrip"\nhost = "127.0.0.1"',
    "simulated": 'kind = "simulated"',
}


#: What each test certifies, and how. They run beside one another: most of what they do is waiting.
RUNS = {
    "passes": ("lsl", "--seconds", "2", "--require", "50", "--load", "cpu=1,memory=0.05,disk"),
    "fails": ("zmq", "--seconds", "2", "--budget-ms", "0.001", "--require", "50", "--chunk", "2"),
    "interrupted": ("fieldtrip", "--seconds", "600", "--require", "50"),
    "killed": ("simulated", "--seconds", "600", "--load", "cpu=1,memory=0.05,disk"),
}


@dataclass(frozen=True)
class Run:
    """A certification, and the folder whose ``tmp`` holds what it leaves in the temporary one."""

    folder: Path
    process: "subprocess.Popen[str]"


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Run]]:
    with contextlib.ExitStack() as stack:
        started = {}
        for name, (kind, *options) in RUNS.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c")))  # short enough for sockets
            started[name] = Run(folder, begin(folder, kind, *options))
            stack.callback(stop, started[name].process)
        yield started


def stop(process: "subprocess.Popen[str]") -> None:
    """End one whose test did not."""
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def begin(folder: Path, kind: str, *options: str) -> "subprocess.Popen[str]":
    """A certification of the bundle that knows its own samples; of the demo's, where the subject is simulated."""
    config = folder / "session.toml"
    bundle = DEMO_BUNDLE if kind == "simulated" else BUNDLE
    config.write_text(
        f"[source]\n{SOURCES[kind]}\n[realtime]\npolicy = 'off'\n[pipelines.p]\nbundle = '{bundle}'\n"
        "publish = 'tcp://127.0.0.1:0'\nbudget_ms = 100000.0\n"
    )
    (folder / "tmp").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "rtdecode", "certify", str(config), "--warmup", "0.5", "--json", "-", *options],
        env=os.environ | {"TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stderr is not None
    said = []
    for one in process.stderr:  # ends when the process does
        said.append(one)
        if one.strip() == line:
            return
    pytest.fail(f"it ended before it said {line!r}: {''.join(said)}")


def end(process: "subprocess.Popen[str]") -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=120)
    assert out, err
    return process.returncode, json.loads(out)


@pytest.mark.slow
def test_a_machine_that_cannot_but_serve_passes_with_every_window_accounted_for(runs: dict[str, Run]) -> None:
    code, found = end(runs["passes"].process)
    assert (code, found["verdict"]) == (0, "PASS"), found["reasons"]
    assert found["load"] == "cpu=1,memory=0.05,disk"
    one = found["pipelines"]["p"]
    assert sum(one["windows"].values()) == one["counted"] == one["in_budget"] > 10
    accounts = one["accounts"]
    assert accounts["taken"] == accounts["published"]
    assert not accounts["problems"]
    assert set(one["kinds"]) == {"sliding", "locked"}
    for kind in one["kinds"].values():
        for stage in kind["stages"].values():
            assert stage["windows"] > 0
            assert stage["worst_ms"] >= stage["percentiles"]["p50"]["ms"]
    terms = one["kinds"]["sliding"]["bci2000"]
    assert terms["block_samples"] >= 1
    assert found["sender"]["samples"] >= 2 * 250
    assert found["clock"] == ["lsl"]
    assert {"acquire", "p", "sender", "listener", "load0", "load1", "load2"} <= set(found["kernel"]["processes"])
    assert list((runs["passes"].folder / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_budget_that_nothing_meets_fails(runs: dict[str, Run]) -> None:
    code, found = end(runs["fails"].process)
    assert (code, found["verdict"]) == (1, "FAIL")
    one = found["pipelines"]["p"]
    assert one["in_budget"] == 0
    assert one["windows"]["late"] + one["windows"]["skipped"] == one["counted"] > 10
    assert "within 0.001 ms" in found["reasons"][0]
    assert not one["accounts"]["problems"]


@pytest.mark.slow
def test_one_that_is_ended_early_says_so(runs: dict[str, Run]) -> None:
    process = runs["interrupted"].process
    wait_for(process, "measuring")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    code, found = end(process)
    assert (code, found["verdict"]) == (10, "INCONCLUSIVE")
    assert found["interrupted"] is True
    assert "not all was measured: somebody ended it" in found["reasons"]
    assert found["seconds"] < 300
    assert not found["faults"]
    assert not psutil.wait_procs(children, timeout=20)[1]


@pytest.mark.slow
def test_one_that_is_killed_leaves_no_process_behind(runs: dict[str, Run]) -> None:
    process = runs["killed"].process
    wait_for(process, "measuring")
    children = psutil.Process(process.pid).children(recursive=True)
    names = " ".join(" ".join(child.cmdline()) for child in children)
    for name in ("rtdecode run", "rtdecode acquire", "rtdecode decode", "certify.listener", "certify.load"):
        assert name in names
    process.kill()
    process.communicate(timeout=20)
    assert not psutil.wait_procs(children, timeout=60)[1]


def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path) -> None:
    config = tmp_path / "session.toml"
    config.write_text("[source]\nkind = 'simulated'\n")
    done = subprocess.run(
        [sys.executable, "-m", "rtdecode", "certify", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "has no pipeline" in done.stderr
    assert "Traceback" not in done.stderr
