"""The verb ``rtdecode train``."""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rtdecode.errors import ConfigError

if TYPE_CHECKING:
    from rtdecode_models.training.checkpoint import Trained
    from rtdecode_models.training.recipe import Recipe

_NEEDED = ("torch", "safetensors")


def train(
    recipe: Annotated[Path, typer.Argument(help="The TOML file that says what to train on what.")],
    data: Annotated[Path, typer.Option(help="The folder that the recipe's recordings are relative to.")],
    out: Annotated[Path, typer.Option(help="The folder for the checkpoint.")],
    select: Annotated[
        bool, typer.Option("--select", help="Try the recipe's grid first, on the training recordings only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one line of JSON.")] = False,
) -> None:
    """Train an encoder from recordings, as a recipe says.

    Example: rtdecode train models/recipes/eegmmidb_fists_feet.toml --data eegmmidb --out checkpoints/fists-feet
    """
    require_training_packages()
    import torch

    from rtdecode_models.training.recipe import read_recipe
    from rtdecode_models.training.train import Progress as Told
    from rtdecode_models.training.train import Workshop, total_epochs
    from rtdecode_models.training.train import select as select_setting
    from rtdecode_models.training.train import train as train_recipe

    # One thread: these networks are too small for more, and the sum of a batch then never depends on the machine.
    torch.set_num_threads(1)
    console = Console(stderr=as_json, highlight=False)
    chosen, table = read_recipe(recipe)
    if select and not chosen.select.vary:
        raise ConfigError(f"{recipe}: --select was given, but the recipe has no [[select.vary]]")
    workshop = Workshop(chosen, data)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    selection: list[Any] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        if select:
            task = bar.add_task("selecting", total=total_epochs(table, chosen))
            told = Told(lambda line: console.print(line, markup=False), lambda: bar.advance(task))
            chosen, selection = select_setting(table, chosen, workshop, told)
            console.print(f"selected: {selection[0]['setting']}", markup=False)
        task = bar.add_task("training", total=total_epochs({}, chosen))
        trained = train_recipe(chosen, data, workshop, Told(epoch=lambda: bar.advance(task)), selection)
    trained.save(out)
    if as_json:
        typer.echo(json.dumps({"checkpoint": str(out), "metrics": dict(trained.metrics)}))
        return
    console.print(_report(chosen, trained))
    console.print(f"written: {out}", markup=False)


def require_training_packages() -> None:
    """Raise `ConfigError` naming the extra to install where torch or safetensors is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'{" and ".join(missing)} is not installed; run: pip install "rtdecode[train,files]"')


def _report(recipe: "Recipe", trained: "Trained") -> Table:
    """One line for each split: the seeds, the ensemble, chance."""
    metrics = trained.metrics
    table = Table(title=recipe.name)
    for heading in ("split", "trials", "right, by seed", "right, ensemble", "chance"):
        table.add_column(heading)
    for split, title in (("leave_one_run_out", "training runs, each left out once"), ("test", "test recordings")):
        result = metrics.get(split)
        if result:
            seeds = " ".join(str(n) for n in result["right_by_seed"])
            chance = f"{metrics['chance'] * result['trials']:.1f}"
            table.add_row(title, str(result["trials"]), seeds, str(result["right"]), chance)
    return table
