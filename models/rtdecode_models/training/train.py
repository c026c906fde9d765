"""From a recipe to trained networks: split, fit the chain, train each seed, calibrate, test once.

Whatever is chosen or fitted comes from the training sessions. The test is opened after the last network is trained, and
only to be scored.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import torch

from rtdecode_models.data.shape import shape_of
from rtdecode_models.data.source import Deployed, TrialSource
from rtdecode_models.data.splits import Parts, each_tested
from rtdecode_models.data.trials import Dataset, Gallery, Trials
from rtdecode_models.provenance import code_commit
from rtdecode_models.training.checkpoint import Checkpoint, Trained, deployments_of, starts_of, table_of
from rtdecode_models.training.evaluate import against_ceiling, describe, evaluate
from rtdecode_models.training.fit import Fitted
from rtdecode_models.training.held_out import (
    Fold,
    calibrate,
    each,
    first_task,
    fold_of,
    held_out_units,
    merit,
    report,
)
from rtdecode_models.training.parts import Workshop
from rtdecode_models.training.recipe import Recipe, parse_recipe, variants
from rtdecode_models.training.scores import candidates
from rtdecode_models.training.tasks import Classes, Retrieval, gallery_rows
from rtdecode_models.training.units import Runner, Unit, units_of

#: How many training windows a checkpoint keeps of each deployment: the ground on which an export is judged.
KEPT_WINDOWS = 64


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller may show: `say` a line, `network` after each trained network."""

    say: Callable[[str], None] = lambda _: None
    network: Callable[[], None] = lambda: None


def all_units(recipe: Recipe, workshop: Workshop, prefix: str = "") -> list[Unit]:
    """Every network that `train` trains for this recipe."""
    inner = [unit for _, _, units in held_out_units(recipe, workshop, prefix) for unit in units]
    return inner + units_of(recipe, recipe.split, prefix)


def train(
    recipe: Recipe,
    workshop: Workshop,
    runner: Runner,
    told: Told | None = None,
    selection: Sequence[Any] = (),
    prefix: str = "",
) -> Trained:
    """Train the recipe's networks, calibrate them, and test them once.

    Parameters
    ----------
    recipe : Recipe
        As written, or as `select` chose.
    workshop : Workshop
        The data.
    runner : Runner
        What trains.
    told : Told
        Told of each network.
    selection : sequence
        The table of `select`, for the metrics.
    prefix : str
        Of the units' names.

    Returns
    -------
    Trained
        Ready to be saved and exported.

    Raises
    ------
    ConfigError
        The recipe does not fit the data.
    RecordingError
        The data cannot be read.
    """
    told = told or Told()
    runner.announce(all_units(recipe, workshop, prefix))
    held = hold_out(recipe, workshop, runner, told, prefix)
    fitted = []
    for network in runner.run(units_of(recipe, recipe.split, prefix)):
        fitted.append(network)
        told.network()
    networks = tuple(each.network for each in fitted)

    parts = workshop.parts(recipe, recipe.split)
    dataset = parts.dataset
    metrics = _about(recipe, workshop.source(recipe), parts, fitted)
    if held:
        metrics["held_out"] = report(held, recipe, _class_names(recipe, dataset.train))
    best = 0
    if parts.validation is not None:
        metrics["validation"] = evaluate(networks, parts.validation, dataset.train, recipe.tasks)
        best = _best_network(metrics["validation"], recipe)
        if not held and recipe.tasks:
            held = [fold_of(networks, recipe, recipe.split, workshop, "the validation part", test=False)]
    calibration = {"temperature": 1.0}
    if recipe.tasks and isinstance(first_task(recipe), Classes):
        calibration = metrics["calibration"] = calibrate(held)
    metrics["selection"] = list(selection)

    test = workshop.test(recipe, recipe.split)
    if test is not None:
        metrics["test"] = evaluate(networks, test, dataset.train, recipe.tasks)
        if dataset.ceiling is not None:
            metrics["ceiling"] = {"scores": dict(dataset.ceiling.scores), "how": dataset.ceiling.how}
            for scored in metrics["test"]["tasks"].values():
                against_ceiling(scored, dataset.ceiling.scores)
    return _trained(recipe, workshop.source(recipe), parts, test, fitted, metrics, calibration["temperature"], best)


def hold_out(recipe: Recipe, workshop: Workshop, runner: Runner, told: Told, prefix: str = "") -> list[Fold]:
    """Train on all training sessions (or subjects) but one and score that one, for each of them.

    The chain, too, is fitted without what is left out.
    """
    held = held_out_units(recipe, workshop, prefix)
    running = runner.run([unit for _, _, units in held for unit in units])
    folds = []
    for name, split, _ in held:
        networks = []
        for _seed in recipe.seeds:
            networks.append(next(running).network)
            told.network()
        folds.append(fold_of(networks, recipe, split, workshop, name, test=True))
    return folds


def select(
    table: dict[str, Any], recipe: Recipe, workshop: Workshop, runner: Runner, told: Told
) -> tuple[Recipe, list[dict[str, Any]]]:
    """Try the recipe's grid on held-out trials.

    Returns
    -------
    tuple of Recipe and list
        The recipe with the best setting, and all settings with their scores, best first.
    """
    candidates = [
        (setting, parse_recipe(variant, f"the recipe with {setting}"))
        for setting, variant in variants(table, recipe.select)
    ]
    prefixes = [f"setting-{place}-" for place in range(len(candidates))]
    runner.announce(
        [
            unit
            for (_, candidate), prefix in zip(candidates, prefixes, strict=True)
            for unit in _units_to_select(candidate, workshop, prefix)
        ]
    )
    tried: list[tuple[float, int, Recipe, dict[str, Any]]] = []
    for place, ((setting, candidate), prefix) in enumerate(zip(candidates, prefixes, strict=True)):
        folds = hold_out(candidate, workshop, runner, told, prefix)
        if not folds:
            networks = each(runner.run(units_of(candidate, candidate.split, prefix)), candidate)
            folds = [fold_of(networks, candidate, candidate.split, workshop, "the validation part", test=False)]
            for _ in networks:
                told.network()
        names = _class_names(candidate, workshop.parts(candidate, candidate.split).dataset.train)
        scored = report(folds, candidate, names)
        merits = merit(scored, candidate)
        told.say(f"{abs(merits):.4g}  {setting}")
        tried.append((-merits, place, candidate, {"setting": setting, "merit": merits} | scored))
    tried.sort(key=lambda row: row[:2])
    return tried[0][2], [row[3] for row in tried]


def to_select(table: dict[str, Any], recipe: Recipe, workshop: Workshop) -> int:
    """How many networks `select` trains."""
    grid = (parse_recipe(variant, "the recipe") for _, variant in variants(table, recipe.select))
    return sum(len(_units_to_select(candidate, workshop, "")) for candidate in grid)


def each_test(recipe: Recipe, workshop: Workshop) -> Iterator[tuple[str, str, Recipe]]:
    """One recipe for each session or subject that is the test once: its name, a prefix for its units, the recipe."""
    by = recipe.leave_one_out.test
    if by is None:
        return
    alone = msgspec.structs.replace(recipe.leave_one_out, test=None)
    for place, (name, split) in enumerate(each_tested(recipe.split, workshop.source(recipe), by)):
        yield name, f"test-{place}-", msgspec.structs.replace(recipe, split=split, leave_one_out=alone)


def _units_to_select(recipe: Recipe, workshop: Workshop, prefix: str) -> list[Unit]:
    inner = [unit for _, _, units in held_out_units(recipe, workshop, prefix) for unit in units]
    return inner or units_of(recipe, recipe.split, prefix)


def _class_names(recipe: Recipe, trials: Trials) -> tuple[str, ...]:
    task = first_task(recipe)
    return trials.classes[task.label] if isinstance(task, Classes) else ()


def _best_network(validation: dict[str, Any], recipe: Recipe) -> int:
    """Place of the seed whose network is best on the first task of the validation part."""
    if not recipe.tasks:
        return 0
    task = first_task(recipe)
    scores = validation["tasks"][task.name]["scores"]
    if isinstance(task, Classes):
        return int(np.argmin(scores["nll"]["by_seed"]))
    return int(np.argmax(scores["mrr"]["by_seed"]))


def _about(recipe: Recipe, source: TrialSource, parts: Parts, fitted: Sequence[Fitted]) -> dict[str, Any]:
    """What was trained, on what, and how it went."""
    dataset, network = parts.dataset, fitted[0].network
    sessions = [name for name in source.sessions if name not in parts.sessions.unused]
    return {
        "name": recipe.name,
        "system": recipe.model.system,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": {
            "kind": type(recipe.data).__struct_config__.tag,
            "subjects": list(dict.fromkeys(source.subject_of(name) for name in sessions)),
            "sessions": {name: source.subject_of(name) for name in sessions},
            "trained_on": dict(dataset.provenance),
        },
        "simulated": dataset.simulated,
        "split": {
            "declared": msgspec.to_builtins(recipe.split),
            "train": list(parts.sessions.train),
            "validation": list(parts.sessions.validation),
            "test": list(parts.sessions.test),
            "unused": list(parts.sessions.unused),
        },
        "seeds": list(recipe.seeds),
        "losses": list(recipe.loss),
        "train": describe(dataset.train),
        "init": [each.notes.get("init") for each in fitted],
        "best_epochs": [each.best_epoch for each in fitted],
        "learning_curves": [{name: list(curve) for name, curve in each.curves.items()} for each in fitted],
    }


def _trained(
    recipe: Recipe,
    source: TrialSource,
    parts: Parts,
    test: Trials | None,
    fitted: Sequence[Fitted],
    metrics: dict[str, Any],
    temperature: float,
    best: int,
) -> Trained:
    dataset = parts.dataset
    everyone = _kept(source.deployed(dataset))
    known = [dataset.train.subjects[at] for at in np.unique(dataset.train.subject)]
    subjects = [(name, _kept(source.deployed(dataset, name))) for name in known]
    deployments = deployments_of(everyone, subjects)
    gallery = _gallery(dataset, test)
    galleries = {
        task.name: gallery_rows(task, gallery, dataset.train)
        for task in recipe.tasks
        if isinstance(task, Retrieval) and gallery is not None
    }
    checkpoint = Checkpoint(
        name=recipe.name,
        recipe=recipe,
        contract=dataset.contract,
        conditioning=dataset.conditioning,
        window=dataset.window,
        markers=dict(dataset.markers),
        classes=dict(dataset.train.classes),
        shape=table_of(shape_of(dataset)),
        subjects=dataset.train.subjects,
        seeds=recipe.seeds,
        best=best,
        tasks=recipe.tasks,
        temperature=temperature,
        gallery=() if gallery is None else gallery.names,
        captions=() if gallery is None else gallery.captions,
        raw_starts=starts_of(deployments),
        provenance={
            "data": dict(dataset.provenance),
            "simulated": dataset.simulated,
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in ("torch", "numpy", "scipy", "safetensors")},
            "threads": torch.get_num_threads(),
            "commit": code_commit(),
        },
    )
    networks = tuple(each.network for each in fitted)
    return Trained(checkpoint, networks, deployments, galleries, dataset.positions, metrics)


def _gallery(dataset: Dataset, test: Trials | None) -> Gallery | None:
    """What a bundle chooses from: the candidates of the test, or without a test what was trained on."""
    if test is None:
        return dataset.train.gallery
    if test.gallery is None or test.item is None:
        return None
    return test.gallery.take(candidates(test, dataset.train))


def _kept(deployed: Deployed) -> Deployed:
    """With as many of its windows as are kept, those that lie in the raw piece among them."""
    count = max(KEPT_WINDOWS, len(deployed.raw_starts))
    labels = {name: values[:count] for name, values in deployed.labels.items()}
    return replace(deployed, windows=np.ascontiguousarray(deployed.windows[:count], np.float32), labels=labels)
