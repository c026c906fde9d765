"""The zoo: every published system is what its entry and its card say; the cheapest one runs live."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.stream.window import Locked, Sliding
from rtdecode_models.zoo.bundle import build, untrained, windows_of
from rtdecode_models.zoo.check import PARITY
from rtdecode_models.zoo.entry import Entry
from rtdecode_models.zoo.live import lateness, run_live
from rtdecode_models.zoo.noise import NoiseSource, batches_of, markers_of
from rtdecode_models.zoo.registry import entries
from rtdecode_models.zoo.results import read_results

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "docs" / "models"
#: SI units by channel type.
UNITS = {"eeg": "V", "seeg": "V", "ecog": "V", "dbs": "V", "mag": "T", "grad": "T/m", "ref_meg": "T"}
CONTRACT = Contract(
    channels=(
        ContractChannel(name="A", type="eeg", unit="V"),
        ContractChannel(name="B", type="mag", unit="T"),
    ),
    sfreq=200.0,
)


#: The cheapest to run live.
LIGHT = "eegnet"
#: What is compared with ridge regression, over seeds.
SEVERAL_SEEDS = {"brain-module", "brain-module-250ms", "brain-module-100ms", "atm-s", "nice", "ubp-eeg", "ubp-meg"}


def named(name: str) -> Entry:
    return next(entry for entry in entries() if entry.name == name)


each = pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)


@each
def test_a_system_has_the_parameters_that_its_entry_and_its_card_say(entry: Entry) -> None:
    counted = sum(parameter.numel() for parameter in build(entry).parameters() if parameter.requires_grad)
    assert counted == entry.parameters
    card = " ".join((CARDS / entry.card).read_text(encoding="utf-8").split())
    assert f"{entry.parameters:,}" in card, f"{entry.card} does not say {entry.parameters:,}"
    if entry.published is not None:
        assert f"{entry.published:,}" in card, f"{entry.card} does not say {entry.published:,}"
        assert entry.counted
    assert entry.name in card
    assert f"{entry.budget_ms:g} ms" in card, f"{entry.card} does not declare {entry.budget_ms:g} ms"


@each
def test_a_systems_stream_is_one_that_an_amplifier_gives(entry: Entry) -> None:
    names = [channel.name for channel in entry.contract.channels]
    assert len(set(names)) == len(names)
    for channel in entry.contract.channels:
        assert channel.unit == UNITS[channel.type]
    windows, raw = windows_of(entry, 0, entry.arrays())
    encoder = build(entry)
    assert raw.shape[1] == len(names)
    for result in windows:
        assert np.isfinite(result.outputs["window"]).all()
    assert set(encoder.outputs) >= {head.output for head in entry.heads()[0]}


def test_names_are_unique_and_every_card_is_linked() -> None:
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names)
    page = (CARDS / "README.md").read_text(encoding="utf-8")
    for entry in entries():
        assert f"[{entry.name}]({entry.card})" in page
        assert f"{entry.parameters:,}" in page
    linked = set(re.findall(r"\(([a-z0-9-]+\.md)\)", page)) | {"README.md"}
    assert {path.name for path in CARDS.glob("*.md")} <= linked


def test_results_are_of_entries_and_below_their_ceiling() -> None:
    names = {entry.name for entry in entries()}
    for name, result in read_results().items():
        assert name in names
        assert 0 <= result["share"] <= 1.2, f"{name} is far above what is possible"
        assert len(result["seeds"]) >= (3 if name in SEVERAL_SEEDS else 1)


def samples_of(source: NoiseSource) -> np.ndarray:
    return np.concatenate([batch.chunk.samples for batch in batches_of(source) if batch.chunk is not None])


def test_noise_meets_its_contract_and_is_the_same_every_time() -> None:
    window = Locked(tmin=-0.1, tmax=0.4, markers=("stim/*", "go?"))
    source = NoiseSource(CONTRACT, [window], 2.05)
    samples = samples_of(source)
    assert samples.shape == (410, 2)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, samples_of(source))
    assert not np.array_equal(samples, samples_of(NoiseSource(CONTRACT, [window], 2.05, seed=1)))
    assert 3e-6 < samples[:, 0].std() < 3e-5
    assert 1e-13 < samples[:, 1].std() < 2e-12


def test_noise_has_a_marker_on_a_sample_every_half_second_in_turn() -> None:
    window = Locked(tmin=-0.1, tmax=0.4, markers=("stim/*", "go?"))
    assert markers_of([window, Sliding(length=1.0, hop=0.1)]) == ("stim/1", "go1")
    assert markers_of([Sliding(length=1.0, hop=0.1)]) == ()
    batches = batches_of(NoiseSource(CONTRACT, [window], 2.05))
    markers = [marker for batch in batches for marker in batch.markers]
    assert [marker.stamp for marker in markers] == [0.5, 1.0, 1.5, 2.0]
    assert [marker.value for marker in markers] == ["go1", "stim/1", "go1", "stim/1"]
    assert batches[-1].watermark == float("inf")
    assert sum(len(batch.chunk) for batch in batches if batch.chunk is not None) == 410


def test_no_window_waits_for_markers_that_may_be_late_for_longer_than_it_takes() -> None:
    short = Locked(tmin=0.02, tmax=0.46, markers=("stim/*",))
    assert lateness([short, Locked(tmin=-0.2, tmax=1.0, markers=("stim/*",))]) == 0.23
    assert lateness([Locked(tmin=0.0, tmax=3.0, markers=("T1",))]) == 0.5
    assert lateness([Sliding(length=0.1, hop=0.1)]) == 0.5
    assert lateness([Locked(tmin=-1.0, tmax=-0.5, markers=("T1",))]) == 0.0


def test_a_system_runs_live_in_the_daemon_within_its_budget(tmp_path: Path) -> None:
    """On a machine busy with other tests only that every window was decoded can be asked, not how fast."""
    report = untrained(named(LIGHT), tmp_path / "bundle.zip")
    assert max(report.errors.values()) <= PARITY
    live = run_live(tmp_path / "bundle.zip", 60_000.0, seconds=3.0)
    assert live.statuses == {"ok": live.windows}
    assert live.windows >= 2
    assert live.good


def zoo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rtdecode", "zoo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_verb_lists_every_system() -> None:
    listed = zoo("--json")
    assert listed.returncode == 0, listed.stderr
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [row["name"] for row in rows] == [entry.name for entry in entries()]


def test_the_verb_checks_a_system_and_writes_its_bundle_and_page(tmp_path: Path) -> None:
    done = zoo(LIGHT, "--check", "--seconds", "0", "--json", "--out", str(tmp_path), "--page", str(tmp_path / "p.md"))
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["good"]
    assert row["parity"] <= PARITY
    assert row["live"] is None
    assert (tmp_path / f"{LIGHT}.zip").is_file()
    assert f"[{LIGHT}]({named(LIGHT).card})" in (tmp_path / "p.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "there is no system 'nobody'"),
        (["--page", "p.md"], "--page is what --check found"),
        (["--check", "--seconds", "-1"], "--seconds is -1"),
        (["--check", "--seconds", "nan"], "--seconds is nan"),
        (["--out", __file__], "--out: "),
        (["--check", "--page", str(Path(__file__) / "p.md")], "--page: "),
    ],
)
def test_the_verb_refuses_what_makes_no_sense(arguments: list[str], said: str) -> None:
    done = zoo(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
