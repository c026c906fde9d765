"""Imagined movement on PhysioNet's recordings: EEG-SimpleConv and EEGNet against CSP and LDA, three ways of testing.

    python benchmarks/motor_imagery.py ../shared/data/eegmmidb [--task NAME] [--out FILE.json] [--jobs 2]

* Runs left out: each run of a subject is decoded by what was trained on the subject's other runs (S001 has three of
  each task, S015 two).
* Blocks of one run: S002, S003 and S004 have one run of each task. Each third of it is decoded by what was trained on
  the other two, which lie around it in time: easier than a run of another hour, and reported apart.
* A new subject: trained on the four others, and adapted by the first eight trials, of which a linear front is fitted
  before the frozen network; against the same network trained on those eight trials from scratch. All later trials of
  the subject are tested on.

Windows are cut by the live decoder after causal filters; alignment, scaling and weights see training trials alone. The
one exception says so: "offline" decodes with statistics of the whole test session, as published offline figures do.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode_models.data.shape import shape_of
from rtdecode_models.data.source import TrialSource
from rtdecode_models.data.spec import NOTHING_FITTED, Recordings
from rtdecode_models.data.trials import Dataset, Trials
from rtdecode_models.systems.adaptation import Tuning, tune_front
from rtdecode_models.systems.cross_subject import CrossSubject
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.simpleconv_offline import aligned_by_session, logits_by_session_statistics
from rtdecode_models.training.evaluate import predict
from rtdecode_models.training.fit import Job, fit
from rtdecode_models.training.losses import Objective
from rtdecode_models.training.open import open_source
from rtdecode_models.training.recipe import Model, Recipe, read_recipe
from rtdecode_models.training.scores import log_probabilities, pooled, wilson

Rows = NDArray[np.int64]

RECIPES = Path(__file__).resolve().parents[1] / "models" / "recipes"
SUBJECTS = ("S001", "S002", "S003", "S004", "S015")
#: Trials of a new subject that it is adapted by: about a minute of recording.
FEW = 8
BLOCKS = 3
RUNNING = "simpleconv, running alignment"
OFFLINE = "simpleconv, offline"
TUNING = Tuning(epochs=60, batch_size=8, learning_rate=1e-3, weight_decay=1e-2)


@dataclass(frozen=True)
class Imagery:
    """A task: its runs, and what the cues mean."""

    runs: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]


TASKS = {
    "fists against feet": Imagery(("06", "10", "14"), {"fists": ("T1",), "feet": ("T2",)}),
    "left against right fist": Imagery(("04", "08", "12"), {"left": ("T1",), "right": ("T2",)}),
}


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What the seeds' networks said of trials that they were not trained on: log-probabilities (seeds, n, classes)."""

    protocol: str
    system: str
    subject: str
    members: NDArray[np.float64]
    y: Rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds S001/S001R06.edf and so on")
    parser.add_argument("--task", choices=tuple(TASKS), help="one of the two alone")
    parser.add_argument("--out", type=Path, help="write what is printed as JSON, too")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    started = time.perf_counter()
    report: dict[str, Any] = {}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        waiting: dict[str, list[Future[list[Said]]]] = {}
        for title in TASKS if arguments.task is None else (arguments.task,):
            waiting[title] = [pool.submit(within, arguments.data, title, subject) for subject in SUBJECTS]
            waiting[title] += [pool.submit(across, arguments.data, title, subject) for subject in SUBJECTS]
        for title, parts in waiting.items():
            report[title] = show(title, [said for part in parts for said in part.result()])
    report["seconds"] = time.perf_counter() - started
    print(f"{report['seconds']:.0f} s on {arguments.jobs} processes")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


# --- within a subject -------------------------------------------------------------------------------------------------


def within(data: Path, title: str, subject: str) -> list[Said]:
    """Every system on the runs, or the blocks, of one subject."""
    torch.set_num_threads(1)
    found = []
    for system in ("simpleconv", RUNNING, "eegnet", "csp-lda"):
        recipe = recipe_of(system, data, title, (subject,))
        found.append(held_out(system, subject, recipe, open_recordings(recipe, data)))
    recipe = recipe_of("simpleconv", data, title, (subject,))
    assert isinstance(recipe.data, Recordings)
    plain = msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, fit=NOTHING_FITTED))
    return [*found, offline(subject, recipe, open_recordings(plain, data))]


def held_out(system: str, subject: str, recipe: Recipe, source: TrialSource) -> Said:
    layout = source.dataset(source.sessions).train
    protocol, folds = folds_of(layout)
    said, truth = [], []
    for train, test in folds:
        dataset = source.dataset(source.sessions, train)
        networks = trained(recipe, dataset, dataset.train.take(train))
        said.append(members(networks, dataset.train.take(test)))
        truth.append(layout.labels["label"][test])
    return Said(protocol, system, subject, np.concatenate(said, axis=1), np.concatenate(truth))


def offline(subject: str, recipe: Recipe, source: TrialSource) -> Said:
    """Each session aligned by all of itself, the test session too, and its own statistics in batch norm."""
    dataset = source.dataset(source.sessions)
    protocol, folds = folds_of(dataset.train)
    trials = aligned_by_session(dataset.train)
    said, truth = [], []
    for train, test in folds:
        center, scale = trials.x[train].mean(axis=(0, 1)), trials.x[train].std(axis=(0, 1))
        scaled = replace(trials, x=(trials.x - center) / scale)
        networks = trained(recipe, dataset, scaled.take(train))
        logits = [logits_by_session_statistics(network, scaled.take(test)) for network in networks]
        said.append(np.stack([log_probabilities(each) for each in logits]))
        truth.append(trials.labels["label"][test])
    return Said(protocol, OFFLINE, subject, np.concatenate(said, axis=1), np.concatenate(truth))


def folds_of(trials: Trials) -> tuple[str, list[tuple[Rows, Rows]]]:
    """Rows to train on and to test on: each session left out once, or each third of the only one."""
    rows = np.arange(len(trials))
    if len(trials.sessions) > 1:
        parts = [rows[trials.session == session] for session in range(len(trials.sessions))]
        return "runs left out", [(np.setdiff1d(rows, part), part) for part in parts]
    return "blocks of one run", [(np.setdiff1d(rows, part), part) for part in np.array_split(rows, BLOCKS)]


# --- a new subject ----------------------------------------------------------------------------------------------------


def across(data: Path, title: str, subject: str) -> list[Said]:
    """A network of the other subjects on a new one: as it is, with a front of eight trials; and from scratch."""
    torch.set_num_threads(1)
    recipe = recipe_of("simpleconv", data, title, SUBJECTS)
    assert isinstance(recipe.data, Recordings)
    recipe = msgspec.structs.replace(
        recipe,
        data=msgspec.structs.replace(recipe.data, fit=msgspec.structs.replace(recipe.data.fit, per="subject")),
        model=Model(system="cross-subject", options={"trunk": recipe.model.system, "options": recipe.model.options}),
    )
    source = open_recordings(recipe, data)
    layout = source.dataset(source.sessions).train
    new = layout.subjects.index(subject)
    theirs = np.flatnonzero(layout.subject == new)
    few, test = theirs[:FEW], theirs[FEW:]
    others = np.flatnonzero(layout.subject != new)
    dataset = source.dataset(source.sessions, np.concatenate([others, few]))
    trials, y = dataset.train, layout.labels["label"][test]
    shared = trained(recipe, dataset, trials.take(others))

    def said(system: str, networks: Sequence[Encoder], tested: Trials) -> Said:
        return Said("a new subject", system, subject, members(networks, tested), y)

    found = [said("simpleconv of the others, aligned", shared, trials.take(test))]
    for network, seed in zip(shared, recipe.seeds, strict=True):
        assert isinstance(network, CrossSubject)
        loss = Objective(recipe.losses, trials.take(few))
        tune_front(network, new, trials.take(few), _Total(loss), msgspec.structs.replace(TUNING, seed=seed))
    found.append(said("and a front of 8 trials", shared, trials.take(test)))
    for system in ("simpleconv", "eegnet", "csp-lda"):
        alone = recipe_of(system, data, title, (subject,))
        own = open_recordings(alone, data)
        rows = np.arange(len(theirs))
        dataset = own.dataset(own.sessions, rows[:FEW])
        networks = trained(alone, dataset, dataset.train.take(rows[:FEW]))
        found.append(said(f"{system} from scratch, 8 trials", networks, dataset.train.take(rows[FEW:])))
    return found


class _Total(torch.nn.Module):
    """A recipe's losses as the one that is to fall."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, outputs: Any, batch: Any) -> torch.Tensor:
        total: torch.Tensor = self.objective(outputs, batch)["loss"]
        return total


# --- what all of them need --------------------------------------------------------------------------------------------


def recipe_of(system: str, data: Path, title: str, subjects: Sequence[str]) -> Recipe:
    """The recipe of a system for these subjects, with all runs of the task that are there."""
    file = {RUNNING: "simpleconv", "csp-lda": "csp_lda"}.get(system, system)
    recipe, _ = read_recipe(RECIPES / f"eegmmidb_{file}.toml")
    task = TASKS[title]
    names = {each: tuple(runs_of(data, each, task)) for each in subjects}
    assert isinstance(recipe.data, Recordings)
    fitted = recipe.data.fit
    if system == RUNNING:
        fitted = msgspec.structs.replace(fitted, whitening="running_alignment")
    return msgspec.structs.replace(
        recipe, data=msgspec.structs.replace(recipe.data, subjects=names, labels=task.labels, fit=fitted)
    )


def runs_of(data: Path, subject: str, task: Imagery) -> Iterator[str]:
    for run in task.runs:
        name = f"{subject}/{subject}R{run}.edf"
        if (data / name).exists():
            yield name


def open_recordings(recipe: Recipe, data: Path) -> TrialSource:
    assert isinstance(recipe.data, Recordings)
    return open_source(recipe.data, data)


def trained(recipe: Recipe, dataset: Dataset, trials: Trials) -> list[Encoder]:
    """One network for each seed."""
    shape = shape_of(replace(dataset, train=trials))
    return [fit(Job(f"seed-{seed}", recipe, seed, trials, None, recipe.tasks, shape)).network for seed in recipe.seeds]


def members(networks: Sequence[Encoder], trials: Trials) -> NDArray[np.float64]:
    """Log-probabilities (seeds, n, classes)."""
    return np.stack([log_probabilities(predict(network, trials, ["logits"])["logits"]) for network in networks])


def show(title: str, found: Sequence[Said]) -> list[dict[str, Any]]:
    """Print a table for each way of testing; all its rows."""
    print(f"\n{title}: chance one half; right of all trials by the seeds' mean probability [95 %, Wilson], by seed\n")
    rows = []
    for protocol in dict.fromkeys(said.protocol for said in found):
        there = [said for said in found if said.protocol == protocol]
        subjects = list(dict.fromkeys(said.subject for said in there))
        print(f"  {protocol}: {', '.join(subjects)}")
        for system in dict.fromkeys(said.system for said in there):
            rows.append(row_of(protocol, system, [said for said in there if said.system == system]))
            row = rows[-1]
            each = ", ".join(f"{right} of {n}" for right, n in row["by_subject"].values())
            print(
                f"    {system:36s} {row['right']:3d} of {row['trials']:3d} = {row['accuracy']:.3f} "
                f"[{row['low']:.2f}, {row['high']:.2f}]  seeds {row['by_seed']}  ({each})"
            )
        print()
    return rows


def row_of(protocol: str, system: str, those: Sequence[Said]) -> dict[str, Any]:
    hits = {said.subject: pooled(said.members).argmax(axis=1) == said.y for said in those}
    right, n = sum(int(hit.sum()) for hit in hits.values()), sum(len(hit) for hit in hits.values())
    low, high = wilson(right, n)
    by_seed = sum((said.members.argmax(axis=2) == said.y).sum(axis=1) for said in those)
    return {
        "protocol": protocol,
        "system": system,
        "right": right,
        "trials": n,
        "accuracy": right / n,
        "low": low,
        "high": high,
        "by_seed": [int(count) for count in np.atleast_1d(by_seed)],
        "by_subject": {subject: (int(hit.sum()), len(hit)) for subject, hit in hits.items()},
    }


if __name__ == "__main__":
    main()
