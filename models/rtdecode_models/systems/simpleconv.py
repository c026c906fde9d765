"""EEG-SimpleConv: a plain one-dimensional convolutional network for motor imagery.

After El Ouahidi, Gripon, Pasdeloup, Bouallegue, Farrugia and Lioi, "A Strong and Simple Deep Learning Baseline for BCI
Motor Imagery Decoding" (IEEE TNSRE 2024, doi:10.1109/TNSRE.2024.3451010): a convolution over all channels, blocks of
two convolutions with a max-pool of two between them, a mean over time and a linear layer. Their resampling layer is no
part of the network here: the conditioning chain resamples, causally, before the window is cut.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.labels import classes_of

#: By how much the width grows from one block to the next, as published.
GROWTH = 1.414


class SimpleConvConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of an `EEGSimpleConv`; by default the published one for decoding across subjects, at 70 Hz.

    Parameters
    ----------
    width : int
        Feature maps of the first convolution and of the first block (``F``).
    n_blocks : int
        Blocks of two convolutions (``N``); each halves the time axis. 0 leaves the first convolution alone.
    kernel : int
        Samples in every kernel (``k``).
    dropout : float
        Share of the averaged features that are dropped in training, before the linear layer; 0 as published.
    subject_head : bool
        A second linear layer that tells subjects apart, ``subject_logits``, for a loss that regularises training. It is
        not exported.
    label : str
        Which label of the data is decoded.
    """

    width: int = 109
    n_blocks: int = 4
    kernel: int = 8
    dropout: float = 0.0
    subject_head: bool = False
    label: str = "label"

    def __post_init__(self) -> None:
        """Refuse networks that cannot be."""
        if self.width < 1 or self.n_blocks < 0 or self.kernel < 1:
            raise ValueError(
                f"width {self.width}, n_blocks {self.n_blocks}, kernel {self.kernel}; expected at least 1, 0 and 1"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected a share from 0 to below 1")


class EEGSimpleConv(Encoder):
    """The network: windows of shape (batch, time, channels) to ``logits`` of shape (batch, classes).

    With `SimpleConvConfig.subject_head` also to ``subject_logits`` (batch, subjects).

    Parameters
    ----------
    config : SimpleConvConfig
        Its shape.
    shape : Shape
        That of the data.
    """

    outputs = ("logits",)

    def __init__(self, config: SimpleConvConfig, shape: Shape) -> None:
        super().__init__()
        if shape.n_times < 2**config.n_blocks:
            raise ValueError(
                f"{config.n_blocks} blocks halve the window {config.n_blocks} times; expected at least "
                f"{2**config.n_blocks} samples, not {shape.n_times}"
            )
        self.config = config
        self.stem = nn.Sequential(
            _convolution(shape.n_channels, config.width, config.kernel),
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
        self.classifier = nn.Linear(width, classes_of(shape, config.label))
        self.subjects = nn.Linear(width, shape.n_subjects) if config.subject_head else None

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Logits (batch, classes) of conditioned windows (batch, time, channels); it knows no subjects."""
        features = self.blocks(self.stem(window.transpose(1, 2).unsqueeze(2)))
        averaged = self.dropout(features.mean(dim=(2, 3)))
        given = {"logits": self.classifier(averaged)}
        if self.subjects is not None:
            given["subject_logits"] = self.subjects(averaged)
        return given


def build(options: Mapping[str, Any], shape: Shape) -> EEGSimpleConv:
    """An EEG-SimpleConv from a recipe's options."""
    return EEGSimpleConv(msgspec.convert(options, SimpleConvConfig), shape)


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
