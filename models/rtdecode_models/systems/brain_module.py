"""The brain module: MEG to image embeddings.

Benchetrit, Banville and King, "Brain decoding: toward real-time reconstruction of visual perception" (ICLR 2024, arXiv
2310.19812). 6,424,472 parameters with one head of 768 numbers, 272 sensors,
181 samples and 4 subjects; 7,998,104 with a second head, whose loss is the mean squared error.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.channel_merger import ChannelMerger, SubjectLayer
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.options import read_options, target_width
from rtdecode_models.systems.tsconv import fold_norm

#: Samples in every dilated kernel.
KERNEL = 3


class BrainModuleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `BrainModule`; the defaults are the published retrieval configuration with both heads.

    Parameters
    ----------
    target : str
        The embeddings that the head ``embedding`` is trained on, by a contrastive loss.
    latent : str
        The embeddings that the head ``latent`` is trained on, by the mean squared error; empty for no such head.
    virtual : int
        Virtual channels.
    frequencies : int
        Of the embedding of positions, along each axis.
    ban_radius : float
        Of the spatial dropout, on the layout scaled to [0, 1].
    width : int
        Feature maps of the convolutions.
    blocks : int
        Of two dilated convolutions and a gated one.
    dilation_period : int
        After how many dilated convolutions the dilation starts again at 1.
    features : int
        Feature maps that are aggregated over time.
    aggregation : str
        ``affine``: one weight for each sample, and a bias; ``mean``; ``bahdanau``: additive attention.
    attention : int
        Width of the additive attention's hidden layer.
    """

    target: str = "image"
    latent: str = "image"
    virtual: int = 270
    frequencies: int = 32
    ban_radius: float = 0.2
    width: int = 320
    blocks: int = 2
    dilation_period: int = 5
    features: int = 2048
    aggregation: Literal["affine", "mean", "bahdanau"] = "affine"
    attention: int = 256

    def __post_init__(self) -> None:
        """Refuse networks that cannot be."""
        for name in ("virtual", "frequencies", "width", "blocks", "dilation_period", "features", "attention"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")


def dilation(index: int, period: int) -> int:
    """Dilation of the dilated convolution `index`, counted from 0: doubled each time, 1 again after `period`."""
    return int(2 ** (index % period))


class DilatedConv(nn.Module):
    """Dilated convolution, batch norm, GELU, and a skip connection where the widths allow one.

    Written as one over images of one row, which onnxruntime runs faster.

    Parameters
    ----------
    n_in, n_out, dilation : int
        Feature maps, and samples from one weight of the kernel to the next. The length stays.
    """

    def __init__(self, n_in: int, n_out: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, (1, KERNEL), padding=(0, dilation), dilation=(1, dilation))
        self.norm: nn.Module = nn.BatchNorm2d(n_out)
        self.skip = n_in == n_out

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (batch, n_out, 1, time) of maps (batch, n_in, 1, time)."""
        hidden = nn.functional.gelu(self.norm(self.conv(maps)))
        return hidden + maps if self.skip else hidden

    def fold(self) -> None:
        """The batch norm's evaluation into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fold_norm(self.conv, self.norm), nn.Identity()


class Block(nn.Module):
    """Two dilated convolutions, and one that is gated: half of its maps times the sigmoid of the other half.

    Parameters
    ----------
    n_in, n_out : int
        Feature maps.
    dilations : tuple of int
        Of the two.
    """

    def __init__(self, n_in: int, n_out: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.first = DilatedConv(n_in, n_out, dilations[0])
        self.second = DilatedConv(n_out, n_out, dilations[1])
        self.gated = nn.Conv2d(n_out, 2 * n_out, (1, KERNEL), padding=(0, KERNEL // 2))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (batch, n_out, 1, time) of maps (batch, n_in, 1, time)."""
        signal, gate = self.gated(self.second(self.first(maps))).chunk(2, dim=1)
        gated: Tensor = signal * torch.sigmoid(gate)
        return gated


class Affine(nn.Module):
    """One weight for each sample, the same for all features, and a bias.

    Parameters
    ----------
    n_times : int
        Samples.
    """

    def __init__(self, n_times: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_times, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (batch, width) of (batch, width, time)."""
        aggregated: Tensor = self.linear(features).squeeze(2)
        return aggregated


class Mean(nn.Module):
    """The mean over time."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (batch, width) of (batch, width, time)."""
        return features.mean(dim=2)


class Bahdanau(nn.Module):
    """Additive attention over time: Bahdanau, Cho and Bengio, ICLR 2015, equation 6, without a query.

    Parameters
    ----------
    width, hidden : int
        Features, and units of the hidden layer.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (batch, width) of (batch, width, time)."""
        scores = self.score(torch.tanh(self.hidden(features.transpose(1, 2))))
        return (features @ torch.softmax(scores, dim=1)).squeeze(2)


class BrainModule(Encoder):
    """The network; outputs ``embedding`` (batch, width) and, with a head for it, ``latent`` (batch, width).

    Parameters
    ----------
    config : BrainModuleConfig
        Its options.
    shape : Shape
        Of the data, with positions.

    Raises
    ------
    ConfigError
        There are no positions, or the data lack a target.
    """

    def __init__(self, config: BrainModuleConfig, shape: Shape) -> None:
        super().__init__()
        if shape.positions is None or len(shape.positions) != shape.n_channels:
            raise ConfigError(
                f"the brain module merges sensors by position, but the data have no positions for their "
                f"{shape.n_channels} channels"
            )
        heads = {"embedding": target_width(shape, config.target, "target")}
        if config.latent:
            heads["latent"] = target_width(shape, config.latent, "latent")
        self.outputs = tuple(heads)
        self.merger = ChannelMerger(shape.positions, config.virtual, config.frequencies, config.ban_radius)
        self.mix = nn.Conv1d(config.virtual, config.virtual, 1)
        self.subjects = SubjectLayer(shape.n_subjects, config.virtual)
        self.blocks = nn.Sequential(*_blocks(config))
        self.widen = nn.Conv2d(config.width, 2 * config.width, 1)
        self.features = nn.Conv2d(2 * config.width, config.features, 1)
        self.aggregate = _aggregation(config, shape.n_times)
        self.heads = nn.ModuleDict({name: nn.Linear(config.features, width) for name, width in heads.items()})

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows (batch, time, channels), each by the matrix of its subject."""
        virtual = self.subjects(self.mix(self.merger(window.transpose(1, 2))), subject)
        hidden = nn.functional.gelu(self.widen(self.blocks(virtual.unsqueeze(2))))
        features = self.aggregate(self.features(hidden).squeeze(2))
        return {name: head(features) for name, head in self.heads.items()}

    def spatial(self, subject: int | None) -> tuple[Tensor, Tensor]:
        """Merger, 1x1 convolution and a subject's matrix as one: matrix (virtual, channels) and bias (virtual,)."""
        training = self.merger.training
        self.merger.eval()
        weights = self.merger.weights().double()
        self.merger.train(training)
        matrix = self.subjects.matrix(subject).double()
        mix, bias = self.mix.weight.squeeze(2).double(), _bias(self.mix).double()
        return matrix @ mix @ weights, matrix @ bias

    def deploy(self, subject: int | None = None) -> nn.Module:
        """For one subject, all that is linear folded: the sensors' end, the batch norms, and the heads' end."""
        with torch.no_grad():
            return _Deployed(copy.deepcopy(self).eval(), subject).eval()


def _blocks(config: BrainModuleConfig) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    width = config.virtual
    for index in range(config.blocks):
        first, second = (dilation(2 * index + k, config.dilation_period) for k in (0, 1))
        blocks.append(Block(width, config.width, (first, second)))
        width = config.width
    return blocks


def _aggregation(config: BrainModuleConfig, n_times: int) -> nn.Module:
    if config.aggregation == "affine":
        return Affine(n_times)
    return Mean() if config.aggregation == "mean" else Bahdanau(config.features, config.attention)


class _Deployed(nn.Module):
    """A `BrainModule` for one subject.

    An affine aggregation is moved before the 1x1 convolution in front of it, since both are linear: that convolution
    then runs once and not for every sample, and is one with the heads.
    """

    def __init__(self, encoder: BrainModule, subject: int | None) -> None:
        super().__init__()
        matrix, bias = encoder.spatial(subject)
        self.spatial = nn.Conv2d(matrix.shape[1], matrix.shape[0], 1)
        self.spatial.weight.copy_(matrix[:, :, None, None])
        _bias(self.spatial).copy_(bias)
        self.blocks, self.widen = encoder.blocks, encoder.widen
        for module in self.blocks.modules():
            if isinstance(module, DilatedConv):
                module.fold()
        self.widths: list[int] = [head.out_features for head in encoder.heads.values() if isinstance(head, nn.Linear)]
        self.early = not isinstance(encoder.aggregate, Bahdanau)
        self.features = nn.Identity() if self.early else encoder.features
        self.aggregate, self.head = _fold_heads(encoder)

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        maps = self.blocks(self.spatial(window.transpose(1, 2).unsqueeze(2)))
        hidden = self.features(nn.functional.gelu(self.widen(maps)))
        both: Tensor = self.head(self.aggregate(hidden.squeeze(2)))
        return tuple(torch.split(both, self.widths, dim=1))


def _fold_heads(encoder: BrainModule) -> tuple[nn.Module, nn.Linear]:
    """The aggregation, and a linear layer behind it that holds every head."""
    heads = [head for head in encoder.heads.values() if isinstance(head, nn.Linear)]
    weight = torch.cat([head.weight for head in heads]).double()
    bias = torch.cat([head.bias for head in heads]).double()
    aggregate = encoder.aggregate
    if not isinstance(aggregate, Bahdanau):
        # sum_t w_t (F h_t + f) + b = F (sum_t w_t h_t) + f sum_t w_t + b, the same b in every feature.
        total, offset = 1.0, torch.zeros((), dtype=torch.float64)
        if isinstance(aggregate, Affine):
            total, offset = float(aggregate.linear.weight.double().sum()), aggregate.linear.bias.double()
            aggregate.linear.bias.zero_()
        bias = bias + weight @ (_bias(encoder.features).double() * total + offset)
        weight = weight @ encoder.features.weight[:, :, 0, 0].double()
    folded = nn.Linear(weight.shape[1], weight.shape[0])
    folded.weight.copy_(weight)
    folded.bias.copy_(bias)
    return aggregate, folded


def _bias(conv: nn.Conv1d | nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("expected a convolution with a bias")
    return conv.bias


def build(options: Mapping[str, Any], shape: Shape) -> BrainModule:
    """A `BrainModule` for this shape of data; see `BrainModuleConfig` for the options."""
    return BrainModule(read_options(options, BrainModuleConfig), shape)
