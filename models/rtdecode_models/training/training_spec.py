"""The table ``[training]`` of a recipe: how one network is fitted."""

from typing import Literal

import msgspec

from rtdecode_models.training.schedule import AnySchedule, Constant


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Augment(_Part, frozen=True, kw_only=True, tag_field="kind"):
    """Base of the augmentations; each counts from share `start` of the training to share `stop`."""

    start: float = 0.0
    stop: float = 1.0


class Mixup(_Augment, frozen=True, kw_only=True, tag="mixup"):
    """Windows and labels blended with another's, by a weight from Beta(alpha, alpha); alpha 1 is uniform.

    `per`: one weight for the batch, or one for each window. `share`: how many of the windows (or batches) are blended.
    """

    alpha: float = 1.0
    per: Literal["batch", "window"] = "batch"
    share: float = 1.0


class Shift(_Augment, frozen=True, kw_only=True, tag="shift"):
    """Each window moved in time by up to this many seconds either way, zeros where it left."""

    seconds: float


class Noise(_Augment, frozen=True, kw_only=True, tag="noise"):
    """Gaussian noise of `sd` times each channel's own standard deviation in the window, on a share of the windows."""

    sd: float = 0.2
    share: float = 1.0


class Repetitions(_Augment, frozen=True, kw_only=True, tag="repetitions"):
    """A share of the windows replaced by the mean over all that the same subject gave for the same stimulus."""

    share: float = 0.25


class ChannelDropout(_Augment, frozen=True, kw_only=True, tag="channel_dropout"):
    """Each channel of each window set to 0 with this probability."""

    share: float = 0.1


Augment = Mixup | Shift | Noise | Repetitions | ChannelDropout


class EarlyStopping(_Part, frozen=True, kw_only=True):
    """End where `monitor` was not better for `patience` epochs, and keep the best epoch's weights.

    `monitor`: ``loss`` (the objective on the validation part), ``train_loss``, or a score of the first task on the
    validation part: ``accuracy``, ``nll``, ``top1``, ``top5``, ``mrr``.
    """

    monitor: Literal["loss", "train_loss", "accuracy", "nll", "top1", "top5", "mrr"] = "loss"
    patience: int = 10


class Group(_Part, frozen=True, kw_only=True):
    """Parameters (patterns of their names) with a learning rate or a weight decay of their own."""

    parameters: tuple[str, ...]
    learning_rate: float | None = None
    weight_decay: float | None = None


class Training(_Part, frozen=True, kw_only=True):
    """How one network is fitted.

    Parameters
    ----------
    epochs, batch_size : int
        Batches are even: no last one of two or three windows.
    optimiser : str
        ``adam``, ``adamw`` or ``lamb``.
    learning_rate, betas, weight_decay
        Of the optimiser.
    decay_vectors : bool
        Whether weight decay falls on biases, norms and temperatures too.
    schedule : Schedule
        Of the learning rate.
    clip_norm : float, optional
        Gradients are scaled down to this norm.
    augment : tuple of Augment
        In this order.
    early_stopping : EarlyStopping, optional
        None trains all epochs and keeps the last.
    groups : tuple of Group
        Exceptions.
    precision : str
        ``bf16`` multiplies in bfloat16 where torch's autocast does; the weights stay float32.
    threads : int
        Of torch on the CPU. With 1, and no GPU, the same seed gives the same weights to the last bit.
    save_minutes : float
        How often the state is written from which a broken-off training goes on.
    """

    epochs: int = 60
    batch_size: int = 64
    optimiser: Literal["adam", "adamw", "lamb"] = "adam"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decay_vectors: bool = True
    schedule: AnySchedule = Constant()
    clip_norm: float | None = None
    augment: tuple[Augment, ...] = ()
    early_stopping: EarlyStopping | None = None
    groups: tuple[Group, ...] = ()
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 1
    save_minutes: float = 5.0
