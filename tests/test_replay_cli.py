"""``rtdecode replay`` and ``rtdecode stream`` at the command line: what cannot be done is said, with an exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from source_files import counts, edf_bytes
from test_end_to_end import make_bundle

from rtdecode.signal import Channel
from rtdecode.stream.window import Sliding

COMMAND = [sys.executable, "-m", "rtdecode"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Five seconds of three channels; the name is one that rich would take for markup."""
    path = tmp_path / "a[red]b.edf"
    path.write_bytes(edf_bytes(counts()))
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that decodes it."""
    channels = [Channel(f"E{k}", "eeg", "V") for k in (1, 2, 3)]
    made: Path = make_bundle(tmp_path / "bundle.zip", channels, 100.0, (Sliding(length=1.0, hop=0.5),))
    return made


def call(*arguments: object, **env: str) -> tuple[int, str]:
    """Exit code and standard error of a call, which is to show no traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, env=os.environ | env
    )
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


def test_results_that_cannot_be_written_are_no_bug(tmp_path: Path, recording: Path, bundle: Path) -> None:
    places = [tmp_path / "nowhere" / "r.jsonl", tmp_path]
    if Path("/dev/full").exists():
        places.append(Path("/dev/full"))
    for out in places:
        code, text = call("replay", recording, "--bundle", bundle, "--out", out)
        assert code == 2
        assert f"ConfigError: --out {out} cannot be written: " in text


def test_a_missing_recording_is_named_whatever_the_results_are(tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "r.jsonl"
    out.write_text("of an earlier replay\n")
    code, text = call("replay", tmp_path / "none.edf", "--bundle", bundle, "--out", out)
    assert code == 3
    assert "none.edf does not exist" in text
    assert out.read_text() == "of an earlier replay\n"


def test_names_are_text_and_no_markup(recording: Path, lsl_config: Path) -> None:
    code, text = call("stream", recording, "--wait", "0.1", LSLAPICFG=str(lsl_config))
    assert code == 3
    assert "a[red]b: 3 channels" in text
    assert "a[red]b-markers: its markers" in text
    assert "nobody took the stream" in text


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--name", "x", "--markers", "x"), "--name and --markers are both 'x'"),
        (("--wait", "nan"), "--wait is nan"),
    ],
)
def test_a_stream_that_nobody_could_take_is_not_served(recording: Path, options: tuple[str, ...], fault: str) -> None:
    code, text = call("stream", recording, *options)
    assert code == 2
    assert fault in text


def test_a_recording_shorter_than_a_window_says_why_nothing_was_decoded(tmp_path: Path, recording: Path) -> None:
    channels = [Channel(f"E{k}", "eeg", "V") for k in (1, 2, 3)]
    long = make_bundle(tmp_path / "long.zip", channels, 100.0, (Sliding(length=30.0, hop=0.5),))
    done = subprocess.run(
        [*COMMAND, "replay", str(recording), "--bundle", str(long)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "0 windows due" in said
    assert "nothing was due (sliding: 30 s every 0.5 s)" in said


@pytest.mark.parametrize("late", ['on_late = "skip"', 'on_late = "variant"\nvariant = "cheap.zip"'])
def test_a_budget_is_the_live_session_s_and_changes_no_replay(
    tmp_path: Path, recording: Path, bundle: Path, late: str
) -> None:
    channels = [Channel(f"E{k}", "eeg", "V") for k in (1, 2, 3)]
    make_bundle(tmp_path / "cheap.zip", channels, 100.0, (Sliding(length=1.0, hop=0.5),), seed=1)
    results = []
    for name, budget in (("free", ""), ("hurried", f"budget_ms = 0.001\nqueue = 1\n{late}\n")):
        config = tmp_path / f"{name}.toml"
        config.write_text(
            f"[source]\nkind = 'recording'\npath = '{recording.name}'\n"
            f"[pipelines.p]\nbundle = '{bundle.name}'\npublish = 'tcp://127.0.0.1:0'\n{budget}"
        )
        out = tmp_path / f"{name}.jsonl"
        code, said = call("replay", recording, "--config", config, "--out", out)
        assert code == 0, said
        results.append([json.loads(line) for line in out.read_text().splitlines()])
    free, hurried = results
    assert len(free) == 9
    assert {one["status"] for one in free} == {"ok"}
    assert free == hurried
