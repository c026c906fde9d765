"""The verb ``rtdecode train``."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rtdecode.errors import ConfigError
from rtdecode_models.training.figures import chance_text

_NEEDED = ("torch", "safetensors")

#: The exit code of a training that was told to stop, as shells have it for Ctrl-C.
STOPPED = 130


def train(
    recipes: Annotated[list[Path], typer.Argument(help="The TOML files that say what to train on what.")],
    data: Annotated[Path, typer.Option(help="The folder that the recipes' data are relative to.")],
    out: Annotated[
        Path, typer.Option(help="The folder for the checkpoint; of several recipes, the folder for their folders.")
    ],
    select: Annotated[
        bool, typer.Option("--select", help="Try the recipe's grid first, on the training part only.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    dask: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler; its workers train the networks.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one line of JSON.")] = False,
) -> None:
    """Train the system of a recipe on its data; a training that was broken off goes on where it was.

    Example: rtdecode train models/recipes/eegmmidb_fists_feet.toml --data eegmmidb --out checkpoints/fists-feet
    """
    require_training_packages()
    from rtdecode_models.training.fit import Interrupted
    from rtdecode_models.training.run import run

    console = Console(stderr=True, highlight=False)
    try:
        given = run(recipes, data=data, out=out, select=select, device=device, dask=dask, console=console)
    except Interrupted:
        console.print("stopped; the state is saved. Run the same command again to go on from here.", markup=False)
        raise typer.Exit(STOPPED) from None
    if as_json:
        for checkpoint, metrics in given:
            typer.echo(json.dumps({"checkpoint": str(checkpoint), "metrics": metrics}))
        return
    shown = Console(highlight=False)
    for checkpoint, metrics in given:
        shown.print(report(metrics))
        shown.print(f"written: {checkpoint}", markup=False)


def require_training_packages() -> None:
    """Raise `ConfigError` naming the extra to install where torch or safetensors is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'{" and ".join(missing)} is not installed; run: pip install "rtdecode[train,files]"')


def report(metrics: dict[str, Any]) -> Table:
    """One line for each part and task: the score over seeds, the ensemble's, chance, the ceiling."""
    table = Table(title=metrics["name"])
    for heading in (
        "part",
        "output",
        "trials",
        "score",
        "mean (sd) over seeds",
        "ensemble",
        "chance",
        "of the ceiling",
    ):
        table.add_column(heading, overflow="fold")
    parts = [("held out", {"first task": metrics["held_out"]})] if "held_out" in metrics else []
    parts += [(part, metrics[part]["tasks"]) for part in ("validation", "test") if part in metrics]
    for part, tasks in parts:
        for name, scored in tasks.items():
            for score in [score for score in scored["chance"] if score in scored["scores"]]:
                found = scored["scores"][score]
                spread = "" if found["sd"] is None else f" ({found['sd']:.3f})"
                ensemble = scored.get("ensemble", {}).get(score)
                ceiling = scored.get("ceiling", {}).get(score, {}).get("share")
                table.add_row(
                    part,
                    name,
                    str(scored["trials"]),
                    score,
                    f"{found['mean']:.3f}{spread}",
                    "" if ensemble is None else f"{ensemble:.3f}",
                    chance_text(scored, score),
                    "" if ceiling is None else f"{ceiling:.2f}",
                )
    return table
