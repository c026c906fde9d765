"""EEGNet: a compact network of temporal, spatial and separable convolutions.

Lawhern, Solon, Waytowich, Gordon, Hung and Lance, "EEGNet: a compact convolutional neural network for EEG-based
brain-computer interfaces", Journal of Neural Engineering 15, 2018, table 2; written from that table.
"""

from collections.abc import Mapping
from typing import Any, Self

import msgspec
import torch
from torch import Tensor, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.labels import classes_of

#: Largest norms of a spatial filter and of a class's weights, as published.
SPATIAL_NORM, CLASS_NORM = 1.0, 0.25


class EEGNetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of an `EEGNet`; by default EEGNet-8,2 for windows at 128 Hz.

    Parameters
    ----------
    temporal_filters : int
        Of the first convolution (``F1``).
    depth : int
        Spatial filters on each temporal one (``D``).
    separable_filters : int
        Of the separable convolution (``F2``, published as F1 times D).
    kernel : int
        Samples in a temporal filter; half a second as published, a quarter for the sensorimotor rhythms there.
    separable_kernel : int
        Samples in the separable convolution.
    pools : tuple of int
        Samples that are averaged into one after the first and after the second block.
    dropout : float
        After each block: 0.5 within a subject, 0.25 across subjects, as published.
    label : str
        Which label of the data is decoded.
    """

    temporal_filters: int = 8
    depth: int = 2
    separable_filters: int = 16
    kernel: int = 64
    separable_kernel: int = 16
    pools: tuple[int, int] = (4, 8)
    dropout: float = 0.5
    label: str = "label"

    def __post_init__(self) -> None:
        """Refuse networks that cannot be."""
        whole = {name: getattr(self, name) for name in _COUNTS} | {"pools": min(self.pools)}
        for name, value in whole.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected a share from 0 to below 1")


_COUNTS = ("temporal_filters", "depth", "separable_filters", "kernel", "separable_kernel")


class EEGNet(Encoder):
    """The network: windows of shape (batch, time, channels) to ``logits`` of shape (batch, classes).

    While it trains, weights whose norm is too large are brought back to it before each step, which is the published
    constraint; in evaluation they are plain weights.

    Parameters
    ----------
    config : EEGNetConfig
        Its shape.
    shape : Shape
        That of the data.
    """

    outputs = ("logits",)

    def __init__(self, config: EEGNetConfig, shape: Shape) -> None:
        super().__init__()
        pooled = shape.n_times // config.pools[0] // config.pools[1]
        if pooled < 1:
            raise ValueError(
                f"pools average {config.pools[0] * config.pools[1]} samples into one; expected a window of as many, "
                f"not of {shape.n_times}"
            )
        self.config = config
        temporal, spatial, width = (
            config.temporal_filters,
            config.temporal_filters * config.depth,
            config.separable_filters,
        )
        self.temporal = nn.Sequential(
            _same(config.kernel),
            nn.Conv2d(1, temporal, (1, config.kernel), bias=False),
            nn.BatchNorm2d(temporal),
        )
        self.spatial = nn.Conv2d(temporal, spatial, (shape.n_channels, 1), groups=temporal, bias=False)
        self.first = nn.Sequential(
            nn.BatchNorm2d(spatial), nn.ELU(), nn.AvgPool2d((1, config.pools[0])), nn.Dropout(config.dropout)
        )
        self.separable = nn.Sequential(
            _same(config.separable_kernel),
            nn.Conv2d(spatial, spatial, (1, config.separable_kernel), groups=spatial, bias=False),
            nn.Conv2d(spatial, width, 1, bias=False),
        )
        self.second = nn.Sequential(
            nn.BatchNorm2d(width), nn.ELU(), nn.AvgPool2d((1, config.pools[1])), nn.Dropout(config.dropout)
        )
        self.classifier = nn.Linear(width * pooled, classes_of(shape, config.label))
        self.constrain()

    def constrain(self) -> None:
        """Bring spatial filters and classes' weights that are too large back to the largest norm allowed."""
        with torch.no_grad():
            for weight, norm in ((self.spatial.weight, SPATIAL_NORM), (self.classifier.weight, CLASS_NORM)):
                weight.copy_(torch.renorm(weight, 2, 0, norm))

    def train(self, mode: bool = True) -> Self:
        """Change the mode; the step before it counts for the constraint as well."""
        self.constrain()
        return super().train(mode)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Logits (batch, classes) of conditioned windows (batch, time, channels); it knows no subjects."""
        if self.training:
            self.constrain()
        image = window.transpose(1, 2).unsqueeze(1)
        features = self.second(self.separable(self.first(self.spatial(self.temporal(image)))))
        return {"logits": self.classifier(features.flatten(1))}


def build(options: Mapping[str, Any], shape: Shape) -> EEGNet:
    """An EEGNet from a recipe's options."""
    return EEGNet(msgspec.convert(options, EEGNetConfig), shape)


def _same(kernel: int) -> nn.ZeroPad2d:
    """Zeros before and after, so that a convolution over time keeps its length; the odd one comes after."""
    return nn.ZeroPad2d(((kernel - 1) // 2, kernel // 2, 0, 0))
