"""What networks say of trials that were held out of their training: for choosing settings, and for calibration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode.heads.calibrate import calibrate_temperature
from rtdecode_models.data.splits import Split, folds
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.training.evaluate import class_report, find, predict
from rtdecode_models.training.fit import RISING
from rtdecode_models.training.parts import Workshop
from rtdecode_models.training.recipe import Recipe
from rtdecode_models.training.scores import log_probabilities, over_seeds, pooled, rank_scores
from rtdecode_models.training.tasks import Classes, Task
from rtdecode_models.training.units import Unit, units_of


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What the seeds' networks said of what was left out once.

    Parameters
    ----------
    name : str
        What was left out.
    members : ndarray of float64, shape (seeds, n, classes), or of int64, shape (seeds, n)
        Log-probabilities; or, for retrieval, the rank of each trial's stimulus.
    y : ndarray of int64, shape (n,)
        The class; empty for retrieval.
    candidates : int
        Classes, or stimuli that were chosen from.
    """

    name: str
    members: NDArray[Any]
    y: NDArray[np.int64]
    candidates: int

    @property
    def ensemble(self) -> NDArray[np.float64]:
        """Log of the seeds' mean probabilities, shape (n, classes)."""
        return pooled(self.members)


def held_out_units(recipe: Recipe, workshop: Workshop, prefix: str = "") -> list[tuple[str, Split, list[Unit]]]:
    """For each training session or subject that is left out once: its name, the split, the networks to train."""
    by = recipe.leave_one_out.validation
    if by is None:
        return []
    return [
        (name, split, units_of(recipe, split, f"{prefix}without-{place}-"))
        for place, (name, split) in enumerate(folds(recipe.split, workshop.source(recipe), by))
    ]


def fold_of(
    networks: Sequence[Encoder], recipe: Recipe, split: Split, workshop: Workshop, name: str, *, test: bool
) -> Fold:
    """What networks say of a split's test part, or of its validation part."""
    parts = workshop.parts(recipe, split)
    trials = workshop.test(recipe, split) if test else parts.validation
    assert trials is not None
    task = first_task(recipe)
    said = [predict(network, trials, [task.output])[task.output] for network in networks]
    if isinstance(task, Classes):
        logs = np.stack([log_probabilities(each) for each in said])
        return Fold(name, logs, trials.labels[task.label], logs.shape[2])
    found = [find(each, trials, parts.dataset.train, task) for each in said]
    return Fold(name, np.stack([ranks for ranks, _ in found]), np.empty(0, np.int64), found[0][1])


def first_task(recipe: Recipe) -> Task:
    """What selection goes by; raise `ConfigError` where nothing is scored."""
    if not recipe.tasks:
        raise ConfigError("nothing is scored, so nothing can be held out for it; declare a [[score]]")
    return recipe.tasks[0]


def report(held: Sequence[Fold], recipe: Recipe, classes: Sequence[str]) -> dict[str, Any]:
    """Scores over all folds together, as a part of ``metrics.json`` has them."""
    members = np.concatenate([fold.members for fold in held], axis=1)
    names = {"left_out": [fold.name for fold in held]}
    task = first_task(recipe)
    if isinstance(task, Classes):
        return names | class_report(members, np.concatenate([fold.y for fold in held]), classes, ordered=task.ordered)
    fewest = min(fold.candidates for fold in held)
    scores = over_seeds([rank_scores(each, fewest) for each in members])
    return names | {
        "kind": "retrieve",
        "candidates": fewest,
        "chance": {name: int(name[3:]) / fewest for name in scores if name.startswith("top")},
        "trials": members.shape[1],
        "scores": scores,
    }


def merit(scored: dict[str, Any], recipe: Recipe) -> float:
    """What a setting is ranked by: more is better."""
    classes = isinstance(first_task(recipe), Classes)
    monitor = recipe.select.monitor or ("nll" if classes else "mrr")
    values = scored["ensemble"] if classes else {name: score["mean"] for name, score in scored["scores"].items()}
    if monitor not in values:
        raise ConfigError(f"select.monitor is {monitor!r}, which is not measured here; there is {', '.join(values)}")
    return float(values[monitor] if monitor in RISING else -values[monitor])


def calibrate(held: Sequence[Fold]) -> dict[str, Any]:
    """The temperature of the held-out ensemble's logits: ``temperature``, and ``nll`` with it or ``why_not``.

    1 where the held-out windows determine none: there are none, or all are right with room to spare.
    """
    if not held:
        return {"temperature": 1.0, "why_not": "nothing was held out of the training"}
    said = np.concatenate([fold.ensemble for fold in held])
    y = np.concatenate([fold.y for fold in held])
    if (said.argmax(axis=1) == y).all():
        return {"temperature": 1.0, "why_not": f"all {len(y)} held-out windows are right: the sharper, the better"}
    try:
        found = calibrate_temperature(said, y)
    except ValueError as error:
        return {"temperature": 1.0, "why_not": str(error)}
    return {"temperature": found.temperature, "nll": found.nll, "nll_before": found.nll_before, "on": _names(held)}


def _names(held: Sequence[Fold]) -> list[str]:
    return [fold.name for fold in held]


def each(networks: Iterator[Any], recipe: Recipe) -> list[Encoder]:
    """The next networks of a runner: one for each seed."""
    return [next(networks).network for _ in recipe.seeds]
