"""A training recipe: one TOML file that says everything a training depends on.

::

    name = "fists-feet"
    seeds = [0, 1, 2, 3, 4]

    [recordings]
    train = ["S001R06.edf", "S001R10.edf"]
    test = ["S001R14.edf"]

    [labels]
    fists = ["T1"]
    feet = ["T2"]

    [window]
    tmin = 0.5
    tmax = 3.5

    [[conditioning.stream]]
    step = "filter"
    low = 8.0
    high = 30.0

    [fit]
    alignment_shrinkage = 0.1

    [model]
    width = 32

    [training]
    epochs = 100

    [[select.vary]]
    key = "model.width"
    values = [16, 32]
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
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked


class Recordings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files to train on and to test on, relative to the data folder. Nothing is ever fitted on a test file."""

    train: tuple[str, ...]
    test: tuple[str, ...] = ()


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The window around each marker, [tmin, tmax) seconds."""

    tmin: float
    tmax: float


class Fit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stream steps whose numbers come from the training windows; they follow the declared conditioning.

    `alignment`: Euclidean alignment, one fixed matrix R^(-1/2) from the mean covariance R of the training windows.
    `alignment_shrinkage`: R is replaced by (1 - s) R + s trace(R)/n I, so that weak directions are not blown up.
    `standardise`: then every channel is brought to mean 0 and standard deviation 1 over the training windows.
    """

    alignment: bool = True
    alignment_shrinkage: float = 0.1
    standardise: bool = True


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the EEG-SimpleConv."""

    width: int = 32
    n_blocks: int = 1
    kernel: int = 9
    dropout: float = 0.0


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one network is fitted.

    Adam (AdamW where `weight_decay` is set), the learning rate divided by ten after `drop_at` of the epochs; `mixup`
    blends pairs of windows and their labels by a uniform weight.
    """

    epochs: int = 60
    batch_size: int = 8
    learning_rate: float = 1e-3
    drop_at: float = 0.8
    weight_decay: float = 0.0
    mixup: bool = True


class Vary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One dimension of the grid: a key of the recipe, dotted, and the values it may take."""

    key: str
    values: tuple[Any, ...]


class Select(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Choose among the grid's settings by leaving out one training recording at a time.

    The setting whose ensemble gives the held-out windows the lowest mean negative log-likelihood is taken: a proper
    score, which few trials rank less by luck than they rank accuracies.
    """

    method: Literal["leave-one-run-out"] = "leave-one-run-out"
    vary: tuple[Vary, ...] = ()


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    name: str
    recordings: Recordings
    labels: dict[str, tuple[str, ...]]
    window: Window
    conditioning: Conditioning = Conditioning()
    fit: Fit = Fit()
    model: Model = Model()
    training: Training = Training()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    select: Select = Select()

    @property
    def markers(self) -> tuple[str, ...]:
        """All marker patterns, in the order of the labels."""
        return tuple(pattern for patterns in self.labels.values() for pattern in patterns)

    @property
    def locked(self) -> Locked:
        """The window as a decoder takes it."""
        return Locked(tmin=self.window.tmin, tmax=self.window.tmax, markers=self.markers)


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
        recipe = msgspec.convert(table, Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
    for place, fine, expected in _rules(recipe):
        if not fine:
            raise ConfigError(f"{where}: {place} {expected}")
    return recipe


def _rules(recipe: Recipe) -> Iterator[tuple[str, bool, str]]:
    """Place, whether it is fine, what was expected."""
    recordings, training, model = recipe.recordings, recipe.training, recipe.model
    both = sorted(set(recordings.train) & set(recordings.test))
    yield "recordings.train", len(recordings.train) > 0, "names no file; expected at least one"
    yield "recordings.test", not both, f"names {both} too, which recordings.train trains on; a test file must be unseen"
    yield "labels", len(recipe.labels) >= 2, f"has {len(recipe.labels)} entries; expected two labels or more"
    for label, patterns in recipe.labels.items():
        yield f"labels.{label}", len(patterns) > 0, "names no marker; expected at least one pattern"
    window = recipe.window
    yield "window", window.tmin < window.tmax, f"ends at {window.tmax} s, before it starts at {window.tmin} s"
    shrinkage = recipe.fit.alignment_shrinkage
    yield "fit.alignment_shrinkage", 0 <= shrinkage <= 1, f"is {shrinkage}; expected a share from 0 to 1"
    yield "model.width", model.width >= 1, f"is {model.width}; expected 1 or more"
    yield "model.n_blocks", model.n_blocks >= 0, f"is {model.n_blocks}; expected 0 or more"
    yield "model.kernel", model.kernel >= 1, f"is {model.kernel}; expected 1 or more samples"
    yield "model.dropout", 0 <= model.dropout < 1, f"is {model.dropout}; expected a share from 0 to below 1"
    yield "training.epochs", training.epochs >= 1, f"is {training.epochs}; expected 1 or more"
    yield "training.batch_size", training.batch_size >= 2, f"is {training.batch_size}; expected 2 or more (batch norm)"
    rate = training.learning_rate
    yield "training.learning_rate", 0 < rate < math.inf, f"is {rate}; expected a number above 0"
    yield "training.drop_at", 0 <= training.drop_at <= 1, f"is {training.drop_at}; expected a share from 0 to 1"
    yield "training.weight_decay", training.weight_decay >= 0, f"is {training.weight_decay}; expected 0 or more"
    yield "seeds", len(recipe.seeds) > 0, "is empty; expected at least one seed"
    yield "seeds", len(set(recipe.seeds)) == len(recipe.seeds), f"repeats a seed: {list(recipe.seeds)}"
    runs = len(recordings.train)
    yield "select.vary", not recipe.select.vary or runs >= 2, f"leaves out one run at a time, but only {runs} is given"


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
