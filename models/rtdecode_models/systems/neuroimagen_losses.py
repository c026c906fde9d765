"""Losses of NeuroImagen's pixel level: maps that look like the true ones, and features that cluster by class.

A recipe names them as ``kind = "neuroimagen_losses:Saliency"``; other keys of the table are their options.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdecode_models.data.batch import Batch, label_of, output_of, target_of
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.ssim import SSIM, WINDOW


class MapOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `Saliency` and of `Adversarial`.

    Parameters
    ----------
    output, target : str
        The encoder's map, and the gallery's maps, both (side, side) with values in [0, 1].
    mse, ssim : float
        Weights of the two parts of `Saliency`.
    width : int
        Features of the discriminator's first layer in `Adversarial`.
    """

    output: str = "saliency"
    target: str = "saliency"
    mse: float = 1.0
    ssim: float = 1.0
    width: int = 32


class _OfMaps(nn.Module):
    """A loss of the encoder's maps and the gallery's."""

    def __init__(self, options: Mapping[str, Any], trials: Trials) -> None:
        super().__init__()
        self.options = msgspec.convert(options, MapOptions)
        self.side = _check_maps(self.options, trials)

    def maps(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The given ones and the true ones, both (batch, side, side)."""
        return output_of(outputs, self.options.output), target_of(batch, self.options.target)


class Saliency(_OfMaps):
    """``mse * mean((s - t)^2) + ssim * (1 - SSIM(s, t))``.

    Parameters
    ----------
    options : mapping
        Fields of `MapOptions`.
    trials : Trials
        Whose gallery has the maps.

    Raises
    ------
    ValueError
        It has none, or they are no maps.
    """

    def __init__(self, options: Mapping[str, Any], trials: Trials) -> None:
        super().__init__(options, trials)
        self.similarity = SSIM()

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the batch."""
        given, true = self.maps(outputs, batch)
        unlike: Tensor = 1 - self.similarity(given, true).mean()
        return self.options.mse * functional.mse_loss(given, true) + self.options.ssim * unlike


class Adversarial(_OfMaps):
    """A discriminator of true maps from given ones; the encoder is trained against it (Goodfellow et al., NIPS 2014).

    One step trains both: the discriminator lowers its cross-entropy, and the encoder, behind a reversed gradient (Ganin
    and Lempitsky, ICML 2015), raises it.

    Parameters
    ----------
    options : mapping
        Fields of `MapOptions`.
    trials : Trials
        Whose gallery has the maps.

    Raises
    ------
    ValueError
        It has none, or they are no maps.
    """

    def __init__(self, options: Mapping[str, Any], trials: Trials) -> None:
        super().__init__(options, trials)
        width = self.options.width
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * width * (self.side // 2 // 2) ** 2, 1),
        )

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Cross-entropy of the discriminator, mean over true and given maps."""
        given, true = self.maps(outputs, batch)
        # Its value is the map, its gradient the map's with the other sign.
        reversed_given = 2 * given.detach() - given
        judged_true = self.discriminator(true.unsqueeze(1))
        judged_given = self.discriminator(reversed_given.unsqueeze(1))
        return (functional.softplus(-judged_true).mean() + functional.softplus(judged_given).mean()) / 2


class TripletOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `Triplet`: the output that is to cluster, the label by which, and the margin between unit vectors."""

    output: str = "features"
    label: str = "label"
    margin: float = 0.2


class Triplet(nn.Module):
    """Batch-hard triplets (Hermans, Beyer and Leibe, arXiv 1703.07737, eq. 5) of features of unit length.

    ``max(0, margin + d(furthest of the same class) - d(nearest of another class))``, over the windows that have both.

    Parameters
    ----------
    options : mapping
        Fields of `TripletOptions`.
    trials : Trials
        With the label.

    Raises
    ------
    ValueError
        They have none of that name.
    """

    def __init__(self, options: Mapping[str, Any], trials: Trials) -> None:
        super().__init__()
        self.options = msgspec.convert(options, TripletOptions)
        if self.options.label not in trials.labels:
            raise ValueError(
                f"there is no label {self.options.label!r}; the data have {', '.join(trials.labels) or 'none'}"
            )

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean over the windows that have a neighbour of their class and one of another; 0 where none has."""
        features = functional.normalize(output_of(outputs, self.options.output).flatten(1), dim=1)
        truth = label_of(batch, self.options.label)
        classes = truth.argmax(dim=1) if truth.ndim == 2 else truth
        same = classes[:, None] == classes[None, :]
        # A floor below the root: at zero distance its slope has no bound.
        distance = (2 - 2 * features @ features.T).clamp(min=1e-6).sqrt()
        others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        furthest = distance.masked_fill(~others, 0).amax(dim=1)
        nearest = distance.masked_fill(same, torch.inf).amin(dim=1)
        usable = others.any(dim=1) & ~same.all(dim=1)
        hinge = functional.relu(self.options.margin + furthest - nearest)
        return torch.where(usable, hinge, 0).sum() / usable.sum().clamp(min=1)


def _check_maps(options: MapOptions, trials: Trials) -> int:
    """Side of the gallery's maps."""
    maps = {} if trials.gallery is None else trials.gallery.embeddings
    if options.target not in maps:
        raise ValueError(f"there is no target {options.target!r}; the gallery has {', '.join(maps) or 'none'}")
    shape = maps[options.target].shape[1:]
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < WINDOW:
        raise ValueError(f"target {options.target!r} has rows of shape {shape}; expected (side, side) from {WINDOW} on")
    values = maps[options.target]
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"target {options.target!r} has values outside [0, 1]; scale the maps first")
    return int(shape[0])
