"""The trainings that a recipe asks for, each one network, and what runs them: this process, or a cluster."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from rtdecode_models.data.shape import shape_of
from rtdecode_models.data.splits import Split
from rtdecode_models.training.fit import Fitted, Hooks, Job, fit
from rtdecode_models.training.parts import Workshop
from rtdecode_models.training.recipe import Recipe
from rtdecode_models.training.tasks import check_tasks
from rtdecode_models.training.world import World


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One network of a training, said in a way that another machine understands.

    Parameters
    ----------
    name : str
        Unlike any other of this training; its state is kept under it.
    recipe : Recipe
        How, and on which data.
    split : Split
        The recipe's, or one that leaves something out.
    seed : int
        Of this network.
    """

    name: str
    recipe: Recipe
    split: Split
    seed: int


class Runner(Protocol):
    """Whatever trains networks."""

    def announce(self, units: Sequence[Unit]) -> None:
        """These will be asked for; where several can be trained at once, they are begun."""
        ...

    def run(self, units: Sequence[Unit]) -> Iterator[Fitted]:
        """The trained networks, in the order of the units."""
        ...


class Here:
    """Trains one after the other in this process.

    Parameters
    ----------
    workshop : Workshop
        The data.
    hooks : Hooks
        Told of each epoch; says when to stop.
    world : World
        The processes that share each network's batches.
    """

    def __init__(self, workshop: Workshop, hooks: Hooks | None = None, world: World | None = None) -> None:
        self._workshop, self._hooks, self._world = workshop, hooks or Hooks(), world or World()

    def announce(self, units: Sequence[Unit]) -> None:
        """Nothing: one at a time."""

    def run(self, units: Sequence[Unit]) -> Iterator[Fitted]:
        """Train each when it is asked for."""
        for unit in units:
            yield fit(job_of(unit, self._workshop), self._hooks, self._world)


def job_of(unit: Unit, workshop: Workshop) -> Job:
    """A unit with its data; raise `ConfigError` where these lack what is to be scored."""
    source = workshop.source(unit.recipe)
    parts = workshop.parts(unit.recipe, unit.split)
    held = [source.subject_of(name) for name in (*parts.sessions.validation, *parts.sessions.test)]
    tasks = unit.recipe.tasks
    check_tasks(tasks, parts.dataset.train)
    return Job(
        name=unit.name,
        recipe=unit.recipe,
        seed=unit.seed,
        train=parts.dataset.train,
        validation=parts.validation,
        tasks=tasks,
        shape=shape_of(parts.dataset),
        strangers=tuple(dict.fromkeys(name for name in held if name not in parts.dataset.train.subjects)),
    )


def units_of(recipe: Recipe, split: Split, prefix: str = "") -> list[Unit]:
    """One unit for each seed of a recipe."""
    return [
        Unit(name=re.sub(r"[^\w.-]", "_", f"{prefix}seed-{seed}"), recipe=recipe, split=split, seed=seed)
        for seed in recipe.seeds
    ]
