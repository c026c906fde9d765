"""What all losses of a recipe have in common."""

from typing import Literal

import msgspec
from torch import Tensor

#: Which sides of a similarity are brought to unit length.
Sides = Literal["both", "output", "target", "none"]


class LossSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of the tables ``[[loss]]``.

    `weight` multiplies the loss in the sum. `start` and `stop`: it counts from one share of the training to the other.
    """

    weight: float = 1.0
    start: float = 0.0
    stop: float = 1.0


def flat(x: Tensor) -> Tensor:
    """Vectors (batch, width) in float32, whatever the shape and precision."""
    return x.flatten(1).float()
