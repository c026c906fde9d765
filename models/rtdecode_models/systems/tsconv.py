"""The temporal-spatial convolution and the projection that NICE and ATM-S share.

Song et al., "Decoding Natural Images from EEG for Object Recognition" (ICLR 2024, arXiv 2308.13234); Li et al.,
"Visual Decoding and Reconstruction via EEG Embeddings with Guided Diffusion" (NeurIPS 2024, arXiv 2403.07721) take it
over with another width.
"""

import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError

#: Feature maps, samples in the temporal kernel, samples in a mean, and samples from one mean to the next.
MAPS, KERNEL, POOL, STRIDE = 40, 25, 51, 5


class TemporalSpatial(nn.Module):
    """Convolution over time, means, convolution over all channels, 1x1 convolution.

    Parameters
    ----------
    n_channels, n_times : int
        Of the images that it is given: 63 and 250 as published.
    dropout : float
        After the convolution over channels.

    Raises
    ------
    ConfigError
        `n_times` is too short for one mean.
    """

    def __init__(self, n_channels: int, n_times: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.steps = (n_times - KERNEL + 1 - POOL) // STRIDE + 1
        if self.steps < 1:
            raise ConfigError(f"windows of {n_times} samples are too short: the convolution needs {KERNEL + POOL - 1}")
        self.temporal = nn.Conv2d(1, MAPS, (1, KERNEL))
        self.pool = nn.AvgPool2d((1, POOL), (1, STRIDE))
        self.norm = nn.BatchNorm2d(MAPS)
        self.spatial = nn.Conv2d(MAPS, MAPS, (n_channels, 1))
        self.spatial_norm = nn.BatchNorm2d(MAPS)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Conv2d(MAPS, MAPS, 1)
        self.activation = nn.ELU()

    @property
    def width(self) -> int:
        """Features of one window: maps times steps, the maps of one step beside each other."""
        return MAPS * self.steps

    def forward(self, image: Tensor) -> Tensor:
        """Features (batch, `width`) of images (batch, 1, channels, time)."""
        hidden = self.activation(self.norm(self.pool(self.temporal(image))))
        hidden = self.dropout(self.activation(self.spatial_norm(self.spatial(hidden))))
        mixed: Tensor = self.mix(hidden)
        return mixed.squeeze(2).transpose(1, 2).flatten(1)


class Projection(nn.Module):
    """Linear, residual of GELU and linear, layer norm: features to the space of the embeddings.

    Parameters
    ----------
    n_in, width : int
        Features, and numbers in an embedding.
    dropout : float
        In the residual branch.
    """

    def __init__(self, n_in: int, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (batch, width) of features (batch, n_in)."""
        hidden = self.first(features)
        embedding: Tensor = self.norm(hidden + self.dropout(self.second(nn.functional.gelu(hidden))))
        return embedding


class FoldedTemporalSpatial(nn.Module):
    """`TemporalSpatial` and `Projection` for inference, with all that is linear folded: two convolutions and the rest.

    The means and the batch norm behind them are linear, so that temporal convolution, means and norm are one
    convolution of ``KERNEL + POOL - 1`` samples; the 1x1 convolution goes into the projection's first layer.

    Parameters
    ----------
    conv : TemporalSpatial
        Left as it is.
    projection : Projection
        Left as it is.
    """

    def __init__(self, conv: TemporalSpatial, projection: Projection) -> None:
        super().__init__()
        with torch.no_grad():
            self.temporal = _fold_means(conv)
            self.spatial = fold_norm(conv.spatial, conv.spatial_norm)
            self.first = _fold_mix(conv, projection.first)
        self.second, self.norm = projection.second, projection.norm

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (batch, width) of images (batch, 1, channels, time)."""
        hidden = nn.functional.elu(self.spatial(nn.functional.elu(self.temporal(image))))
        hidden = self.first(hidden.flatten(1))
        embedding: Tensor = self.norm(hidden + self.second(nn.functional.gelu(hidden)))
        return embedding


def fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A convolution and the batch norm behind it, in evaluation, as one convolution."""
    return torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval())


def _fold_means(conv: TemporalSpatial) -> nn.Conv2d:
    """Temporal convolution, means and norm as one convolution with the means' stride."""
    scale, shift = _affine(conv.norm)
    folded = nn.Conv2d(1, MAPS, (1, KERNEL + POOL - 1), (1, STRIDE))
    kernel = conv.temporal.weight.double()
    # Each mean is of POOL neighbouring results: the kernel convolved with a box of 1 / POOL.
    padded = nn.functional.pad(kernel, (POOL - 1, POOL - 1))
    wide = padded.unfold(3, POOL, 1).sum(-1) / POOL
    folded.weight.copy_(wide * scale[:, None, None, None])
    _bias(folded).copy_(_bias(conv.temporal).double() * scale + shift)
    return folded


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies by and adds, in evaluation."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _fold_mix(conv: TemporalSpatial, first: nn.Linear) -> nn.Linear:
    """The 1x1 convolution and the projection's first layer as one, for features in the order (map, step)."""
    folded = nn.Linear(first.in_features, first.out_features)
    outer = first.weight.double().view(-1, conv.steps, MAPS)
    mix = conv.mix.weight.double().view(MAPS, MAPS)
    folded.weight.copy_((outer @ mix).transpose(1, 2).flatten(1))
    folded.bias.copy_(first.bias.double() + (outer @ _bias(conv.mix).double()).sum(1))
    return folded


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("expected a convolution with a bias")
    return conv.bias
