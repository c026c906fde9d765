"""Losses that bring outputs to the stimuli's embeddings themselves."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from rtdecode.errors import ConfigError
from rtdecode_models.data.batch import Batch, check_widths, output_of, target_of
from rtdecode_models.data.trials import Trials
from rtdecode_models.training.losses_spec import LossSpec, flat


class MSESpec(LossSpec, frozen=True, kw_only=True, tag="mse"):
    """Mean squared error; `standardise`: towards z-scores over the training stimuli, dimension by dimension."""

    target: str
    output: str = "embedding"
    standardise: bool = True


class L2Spec(LossSpec, frozen=True, kw_only=True, tag="l2"):
    """Squared Euclidean distance, summed over dimensions."""

    target: str
    output: str = "embedding"


class CosineSpec(LossSpec, frozen=True, kw_only=True, tag="cosine"):
    """One minus the cosine."""

    target: str
    output: str = "embedding"


class MSE(nn.Module):
    """``mean((p - z)^2)`` with z the standardised target: Benchetrit et al. (arXiv:2310.19812).

    Where windows are blended, so are their targets.

    Parameters
    ----------
    spec : MSESpec
        Names.
    trials : Trials
        What is trained on: the mean and the standard deviation are those of its stimuli.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, spec: MSESpec, trials: Trials) -> None:
        super().__init__()
        self.spec = spec
        centre, spread = torch.zeros(1), torch.ones(1)
        if spec.standardise:
            centre, spread = statistics(trials, spec.target)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over batch and dimensions."""
        output, target = _pair(self.spec, outputs, batch)
        return (output - (target - self.centre) / self.spread).square().mean()


class L2(nn.Module):
    """``mean(|p - t|^2)``, the distance of NeuroImagen's sample-level semantics (arXiv:2308.02510)."""

    def __init__(self, spec: L2Spec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch."""
        output, target = _pair(self.spec, outputs, batch)
        return (output - target).square().sum(dim=1).mean()


class Cosine(nn.Module):
    """``mean(1 - cos(p, t))``."""

    def __init__(self, spec: CosineSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch."""
        output, target = _pair(self.spec, outputs, batch)
        return (1 - cosine_similarity(output, target, dim=1)).mean()


def statistics(trials: Trials, target: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1 where it is 0) of each dimension over stimuli, both of shape (width,).

    Of those that occur in the trials: their gallery may hold others, which are tested on.

    Raises
    ------
    ConfigError
        The trials have no stimuli.
    """
    if trials.gallery is None or trials.item is None:
        raise ConfigError(f"the target {target!r} is to be standardised over the stimuli; the trials have none")
    rows = torch.from_numpy(trials.gallery.embeddings[target][np.unique(trials.item)]).double().flatten(1)
    spread = rows.std(dim=0, correction=0)
    return rows.mean(dim=0).float(), torch.where(spread > 0, spread, torch.ones(())).float()


def _pair(spec: MSESpec | L2Spec | CosineSpec, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    """Output and target (batch, width); raise `ConfigError` where there is none of that name, or they do not fit."""
    output, target = flat(output_of(outputs, spec.output)), flat(blended(batch, spec.target))
    check_widths(output, target, (spec.output, spec.target))
    return output, target


def blended(batch: Batch, name: str) -> Tensor:
    """Targets, blended as their windows were."""
    target = target_of(batch, name)
    if batch.partner is None or batch.share is None:
        return target
    share = batch.share.reshape(-1, *[1] * (target.ndim - 1))
    return share * target + (1 - share) * target[batch.partner]
