"""Recordings as trials: live windows byte for byte, whatever is fitted and for whom; and who may be fitted on."""

import json
import re
import textwrap
import tomllib
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

edfio = pytest.importorskip("edfio", reason="the synthetic recordings are EDF files: pip install rtdecode[files]")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rtdecode.decoder import Decoder, Status  # noqa: E402
from rtdecode.encode.contract import check_contract  # noqa: E402
from rtdecode.errors import ConfigError, ContractError, RecordingError  # noqa: E402
from rtdecode.signal import Chunk  # noqa: E402
from rtdecode.stream.condition import Conditioner  # noqa: E402
from rtdecode.stream.steps import Matrix, RunningAlignment, Scale  # noqa: E402
from rtdecode_models.data.recordings import WindowTap, read_recording  # noqa: E402
from rtdecode_models.data.remembered import Remembered  # noqa: E402
from rtdecode_models.data.splits import Held, Split, split_data  # noqa: E402
from rtdecode_models.training.open import open_source, parse_data  # noqa: E402

SFREQ, NAMES = 100, ("C3", "Cz", "C4", "Pz")
FILES = {"s1": ["s1_a.edf", "s1_b.edf"], "s2": ["s2_a.edf"]}


def write_recording(path, seed, names=NAMES, unit="uV", n_trials=8):
    rng = np.random.default_rng(seed)
    trial = int(1.5 * SFREQ)
    mixing = np.eye(len(names)) + 0.4 * rng.random((len(names), len(names)))
    x = 10 * mixing @ rng.standard_normal((len(names), (n_trials + 2) * trial))
    notes = [edfio.EdfAnnotation((k * trial + 40) / SFREQ, 0, f"img/{k % 4}") for k in range(n_trials)]
    signals = [
        edfio.EdfSignal(row, SFREQ, label=f"EEG {name}", physical_dimension=unit, physical_range=(-200, 200))
        for name, row in zip(names, x, strict=True)
    ]
    edfio.Edf(signals, annotations=notes).write(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for seed, name in enumerate(name for names in FILES.values() for name in names):
        write_recording(folder / name, seed)
    (folder / "names.json").write_text(json.dumps({str(n): f"a picture of {n}" for n in range(4)}))
    np.save(folder / "clip.npy", np.eye(4, dtype=np.float32))
    return folder


def table(**changes):
    return {
        "kind": "recordings",
        "subjects": FILES,
        "labels": {"even": ["img/0", "img/2"], "odd": ["img/[13]"]},
        "window": {"tmin": 0.0, "tmax": 0.8},
        "conditioning": {
            "stream": [{"step": "filter", "low": 2.0, "high": 30.0}],
            "window": [{"step": "baseline", "tmin": 0.0, "tmax": 0.1}, {"step": "clamp", "limit": 4.0}],
        },
        **changes,
    }


def opened(folder, **changes):
    return open_source(parse_data(table(**changes)), folder)


def live_windows(recording, dataset, arrays, sizes):
    """What a decoder gives that is fed by chunks of these sizes."""
    columns = check_contract(recording.info, dataset.contract, "strict")
    channels = tuple(recording.info.channels[at] for at in columns)
    conditioner = Conditioner(dataset.conditioning.stream, channels, SFREQ, arrays)
    decoder = Decoder(
        columns=columns,
        channels=channels,
        n_stream_channels=len(recording.info.channels),
        sfreq=SFREQ,
        conditioner=conditioner,
        window_steps=dataset.conditioning.window,
        windows=[dataset.window],
        engine=WindowTap((dataset.window.n_samples(conditioner.sfreq), len(conditioner.channels))),
        heads=(),
    )
    x = np.concatenate([batch.chunk.samples for batch in recording.batches])
    stamps = np.concatenate([batch.chunk.stamps for batch in recording.batches])
    results = decoder.push(None, [marker for batch in recording.batches for marker in batch.markers], -np.inf)
    at, turn = 0, 0
    while at < len(x):
        stop = min(at + sizes[turn % len(sizes)], len(x))
        results += decoder.push(Chunk(x[at:stop].copy(), stamps[at:stop].copy(), at), (), float(stamps[stop - 1]))
        at, turn = stop, turn + 1
    results += decoder.push(None, (), np.inf) + decoder.finish()
    assert {result.status for result in results} == {Status.OK}
    return np.stack([result.outputs["window"] for result in results])


@pytest.mark.parametrize("per", ["all", "subject", "session"])
@pytest.mark.parametrize("whitening", ["euclidean_alignment", "mvnn", "running_alignment"])
@settings(max_examples=3)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=3))
def test_a_window_cut_live_is_the_training_window_byte_for_byte(folder, whitening, per, sizes):
    source = opened(folder, fit={"whitening": whitening, "scaling": "robust", "per": per})
    dataset = source.dataset(source.sessions)
    for number, name in enumerate(source.sessions):
        arrays = dataset.arrays_of(source.subject_of(name), name)
        live = live_windows(read_recording(folder, name), dataset, arrays, sizes)
        assert dataset.train.x[dataset.train.session == number].tobytes() == live.tobytes()


def test_the_fitted_steps_follow_the_declared_ones_and_are_of_training_trials(folder):
    source = opened(folder, fit={"whitening": "running_alignment", "half_life_s": 20.0, "scaling": "robust"})
    dataset = source.dataset(["s1_a.edf"])
    assert dataset.conditioning.stream[1:] == (
        RunningAlignment(start="alignment_start.npy", half_life_s=20.0),
        Scale(center="train_median.npy", scale="train_iqr.npy", kind="robust"),
    )
    assert set(dataset.arrays) == {"alignment_start.npy", "train_median.npy", "train_iqr.npy"}
    assert set(dataset.provenance["recordings"]) == {"s1_a.edf"}
    plain = opened(folder, fit={"whitening": "none", "scaling": "none"}).dataset(["s1_a.edf"])
    assert plain.conditioning.stream == dataset.conditioning.stream[:1]
    assert plain.arrays == {}


def test_numbers_per_subject_fall_back_to_everyones_for_a_stranger(folder):
    source = opened(folder, fit={"per": "subject", "shrinkage": 0.0})
    dataset = source.dataset(["s1_a.edf"])
    stranger = source.test(["s2_a.edf"], dataset)
    assert stranger.subjects == ("s1", "s2")
    expected = live_windows(read_recording(folder, "s2_a.edf"), dataset, dataset.arrays, [70])
    assert stranger.x.tobytes() == expected.tobytes()
    both = source.dataset(["s1_a.edf", "s2_a.edf"])
    assert isinstance(both.conditioning.stream[1], Matrix)
    assert not np.array_equal(both.subject_arrays["s1"]["alignment.npy"], both.subject_arrays["s2"]["alignment.npy"])


@pytest.mark.parametrize("per", ["all", "subject"])
def test_a_bundles_raw_piece_gives_its_windows(folder, per):
    """As the daemon checks a bundle: the piece, conditioned from the start of a segment, is the first windows."""
    source = opened(folder, fit={"per": per}, channels=["EEG C4", "EEG [CP]z"])
    dataset = source.dataset(source.sessions)
    assert [channel.name for channel in dataset.contract.channels] == ["EEG C4", "EEG Cz", "EEG Pz"]
    for subject in ("s1", "s2"):
        piece = source.deployed(dataset, subject)
        assert piece.raw is not None
        channels = read_recording(folder, "s1_a.edf").info.channels
        order = [channels[2], channels[1], channels[3]]
        conditioner = Conditioner(dataset.conditioning.stream, order, SFREQ, piece.arrays)
        x = conditioner.push(piece.raw)
        n = piece.windows.shape[1]
        assert len(piece.raw_starts) == 2
        for start, window in zip(piece.raw_starts, piece.windows, strict=False):
            cut = x[start : start + n].astype(float)
            expected = np.clip(cut - cut[:10].mean(axis=0), -4, 4)
            np.testing.assert_array_equal(window, expected.astype(np.float32) + np.float32(0))
    if per == "all":
        assert dataset.raw is not None
        np.testing.assert_array_equal(dataset.train.x[:2], source.deployed(dataset).windows[:2])
        np.testing.assert_array_equal(dataset.raw, source.deployed(dataset).raw)
        first = dataset.train.session == 0
        np.testing.assert_array_equal(source.deployed(dataset).labels["label"], dataset.train.labels["label"][first])
    else:
        assert dataset.raw is None, "no piece fits the arrays of everyone"


def test_a_recording_without_markers_gives_no_trials_and_does_no_harm(tmp_path):
    write_recording(tmp_path / "a.edf", 0, n_trials=0)
    write_recording(tmp_path / "b.edf", 1)
    half = {"stream": [{"step": "resample", "sfreq": 50.0}]}
    source = opened(tmp_path, subjects={"s": ["a.edf", "b.edf"]}, conditioning=half)
    dataset = source.dataset(source.sessions)
    assert dataset.train.x.shape == (8, 40, 4)
    assert dataset.train.sfreq == 50.0
    assert set(dataset.train.session) == {1}
    piece = source.deployed(dataset, "s")
    assert piece.raw is not None
    assert dataset.raw is not None
    np.testing.assert_array_equal(piece.raw, dataset.raw)
    assert len(piece.windows) == 8


def test_a_piece_that_would_last_for_minutes_is_left_out(tmp_path):
    path = tmp_path / "b.edf"
    x = np.random.default_rng(0).standard_normal((2, 250 * SFREQ))
    notes = [edfio.EdfAnnotation(at, 0, "img/2") for at in (200.0, 210.0)]
    signals = [
        edfio.EdfSignal(row, SFREQ, label=f"EEG C{n}", physical_dimension="uV", physical_range=(-200, 200))
        for n, row in enumerate(x)
    ]
    edfio.Edf(signals, annotations=notes).write(path)
    source = opened(tmp_path, subjects={"s": ["b.edf"]}, labels={"even": ["img/2"]}, conditioning={})
    dataset = source.dataset(["b.edf"])
    assert len(dataset.train) == 2
    assert dataset.raw is None
    assert source.deployed(dataset).raw is None


def test_stimuli_are_named_by_markers(folder):
    stimuli = {
        "names": "names.json",
        "embeddings": {"image": "clip.npy"},
        "captions": "names.json",
        "marker": "img/{name}",
    }
    source = opened(folder, labels={}, stimuli=stimuli)
    dataset = source.dataset(["s1_a.edf"])
    assert dataset.train.item is not None
    assert dataset.train.item.tolist() == [0, 1, 2, 3] * 2
    assert dataset.train.gallery is not None
    assert dataset.train.gallery.captions[2] == "a picture of 2"
    assert dataset.markers == {str(n): (f"img/{n}",) for n in range(4)}
    assert dataset.train.labels == {}
    (folder / "three.txt").write_text("0\n1\n3\n")
    fewer = opened(folder, labels={}, stimuli={"names": "three.txt", "marker": "img/{name}"}).dataset(["s1_a.edf"])
    assert len(fewer.train) == 6, "what is not in the gallery is no trial"
    both = opened(folder, stimuli=stimuli).dataset(["s1_a.edf"]).train
    assert both.labels["label"].tolist() == [0, 1] * 4
    assert both.item is not None


def test_sliding_windows_need_no_markers(folder):
    source = opened(folder, labels={}, window=None, sliding={"length": 1.0, "hop": 0.5}, conditioning={})
    dataset = source.dataset(["s1_a.edf"])
    assert dataset.train.x.shape == (29, 100, 4)
    assert dataset.train.item is None
    x = dataset.train.x
    np.testing.assert_allclose(x[1:, :50], x[:-1, 50:], atol=1e-6)


def test_test_recordings_are_not_opened_before_they_are_asked_for(folder, tmp_path):
    for name in ("s1_a.edf", "s1_b.edf"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "s2_a.edf").write_bytes(b"damaged")
    source = opened(tmp_path)
    dataset = source.dataset(["s1_a.edf", "s1_b.edf"])
    assert len(dataset.train) == 16
    with pytest.raises(RecordingError, match=r"s2_a.edf"):
        source.test(["s2_a.edf"], dataset)


def test_held_out_trials_are_not_fitted_on(folder):
    """A share of the trials held out: the fitted numbers are those of the others' windows."""
    parts = split_data(Split(test=Held(by="trial", share=0.25)), opened(folder))
    test = parts.dataset.test
    assert test is not None
    assert len(parts.dataset.train) + len(test) == 24
    assert np.bincount(test.labels["label"]).tolist() == [3, 3]
    assert parts.dataset.raw is None
    whole = opened(folder).dataset(["s1_a.edf", "s1_b.edf", "s2_a.edf"])
    assert not np.array_equal(whole.arrays["alignment.npy"], parts.dataset.arrays["alignment.npy"])
    flat = parts.dataset.train.x.reshape(-1, 4).astype(float)
    assert abs(flat.std(axis=0) - 1).max() < 0.2


def test_a_bundles_windows_were_trained_on_and_lie_in_its_raw_piece(folder):
    source = opened(folder, stimuli={"names": "names.json", "marker": "img/{name}"})
    dataset = split_data(Split(test=Held(by="item", names=("0",))), source).dataset
    assert dataset.trained_on["s1_a.edf"].tolist() == [1, 2, 3, 5, 6, 7]
    for subject, session in (("s1", 0), ("s2", 2)):
        piece = source.deployed(dataset, subject)
        mine = dataset.train.session == session
        np.testing.assert_array_equal(piece.windows, dataset.train.x[mine])
        np.testing.assert_array_equal(piece.labels["label"], dataset.train.labels["label"][mine])
        assert piece.raw_starts == (40 + 150, 40 + 300)
        assert piece.raw is not None
        assert len(piece.raw) >= 40 + 300 + 80


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"subjects": {"s1": ["gone.edf"]}}, RecordingError, r"gone.edf does not exist; is the data folder right"),
        ({"subjects": {"s1": ["s1_*.edf"], "x": ["s1_a.edf"]}}, ConfigError, r"x names s1_a.edf again, which is s1's"),
        ({"subjects": {}}, ConfigError, r"names no file"),
        ({"labels": {}}, ConfigError, r"neither `labels` nor `stimuli` name any"),
        ({"window": None}, ConfigError, r"needs one of `window` .* and `sliding`"),
        ({"sliding": {"length": 1, "hop": 1}}, ConfigError, r"needs one of `window`"),
        ({"window": None, "sliding": {"length": 1, "hop": 1}}, ConfigError, r"`sliding` windows, which have no"),
        ({"window": {"tmin": 1.0, "tmax": 0.5}}, ConfigError, r"window: tmax must lie after tmin"),
        ({"channels": ["EEG F*"]}, ConfigError, r"'EEG F\*' matches no data channel of recording:s1_a.edf"),
        ({"labels": {"a": ["img/*"], "b": ["none"]}}, RecordingError, r"label 'b' \(markers none\) has no usable"),
        ({"window": {"tmin": 0.0, "tmax": 60.0}}, RecordingError, r"no usable window; .* were due but unusable"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(folder, changes, error, says):
    def read():
        source = opened(folder, **changes)
        source.dataset(source.sessions)

    with pytest.raises(error, match=says):
        read()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "tape"}, r"\[data\]: Invalid value 'tape' - at `\$.kind`"),
        ({"fit": {"shrinkage": 2.0}}, r"shrinkage is 2.0; expected a share from 0 to 1 - at `\$.fit`"),
        ({"fit": {"whitening": "zca"}}, r"zca"),
        ({"recordings": []}, r"unknown field `recordings`"),
        ({"triggers": [{"channel": "STI", "bits": 8}]}, r"unknown field `bits` - at `\$.triggers\[0\]`"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        parse_data(table(**changes))


def test_a_file_with_other_channels_is_refused(folder, tmp_path):
    write_recording(tmp_path / "a.edf", 0)
    write_recording(tmp_path / "b.edf", 0, names=("C3", "Cz", "C4", "Oz"))
    source = opened(tmp_path, subjects={"s": ["a.edf", "b.edf"]})
    with pytest.raises(ContractError, match=r"(?s)b.edf is unlike the first .* in data.channels.*(Oz|Pz)"):
        source.dataset(source.sessions)
    common = opened(tmp_path, subjects={"s": ["a.edf", "b.edf"]}, channels=["EEG C*"])
    assert common.dataset(common.sessions).train.x.shape == (16, 80, 3)


def test_what_files_leave_open_is_declared(tmp_path):
    write_recording(tmp_path / "a.edf", 0, unit="")
    write_recording(tmp_path / "b.edf", 0)
    told = opened(tmp_path, subjects={"s": ["a.edf"]}, declare={"unit": "uV"})
    known = opened(tmp_path, subjects={"s": ["b.edf"]})
    assert told.dataset(["a.edf"]).train.x.tobytes() == known.dataset(["b.edf"]).train.x.tobytes()


def test_trigger_channels_become_markers(shared_data):
    """An Elekta recording of 80 s: its own codes are what the labels name."""
    codes = {"kind": "recordings", "subjects": {"s": ["test_elekta_3ch_raw.fif"]}, "window": {"tmin": 0.0, "tmax": 0.2}}
    mne = pytest.importorskip("mne", reason="FIF is read through MNE: pip install rtdecode[files]")
    raw = mne.io.read_raw_fif(shared_data / "meg" / "misc" / "test_elekta_3ch_raw.fif", verbose="error")
    events = mne.find_events(raw, "STI101", min_duration=0.01, verbose="error")
    code = str(np.bincount(events[:, 2]).argmax())
    table = codes | {
        "labels": {"it": [code], "other": ["*"]},
        "triggers": [{"channel": "STI101", "debounce_s": 0.01}],
        "fit": {"whitening": "none"},
    }
    source = open_source(parse_data(table), shared_data / "meg" / "misc")
    train = source.dataset(source.sessions).train
    assert (train.labels["label"] == 0).sum() == (events[:, 2] == int(code)).sum() > 10


def test_what_is_remembered_is_what_fits():
    made = []

    def make(n):
        made.append(n)
        return np.zeros(n, np.uint8)

    kept: Remembered[np.ndarray] = Remembered(100, lambda x: x.nbytes)
    for n in (40, 41, 40, 42, 40, 41, 200, 40, 42):
        kept.get(n, partial(make, n))
    assert made == [40, 41, 42, 41, 200, 42], "the one used longest ago goes first; one too large is never kept"


def test_positions_come_with_the_data(folder):
    positions = opened(folder).dataset(["s1_a.edf"]).positions
    assert positions is not None
    c3, cz, c4, pz = positions
    assert c3[0] < cz[0] < c4[0]
    assert pz[1] < cz[1]


def test_the_examples_of_the_page_are_recipes():
    text = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE)]
    tables = [tomllib.loads(block) for block in blocks if "[data]" in block or "[split]" in block]
    assert len(tables) == 3
    for table in tables:
        if "data" in table:
            parse_data(table["data"])
        if "split" in table:
            msgspec.convert(table["split"], Split)
