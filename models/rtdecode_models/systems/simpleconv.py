"""EEG-SimpleConv: a plain one-dimensional convolutional network for motor imagery.

After El Ouahidi, Gripon, Pasdeloup, Bouallegue, Farrugia and Lioi, "A Strong and Simple Deep Learning Baseline for BCI
Motor Imagery Decoding" (IEEE TNSRE 2024, doi:10.1109/TNSRE.2024.3451010): a convolution over all channels, blocks of
two convolutions with a max-pool of two between them, a mean over time and a linear layer. Their resampling layer is no
part of the network here: the conditioning chain resamples, causally, before the window is cut.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: By how much the width grows from one block to the next, as published.
GROWTH = 1.414


@dataclass(frozen=True, slots=True)
class SimpleConvConfig:
    """The shape of an `EEGSimpleConv`.

    Parameters
    ----------
    n_channels : int
        Sensors.
    n_classes : int
        Classes.
    width : int
        Feature maps of the first convolution and of the first block (``F``).
    n_blocks : int
        Blocks of two convolutions (``N``); each halves the time axis. 0 leaves the first convolution alone.
    kernel : int
        Samples in every kernel (``k``).
    dropout : float
        Share of the averaged features that are dropped in training, before the linear layer; 0 as published.
    """

    n_channels: int
    n_classes: int
    width: int = 85
    n_blocks: int = 1
    kernel: int = 15
    dropout: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As it is written into a checkpoint."""
        return asdict(self)


class EEGSimpleConv(nn.Module):
    """The network: windows of shape (batch, time, channels) to logits of shape (batch, classes).

    Parameters
    ----------
    config : SimpleConvConfig
        Its shape.
    """

    def __init__(self, config: SimpleConvConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(
            _convolution(config.n_channels, config.width, config.kernel),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        width = config.width
        for index in range(config.n_blocks):
            wider = width if index == 0 else int(GROWTH * width)
            blocks.append(_block(width, wider, config.kernel))
            width = wider
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(width, config.n_classes)

    def forward(self, window: Tensor) -> Tensor:
        """Logits (batch, classes) of conditioned windows (batch, time, channels)."""
        features = self.blocks(self.stem(window.transpose(1, 2).unsqueeze(2)))
        logits: Tensor = self.classifier(self.dropout(features.mean(dim=(2, 3))))
        return logits


def _convolution(width: int, wider: int, kernel: int) -> nn.Conv2d:
    """A convolution over time, written as one over images of one row.

    The numbers are the same, but onnxruntime's fast blocked convolutions are for images only: a quarter less time.
    """
    return nn.Conv2d(width, wider, (1, kernel), padding=(0, kernel // 2), bias=False)


def _block(width: int, wider: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(width, wider, kernel),
        nn.BatchNorm2d(wider),
        nn.MaxPool2d((1, 2)),
        nn.ReLU(),
        _convolution(wider, wider, kernel),
        nn.BatchNorm2d(wider),
        nn.ReLU(),
    )


class Ensemble(nn.Module):
    """Several classifiers as one: logits are the logarithm of the members' mean probabilities.

    Parameters
    ----------
    members : sequence of Module
        Each maps (batch, time, channels) to logits (batch, classes).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)

    def forward(self, window: Tensor) -> Tensor:
        """Logits (batch, classes): their softmax is the mean of the members' softmax."""
        logs = torch.stack([torch.log_softmax(member(window), dim=-1) for member in self.members])
        # log(mean(exp)) with the largest taken out first, written out so that the ONNX graph holds plain operators.
        largest = logs.amax(dim=0)
        return largest + (logs - largest).exp().mean(dim=0).log()
