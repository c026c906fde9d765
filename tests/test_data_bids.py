"""BIDS data sets, as MNE-BIDS writes them and as published: samples, units, types, markers, places."""

import shutil

import numpy as np
import pytest

mne = pytest.importorskip("mne", reason="BIDS data sets are read through MNE: pip install rtdecode[files]")
mne_bids = pytest.importorskip("mne_bids", reason="the tests write BIDS data sets: pip install rtdecode[bids]")
pytest.importorskip("pybv", reason="the tests write BrainVision files: pip install rtdecode[bids]")

from rtdecode.errors import ConfigError, RecordingError  # noqa: E402
from rtdecode_models.data.bids import name_of, read_run, sidecar  # noqa: E402
from rtdecode_models.data.helmets import read_helmet  # noqa: E402
from rtdecode_models.data.splits import Held, Split, split_data  # noqa: E402
from rtdecode_models.training.open import open_source, parse_data  # noqa: E402

SFREQ = 200.0
NAMES = ["C3", "Cz", "C4", "VEOG", "Pz"]


def write_run(root, subject, session, run, seed, bads=(), datatype="eeg"):
    """Noise of 20 uV, a marker every second; C3 swings after ``left``, C4 after ``right``."""
    rng = np.random.default_rng(seed)
    kind = {"eeg": "eeg", "ieeg": "seeg"}[datatype]
    types = [kind, kind, kind, "eog", kind]
    info = mne.create_info(NAMES, SFREQ, types)
    x = 2e-5 * rng.standard_normal((5, int(12 * SFREQ)))
    onsets = np.arange(1, 11) + 0.005
    for n, onset in enumerate(onsets):
        at = round(onset * SFREQ)
        x[2 * (n % 2), at : at + 100] += 1e-4
    raw = mne.io.RawArray(x, info, verbose="error")
    raw.info["line_freq"] = 50
    raw.info["bads"] = list(bads)
    where = {name: [0.01 * n, 0.02, 0.09] for n, name in enumerate(NAMES) if name != "VEOG"}
    frame = "head" if datatype == "eeg" else "mri"
    extra = {"nasion": [0, 0.1, 0], "lpa": [-0.08, 0, 0], "rpa": [0.08, 0, 0]} if datatype == "eeg" else {}
    raw.set_montage(
        mne.channels.make_dig_montage(where, coord_frame=frame, **extra), on_missing="ignore", verbose="error"
    )
    raw.set_annotations(mne.Annotations(onsets, 0.0, ["left", "right"] * 5))
    path = mne_bids.BIDSPath(
        root=root, subject=subject, session=session, run=run, task="hands", datatype=datatype, suffix=datatype
    )
    mne_bids.write_raw_bids(raw, path, allow_preload=True, format="BrainVision", overwrite=True, verbose="error")
    return path.fpath, raw


RUNS = [("01", "a", "1"), ("01", "a", "2"), ("01", "b", "1"), ("02", "a", "1")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bids")
    for seed, (subject, session, run) in enumerate(RUNS):
        write_run(folder, subject, session, run, seed, bads=["Pz"] if (subject, run) == ("01", "2") else [])
    return folder


def table(**changes):
    return {
        "kind": "bids",
        "datatype": "eeg",
        "task": "hands",
        "labels": {"left": ["left"], "right": ["right"]},
        "window": {"tmin": 0.0, "tmax": 0.5},
        "conditioning": {"stream": [{"step": "filter", "high": 40.0}]},
        "fit": {"whitening": "none"},
        **changes,
    }


def opened(root, **changes):
    return open_source(parse_data(table(**changes)), root)


def samples_of(recording):
    return np.concatenate([batch.chunk.samples for batch in recording.batches if batch.chunk is not None])


def markers_of(recording):
    return [(marker.stamp, marker.value) for batch in recording.batches for marker in batch.markers]


@pytest.mark.parametrize("datatype", ["eeg", "ieeg"])
def test_a_run_is_what_mne_bids_reads(tmp_path, datatype):
    path, raw = write_run(tmp_path, "01", "a", "1", 5, ["Pz"], datatype)
    recording = read_run(tmp_path, path, "trial_type")
    theirs = mne_bids.read_raw_bids(mne_bids.get_bids_path_from_fname(path, verbose="error"), verbose="error")
    assert list(recording.info.names) == theirs.ch_names
    assert [channel.type for channel in recording.info.channels] == theirs.get_channel_types()
    assert {channel.unit for channel in recording.info.channels} == {"V"}
    np.testing.assert_allclose(samples_of(recording), theirs.get_data().T, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(samples_of(recording), raw.get_data().T, atol=1e-7)
    notes = theirs.annotations
    expected = [(float(onset), str(text)) for onset, text in zip(notes.onset, notes.description, strict=True)]
    assert len(expected) == 10
    for (stamp, value), (onset, text) in zip(markers_of(recording), expected, strict=True):
        assert value == text
        assert stamp == pytest.approx(onset, abs=1e-6)
    if datatype == "eeg":
        places = {channel.name: channel.position for channel in recording.info.channels}
        assert places["C4"] == pytest.approx((0.02, 0.02, 0.09))
        assert places["VEOG"] is None


def test_runs_become_sessions_of_subjects(root):
    source = opened(root)
    assert source.sessions == tuple(f"sub-{s}_ses-{d}_task-hands_run-{r}" for s, d, r in RUNS)
    assert source.subject_of("sub-02_ses-a_task-hands_run-1") == "sub-02"
    assert opened(root, subjects=["01"], sessions=["a"], runs=["2"]).sessions == ("sub-01_ses-a_task-hands_run-2",)
    with pytest.raises(
        ConfigError, match=r"no eeg run of task hands, subjects 07.*there are sub-01_ses-a_task-hands_run"
    ):
        opened(root, subjects=["07"])


def test_trials_by_trial_type_and_bad_channels_left_out(root):
    split = Split(test=Held(by="subject", names=("sub-02",)))
    parts = split_data(split, opened(root))
    train, test = parts.dataset.train, parts.dataset.test
    assert test is not None
    assert train.x.shape == (30, 100, 3), "Pz is bad in one training run"
    assert parts.dataset.channels == ("C3", "Cz", "C4")
    assert test.x.shape == (10, 100, 3)
    assert test.subjects == ("sub-01", "sub-02")
    assert set(test.subject) == {1}
    # C3 swings after "left", C4 after "right".
    swing = train.x[:, :, [0, 2]].mean(axis=1)
    assert (swing.argmax(axis=1) == train.labels["label"]).all()
    kept = split_data(split, opened(root, bad_channels="keep")).dataset
    assert kept.channels == ("C3", "Cz", "C4", "Pz")
    assert [channel.name for channel in parts.dataset.contract.channels] == list(kept.channels), (
        "the stream has them all"
    )


def test_events_are_markers_of_the_column_that_is_named(root):
    source = opened(root, event_column="value", labels={"one": ["1"], "two": ["2"]})
    assert source.dataset(source.sessions[:1]).train.labels["label"].tolist() == [0, 1] * 5
    broken = opened(root, event_column="stim")
    with pytest.raises(ConfigError, match=r"events.tsv has no column 'stim'; it has 'onset', 'duration', 'trial_type'"):
        broken.dataset(broken.sessions)


def changed(root, folder, name, edit):
    """A copy of the data set with one sidecar of its first run changed."""
    copy = shutil.copytree(root, folder / "copy")
    path = next(copy.glob(f"sub-01/ses-a/eeg/*run-1_{name}"))
    if edit is None:
        path.unlink()
    else:
        path.write_text(edit(path.read_text(encoding="utf-8-sig")), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("name", "edit", "error", "says"),
    [
        ("channels.tsv", lambda text: text.replace("C3\tEEG\t\u00b5V", "C3\tEEG\tfT"), RecordingError,
         r"'C3' is in V by the file, and in fT by channels.tsv"),
        ("channels.tsv", lambda text: text.replace("units", "unit"), ConfigError, "has no column 'units'"),
        ("channels.tsv", None, ConfigError, "run-1_eeg.vhdr has no channels.tsv"),
        ("events.tsv", None, ConfigError, "run-1_eeg.vhdr has no events.tsv"),
        ("events.tsv", lambda text: text.replace("1.005", "soon"), ConfigError, "the onset 'soon' is no number"),
        ("events.tsv", lambda text: text.replace("left", "n/a"), RecordingError, r"label 'left' \(markers left\)"),
    ],
)  # fmt: skip
def test_sidecars_that_are_wrong_are_named(root, tmp_path, name, edit, error, says):
    copy = changed(root, tmp_path, name, edit)

    def read():
        source = opened(copy, subjects=["01"], sessions=["a"], runs=["1"])
        source.dataset(source.sessions)

    with pytest.raises(error, match=says):
        read()


def test_a_coordinate_that_is_no_number_is_named(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    path = next(copy.glob("sub-01/ses-a/eeg/*electrodes.tsv"))
    head, first, *rest = path.read_text(encoding="utf-8-sig").splitlines()
    name, x, _, z = first.split("\t")[:4]
    path.write_text("\n".join([head, "\t".join([name, x, "1,5", z]), *rest]) + "\n", encoding="utf-8")
    source = opened(copy, subjects=["01"], sessions=["a"], runs=["1"])
    with pytest.raises(ConfigError, match=rf"electrodes.tsv: y of the electrode '{name}' is '1,5'; expected a number"):
        source.dataset(source.sessions)


def test_a_table_of_the_whole_task_applies_where_a_run_has_none(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    own = sorted(copy.glob("sub-*/ses-*/eeg/*_channels.tsv"))
    shutil.copy(own[0], copy / "task-hands_channels.tsv")
    own[3].unlink()
    run = next(copy.glob("sub-02/ses-a/eeg/*.vhdr"))
    assert sidecar(copy, run, "channels", ".tsv") == copy / "task-hands_channels.tsv"
    assert opened(copy, subjects=["02"]).dataset(["sub-02_ses-a_task-hands_run-1"]).train.x.shape == (10, 100, 4)
    (copy / "task-other_channels.tsv").write_text("nothing")
    assert sidecar(copy, run, "channels", ".tsv") == copy / "task-hands_channels.tsv"


def test_an_elekta_run_keeps_its_units_and_types(tmp_path, shared_data):
    raw = mne.io.read_raw_fif(shared_data / "mne_lsl" / "datasets_testing_sample_audvis_raw.fif", verbose="error")
    raw.info["line_freq"] = 60
    path = mne_bids.BIDSPath(root=tmp_path, subject="01", task="audvis", datatype="meg", suffix="meg")
    mne_bids.write_raw_bids(raw, path, overwrite=True, verbose="error")
    recording = read_run(tmp_path, path.fpath, "trial_type")
    given_channels = {channel.name: (channel.type, channel.unit) for channel in recording.info.channels}
    assert given_channels["MEG 0113"] == ("grad", "T/m")
    assert given_channels["MEG 0111"] == ("mag", "T")
    assert given_channels["EEG 001"] == ("eeg", "V")
    np.testing.assert_allclose(samples_of(recording)[:500], raw.get_data(stop=500).T.astype(np.float32), rtol=1e-6)


def test_a_published_ieeg_set(shared_data):
    """ECoG and a deep brain lead, in millimetres of a brain; no events, so windows all along."""
    spec = parse_data(
        {
            "kind": "bids",
            "root": "py_neuromodulation",
            "datatype": "ieeg",
            "sliding": {"length": 1.0, "hop": 0.5},
            "fit": {"scaling": "robust", "whitening": "none"},
        }
    )
    source = open_source(spec, shared_data / "ieeg")
    assert source.sessions == ("sub-testsub_ses-EphysMedOff_task-gripforce_run-0",)
    dataset = source.dataset(source.sessions)
    assert [(c.name, c.type, c.unit) for c in dataset.contract.channels] == [
        *((f"LFP_RIGHT_{n}", "dbs", "V") for n in range(3)),
        *((f"ECOG_RIGHT_{n}", "ecog", "V") for n in range(6)),
    ]
    assert dataset.train.x.shape == (37, 1000, 9)
    median = np.median(dataset.train.x.reshape(-1, 9).astype(float), axis=0)
    np.testing.assert_allclose(median, 0, atol=1e-3)
    run = next((shared_data / "ieeg" / "py_neuromodulation").rglob("*.vhdr"))
    recording = read_run(shared_data / "ieeg" / "py_neuromodulation", run, "trial_type")
    assert recording.info.channels[4].position == pytest.approx((0.0401598943, -0.037315929830000004, 0.06431171618))
    assert recording.info.channels[9].type == "misc"
    theirs = mne.io.read_raw_brainvision(run, verbose="error")
    np.testing.assert_allclose(samples_of(recording), theirs.get_data().T, rtol=1e-6, atol=1e-12)


def test_a_format_that_is_not_replayed_says_so(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    folder = copy / "sub-03" / "ieeg" / "sub-03_task-hands_ieeg.mefd"
    folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"sub-03_task-hands_ieeg.mefd is of a format that is not read here"):
        opened(copy, datatype="ieeg")


def test_a_kit_run_is_read_through_mne(tmp_path, shared_data):
    folder = tmp_path / "sub-01" / "meg"
    folder.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text("{}")
    run = folder / "sub-01_task-hands_meg.con"
    shutil.copy(shared_data / "meg" / "KIT" / "MQKIT_125_2sec.con", run)
    raw = mne.io.read_raw_kit(run, verbose="error")
    types = {"mag": "MEGGRADAXIAL", "ref_meg": "MEGREFMAG", "misc": "MISC", "stim": "TRIG"}
    rows = [
        f"{name}\t{types[kind]}\t{'T' if 'mag' in kind or 'ref' in kind else 'n/a'}"
        for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True)
    ]
    (folder / "sub-01_task-hands_channels.tsv").write_text("\n".join(["name\ttype\tunits", *rows]))
    (folder / "sub-01_task-hands_events.tsv").write_text("onset\tduration\ttrial_type\n0.5\t0\tleft\n1.2\t0\tright\n")
    dataset = opened(
        tmp_path, datatype="meg", channels=["MEG 0*"], fit={"scaling": "none", "whitening": "none"}, conditioning={}
    ).dataset(["sub-01_task-hands"])
    assert {(channel.type, channel.unit) for channel in dataset.contract.channels} == {("mag", "T")}
    expected = raw.get_data(picks=[c.name for c in dataset.contract.channels])[:, 500:1000].T
    np.testing.assert_allclose(dataset.train.x[0], expected, rtol=1e-6)
    kinds = [channel.type for channel in read_run(tmp_path, run, "trial_type").info.channels]
    assert kinds == raw.get_channel_types()
    with pytest.raises(RecordingError, match=r"no.con cannot be read"):
        read_helmet(_damaged(tmp_path / "no.con"))


def _damaged(path):
    path.write_bytes(b"nothing")
    return path


def test_a_folder_that_is_no_data_set(tmp_path):
    with pytest.raises(ConfigError, match=r"is no BIDS data set: it has no dataset_description.json"):
        opened(tmp_path)


def test_names_are_the_entities(root):
    assert name_of(root / "sub-01_ses-a_task-hands_run-1_eeg.vhdr") == "sub-01_ses-a_task-hands_run-1"
