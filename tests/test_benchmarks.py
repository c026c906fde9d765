"""The benchmarks still run, and docs/performance.md is what their results give."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A benchmark in a process of its own."""
    command = [sys.executable, "-W", "error", str(BENCHMARKS / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("program", ["gallery.py", "fanout.py"])
def test_a_smoke_run_leaves_a_report(program: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = run(program, "--quick", "--json", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["benchmark"] == program.removesuffix(".py")
    assert report["machine"]["cores"] >= 1
    (row,) = report["rows"]
    if program == "gallery.py":
        assert row["same_of_3"] == 3
        assert row["ours_ms"]["p50"] > 0
    else:
        assert row["subscribers"] == 2
        assert row["lost"] == 0
        assert row["first_ms"]["p50"] <= row["last_ms"]["p50"]


def test_the_page_is_what_the_results_give() -> None:
    done = run("report.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_stages_that_are_watched_are_there() -> None:
    program = (
        "import importlib, operator, hot_path\n"
        "for rows in hot_path.STAGES.values():\n"
        "    for _, targets in rows:\n"
        "        for module, _, path in (target.partition(':') for target in targets):\n"
        "            assert callable(operator.attrgetter(path)(importlib.import_module(module))), path\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
