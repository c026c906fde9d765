"""Real intracranial recordings through Du-IN and BrainBERT with weights at random: contracts, units, rates, no NaN."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the encoders need torch: pip install rtdecode[train]")
pytest.importorskip("mne", reason="reading these recordings needs MNE: pip install rtdecode[files]")

import mne

from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode.errors import ConfigError, ContractError
from rtdecode.offline import replay
from rtdecode.sources.recording import RecordingSource
from rtdecode_models.zoo.brainbert import UNIT
from rtdecode_models.zoo.on_recording import brainbert_for, du_in_for

SEEG = "ieeg/mne-misc-data/sample_seeg.edf"
ECOG = (
    "ieeg/py_neuromodulation/sub-testsub/ses-EphysMedOff/ieeg/"
    "sub-testsub_ses-EphysMedOff_task-gripforce_run-0_ieeg.vhdr"
)


def recording(shared_data, name):
    path = shared_data / name
    if not path.is_file():
        pytest.skip(f"{name} is not on this machine")
    return path


def replayed(path, bundle, channels="by-name"):
    """All results of a recording, by the library's own function."""
    engine = make_engine(bundle, provider="cpu")
    try:
        with RecordingSource(path) as source:
            decoder = Decoder.from_bundle(bundle, source.info, engine, channels=channels)
            return list(replay(source, decoder))
    finally:
        engine.close()


def test_du_in_names_a_word_around_each_marker(shared_data, tmp_path):
    """98 channels at 1000 Hz, three markers; of them 12 contacts, ten bipolar channels."""
    path = recording(shared_data, SEEG)
    du_in_for(path, tmp_path / "b.zip", ["L'*"], ["test*"], options={"depth": 1})
    bundle = Bundle.open(tmp_path / "b.zip")
    contract = bundle.manifest.contract
    assert [channel.name for channel in contract.channels] == [f"L'{n}" for n in (*range(1, 9), 11, 12, 13, 9)]
    assert {channel.unit for channel in contract.channels} == {"V"}
    assert contract.sfreq == 1000.0
    results = replayed(path, bundle)
    assert [(result.status, result.start, result.length, result.sfreq) for result in results] == [
        ("ok", 4500, 3000, 1000.0),
        ("ok", 6500, 3000, 1000.0),
        ("ok", 9500, 3000, 1000.0),
    ]
    for result in results:
        assert result.outputs["logits"].shape == (61,)
        assert np.isfinite(result.outputs["logits"]).all()
        label = result.heads[0].label
        assert label is not None
        assert label.best.startswith("word-")
        assert abs(sum(label.probabilities) - 1) < 1e-6
    with pytest.raises(ContractError, match="extra: 86 channels"):
        replayed(path, bundle, "strict")


@pytest.mark.parametrize(
    ("name", "contacts", "electrodes"),
    [(SEEG, "N'*", [f"N'{n}" for n in range(2, 12)]), (ECOG, "ECOG*", [f"ECOG_RIGHT_{n}" for n in range(1, 5)])],
    ids=["sEEG", "ECoG"],
)
def test_brainbert_sees_each_electrode_at_2048_hz_and_in_its_unit(shared_data, tmp_path, name, contacts, electrodes):
    path = recording(shared_data, name)
    options = {"size": "small", "depth": 1}
    brainbert_for(path, tmp_path / "b.zip", [contacts], hop=2.5, options=options)
    bundle = Bundle.open(tmp_path / "b.zip")
    assert {channel.unit for channel in bundle.manifest.contract.channels} == {"V"}
    assert bundle.manifest.contract.sfreq == 1000.0
    results = replayed(path, bundle)
    assert [result.start for result in results] == [5120 * n for n in range(len(results))]
    assert len(results) in (6, 7)  # of 19 and of 20 s
    for result in results:
        assert (result.status, result.length, result.sfreq) == ("ok", 10240, 2048.0)
        assert result.outputs["embedding"].shape == (len(electrodes), 384)
        assert result.outputs["logits"].shape == (2,)
        assert all(np.isfinite(values).all() for values in result.outputs.values())

    # Against MNE's own reading: the second golden window, less the resampling filter's delay of 5 ms.
    raw = mne.io.read_raw(path, verbose="error")
    names = list(bundle.conditioner().channels)
    assert [channel.name for channel in names] == electrodes
    window = bundle.array(bundle.manifest.golden.windows)[1]
    stamps = 2.5 + np.arange(len(window)) / 2048 - 0.005
    for column, electrode in enumerate(electrodes):
        shaft, number = electrode.rstrip("0123456789"), int(electrode[len(electrode.rstrip("0123456789")) :])
        x = raw.get_data([electrode, f"{shaft}{number - 1}", f"{shaft}{number + 1}"]) / UNIT
        expected = np.interp(stamps, raw.times, x[0] - x[1:].mean(axis=0))
        assert np.corrcoef(expected, window[:, column])[0, 1] > 0.97
        assert 0.95 < window[:, column].std() / expected.std() < 1.05


def test_the_verb_replays_what_the_library_does(shared_data, tmp_path):
    path = recording(shared_data, ECOG)
    brainbert_for(path, tmp_path / "b.zip", ["ECOG*"], hop=5.0, options={"size": "small", "depth": 1})
    command = [sys.executable, "-m", "rtdecode", "replay", str(path), "--bundle", str(tmp_path / "b.zip")]
    out = tmp_path / "results.jsonl"
    done = subprocess.run(
        [*command, "--channels", "by-name", "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
        check=True,
    )
    summary = json.loads(done.stdout)
    assert summary["statuses"] == {"ok": 3}
    assert "untrained" in summary["bundle"]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["start"] for line in lines] == [0, 10240, 20480]
    assert {line["sfreq"] for line in lines} == {2048.0}
    assert all(len(line["label"]["probabilities"]) == 2 for line in lines)


def test_too_few_contacts_are_named(shared_data, tmp_path):
    path = recording(shared_data, ECOG)
    with pytest.raises(ConfigError, match=r"has 5 bipolar channels of ECOG\*; needs 10"):
        du_in_for(path, tmp_path / "b.zip", ["ECOG*"], ["*"])
    with pytest.raises(ConfigError, match="no usable window"):
        du_in_for(recording(shared_data, SEEG), tmp_path / "b.zip", ["L'*"], ["nothing"])
