"""Scores of outputs: accuracies and ranks with their intervals, against chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from rtdecode.errors import ConfigError
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.ordinal import seq2hr

Floats = NDArray[np.float32] | NDArray[np.float64]

#: The k of the top-k accuracies of retrieval.
TOP = (1, 5, 10)


def log_probabilities(logits: Floats) -> NDArray[np.float64]:
    """Log-probabilities, shape (n, classes)."""
    return np.asarray(log_softmax(_finite(logits).astype(np.float64), axis=1))


def pooled(members: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the seeds' mean probabilities: (seeds, n, classes) -> (n, classes)."""
    return np.asarray(logsumexp(members, axis=0) - np.log(len(members)))


def class_scores(logs: NDArray[np.float64], truth: NDArray[np.int64], *, ordered: bool = False) -> dict[str, float]:
    """Accuracy, balanced accuracy, mean negative log-likelihood (nats), and with more than five classes top 5.

    With `ordered` classes also the sequential top-2 hit rate in its two readings, ``seq2hr_first`` and
    ``seq2hr_either``.
    """
    said = logs.argmax(axis=1)
    recalls = [float((said[truth == label] == label).mean()) for label in np.unique(truth)]
    scores = {
        "accuracy": float((said == truth).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "nll": float(-logs[np.arange(len(truth)), truth].mean()),
    }
    if logs.shape[1] > 5:
        scores["top5"] = float((ranks(logs, truth) < 5).mean())
    if ordered:
        rate = seq2hr(logs, truth)
        scores |= {"seq2hr_first": rate.first, "seq2hr_either": rate.either}
    return scores


def similarities(outputs: Floats, rows: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Of each window and each candidate, shape (n, candidates)."""
    x, y = _finite(outputs).reshape(len(outputs), -1).astype(np.float32), rows
    if metric == "cosine":
        x, y = _unit(x), _unit(y)
    return np.asarray(x @ y.T)


def ranks(scores: Floats, truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many others score at least as high as the truth; a tie counts against it, so that no constant wins."""
    own = scores[np.arange(len(truth)), truth]
    return np.asarray((scores >= own[:, None]).sum(axis=1) - 1)


def rank_scores(found: NDArray[np.int64], candidates: int) -> dict[str, float]:
    """Top-k accuracies, mean reciprocal rank, and the median rank (1 is best)."""
    scores = {f"top{k}": float((found < k).mean()) for k in TOP if k < candidates}
    return scores | {"mrr": float((1 / (found + 1)).mean()), "median_rank": float(np.median(found)) + 1}


def candidates(trials: Trials, training: Trials) -> NDArray[np.int64]:
    """Rows of the gallery to choose from: all that occur in these trials, and all that were never trained on."""
    if trials.gallery is None or trials.item is None or training.gallery is None or training.item is None:
        raise ConfigError("stimuli can be looked for only where the trials have them")
    trained = {training.gallery.names[row] for row in np.unique(training.item)}
    unseen = [row for row, name in enumerate(trials.gallery.names) if name not in trained]
    return np.union1d(np.unique(trials.item), np.array(unseen, np.int64))


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share = right / n
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float((middle - half) / (1 + z**2 / n)), float((middle + half) / (1 + z**2 / n))


def bootstrap(hits: NDArray[np.float64], groups: NDArray[np.int64], draws: int = 2000) -> tuple[float, float]:
    """95 % interval of a mean where whole groups (stimuli) are drawn, since trials of one are alike.

    Parameters
    ----------
    hits : ndarray of float64, shape (n,)
        Between 0 and 1.
    groups : ndarray of int64, shape (n,)
        Which stimulus each is of.
    draws : int
        Resamples, always the same ones.
    """
    _, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, hits), np.bincount(place)
    chosen = np.random.default_rng(0).integers(len(sums), size=(draws, len(sums)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def over_seeds(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Each score by seed, with mean and standard deviation."""
    return {
        name: {
            "by_seed": [row[name] for row in rows],
            "mean": float(np.mean([row[name] for row in rows])),
            "sd": float(np.std([row[name] for row in rows], ddof=1)) if len(rows) > 1 else None,
        }
        for name in rows[0]
    }


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norm > 0, norm, 1))


def _finite(x: Floats) -> Floats:
    if not np.isfinite(x).all():
        raise ConfigError("the network gives NaN or Inf; lower training.learning_rate, or set training.clip_norm")
    return x
