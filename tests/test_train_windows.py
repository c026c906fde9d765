"""Training windows are what the daemon cuts: from any stream of a recording, and by a chain fitted on them alone."""

import numpy as np
import pytest

edfio = pytest.importorskip("edfio", reason="the synthetic recordings are EDF files: pip install rtdecode[files]")
pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rtdecode.decoder import Status  # noqa: E402
from rtdecode.errors import ConfigError, RecordingError  # noqa: E402
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for seed, name in enumerate("ab"):
        write_recording(folder / f"{name}.edf", seed)
    return folder


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
