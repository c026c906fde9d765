"""The committed recipes on real recordings: from EDF files to a bundle that decodes a run it never saw."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript: pip install rtdecode[train]")
pytest.importorskip("onnxruntime", reason="exporting needs an inference runtime: pip install rtdecode[cpu]")

from rtdecode.decoder import Decoder, Status
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode_export.bundle import export_bundle
from rtdecode_export.checkpoint import checkpoint_arguments
from rtdecode_export.variants import Precision
from rtdecode_models.data.recordings import label_of, read_recording
from rtdecode_models.data.spec import Recordings
from rtdecode_models.training.checkpoint import Trained
from rtdecode_models.training.parts import Workshop
from rtdecode_models.training.recipe import read_recipe
from rtdecode_models.training.run import open_data
from rtdecode_models.training.train import train
from rtdecode_models.training.units import Here

RECIPES = Path(__file__).resolve().parents[1] / "models" / "recipes"

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


def _through_the_bundle(recipe_name, data, folder):
    """Train, save, load, export, open, and decode the test recording with the bundle."""
    recipe, _ = read_recipe(RECIPES / f"{recipe_name}.toml")
    assert isinstance(recipe.data, Recordings)
    workshop = Workshop(lambda recipe: open_data(recipe, data))
    train(recipe, workshop, Here(workshop)).save(folder / "checkpoint")
    trained = Trained.load(folder / "checkpoint")
    report = export_bundle(**checkpoint_arguments(trained), out=folder / "bundle.zip", precisions=PRECISIONS)
    assert report.windows == 15, "the trials of the first training run"
    for variant in report.variants:
        for drift in variant.drift:
            assert drift.top1 is not None
            assert drift.top1 >= 14 / 15, variant.precision
            assert drift.accuracy is not None
            assert drift.accuracy >= 0.8, "these windows were trained on: with other labels, half would be right"
    bundle = Bundle.open(folder / "bundle.zip")
    engine = make_engine(bundle)
    recording = read_recording(data, trained.metrics["split"]["test"][0])
    decoder = Decoder.from_bundle(bundle, recording.info, engine)
    results = [r for b in recording.batches for r in decoder.push(b.chunk, b.markers, b.watermark)] + decoder.finish()
    engine.close()
    assert [result.status for result in results] == [Status.OK] * 15
    names = tuple(recipe.data.labels)
    right = []
    for result in results:
        assert result.marker is not None
        assert result.heads[0].label is not None
        right.append(result.heads[0].label.best == names[label_of(result.marker.value, recipe.data.labels)])
    return trained, results, right


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_subject_1_fists_against_feet(shared_data, tmp_path):
    """Trained on runs 6 and 10, five seeds in one bundle: at least 13 of the 15 trials of run 14."""
    trained, results, right = _through_the_bundle("eegmmidb_fists_feet", shared_data / "eegmmidb", tmp_path)
    assert sum(right) >= 13
    test = trained.metrics["test"]["tasks"]["logits/label"]
    assert sum(right) == test["ensemble"]["right"], "the bundle must decode what training measured"
    given = np.array([result.outputs["logits"] for result in results])
    truth = [label_of(r.marker.value, trained.checkpoint.markers) for r in results]
    assert -given[np.arange(15), truth].mean() == pytest.approx(test["ensemble"]["nll"], abs=1e-3)
    assert len(test["right_by_seed"]) == 5
    assert trained.metrics["held_out"]["trials"] == 30


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_subject_15_goes_the_same_way(shared_data, tmp_path):
    """Trained on one run, tested on another, whatever it gives: what training measured, the bundle decodes."""
    trained, _, right = _through_the_bundle("eegmmidb_s015_fists_feet", shared_data / "eegmmidb", tmp_path)
    assert sum(right) == trained.metrics["test"]["tasks"]["logits/label"]["ensemble"]["right"]
    assert trained.checkpoint.temperature == 1.0
