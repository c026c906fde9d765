"""From a recipe to a trained ensemble: cut, fit the chain, train each seed, calibrate, test once.

Whatever is chosen or fitted comes from the training recordings. The test recordings are opened after the last network
is trained, and only to be scored.
"""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from rtdecode.encode.manifest import Contract
from rtdecode.heads.calibrate import calibrate_temperature
from rtdecode.stream.steps import Conditioning
from rtdecode_models.data.recordings import Epochs, Recording, contract_of, epochs, fit_conditioning, read_recording
from rtdecode_models.provenance import code_commit
from rtdecode_models.systems.ensemble import Ensemble
from rtdecode_models.training.checkpoint import Checkpoint, Trained
from rtdecode_models.training.fit import Fitted, fit, log_probabilities
from rtdecode_models.training.recipe import Recipe, parse_recipe, variants

#: How many training windows the raw golden piece must hold.
RAW_WINDOWS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What an ensemble said of recordings that it was not trained on.

    Parameters
    ----------
    members : ndarray of float64, shape (seeds, n, classes)
        Log-probabilities of each seed.
    y : ndarray of int64, shape (n,)
        The truth.
    """

    members: NDArray[np.float64]
    y: NDArray[np.int64]

    @property
    def ensemble(self) -> NDArray[np.float64]:
        """Log of the seeds' mean probabilities, shape (n, classes)."""
        return np.asarray(logsumexp(self.members, axis=0) - np.log(len(self.members)))


@dataclass(frozen=True, slots=True)
class Progress:
    """What a caller may show: `say` a line, `epoch` after each epoch of a network."""

    say: Callable[[str], None] = lambda _: None
    epoch: Callable[[], None] = lambda: None


class Workshop:
    """The training recordings, read once, and the windows cut from them, kept by how they were cut."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recordings: dict[str, Recording] = {name: read_recording(folder, name) for name in recipe.recordings.train}
        self.contract: Contract = contract_of(next(iter(self.recordings.values())).info)
        self._cuts: dict[bytes, Epochs] = {}

    def cut(
        self,
        recipe: Recipe,
        names: Sequence[str],
        conditioning: Conditioning,
        arrays: Mapping[str, NDArray[np.float64]],
    ) -> Epochs:
        """Labelled windows of these recordings; what declared chains gave is remembered."""
        key = msgspec.json.encode((names, conditioning, recipe.window, recipe.labels))
        if not arrays and key in self._cuts:
            return self._cuts[key]
        recordings = [self.recordings[name] for name in names]
        cut = epochs(recordings, self.contract, conditioning, arrays, [recipe.locked], recipe.labels)
        if not arrays:
            self._cuts[key] = cut
        return cut

    def chain(self, recipe: Recipe, names: Sequence[str]) -> tuple[Conditioning, dict[str, NDArray[np.float64]]]:
        """The recipe's chain with its fitted steps, fitted on these recordings."""
        declared = self.cut(recipe, names, recipe.conditioning, {})
        return fit_conditioning(
            recipe.conditioning,
            declared,
            alignment=recipe.fit.alignment,
            shrinkage=recipe.fit.alignment_shrinkage,
            standardise=recipe.fit.standardise,
        )


def total_epochs(table: Mapping[str, Any], recipe: Recipe) -> int:
    """How many epochs `select` (with the recipe's table) or `train` (with an empty one) goes through."""
    runs = len(recipe.recordings.train)
    folds = runs if runs > 1 else 0
    if not table:
        return (folds + 1) * len(recipe.seeds) * recipe.training.epochs
    candidates = [parse_recipe(variant, "the recipe") for _, variant in variants(table, recipe.select)]
    return sum(folds * len(candidate.seeds) * candidate.training.epochs for candidate in candidates)


def train_members(recipe: Recipe, windows: Epochs, progress: Progress) -> list[Fitted]:
    """One network for each seed of the recipe."""
    return [
        fit(windows.x, windows.y, len(recipe.labels), recipe.model, recipe.training, seed, progress.epoch)
        for seed in recipe.seeds
    ]


def leave_one_run_out(recipe: Recipe, workshop: Workshop, progress: Progress) -> list[Fold]:
    """Train on all training recordings but one and score that one, for each of them.

    The chain, too, is fitted without the recording that is left out.
    """
    names = recipe.recordings.train
    folds = []
    for left_out in names:
        rest = [name for name in names if name != left_out]
        conditioning, arrays = workshop.chain(recipe, rest)
        members = train_members(recipe, workshop.cut(recipe, rest, conditioning, arrays), progress)
        held = workshop.cut(recipe, [left_out], conditioning, arrays)
        said = np.stack([log_probabilities(member.module, held.x) for member in members])
        folds.append(Fold(said, held.y))
    return folds


def score(folds: Sequence[Fold]) -> dict[str, Any]:
    """Trials right by seed and by ensemble, and the ensemble's mean negative log-likelihood (nats), over all folds."""
    nll = np.concatenate([-fold.ensemble[np.arange(len(fold.y)), fold.y] for fold in folds])
    return {
        "trials": len(nll),
        "right_by_seed": [int(n) for n in sum((fold.members.argmax(2) == fold.y).sum(1) for fold in folds)],
        "right": int(sum((fold.ensemble.argmax(1) == fold.y).sum() for fold in folds)),
        "nll": float(nll.mean()),
    }


def select(
    table: Mapping[str, Any], recipe: Recipe, workshop: Workshop, progress: Progress
) -> tuple[Recipe, list[Any]]:
    """Try the recipe's grid by leaving one training recording out at a time.

    Returns
    -------
    tuple of Recipe and list
        The recipe with the best setting, and all settings with their scores, best first.
    """
    tried: list[tuple[float, int, Recipe, dict[str, Any]]] = []
    for setting, variant in variants(table, recipe.select):
        candidate = parse_recipe(variant, f"the recipe with {setting}")
        result = score(leave_one_run_out(candidate, workshop, progress))
        progress.say(f"{result['right']:3d} of {result['trials']}  nll {result['nll']:.3f}  {setting}")
        tried.append((result["nll"], len(tried), candidate, {"setting": setting} | result))
    tried.sort(key=lambda row: row[:2])
    return tried[0][2], [row[3] for row in tried]


def calibrate(folds: Sequence[Fold]) -> dict[str, Any]:
    """The temperature of the held-out ensemble's logits: ``temperature``, and ``nll`` with it or ``why_not``.

    1 where the held-out windows determine none: there are none, or all are right with room to spare.
    """
    if not folds:
        return {"temperature": 1.0, "why_not": "there is one training recording, so none could be held out"}
    said = np.concatenate([fold.ensemble for fold in folds])
    y = np.concatenate([fold.y for fold in folds])
    if (said.argmax(axis=1) == y).all():
        return {"temperature": 1.0, "why_not": f"all {len(y)} held-out windows are right: the sharper, the better"}
    try:
        found = calibrate_temperature(said, y)
    except ValueError as error:
        return {"temperature": 1.0, "why_not": str(error)}
    return {"temperature": found.temperature, "nll": found.nll, "nll_before": found.nll_before}


def train(
    recipe: Recipe, folder: Path, workshop: Workshop, progress: Progress, selection: Sequence[Any] = ()
) -> Trained:
    """Train the recipe's ensemble on all training recordings, calibrate it, and test it once.

    Parameters
    ----------
    recipe : Recipe
        As written, or as `select` chose.
    folder : Path
        Where the recordings are.
    workshop : Workshop
        Holds the training recordings.
    progress : Progress
        Told of each epoch.
    selection : sequence
        The table of `select`, for the metrics.

    Returns
    -------
    Trained
        Ready to be saved and exported.
    """
    names = recipe.recordings.train
    folds = leave_one_run_out(recipe, workshop, progress) if len(names) > 1 else []
    conditioning, arrays = workshop.chain(recipe, names)
    windows = workshop.cut(recipe, names, conditioning, arrays)
    members = train_members(recipe, windows, progress)
    module = Ensemble([member.module for member in members])
    module.eval()

    calibration = calibrate(folds)
    tests = {name: read_recording(folder, name) for name in recipe.recordings.test}
    metrics: dict[str, Any] = {
        "task": f"{' against '.join(recipe.labels)}, single trials, causal conditioning",
        "chance": 1 / len(recipe.labels),
        "seeds": list(recipe.seeds),
        "train": {
            "recordings": list(names),
            "trials": len(windows),
            "by_label": _count(windows.y, recipe),
            "unusable": dict(windows.lost),
        },
        "leave_one_run_out": score(folds) if folds else None,
        "calibration": calibration,
        "learning_curves": [list(member.loss) for member in members],
        "selection": list(selection),
    }
    if tests:
        scored = epochs(list(tests.values()), workshop.contract, conditioning, arrays, [recipe.locked], recipe.labels)
        metrics["test"] = evaluate(recipe, members, scored)
    raw, starts = _raw_piece(workshop, windows)
    checkpoint = Checkpoint(
        name=recipe.name,
        recipe=recipe,
        contract=workshop.contract,
        conditioning=conditioning,
        window=recipe.locked,
        labels=recipe.labels,
        model=msgspec.structs.asdict(members[0].module.config)
        | {"n_times": windows.x.shape[1], "n_channels": windows.x.shape[2]},
        n_members=len(members),
        temperature=calibration["temperature"],
        raw_starts=starts,
        provenance={
            "recordings": {name: each.sha256 for name, each in (workshop.recordings | tests).items()},
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in ("torch", "numpy", "scipy", "safetensors")},
            "threads": torch.get_num_threads(),
            "commit": code_commit(),
        },
    )
    return Trained(checkpoint, module, arrays, windows.x, raw, metrics)


def evaluate(recipe: Recipe, members: Sequence[Fitted], test: Epochs) -> dict[str, Any]:
    """Score an ensemble and its members on windows that nothing was fitted on."""
    fold = Fold(np.stack([log_probabilities(member.module, test.x) for member in members]), test.y)
    said = fold.ensemble.argmax(axis=1)
    n = len(recipe.labels)
    confusion = np.zeros((n, n), np.int64)
    np.add.at(confusion, (test.y, said), 1)
    return {
        "recordings": list(recipe.recordings.test),
        "by_label": _count(test.y, recipe),
        "unusable": dict(test.lost),
        **score([fold]),
        "accuracy": float((said == test.y).mean()),
        "labels": list(recipe.labels),
        "confusion": confusion.tolist(),
        "confusion_rows": "truth",
        "probabilities": np.exp(fold.ensemble).round(4).tolist(),
    }


def _count(y: NDArray[np.int64], recipe: Recipe) -> dict[str, int]:
    return {label: int((y == index).sum()) for index, label in enumerate(recipe.labels)}


def _raw_piece(workshop: Workshop, windows: Epochs) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """The start of the first training recording, long enough for its first windows, and where they begin.

    A golden recording starts at index 0 of a segment, so there is none where the first recording begins elsewhere.
    """
    recording = next(iter(workshop.recordings.values()))
    columns = [recording.info.names.index(channel.name) for channel in workshop.contract.channels]
    chunks = [batch.chunk for batch in recording.batches if batch.chunk is not None]
    starts = windows.start[windows.run == 0][:RAW_WINDOWS]
    stop = int(starts[-1]) + windows.x.shape[1]
    # One sample more than its share: output k of the chain needs the input samples up to k / ratio.
    needed = math.ceil(stop * workshop.contract.sfreq / windows.sfreq) + 1
    pieces: list[NDArray[np.float32]] = []
    length = 0
    for chunk in chunks:
        if chunk.first_index != length or chunk.segment != chunks[0].segment or length >= needed:
            break
        pieces.append(chunk.samples[:, columns])
        length = chunk.stop_index
    if length < stop * workshop.contract.sfreq / windows.sfreq:
        return np.zeros((0, len(columns)), np.float32), ()
    return np.concatenate(pieces)[:needed], tuple(int(start) for start in starts)
