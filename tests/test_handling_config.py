"""Gaps, blanking, quality and bad channels from the file: what is checked, and that a replay applies them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from source_files import counts, edf_bytes
from test_end_to_end import make_bundle

from rtdecode.config import load
from rtdecode.config.handling import handling
from rtdecode.daemon.check import check
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.signal import Channel
from rtdecode.stream.handling import AS_IT_COMES, Blank, Fill, Limits
from rtdecode.stream.window import Sliding

HEAD = '[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:0"\n'
EVERYTHING = """bad = ["{bad}"]
interpolation = "m.npy"
[pipelines.p.gaps]
fill_ms = 20
method = "hold"
[[pipelines.p.blank]]
markers = ["stim*"]
tmin = -0.002
tmax = 0.01
channels = ["{good}"]
[pipelines.p.quality]
flat = 1e-7
clip = 4
range = {{ eeg = 5e-3 }}
max_bad = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write_bundle(tmp_path / "bundle", *bundles.parts())
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "session.toml"
    path.write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return [channel.name for channel in Bundle.open(folder / "bundle").manifest.contract.channels]


def matrix(n: int) -> Any:
    found = np.eye(n)
    found[0] = [0, *[1 / (n - 1)] * (n - 1)]
    return found


def test_everything_that_can_be_said(folder: Path) -> None:
    bad, good, *_ = names(folder)
    np.save(folder / "m.npy", matrix(len(names(folder))))
    path = write(folder, HEAD + EVERYTHING.format(bad=bad, good=good))
    found = handling(load(path).pipeline("p"))
    assert found.fill == Fill(0.02, "hold")
    assert found.blanks == (Blank(("stim*",), -0.002, 0.01, "linear", (good,)),)
    assert found.limits == Limits(1e-7, 4, {"eeg": 5e-3}, 2)
    assert found.interpolation is not None
    assert found.interpolation.bad == (bad,)
    np.testing.assert_array_equal(found.interpolation.matrix, matrix(len(names(folder))))
    assert check(path) == []


def test_nothing_said_is_nothing_done(folder: Path) -> None:
    assert handling(load(write(folder, HEAD)).pipeline("p")) == AS_IT_COMES


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('bad = ["C3"]\n', "pipelines.p", "has bad without interpolation"),
        ('interpolation = "m.npy"\n', "pipelines.p", "has interpolation without bad"),
        ("[pipelines.p.gaps]\nfill_ms = -1\n", "pipelines.p.gaps.fill_ms", "greater than or equal to 0"),
        ('[pipelines.p.gaps]\nmethod = "line"\n', "pipelines.p.gaps.method", "did you mean 'linear'"),
        ("[[pipelines.p.blank]]\nmarkers = ['*']\ntmin = 0.1\ntmax = 0.1\n", "pipelines.p.blank[0]", "more than tmin"),
        ("[pipelines.p.quality]\nflat = 0\n", "pipelines.p.quality.flat", "above 0 in SI units"),
        ("[pipelines.p.quality]\nrange = { eeg = 'x' }\n", "pipelines.p.quality.range", "above 0 in SI units"),
        ("[pipelines.p.quality]\nclip = 1\n", "pipelines.p.quality.clip", "greater than or equal to 2"),
        # A unit or a sign taken for another: nothing would ever be found, or everything.
        ("[pipelines.p.quality]\nrange = 100\n", "pipelines.p.quality.range", "100 uV are 1e-4"),
        ("[pipelines.p.quality]\nflat = 1e-3\nrange = 1e-6\n", "pipelines.p.quality", "below twice the range"),
        ("[pipelines.p.quality]\nmax_bad = 1000\n", "pipelines.p.quality.max_bad", "none that is good"),
        ("[pipelines.p.gaps]\nfill_ms = 1e15\n", "pipelines.p.gaps.fill_ms", "less than or equal to 10000"),
        (
            "[[pipelines.p.blank]]\nmarkers = ['*']\ntmin = -1e9\ntmax = 0\n",
            "pipelines.p.blank[0].tmin",
            "greater than or equal to -60",
        ),
        # What only the bundle tells.
        ("[pipelines.p.quality]\nflat = { mag = 1e-14 }\n", "pipelines.p", "names channel type 'mag'"),
        (
            "[[pipelines.p.blank]]\nmarkers = ['*']\ntmin = 0.0\ntmax = 0.1\nchannels = ['XX']\n",
            "pipelines.p",
            "no channel 'XX'",
        ),
        ('bad = ["XX"]\ninterpolation = "m.npy"\n', "pipelines.p", "no channel 'XX'"),
        ('bad = ["{0}"]\ninterpolation = "none.npy"\n', "pipelines.p", "none.npy cannot be read"),
        ('bad = ["{0}"]\ninterpolation = "small.npy"\n', "pipelines.p", "has shape (2, 2); expected"),
        ('bad = ["{0}"]\ninterpolation = "pickle.npy"\n', "pipelines.p", "pickle.npy"),
    ],
)
def test_check_says_what_does_not_fit(folder: Path, text: str, place: str, message: str) -> None:
    np.save(folder / "m.npy", matrix(len(names(folder))))
    np.save(folder / "small.npy", np.eye(2))
    np.save(folder / "pickle.npy", np.array([{}], object), allow_pickle=True)
    (problem,) = check(write(folder, HEAD + text.replace("{0}", names(folder)[0])))
    assert problem.place == place
    assert message in problem.message


def test_a_replay_does_what_the_file_says(tmp_path: Path) -> None:
    recording = tmp_path / "r.edf"
    recording.write_bytes(edf_bytes(counts()))
    channels = [Channel(f"E{k}", "eeg", "V") for k in (1, 2, 3)]
    make_bundle(tmp_path / "bundle.zip", channels, 100.0, (Sliding(length=1.0, hop=0.5),))
    np.save(tmp_path / "m.npy", np.array([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0.5, 0]]))
    path = tmp_path / "session.toml"
    path.write_text(
        '[source]\nkind = "recording"\npath = "r.edf"\n'
        '[pipelines.p]\nbundle = "bundle.zip"\npublish = "tcp://127.0.0.1:0"\n'
        'bad = ["E3"]\ninterpolation = "m.npy"\n'
        "[pipelines.p.quality]\nflat = 0.9\nmax_bad = 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "rtdecode", "replay", recording, "--config", path, "--out", tmp_path / "o", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statuses"] == {"artifact": 9}
    first = json.loads((tmp_path / "o").read_text().splitlines()[0])
    assert first["quality"] == {"flat": ["E1", "E2"]}  # the third is known to be bad, and made of them
    assert first["reason"] == "2 bad channels, 1 allowed: flat: E1, E2"
