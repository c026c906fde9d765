"""NICE: a convolution over time and one over channels, projected to the space of image embeddings.

Song et al., "Decoding Natural Images from EEG for Object Recognition" (ICLR 2024, arXiv 2308.13234). 1,802,496
parameters at 63 channels, 250 samples and embeddings of 768 numbers. Trained against frozen image embeddings by a
symmetric InfoNCE, both sides normalised, at a constant scale of 1 / 0.07.
"""

import copy
from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.options import left_out, read_options, target_width
from rtdecode_models.systems.tsconv import FoldedTemporalSpatial, Projection, TemporalSpatial

#: Standard deviation of the first weights.
INITIAL_STD = 0.02


class NiceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `Nice`.

    Parameters
    ----------
    target : str
        The embeddings that it is trained on.
    baseline : float
        Seconds at the start of a window that are there for its baseline alone: they are left out.
    dropout, projection_dropout : float
        After the convolutions and in the projection.
    """

    target: str = "image"
    baseline: float = 0.0
    dropout: float = 0.5
    projection_dropout: float = 0.5


class Nice(Encoder):
    """The network, one output ``embedding`` of shape (batch, width).

    Parameters
    ----------
    config : NiceConfig
        Its options.
    shape : Shape
        Of the data.
    """

    outputs = ("embedding",)

    def __init__(self, config: NiceConfig, shape: Shape) -> None:
        super().__init__()
        width = target_width(shape, config.target, "target")
        self.skip = left_out(shape, config.baseline, "baseline")
        self.conv = TemporalSpatial(shape.n_channels, shape.n_times - self.skip, config.dropout)
        self.projection = Projection(self.conv.width, width, config.projection_dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows (batch, time, channels); `subject` makes no difference."""
        return {"embedding": self.projection(self.conv(window[:, self.skip :].transpose(1, 2).unsqueeze(1)))}

    def deploy(self, subject: int | None = None) -> nn.Module:
        """The same numbers from two convolutions and two linear layers."""
        return _Deployed(copy.deepcopy(self)).eval()


class _Deployed(nn.Module):
    def __init__(self, encoder: Nice) -> None:
        super().__init__()
        self.skip = encoder.skip
        self.folded = FoldedTemporalSpatial(encoder.conv, encoder.projection)

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        return (self.folded(window[:, self.skip :].transpose(1, 2).unsqueeze(1)),)


def build(options: Mapping[str, Any], shape: Shape) -> Nice:
    """A `Nice` for this shape of data; see `NiceConfig` for the options."""
    return Nice(read_options(options, NiceConfig), shape)
