"""A training recipe: one TOML file that says everything a training depends on.

::

    name = "things-atm"
    seeds = [0, 1, 2]

    [data]                                   # rtdecode_models.data.spec, rtdecode_models.simulated.spec
    kind = "simulated"
    experiment = "things-eeg"

    [split]                                  # rtdecode_models.data.splits
    validation = { by = "item", share = 0.1 }

    [model]
    system = "atm"                           # and the system's own options

    [[loss]]
    kind = "infonce"
    target = "image"
    weight = 0.99

    [training]
    epochs = 40
    early_stopping = { monitor = "top1", patience = 10 }

    [[select.vary]]
    key = "training.learning_rate"
    values = [1e-4, 3e-4]
"""

import copy
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from rtdecode.errors import ConfigError
from rtdecode_models.data.spec import DataSpec
from rtdecode_models.data.splits import Split
from rtdecode_models.simulated.spec import Simulated
from rtdecode_models.training.losses import Spec, parse_loss
from rtdecode_models.training.losses_contrastive import BiMixCoSpec
from rtdecode_models.training.tasks import Task, tasks_of
from rtdecode_models.training.training_spec import Mixup, Noise, Shift, Training

#: Beyond it one step takes weights out of float32.
LARGEST_RATE = 1e30
#: Torch takes the process down where it cannot have as many threads as it is told to.
MOST_THREADS = 1024


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Init(_Part, frozen=True, kw_only=True):
    """Weights to begin with, from another checkpoint.

    Parameters
    ----------
    checkpoint : str
        Its folder, from where the command is run.
    seed : int, optional
        Which of its networks; the one of the same seed where it has that, else its first.
    prefix, to : str
        Parameters whose names begin with `prefix` are taken, under names that begin with `to` instead.
    skip : tuple of str
        Patterns of this network's parameters that stay at random ("reset").
    """

    checkpoint: str
    seed: int | None = None
    prefix: str = ""
    to: str = ""
    skip: tuple[str, ...] = ()


class Model(_Part, frozen=True, kw_only=True):
    """What is trained.

    Parameters
    ----------
    system : str
        A name of `rtdecode_models.systems.registry`, or ``package.module:function`` for one of your own.
    options : dict
        The system's own; in the TOML file they stand among the other keys.
    init : Init, optional
        In the TOML file also a plain string: the checkpoint.
    freeze : tuple of str
        Patterns of parameters that stay as they are.
    """

    system: str
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    init: Init | None = None
    freeze: tuple[str, ...] = ()


class LeaveOneOut(_Part, frozen=True, kw_only=True):
    """Trainings beside the main one.

    Parameters
    ----------
    validation : str, optional
        Each training session (or subject) is left out once and scored: what ``--select`` ranks settings by, and what
        probabilities are calibrated on. The test is never touched.
    test : str, optional
        Each session (or subject) is the test once, of networks that are trained on all others; there is no one
        checkpoint then, but one for each.
    """

    validation: Literal["session", "subject"] | None = None
    test: Literal["session", "subject"] | None = None


class Vary(_Part, frozen=True, kw_only=True):
    """One dimension of the grid: a key of the recipe, dotted, and the values it may take."""

    key: str
    values: tuple[Any, ...]


class Select(_Part, frozen=True, kw_only=True):
    """Choose among the grid's settings by held-out trials: ``leave_one_out.validation``, or the split's validation.

    `monitor`: the score of the first task that is to be best. By default ``nll`` for classes, a proper score, which few
    trials rank less by luck than they rank accuracies; ``mrr``, the mean reciprocal rank, for retrieval.
    """

    vary: tuple[Vary, ...] = ()
    monitor: Literal["accuracy", "nll", "top1", "top5", "mrr", ""] = ""


class Recipe(_Part, frozen=True, kw_only=True):
    """The whole file.

    The tables ``[[loss]]`` are kept as they are written; `losses` has them checked. `score` says what is scored where
    the losses do not: for losses of a system's own, and for systems that are fitted by a formula.
    """

    name: str
    data: DataSpec | Simulated
    model: Model
    loss: tuple[dict[str, Any], ...] = ()
    score: tuple[Task, ...] = ()
    split: Split = Split()
    training: Training = Training()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    leave_one_out: LeaveOneOut = LeaveOneOut()
    select: Select = Select()

    @property
    def losses(self) -> tuple[Spec, ...]:
        """The losses, in the order of the file."""
        return tuple(parse_loss(table) for table in self.loss)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is scored: the tables ``[[score]]``; without any, what the losses train."""
        return self.score or tasks_of(self.losses)


def read_recipe(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """Read and check a recipe.

    Returns
    -------
    tuple of Recipe and dict
        The recipe, and the plain table it was made from, which `variants` works on.

    Raises
    ------
    ConfigError
        The file cannot be read, a key is unknown or missing, or a value makes no sense; the key's place is named.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} is not TOML: {error}") from error
    recipe = parse_recipe(table, str(path))
    for setting, variant in variants(table, recipe.select, str(path)):
        parse_recipe(variant, f"{path}, with {describe(setting)}")
    return recipe, table


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe given as plain tables; `where` names it in errors."""
    try:
        recipe = msgspec.convert(_nested(table), Recipe)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    for place, loss in enumerate(recipe.loss):
        try:
            parse_loss(loss)
        except ConfigError as error:
            raise ConfigError(f"{where}: loss[{place}] {error}") from error
    for key, fine, expected in _rules(recipe):
        if not fine:
            raise ConfigError(f"{where}: {key} {expected}")
    return recipe


def _nested(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the system's own options in a table of their own."""
    model = table.get("model")
    if not isinstance(model, Mapping):
        return dict(table)
    ours = {key: value for key, value in model.items() if key in ("system", "init", "freeze")}
    options = {key: value for key, value in model.items() if key not in ours}
    if isinstance(ours.get("init"), str):
        ours["init"] = {"checkpoint": ours["init"]}
    return {**table, "model": {**ours, "options": options}}


def _rules(recipe: Recipe) -> Iterator[tuple[str, bool, str]]:
    """Place, whether it is fine, what was expected."""
    training = recipe.training
    yield "seeds", len(recipe.seeds) > 0, "is empty; expected at least one seed"
    yield "seeds", len(set(recipe.seeds)) == len(recipe.seeds), f"repeats a seed: {list(recipe.seeds)}"
    yield "seeds", all(0 <= seed < 2**63 for seed in recipe.seeds), f"are {list(recipe.seeds)}; expected 0 to 2^63 - 1"
    yield "training.epochs", training.epochs >= 1, f"is {training.epochs}; expected 1 or more"
    yield "training.batch_size", training.batch_size >= 2, f"is {training.batch_size}; expected 2 or more (batch norm)"
    rates = {"training.learning_rate": training.learning_rate}
    rates |= {
        f"training.groups[{at}].learning_rate": group.learning_rate
        for at, group in enumerate(training.groups)
        if group.learning_rate is not None
    }
    for key, rate in rates.items():
        yield key, 0 < rate <= LARGEST_RATE, f"is {rate}; expected a number above 0, at most {LARGEST_RATE:g}"
    decays = {"training.weight_decay": training.weight_decay}
    decays |= {
        f"training.groups[{at}].weight_decay": group.weight_decay
        for at, group in enumerate(training.groups)
        if group.weight_decay is not None
    }
    for key, decay in decays.items():
        yield key, 0 <= decay < math.inf, f"is {decay}; expected 0 or more"
    yield "training.betas", all(0 <= beta < 1 for beta in training.betas), f"are {training.betas}; expected 0 to 1"
    warmup = training.schedule.warmup
    yield "training.schedule.warmup", 0 <= warmup < 1, f"is {warmup}; expected a share from 0 to below 1"
    yield from ((f"training.schedule.{key}", fine, says) for key, fine, says in training.schedule.rules())
    threads = training.threads
    yield "training.threads", 1 <= threads <= MOST_THREADS, f"is {threads}; expected 1 to {MOST_THREADS}"
    minutes = training.save_minutes
    yield "training.save_minutes", minutes >= 0, f"is {minutes}; expected minutes, 0 or more"
    clip = training.clip_norm
    yield "training.clip_norm", clip is None or clip > 0, f"is {clip}; expected a norm above 0"
    for at, augment in enumerate(training.augment):
        where = f"training.augment[{at}]"
        bounds = f"counts from {augment.start} to {augment.stop}; expected shares of the training, in order"
        yield where, 0 <= augment.start < augment.stop <= 1, bounds
        share = getattr(augment, "share", 1.0)
        yield f"{where}.share", 0 <= share <= 1, f"is {share}; expected 0 to 1"
        if isinstance(augment, Mixup):
            yield f"{where}.alpha", 0 < augment.alpha < math.inf, f"is {augment.alpha}; expected a number above 0"
        if isinstance(augment, Shift):
            yield f"{where}.seconds", 0 <= augment.seconds < math.inf, f"is {augment.seconds}; expected 0 or more"
        if isinstance(augment, Noise):
            yield f"{where}.sd", 0 <= augment.sd < math.inf, f"is {augment.sd}; expected 0 or more"
    stopping = training.early_stopping
    if stopping is not None:
        patience = stopping.patience
        yield "training.early_stopping.patience", patience >= 1, f"is {patience}; expected 1 epoch or more"
        needed = stopping.monitor == "train_loss" or recipe.split.validation is not None
        yield "training.early_stopping", needed, "needs trials to watch: declare split.validation"
    if any(isinstance(loss, BiMixCoSpec) for loss in recipe.losses):
        mixed = any(isinstance(augment, Mixup) for augment in training.augment)
        yield "training.augment", mixed, "has no mixup, which the loss bimixco is made for"
    held = recipe.leave_one_out.validation is not None or recipe.split.validation is not None
    yield "select.vary", not recipe.select.vary or held, "needs leave_one_out.validation or split.validation"
    for at, vary in enumerate(recipe.select.vary):
        yield f"select.vary[{at}].values", len(vary.values) > 0, f"is empty; expected values for {vary.key!r}"


def variants(
    table: Mapping[str, Any], select: Select, where: str = "the recipe"
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every setting of the grid, as what it sets (key -> value) and the whole table with that set."""
    if not select.vary:
        return
    keys = [vary.key for vary in select.vary]
    for values in itertools.product(*(vary.values for vary in select.vary)):
        setting = dict(zip(keys, values, strict=True))
        changed = copy.deepcopy(dict(table))
        for key, value in setting.items():
            _replace(changed, key, value, where)
        yield setting, changed


def _replace(table: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key, tables merging into tables; numbers step into lists."""
    *path, last = key.split(".")
    at: Any = table
    try:
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        slot: Any = int(last) if isinstance(at, list) else last
        present = at[slot] if isinstance(at, list) else at.get(slot)
        at[slot] = present | value if isinstance(present, dict) and isinstance(value, dict) else copy.deepcopy(value)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{where}: select.vary names {key!r}, which is no place in this recipe") from error


def describe(setting: Mapping[str, Any]) -> str:
    """A setting in one line."""
    return ", ".join(f"{key} = {value}" for key, value in setting.items())
