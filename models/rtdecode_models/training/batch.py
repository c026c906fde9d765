"""What a loss is given beside an encoder's outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


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
