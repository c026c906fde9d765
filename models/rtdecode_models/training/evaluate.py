"""What trained networks say of trials that they were not trained on, scored once for all seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.training.scores import (
    TOP,
    bootstrap,
    candidates,
    class_scores,
    log_probabilities,
    over_seeds,
    pooled,
    rank_scores,
    ranks,
    similarities,
    wilson,
)
from rtdecode_models.training.tasks import Classes, Retrieval, Task, gallery_rows

#: Windows that are encoded at once.
AT_ONCE = 256


def predict(
    network: Encoder, trials: Trials, outputs: Sequence[str], device: torch.device | None = None
) -> dict[str, NDArray[np.float32]]:
    """Outputs (n, ...) of an encoder in evaluation mode, which is left in the mode it was in.

    Raises
    ------
    ConfigError
        The encoder has no such output.
    """
    device = device or torch.device("cpu")
    was_training = network.training
    network.eval()
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
    with torch.no_grad():
        for first in range(0, len(trials), AT_ONCE):
            window = torch.from_numpy(np.ascontiguousarray(trials.x[first : first + AT_ONCE], np.float32))
            subject = torch.from_numpy(np.ascontiguousarray(trials.subject[first : first + AT_ONCE], np.int64))
            given = network(window.to(device), subject.to(device))
            for name in outputs:
                if name not in given:
                    raise ConfigError(f"the output {name!r} is to be scored; this encoder gives {', '.join(given)}")
                rows[name].append(given[name].float().cpu().numpy())
    network.train(was_training)
    return {name: np.concatenate(values) for name, values in rows.items()}


def task_scores(
    network: Encoder, trials: Trials, training: Trials, task: Task, device: torch.device | None = None
) -> dict[str, float]:
    """One network's scores on one task, as they are watched while it trains."""
    given = predict(network, trials, [task.output], device)[task.output]
    if isinstance(task, Classes):
        return class_scores(log_probabilities(given), trials.labels[task.label], ordered=task.ordered)
    found, count = find(given, trials, training, task)
    return rank_scores(found, count)


def find(
    outputs: NDArray[np.float32], trials: Trials, training: Trials, task: Retrieval
) -> tuple[NDArray[np.int64], int]:
    """The rank of each trial's stimulus (0 is best) among the candidates, and how many there are."""
    rows = candidates(trials, training)
    assert trials.gallery is not None
    assert trials.item is not None
    table = gallery_rows(task, trials.gallery, training)[rows]
    scores = similarities(outputs, table, task.metric)
    return ranks(scores, np.searchsorted(rows, trials.item)), len(rows)


def evaluate(networks: Sequence[Encoder], trials: Trials, training: Trials, tasks: Sequence[Task]) -> dict[str, Any]:
    """Score the networks of all seeds on some trials.

    Parameters
    ----------
    networks : sequence of Encoder
        One for each seed.
    trials : Trials
        Not trained on.
    training : Trials
        What was: for the standardisation of targets, and for which stimuli are new.
    tasks : sequence of Task
        What to score.

    Returns
    -------
    dict
        As ``metrics.json`` has it for a part: ``trials``, ``sessions``, ``subjects``, and by task the scores.
    """
    outputs = sorted({task.output for task in tasks})
    given = [predict(network, trials, outputs) for network in networks]
    by_task = {}
    for task in tasks:
        said = np.stack([each[task.output] for each in given])
        by_task[task.name] = (
            classified(said, trials, task) if isinstance(task, Classes) else retrieved(said, trials, training, task)
        )
    return {**describe(trials), "tasks": by_task}


def describe(trials: Trials) -> dict[str, Any]:
    """How many trials, and whose."""
    return {
        "trials": len(trials),
        "sessions": [trials.sessions[at] for at in np.unique(trials.session)],
        "subjects": [trials.subjects[at] for at in np.unique(trials.subject)],
        "by_label": {
            name: {text: int((values == at).sum()) for at, text in enumerate(trials.classes[name])}
            for name, values in trials.labels.items()
        },
    }


def classified(said: NDArray[np.float32], trials: Trials, task: Classes) -> dict[str, Any]:
    """Scores of logits (seeds, n, classes)."""
    logs = np.stack([log_probabilities(each) for each in said])
    return class_report(logs, trials.labels[task.label], trials.classes[task.label], ordered=task.ordered) | {
        "by_subject": {
            name: float((pooled(logs)[mine].argmax(axis=1) == trials.labels[task.label][mine]).mean())
            for name, mine in _subjects(trials)
        }
    }


def class_report(
    logs: NDArray[np.float64], truth: NDArray[np.int64], classes: Sequence[str], *, ordered: bool = False
) -> dict[str, Any]:
    """Scores of log-probabilities (seeds, n, classes): by seed, and of the seeds' mean probabilities.

    ``chance`` is for classes that are alike often; ``majority`` is the share of the most frequent one, which is the
    accuracy of an answer that is always the same.
    """
    together = pooled(logs)
    right = int((together.argmax(axis=1) == truth).sum())
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truth, together.argmax(axis=1)), 1)
    return {
        "kind": "classify",
        "chance": {"accuracy": 1 / len(classes)},
        "majority": float(np.bincount(truth).max() / len(truth)),
        "trials": len(truth),
        "scores": over_seeds([class_scores(each, truth, ordered=ordered) for each in logs]),
        "right_by_seed": [int((each.argmax(axis=1) == truth).sum()) for each in logs],
        "ensemble": class_scores(together, truth, ordered=ordered)
        | {"right": right, "accuracy_95": wilson(right, len(truth)), "accuracy_95_is": "Wilson, over trials"},
        "labels": list(classes),
        "confusion": confusion.tolist(),
        "confusion_rows": "truth; columns: the ensemble's answer",
    }


def retrieved(said: NDArray[np.float32], trials: Trials, training: Trials, task: Retrieval) -> dict[str, Any]:
    """Scores of embeddings (seeds, n, ...)."""
    assert trials.item is not None
    found, counts = zip(*(find(each, trials, training, task) for each in said), strict=True)
    ranked, count = np.stack(found), counts[0]
    ks = [k for k in TOP if k < count]
    hits = {k: (ranked < k).mean(axis=0) for k in ks}
    curve = [float((ranked < k).mean()) for k in range(1, min(count, 100) + 1)]
    return {
        "kind": "retrieve",
        "metric": task.metric,
        "candidates": count,
        "chance": {f"top{k}": k / count for k in ks},
        "trials": ranked.shape[1],
        "scores": over_seeds([rank_scores(each, count) for each in ranked]),
        "intervals": {f"top{k}_95": bootstrap(hits[k], trials.item) for k in ks},
        "intervals_are": "of the seeds' mean, by bootstrap over stimuli",
        "by_subject": {name: {f"top{k}": float(hits[k][mine].mean()) for k in ks} for name, mine in _subjects(trials)},
        "topk_curve": curve,
    }


def against_ceiling(report: dict[str, Any], ceiling: Mapping[str, float]) -> None:
    """Add, beside each score that the ceiling has too, the share of it that was reached."""
    shares = {
        name: {"ceiling": ceiling[name], "share": score["mean"] / ceiling[name] if ceiling[name] else None}
        for name, score in report["scores"].items()
        if name in ceiling
    }
    if shares:
        report["ceiling"] = shares


def _subjects(trials: Trials) -> list[tuple[str, NDArray[np.bool_]]]:
    return [(trials.subjects[at], trials.subject == at) for at in np.unique(trials.subject)]
