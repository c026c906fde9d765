"""Encoders on simulated experiments whose ideal score is known, beside ridge or another baseline on the same data.

Every recipe of ``models/recipes/zoo`` is trained for each of its seeds; a seed stands for other people, other stimuli
and other noise as well as for other weights. Scores are those of single test trials.

    python benchmarks/known_answer.py ../shared/data/things_clip --out /tmp/known-answer --jobs 2 [--write]

What is in ``--out`` already is not run again, so that a run that was broken off goes on. ``--write`` puts the table
where `rtdecode zoo` reads it, and into docs/simulated.md.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "models" / "recipes" / "zoo"
RESULTS = ROOT / "models" / "rtdecode_models" / "zoo" / "results.json"
PAGE = ROOT / "docs" / "simulated.md"
#: The first cells of the page's table, by which it is found.
HEADER = "| system | experiment | score | baseline | gain, by seed | ceiling | share | baseline's | minutes |"

#: What each experiment's encoders are measured against: tables ``model``, of which the best counts, and what is scored.
RIDGE = (
    ({"system": "ridge", "per": "subject"}, {"system": "ridge", "per": "all"}),
    {"kind": "retrieve", "output": "embedding", "target": "image"},
)
RIDGE_CAPTIONS = (
    tuple({**model, "target": "caption"} for model in RIDGE[0]),
    {"kind": "retrieve", "output": "embedding", "target": "caption"},
)
LDA = {"system": "lda", "features": "log_power"}
BASELINES: dict[str, tuple[tuple[dict[str, Any], ...], dict[str, Any]]] = {
    "things-eeg": RIDGE,
    "things-meg": RIDGE,
    "words": (({**LDA, "stretches": 15}, {**LDA, "features": "means", "stretches": 15}), {"kind": "classify"}),
    "imagery": (({"system": "csp-lda", "filters": 12},), {"kind": "classify"}),
    "emotion": (({**LDA, "stretches": 1, "label": "valence"},), {"kind": "classify", "label": "valence"}),
    "emotion-arousal": (
        ({**LDA, "stretches": 1, "label": "arousal"},),
        {"kind": "classify", "label": "arousal"},
    ),
    "ssvep": (({**LDA, "stretches": 1},), {"kind": "classify"}),
    "objects": (({**LDA, "features": "means", "stretches": 28},), {"kind": "classify"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with real embeddings of test images, or any other folder")
    parser.add_argument("--out", type=Path, required=True, help="where the result of each run is kept")
    parser.add_argument("--only", nargs="*", default=[], help="names of recipes; all where none is given")
    parser.add_argument("--seeds", nargs="*", type=int, default=None, help="instead of the recipes' own")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one core")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--one", nargs=2, metavar=("TABLE", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(Path(arguments.one[0]), Path(arguments.one[1]), arguments.data)
        return
    tables = [tomllib.loads(path.read_text("utf-8")) for path in sorted(RECIPES.glob("*.toml"))]
    chosen = [table for table in tables if not arguments.only or table["name"] in arguments.only]
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = {path: table for table in chosen for path, table in runs_of(table, arguments.seeds, arguments.out)}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda path: start(path, runs[path], arguments.data), runs))
    entries = {table["name"]: collect(table, arguments.seeds, arguments.out) for table in chosen}
    show(entries)
    if arguments.write:
        write(entries)


def runs_of(table: dict[str, Any], seeds: list[int] | None, out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every run of a recipe and of its baseline, by the file that its result is written to."""
    for seed in seeds or table["seeds"]:
        own = with_seed(table, seed)
        yield result_of(own, out), own
        for against in baselines_of(own):
            yield result_of(against, out), against


def with_seed(table: dict[str, Any], seed: int) -> dict[str, Any]:
    """The recipe for one seed, which is that of the data as well."""
    return {**table, "seeds": [seed], "data": {**table["data"], "seed": seed}}


def baselines_of(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The baselines on the very same data; named by these, so that encoders on the same data share them."""
    models, score = BASELINES[table["data"]["experiment"]]
    if table["data"].get("captions"):
        models, score = RIDGE_CAPTIONS
    kept: dict[str, Any] = {key: table[key] for key in ("seeds", "data", "split") if key in table}
    return [
        {"name": f"baseline-{_digest([kept, model])}", **kept, "model": model, "score": [score]} for model in models
    ]


def _digest(table: Any) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]


def result_of(table: dict[str, Any], out: Path) -> Path:
    """Where the result of one run lies."""
    return out / f"{table['name']}.{table['seeds'][0]}.json"


def start(result: Path, table: dict[str, Any], data: Path) -> None:
    """Run one in a process of its own, on one core, unless its result is there."""
    if result.is_file() and json.loads(result.read_bytes())["table"] == table:
        return
    written = result.with_suffix(".table")
    written.write_text(json.dumps(table), "utf-8")
    command = [sys.executable, __file__, str(data), "--out", str(result.parent), "--one", str(written), str(result)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment)


def run_one(written: Path, result: Path, data: Path) -> None:
    """Train, test, and keep what counts."""
    import torch

    from rtdecode_models.provenance import code_commit
    from rtdecode_models.training.parts import Workshop
    from rtdecode_models.training.recipe import parse_recipe
    from rtdecode_models.training.run import open_data
    from rtdecode_models.training.train import train
    from rtdecode_models.training.units import Here

    torch.set_num_threads(1)
    table = json.loads(written.read_text("utf-8"))
    recipe = parse_recipe(table, str(written))
    workshop = Workshop(lambda each: open_data(each, data))
    started = time.perf_counter()
    metrics = train(recipe, workshop, Here(workshop)).metrics
    minutes = (time.perf_counter() - started) / 60
    task = next(iter(metrics["test"]["tasks"].values()))
    kept = {
        "table": table,
        "scores": {name: value["mean"] for name, value in task["scores"].items()},
        "ceiling": metrics["ceiling"]["scores"],
        "chance": task["chance"],
        "trials": task["trials"],
        "parameters": metrics["parameters"],
        "minutes": minutes,
        "commit": code_commit(),
        "curve": metrics["learning_curves"][0].get("loss", []),
    }
    result.write_text(json.dumps(kept), "utf-8")
    print(
        result.stem, {name: round(value, 4) for name, value in kept["scores"].items()}, f"{minutes:.1f} min", flush=True
    )


def collect(table: dict[str, Any], seeds: list[int] | None, out: Path) -> dict[str, Any]:
    """Mean and spread over seeds, of the encoder, of its baseline, and of the ideal."""
    tables = [with_seed(table, seed) for seed in seeds or table["seeds"]]
    own = [json.loads(result_of(each, out).read_bytes()) for each in tables]
    first = own[0]
    metrics = [name for name in ("top1", "top5", "accuracy") if name in first["scores"] and name in first["ceiling"]]
    rivals = zip(
        *([json.loads(result_of(one, out).read_bytes()) for one in baselines_of(each)] for each in tables), strict=True
    )
    against = max(rivals, key=lambda runs: statistics.fmean(run["scores"][metrics[0]] for run in runs))
    scores = {}
    for name in metrics:
        ceiling = [each["ceiling"][name] for each in own]
        mine = [each["scores"][name] for each in own]
        theirs = [each["scores"][name] for each in against]
        scores[name] = compared(mine, theirs, ceiling, first["chance"].get(name))
    main_metric = metrics[0]
    return {
        "experiment": table["data"]["experiment"],
        "simulated": True,
        "data": table["data"],
        "seeds": [each["table"]["seeds"][0] for each in own],
        "metric": main_metric,
        "share": scores[main_metric]["share"]["mean"],
        "baseline": against[0]["table"]["model"],
        "baseline_share": scores[main_metric]["baseline_share"]["mean"],
        "scores": scores,
        "test_trials": first["trials"],
        "parameters": first["parameters"],
        "minutes": round(sum(each["minutes"] for each in own), 2),
        "commit": first["commit"],
    }


def compared(mine: list[float], theirs: list[float], ceiling: list[float], chance: float | None) -> dict[str, Any]:
    """An encoder's scores, one for each seed, beside its baseline's and the ideal's."""
    return {
        "score": spread(mine),
        "baseline": spread(theirs),
        "ceiling": spread(ceiling),
        "gain": spread([a - b for a, b in zip(mine, theirs, strict=True)]),
        "share": spread([a / c for a, c in zip(mine, ceiling, strict=True)]),
        "baseline_share": spread([b / c for b, c in zip(theirs, ceiling, strict=True)]),
        "chance": chance,
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation and each, rounded for the table."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": round(statistics.fmean(values), 4),
        "sd": None if sd is None else round(sd, 4),
        "each": [round(value, 4) for value in values],
    }


def show(entries: dict[str, dict[str, Any]]) -> None:
    """A line for each encoder and score."""
    print(f"{'':24}{'':10}{'score':>16}{'baseline':>16}{'ceiling':>9}{'share':>8}{'baseline':>10}")
    for name, entry in entries.items():
        for metric, row in entry["scores"].items():
            cells = [f"{row[key]['mean']:.3f} +- {row[key]['sd'] or 0:.3f}" for key in ("score", "baseline")]
            shares = [row[key]["mean"] for key in ("ceiling", "share", "baseline_share")]
            print(
                f"{name:24}{metric:10}{cells[0]:>16}{cells[1]:>16}{shares[0]:>9.3f}{shares[1]:>8.2f}{shares[2]:>10.2f}"
            )


def write(entries: dict[str, dict[str, Any]]) -> None:
    """Replace these entries in the file, and leave the others."""
    before = json.loads(RESULTS.read_bytes())["entries"] if RESULTS.is_file() else {}
    merged = dict(sorted({**before, **entries}.items()))
    table = {"written": f"{datetime.now(UTC):%Y-%m-%d}", "entries": merged}
    RESULTS.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    lines = PAGE.read_text("utf-8").split("\n")
    first = lines.index(HEADER)
    last = next(at for at in range(first, len(lines)) if not lines[at].startswith("|"))
    lines[first:last] = [HEADER, "|---" * 9 + "|", *rows(merged)]
    PAGE.write_text("\n".join(lines), "utf-8")
    print(f"written: {RESULTS.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def rows(entries: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The page's rows: for each encoder its scores, the baseline's, what it gains on each seed, and the shares."""
    for name, entry in entries.items():
        first = [name, entry["experiment"], f"{entry.get('minutes', 0):.1f}"]
        for metric, row in entry["scores"].items():
            score, baseline = (_cell(row[key]) for key in ("score", "baseline"))
            gain = " ".join(f"{each:+.3f}" for each in row["gain"]["each"])
            shares = " | ".join(f"{row[key]['mean']:.2f}" for key in ("share", "baseline_share"))
            yield (
                f"| {first[0]} | {first[1]} | {metric} {score} | {baseline} | {gain} | {row['ceiling']['mean']:.3f} | "
                f"{shares} | {first[2]} |"
            )
            first = ["", "", ""]


def _cell(of: dict[str, Any]) -> str:
    """Mean and spread; one seed has none."""
    return f"{of['mean']:.3f}" + ("" if of["sd"] is None else f" ± {of['sd']:.3f}")


if __name__ == "__main__":
    main()
