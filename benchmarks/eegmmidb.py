"""Fists against feet on PhysioNet's EEG Motor Movement/Imagery recordings: ensembles beside causal CSP and LDA.

Every number comes from the same windows: cut by the live decoder, after causal filters. Nothing is fitted on a test
run.

    python benchmarks/eegmmidb.py ../shared/data/eegmmidb [--select] [--json]
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import torch

from rtdecode_models.data.spec import NOTHING_FITTED, Recordings
from rtdecode_models.training.parts import Workshop
from rtdecode_models.training.recipe import Model, Recipe, read_recipe
from rtdecode_models.training.run import open_data
from rtdecode_models.training.train import Told, select, train
from rtdecode_models.training.units import Here

RECIPES = Path(__file__).resolve().parents[1] / "models" / "recipes"
NAMES = ("eegmmidb_fists_feet", "eegmmidb_s015_fists_feet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds S001/S001R06.edf and so on")
    parser.add_argument("--select", action="store_true", help="run the first recipe's grid too (about five minutes)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    if arguments.select:
        report["selection"] = run_selection(arguments.data)
    for name in NAMES:
        recipe, _ = read_recipe(RECIPES / f"{name}.toml")
        started = time.perf_counter()
        metrics = trained(recipe, arguments.data)
        seconds = time.perf_counter() - started
        report[name] = {
            "held_out": metrics.get("held_out"),
            "calibration": metrics["calibration"],
            "test": test_of(metrics),
            "csp_lda": test_of(trained(csp_lda(recipe), arguments.data)),
            "seconds": seconds,
        }
        show(name, metrics, report[name])
    if arguments.json:
        print(json.dumps(report))


def trained(recipe: Recipe, data: Path) -> dict[str, Any]:
    """Train, calibrate and test as a recipe says; what was measured."""
    workshop = Workshop(lambda recipe: open_data(recipe, data))
    return dict(train(recipe, workshop, Here(workshop)).metrics)


def csp_lda(recipe: Recipe) -> Recipe:
    """CSP and LDA on the windows of a recipe, without its alignment and scaling."""
    assert isinstance(recipe.data, Recordings)
    return msgspec.structs.replace(
        recipe,
        data=msgspec.structs.replace(recipe.data, fit=NOTHING_FITTED),
        model=Model(system="csp-lda"),
        seeds=(0,),
    )


def test_of(metrics: dict[str, Any]) -> dict[str, Any]:
    scored: dict[str, Any] = metrics["test"]["tasks"]["logits/label"]
    return scored


def run_selection(data: Path) -> list[Any]:
    recipe, table = read_recipe(RECIPES / f"{NAMES[0]}.toml")
    workshop = Workshop(lambda recipe: open_data(recipe, data))
    _, rows = select(table, recipe, workshop, Here(workshop), Told(say=print))
    print(f"lowest negative log-likelihood: {rows[0]['setting']}\n")
    return rows


def show(name: str, metrics: dict[str, Any], result: dict[str, Any]) -> None:
    split, test, held = metrics["split"], result["test"], result["held_out"]
    print(f"{name}: train {', '.join(split['train'])}; test {', '.join(split['test'])}")
    if held:
        print(
            f"  runs left out in turn   by seed {held['right_by_seed']} ensemble {held['ensemble']['right']} "
            f"of {held['trials']}"
        )
    print(f"  test                    by seed {test['right_by_seed']} ensemble {test['ensemble']['right']} ", end="")
    print(f"of {test['trials']}")
    print(f"  confusion (rows truth)  {test['labels']} {test['confusion']}")
    print(f"  causal CSP and LDA      {result['csp_lda']['ensemble']['right']} of {test['trials']}, same windows")
    print(f"  temperature {result['calibration']['temperature']:.3f}; {result['seconds']:.0f} s\n")


if __name__ == "__main__":
    main()
