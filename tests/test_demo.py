"""The demo: its bundle decodes the simulated subject well above chance, and its processes tell the whole story."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rich.console import Console

from rtdecode.cli.view import Scene, closing_lines, opening_line, picture, plain_line
from rtdecode.decoder import Decoder, Status
from rtdecode.demo import BUNDLE
from rtdecode.demo.tally import STATUSES, Tally, wilson
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.encode.manifest import RetrieveHead
from rtdecode.errors import ProcessError
from rtdecode.offline import replay
from rtdecode.score import Score
from rtdecode.sources.concepts import embeddings, gallery, unseen
from rtdecode.sources.forward import Session, Subject
from rtdecode.sources.simulated import SimulatedSource
from rtdecode.wire.messages import Health, Ledger, Retrieval, Window, WireMarker


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(BUNDLE)


def head_of(bundle: Bundle) -> RetrieveHead:
    head = bundle.manifest.heads[0]
    assert isinstance(head, RetrieveHead)
    return head


# --- the bundle -------------------------------------------------------------------------------------------------------


def test_the_bundle_is_small_and_verifies_on_this_machine(bundle: Bundle) -> None:
    assert BUNDLE.stat().st_size <= 5_000_000
    engine = make_engine(bundle)
    check_golden(bundle, engine)
    engine.close()


def test_the_bundles_gallery_is_what_the_subject_is_shown(bundle: Bundle) -> None:
    head = head_of(bundle)
    shown = gallery()
    assert [(item.name, item.emoji) for item in bundle.items(head)] == [(item.name, item.emoji) for item in shown]
    np.testing.assert_allclose(bundle.array(head.embeddings), embeddings(shown), atol=1e-6)
    source = SimulatedSource(seed=0)
    contract = bundle.manifest.contract
    assert contract.sfreq == source.info.sfreq
    assert [(c.name, c.type, c.unit) for c in contract.channels] == [
        (c.name, c.type, c.unit) for c in source.info.channels
    ]


def test_the_bundle_says_that_it_is_simulated_and_how_good_it_is(bundle: Bundle) -> None:
    metrics = bundle.manifest.metrics
    assert metrics["simulated"] is True
    assert "simulated" in bundle.manifest.provenance["data"]
    assert 0.3 <= metrics["top1"] <= 0.6
    assert 0.6 <= metrics["top5"] <= 0.9
    assert metrics["chance_top1"] == pytest.approx(1 / len(gallery()), abs=1e-5)
    # nobody beats an observer who knows the true responses
    assert metrics["observer"]["top1"] > metrics["top1"]
    assert metrics["never_trained_on"]["top1"] > 0.1


@pytest.fixture(scope="module")
def decoded(bundle: Bundle) -> tuple[Score, dict[str, int], list[bool]]:
    """A session that neither training nor calibration has seen, through the decoder."""
    source = SimulatedSource(seed=4711, seconds=Session(Subject(), 4711).whole(160.0), speed=None)
    engine = make_engine(bundle)
    decoder = Decoder.from_bundle(bundle, source.open(), engine)
    score = Score(bundle.manifest.heads[0], [item.name for item in gallery()])
    none = []
    for result in replay(source, decoder):
        assert result.marker is not None
        if result.heads:
            score.add(result.marker.value, result.heads[0])
            assert result.heads[0].retrieval is not None
            none.append(bool(result.heads[0].retrieval.none_of_these))
    engine.close()
    return score, {status.value: n for status, n in decoder.counts.items()}, none


def test_a_new_session_is_decoded_far_above_chance(decoded: tuple[Score, dict[str, int], list[bool]]) -> None:
    accuracy = decoded[0].accuracy()
    assert accuracy is not None
    assert accuracy.windows > 150
    assert accuracy.p_value < 1e-6
    assert 0.3 < accuracy.top1 < 0.7
    assert 0.6 < accuracy.topk < 0.95


def test_a_whole_session_cuts_no_window_off(decoded: tuple[Score, dict[str, int], list[bool]]) -> None:
    assert set(decoded[1]) == {Status.OK}


def test_the_threshold_does_on_new_data_what_was_declared(
    bundle: Bundle, decoded: tuple[Score, dict[str, int], list[bool]]
) -> None:
    """Things that are not in the gallery are refused more often than those that are, about as often as declared."""
    source = SimulatedSource(seed=4712, seconds=Session(Subject(), 4712).whole(160.0), speed=None, shown=unseen())
    engine = make_engine(bundle)
    decoder = Decoder.from_bundle(bundle, source.open(), engine)
    strange = [
        bool(result.heads[0].retrieval.none_of_these)
        for result in replay(source, decoder)
        if result.heads and result.heads[0].retrieval is not None
    ]
    engine.close()
    declared = bundle.manifest.metrics["none_of_these"]["declared_false_accept"]
    # four standard deviations of a binomial share
    slack = 4 * np.sqrt(declared * (1 - declared) / len(strange))
    assert 1 - np.mean(strange) == pytest.approx(declared, abs=slack)
    assert np.mean(strange) > np.mean(decoded[2]) + 0.1


# --- the count and the view -------------------------------------------------------------------------------------------


def window(seq: int, shown: str, names: tuple[str, ...], status: str = "ok") -> Window:
    found = None
    if names:
        scores = tuple(0.9 - 0.1 * at for at in range(len(names)))
        found = Retrieval(indices=tuple(range(len(names))), names=names, scores=scores, margin=0.1, none_of_these=False)
    at = 10.0 + seq
    ledger = Ledger(stamp=at, arrived=at + 0.020)
    if names:
        ledger = Ledger(
            stamp=at,
            arrived=at + 0.020,
            received=at + 0.021,
            due=at + 0.023,
            encoded=at + 0.026,
            published=at + 0.030,
            budget_ms=50.0,
            met=True,
        )
    return Window(
        seq=seq,
        kind="retrieval",
        pipeline="demo",
        bundle="0" * 12,
        window="seen",
        segment=0,
        start=250 * seq,
        length=175,
        sfreq=250.0,
        status=status,  # type: ignore[arg-type]
        reason="" if names else "12 samples are missing",
        marker=WireMarker(stamp=at - 0.7, value=f"concept/{shown}"),
        retrieval=found,
        ledger=ledger,
    )


@pytest.fixture
def tally() -> Tally:
    """A hit, one among the five, a miss, and a gap."""
    tally = Tally(items=160, budget_ms=50.0)
    tally.add(window(0, "dog", ("dog", "cat", "wolf", "bee", "pear")))
    tally.add(window(1, "cat", ("dog", "wolf", "cat", "bee", "pear")))
    tally.add(window(2, "hot dog", ("dog", "wolf", "cat", "bee", "pear"), "late"))
    tally.add(window(3, "bee", (), "gap"))
    return tally


def test_the_count_adds_up(tally: Tally) -> None:
    summary = tally.summary()
    assert summary["windows"] == sum(summary["statuses"].values()) == 4
    assert summary["statuses"] == dict.fromkeys(STATUSES, 0) | {"ok": 2, "late": 1, "gap": 1}
    assert (summary["top1"], summary["top5"]) == (pytest.approx(1 / 3, abs=1e-4), pytest.approx(2 / 3, abs=1e-4))
    assert (summary["chance"], summary["chance_top5"]) == (0.0063, 0.0312)
    p = 1 - (159 / 160) ** 3  # one hit or more in three guesses
    assert summary["p_value"] == pytest.approx(p)
    expected = {"transport": 20, "bus": 1, "condition": 2, "encode": 3, "publish": 4, "total": 10, "from_sample": 30}
    assert {stage: both["p50"] for stage, both in summary["latency_ms"].items()} == pytest.approx(expected)
    parts = ("bus", "condition", "encode", "publish")
    assert sum(expected[part] for part in parts) == expected["total"]
    assert summary["met"] == 1.0


def test_windows_are_accounted_for_only_if_the_daemon_counted_the_same(tally: Tally) -> None:
    def health(due: int, counts: dict[str, int]) -> Health:
        return Health(seq=0, pipeline="demo", dropped=0, uptime_s=1.0, due=due, counts=counts)

    counts = dict.fromkeys(STATUSES, 0) | {"ok": 2, "late": 1, "gap": 1}
    for said, accounted in ((None, False), (health(4, counts), True), (health(5, counts | {"ok": 3}), False)):
        tally.health = said
        assert tally.accounted is accounted
    assert not Tally(items=160, budget_ms=50.0, health=health(0, {})).accounted


def test_the_interval_is_wilsons() -> None:
    """Against the equation that it solves: (p - share)^2 = z^2 p (1 - p) / n."""
    for hits, total in ((0, 10), (3, 10), (10, 10), (50, 160)):
        for p in wilson(hits, total):
            assert (p - hits / total) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / total, abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def scene(why_local: str = "") -> Scene:
    emoji = {item.name: item.emoji for item in gallery()}
    transport = "local" if why_local else "lsl"
    return Scene("64 channels at 250 Hz", transport, why_local, "0" * 12, "onnxruntime 1.0, cpu", emoji, 30.0)


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_the_picture_fits_the_terminal_and_says_that_it_is_simulated(tally: Tally, columns: int) -> None:
    console = Console(width=columns, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(picture(scene(), tally, 12.0))
    text = captured.get()
    from rich.cells import cell_len

    assert max(cell_len(line) for line in text.splitlines()) <= columns
    assert "SIMULATED" in text
    assert text.count("chance") == 2


def test_the_picture_shows_what_was_shown_and_what_was_decoded(tally: Tally) -> None:
    console = Console(width=100, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(picture(scene("liblsl is missing"), tally, 12.0))
    text = captured.get()
    assert "hot dog" in text  # the latest with an answer
    assert "not among the five" in text
    assert "not over LSL: liblsl is missing" in text
    assert "late 1" in text
    assert "gap 1" in text
    assert "= 4 windows due" in text


def test_an_empty_count_can_be_shown() -> None:
    console = Console(width=100, force_terminal=True, color_system=None)
    nothing = Tally(items=160, budget_ms=50.0)
    with console.capture() as captured:
        console.print(picture(scene(), nothing, 0.0))
    assert "waiting" in captured.get()
    assert "nothing was decoded" in "\n".join(closing_lines(scene(), nothing, latency=True))


def test_plain_lines_hold_no_control_characters_and_tell_hits_from_misses(tally: Tally) -> None:
    trials = [plain_line(trial, 1.0) for trial in tally.trials]
    assert [re.split(r"\s{2,}", line.strip())[1].split(" shown")[0].strip() for line in trials] == [
        "right",
        "place 3",
        "missed",
        "gap",
    ]
    lines = [opening_line(scene("no LSL")), *trials, *closing_lines(scene(), tally, latency=True)]
    assert all(character.isprintable() for line in lines for character in line)
    assert "4 windows = 2 ok + 1 late + 0 skipped + 1 gap + 0 artifact + 0 failed" in lines


# --- the processes ----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rtdecode", "demo", *arguments]


def check_summary(line: str, transport: tuple[str, ...]) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(line)
    assert summary["simulated"] is True
    assert summary["transport"] in transport
    assert (summary["transport"] == "lsl") == (summary["why_local"] == "")
    assert summary["windows"] == summary["due"] == sum(summary["statuses"].values()) > 0
    assert tuple(summary["statuses"]) == STATUSES
    assert set(summary["latency_ms"]) >= {"transport", "bus", "condition", "encode", "publish", "total"}
    for both in summary["latency_ms"].values():
        assert 0 <= both["p50"] <= both["p99"]
    assert 0 <= summary["met"] <= 1
    assert summary["chance"] == pytest.approx(1 / len(gallery()), abs=1e-4)
    assert summary["bundle"] == Bundle.open(BUNDLE).id[:12]
    return summary


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for sockets."""
    with tempfile.TemporaryDirectory(prefix="d") as folder:
        yield Path(folder)


def without_lsl(folder: Path) -> dict[str, str]:
    """An environment in which pylsl cannot be imported, as where it is not installed."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['pylsl'] = None\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.slow
@pytest.mark.parametrize("lsl", [True, False], ids=["with LSL", "without LSL"])
def test_the_demo_ends_with_a_valid_summary_and_leaves_nothing_behind(
    lsl: bool, short_folder: Path, tmp_path: Path
) -> None:
    environment = dict(os.environ) if lsl else without_lsl(tmp_path)
    done = subprocess.run(
        command("--seconds", "8", "--json", "--seed", "1"),
        env=environment | {"TMPDIR": str(short_folder)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    summary = check_summary(done.stdout, ("lsl", "local") if lsl else ("local",))
    # the same things are shown each time, over either transport
    session = Session(Subject(), 1)
    assert summary["windows"] == len(session.stimuli(0, round(250 * session.whole(8.0)))) >= 5
    assert summary["statuses"]["gap"] == summary["statuses"]["failed"] == 0
    assert summary["top5"] > 0.2
    assert "SIMULATED" in done.stderr
    assert ("not over LSL" in done.stderr) == (summary["transport"] == "local")
    assert "\x1b" not in done.stderr
    assert list(short_folder.iterdir()) == []


def test_lsl_that_was_asked_for_and_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--transport", "lsl"),
        env=without_lsl(tmp_path),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == ProcessError.exit_code
    assert "pylsl" in done.stderr
    assert "--transport local" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_it_with_the_summary_and_no_process_stays() -> None:
    process = subprocess.Popen(
        command("--seconds", "120", "--json", "--transport", "local"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:  # ends when the process does
            if " s  " in line:  # the first window
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3  # run, acquire, decode
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 0, err
    summary = check_summary(out, ("local",))
    assert summary["interrupted"] is True
    assert summary["seconds"] < 100
    deadline = time.monotonic() + 10
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        psutil.wait_procs(children, timeout=0.1)
    assert not [child for child in children if child.is_running()]


def test_a_bundle_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--bundle", str(tmp_path / "none.zip")), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "rtdecode_models.demo" in done.stderr
    assert "Traceback" not in done.stderr
