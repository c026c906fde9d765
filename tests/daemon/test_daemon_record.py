"""Recording by real processes: a replay gives what was published, and a kill costs half a second at most."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lsl_outlet
import pytest
from daemon_kit import SFREQ, Session, expected_windows, wait_for, window_key

from rtdecode.record.repair import examine
from rtdecode.sources.session_reader import RESULTS, SAMPLES, load_session
from rtdecode.wire.payload import from_json, payload_digest

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="limits and signals of Linux"),
]

CHANNELS = [["A", "EEG", "uV"], ["B", "EEG", "uV"]]
PATIENCE_S = 90.0


@pytest.fixture
def sender(lsl_config: Path) -> Iterator[Callable[..., lsl_outlet.Outlet]]:
    started: list[lsl_outlet.Outlet] = []

    def start(**spec: object) -> lsl_outlet.Outlet:
        started.append(lsl_outlet.Outlet(lsl_config, **{"sfreq": SFREQ, "channels": CHANNELS} | spec))
        return started[-1]

    yield start
    for one in started:
        one.close()


def recorded(session: Session) -> list[Path]:
    return sorted((session.folder / "rec").glob("*.xdf"))


def recorded_first(session: Session) -> Path:
    return next(path for path in recorded(session) if "split" not in path.name)


def results_of(path: Path, pipeline: str = "p") -> list[dict[str, Any]]:
    stream = load_session(path).named(f"{RESULTS}.{pipeline}")
    return [] if stream is None else [json.loads(line) for line in stream.lines]


def replayed(session: Session, path: Path, config: Path) -> dict[tuple[Any, ...], str | None]:
    """Payload digest of every window of ``rtdecode replay``."""
    out = session.folder / "replay.jsonl"
    replay = session.start("replay", str(path), "--config", str(config), "--out", str(out))
    assert replay.end(PATIENCE_S) == 0, replay.text
    found = {}
    for line in out.read_bytes().splitlines():
        message, arrays = from_json(line)
        found[window_key(message)] = payload_digest(message, arrays)  # type: ignore[arg-type]
    return found


RECORDING = '[recording]\ndir = "rec"\nsubject = "01"\ntask = "t"\nmin_free_mb = 0\n'


def with_recording(config: Path, more: str = "") -> Path:
    config.write_text(config.read_text() + RECORDING + more)
    return config


def test_live_with_gaps_and_a_restart_recorded_and_replayed_the_payloads_are_those_published(
    session: Session, lsl_config: Path, sender: Callable[..., lsl_outlet.Outlet]
) -> None:
    session.bundle(channels=("A", "B"), locked=True)
    amp = sender(pace="drop", markers="keys-record")
    source = (
        f'kind = "lsl"\nname = "{amp.name}"\ntimeout_s = {PATIENCE_S}\nlateness_s = 0.2\n'
        'markers = [{ name = "keys-record" }]'
    )
    config = with_recording(session.config(source=source))
    run = session.start("run", str(config), LSLAPICFG=str(lsl_config))
    listener = session.listen().connected()
    run.ready()
    import pylsl

    def windows(segment: int, n: int) -> bool:
        return len([m for m, _ in list(listener.windows) if m.segment == segment and m.status == "ok"]) >= n

    wait_for(lambda: windows(0, 5), "windows", PATIENCE_S)
    amp.mark(("concept/cat", pylsl.local_clock()))
    wait_for(lambda: any(m.window == "locked" for m, _ in list(listener.windows)), "the cat", PATIENCE_S)
    amp.pause()  # and what it would have sent is lost
    wait_for(lambda: session.status(config, "acquire").get("state") == "stalled", "the stall", PATIENCE_S)
    pause = pylsl.local_clock()
    wait_for(lambda: pylsl.local_clock() > pause + 1.0, "a second", PATIENCE_S)
    amp.resume()
    wait_for(lambda: listener.event("gap"), "the gap", PATIENCE_S)
    wait_for(lambda: windows(0, 15), "windows after the gap", PATIENCE_S)
    amp.kill()
    amp.restart()
    wait_for(lambda: windows(1, 5), "windows after the restart", PATIENCE_S)
    assert run.terminate() == 0, run.text
    listener.finished()

    (path,) = recorded(session)
    assert path.name == "sub-01_task-t_run-01_eeg.xdf"
    assert examine(path).whole
    assert load_session(path).named(SAMPLES) is None  # the raw samples are held once, and rebuild what was decoded
    again = replayed(session, path, config)
    published = listener.digests()
    assert len(published) == len(listener.keys())
    assert {key: again[key] for key in published} == published
    assert listener.health[-1].due == len(again)
    assert {"gap", "ok"} <= {m.status for m, _ in listener.windows}

    lines = results_of(path)
    by_seq = {line["seq"]: line["payload_sha256"] for line in lines}
    heard = {m.seq: payload_digest(m, arrays) for m, arrays in listener.windows}
    both = by_seq.keys() & heard.keys()
    assert {seq: by_seq[seq] for seq in both} == {seq: heard[seq] for seq in both}
    assert sorted(by_seq) == list(range(min(by_seq), min(by_seq) + len(by_seq)))  # none lost after it was connected
    assert max(heard) == max(by_seq)
    info = session.start("session", "info", str(path), "--json")
    assert info.end() == 0, info.text
    told = json.loads(info.lines[0])["session"]
    assert (told["segments"], told["markers"], told["samples_lost"]) == (2, 1, 0)
    assert told["holes"] >= 1
    assert told["events"]["acquire: recording"] == 1


def test_a_simulated_session_and_recording_that_is_stopped_and_started(session: Session) -> None:
    session.bundle()
    config = with_recording(session.config(source='kind = "simulated"\nseconds = 4'))
    run = session.start("run", str(config), "--hold", "1")
    session.listen().connected()
    run.ready()
    session.go(config)
    assert session.status(config, "acquire")["recording"]["state"] == "recording"
    session.ask(config, "record", "stop")
    wait_for(lambda: session.status(config, "acquire")["recording"]["state"] == "stopped", "the stop")
    session.ask(config, "record", "start")
    assert session.end(run) == 0, run.text
    first, second = sorted(recorded(session), key=lambda path: "split" in path.name)
    assert second.name == "sub-01_task-t_run-01_split-02_eeg.xdf"
    assert examine(first).whole
    assert examine(second).whole
    assert session.ask(config, "record", "maybe", code=2)
    n = sum(len(results_of(path)) for path in (first, second))
    assert 0 < n <= len(expected_windows(session.folder / "bundle", seconds=4))


def test_a_disk_that_takes_no_more_is_told_and_decoding_goes_on(session: Session) -> None:
    bundle = session.bundle()
    config = with_recording(session.config(source='kind = "simulated"\nseconds = 6'), "results = false\n")
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    acquire = wait_for(lambda: _pid_of_acquire(run.pid), "acquire")
    resource.prlimit(acquire, resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    session.go(config)
    assert session.end(run) == 0, run.text
    assert "NOT RECORDING" in run.text
    assert "recording resumed" in run.text
    assert listener.digests() == expected_windows(bundle, seconds=6)
    for path in recorded(session):  # those that the disk cut have no end
        assert session.start("session", "repair", str(path)).end() == 0
    assert replayed(session, recorded_first(session), config) == listener.digests()
    first, second = sorted(recorded(session), key=lambda path: "split" in path.name)[:2]
    assert not examine(first).torn
    assert "_split-02_" in second.name
    n = 0
    for path in recorded(session):
        samples = load_session(path).named("subject 0, session 0")
        assert samples is not None
        n += len(samples.all_stamps)
    assert n == 6 * SFREQ


def test_what_was_not_recorded_shows_in_the_exit_code(session: Session) -> None:
    bundle = session.bundle()
    config = with_recording(session.config(source='kind = "simulated"\nseconds = 2'), "results = false\n")
    run = session.start("run", str(config), "--hold", "1")
    listener = session.listen().connected()
    run.ready()
    shutil.rmtree(session.folder / "rec")
    (session.folder / "rec").write_text("in the way")
    session.go(config)
    assert run.end() == 9, run.text
    assert "samples were not recorded" in run.text
    assert "crashed" not in run.text
    assert listener.digests() == expected_windows(bundle, seconds=2)


def _pid_of_acquire(run: int) -> int | None:
    import psutil

    for child in psutil.Process(run).children():
        if "acquire" in child.cmdline():
            return int(child.pid)
    return None


def test_killed_at_random_moments_every_file_opens_and_has_no_hole(tmp_path: Path) -> None:
    """Three kills; ``benchmarks/kills.py`` makes 200, and says how much each file lacks."""
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", "--at-once", "1", "--longest", "1.5", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["opened_in_pyxdf"] == 3
    assert told["files_with_a_hole"] == 0
