"""From a recipe to a checkpoint: what may and may not influence a network, what is measured, what is written."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")

import train_kit as kit  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from rtdecode.encode.bundle import Bundle  # noqa: E402
from rtdecode.encode.engines import make_engine  # noqa: E402
from rtdecode.encode.manifest import ClassifyHead, EmbeddingHead, RetrieveHead  # noqa: E402
from rtdecode.errors import ConfigError  # noqa: E402
from rtdecode_export.bundle import export_bundle  # noqa: E402
from rtdecode_export.checkpoint import _heads as heads_of  # noqa: E402
from rtdecode_export.checkpoint import checkpoint_arguments  # noqa: E402
from rtdecode_models.data.splits import Parts, Sessions  # noqa: E402
from rtdecode_models.data.trials import Ceiling  # noqa: E402
from rtdecode_models.training.checkpoint import Trained, pretty  # noqa: E402
from rtdecode_models.training.evaluate import class_report, predict  # noqa: E402
from rtdecode_models.training.fit import Hooks, fit  # noqa: E402
from rtdecode_models.training.held_out import Fold, calibrate  # noqa: E402
from rtdecode_models.training.parts import Workshop, without_validated  # noqa: E402
from rtdecode_models.training.recipe import Recipe, parse_recipe  # noqa: E402
from rtdecode_models.training.scores import (  # noqa: E402
    bootstrap,
    candidates,
    class_scores,
    pooled,
    rank_scores,
    ranks,
    similarities,
    wilson,
)
from rtdecode_models.training.tasks import Classes  # noqa: E402
from rtdecode_models.training.train import Told, each_test, select, train  # noqa: E402
from rtdecode_models.training.units import Here, Unit, job_of  # noqa: E402

CLASSES = {
    "model": {"system": "simpleconv", "width": 8, "n_blocks": 1, "kernel": 5},
    "loss": [{"kind": "cross_entropy"}],
    "leave_one_out": {"validation": "session"},
    "training": {"epochs": 6, "batch_size": 20, "learning_rate": 5e-3, "augment": [{"kind": "mixup"}]},
}


def run(source, table, **more):
    recipe = parse_recipe(table, "test")
    workshop = Workshop(lambda _: source)
    return train(recipe, workshop, Here(workshop), **more)


@pytest.fixture(scope="module")
def retrieval():
    """Two seeds of UBP on two sessions, other stimuli in the third, which only may be tested on."""
    source = kit.Source(test_sessions=("c",), ceiling=Ceiling({"top1": 0.9}, "by definition"))
    split = {"validation": {"by": "trial", "share": 0.2}, "unseen_items": True}
    training = {"epochs": 8, "batch_size": 20, "learning_rate": 3e-3}
    return run(source, kit.table(split=split, training=training)), source


@pytest.fixture(scope="module")
def classes():
    return run(kit.Source(noise=0.7), kit.table(**CLASSES))


def test_a_system_with_a_part_for_each_subject_is_not_trained_for_strangers():
    table = kit.table(model={"system": "train_kit:personal"}, training={"epochs": 1, "batch_size": 20})
    networks = []
    told = Told(network=lambda: networks.append(1))
    with pytest.raises(ConfigError, match=r"a part of its own for each subject .*\(s1\).* holds s2 out"):
        run(kit.Source(people=("s1", "s1", "s2")), table, told=told)
    assert networks == [], "found after the training"
    assert run(kit.Source(people=("s1", "s2", "s2")), table).metrics["test"]["subjects"] == ["s2"]
    assert run(kit.Source(people=("s1", "s1", "s2")), kit.table(training=table["training"])).metrics["test"]["trials"]


def test_the_test_is_opened_after_the_last_network_was_trained(retrieval):
    source, opened = kit.Source(), []
    recipe = parse_recipe(kit.table(**CLASSES), "test")
    workshop = Workshop(lambda _: source)
    train(recipe, workshop, Here(workshop), Told(network=lambda: opened.append("c" in source.read)))
    assert len(opened) == 6
    assert not any(opened)
    assert "c" in source.read
    assert retrieval[1].read.index("c") == len(retrieval[1].read) - 1


def test_the_test_influences_nothing_but_its_own_scores(classes):
    other = run(kit.Source(noise=0.7, offset=50), kit.table(**CLASSES))
    assert other.metrics["test"] != classes.metrics["test"]
    assert other.checkpoint.temperature == classes.checkpoint.temperature
    assert other.metrics["held_out"] == classes.metrics["held_out"]
    for ours, theirs in zip(classes.networks, other.networks, strict=True):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_what_is_measured_of_classes(classes):
    metrics = classes.metrics
    assert metrics["simulated"]
    assert metrics["data"] == {
        "kind": "simulated",
        "subjects": ["s1"],
        "sessions": {"a": "s1", "b": "s1", "c": "s1"},
        "trained_on": {"sessions": ["a", "b"]},
    }
    assert metrics["split"]["train"] == ["a", "b"]
    assert metrics["split"]["test"] == ["c"]
    assert metrics["train"]["by_label"] == {"label": {"left": 40, "right": 40, "rest": 40}}
    held, test = metrics["held_out"], metrics["test"]["tasks"]["logits/label"]
    assert held["left_out"] == ["a", "b"]
    assert held["trials"] == 120
    assert test["chance"] == {"accuracy": pytest.approx(1 / 3)}
    assert test["majority"] == pytest.approx(1 / 3)
    unbalanced = class_report(np.log(np.full((1, 5, 2), 0.5)), np.array([0, 1, 1, 1, 0]), ["a", "b"])
    assert (unbalanced["chance"]["accuracy"], unbalanced["majority"]) == (0.5, 0.6)
    assert test["scores"]["accuracy"]["mean"] == pytest.approx(np.mean(test["scores"]["accuracy"]["by_seed"]))
    assert test["ensemble"]["accuracy"] > 0.6
    assert np.trace(test["confusion"]) == test["ensemble"]["right"]
    assert np.sum(test["confusion"]) == test["trials"] == 60
    low, high = test["ensemble"]["accuracy_95"]
    assert low < test["ensemble"]["accuracy"] < high
    assert test["by_subject"] == {"s1": pytest.approx(test["ensemble"]["accuracy"])}
    assert [len(curves["loss"]) for curves in metrics["learning_curves"]] == [6, 6]
    assert classes.checkpoint.temperature != 1.0


def test_what_is_measured_of_retrieval(retrieval):
    trained, _ = retrieval
    test = trained.metrics["test"]["tasks"]["embedding/image"]
    assert test["candidates"] == 20, "the test's own gallery"
    assert test["metric"] == "cosine"
    assert test["chance"] == {"top1": 0.05, "top5": 0.25, "top10": 0.5}
    assert test["scores"]["top1"]["mean"] > 0.25
    low, high = test["intervals"]["top1_95"]
    assert low < test["scores"]["top1"]["mean"] < high
    assert test["topk_curve"][0] == pytest.approx(test["scores"]["top1"]["mean"])
    assert test["topk_curve"][-1] == 1.0
    assert test["ceiling"]["top1"]["share"] == pytest.approx(test["scores"]["top1"]["mean"] / 0.9)
    assert trained.metrics["ceiling"]["how"] == "by definition"
    assert trained.metrics["validation"]["trials"] == 24
    assert trained.checkpoint.gallery[0] == "item50"
    mrr = trained.metrics["validation"]["tasks"]["embedding/image"]["scores"]["mrr"]["by_seed"]
    assert trained.checkpoint.best == int(np.argmax(mrr))
    assert trained.encoder is trained.networks[trained.checkpoint.best]


def test_a_checkpoint_comes_back_whole_and_holds_no_pickle(retrieval, tmp_path):
    trained, _ = retrieval
    trained.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "weights.safetensors",
        "windows.safetensors",
        "checkpoint.json",
        "metrics.json",
    }
    back = Trained.load(tmp_path)
    assert back.checkpoint == trained.checkpoint
    assert json.loads(pretty(back.metrics)) == json.loads(pretty(trained.metrics))
    assert back.windows.tobytes() == trained.windows.tobytes()
    for name, deployed in trained.deployments.items():
        assert back.deployments[name].labels.keys() == deployed.labels.keys()
        for label, values in deployed.labels.items():
            np.testing.assert_array_equal(back.deployments[name].labels[label], values)
    np.testing.assert_array_equal(back.galleries["embedding/image"], trained.galleries["embedding/image"])
    np.testing.assert_array_equal(back.positions, trained.positions)
    windows = torch.from_numpy(trained.windows)
    with torch.no_grad():
        for ours, theirs in zip(trained.networks, back.networks, strict=True):
            assert torch.equal(ours(windows)["embedding"], theirs(windows)["embedding"])


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("weights.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "damaged"),
        ("weights.safetensors", None, "no whole checkpoint"),
        ("checkpoint.json", b'{"format":"rtdecode-checkpoint","version":1}', "damaged or of another version"),
        ("checkpoint.json", b"{", "damaged"),
        ("windows.safetensors", b"", "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused(classes, tmp_path, file, content, says):
    classes.save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        Trained.load(tmp_path)


def test_the_checkpoint_of_classes_becomes_a_bundle_of_the_ensemble(classes, tmp_path):
    arguments = checkpoint_arguments(classes, hop=0.1)
    export_bundle(**arguments, out=tmp_path / "bundle.zip")
    bundle = Bundle.open(tmp_path / "bundle.zip")
    head = bundle.manifest.heads[0]
    assert isinstance(head, ClassifyHead)
    assert head.labels == kit.CLASSES
    assert head.temperature == classes.checkpoint.temperature
    assert head.markers == {name: (name,) for name in kit.CLASSES}
    assert [window.name for window in bundle.manifest.windows] == ["locked", "sliding"]
    engine = make_engine(bundle)
    given = np.stack([engine.finish(window, 0)["logits"] for window in classes.windows[:5]])
    engine.close()
    probabilities = []
    for network in classes.networks:
        with torch.no_grad():
            probabilities.append(network(torch.from_numpy(classes.windows[:5]))["logits"].softmax(1))
    np.testing.assert_allclose(np.exp(given), torch.stack(probabilities).mean(0), atol=1e-5)


def test_the_checkpoint_of_retrieval_becomes_a_bundle_with_the_tests_gallery(retrieval, tmp_path):
    trained, _ = retrieval
    export_bundle(**checkpoint_arguments(trained), out=tmp_path / "bundle.zip")
    bundle = Bundle.open(tmp_path / "bundle.zip")
    head = bundle.manifest.heads[0]
    assert isinstance(head, RetrieveHead)
    assert (head.output, head.metric) == ("embedding", "cosine")
    items = [item["name"] for item in json.loads(bundle.read(head.items))]
    assert items == [f"item{50 + at}" for at in range(20)]
    np.testing.assert_array_equal(bundle.array(head.embeddings), kit.gallery(50, 20).embeddings["image"])
    assert bundle.manifest.metrics["test"]["embedding/image"]["chance"]["top1"] == 0.05


def test_a_second_set_of_classes_is_published_as_it_is(classes):
    tasks = tuple(Classes(output=name, label="label") for name in ("logits", "colour"))
    checkpoint = msgspec.structs.replace(classes.checkpoint, tasks=tasks)
    heads, _ = heads_of(replace(classes, checkpoint=checkpoint), ("colour", "geometry", "logits"))
    assert [(type(head), head.output) for head in heads] == [
        (ClassifyHead, "logits"),
        (EmbeddingHead, "colour"),
        (EmbeddingHead, "geometry"),
    ]


def test_subjects_are_deployed_by_name_or_place():
    source = kit.Source(names=("a", "b", "c"), people=("s1", "s2", "s2"), n=30)
    trained = run(source, kit.table(training={"epochs": 1, "batch_size": 20}, seeds=[0]))
    assert trained.checkpoint.subjects == ("s1", "s2")
    assert checkpoint_arguments(trained)["provenance"]["subject"] is None
    by_name, by_place = (checkpoint_arguments(trained, subject=each) for each in ("s2", 1))
    assert by_name["provenance"]["subject"] == by_place["provenance"]["subject"] == "s2"
    assert by_name["name"] == "kit (s2)"
    with pytest.raises(ConfigError, match=r"--subject is 's9'; the checkpoint 'kit' knows 0 \(s1\), 1 \(s2\)"):
        checkpoint_arguments(trained, subject="s9")


def test_standardised_targets_are_compared_as_they_were_learnt():
    trained = run(
        kit.Source(),
        kit.table(
            loss=[{"kind": "mse", "target": "image"}], training={"epochs": 12, "batch_size": 20, "learning_rate": 5e-3}
        ),
    )
    task = trained.checkpoint.tasks[0]
    assert task.standardised
    rows = kit.gallery().embeddings["image"]
    np.testing.assert_allclose(trained.galleries[task.name], (rows - rows.mean(0)) / rows.std(0), rtol=1e-4, atol=1e-6)
    assert trained.metrics["test"]["tasks"]["embedding/image"]["scores"]["top1"]["mean"] > 0.3


def test_systems_that_are_fitted_by_a_formula():
    table = kit.table(model={"system": "lda"}, loss=[], score=[{"kind": "classify"}], seeds=[0])
    trained = run(kit.Source(noise=0.5), table)
    assert trained.metrics["learning_curves"] == [{}]
    assert trained.metrics["test"]["tasks"]["logits/label"]["scores"]["accuracy"]["mean"] > 0.8
    with pytest.raises(ConfigError, match=r"system 'ubp' is trained by steps: declare a \[\[loss\]\]"):
        run(kit.Source(), kit.table(loss=[]))


def test_weights_are_taken_over_from_another_checkpoint(retrieval, tmp_path):
    trained, _ = retrieval
    trained.save(tmp_path)
    still = {"epochs": 1, "batch_size": 20, "learning_rate": 1e-12}
    init = {"checkpoint": str(tmp_path), "skip": ["projection.second.*"]}
    begun = run(kit.Source(), kit.table(model={"system": "ubp", "init": init}, training=still, seeds=[1, 7]))
    notes = begun.metrics["init"]
    names = set(begun.networks[0].state_dict())
    skipped = {name for name in names if name.startswith("projection.second")}
    assert set(notes[0]["taken"]) == names - skipped
    assert set(notes[0]["at_random"]) == skipped
    for network, member in zip(begun.networks, (1, 0), strict=True):  # the same seed, else the first
        for name in names - skipped:
            torch.testing.assert_close(network.state_dict()[name], trained.networks[member].state_dict()[name])
    with pytest.raises(ConfigError, match=r"no parameter of .* begins with 'encoder\.'"):
        run(
            kit.Source(),
            kit.table(model={"system": "ubp", "init": {"checkpoint": str(tmp_path), "prefix": "encoder."}}),
        )
    with pytest.raises(ConfigError, match="no network of seed 5; it has"):
        run(kit.Source(), kit.table(model={"system": "ubp", "init": {"checkpoint": str(tmp_path), "seed": 5}}))
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        run(kit.Source(), kit.table(model={"system": "ubp", "init": str(tmp_path / "nowhere")}))


def test_nobody_is_called_everyone():
    with pytest.raises(ConfigError, match="a subject 'everyone', which is what a checkpoint calls all"):
        run(kit.Source(people=("s1", "everyone", "s1")), kit.table())


def test_a_bundle_chooses_from_the_candidates_of_the_test():
    """One gallery for all sessions: what was trained on is no candidate of the test, nor of the bundle."""
    split = {"test": {"by": "item", "share": 0.4}}
    still = {"epochs": 1, "batch_size": 20, "learning_rate": 1e-3}
    trained = run(kit.Source(), kit.table(split=split, training=still, seeds=[0]))
    shown = kit.gallery()
    chosen = [shown.names.index(name) for name in trained.checkpoint.gallery]
    assert len(chosen) == trained.metrics["test"]["tasks"]["embedding/image"]["candidates"] == 5
    np.testing.assert_array_equal(trained.galleries["embedding/image"], shown.embeddings["image"][chosen])


def test_a_state_is_not_gone_on_from_with_other_initial_weights(retrieval, tmp_path):
    retrieval[0].save(tmp_path)
    still = {"epochs": 1, "batch_size": 20, "learning_rate": 1e-12}
    table = kit.table(model={"system": "ubp", "init": str(tmp_path)}, training=still)
    recipe, workshop = parse_recipe(table, "test"), Workshop(lambda _: kit.Source())
    one = job_of(Unit(name="net", recipe=recipe, split=recipe.split, seed=0), workshop)
    fit(one, Hooks(folder=tmp_path / "resume"))
    weights = load_file(tmp_path / "weights.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"belongs to another training: .* the weights that it begins with"):
        fit(one, Hooks(folder=tmp_path / "resume"))


def test_selection_takes_the_most_likely_setting_and_lists_all():
    table = kit.table(**CLASSES | {"seeds": [0]})
    table["select"] = {"vary": [{"key": "training.learning_rate", "values": [1e-9, 5e-3]}]}
    recipe = parse_recipe(table, "test")
    workshop = Workshop(lambda _: kit.Source(noise=0.7))
    said: list[str] = []
    chosen, rows = select(table, recipe, workshop, Here(workshop), Told(say=said.append))
    assert chosen.training.learning_rate == 5e-3
    assert [row["setting"]["training.learning_rate"] for row in rows] == [5e-3, 1e-9]
    assert rows[0]["ensemble"]["nll"] < rows[1]["ensemble"]["nll"]
    assert len(said) == 2


def test_selection_on_the_validation_part():
    table = kit.table(seeds=[0], split={"validation": {"by": "session", "names": ["b"]}})
    table["select"] = {"vary": [{"key": "training.learning_rate", "values": [1e-9, 3e-3]}]}
    recipe = parse_recipe(table, "test")
    workshop = Workshop(lambda _: kit.Source())
    chosen, rows = select(table, recipe, workshop, Here(workshop), Told())
    assert chosen.training.learning_rate == 3e-3
    assert rows[0]["merit"] == rows[0]["scores"]["mrr"]["mean"]


def test_each_session_may_be_the_test_once():
    recipe = parse_recipe(kit.table(split={}, leave_one_out={"test": "session"}), "test")
    given = list(each_test(recipe, Workshop(lambda _: kit.Source())))
    assert [name for name, _, _ in given] == ["a", "b", "c"]
    assert len({prefix for _, prefix, _ in given}) == 3
    source = kit.Source()
    workshop = Workshop(lambda _: source)
    metrics = train(given[1][2], workshop, Here(workshop)).metrics
    assert metrics["split"]["train"] == ["a", "c"]
    assert metrics["split"]["test"] == ["b"]


def test_recipes_travel_as_json():
    """A cluster's workers get them so, and a checkpoint keeps them so."""
    recipe = parse_recipe(kit.table(**CLASSES), "test")
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


def test_calibration_finds_the_temperature_that_made_the_labels():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (3000, 3))
    sharp = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=p) for p in sharp])
    said = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert calibrate([Fold("all", said[None], y, 3)])["temperature"] == pytest.approx(0.5, rel=0.1)


def test_calibration_says_why_it_stays_at_one():
    assert "nothing was held out" in calibrate([])["why_not"]
    always_right = np.log(np.array([[[0.9, 0.1], [0.1, 0.9]]]))
    given = calibrate([Fold("a", always_right, np.array([0, 1]), 2)])
    assert given["temperature"] == 1.0
    assert "all 2 held-out windows are right" in given["why_not"]


def test_scores_of_classes():
    p = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.7, 0.3]]])
    together = pooled(np.log(p))
    np.testing.assert_allclose(np.exp(together), p.mean(0))
    scores = class_scores(together, np.array([0, 1]))
    assert scores["accuracy"] == 0.5
    assert scores["nll"] == pytest.approx(-np.log([0.65, 0.35]).mean())
    uneven = class_scores(np.log(np.array([[0.9, 0.1]] * 4)), np.array([0, 0, 0, 1]))
    assert (uneven["accuracy"], uneven["balanced_accuracy"]) == (0.75, 0.5)


def test_ranks_count_ties_against_the_truth_so_that_no_constant_wins():
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3], [0.2, 0.1, 0.0]])
    assert ranks(scores, np.array([2, 1, 0])).tolist() == [1, 2, 0]
    found = rank_scores(np.array([0, 4, 20]), 50)
    assert found["top1"] == pytest.approx(1 / 3)
    assert found["top5"] == pytest.approx(2 / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 5 + 1 / 21) / 3)
    assert found["median_rank"] == 5
    with pytest.raises(ConfigError, match="gives NaN or Inf"):
        similarities(np.array([[np.nan]], np.float32), np.ones((2, 1), np.float32), "dot")


def test_intervals():
    assert wilson(13, 15) == pytest.approx((0.6212, 0.9626), abs=1e-3)
    hits = np.repeat([1.0, 0.0, 1.0, 1.0], 10)
    low, high = bootstrap(hits, np.repeat(np.arange(4), 10))
    alone = bootstrap(hits, np.arange(40))
    assert low < alone[0] < 0.75 < alone[1] < high, "forty trials of four stimuli tell less than forty stimuli"


def test_stimuli_that_were_validated_on_are_no_candidates_of_the_test():
    """All sessions share one gallery: of its 12 stimuli 6 are trained on, 3 validated on, 2 tested, 1 in none."""
    shown = kit.trials(0, 120)
    trained, validated, tested = (
        np.flatnonzero(np.isin(shown.item, items)) for items in ([*range(6)], [6, 7, 8], [9, 10])
    )
    dataset = replace(kit.Source().dataset(("a",)), train=shown.take(trained))
    parts = Parts(dataset, shown.take(validated), Sessions(("a",), (), (), ()))
    test = shown.take(tested)
    left = without_validated(test, parts)
    assert test.gallery is not None
    assert test.item is not None
    assert left.gallery is not None
    assert left.item is not None
    assert left.gallery.names == tuple(name for name in test.gallery.names if name not in {"item6", "item7", "item8"})
    named = [left.gallery.names[row] for row in left.item]
    assert named == [test.gallery.names[row] for row in test.item]
    rows = left.gallery.embeddings["image"][left.item]
    np.testing.assert_array_equal(rows, test.gallery.embeddings["image"][test.item])
    assert [left.gallery.names[row] for row in candidates(left, dataset.train)] == ["item9", "item10", "item11"]
    assert without_validated(test, replace(parts, validation=None)) is test
    seen = replace(parts, validation=shown.take(trained[:5]))
    assert without_validated(test, seen) is test, "what was trained on stays in the gallery"


def test_an_output_that_is_not_there_is_named(retrieval):
    with pytest.raises(ConfigError, match=r"output 'words' is to be scored; this encoder gives embedding"):
        predict(retrieval[0].networks[0], kit.trials(0, 3), ["words"])


@pytest.mark.parametrize("place", ["rtdecode_models.cli", "rtdecode_export.cli"])
def test_the_verbs_are_listed_without_loading_torch(place):
    heavy = {"torch", "onnxruntime", "matplotlib", "distributed"}
    code = f"import sys, {place}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("place", ["rtdecode_models.cli", "rtdecode_export.cli"])
def test_a_missing_package_names_the_extra(place, monkeypatch):
    module = importlib.import_module(place)
    monkeypatch.setattr(module, "_NEEDED", ("no_such_package_here",))
    check = getattr(module, "require_training_packages", None) or module.require_export_packages
    with pytest.raises(ConfigError, match=r'no_such_package_here.*pip install "rtdecode\[train'):
        check()
