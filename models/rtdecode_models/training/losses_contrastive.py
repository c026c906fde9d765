"""Losses between windows and stimuli: each window should be nearer to its own stimulus than to the batch's others."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from rtdecode_models.data.batch import Batch, check_widths, output_of, target_of
from rtdecode_models.training.losses_spec import LossSpec, Sides, flat

#: Where every published logit scale begins: ln(1 / 0.07).
LOG_SCALE = math.log(1 / 0.07)


class InfoNCESpec(LossSpec, frozen=True, kw_only=True, tag="infonce"):
    """Symmetric InfoNCE over the batch.

    `scale` says what is done to the parameter that begins at `init` to make the factor on the similarities: ``exp``,
    ``softplus`` or nothing (``raw``); ``encoder`` takes what the encoder gives as ``logit_scale`` instead. `learnable`:
    whether it is trained. `normalise`: which sides are brought to unit length. `directions`: windows look for stimuli,
    stimuli for windows, or both. `mask_repeats`: other windows of the same stimulus are no wrong answers.
    """

    target: str
    output: str = "embedding"
    scale: Literal["exp", "softplus", "raw", "encoder"] = "exp"
    init: float = LOG_SCALE
    learnable: bool = True
    normalise: Sides = "both"
    directions: Literal["both", "window_to_target", "target_to_window"] = "both"
    mask_repeats: bool = False


class SoftCLIPSpec(LossSpec, frozen=True, kw_only=True, tag="softclip"):
    """SoftCLIP: the stimuli's similarities to one another are the answer; the temperature goes between two."""

    target: str
    output: str = "embedding"
    temperature: tuple[float, float] = (0.004, 0.0075)


class BiMixCoSpec(LossSpec, frozen=True, kw_only=True, tag="bimixco"):
    """BiMixCo: InfoNCE for windows that the augmentation ``mixup`` (``per = "window"``) has blended."""

    target: str
    output: str = "embedding"
    temperature: float = 0.006


class InfoNCE(nn.Module):
    """Cross-entropy of each window's similarities to the batch's stimuli, and the other way round.

    ``L = (CE(s X Y^T, i) + CE(s Y X^T, i)) / 2``: Radford et al. 2021 (arXiv:2103.00020), figure 3; van den Oord et al.
    2018 (arXiv:1807.03748), equation 4. NICE (arXiv:2308.13234): both sides of unit length, a constant factor 1/0.07.
    ATM (arXiv:2403.07721): no side of unit length, the parameter itself as the factor. UBP (arXiv:2503.04207): stimuli
    of unit length, softplus. The brain module (arXiv:2310.19812): both of unit length, a learnt factor.

    Parameters
    ----------
    spec : InfoNCESpec
        Which of these.
    """

    def __init__(self, spec: InfoNCESpec) -> None:
        super().__init__()
        self.spec = spec
        trained = spec.learnable and spec.scale != "encoder"
        self.logit_scale = nn.Parameter(torch.tensor(spec.init), requires_grad=trained)

    def factor(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """What similarities are multiplied by."""
        if self.spec.scale == "encoder":
            return output_of(outputs, "logit_scale")
        if self.spec.scale == "exp":
            return self.logit_scale.exp()
        return softplus(self.logit_scale) if self.spec.scale == "softplus" else self.logit_scale

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch, in nats."""
        x, y = _sides_of(self.spec, outputs, batch, self.spec.normalise)
        logits = self.factor(outputs) * x @ y.T
        if self.spec.mask_repeats and batch.item is not None:
            same = batch.item[:, None] == batch.item[None, :]
            same.fill_diagonal_(False)
            logits = logits.masked_fill(same, -math.inf)
        return two_ways(logits, torch.eye(len(x), device=x.device), self.spec.directions)


class SoftCLIP(nn.Module):
    """Cross-entropy towards the softmax of the stimuli's own similarities.

    MindEye (arXiv:2305.18274): targets ``softmax(t t^T / T)``, predictions ``softmax(p t^T / T)``, both
    directions, unit vectors. T follows half a cosine from the first to the second temperature over the loss's part of
    the training, as in MindEye2 (arXiv:2403.11207).

    Parameters
    ----------
    spec : SoftCLIPSpec
        Names and temperatures.
    """

    def __init__(self, spec: SoftCLIPSpec) -> None:
        super().__init__()
        self.spec = spec

    def temperature(self, progress: float) -> float:
        """At this share of the whole training."""
        first, last = self.spec.temperature
        done = min(max((progress - self.spec.start) / (self.spec.stop - self.spec.start), 0.0), 1.0)
        return last + (first - last) * (1 + math.cos(math.pi * done)) / 2

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch, in nats."""
        x, y = _sides_of(self.spec, outputs, batch, "both")
        temperature = self.temperature(batch.progress)
        return two_ways(x @ y.T / temperature, (y @ y.T / temperature).softmax(dim=1), "both")


class BiMixCo(nn.Module):
    """InfoNCE whose right answers are the two stimuli of a blended window, by their shares.

    MindEye (arXiv:2305.18274), after Kim et al. 2020 (arXiv:2010.06300): with windows ``l x_i + (1 - l)
    x_k``, the answers weigh l and 1 - l when windows look for stimuli; when stimuli look for windows, every window that
    one is part of is an answer by its share.

    Parameters
    ----------
    spec : BiMixCoSpec
        Names and temperature.
    """

    def __init__(self, spec: BiMixCoSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch, in nats; plain InfoNCE where nothing was blended."""
        x, y = _sides_of(self.spec, outputs, batch, "both")
        answers = torch.eye(len(x), device=x.device)
        if batch.partner is not None and batch.share is not None:
            answers = batch.share[:, None] * answers + (1 - batch.share)[:, None] * answers[batch.partner]
        logits = x @ y.T / self.spec.temperature
        there = -(answers * logits.log_softmax(dim=1)).sum() / len(x)
        back = -(answers * logits.log_softmax(dim=0)).sum() / len(x)
        return (there + back) / 2


def _sides_of(
    spec: InfoNCESpec | SoftCLIPSpec | BiMixCoSpec, outputs: Mapping[str, Tensor], batch: Batch, normalise: Sides
) -> tuple[Tensor, Tensor]:
    """`sides` of what a loss names; raise `ConfigError` where there is none of that name, or they do not fit."""
    x, y = sides(output_of(outputs, spec.output), target_of(batch, spec.target), normalise)
    check_widths(x, y, (spec.output, spec.target))
    return x, y


def sides(output: Tensor, target: Tensor, normalise: Sides) -> tuple[Tensor, Tensor]:
    """Both as float32 vectors (batch, width), of unit length where asked."""
    x, y = flat(output), flat(target)
    if normalise in ("both", "output"):
        x = normalize(x, dim=1)
    if normalise in ("both", "target"):
        y = normalize(y, dim=1)
    return x, y


def two_ways(logits: Tensor, answers: Tensor, directions: str) -> Tensor:
    """Mean cross-entropy towards answers (batch, batch), along rows, along columns, or the mean of the two."""
    kept = torch.zeros_like(logits)
    there = -torch.where(answers > 0, answers * logits.log_softmax(dim=1), kept).sum(dim=1).mean()
    if directions == "window_to_target":
        return there
    back = -torch.where(answers > 0, answers * logits.T.log_softmax(dim=1), kept).sum(dim=1).mean()
    return back if directions == "target_to_window" else (there + back) / 2
