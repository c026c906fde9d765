"""Motor imagery and SSVEP on real recordings, and alignment as it is done live against alignment of whole sessions."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the encoders need torch: pip install rtdecode[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install rtdecode[train]")
pytest.importorskip("onnxruntime", reason="exporting needs an inference runtime: pip install rtdecode[cpu]")

import torch

from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.fit import euclidean_alignment, inverse_sqrt, mean_covariance
from rtdecode.stream.steps import Conditioning, Filter, Matrix, Resample, RunningAlignment, StreamStep
from rtdecode.stream.window import Locked
from rtdecode_models.data.recordings import contract_of, cut, read_recording
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.registry import build
from rtdecode_models.systems.simpleconv_offline import aligned_by_session, logits_by_session_statistics
from rtdecode_models.training.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[1]


def _benchmark(name):
    """A script of the folder of benchmarks, as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# --- alignment --------------------------------------------------------------------------------------------------------


def _distance(x):
    """How far the mean covariance of windows (n, time, channels) is from a multiple of the identity."""
    covariance = mean_covariance(x)
    covariance /= np.trace(covariance) / len(covariance)
    return np.linalg.norm(covariance - np.eye(len(covariance))) / np.sqrt(len(covariance))


def test_running_alignment_comes_to_what_the_whole_session_gives():
    """On a stationary stream, which another covariance than the training's mixes."""
    rng = np.random.default_rng(0)
    start, there = (1e-5 * rng.standard_normal((6, 6)) for _ in range(2))
    stream = (rng.standard_normal((40_000, 6)) @ there).astype(np.float32)
    channels = [Channel(f"E{k}", "eeg", "V") for k in range(6)]
    step = RunningAlignment(start="start.npy", half_life_s=30.0)
    online = Conditioner((step,), channels, 100.0, {"start.npy": start.T @ start}).push(stream)
    windows = stream[-10_000:].reshape(25, 400, 6)
    offline = windows @ euclidean_alignment(windows).T
    last = online[-10_000:].reshape(25, 400, 6)
    assert _distance(stream[:100].reshape(1, 100, 6) @ inverse_sqrt(start.T @ start)) > 1.0
    assert _distance(last) < 0.1
    assert np.linalg.norm(last - offline) / np.linalg.norm(offline) < 0.1


def test_on_a_real_run_running_alignment_lies_between_the_training_runs_matrix_and_the_whole_runs(shared_data):
    """Subject 1, alignment from run 6, run 14: only the whole run's own matrix, which needs the future, is perfect."""
    folder = shared_data / "eegmmidb" / "S001"
    locked = Locked(tmin=0.5, tmax=3.5, markers=("T1", "T2"))

    def windows(run, *steps: StreamStep, **arrays):
        recording = read_recording(folder, run)
        chain = Conditioning(stream=(Filter(low=7.0, high=30.0), Resample(sfreq=80.0), *steps))
        results = cut(recording, contract_of(recording.info), chain, arrays, [locked])
        return np.stack([result.outputs["window"] for result in results])

    start = mean_covariance(windows("S001R06.edf"))
    plain = windows("S001R14.edf")
    fixed = windows("S001R14.edf", Matrix(array="m", kind="euclidean_alignment"), m=inverse_sqrt(start))
    running = windows("S001R14.edf", RunningAlignment(start="start", half_life_s=60.0), start=start)
    whole = plain @ euclidean_alignment(plain).T
    assert _distance(whole) < 1e-3
    assert 0.1 < _distance(running) < 0.75 * _distance(fixed)
    assert _distance(fixed) < 0.25 * _distance(plain)


# --- what only a finished session allows ------------------------------------------------------------------------------


def _two_sessions():
    """Two sessions of one subject, the second of another scale and mixing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 60, 4))
    x[10:] = 5 * x[10:] @ rng.standard_normal((4, 4))
    session = np.repeat([0, 1], 10)
    y = {"label": np.arange(20) % 2}
    zeros = np.zeros(20, np.int64)
    return Trials(x.astype(np.float32), 60.0, zeros, session, ("S",), ("a", "b"), y, {"label": ("left", "right")})


def test_sessions_are_aligned_each_by_itself():
    aligned = aligned_by_session(_two_sessions())
    assert _distance(aligned.x[:10]) < 1e-4
    assert _distance(aligned.x[10:]) < 1e-4


def test_session_statistics_are_those_of_the_session_and_leave_the_network_as_it_was():
    torch.manual_seed(0)
    trials = _two_sessions()
    network = build("simpleconv", {"width": 4, "n_blocks": 1, "kernel": 3}, Shape(60, 4, 60.0, classes={"label": 2}))
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits = logits_by_session_statistics(network, trials)
    # Batch norm without a running mean takes a scale of the whole session away: only that of its own statistics does.
    louder = replace(trials, x=trials.x * np.where(trials.session == 1, 3.0, 1.0).astype(np.float32)[:, None, None])
    np.testing.assert_allclose(logits_by_session_statistics(network, louder), logits, atol=1e-3)
    alone = logits_by_session_statistics(network, trials.take(np.arange(10)))
    np.testing.assert_allclose(alone, logits[:10], atol=1e-6)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["simpleconv", "eegnet", "csp_lda"])
def test_recipes_of_the_benchmark_are_valid(name):
    recipe, _ = read_recipe(ROOT / "models" / "recipes" / f"eegmmidb_{name}.toml")
    assert recipe.leave_one_out.test == "session"
    assert [task.output for task in recipe.tasks] == ["logits"]


def test_csp_and_a_small_simpleconv_decode_a_run_that_they_were_not_trained_on(shared_data):
    """Subject 1, fists against feet: train on runs 6 and 10, decode run 14. Both have 14 of 15 or so."""
    motor = _benchmark("motor_imagery")
    data = shared_data / "eegmmidb"
    rows = np.arange(45)
    for system in ("csp-lda", "simpleconv"):
        recipe = motor.recipe_of(system, data, "fists against feet", ("S001",))
        recipe = motor.msgspec.structs.replace(
            recipe, seeds=(0,), training=motor.msgspec.structs.replace(recipe.training, epochs=20)
        )
        source = motor.open_recordings(recipe, data)
        dataset = source.dataset(source.sessions, rows[:30])
        assert dataset.train.sessions[2].endswith("R14.edf")
        networks = motor.trained(recipe, dataset, dataset.train.take(rows[:30]))
        said = motor.members(networks, dataset.train.take(rows[30:]))[0].argmax(1)
        assert (said == dataset.train.labels["label"][30:]).sum() >= 12, system


def test_folds_test_each_trial_once_and_never_what_they_train_on():
    motor = _benchmark("motor_imagery")
    trials = _two_sessions()
    protocol, folds = motor.folds_of(trials)
    assert protocol == "runs left out"
    assert [test.tolist() for _, test in folds] == [list(range(10)), list(range(10, 20))]
    one = replace(trials.take(np.arange(15)), sessions=("a",), session=np.zeros(15, np.int64))
    protocol, folds = motor.folds_of(one)
    assert protocol == "blocks of one run"
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(15))
    assert not any(set(train) & set(test) for train, test in folds)


@pytest.fixture(scope="module")
def ssvep(shared_data, tmp_path_factory):
    benchmark = _benchmark("ssvep")
    folder = tmp_path_factory.mktemp("ssvep")
    recordings = benchmark.with_events(shared_data / "ssvep_exo", folder, most=1)
    return benchmark, recordings, benchmark.make_bundle(recordings, folder / "cca.zip")


def test_cca_names_the_flicker_in_replay(ssvep):
    """One recording of each subject through the bundle, by ``rtdecode replay``: .80 of the trials or more."""
    benchmark, recordings, bundle = ssvep
    assert list(recordings) == ["subject01", "subject12"]
    scores = [benchmark.replayed(files[0], bundle) for files in recordings.values()]
    assert [score["trials"] for score in scores] == [24, 24]
    assert [score["undecoded"] for score in scores] == [0, 0]
    assert np.mean([score["right"] / score["trials"] for score in scores]) >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform == "win32", reason="the benchmark's daemon has a bus in a folder")
def test_cca_names_the_flicker_live(ssvep, tmp_path):
    """The first three trials over a real LSL outlet: what is published is what a replay gives."""
    import mne

    benchmark, recordings, bundle = ssvep
    raw = mne.io.read_raw_fif(recordings["subject12"][0], verbose="error")
    onsets = [note["onset"] for note in raw.annotations if note["description"].endswith("Hz")]
    short = tmp_path / "short_raw.fif"
    raw.crop(onsets[0] - 2.0, onsets[2] + 6.0).save(short, verbose="error")
    expected = benchmark.replayed(short, bundle)
    given = benchmark.live(short, bundle)
    assert {key: given[key] for key in expected} == expected
    assert expected["trials"] == 3
    assert expected["right"] >= 2
