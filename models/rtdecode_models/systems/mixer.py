"""MindEye2's shared trunk: MLP-Mixer blocks, a linear layer to the latent, and a projector for the contrastive loss.

Scotti et al., "MindEye2: Shared-Subject Models Enable fMRI-To-Image With 1 Hour of Data" (ICML 2024, arXiv 2403.11207);
blocks after Tolstikhin et al., "MLP-Mixer" (NeurIPS 2021, arXiv 2105.01601). It stands behind the fronts of
`cross_subject`, which give it one sample of `width` numbers, and mixes over samples only where there are several.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.options import read_options, target_width


class MixerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `Mixer`.

    Parameters
    ----------
    target : str
        The embeddings that it is trained on.
    blocks : int
        Of the mixer.
    dropout : float
        In its blocks.
    """

    target: str = "image"
    blocks: int = 4
    dropout: float = 0.15


def _mlp(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width), nn.Dropout(dropout)
    )


class MixerBlock(nn.Module):
    """Residual networks over the channels of each sample and, where there are several, over each channel's samples.

    Parameters
    ----------
    n_times, width : int
        Samples and channels.
    dropout : float
        In both.
    """

    def __init__(self, n_times: int, width: int, dropout: float) -> None:
        super().__init__()
        self.channel_norm, self.channel = nn.LayerNorm(width), _mlp(width, dropout)
        self.several = n_times > 1
        if self.several:
            self.time_norm, self.time = nn.LayerNorm(width), _mlp(n_times, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, samples, channels) of the same."""
        x = x + self.channel(self.channel_norm(x))
        if self.several:
            x = x + self.time(self.time_norm(x).transpose(1, 2)).transpose(1, 2)
        return x


class Mixer(Encoder):
    """The network; outputs ``embedding``, for the contrastive loss, and ``latent``, both (batch, width of the target).

    Parameters
    ----------
    config : MixerConfig
        Its options.
    n_times, n_channels : int
        Of a window.
    width : int
        Of the target.
    """

    outputs = ("embedding", "latent")

    def __init__(self, config: MixerConfig, n_times: int, n_channels: int, width: int) -> None:
        super().__init__()
        blocks = [MixerBlock(n_times, n_channels, config.dropout) for _ in range(config.blocks)]
        self.blocks = nn.Sequential(*blocks)
        self.latent = nn.Linear(n_times * n_channels, width)
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)]
        self.projector = nn.Sequential(*layers)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows (batch, time, channels); `subject` makes no difference."""
        latent = self.latent(self.blocks(window).flatten(1))
        return {"embedding": self.projector(latent), "latent": latent}


def build(options: Mapping[str, Any], shape: Shape) -> Mixer:
    """A `Mixer` for this shape of data; see `MixerConfig` for the options."""
    config = read_options(options, MixerConfig)
    return Mixer(config, shape.n_times, shape.n_channels, target_width(shape, config.target, "target"))
