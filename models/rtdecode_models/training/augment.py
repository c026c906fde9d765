"""What is done to training windows, batch by batch, all of it drawn from one generator."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rtdecode_models.data.batch import Batch
from rtdecode_models.training.training_spec import Augment, ChannelDropout, Mixup, Noise, Repetitions, Shift

#: From rows of the training set to the mean window over each row's repetitions, (batch, time, channels).
Means = Callable[[Tensor], Tensor]


def augment(batch: Batch, what: Augment, sfreq: float, means: Means, generator: torch.Generator) -> Batch:
    """One augmentation of a batch.

    Parameters
    ----------
    batch : Batch
        Left as it is.
    what : Augment
        From the recipe.
    sfreq : float
        Conditioned rate in Hz.
    means : callable
        For `Repetitions`.
    generator : Generator
        Of everything drawn, on the CPU.

    Returns
    -------
    Batch
        A changed one; `batch` itself outside the augmentation's part of the training.
    """
    if not what.start <= batch.progress < what.stop:
        return batch
    match what:
        case Mixup():
            return mixup(batch, what, generator)
        case Shift():
            return replace(batch, window=shifted(batch.window, round(what.seconds * sfreq), generator))
        case Noise():
            return replace(batch, window=noisy(batch.window, what, generator))
        case Repetitions():
            chosen = _chosen(batch, what.share, generator)
            return replace(batch, window=torch.where(chosen, means(batch.index), batch.window))
        case ChannelDropout():
            kept = torch.rand(len(batch.window), 1, batch.window.shape[2], generator=generator) >= what.share
            return replace(batch, window=batch.window * kept)


def mixup(batch: Batch, what: Mixup, generator: torch.Generator) -> Batch:
    """Blend each window and its labels with another's of the batch (Zhang et al. 2018, arXiv:1710.09412, equation 1).

    Targets stay each window's own; `Batch.partner` and `Batch.share` say what was blended with what.
    """
    n = len(batch.window)
    count = n if what.per == "window" else 1
    share = _beta(what.alpha, count, generator).expand(n)
    blend = (torch.rand(count, generator=generator) < what.share).expand(n)
    share = torch.where(blend, share, torch.ones(()))
    partner = torch.randperm(n, generator=generator)
    here = share[:, None, None]
    window = here * batch.window + (1 - here) * batch.window[partner]
    labels = {}
    for name, label in batch.labels.items():
        if label.ndim == 1:
            raise ValueError(f"mixup needs the label {name!r} as probabilities")
        labels[name] = share[:, None] * label + (1 - share[:, None]) * label[partner]
    return replace(batch, window=window, labels=labels, partner=partner, share=share)


def shifted(window: Tensor, furthest: int, generator: torch.Generator) -> Tensor:
    """Windows moved by up to `furthest` samples either way, each by its own draw, zeros where they left."""
    n, time, channels = window.shape
    by = torch.randint(-furthest, furthest + 1, (n, 1), generator=generator)
    at = torch.arange(time)[None] - by
    inside = (at >= 0) & (at < time)
    moved = window.gather(1, at.clamp(0, time - 1)[:, :, None].expand(n, time, channels))
    return moved * inside[:, :, None]


def noisy(window: Tensor, what: Noise, generator: torch.Generator) -> Tensor:
    """Windows with noise as large as a share of each channel's own standard deviation."""
    chosen = torch.rand(len(window), 1, 1, generator=generator) < what.share
    noise = torch.randn(window.shape, generator=generator) * window.std(dim=1, keepdim=True, correction=0)
    return torch.where(chosen, window + what.sd * noise, window)


def _chosen(batch: Batch, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(len(batch.window), 1, 1, generator=generator) < share


def _beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha); torch's own distribution takes no generator, so as a ratio of two gammas."""
    if alpha == 1:
        return torch.rand(count, generator=generator)
    gammas = torch._standard_gamma(torch.full((2, count), alpha), generator=generator)
    # for a small alpha both can be 0 in float32: then either side is as likely
    total = gammas.sum(dim=0)
    return torch.where(total > 0, gammas[0] / total.clamp(min=1e-38), torch.full((), 0.5))
