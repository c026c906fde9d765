"""What all losses of a recipe have in common."""

from collections.abc import Mapping
from typing import Literal

import msgspec
from torch import Tensor

from rtdecode.errors import ConfigError
from rtdecode_models.training.batch import Batch

#: Which sides of a similarity are brought to unit length.
Sides = Literal["both", "output", "target", "none"]


class LossSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of the tables ``[[loss]]``.

    `weight` multiplies the loss in the sum. `start` and `stop`: it counts from one share of the training to the other.
    """

    weight: float = 1.0
    start: float = 0.0
    stop: float = 1.0


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


def flat(x: Tensor) -> Tensor:
    """Vectors (batch, width) in float32, whatever the shape and precision."""
    return x.flatten(1).float()
