"""What ``rtdecode train`` does: recipes in, checkpoints out, by this process, by several, or by a cluster."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rtdecode.errors import ConfigError, ProcessError
from rtdecode_models.data.source import TrialSource
from rtdecode_models.training.checkpoint import Trained, pretty
from rtdecode_models.training.figures import draw_figures
from rtdecode_models.training.fit import Hooks
from rtdecode_models.training.folder import RESUME, claimed, folders_of, write_whole
from rtdecode_models.training.open import open_source
from rtdecode_models.training.parts import Workshop
from rtdecode_models.training.recipe import Recipe, read_recipe
from rtdecode_models.training.stop import Stop
from rtdecode_models.training.train import Told, all_units, each_test, select, to_select, train
from rtdecode_models.training.units import Here, Runner
from rtdecode_models.training.world import World, enter, leave


def run(
    paths: Sequence[Path],
    *,
    data: Path,
    out: Path,
    select: bool = False,
    device: str = "auto",
    dask: str | None = None,
    console: Console | None = None,
    watch: Callable[[], bool] = lambda: False,
) -> list[tuple[Path, dict[str, Any]]]:
    """Train recipes and write their checkpoints.

    Parameters
    ----------
    paths : sequence of Path
        The recipes.
    data : Path
        The folder of their data.
    out : Path
        Where the checkpoint goes; of several recipes, each goes to a folder of its own in it.
    select : bool
        Whether to try the grid first.
    device : str
        ``cpu``, ``cuda`` or ``auto``.
    dask : str, optional
        Address of a scheduler.
    console : Console, optional
        For progress.
    watch : callable
        Asked again and again whether to stop, as Ctrl-C does.

    Returns
    -------
    list of tuple
        Each checkpoint's folder, and its metrics. Empty in the processes that only help another.

    Raises
    ------
    ConfigError, RecordingError
        A recipe or its data are wrong.
    ProcessError
        Another process of the same training, or the cluster's scheduler, is gone; the same call goes on.
    Interrupted
        The user asked to stop; the same call goes on.
    """
    recipes = [read_recipe(path) for path in paths]
    for path, (recipe, _) in zip(paths, recipes, strict=True):
        if select and not recipe.select.vary:
            raise ConfigError(f"{path}: --select was given, but the recipe has no [[select.vary]]")
    names = [recipe.name for recipe, _ in recipes]
    folders = [out] if len(recipes) == 1 else folders_of(names, out, "recipe")
    console = console or Console(stderr=True, highlight=False)
    world = enter(device) if dask is None else World()
    try:
        with Stop() as asked, ExitStack() as claims:
            for folder, name in zip(folders, names, strict=True):
                if world.first:
                    claims.enter_context(claimed(folder, name))
            bench = _Bench(
                data, world, lambda: asked() or watch(), console if world.first else Console(quiet=True), dask
            )
            given = []
            for folder, (recipe, table) in zip(folders, recipes, strict=True):
                given += bench.train(recipe, table if select else None, folder)
        return given if world.first else []
    except RuntimeError as error:
        if world.size == 1 or not any(backend in str(error) for backend in ("gloo", "NCCL")):
            raise
        raise ProcessError(
            "another process of this training is gone; it says why. The same command goes on from the last state"
        ) from error
    finally:
        leave(world)


def open_data(recipe: Recipe, folder: Path) -> TrialSource:
    """The data of a recipe, of whichever kind."""
    return open_source(recipe.data, folder)


class _Bench:
    """Everything that trainings of one command share."""

    def __init__(self, data: Path, world: World, stop: Callable[[], bool], console: Console, dask: str | None) -> None:
        self.data, self.world, self.stop, self.console, self.dask = data, world, stop, console, dask
        self.workshop = Workshop(lambda recipe: open_data(recipe, data))

    def train(self, recipe: Recipe, table: dict[str, Any] | None, folder: Path) -> list[tuple[Path, dict[str, Any]]]:
        """One recipe; with its table, its grid first."""
        resume = folder / RESUME
        selection: list[dict[str, Any]] = []
        if table is not None:
            count = to_select(table, recipe, self.workshop)
            with self._runner("selecting", count, recipe, resume) as (runner, told):
                recipe, selection = select(table, recipe, self.workshop, runner, told)
            self.console.print(f"selected: {selection[0]['setting']}", markup=False)
        tests = list(each_test(recipe, self.workshop))
        if tests:
            folders = folders_of([name for name, _, _ in tests], folder, f"{recipe.leave_one_out.test} that is tested,")
            units = [unit for _, prefix, each in tests for unit in all_units(each, self.workshop, prefix)]
            with self._runner("training", len(units), recipe, resume) as (runner, told):
                runner.announce(units)
                given = []
                for own, (_, prefix, each) in zip(folders, tests, strict=True):
                    trained = train(each, self.workshop, runner, told, selection, prefix)
                    given.append((own, self._write(trained, own)))
            if self.world.first:
                summary = _summary(recipe, [name for name, _, _ in tests], given)
                write_whole(folder, {"metrics.json": pretty(summary)})
        else:
            count = len(all_units(recipe, self.workshop))
            with self._runner("training", count, recipe, resume) as (runner, told):
                trained = train(recipe, self.workshop, runner, told, selection)
            given = [(folder, self._write(trained, folder))]
        if self.world.first:
            shutil.rmtree(resume, ignore_errors=True)
        return given

    def _write(self, trained: Trained, folder: Path) -> dict[str, Any]:
        if self.world.first:
            trained.save(folder)
            draw_figures(trained.metrics, folder)
        return dict(trained.metrics)

    @contextmanager
    def _runner(self, what: str, networks: int, recipe: Recipe, resume: Path) -> Iterator[tuple[Runner, Told]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        epochs = recipe.training.epochs if self.dask is None else 1
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=networks * epochs)
            done = [0]

            def network() -> None:
                done[0] += 1
                bar.update(task, completed=done[0] * epochs)

            told = Told(lambda line: self.console.print(line, markup=False), network)
            if self.dask is not None:
                from rtdecode_models.training.cluster import Cluster

                cluster = Cluster(self.dask, self.data, resume, self.workshop, self.stop)
                try:
                    yield cluster, told
                finally:
                    cluster.close()
                return
            hooks = Hooks(epoch=lambda _: bar.advance(task), stop=self.stop, folder=resume)
            yield Here(self.workshop, hooks, self.world), told


def _summary(recipe: Recipe, names: Sequence[str], given: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """The tests of all that were left out once, together: each score's mean over them."""
    tasks: dict[str, Any] = {}
    for (_, metrics), name in zip(given, names, strict=True):
        for task, scored in metrics["test"]["tasks"].items():
            for score, value in scored["scores"].items():
                tasks.setdefault(task, {}).setdefault(score, {})[name] = value["mean"]
    for scores in tasks.values():
        for score, by_name in scores.items():
            values = list(by_name.values())
            mean = sum(values) / len(values)
            scores[score] = {"mean": mean, "by_test": by_name}
    return {"name": recipe.name, "tested_each": recipe.leave_one_out.test, "tests": list(names), "tasks": tasks}
