"""The judge of a chaos run must see what is wrong, or its zero means nothing; and a few faults, for real."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtdecode.chaos import BUNDLE, truth
from rtdecode.chaos.faults import FAULTS, faults_over
from rtdecode.chaos.recorded import missing_stamps
from rtdecode.chaos.tally import Life, Tally
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode.record.session import About, SessionFile
from rtdecode.signal import Batch, Channel, Chunk, StreamInfo
from rtdecode.wire.messages import Ledger, Window, WireMarker

ZERO = 1000.0
Say = Callable[[NDArray[np.float32]], NDArray[np.generic]]


@pytest.fixture(scope="module")
def say() -> Iterator[Say]:
    """What the witness says of a window, by the bundle that is shipped."""
    engine = make_engine(Bundle.open(BUNDLE))
    yield lambda window: engine.finish(np.ascontiguousarray(window, np.float32), 0)["witness"]
    engine.close()


def message(first: int, *, start: int | None = None, stamp: float | None = None, marker: str = "") -> Window:
    last = first + truth.LENGTH - 1
    return Window(
        seq=0,
        kind="embedding",
        pipeline="witness",
        bundle="",
        window="locked" if marker else "sliding",
        segment=0,
        start=first if start is None else start,
        length=truth.LENGTH,
        sfreq=truth.SFREQ,
        status="ok",
        marker=WireMarker(stamp=0.0, value=marker) if marker else None,
        ledger=Ledger(stamp=ZERO + last / truth.SFREQ if stamp is None else stamp),
    )


def wrong(said: NDArray[np.generic], window: Window, tally: Tally | None = None) -> str:
    return (tally or Tally({1: Life(ZERO, truth.SFREQ)})).add(0.0, window, {"witness": said}).wrong


@given(first=st.integers(0, 2**22))
def test_a_window_of_the_truth_is_right(say: Say, first: int) -> None:
    said = say(truth.samples(first, truth.LENGTH, 1))
    assert truth.read_witness(said) == truth.Witness(first, first + truth.LENGTH - 1, 1, "")
    assert wrong(said, message(first)) == ""


@given(first=st.integers(0, 2**20), at=st.integers(1, truth.LENGTH - 1), hole=st.integers(1, 5000))
def test_a_window_across_a_hole_is_wrong(say: Say, first: int, at: int, hole: int) -> None:
    rows = truth.samples(first, truth.LENGTH + hole, 1)
    assert "steps" in wrong(say(np.delete(rows, slice(at, at + hole), axis=0)), message(first))


@given(
    first=st.integers(0, 2**20),
    row=st.integers(0, truth.LENGTH - 1),
    column=st.integers(0, len(truth.NAMES) - 1),
    by=st.sampled_from([1.0, -1.0, 100.0]),
)
def test_one_changed_value_is_wrong(say: Say, first: int, row: int, column: int, by: float) -> None:
    window = truth.samples(first, truth.LENGTH, 1)
    window[row, column] += by
    assert wrong(say(window), message(first))


def test_two_lives_in_one_window_are_wrong(say: Say) -> None:
    rows = truth.samples(0, truth.LENGTH, 1)
    rows[60:, 1] = 2
    assert "lives 1 and 2" in wrong(say(rows), message(0))


def test_a_stamp_that_is_off_is_wrong(say: Say) -> None:
    said = say(truth.samples(50, truth.LENGTH, 1))
    true = ZERO + (50 + truth.LENGTH - 1) / truth.SFREQ
    assert wrong(said, message(50, stamp=true + 0.004)) == ""
    assert "stamp is off by 6.0 ms" in wrong(said, message(50, stamp=true + 0.006))
    assert wrong(said, message(50, stamp=math.nan))


def test_a_window_of_another_marker_is_wrong(say: Say) -> None:
    said = say(truth.samples(100, truth.LENGTH, 1))
    assert wrong(said, message(100, marker="n100")) == ""
    assert "-2 samples from its marker" in wrong(said, message(100, marker="n102"))


def test_a_hole_of_the_wrong_length_is_wrong(say: Say) -> None:
    tally = Tally({1: Life(ZERO, truth.SFREQ)})
    assert wrong(say(truth.samples(100, truth.LENGTH, 1)), message(100, start=40), tally) == ""
    assert wrong(say(truth.samples(500, truth.LENGTH, 1)), message(500, start=440), tally) == ""
    assert "not 60 earlier" in wrong(say(truth.samples(900, truth.LENGTH, 1)), message(900, start=841), tally)


def test_a_window_of_which_nobody_tells_is_missed(say: Say) -> None:
    tally = Tally({1: Life(ZERO, truth.SFREQ)})
    for first in (0, 25, 100):
        assert wrong(say(truth.samples(first, truth.LENGTH, 1)), message(first), tally) == ""
    assert tally.untold() == 2
    for first in (50, 75):
        wrong(say(truth.samples(first, truth.LENGTH, 1)), message(first), tally)
    assert tally.untold() == 0


def record(path: Path, *spans: tuple[int, int]) -> None:
    """A recording of these samples of life 1."""
    info = StreamInfo(tuple(Channel(name, "eeg", "V") for name in truth.NAMES), truth.SFREQ, "lsl:truth")
    file = SessionFile(info, (), About({}, {}), 1.0)
    parts = [file.begin()]
    for begin, stop in spans:
        stamps = ZERO + np.arange(begin, stop) / truth.SFREQ
        parts.append(file.batch(Batch(Chunk(truth.samples(begin, stop - begin, 1), stamps, begin)), 1.0))
    path.write_bytes(b"".join([*parts, file.end({})]))


def test_samples_that_are_in_no_recording_are_counted(tmp_path: Path) -> None:
    record(tmp_path / "one.xdf", (100, 200), (250, 300))
    life, nothing = Life(ZERO, truth.SFREQ), Life(ZERO, truth.SFREQ)
    lives = {1: life, 2: nothing}

    def missing(since: float = -math.inf, until: float = math.inf) -> int:
        at = missing_stamps(tmp_path, lives)
        return int(((at >= since) & (at < until)).sum())

    assert missing() == 50
    assert missing(ZERO + 240 / truth.SFREQ) == 10
    life.dropped.append((200, 220))
    assert missing() == 30
    life.hear(190, 314)  # decoded, and recorded by nobody: a recorder that fell silent does not come off with 0
    assert missing() == 45
    nothing.hear(0, 124)  # a life of which nothing is recorded at all
    assert missing() == 45 + 125
    record(tmp_path / "two.xdf", (220, 250), (300, 315))
    assert missing() == 125


def test_every_transport_has_faults_and_the_list_is_printed() -> None:
    assert sum(len(faults_over(over)) for over in ("lsl", "zmq", "fieldtrip")) >= 40
    said = subprocess.run([sys.executable, "-m", "rtdecode", "chaos", "--list"], capture_output=True, text=True)
    assert said.returncode == 0
    assert len(said.stdout.splitlines()) == len(FAULTS)


def test_an_unknown_fault_is_named() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "rtdecode", "chaos", "--fault", "earthquake"], capture_output=True, text=True
    )
    assert said.returncode == 2
    assert "earthquake" in said.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="faults pause processes and limit their files as Linux does")
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("over", "faults"),
    [
        ("lsl", ["1 s of samples lost", "sender killed", "acquire killed", "decoder: seg", "disk full"]),
        ("zmq", ["1 s of samples lost", "back with another rate"]),
        ("fieldtrip", ["1 s of samples lost", "sender paused"]),
    ],
)
def test_no_window_is_wrong(over: str, faults: list[str], lsl_here: None, tmp_path: Path) -> None:
    chosen = [part for fault in faults for part in ("--fault", fault)]
    command = [sys.executable, "-m", "rtdecode", "chaos", "--json", "--over", over, *chosen]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert len(told["rows"]) == len(faults)
    assert all(row["wrong"] == 0 and row["recovered_s"] is not None for row in told["rows"])
    assert all(row["samples_lost"] == 0 for row in told["rows"] if not row["outage"])
    assert told["problems"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="chaos is Linux's")
def test_asked_to_end_it_leaves_no_process_and_no_folder() -> None:
    command = [sys.executable, "-m", "rtdecode", "chaos", "--over", "zmq"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the first fault is done: all its processes run
        started = psutil.Process(process.pid).children(recursive=True)
        folders = {Path(word).parent for one in started for word in one.cmdline() if word.endswith("chaos.toml")}
        process.terminate()
        assert process.wait(120) == 130
    assert started
    assert folders
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert not [folder for folder in folders if folder.exists()]
