"""Recordings: real ones, holes, units, and files that are not what they should be."""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import source_files as files
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtdecode.clock.holes import PERIODS, find_holes, smooth
from rtdecode.errors import RecordingError, SourceError
from rtdecode.signal import Chunk, Marker
from rtdecode.sources.declare import Declare
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.trigger import TriggerRule

VALUES = files.counts()


def play(source: RecordingSource) -> tuple[list[Chunk], list[Marker]]:
    chunks: list[Chunk] = []
    markers: list[Marker] = []
    with source:
        while (batch := source.read()) is not None:
            markers += batch.markers
            if batch.chunk is not None:
                chunks.append(batch.chunk)
    return chunks, markers


def joined(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.samples for chunk in chunks])


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


# --- real recordings --------------------------------------------------------------------------------------------------


def test_eegmmidb_is_read_as_its_bytes_say(shared_data: Path) -> None:
    path = shared_data / "eegmmidb/S001/S001R14.edf"
    source = RecordingSource(path, chunk=37)
    chunks, markers = play(source)
    content = path.read_bytes()
    records = np.frombuffer(content[256 * 66 :], "<i2").reshape(125, 64 * 160 + 80)[:, : 64 * 160]
    microvolts = records.reshape(125, 64, 160).transpose(0, 2, 1).reshape(-1, 64)  # the range is +-8092 for +-8092
    np.testing.assert_allclose(joined(chunks), microvolts * 1e-6, rtol=2e-7, atol=0)
    assert source.n_samples == 20000
    assert source.duration == 125.0
    assert len(markers) == 30
    assert [(m.stamp, m.value) for m in markers[:3]] == [(0.0, "T0"), (4.2, "T2"), (8.3, "T0")]
    np.testing.assert_array_equal(np.concatenate([c.stamps for c in chunks]), np.arange(20000) / 160)


def test_fif_keeps_units_types_and_positions(shared_data: Path) -> None:
    with RecordingSource(shared_data / "mne_lsl/datasets_testing_sample_audvis_raw.fif") as source:
        units = {(channel.type, channel.unit) for channel in source.info.channels}
        assert units == {("grad", "T/m"), ("mag", "T"), ("eeg", "V"), ("stim", "1"), ("eog", "V")}
        mags = np.array([channel.position for channel in source.info.channels if channel.type == "mag"])
        assert (np.linalg.norm(mags, axis=1) < 0.25).all()  # a helmet, in metres


def test_elekta_triggers_are_those_in_the_channel(shared_data: Path) -> None:
    source = RecordingSource(shared_data / "meg/misc/test_elekta_3ch_raw.fif", chunk=999)
    with source:
        name = next(channel.name for channel in source.info.channels if channel.type == "stim")
    chunks, markers = play(RecordingSource(source.path, triggers=[TriggerRule(name)], chunk=501))
    codes = joined(chunks)[:, source.info.names.index(name)].astype(int) & 0xFFFF
    onsets = np.flatnonzero((np.diff(codes) != 0) & (codes[1:] != 0)) + 1
    assert len(onsets) > 5
    assert [(round(m.stamp * 1000), m.value) for m in markers] == [(k, str(codes[k])) for k in onsets.tolist()]


def test_the_stall_in_a_real_xdf_shows(shared_data: Path) -> None:
    chunks, markers = play(RecordingSource(shared_data / "xdf/bci-essentials/ssvep_example.xdf"))
    behind = [b.stamps[0] for a, b in itertools.pairwise(chunks) if b.first_index > a.stop_index]
    assert any(abs(stamp - 105.18) < 0.2 for stamp in behind)
    assert len(markers) == 258
    assert sum(map(len, chunks)) == 33002
    stamps = np.concatenate([c.stamps for c in chunks])
    assert (np.diff(stamps) > 0).all()


def test_jitter_is_no_hole(shared_data: Path) -> None:
    source = RecordingSource(shared_data / "xdf/eeglab/test.xdf", declare=Declare(unit="uV"))
    chunks, _ = play(source)  # its raw stamps run backwards 58 times, by up to 18 ms
    assert source.n_holes == 0
    assert (np.diff(np.concatenate([c.stamps for c in chunks])) > 0).all()
    assert source.info.declared_by_user == ("unit of 8 channels: uV",)


def test_a_recording_of_several_streams_gives_all_markers(shared_data: Path) -> None:
    path = shared_data / "xdf/bci-essentials/sub-P001_ses-S001_task-MISwitch_run-002_eeg.xdf"
    _, markers = play(RecordingSource(path))
    assert {marker.stream for marker in markers} == {"UnityMarkerStream", "PythonResponse"}
    _, chosen = play(RecordingSource(path, markers=["UnityMarkerStream"]))
    assert len(chosen) == 83
    with pytest.raises(SourceError, match=r"no marker stream 'Unity'.*'UnityMarkerStream'"):
        RecordingSource(path, markers=["Unity"]).open()
    with pytest.raises(SourceError, match=r"0 data streams.*'NIRS'.*'g.USBamp-1'"):
        RecordingSource(path, stream="NIRS").open()


# --- what a chunk is --------------------------------------------------------------------------------------------------


@given(st.integers(1, 600))
@settings(max_examples=15)
def test_cutting_does_not_matter(tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "cut.edf"
    if not path.exists():
        path.write_bytes(files.edf_bytes(VALUES, annotations=[(1.0, "a")], onsets=[0, 1, 3, 4, 5]))
    whole, _ = play(RecordingSource(path, chunk=500))
    cut, markers = play(RecordingSource(path, chunk=size))
    assert joined(cut).tobytes() == joined(whole).tobytes()
    stamps, expected = (np.concatenate([chunk.stamps for chunk in chunks]) for chunks in (cut, whole))
    assert stamps.tobytes() == expected.tobytes()
    assert markers == [Marker(1.0, "a", "annotations")]


def test_chunks_belong_to_their_receiver(tmp_path: Path) -> None:
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES))
    with RecordingSource(path, chunk=100) as source:
        first = source.read()
        assert first is not None
        assert first.chunk is not None
        first.chunk.samples[:] = math.nan
    chunks, _ = play(RecordingSource(path))
    assert np.isfinite(joined(chunks)).all()


# --- holes ------------------------------------------------------------------------------------------------------------


def test_what_comes_after_more_than_an_hour_is_another_segment(tmp_path: Path) -> None:
    path = tmp_path / "lunch.edf"
    path.write_bytes(files.edf_bytes(VALUES, annotations=[(7205.5, "a")], onsets=[0, 1, 3601, 7203, 7205]))
    with RecordingSource(path) as source:
        batches = [source.read() for _ in range(5)]
    chunks = [batch.chunk for batch in batches if batch is not None and batch.chunk is not None]
    assert [(c.segment, c.first_index, c.stamps[0]) for c in chunks] == [
        (0, 0, 0.0), (0, 100, 1.0), (0, 360100, 3601.0), (1, 0, 7203.0), (1, 200, 7205.0),
    ]  # fmt: skip
    assert [m.stamp for b in batches if b is not None for m in b.markers] == [7205.5]


@given(st.integers(1, 40), st.floats(0, 0.2), st.integers(0, 99))
@settings(max_examples=50)
def test_a_hole_larger_than_the_jitter_is_found_and_measured(lost: int, jitter: float, seed: int) -> None:
    """Jitter in periods, uniform: it may take twice its size off the step, which must still exceed the limit."""
    assume(lost + 1 - 2 * jitter > PERIODS)
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(700), np.arange(700 + lost, 1500)])
    stamps = 50 + (index + jitter * rng.uniform(-1, 1, len(index))) / 100
    found = find_holes(stamps, 100.0)
    assert found.tolist() == [700]
    smoothed, missing = smooth(stamps, found, 100.0)
    assert (np.diff(smoothed) > 0).all()
    assert abs(int(missing[0]) - lost) <= 1
    assert np.abs(smoothed - (50 + index / 100)).max() < 0.01 * (0.05 + jitter)


# --- units and rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-6), ("mV", 1e-3), ("nV", 1e-9), ("V", 1.0)])
def test_edf_units_become_volts(tmp_path: Path, unit: str, factor: float) -> None:
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, unit=unit))
    source = RecordingSource(path)
    chunks, _ = play(source)
    np.testing.assert_allclose(joined(chunks), VALUES * files.STEP_UV * factor, rtol=2e-7, atol=0)
    assert {channel.unit for channel in source.info.channels} == {"V"}


def test_an_undeclared_unit_is_open_until_it_is_declared(tmp_path: Path) -> None:
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, unit=""))
    with RecordingSource(path) as source:
        assert {channel.unit for channel in source.info.channels} == {""}
    source = RecordingSource(path, declare=Declare(unit="mV"))
    chunks, _ = play(source)
    np.testing.assert_allclose(joined(chunks), VALUES * files.STEP_UV * 1e-3, rtol=2e-7, atol=0)
    assert source.info.declared_by_user == ("unit of 3 channels: mV",)


def test_a_range_of_nothing_declares_no_unit(tmp_path: Path) -> None:
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, physical=(0.0, 0.0)))
    with RecordingSource(path) as source:
        assert {channel.unit for channel in source.info.channels} == {""}


def test_slower_channels_are_left_out_and_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, slow=10))
    source = RecordingSource(path)
    chunks, _ = play(source)
    assert source.left_out == ("Slow",)
    np.testing.assert_allclose(joined(chunks), VALUES * files.STEP_UV * 1e-6, rtol=2e-7, atol=0)


def test_edf_labels_carry_types(tmp_path: Path) -> None:
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, labels=["EEG Fp1", "ECG", "EOG left"]))
    with RecordingSource(path) as source:
        assert [channel.type for channel in source.info.channels] == ["eeg", "eeg", "eog"]
        assert source.info.names == ("EEG Fp1", "ECG", "EOG left")


def test_markers_outside_the_data_are_given(tmp_path: Path) -> None:
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, annotations=[(1.5, "in"), (60.0, "behind")]))
    _, markers = play(RecordingSource(path))
    assert [(m.stamp, m.value) for m in markers] == [(1.5, "in"), (60.0, "behind")]


def test_edf_onsets_count_from_the_first_sample(tmp_path: Path) -> None:
    """EDF+ lets the first record begin a fraction of a second behind the start of the file's own time."""
    onsets = [0.25 + k for k in range(5)]
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, annotations=[(2.5, "a")], onsets=onsets))
    chunks, markers = play(RecordingSource(path))
    assert [(m.stamp, m.value) for m in markers] == [(2.25, "a")]
    assert chunks[-1].stop_index == 500


# --- bad input --------------------------------------------------------------------------------------------------------


def test_missing_empty_and_unknown_files(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "none.edf", "does not exist"),
        (write(tmp_path, "empty.edf", b""), "is empty"),
        (write(tmp_path, "empty.xdf", b""), "is empty"),
        (write(tmp_path, "a.csv", b"1,2"), "ending '.csv' is not known; expected one of .fif"),
        (write(tmp_path, "a.eeg", b"12"), "give its header instead .a.vhdr."),
        (write(tmp_path, "b.edf", b"once upon a time" * 100), "is no EDF, BDF or GDF header"),
        (write(tmp_path, "b.xdf", b"once upon a time" * 100), "cannot be read as XDF"),
        (write(tmp_path, "b_raw.fif", b"once upon a time" * 100), "cannot be read as FIF"),
        (write(tmp_path, "b.set", b"once upon a time" * 100), "cannot be read as SET"),
        (write(tmp_path, "b.vhdr", b"once upon a time" * 100), "is no BrainVision header"),
    ]:
        with pytest.raises(RecordingError, match=message) as caught:
            RecordingSource(path).open()
        assert path.name in str(caught.value)
        assert caught.value.exit_code == 3


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["edf", "bdf", "gdf", "xdf", "fif", "vhdr", "set"])
def test_files_cut_short_are_refused(tmp_path: Path, kind: str, kept: float) -> None:
    path = {
        "edf": lambda: write(tmp_path, "a.edf", files.edf_bytes(VALUES)),
        "bdf": lambda: write(tmp_path, "a.bdf", files.edf_bytes(VALUES, bdf=True)),
        "gdf": lambda: write(tmp_path, "a.gdf", files.gdf_bytes(VALUES)),
        "xdf": lambda: write(tmp_path, "a.xdf", xdf()),
        "fif": lambda: fif(tmp_path),
        "vhdr": lambda: files.write_brainvision(tmp_path, VALUES),
        "set": lambda: files.write_eeglab(tmp_path, VALUES, apart=True),
    }[kind]()
    data = path.with_suffix({"vhdr": ".eeg", "set": ".fdt"}.get(kind, path.suffix))
    content = data.read_bytes()
    # FIF and GDF end in tables, without which every sample is still there.
    data.write_bytes(content[: min(int(kept * len(content)), len(content) - {"gdf": 9, "fif": 200}.get(kind, 1))])
    with pytest.raises(RecordingError, match="cut short") as caught:
        play(RecordingSource(path))
    assert data.stem in str(caught.value)


def xdf() -> bytes:
    stream = {
        "name": "amp",
        "type": "EEG",
        "sfreq": 100,
        "format": "int16",
        "values": VALUES,
        "stamps": np.arange(500) / 100,
    }
    return bytes(files.xdf_bytes([stream]))


def fif(folder: Path) -> Path:
    import mne

    raw = mne.io.RawArray(VALUES.T * 1e-6, mne.create_info(3, 100.0, "eeg"), verbose="error")
    raw.save(folder / "a_raw.fif", verbose="error")
    return folder / "a_raw.fif"


def test_a_header_that_promises_more_or_less_than_there_is(tmp_path: Path) -> None:
    for records in (3, 7):
        path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, records=records))
        with pytest.raises(RecordingError, match=f"{records} records"):
            RecordingSource(path).open()
    path = write(tmp_path, "a.edf", files.edf_bytes(VALUES, records=-1))  # allowed: the recorder was not stopped
    assert sum(map(len, play(RecordingSource(path))[0])) == 500


def test_a_brainvision_header_without_its_files(tmp_path: Path) -> None:
    path = files.write_brainvision(tmp_path, VALUES)
    (tmp_path / "a.vmrk").unlink()
    with pytest.raises(RecordingError, match=r"a\.vmrk.* not found"):
        RecordingSource(path).open()
    (tmp_path / "a.eeg").unlink()
    with pytest.raises(RecordingError, match=r"names 'a\.eeg' as its data file"):
        RecordingSource(path).open()


@pytest.mark.parametrize(("name", "module"), [("a.edf", "mne"), ("a.xdf", "pyxdf")])
def test_without_the_readers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    path = write(tmp_path, name, files.edf_bytes(VALUES) if module == "mne" else xdf())
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecordingError, match=r'pip install "rtdecode\[files\]"'):
        RecordingSource(path).open()


def test_reading_before_opening_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="is not open"):
        RecordingSource(tmp_path / "a.edf").read()
