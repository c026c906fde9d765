"""UBP's encoder: a whole window through a linear layer and NICE's residual projection.

Wu et al., "Bridging the Vision-Brain Gap with an Uncertainty-Aware Blur Prior" (CVPR 2025, arXiv 2503.04207), the
projection encoder. 5,404,673 parameters for 17 EEG channels and 250 samples, 56,830,977 for 271 MEG
channels and 201 samples, both to embeddings of 1024 numbers and with the scale of the logits. What the paper adds to it
at training time stands in `blur_prior`.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.options import left_out, read_options, target_width
from rtdecode_models.systems.tsconv import Projection

#: ln(1 / 0.07): where the logit scale starts.
INITIAL_SCALE = math.log(1 / 0.07)


class UbpConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `Ubp`.

    Parameters
    ----------
    target : str
        The embeddings that it is trained on; its width is the encoder's.
    baseline : float
        Seconds at the start of a window that are there for its baseline alone: they are left out.
    dropout : float
        In the residual branch.
    """

    target: str = "image"
    baseline: float = 0.0
    dropout: float = 0.3


class Ubp(Encoder):
    """The network, one output ``embedding`` of shape (batch, width), not normalised.

    It also gives ``logit_scale``, softplus of a parameter, a scalar, for the loss.

    Parameters
    ----------
    config : UbpConfig
        Its options.
    shape : Shape
        Of the data.
    """

    outputs = ("embedding",)

    def __init__(self, config: UbpConfig, shape: Shape) -> None:
        super().__init__()
        self.skip = left_out(shape, config.baseline, "baseline")
        self.n_channels, self.n_times = shape.n_channels, shape.n_times - self.skip
        width = target_width(shape, config.target, "target")
        self.projection = Projection(self.n_channels * self.n_times, width, config.dropout)
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows (batch, time, channels); `subject` makes no difference."""
        embedding = self.projection(window[:, self.skip :].transpose(1, 2).flatten(1))
        return {"embedding": embedding, "logit_scale": nn.functional.softplus(self.logit_scale)}

    def deploy(self, subject: int | None = None) -> nn.Module:
        """The same, with the transposition folded into the order of the first layer's weights."""
        return _Deployed(copy.deepcopy(self)).eval()


class _Deployed(nn.Module):
    def __init__(self, encoder: Ubp) -> None:
        super().__init__()
        self.skip = encoder.skip
        self.projection = encoder.projection
        weight = encoder.projection.first.weight.detach()
        by_channel = weight.view(-1, encoder.n_channels, encoder.n_times)
        self.projection.first.weight = nn.Parameter(by_channel.transpose(1, 2).flatten(1).contiguous())

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        return (self.projection(window[:, self.skip :].flatten(1)),)


def build(options: Mapping[str, Any], shape: Shape) -> Ubp:
    """A `Ubp` for this shape of data; see `UbpConfig` for the options."""
    return Ubp(read_options(options, UbpConfig), shape)
