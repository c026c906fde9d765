"""A new subject for a cross-subject model: the front is fitted, by least squares and then by gradients.

The start by least squares asks that the new subject's virtual channels be, for each stimulus or class, what those of
the training subjects are on average: functional alignment with the trunk's own input as the common space (in the spirit
of Haxby et al., "A common, high-dimensional model of the representational space", Neuron 2011). Means over trials are
compared, and not trials, so that the noise of single trials does not shrink the map.

MindBridge (Wang et al., CVPR 2024, arXiv 2404.07850) adapts to a new subject by what it calls reset-tuning, read here
as: what is near the signal is subject-specific and begins anew, what lies deep is shared and taken over. The trunk is
then frozen, unless `Tuning.trunk` says otherwise.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.cross_subject import CrossSubject

#: How many windows go through a front at once.
CHUNK = 256


class Tuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a front is fitted by gradients.

    Parameters
    ----------
    epochs, batch_size : int
        Passes over the new subject's trials, and windows in a step.
    learning_rate, weight_decay : float
        Of AdamW.
    trunk : bool
        The trunk is trained too.
    seed : int
        Of the order of the trials and of dropout.
    """

    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    trunk: bool = False
    seed: int = 0


def conditions(trials: Trials, by: str) -> list[str]:
    """The stimulus or the class of each trial by name: `by` is ``item`` or the name of a label.

    Raises
    ------
    ConfigError
        The trials have no stimuli, or no such label.
    """
    if by == "item":
        if trials.item is None or trials.gallery is None:
            raise ConfigError("the trials have no stimuli to align subjects by; name one of their labels instead")
        return [trials.gallery.names[int(item)] for item in trials.item]
    if by not in trials.labels:
        raise ConfigError(f"the trials have no label {by!r}; they have {', '.join(trials.labels) or 'none'}")
    names = trials.classes[by]
    return [names[int(label)] for label in trials.labels[by]]


def templates(encoder: CrossSubject, trials: Trials, by: str = "item") -> dict[str, Tensor]:
    """Mean input of the trunk for each stimulus or class, over the training subjects: name -> (samples, width).

    It is taken where the linear layer of the fronts ends, and each subject counts as much as any other.

    Parameters
    ----------
    encoder : CrossSubject
        Trained.
    trials : Trials
        Of the subjects that it was trained on.
    by : str
        ``item`` or the name of a label.
    """
    names = np.array(conditions(trials, by))
    found: dict[str, list[Tensor]] = {}
    for subject in np.unique(trials.subject):
        front = encoder.front(int(subject))
        for name in np.unique(names[trials.subject == subject]):
            rows = np.flatnonzero((names == name) & (trials.subject == subject))
            found.setdefault(str(name), []).append(_mean_over(trials.x[rows], front.linear_virtual))
    return {name: torch.stack(means).mean(dim=0) for name, means in found.items()}


def start_front(
    encoder: CrossSubject,
    subject: int,
    trials: Trials,
    common: Mapping[str, Tensor],
    *,
    by: str = "item",
    ridge: float = 1e-2,
) -> None:
    """Set a front's linear layer by ridge regression from the subject's mean windows to `templates`.

    ``min_W,b  sum |W x + b - z|^2 + lambda |W|^2`` over stimuli or classes and samples, in closed form; lambda is
    `ridge` times the mean variance of the inputs times their number.

    Parameters
    ----------
    encoder : CrossSubject
        Its front `subject` is changed, nothing else.
    subject : int
        As `CrossSubject.add_subject` gave it.
    trials : Trials
        The subject's own; their field ``subject`` is not looked at.
    common : mapping of str to Tensor
        From `templates`.
    by : str
        As for `templates`.
    ridge : float
        Above 0.

    Raises
    ------
    ConfigError
        The subject has no stimulus or class in common with the templates, or `ridge` is not positive.
    """
    if not ridge > 0:
        raise ConfigError(f"ridge is {ridge}; expected more than 0")
    names = np.array(conditions(trials, by))
    shared = [name for name in sorted(common) if (names == name).any()]
    if not shared:
        raise ConfigError(f"the new subject's trials have no {by} in common with those that the model was trained on")
    front = encoder.front(subject)
    inputs = torch.cat([_mean_over(trials.x[names == name], front.features) for name in shared]).double()
    wanted = torch.cat([common[name] for name in shared]).double()
    weight, bias = _ridge(inputs, wanted, ridge)
    with torch.no_grad():
        front.linear.weight.copy_(weight)
        front.linear.bias.copy_(bias)


def _ridge(inputs: Tensor, wanted: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Weights (out, in) and bias (out,) from rows (n, in) to rows (n, out), by the smaller of the two equations."""
    centre, middle = inputs.mean(dim=0), wanted.mean(dim=0)
    x, z = inputs - centre, wanted - middle
    n, width = x.shape
    strength = ridge * float(x.square().sum()) / width
    if width <= n:
        weight = torch.linalg.solve(x.T @ x + strength * torch.eye(width, dtype=x.dtype), x.T @ z).T
    else:
        weight = (x.T @ torch.linalg.solve(x @ x.T + strength * torch.eye(n, dtype=x.dtype), z)).T
    return weight, middle - weight @ centre


def _mean_over(x: NDArray[np.float32], function: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over windows of what a function makes of them."""
    with torch.no_grad():
        sums = [function(torch.from_numpy(x[at : at + CHUNK])).double().sum(dim=0) for at in range(0, len(x), CHUNK)]
    return (torch.stack(sums).sum(dim=0) / len(x)).float()


def tune_front(
    encoder: CrossSubject, subject: int, trials: Trials, loss: nn.Module, tuning: Tuning | None = None
) -> list[float]:
    """Fit a front, and the trunk where `tuning` says so, by gradients; the encoder is left in evaluation mode.

    Parameters
    ----------
    encoder : CrossSubject
        Its front `subject` is changed.
    subject : int
        As `CrossSubject.add_subject` gave it.
    trials : Trials
        The subject's own; their field ``subject`` is not looked at.
    loss : Module
        As a recipe's; its own parameters stay as they are.
    tuning : Tuning, optional
        How.

    Returns
    -------
    list of float
        Mean loss of each epoch.
    """
    tuning = tuning or Tuning()
    parts: list[nn.Module] = [encoder.front(subject), *([encoder.trunk] if tuning.trunk else [])]
    curve = []
    with _training_only(encoder, parts), torch.random.fork_rng(devices=[]):
        torch.manual_seed(tuning.seed)
        parameters = [parameter for part in parts for parameter in part.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=tuning.learning_rate, weight_decay=tuning.weight_decay)
        for _ in range(tuning.epochs):
            losses = []
            for rows in _even(torch.randperm(len(trials)), tuning.batch_size):
                batch = batch_of(trials, rows.numpy(), subject)
                value = cast(Tensor, loss(encoder(batch.window, batch.subject), batch))
                optimiser.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses.append(float(value.detach()))
            curve.append(float(np.mean(losses)))
    return curve


def _even(order: Tensor, size: int) -> tuple[Tensor, ...]:
    """Batches of nearly the same size, none larger than `size`."""
    return torch.tensor_split(order, -(-len(order) // size))


def batch_of(trials: Trials, rows: NDArray[np.int64], subject: int) -> Batch:
    """Some of the trials, as if they were this subject's, with the rows of the gallery that belong to them."""
    chosen = trials.take(rows)
    item = None if chosen.item is None else torch.from_numpy(chosen.item)
    targets = {}
    if chosen.item is not None and chosen.gallery is not None:
        targets = {name: torch.from_numpy(of[chosen.item]) for name, of in chosen.gallery.embeddings.items()}
    whose = torch.full((len(rows),), subject)
    labels = {name: torch.from_numpy(values) for name, values in chosen.labels.items()} | {"subject": whose}
    return Batch(torch.from_numpy(chosen.x), whose, torch.from_numpy(rows), labels, targets, item)


@contextlib.contextmanager
def _training_only(encoder: CrossSubject, parts: list[nn.Module]) -> Iterator[None]:
    """These parts in training mode with gradients, the rest frozen; who had gradients has them again afterwards."""
    had = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    encoder.requires_grad_(False)
    encoder.eval()
    for part in parts:
        part.train()
        part.requires_grad_(True)
    try:
        yield
    finally:
        encoder.eval()
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name in had)
            parameter.grad = None
