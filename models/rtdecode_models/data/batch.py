"""What a loss is given beside an encoder's outputs, and what it looks up in both."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rtdecode.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some of the training windows.

    Parameters
    ----------
    window : Tensor of float32, shape (batch, time, channels)
        Augmented, where the recipe says so.
    subject : Tensor of int64, shape (batch,)
        Index of the subject.
    index : Tensor of int64, shape (batch,)
        Row of each window in the training set; for what is remembered of each.
    labels : mapping of str to Tensor, shape (batch,) int64 or (batch, classes) float32
        Classes; as probabilities where windows were blended. ``subject`` is always among them.
    targets : mapping of str to Tensor of float32, shape (batch, ...)
        Target name -> rows of the gallery; each window's own, also where windows were blended.
    item : Tensor of int64, shape (batch,), optional
        Row of the gallery.
    partner : Tensor of int64, shape (batch,), optional
        Where windows were blended: the row of this batch that each was blended with.
    share : Tensor of float32, shape (batch,), optional
        Each window's own share of the blend, 1 where it is itself.
    progress : float
        Share of the training that is done, from 0 to 1; for losses with a schedule.
    """

    window: Tensor
    subject: Tensor
    index: Tensor
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    item: Tensor | None = None
    partner: Tensor | None = None
    share: Tensor | None = None
    progress: float = 0.0


def output_of(outputs: Mapping[str, Tensor], name: str) -> Tensor:
    """An encoder's output; raise `ConfigError` where it has none of that name."""
    if name not in outputs:
        raise ConfigError(f"a loss names the output {name!r}; this encoder gives {', '.join(sorted(outputs))}")
    return outputs[name]


def target_of(batch: Batch, name: str) -> Tensor:
    """The gallery's rows of a batch; raise `ConfigError` where the data have no target of that name."""
    if name not in batch.targets:
        have = ", ".join(sorted(batch.targets)) or "none"
        raise ConfigError(f"a loss names the target {name!r}; the data's gallery has {have}")
    return batch.targets[name]


def label_of(batch: Batch, name: str) -> Tensor:
    """The classes of a batch; raise `ConfigError` where the data have no label of that name."""
    if name not in batch.labels:
        raise ConfigError(f"a loss names the label {name!r}; the data have {', '.join(sorted(batch.labels))}")
    return batch.labels[name]


def check_widths(output: Tensor, target: Tensor, names: tuple[str, str]) -> None:
    """Raise `ConfigError` where an output and a target, both (batch, width), are of two widths."""
    if output.shape != target.shape:
        raise ConfigError(
            f"the output {names[0]!r} is {output.shape[1]} numbers wide and the target {names[1]!r} {target.shape[1]}; "
            "set the system's width to the target's, or name another output or target in the loss"
        )
