"""Windows that were cut elsewhere: plain arrays, THINGS-EEG2 as published, MNE epochs; and what is fitted on them."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from rtdecode.errors import ConfigError
from rtdecode.stream.fit import mvnn
from rtdecode.stream.steps import Matrix, Resample, Scale
from rtdecode_models.data.shape import shape_of
from rtdecode_models.data.splits import Held, Split, split_data
from rtdecode_models.training.open import open_source, parse_data

CHANNELS = ["O1", "Oz", "O2"]
N_TIMES = 20


def noise(seed, n):
    rng = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0.5, 0.2], [0.0, 1.0, 0.4], [0.0, 0.0, 2.0]]) * 1e-5
    return np.einsum("nct,cd->ndt", rng.standard_normal((n, 3, N_TIMES)), mixing)


@pytest.fixture
def folder(tmp_path):
    """Two people, two sessions each, in every format; labels as numbers and as names."""
    np.save(tmp_path / "a1.npy", noise(1, 12))
    np.savez(tmp_path / "a2.npz", windows=noise(2, 12), colour=np.array(["red", "blue"] * 6), other=np.zeros(2))
    save_file({"windows": noise(3, 12), "rows": np.arange(12) % 4}, tmp_path / "b.safetensors")
    np.save(tmp_path / "kind.npy", np.arange(12) % 2)
    np.save(tmp_path / "colour.npy", np.array(["blue", "red"] * 6))
    np.save(tmp_path / "items.npy", np.array(["cat", "dog", "cup", "hat"] * 3))
    np.save(tmp_path / "clip.npy", np.eye(4, 6, dtype=np.float64))
    np.save(tmp_path / "clip_blurred.npy", np.eye(4, 6, dtype=np.float32) / 2)
    (tmp_path / "names.txt").write_text("cat\ndog\ncup\nhat\n")
    return tmp_path


def sessions():
    labels = {"kind": "kind.npy", "colour": "colour.npy"}
    return [
        {"name": "a1", "subject": "a", "windows": "a1.npy", "labels": labels, "items": "items.npy"},
        {
            "name": "a2",
            "subject": "a",
            "windows": "a2.npz",
            "labels": labels | {"colour": "a2.npz:colour"},
            "items": "items.npy",
        },
        {
            "name": "b1",
            "subject": "b",
            "windows": "b.safetensors",
            "labels": labels,
            "items": "b.safetensors:rows",
            "test": True,
        },
    ]


def table(**changes):
    return {
        "kind": "arrays",
        "sessions": sessions(),
        "signal": {"channels": CHANNELS, "type": "eeg", "unit": "V", "sfreq": 100.0},
        "tmin": 0.0,
        "tmax": 0.2,
        "classes": {"kind": ["animal", "thing"], "colour": ["red", "blue"]},
        "stimuli": {
            "names": "names.txt",
            "embeddings": {"image": "clip.npy", "image_blurred": ["clip.npy", "clip_blurred.npy"]},
        },
        **changes,
    }


def opened(folder, **changes):
    return open_source(parse_data(table(**changes)), folder)


def test_arrays_of_every_format_become_trials(folder):
    parts = split_data(Split(), opened(folder))
    train, test = parts.dataset.train, parts.dataset.test
    assert test is not None
    assert train.sessions == ("a1", "a2")
    assert test.sessions == ("b1",)
    assert (train.subjects, test.subjects) == (("a",), ("a", "b"))
    assert set(test.subject) == {1}
    np.testing.assert_array_equal(train.x[:12], noise(1, 12).transpose(0, 2, 1).astype(np.float32))
    np.testing.assert_array_equal(test.x, noise(3, 12).transpose(0, 2, 1).astype(np.float32))
    assert train.labels["kind"].tolist() == [0, 1] * 12
    assert train.labels["colour"].tolist() == [1, 0] * 6 + [0, 1] * 6
    assert train.item is not None
    assert train.item.tolist() == [0, 1, 2, 3] * 6
    assert test.item is not None
    assert test.item.tolist() == [0, 1, 2, 3] * 3
    assert train.gallery is not None
    assert train.gallery.names == ("cat", "dog", "cup", "hat")
    assert train.gallery.embeddings["image_blurred"].shape == (4, 2, 6)
    assert train.gallery.embeddings["image"].dtype == np.float32
    shape = shape_of(parts.dataset)
    assert (shape.n_times, shape.n_channels, shape.sfreq, shape.n_subjects) == (20, 3, 100.0, 1)
    assert shape.classes == {"kind": 2, "colour": 2}
    assert shape.targets == {"image": (6,), "image_blurred": (2, 6)}
    assert shape.channels == tuple(CHANNELS)
    assert set(parts.dataset.provenance["files"]) == {"a1.npy", "a2.npz", "kind.npy", "colour.npy", "items.npy"}


def test_classes_may_have_markers_for_the_bundles_head(folder):
    marked = opened(folder, markers={"animal": ["a/*"], "thing": ["t1", "t2"]}).dataset(["a1"])
    assert marked.window.markers == ("a/*", "t1", "t2")
    assert marked.markers == {"animal": ("a/*",), "thing": ("t1", "t2")}
    assert opened(folder).dataset(["a1"]).window.markers == ("*",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"signal": {"channels": ["O1", "O1", "O2"], "type": "eeg", "unit": "V", "sfreq": 100.0}}, "'O1' twice"),
        ({"signal": {"channels": CHANNELS, "type": "egg", "unit": "V", "sfreq": 100.0}}, "type 'egg'"),
        ({"signal": {"channels": CHANNELS, "type": "eeg", "unit": "furlong", "sfreq": 100.0}}, "unit 'furlong'"),
        ({"signal": {"channels": CHANNELS, "type": "eeg", "unit": "uV", "sfreq": 100.0}}, "unit 'uV'; expected 'V'"),
        ({"classes": {"kind": ["animal", "animal"], "colour": ["red", "blue"]}}, "data.classes.kind is"),
        ({"classes": {"kind": ["animal"], "colour": ["red", "blue"]}}, "two or more names"),
        ({"markers": {"vegetable": ["v"]}}, "names 'vegetable', which is no class"),
    ],
)
def test_what_no_stream_could_meet_is_found_before_training(folder, changes, says):
    with pytest.raises(ConfigError, match=says):
        opened(folder, **changes)


def test_time_first_is_the_same_windows(folder):
    np.save(folder / "a1.npy", noise(1, 12).transpose(0, 2, 1))
    other = opened(folder, layout="time_first").dataset(["a1"])
    np.testing.assert_array_equal(other.train.x, noise(1, 12).transpose(0, 2, 1).astype(np.float32))


def test_mvnn_whitens_conditions_alike_and_is_a_step_of_the_bundle(folder):
    source = opened(folder, fit={"whitening": "mvnn", "scaling": "standard"})
    dataset = source.dataset(["a1", "a2"])
    assert dataset.conditioning.stream == (
        Matrix(array="mvnn.npy", kind="mvnn"),
        Scale(center="train_mean.npy", scale="train_std.npy"),
    )
    plain = opened(folder).dataset(["a1", "a2"]).train
    expected = mvnn(plain.x, [0, 1, 2, 3] * 6)
    np.testing.assert_array_equal(dataset.arrays["mvnn.npy"], expected)
    flat = dataset.train.x.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(flat.std(axis=0), 1, atol=1e-4)
    whitened = plain.x.reshape(-1, 3) @ expected.T
    np.testing.assert_allclose(whitened.std(axis=0), 1, atol=0.15)
    # Twenty samples are few: Ledoit and Wolf leave a part of the correlation.
    before, after = (np.corrcoef(x.T)[0, 1] for x in (plain.x.reshape(-1, 3), whitened))
    assert abs(after) < 0.8 * before


def test_each_session_has_its_own_numbers_and_one_to_come_its_subjects(folder):
    spec = {"whitening": "euclidean_alignment", "shrinkage": 0.0, "scaling": "none", "per": "session"}
    listed = sessions()
    listed[2]["test"] = False
    source = opened(folder, fit=spec, sessions=listed)
    dataset = source.dataset(["a1", "b1"])

    def covariance(x):
        x = x.astype(float)
        return np.einsum("ntc,ntd->cd", x, x) / (x.shape[0] * x.shape[1])

    for name in range(2):
        np.testing.assert_allclose(covariance(dataset.train.x[dataset.train.session == name]), np.eye(3), atol=1e-4)
    own, pooled = dataset.session_arrays["a1"]["alignment.npy"], dataset.arrays["alignment.npy"]
    assert not np.allclose(own, pooled, rtol=1e-3)
    np.testing.assert_array_equal(own, dataset.subject_arrays["a"]["alignment.npy"])
    # A later session of the same person is whitened by what was known of the person before it.
    later = source.test(["a2"], dataset).x
    plain = opened(folder, sessions=listed).dataset(["a2"]).train.x
    np.testing.assert_allclose(later, plain @ own.T, rtol=1e-5, atol=1e-6)
    deployed = source.deployed(dataset, "b")
    np.testing.assert_array_equal(deployed.arrays["alignment.npy"], dataset.subject_arrays["b"]["alignment.npy"])
    np.testing.assert_array_equal(deployed.windows, dataset.train.x[dataset.train.session == 1])
    stranger = opened(folder, fit=spec).dataset(["a1"])
    assert opened(folder, fit=spec).test(["b1"], stranger).subjects == ("a", "b")
    with pytest.raises(ConfigError, match="no training session is of 'z'; there are a, b"):
        source.deployed(dataset, "z")


def test_window_steps_come_after_the_fitted_ones_as_live(folder):
    """Scaled by numbers without the windows' own offsets, then brought to its baseline, then limited."""
    steps = {"window": [{"step": "baseline", "tmin": 0.0, "tmax": 0.1}, {"step": "clamp", "limit": 1.5}]}
    np.save(folder / "a1.npy", noise(1, 12) + 1e-3 * np.arange(12)[:, None, None])
    dataset = opened(folder, conditioning=steps, fit={"whitening": "none", "scaling": "standard"}).dataset(["a1"])
    x = dataset.train.x
    assert x.max() == 1.5
    assert np.median(np.abs(x)) > 0.3, "the offsets of windows would have made the scale a hundred times larger"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tmax": -0.3}, r"\[data\] tmax must lie after tmin"),
        ({"tmax": 0.3}, r"session 'a1' holds windows of 20 samples and 3 channels; .* give 30 samples \(100 Hz\)"),
        ({"signal": {"channels": ["O1"], "type": "eeg", "unit": "V", "sfreq": 100.0}}, r"and 1 channels"),
        ({"conditioning": {"stream": [{"step": "resample", "sfreq": 50.0}]}}, r"give 10 samples \(50 Hz\)"),
        ({"fit": {"whitening": "running_alignment"}}, r"follows a stream, and these data are windows"),
        ({"classes": {"kind": ["x", "y"]}}, r"has the labels \['colour', 'kind'\]; data.classes names .*\['kind'\]"),
        ({"classes": {"kind": ["x"], "colour": ["red", "blue"]}}, r"data.classes.kind is .*two or more names"),
        ({"classes": {"kind": ["x", "y"], "colour": ["red", "b"]}}, r"labels.colour names 'blue', which is none"),
        ({"stimuli": None}, r"data.sessions 'a1': `items` and data.stimuli go together"),
        ({"stimuli": {"names": "kind.npy"}}, r"names of stimuli .*kind.npy cannot be read"),
        ({"stimuli": {"embeddings": {"image": "clip.pt"}}}, r"clip.pt ends in '.pt'; expected one of .npy, .npz"),
        ({"stimuli": {"names": "names.txt", "embeddings": {"image": "kind.npy"}}}, r"shape \(12,\); expected"),
        ({"stimuli": {"names": "names.txt", "embeddings": {"image": "a1.npy"}}}, r"has 12 rows for 4 names"),
        ({"stimuli": {}}, r"neither `names` nor `embeddings` are given"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(folder, changes, says):
    def read():
        opened(folder, **changes).dataset(["a1"])

    with pytest.raises(ConfigError, match=says):
        read()


def test_files_that_are_damaged_or_wrong_are_named(folder):
    (folder / "a1.npy").write_bytes((folder / "a1.npy").read_bytes()[:200])
    source = opened(folder)
    with pytest.raises(ConfigError, match=r"'a1': .*a1.npy cannot be read .*; expected plain arrays, no pickles"):
        source.dataset(["a1"])
    np.save(folder / "a1.npy", np.array([{"x": 1}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"a1.npy cannot be read .*no pickles"):
        source.dataset(["a1"])
    spoiled = noise(1, 12)
    spoiled[3, 1, 2] = np.nan
    np.save(folder / "a1.npy", spoiled)
    with pytest.raises(ConfigError, match=r"session 'a1': window 3 \(and 0 more\) holds numbers not finite"):
        source.dataset(["a1"])
    with pytest.raises(ConfigError, match=r"a2.npz holds no array 'x'; there are windows, colour, other"):
        opened(folder, sessions=[sessions()[1] | {"windows": "a2.npz:x"}]).dataset(["a2"])
    with pytest.raises(ConfigError, match=r"'a1': .*gone.npy does not exist"):
        opened(folder, sessions=[sessions()[0] | {"windows": "gone.npy"}])


# --- THINGS-EEG2 ------------------------------------------------------------------------------------------------------

THINGS_CHANNELS = ["Pz", "O1", "Oz", "O2"]
TIMES = np.round(np.arange(-20, 100) / 100, 3)


def things_data(seed, conditions, repetitions):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((conditions, repetitions, len(THINGS_CHANNELS), len(TIMES)))


@pytest.fixture
def things(tmp_path):
    for seed, subject in enumerate(("sub-01", "sub-02")):
        (tmp_path / subject).mkdir()
        for part, conditions, repetitions in (("training", 6, 4), ("test", 3, 8)):
            value = {
                "preprocessed_eeg_data": things_data(seed, conditions, repetitions),
                "ch_names": THINGS_CHANNELS,
                "times": TIMES,
            }
            np.save(tmp_path / subject / f"preprocessed_eeg_{part}.npy", value, allow_pickle=True)  # type: ignore[arg-type]
    np.save(tmp_path / "train_clip.npy", np.eye(6, 5))
    np.save(tmp_path / "test_clip.npy", np.eye(3, 5))
    (tmp_path / "train.txt").write_text("\n".join(f"{n:05d}_thing/thing_{n}" for n in range(6)))
    (tmp_path / "test.txt").write_text("\n".join(f"{n:05d}_other/other_{n}" for n in range(3)))
    return tmp_path


def things_table(**changes):
    return {
        "kind": "things_eeg2",
        "training_stimuli": {"names": "train.txt", "embeddings": {"image": "train_clip.npy"}},
        "test_stimuli": {"names": "test.txt", "embeddings": {"image": "test_clip.npy"}},
        **changes,
    }


def test_things_eeg2_apart_and_averaged(things):
    source = open_source(parse_data(things_table(test_repetitions="averaged")), things)
    assert source.sessions == ("sub-01/training", "sub-01/test", "sub-02/training", "sub-02/test")
    parts = split_data(Split(unseen_items=True), source)
    train, test = parts.dataset.train, parts.dataset.test
    assert test is not None
    assert train.item is not None
    assert test.item is not None
    assert (train.gallery, test.gallery) != (None, None)
    assert train.x.shape == (2 * 24, 100, 4)
    assert test.x.shape == (2 * 3, 100, 4)
    np.testing.assert_array_equal(train.item[:9], [0, 0, 0, 0, 1, 1, 1, 1, 2])
    given_data = things_data(0, 6, 4)
    np.testing.assert_array_equal(train.x[5], given_data[1, 1, :, 20:].T.astype(np.float32))
    expected = things_data(1, 3, 8)[2].mean(axis=0)[:, 20:].T
    np.testing.assert_allclose(test.x[5], expected, rtol=1e-5, atol=1e-6)
    assert test.subjects[test.subject[5]] == "sub-02"
    assert parts.dataset.conditioning.stream == (Resample(sfreq=100.0),)
    assert parts.dataset.contract.sfreq == 1000.0
    assert shape_of(parts.dataset).targets == {"image": (5,)}


def test_things_eeg2_single_trials_beside_averages(things):
    """Averaging is not possible live: the single presentations are there to be scored too."""
    apart = open_source(parse_data(things_table()), things)
    dataset = apart.dataset(["sub-01/training"])
    single = apart.test(["sub-01/test"], dataset)
    averaged = open_source(parse_data(things_table(test_repetitions="averaged")), things).test(["sub-01/test"], dataset)
    assert len(single) == 8 * len(averaged) == 24
    np.testing.assert_allclose(single.x.reshape(3, 8, 100, 4).mean(axis=1), averaged.x, atol=1e-6)


def test_things_eeg2_leaves_one_subject_out(things):
    source = open_source(parse_data(things_table()), things)
    parts = split_data(Split(test=Held(by="subject", names=("sub-02",))), source)
    assert parts.sessions.train == ("sub-01/training",)
    assert parts.sessions.test == ("sub-02/test",)
    assert parts.sessions.unused == ("sub-01/test", "sub-02/training")


def test_things_eeg2_channels_times_and_whitening(things):
    changes = {"channels": ["O2", "Pz"], "tmin": -0.2, "tmax": 0.3, "fit": {"whitening": "mvnn", "per": "session"}}
    source = open_source(parse_data(things_table(**changes)), things)
    dataset = source.dataset(["sub-01/training", "sub-02/training"])
    assert dataset.train.x.shape == (48, 50, 2)
    assert dataset.arrays["mvnn.npy"].shape == (2, 2)
    assert set(dataset.session_arrays) == {"sub-01/training", "sub-02/training"}
    assert [channel.name for channel in dataset.contract.channels] == ["O2", "Pz"]


def test_things_eeg2_without_galleries_numbers_them(things):
    source = open_source(parse_data({"kind": "things_eeg2", "subjects": ["sub-01"]}), things)
    train = source.dataset(["sub-01/training"]).train
    assert train.gallery is not None
    assert train.gallery.names == tuple(f"training/{n:05d}" for n in range(1, 7))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"subjects": ["sub-09"]}, r"sub-09.preprocessed_eeg_training.npy does not exist"),
        ({"channels": ["Fz"]}, r"has no channel 'Fz'; it has Pz, O1, Oz, O2"),
        ({"tmax": 2.0}, r"spans -0.2 to 0.99 s; data.tmin and tmax ask for 0 to 2 s"),
        ({"training_stimuli": {"names": "test.txt"}}, r"has 6 conditions for 3 stimuli"),
        ({"root": "nothing"}, r"nothing has no folder sub-01"),
    ],
)
def test_things_eeg2_that_does_not_fit_is_named(things, changes, says):
    def read():
        open_source(parse_data(things_table(**changes)), things).dataset(["sub-01/training"])

    with pytest.raises(ConfigError, match=says):
        read()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"eeg": np.zeros(3)}, r"is no dictionary with preprocessed_eeg_data, ch_names and times"),
        (
            {"preprocessed_eeg_data": np.zeros((2, 3, 4)), "ch_names": THINGS_CHANNELS, "times": TIMES},
            r"float64 of shape \(2, 3, 4\), for 4 channels and 120 times",
        ),
        (
            {"preprocessed_eeg_data": np.zeros((2, 3, 4, 2)), "ch_names": THINGS_CHANNELS, "times": [0, 0]},
            r"times are not evenly spaced",
        ),
    ],
)
def test_a_file_of_another_layout_is_refused(things, value, says):
    np.save(things / "sub-01" / "preprocessed_eeg_test.npy", value, allow_pickle=True)
    with pytest.raises(ConfigError, match=says):
        open_source(parse_data(things_table()), things)


# --- MNE epochs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def meg(tmp_path_factory):
    """Two people's epochs as THINGS-MEG has them: experimental, test and catch trials, sessions, image names."""
    mne = pytest.importorskip("mne", reason="epochs are read through MNE: pip install rtdecode[files]")
    folder = tmp_path_factory.mktemp("meg")
    for seed, subject in enumerate(("P1", "P2")):
        info = mne.create_info(["MEG 0113", "MEG 0112", "MEG 0111", "STI 014"], 200.0, ["grad", "grad", "mag", "stim"])
        x = np.random.default_rng(seed).standard_normal((12, 4, 61)) * 1e-12
        events = np.c_[np.arange(12) * 100, np.zeros(12, int), np.ones(12, int)]
        epochs = mne.EpochsArray(x, info, events, tmin=-0.1, verbose="error")
        kinds = ["exp", "exp", "test", "exp", "exp", "catch"] * 2
        epochs.metadata = [
            {
                "trial_type": kind,
                "session_nr": 1.0 + (n >= 6),
                "image_path": f"img/{'test' if kind == 'test' else 'exp'}_{n % 3}.jpg",
                "category_nr": 10 - n % 3,
            }
            for n, kind in enumerate(kinds)
        ]
        epochs.save(folder / f"{subject}-epo.fif", verbose="error")
    return folder


def meg_table(**changes):
    return {
        "kind": "epochs",
        "subjects": {"P1": "P1-epo.fif", "P2": "P2-epo.fif"},
        "sfreq": 1200.0,
        "conditioning": {"stream": [{"step": "resample", "sfreq": 200.0}]},
        "tmin": 0.0,
        "tmax": 0.2,
        "session_column": "session_nr",
        "item_column": "image_path",
        "label_columns": {"category": "category_nr"},
        "test_column": "trial_type",
        "test_values": ["test"],
        "leave_out": {"trial_type": ["catch"]},
        **changes,
    }


def test_epochs_become_sessions_by_their_metadata(meg):
    source = open_source(parse_data(meg_table()), meg)
    assert source.sessions == ("P1/1", "P1/1/test", "P1/2", "P1/2/test", "P2/1", "P2/1/test", "P2/2", "P2/2/test")
    parts = split_data(Split(unseen_items=True), source)
    train, test = parts.dataset.train, parts.dataset.test
    assert test is not None
    assert train.x.shape == (16, 40, 3)
    assert test.x.shape == (4, 40, 3)
    assert train.classes == {"category": ("8", "9", "10")}
    assert train.labels["category"].tolist() == [2, 1, 2, 1] * 4
    assert train.gallery is not None
    assert train.item is not None
    assert [train.gallery.names[row] for row in train.item[:4]] == [f"img/exp_{n}.jpg" for n in (0, 1, 0, 1)]
    channels = [(channel.name, channel.type, channel.unit) for channel in parts.dataset.contract.channels]
    assert channels == [("MEG 0113", "grad", "T/m"), ("MEG 0112", "grad", "T/m"), ("MEG 0111", "mag", "T")]
    raw = np.random.default_rng(0).standard_normal((12, 4, 61)) * 1e-12
    np.testing.assert_allclose(train.x[1], raw[1, :3, 20:60].T, rtol=1e-5, atol=1e-18)
    mags = open_source(parse_data(meg_table(channel_types=["mag"])), meg).dataset(["P1/1"])
    assert mags.train.x.shape == (4, 40, 1)
    assert parts.dataset.positions is not None
    assert ((parts.dataset.positions >= 0) & (parts.dataset.positions <= 1)).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"item_column": "image"}, r"P1-epo.fif have no column 'image'; they have trial_type, session_nr, image_path"),
        ({"tmax": 1.0}, r"spans -0.1 to 0.2 s; data.tmin and tmax ask for 0 to 1 s"),
        ({"conditioning": {}}, r"give 240 samples \(1200 Hz\)"),
        ({"channel_types": ["eeg"]}, r"has no channel of type eeg"),
        ({"subjects": {"P1": "P3-epo.fif"}}, r"P3-epo.fif does not exist"),
        ({"test_values": []}, r"test_column and test_values go together"),
        ({"item_column": "", "stimuli": {"names": "x"}}, r"no item_column says which epoch shows which"),
    ],
)
def test_epochs_that_do_not_fit_are_named(meg, changes, says):
    def read():
        open_source(parse_data(meg_table(**changes)), meg).dataset(["P1/1"])

    with pytest.raises(ConfigError, match=says):
        read()


def test_a_file_that_is_no_epochs(meg, tmp_path):
    (tmp_path / "P1-epo.fif").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"P1-epo.fif cannot be read as epochs"):
        open_source(parse_data(meg_table(subjects={"P1": "P1-epo.fif"})), tmp_path)
