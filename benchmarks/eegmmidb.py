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

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh

from rtdecode.stream.fit import ledoit_wolf
from rtdecode_models.data.recordings import Epochs, epochs, read_recording
from rtdecode_models.training.recipe import Recipe, read_recipe
from rtdecode_models.training.train import Progress, Workshop, select, train

RECIPES = Path(__file__).resolve().parents[1] / "models" / "recipes"
NAMES = ("eegmmidb_fists_feet", "eegmmidb_s015_fists_feet")
CSP_FILTERS = 6


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
        workshop = Workshop(recipe, arguments.data)
        metrics = train(recipe, arguments.data, workshop, Progress()).metrics
        seconds = time.perf_counter() - started
        report[name] = {
            "leave_one_run_out": metrics["leave_one_run_out"],
            "calibration": metrics["calibration"],
            "test": metrics["test"],
            "csp_lda_right": csp_lda(recipe, workshop, arguments.data),
            "seconds": seconds,
        }
        show(name, recipe, report[name])
    if arguments.json:
        print(json.dumps(report))


def run_selection(data: Path) -> list[Any]:
    recipe, table = read_recipe(RECIPES / f"{NAMES[0]}.toml")
    _, rows = select(table, recipe, Workshop(recipe, data), Progress(say=print))
    print(f"lowest negative log-likelihood: {rows[0]['setting']}\n")
    return rows


def show(name: str, recipe: Recipe, result: dict[str, Any]) -> None:
    test, held = result["test"], result["leave_one_run_out"]
    print(f"{name}: train {', '.join(recipe.recordings.train)}; test {', '.join(recipe.recordings.test)}")
    if held:
        print(f"  runs left out in turn   by seed {held['right_by_seed']} ensemble {held['right']} of {held['trials']}")
    print(f"  test                    by seed {test['right_by_seed']} ensemble {test['right']} of {test['trials']}")
    print(f"  confusion (rows truth)  {test['labels']} {test['confusion']}")
    print(f"  causal CSP and LDA      {result['csp_lda_right']} of {test['trials']}, same windows")
    print(f"  temperature {result['calibration']['temperature']:.3f}; {result['seconds']:.0f} s\n")


def csp_lda(recipe: Recipe, workshop: Workshop, data: Path) -> int:
    """Test trials that a linear discriminant on log variances of common spatial patterns gets right.

    Blankertz et al., Optimizing spatial filters for robust EEG single-trial analysis, IEEE Signal Processing Magazine
    2008; covariances shrunk after Ledoit and Wolf.
    """
    train_windows = workshop.cut(recipe, recipe.recordings.train, recipe.conditioning, {})
    tests = [read_recording(data, name) for name in recipe.recordings.test]
    test = epochs(tests, workshop.contract, recipe.conditioning, {}, [recipe.locked], recipe.labels)
    filters = csp(train_windows)
    known, unseen = log_variances(train_windows.x, filters), log_variances(test.x, filters)
    means = [known[train_windows.y == label].mean(axis=0) for label in (0, 1)]
    within, _ = ledoit_wolf(known - np.stack(means)[train_windows.y])
    direction = np.linalg.solve(within, means[1] - means[0])
    said = (unseen - (means[0] + means[1]) / 2) @ direction > 0
    return int((said == test.y).sum())


def csp(windows: Epochs) -> NDArray[np.float64]:
    covariances = []
    for label in (0, 1):
        x = windows.x[windows.y == label].astype(np.float64) * 1e6
        covariances.append(ledoit_wolf(x.reshape(-1, x.shape[2]))[0])
    _, vectors = eigh(covariances[0], covariances[0] + covariances[1])
    half = CSP_FILTERS // 2
    return np.concatenate([vectors[:, :half], vectors[:, -half:]], axis=1)


def log_variances(x: NDArray[np.float32], filters: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log((x.astype(np.float64) * 1e6 @ filters).var(axis=1)))


if __name__ == "__main__":
    main()
