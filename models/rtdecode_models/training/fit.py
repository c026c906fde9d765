"""Fit one EEG-SimpleConv to labelled windows, the same way every time for the same seed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode_models.systems.shape import Shape
from rtdecode_models.systems.simpleconv import EEGSimpleConv, SimpleConvConfig
from rtdecode_models.training.recipe import Model, Training


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network.

    Parameters
    ----------
    module : EEGSimpleConv
        In evaluation mode.
    loss : tuple of float
        Mean training loss (cross-entropy of the blended labels where mixup is on) of each epoch, in nats.
    """

    module: EEGSimpleConv
    loss: tuple[float, ...]


def fit(
    windows: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    model: Model,
    training: Training,
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> Fitted:
    """Train one network.

    Parameters
    ----------
    windows : ndarray of float32, shape (n, time, channels)
        Conditioned, standardised.
    labels : ndarray of int64, shape (n,)
        Class of each window.
    n_classes : int
        Classes.
    model, training : Model, Training
        The recipe's tables.
    seed : int
        Seeds the initial weights, the order of the windows, dropout and mixup. The same seed, data, thread count and
        version of torch give the same weights; torch's global generator is left as it was.
    on_epoch : callable
        Called after each epoch, for progress bars.

    Returns
    -------
    Fitted
        The network and its learning curve.
    """
    x = torch.from_numpy(np.ascontiguousarray(windows))
    y = torch.nn.functional.one_hot(torch.from_numpy(labels), n_classes).to(torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = EEGSimpleConv(
            SimpleConvConfig(width=model.width, n_blocks=model.n_blocks, kernel=model.kernel, dropout=model.dropout),
            Shape(windows.shape[1], windows.shape[2], 0.0, classes={"label": n_classes}),
        )
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        drop_epoch = int(training.drop_at * training.epochs)
        module.train()
        curve = []
        for epoch in range(training.epochs):
            if epoch == drop_epoch:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.1
            curve.append(_epoch(module, optimizer, x, y, training))
            on_epoch()
    return Fitted(module.eval(), tuple(curve))


def _epoch(module: EEGSimpleConv, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, training: Training) -> float:
    total = 0.0
    for batch in batches(len(x), training.batch_size):
        windows, targets = x[batch], y[batch]
        if training.mixup:
            windows, targets = mixup(windows, targets)
        loss = -(torch.log_softmax(module(windows)["logits"], dim=1) * targets).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach()) * len(batch)
    return total / len(x)


def batches(n: int, size: int) -> list[Tensor]:
    """A random order of `n` windows, cut into even batches of about `size`.

    Even, so that no batch is left with one or two windows, of which batch norm would learn nothing but noise.
    """
    count = max(1, min(round(n / size), n // 2))
    return list(torch.tensor_split(torch.randperm(n), count))


def mixup(windows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each window and its label with another's, by one weight from U(0, 1) (Zhang et al., ICLR 2018)."""
    weight = torch.rand(())
    other = torch.randperm(len(windows))
    return weight * windows + (1 - weight) * windows[other], weight * targets + (1 - weight) * targets[other]


def log_probabilities(module: torch.nn.Module, windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities (n, classes) of conditioned windows (n, time, channels), in evaluation mode."""
    with torch.no_grad():
        logits: Tensor = module(torch.from_numpy(np.ascontiguousarray(windows)))["logits"]
    return torch.log_softmax(logits.to(torch.float64), dim=1).numpy()
