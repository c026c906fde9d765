"""Training trials as tensors, and the batches drawn from them."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch
from rtdecode_models.data.trials import Trials


class Samples:
    """Trials, ready to be taken in batches.

    Parameters
    ----------
    trials : Trials
        Shares their memory.
    probabilities : bool
        Labels as rows of probabilities, as mixup needs them, instead of classes.
    """

    def __init__(self, trials: Trials, probabilities: bool = False) -> None:
        self.sfreq = trials.sfreq
        self._windows = _tensor(trials.x, np.float32)
        self._subject = _tensor(trials.subject, np.int64)
        self._item = None if trials.item is None else _tensor(trials.item, np.int64)
        counts = {name: len(classes) for name, classes in trials.classes.items()} | {"subject": len(trials.subjects)}
        labels = {name: _tensor(values, np.int64) for name, values in trials.labels.items()}
        labels["subject"] = self._subject
        self._labels = {
            name: one_hot(values, max(counts[name], int(values.max()) + 1)).float() if probabilities else values
            for name, values in labels.items()
        }
        embeddings = trials.gallery.embeddings if trials.gallery is not None and trials.item is not None else {}
        self._targets = {name: _tensor(rows, np.float32) for name, rows in embeddings.items()}
        self._means: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._windows)

    def batch(self, rows: Tensor, progress: float = 0.0) -> Batch:
        """These trials, at this share of the training, on the CPU."""
        item = None if self._item is None else self._item[rows]
        return Batch(
            window=self._windows[rows],
            subject=self._subject[rows],
            index=rows,
            labels={name: values[rows] for name, values in self._labels.items()},
            targets={} if item is None else {name: table[item] for name, table in self._targets.items()},
            item=item,
            progress=progress,
        )

    def means(self, rows: Tensor) -> Tensor:
        """The mean window over all trials of the same subject and stimulus as each of these, (n, time, channels)."""
        if self._item is None:
            raise ConfigError(
                "training.augment has repetitions, and the trials have no stimuli to be repeated; declare data.stimuli "
                "with items, or leave it out"
            )
        if self._means is None:
            together = self._subject * (int(self._item.max()) + 1) + self._item
            _, group, counts = torch.unique(together, return_inverse=True, return_counts=True)
            sums = torch.zeros(len(counts), *self._windows.shape[1:]).index_add_(0, group, self._windows)
            self._means = (group, sums / counts[:, None, None])
        group, means = self._means
        return means[group[rows]]


def batches(n: int, size: int, generator: torch.Generator, divisor: int = 1) -> list[Tensor]:
    """A random order of `n` windows, cut into even batches of about `size`.

    Even, so that no batch is left with one or two windows, of which batch norm would learn nothing but noise.

    Parameters
    ----------
    n, size : int
        Windows in all and in a batch.
    generator : Generator
        Of the order.
    divisor : int
        Processes that share a batch: as many windows as do not divide are left out of it, this time.
    """
    count = max(1, min(round(n / size), n // 2))
    parts = torch.tensor_split(torch.randperm(n, generator=generator), count)
    return [part[: len(part) // divisor * divisor] for part in parts]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on another device; itself where it is there."""
    if device.type == "cpu":
        return batch

    def moved(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(device, non_blocking=True)

    return Batch(
        window=batch.window.to(device, non_blocking=True),
        subject=batch.subject.to(device),
        index=batch.index.to(device),
        labels={name: values.to(device) for name, values in batch.labels.items()},
        targets={name: values.to(device) for name, values in batch.targets.items()},
        item=moved(batch.item),
        partner=moved(batch.partner),
        share=moved(batch.share),
        progress=batch.progress,
    )


def _tensor(values: np.ndarray, dtype: type) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype))
