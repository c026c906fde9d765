"""NeuroImagen: what a picture was of, as the embedding of its caption, and where it stood out, as a saliency map.

After Lan and others, "Seeing through the Brain: Image Reconstruction of Visual Perception from Human Brain Signals",
arXiv 2308.02510: sample-level semantics are an embedding of the caption by CLIP's text encoder, pixel-level semantics a
saliency map by a generator of transposed convolutions. No code was found, and no width is known; all are chosen here.
The diffusion model that draws a picture from both is no part of an encoder.

Losses: ``l2`` towards the captions, and those of `rtdecode_models.systems.neuroimagen_losses`.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder

#: Pieces of time that the features of a window are averaged over.
PIECES = 4
#: Side of the generator's first feature maps.
SEED = 4


class NeuroImagenConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a `NeuroImagen`; all of them chosen here, but for the width of CLIP's text embedding.

    Parameters
    ----------
    n_sources : int
        Mixtures of the channels that the convolutions work on.
    widths : tuple of int
        Features of the residual blocks, each of which halves the time axis.
    kernel : int
        Samples in their convolutions; odd.
    n_features : int
        What both heads are given.
    n_dims : int
        Of the caption's embedding.
    map_widths : tuple of int
        Features of the generator's maps; each one and the output doubles the side, from 4.
    n_noise : int
        In training the generator is given so many random numbers beside the features, and `loss_mode_seeking` rewards
        it for using them; zeros otherwise. 0 leaves them out.
    dropout : float
        Before the heads.
    """

    n_sources: int = 64
    widths: tuple[int, ...] = (64, 128, 256)
    kernel: int = 9
    n_features: int = 512
    n_dims: int = 768
    map_widths: tuple[int, ...] = (256, 128, 64, 32)
    n_noise: int = 0
    dropout: float = 0.25


class NeuroImagen(Encoder):
    """Windows (batch, time, channels) to ``embedding`` (batch, n_dims) and ``saliency`` (batch, side, side).

    For the losses also ``features`` (batch, n_features), and, while training with noise, ``loss_mode_seeking``.

    Parameters
    ----------
    config : NeuroImagenConfig
    shape : Shape
        Of the data.
    """

    outputs = ("embedding", "saliency")

    def __init__(self, config: NeuroImagenConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.sources = nn.Sequential(
            nn.Conv2d(shape.n_channels, config.n_sources, 1, bias=False), nn.BatchNorm2d(config.n_sources)
        )
        widths = (config.n_sources, *config.widths)
        self.blocks = nn.Sequential(*(Block(*pair, config.kernel) for pair in pairwise(widths)))
        left = shape.n_times
        for _ in config.widths:
            left = (left + 1) // 2
        if left < PIECES:
            raise ValueError(f"a window of {shape.n_times} samples is too short for {len(config.widths)} blocks")
        self.pool = nn.AvgPool2d((1, left // PIECES))
        self.project = nn.Linear(widths[-1] * PIECES, config.n_features)
        self.drop = nn.Dropout(config.dropout)
        self.caption = nn.Sequential(
            nn.LayerNorm(config.n_features),
            nn.Linear(config.n_features, config.n_features),
            nn.GELU(),
            nn.Linear(config.n_features, config.n_dims),
        )
        self.generator = Generator(config.n_features + config.n_noise, config.map_widths)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Caption embeddings and saliency maps of windows (batch, time, channels), each channel of order one."""
        x = self.pool(self.blocks(self.sources(window.transpose(1, 2).unsqueeze(2))))
        features = self.drop(self.project(x[..., :PIECES].flatten(1)))
        outputs = {"embedding": self.caption(features), "features": features}
        if not self.training:
            given = functional.pad(features, (0, self.config.n_noise)) if self.config.n_noise else features
            return outputs | {"saliency": self.generator(given)}
        noise = torch.randn(2, len(features), self.config.n_noise, device=features.device)
        outputs["saliency"] = self.generator(torch.cat([features, noise[0]], dim=1))
        if self.config.n_noise:
            other = self.generator(torch.cat([features, noise[1]], dim=1))
            outputs["loss_mode_seeking"] = mode_seeking(outputs["saliency"], other, noise[0], noise[1])
        return outputs


class Block(nn.Module):
    """Two convolutions over time, the first of which halves it, beside a strided 1x1 residual.

    Parameters
    ----------
    width, wider : int
        Features, in and out.
    kernel : int
        Samples.
    """

    def __init__(self, width: int, wider: int, kernel: int) -> None:
        super().__init__()
        padding = (0, kernel // 2)
        self.layers = nn.Sequential(
            nn.Conv2d(width, wider, (1, kernel), stride=(1, 2), padding=padding, bias=False),
            nn.BatchNorm2d(wider),
            nn.GELU(),
            nn.Conv2d(wider, wider, (1, kernel), padding=padding, bias=False),
            nn.BatchNorm2d(wider),
        )
        self.residual = nn.Conv2d(width, wider, 1, stride=(1, 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, 1, time) to (batch, wider, 1, time / 2), rounded up."""
        return functional.gelu(self.layers(x) + self.residual(x))


class Generator(nn.Module):
    """Features to a map in [0, 1] by transposed convolutions (Radford, Metz and Chintala, ICLR 2016).

    Parameters
    ----------
    n_inputs : int
        Features, and noise if there is any.
    widths : tuple of int
        Of the maps, from the smallest to the one before the output.
    """

    def __init__(self, n_inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.width = widths[0]
        self.start = nn.Linear(n_inputs, widths[0] * SEED**2)
        layers: list[nn.Module] = []
        for width, wider in pairwise(widths):
            layers += [nn.ConvTranspose2d(width, wider, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider)]
            layers += [nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 1, 4, stride=2, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, n_inputs) to (batch, side, side)."""
        start = functional.relu(self.start(features)).reshape(-1, self.width, SEED, SEED)
        return torch.sigmoid(self.layers(start)).squeeze(1)


def mode_seeking(one: Tensor, other: Tensor, noise: Tensor, other_noise: Tensor) -> Tensor:
    """``1 / (|G(z1) - G(z2)| / |z1 - z2|)`` with mean distances; after Mao and others, CVPR 2019, arXiv 1903.05628.

    They make the ratio large; its inverse is made small here, with a summand for generators that ignore their noise.
    """
    ratio = (one - other).abs().mean() / (noise - other_noise).abs().mean()
    return 1 / (ratio + 1e-5)


def build(options: Mapping[str, Any], shape: Shape) -> NeuroImagen:
    """A `NeuroImagen` for windows of this shape.

    Raises
    ------
    ValueError
        A size makes no sense, or the windows are too short for the blocks.
    """
    config = msgspec.convert(options, NeuroImagenConfig)
    if not config.widths or not config.map_widths:
        raise ValueError("expected one block and one map or more")
    if min(config.n_sources, *config.widths, config.n_features, config.n_dims, *config.map_widths) < 1:
        raise ValueError("expected sizes of 1 or more")
    if config.kernel % 2 == 0 or config.kernel < 1 or config.n_noise < 0 or not 0 <= config.dropout < 1:
        raise ValueError("expected an odd kernel, n_noise of 0 or more, and dropout from 0 to below 1")
    return NeuroImagen(config, shape)
