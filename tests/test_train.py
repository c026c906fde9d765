"""Training from recordings: the windows, what may and may not influence a model, and the checkpoint."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")
edfio = pytest.importorskip("edfio", reason="the synthetic recordings are EDF files: pip install rtdecode[files]")

import torch  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rtdecode.decoder import Status  # noqa: E402
from rtdecode.errors import ConfigError, ContractError, RecordingError  # noqa: E402
from rtdecode.signal import Batch, Chunk  # noqa: E402
from rtdecode.stream.steps import Conditioning, Filter, Matrix, Resample, Scale  # noqa: E402
from rtdecode.stream.window import Locked  # noqa: E402
from rtdecode_models.data.fitting import alignment_matrix  # noqa: E402
from rtdecode_models.data.recordings import (  # noqa: E402
    Recording,
    contract_of,
    crops,
    cut,
    epochs,
    fit_conditioning,
    label_of,
    read_recording,
)
from rtdecode_models.training.checkpoint import Trained  # noqa: E402
from rtdecode_models.training.recipe import parse_recipe  # noqa: E402
from rtdecode_models.training.train import Fold, Progress, Workshop, calibrate, score, select, train  # noqa: E402

SFREQ, NAMES = 100, ("C3", "Cz", "C4", "Pz")
LABELS = {"left": ("L",), "right": ("R",)}


def write_recording(path, seed, n_trials=10, swap=False, names=NAMES):
    """An EDF: noise, and after each marker a 10 Hz swing over one of the first two channels."""
    rng = np.random.default_rng(seed)
    trial = int(2.5 * SFREQ)
    x = 10 * rng.standard_normal((len(names), (n_trials + 2) * trial))
    notes = []
    for k in range(n_trials):
        right = k % 2
        at = k * trial + SFREQ // 2
        swing = 12 * np.sin(2 * np.pi * 10 * np.arange(2 * SFREQ) / SFREQ + rng.uniform(0, 6))
        x[right ^ swap, at : at + 2 * SFREQ] += swing
        notes.append(edfio.EdfAnnotation(at / SFREQ, 0, "LR"[right]))
    signals = [
        edfio.EdfSignal(row, SFREQ, label=f"EEG {name}", physical_dimension="uV", physical_range=(-200, 200))
        for name, row in zip(names, x, strict=True)
    ]
    edfio.Edf(signals, annotations=notes).write(path)


def recipe_table(**changes):
    return {
        "name": "synthetic",
        "seeds": [0, 1],
        "recordings": {"train": ["a.edf", "b.edf"], "test": ["c.edf"]},
        "labels": {label: list(patterns) for label, patterns in LABELS.items()},
        "window": {"tmin": 0.0, "tmax": 2.0},
        "conditioning": {"stream": [{"step": "filter", "low": 6.0, "high": 16.0}, {"step": "resample", "sfreq": 50.0}]},
        "model": {"width": 6, "kernel": 5},
        "training": {"epochs": 15, "batch_size": 5, "learning_rate": 3e-3},
        **changes,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for seed, name in enumerate("abc"):
        write_recording(folder / f"{name}.edf", seed)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    torch.set_num_threads(1)
    recipe = parse_recipe(recipe_table(), "test")
    return train(recipe, folder, Workshop(recipe, folder), Progress())


DECLARED = Conditioning(stream=(Filter(low=6.0, high=16.0), Resample(sfreq=50.0)))
WINDOW = Locked(tmin=0.0, tmax=2.0, markers=("L", "R"))


def _recut(recording, sizes):
    """The same samples in other chunks, all markers given at once and in reverse."""
    chunks = [batch.chunk for batch in recording.batches]
    x, stamps = np.concatenate([c.samples for c in chunks]), np.concatenate([c.stamps for c in chunks])
    markers = [marker for batch in recording.batches for marker in batch.markers][::-1]
    batches, at, turn = [Batch(None, markers, -np.inf)], 0, 0
    while at < len(x):
        stop = at + sizes[turn % len(sizes)]
        batches.append(
            Batch(Chunk(x[at:stop].copy(), stamps[at:stop].copy(), at), (), float(stamps[min(stop, len(x)) - 1]))
        )
        at, turn = stop, turn + 1
    return Recording(recording.name, recording.sha256, recording.info, (*batches, Batch(None, (), np.inf)))


@settings(max_examples=8)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=4))
def test_training_windows_are_what_any_stream_of_the_recording_gives(folder, sizes):
    recording = read_recording(folder, "a.edf")
    contract = contract_of(recording.info)
    train_epochs = epochs([recording], contract, DECLARED, {}, [WINDOW], LABELS)
    chain, arrays = fit_conditioning(DECLARED, train_epochs, alignment=True, shrinkage=0.1, standardise=True)
    whole = epochs([recording], contract, chain, arrays, [WINDOW], LABELS)
    pieces = epochs([_recut(recording, sizes)], contract, chain, arrays, [WINDOW], LABELS)
    assert pieces.x.tobytes() == whole.x.tobytes()
    assert pieces.start.tolist() == whole.start.tolist()
    assert pieces.y.tolist() == whole.y.tolist() == [0, 1] * 5


def test_crops_are_the_windows_shifted(folder):
    recording = read_recording(folder, "a.edf")
    contract = contract_of(recording.info)
    shifted = epochs([recording], contract, DECLARED, {}, crops(WINDOW, (0.0, 0.1)), LABELS)
    assert len(shifted) == 20
    order = np.argsort(shifted.start, kind="stable")
    x, start = shifted.x[order], shifted.start[order]
    assert (np.diff(start)[::2] == 5).all()
    np.testing.assert_array_equal(x[0][5:], x[1][:-5])


def test_fitted_steps_whiten_the_training_windows(folder):
    recordings = [read_recording(folder, name) for name in ("a.edf", "b.edf")]
    contract = contract_of(recordings[0].info)
    declared = epochs(recordings, contract, DECLARED, {}, [WINDOW], LABELS)
    chain, arrays = fit_conditioning(DECLARED, declared, alignment=True, shrinkage=0.0, standardise=True)
    assert [type(step) for step in chain.stream] == [Filter, Resample, Matrix, Scale]
    fitted = epochs(recordings, contract, chain, arrays, [WINDOW], LABELS)
    flat = fitted.x.reshape(-1, fitted.x.shape[2]).astype(float)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(4), atol=0.02)
    assert fitted.run.tolist() == [0] * 10 + [1] * 10


def test_alignment_shrunk_wholly_only_scales():
    x = np.random.default_rng(0).standard_normal((5, 30, 4)).astype(np.float32) * [1, 2, 3, 4]
    matrix = alignment_matrix(x.astype(np.float32), 1.0)
    np.testing.assert_allclose(matrix, np.eye(4) * matrix[0, 0], atol=1e-12)


def test_windows_that_leave_the_recording_are_counted_not_used(folder):
    recording = read_recording(folder, "a.edf")
    late = Locked(tmin=0.0, tmax=9.0, markers=("L", "R"))
    results = cut(recording, contract_of(recording.info), DECLARED, {}, [late])
    given = epochs([recording], contract_of(recording.info), DECLARED, {}, [late], LABELS)
    assert len(results) == 10
    assert len(given) == sum(result.status == Status.OK for result in results) < 10
    assert sum(given.lost.values()) == 10 - len(given)


def test_a_label_without_windows_is_refused(folder):
    recording = read_recording(folder, "a.edf")
    labels = {"left": ("L",), "tongue": ("T",)}
    with pytest.raises(RecordingError, match=r"'tongue' \(markers T\) has no usable window in a.edf"):
        epochs([recording], contract_of(recording.info), DECLARED, {}, [Locked(tmin=0, tmax=1, markers=("L",))], labels)


def test_a_marker_of_no_label():
    with pytest.raises(ConfigError, match="'X' belongs to none of the labels left, right"):
        label_of("X", LABELS)


def test_a_missing_recording_names_the_file(folder):
    recipe = parse_recipe(recipe_table(recordings={"train": ["nowhere.edf"]}), "test")
    with pytest.raises(RecordingError, match=r"nowhere.edf does not exist"):
        Workshop(recipe, folder)


def test_a_test_recording_with_other_channels_is_refused(folder, tmp_path):
    for name in "ab":
        shutil.copy(folder / f"{name}.edf", tmp_path)
    write_recording(tmp_path / "c.edf", 2, names=("C3", "Cz", "C4", "Oz"))
    recipe = parse_recipe(recipe_table(), "test")
    with pytest.raises(ContractError, match=r"Oz|Pz"):
        train(recipe, tmp_path, Workshop(recipe, tmp_path), Progress())


def test_training_learns_and_says_what_it_measured(trained):
    metrics = trained.metrics
    assert metrics["chance"] == 0.5
    assert metrics["train"]["by_label"] == {"left": 10, "right": 10}
    assert metrics["leave_one_run_out"]["right"] >= 17
    test = metrics["test"]
    assert test["recordings"] == ["c.edf"]
    assert test["right"] >= 8
    assert np.trace(test["confusion"]) == test["right"]
    assert np.sum(test["confusion"]) == test["trials"] == 10
    assert [len(curve) for curve in metrics["learning_curves"]] == [15, 15]


def test_test_recordings_influence_nothing_but_their_own_scores(folder, tmp_path, trained):
    """The same training beside another test recording: same weights, chain and calibration, to the byte."""
    for name in "ab":
        shutil.copy(folder / f"{name}.edf", tmp_path)
    write_recording(tmp_path / "c.edf", 77, swap=True)
    recipe = parse_recipe(recipe_table(), "test")
    other = train(recipe, tmp_path, Workshop(recipe, tmp_path), Progress())
    assert other.metrics["test"]["right"] <= 2, "the swapped labels should be decoded as the opposite"
    assert other.checkpoint.temperature == trained.checkpoint.temperature
    assert other.windows.tobytes() == trained.windows.tobytes()
    for name, value in trained.arrays.items():
        assert other.arrays[name].tobytes() == value.tobytes()
    for name, value in trained.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[name])


def test_a_checkpoint_comes_back_whole_and_holds_no_pickle(trained, tmp_path):
    trained.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "weights.safetensors",
        "windows.safetensors",
        "checkpoint.json",
        "metrics.json",
    }
    back = Trained.load(tmp_path)
    assert back.checkpoint == trained.checkpoint
    assert json.loads(json.dumps(back.metrics)) == json.loads(json.dumps(trained.metrics))
    assert back.raw.tobytes() == trained.raw.tobytes()
    with torch.no_grad():
        windows = torch.from_numpy(trained.windows)
        assert torch.equal(back.module(windows)["logits"], trained.module(windows)["logits"])


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("weights.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "damaged"),
        ("weights.safetensors", None, "no whole checkpoint"),
        ("checkpoint.json", b'{"format":"rtdecode-checkpoint","version":2}', "damaged or of another version"),
        ("checkpoint.json", b"{", "damaged"),
        ("windows.safetensors", b"", "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused(trained, tmp_path, file, content, says):
    trained.save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        Trained.load(tmp_path)


def test_selection_takes_the_most_likely_setting(folder):
    """A band without the swing loses to the band with it; the table lists both, best first."""
    bands = [{"low": 30.0, "high": 45.0}, {"low": 6.0, "high": 16.0}]
    table = recipe_table(
        seeds=[0],
        conditioning={"stream": [{"step": "filter", "low": 6.0, "high": 16.0}]},
        select={"vary": [{"key": "conditioning.stream.0", "values": bands}]},
    )
    recipe = parse_recipe(table, "test")
    workshop = Workshop(recipe, folder)
    said: list[str] = []
    chosen, rows = select(table, recipe, workshop, Progress(say=said.append))
    assert chosen.conditioning.stream[0] == Filter(low=6.0, high=16.0)
    assert [row["setting"]["conditioning.stream.0"] for row in rows] == bands[::-1]
    assert rows[0]["nll"] < rows[1]["nll"]
    assert len(said) == 2


def test_calibration_finds_the_temperature_that_made_the_labels():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (3000, 3))
    sharp = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=p) for p in sharp])
    said = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert calibrate([Fold(said[None], y)])["temperature"] == pytest.approx(0.5, rel=0.1)


def test_calibration_says_why_it_stays_at_one():
    assert "one training recording" in calibrate([])["why_not"]
    always_right = np.log(np.array([[[0.9, 0.1], [0.1, 0.9]]]))
    given = calibrate([Fold(always_right, np.array([0, 1]))])
    assert given["temperature"] == 1.0
    assert "all 2 held-out windows are right" in given["why_not"]


def test_score_counts_seeds_and_ensemble():
    p = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.7, 0.3]]])
    result = score([Fold(np.log(p), np.array([0, 1]))])
    assert result["right_by_seed"] == [1, 0]
    assert result["right"] == 1
    assert result["nll"] == pytest.approx(-np.log([0.65, 0.35]).mean())


def test_the_verb_on_the_command_line(folder, tmp_path):
    """A real process: JSON on standard output, a checkpoint in the folder; a bad recipe ends with exit code 2."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'name = "cli"\nseeds = [0]\nlabels = { left = ["L"], right = ["R"] }\nwindow = { tmin = 0.0, tmax = 2.0 }\n'
        'recordings = { train = ["a.edf"], test = ["c.edf"] }\ntraining = { epochs = 1 }\nmodel = { width = 2 }\n'
    )
    command = [sys.executable, "-m", "rtdecode", "train", str(recipe), "--data", str(folder), "--out"]
    done = subprocess.run([*command, str(tmp_path / "out"), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout.splitlines()[-1])
    assert given["metrics"]["test"]["trials"] == 10
    assert Trained.load(Path(given["checkpoint"])).checkpoint.name == "cli"
    recipe.write_text(recipe.read_text() + "epochs = 3\n")
    bad = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "unknown field `epochs`" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_the_verb_selects_and_keeps_the_table(folder, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'name = "cli"\nseeds = [0]\nlabels = { left = ["L"], right = ["R"] }\nwindow = { tmin = 0.0, tmax = 2.0 }\n'
        'recordings = { train = ["a.edf", "b.edf"] }\ntraining = { epochs = 2 }\nmodel = { width = 2 }\n'
        '[[select.vary]]\nkey = "model.width"\nvalues = [2, 3]\n'
    )
    command = [sys.executable, "-m", "rtdecode", "train", str(recipe), "--data", str(folder), "--select", "--out"]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    back = Trained.load(tmp_path / "out")
    rows = back.metrics["selection"]
    assert {row["setting"]["model.width"] for row in rows} == {2, 3}
    assert rows[0]["nll"] <= rows[1]["nll"]
    assert back.checkpoint.model["width"] == rows[0]["setting"]["model.width"]
    assert "selected: {'model.width'" in done.stdout


@pytest.mark.parametrize("place", ["rtdecode_models.cli", "rtdecode_export.cli"])
def test_the_verbs_are_listed_without_loading_torch(place):
    code = f"import sys, {place}; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("place", ["rtdecode_models.cli", "rtdecode_export.cli"])
def test_a_missing_package_names_the_extra(place, monkeypatch):
    module = importlib.import_module(place)
    monkeypatch.setattr(module, "_NEEDED", ("no_such_package_here",))
    check = getattr(module, "require_training_packages", None) or module.require_export_packages
    with pytest.raises(ConfigError, match=r'no_such_package_here.*pip install "rtdecode\[train'):
        check()
