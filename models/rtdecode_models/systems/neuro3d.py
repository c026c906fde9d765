"""Neuro-3D: what was seen of a turning object, from the response to its picture and to its video.

After Guo, Wu and others, "Neuro-3D: Towards 3D Visual Decoding from EEG Signals", CVPR 2025, arXiv 2411.12248. A static
stream (1 s at 250 Hz) asks, by attention, a dynamic one (6 s at 100 Hz); what they say together is brought to two
embeddings, of geometry and of appearance, and from these to the object's class and colour.

The daemon cuts one window: 7 s at 500 Hz, of which the first second is the picture's and the rest the video's. Both
decimations are part of the network, in training as in the deployed graph.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor, nn
from torch.nn import functional

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.decimation import Decimation
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.labels import classes_of
from rtdecode_models.systems.transformer import sinusoids


class Neuro3DConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a `Neuro3D`; the defaults are the published network on 64 channels.

    Parameters
    ----------
    label, colour : str
        Labels of the object's class and of its colour.
    static_sfreq, dynamic_sfreq : float
        Rates of the two streams in Hz; the window's own is a whole multiple of both.
    static_s : float
        Seconds at the window's start that are the static stream; the rest is the dynamic one.
    n_queries : int
        Steps that both streams are brought to before they meet.
    forward_width, fusion_width : int
        Hidden units in the streams' transformer layers and in the fusion.
    n_features : int
        Of the convolutions.
    n_dims : int
        Of the embeddings.
    released_axes : bool
        The released code widens the time axis to `n_dims` and then sums over the features of the convolutions; its
        names suggest the other way round, which False gives. The defaults have as many parameters either way.
    dropout : float
        In the transformer layers; torch's default, since none is given.
    head_dropout : float
        In the two heads.
    """

    label: str = "label"
    colour: str = "colour"
    static_sfreq: float = 250.0
    dynamic_sfreq: float = 100.0
    static_s: float = 1.0
    n_queries: int = 250
    forward_width: int = 2048
    fusion_width: int = 256
    n_features: int = 250
    n_dims: int = 1024
    released_axes: bool = True
    dropout: float = 0.1
    head_dropout: float = 0.25


class Neuro3D(Encoder):
    """Windows (batch, time, channels) to class logits, colour logits and two embeddings.

    Outputs: ``logits`` (batch, classes), ``colour`` (batch, colours), ``geometry`` and ``appearance`` (batch, n_dims).

    Parameters
    ----------
    config : Neuro3DConfig
    shape : Shape
        Of the data.
    """

    outputs = ("logits", "colour", "geometry", "appearance")

    def __init__(self, config: Neuro3DConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        n = shape.n_channels
        self.n_static = round(config.static_s * shape.sfreq)
        static, dynamic = factor_of(shape.sfreq, config.static_sfreq), factor_of(shape.sfreq, config.dynamic_sfreq)
        n_static, n_dynamic = _length(self.n_static, static), _length(shape.n_times - self.n_static, dynamic)
        self.static_rate, self.dynamic_rate = Decimation(static), Decimation(dynamic)
        self.static = Stream(n, n_static, config)
        self.dynamic = Stream(n, n_dynamic, config)
        self.fusion = Fusion(n, config.fusion_width, config.dropout)
        self.convolutions = Convolutions(n, config.n_features, config.n_queries)
        first, second = config.n_queries, config.n_features
        if not config.released_axes:
            first, second = second, first
        self.widen = nn.Linear(first, config.n_dims)
        self.gather = nn.Linear(second, 1)
        self.geometry = _head(config)
        self.appearance = _head(config)
        self.classifier = nn.Linear(config.n_dims, classes_of(shape, config.label))
        self.colours = nn.Linear(config.n_dims, classes_of(shape, config.colour))

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Outputs of windows (batch, time, channels), each channel of order one."""
        x = window.transpose(1, 2)
        # Each filter sees the whole window, so that only its own ends are made up.
        static = self.static_rate(x)[..., : self.static.n_times]
        dynamic = self.dynamic_rate(x)[..., -self.dynamic.n_times :]
        fused = self.fusion(self.static(static), self.dynamic(dynamic))
        features = self.convolutions(fused.transpose(1, 2))
        if not self.config.released_axes:
            features = features.transpose(1, 2)
        shared = self.gather(self.widen(features).transpose(1, 2)).squeeze(-1)
        geometry, appearance = self.geometry(shared), self.appearance(shared)
        return {
            "logits": self.classifier(geometry),
            "colour": self.colours(appearance),
            "geometry": geometry,
            "appearance": appearance,
        }


class Stream(nn.Module):
    """One stream by itself: positions, a transformer layer over time, and time brought to a common number of steps.

    Parameters
    ----------
    n_channels, n_times : int
        Of the stream.
    config : Neuro3DConfig
    """

    positions: Tensor

    def __init__(self, n_channels: int, n_times: int, config: Neuro3DConfig) -> None:
        super().__init__()
        self.n_times = n_times
        self.register_buffer("positions", sinusoids(n_times, n_channels))
        self.attention = Attention(n_channels, config.dropout)
        self.after = FeedForward(n_channels, config.forward_width, config.dropout)
        self.steps = nn.Linear(n_times, config.n_queries)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time) to (batch, steps, channels)."""
        tokens = x.transpose(1, 2) + self.positions
        tokens = self.after(self.attention(tokens, tokens))
        steps: Tensor = self.steps(tokens.transpose(1, 2))
        return steps.transpose(1, 2)


class Fusion(nn.Module):
    """The static stream asks the dynamic one.

    Parameters
    ----------
    n_channels : int
    width : int
        Hidden units of the feed-forward.
    dropout : float
    """

    def __init__(self, n_channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(n_channels, dropout)
        self.after = FeedForward(n_channels, width, dropout)

    def forward(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """Both (batch, steps, channels) to the same shape."""
        fused: Tensor = self.after(self.attention(static, dynamic))
        return fused


class Attention(nn.Module):
    """Attention of one head with its residual, normalised after the sum (Vaswani et al., NeurIPS 2017, section 3).

    Parameters
    ----------
    width : int
        Of a token.
    dropout : float
        Of the weights and of what is added.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """(batch, tokens, width) and (batch, others, width) to the first one's shape."""
        scores = self.query(asking) @ self.key(asked).transpose(1, 2) * asking.shape[-1] ** -0.5
        weights = self.drop(functional.softmax(scores, dim=-1))
        normed: Tensor = self.norm(asking + self.drop(self.out(weights @ self.value(asked))))
        return normed


class FeedForward(nn.Module):
    """Two linear layers with their residual, normalised after the sum.

    Parameters
    ----------
    width, hidden : int
        Of a token, and between the layers.
    dropout : float
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        normed: Tensor = self.norm(tokens + self.layers(tokens))
        return normed


class Convolutions(nn.Module):
    """Three convolutions over time, each with GELU and a normalisation over the time axis, beside a 1x1 residual.

    Parameters
    ----------
    n_channels, n_features, n_times : int
        Going in, coming out, and of the time axis.
    """

    def __init__(self, n_channels: int, n_features: int, n_times: int) -> None:
        super().__init__()
        widths = (n_channels, n_features, n_features, n_features)
        # As images of one row, which onnxruntime convolves faster; the normalisation is over that row's samples.
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(widths[i], widths[i + 1], (1, 3), padding=(0, 1)), nn.GELU(), nn.LayerNorm(n_times)
                )
                for i in range(3)
            )
        )
        self.residual = nn.Conv2d(n_channels, n_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time) to (batch, features, time)."""
        row = x.unsqueeze(2)
        features: Tensor = self.layers(row) + self.residual(row)
        return features.squeeze(2)


def factor_of(sfreq: float, wanted: float) -> int:
    """By how much a rate is decimated; raise `ValueError` where that is no whole number."""
    factor = round(sfreq / wanted) if wanted > 0 else 0
    if factor < 1 or abs(factor * wanted - sfreq) > 1e-6 * sfreq:
        raise ValueError(f"the window has {sfreq:g} Hz; expected a whole multiple of {wanted:g} Hz")
    return factor


def _length(n_times: int, factor: int) -> int:
    """Samples of a stream; raise `ValueError` where the window has no whole number of them."""
    if n_times < factor or n_times % factor:
        raise ValueError(f"a stream of {n_times} samples cannot be decimated by {factor} into whole samples")
    return n_times // factor


def _head(config: Neuro3DConfig) -> nn.Sequential:
    width = config.n_dims
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(config.head_dropout))


def build(options: Mapping[str, Any], shape: Shape) -> Neuro3D:
    """A `Neuro3D` for windows of this shape.

    Raises
    ------
    ValueError
        The rate is no multiple of the streams' rates, the window leaves nothing for one of them, or a label is missing.
    """
    config = msgspec.convert(options, Neuro3DConfig)
    if not 0 < config.static_s < shape.n_times / shape.sfreq:
        raise ValueError(
            f"static_s is {config.static_s:g} s of a window of {shape.n_times / shape.sfreq:g} s; expected some time "
            "for each of the two streams"
        )
    sizes = (config.n_queries, config.forward_width, config.fusion_width, config.n_features, config.n_dims)
    shares = (config.dropout, config.head_dropout)
    if min(sizes) < 1 or not all(0 <= share < 1 for share in shares):
        raise ValueError("expected sizes of 1 or more and dropouts from 0 to below 1")
    return Neuro3D(config, shape)
