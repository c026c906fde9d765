"""Cross-entropy in its published forms, and the losses that a module gives itself."""

from collections.abc import Mapping
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch, label_of, output_of
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.ordinal import gaussian_smoothing
from rtdecode_models.training.losses_spec import LossSpec


class CrossEntropySpec(LossSpec, frozen=True, kw_only=True, tag="cross_entropy"):
    """Cross-entropy of a label.

    `smoothing`: this share of every answer is spread evenly over the classes. `gaussian`: the answer is a bell over
    neighbouring classes with this standard deviation, in classes. `class_weights`: one for each class, or ``balanced``
    for the inverse of their frequency. `sigmoid`: outputs pass a sigmoid before the softmax, as Du-IN's do. The label
    ``subject`` is whose window it is, for regularisation.
    """

    output: str = "logits"
    label: str = "label"
    smoothing: float = 0.0
    gaussian: float | None = None
    class_weights: tuple[float, ...] | Literal["balanced"] = ()
    sigmoid: bool = False


class OwnSpec(LossSpec, frozen=True, kw_only=True, tag="own"):
    """Losses that the system computes itself: its outputs ``loss_*``, each by its weight.

    `weights` names those that count; empty for all of them, each once.
    """

    weights: dict[str, float] = msgspec.field(default_factory=dict)


class CrossEntropy(nn.Module):
    """``-sum_c w_c y_c log p_c``, over the batch's total weight (for hard answers: torch's weighted mean).

    Answers y are hard, smoothed evenly (Szegedy et al. 2016, arXiv:1512.00567, section 7), or smoothed by a Gaussian
    over the class index (HiSTN, arXiv:2408.15255): ``y_j ~ exp(-(j - c)^2 / (2 s^2))``, summing to 1.

    Parameters
    ----------
    spec : CrossEntropySpec
        Which of these.
    n_classes : int
        Classes of the label.
    weights : Tensor of float32, shape (classes,)
        Of the classes.
    """

    answers: Tensor
    weights: Tensor

    def __init__(self, spec: CrossEntropySpec, n_classes: int, weights: Tensor) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("answers", smoothed(n_classes, spec.smoothing, spec.gaussian))
        self.register_buffer("weights", weights)

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Weighted mean over the batch, in nats."""
        logits = output_of(outputs, self.spec.output).float()
        truth = label_of(batch, self.spec.label)
        hard = truth if truth.ndim == 2 else one_hot(truth, len(self.answers)).float()
        if logits.shape != hard.shape:
            raise ConfigError(
                f"the output {self.spec.output!r} has {logits.shape[1]} classes, and the label {self.spec.label!r} "
                f"{hard.shape[1]}; set the system's classes to the label's"
            )
        weighted = (hard @ self.answers) * self.weights
        logs = torch.log_softmax(torch.sigmoid(logits) if self.spec.sigmoid else logits, dim=1)
        return -(weighted * logs).sum() / weighted.sum()


class Own(nn.Module):
    """The weighted sum of the outputs whose names begin with ``loss_``."""

    def __init__(self, spec: OwnSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """A scalar; where the encoder gives one for each window, their mean."""
        weights = self.spec.weights or {name: 1.0 for name in outputs if name.startswith("loss_")}
        if not weights:
            raise ConfigError('the loss of kind "own" found no output named loss_*; this system has no loss of its own')
        terms = [weight * output_of(outputs, name).float().mean() for name, weight in weights.items()]
        return torch.stack(terms).sum()


def smoothed(n_classes: int, smoothing: float, gaussian: float | None) -> Tensor:
    """Row c: the answer where the truth is class c; shape (classes, classes)."""
    answers = torch.eye(n_classes)
    if gaussian is not None:
        answers = torch.from_numpy(gaussian_smoothing(n_classes, gaussian))
    return (1 - smoothing) * answers + smoothing / n_classes


def class_weights(spec: CrossEntropySpec, n_classes: int, trials: Trials) -> Tensor:
    """The weight of each class; raise `ConfigError` where the recipe names another number of them."""
    if spec.class_weights == "balanced":
        values = trials.subject if spec.label == "subject" else trials.labels[spec.label]
        counts = torch.bincount(torch.from_numpy(values), minlength=n_classes).float()
        return counts.sum() / (n_classes * counts.clamp(min=1))
    if not spec.class_weights:
        return torch.ones(n_classes)
    if len(spec.class_weights) != n_classes:
        raise ConfigError(
            f"class_weights has {len(spec.class_weights)} numbers for the {n_classes} classes of {spec.label!r}"
        )
    return torch.tensor(spec.class_weights)
