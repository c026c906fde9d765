"""ATM-S: channels as tokens of a transformer layer, then NICE's convolution and projection.

Li et al., "Visual Decoding and Reconstruction via EEG Embeddings with Guided Diffusion" (NeurIPS 2024, arXiv
2403.07721). 3,075,413 parameters take part at 63 channels, 250 samples, 10 subjects and
embeddings of 1024 numbers; the released model has 3,202,413 with those that nothing uses (`AtmConfig.unused`).
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.options import left_out, read_options, target_width
from rtdecode_models.systems.tsconv import FoldedTemporalSpatial, Projection, TemporalSpatial

#: ln(1 / 0.07): where the logit scale starts.
INITIAL_SCALE = math.log(1 / 0.07)
#: Fused attention kernels want heads of a multiple of this many numbers.
HEAD_MULTIPLE = 8


class AtmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `Atm`; the defaults are the released model.

    Parameters
    ----------
    target : str
        The embeddings that it is trained on.
    baseline : float
        Seconds at the start of a window that are there for its baseline alone: they are left out.
    width : int
        Numbers in a token, and samples of the image that the convolution sees.
    heads : int
        Of the attention, each ``width // heads`` wide.
    feedforward : int
        Width of the token-wise network.
    dropout, conv_dropout, projection_dropout : float
        In the transformer layer, after the convolutions and in the projection.
    subjects : int
        Rows of the table of subject tokens; 0 for as many as the data have. Whoever is not in it gets the shared token.
    drop_last_channel : bool
        Keep as many tokens as there are channels, counted from the subject's token, so that the last channel is lost:
        what the released model does. False keeps the channels and drops the subject's token.
    raw_logit_scale : bool
        The scale of the logits is the parameter itself, as released, and not its exponential.
    unused : bool
        Also hold the parameters of the released model that take no part, for the sake of its count.
    """

    target: str = "image"
    baseline: float = 0.0
    width: int = 250
    heads: int = 4
    feedforward: int = 256
    dropout: float = 0.25
    conv_dropout: float = 0.5
    projection_dropout: float = 0.5
    subjects: int = 10
    drop_last_channel: bool = True
    raw_logit_scale: bool = True
    unused: bool = False


class Attention(nn.Module):
    """Multi-head self-attention with heads of ``width // heads`` numbers each, which need not fill `width`.

    Parameters
    ----------
    width, heads : int
        Numbers in a token, and heads: 250 and 4 give heads of 62.
    dropout : float
        Of the weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head = heads, width // heads
        self.query = nn.Linear(width, heads * self.head)
        self.key = nn.Linear(width, heads * self.head)
        self.value = nn.Linear(width, heads * self.head)
        self.out = nn.Linear(heads * self.head, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend over tokens (batch, tokens, width)."""
        query, key, value = (self._split(part(tokens)) for part in (self.query, self.key, self.value))
        attended: Tensor = self.out(_attend(query, key, value, self.head, self.dropout))
        return attended

    def _split(self, projected: Tensor) -> Tensor:
        return projected.view(len(projected), -1, self.heads, self.head).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, head: int, dropout: nn.Module) -> Tensor:
    """Scaled dot-product attention of (batch, heads, tokens, numbers), the heads beside each other in the result."""
    weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(head), dim=-1)
    attended: Tensor = dropout(weights) @ value
    return attended.transpose(1, 2).flatten(2)


class TransformerLayer(nn.Module):
    """Attention and a token-wise network, each with a residual and a layer norm behind it, and a last layer norm.

    Parameters
    ----------
    config : AtmConfig
        Widths and dropout.
    """

    def __init__(self, config: AtmConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.dropout)
        self.wide = nn.Linear(config.width, config.feedforward)
        self.narrow = nn.Linear(config.feedforward, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, tokens, width) of the same."""
        attended = self.norms[0](tokens + self.dropout(self.attention(tokens)))
        hidden = self.dropout(nn.functional.gelu(self.wide(attended)))
        tokens = self.norms[1](attended + self.dropout(self.narrow(hidden)))
        last: Tensor = self.norms[2](tokens)
        return last


class Atm(Encoder):
    """The network, one output ``embedding`` of shape (batch, width of the target).

    It also gives ``logit_scale``, a scalar, for the loss.

    Parameters
    ----------
    config : AtmConfig
        Its options.
    shape : Shape
        Of the data.
    """

    outputs = ("embedding",)

    def __init__(self, config: AtmConfig, shape: Shape) -> None:
        super().__init__()
        if not 0 < config.heads <= config.width:
            raise ConfigError(f"model.heads is {config.heads}; expected 1 to width, {config.width}")
        self.config = config
        self.n_subjects = config.subjects or shape.n_subjects
        self.skip = left_out(shape, config.baseline, "baseline")
        self.tokens = nn.Linear(shape.n_times - self.skip, config.width)
        self.subjects = nn.Embedding(self.n_subjects, config.width)
        self.shared = nn.Parameter(torch.randn(1, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.layer = TransformerLayer(config)
        self.conv = TemporalSpatial(shape.n_channels, config.width, config.conv_dropout)
        width = target_width(shape, config.target, "target")
        self.projection = Projection(self.conv.width, width, config.projection_dropout)
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))
        if config.unused:
            self.subject_wise = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(2))
            # The released count has 1,500 more that the published description does not account for.
            self.unaccounted = nn.Parameter(torch.zeros(6, config.width))

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Encode windows (batch, time, channels); without a subject, or with an unknown one, by the shared token."""
        tokens = self.dropout(self.tokens(window[:, self.skip :].transpose(1, 2)))
        hidden = self.layer(torch.cat([self._subject_token(subject, len(window)), tokens], dim=1))
        scale = self.logit_scale if self.config.raw_logit_scale else self.logit_scale.exp()
        return {"embedding": self.projection(self.conv(_kept(hidden, self.config).unsqueeze(1))), "logit_scale": scale}

    def _subject_token(self, subject: Tensor | None, n: int) -> Tensor:
        """Tokens (n, 1, width): rows of a table whose last one is the shared token."""
        if subject is None:
            return self.shared.expand(n, -1).unsqueeze(1)
        table = torch.cat([self.subjects.weight, self.shared])
        known = (subject >= 0) & (subject < self.n_subjects)
        return table[torch.where(known, subject, self.n_subjects)].unsqueeze(1)

    def deploy(self, subject: int | None = None) -> nn.Module:
        """For one subject: heads padded to a multiple of 8, the token a constant, the convolutions folded."""
        return _Deployed(copy.deepcopy(self), subject).eval()


def _kept(tokens: Tensor, config: AtmConfig) -> Tensor:
    """The tokens that the convolution sees, of the subject's and one for each channel."""
    return tokens[:, :-1] if config.drop_last_channel else tokens[:, 1:]


class _Deployed(nn.Module):
    """An `Atm` for one subject."""

    subject: Tensor

    def __init__(self, encoder: Atm, subject: int | None) -> None:
        super().__init__()
        self.config, self.skip = encoder.config, encoder.skip
        self.tokens, self.layer = encoder.tokens, encoder.layer
        with torch.no_grad():
            token = encoder._subject_token(None if subject is None else torch.tensor([subject]), 1)
            self.attention = _PaddedAttention(encoder.layer.attention)
        self.register_buffer("subject", token.clone())
        self.folded = FoldedTemporalSpatial(encoder.conv, encoder.projection)

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        channels = self.tokens(window[:, self.skip :].transpose(1, 2))
        tokens = torch.cat([self.subject.expand(len(window), -1, -1), channels], dim=1)
        first, second, last = self.layer.norms
        attended = first(tokens + self.attention(tokens))
        hidden = last(second(attended + self.layer.narrow(nn.functional.gelu(self.layer.wide(attended)))))
        return (self.folded(_kept(hidden, self.config).unsqueeze(1)),)


class _PaddedAttention(nn.Module):
    """`Attention` with heads padded by zeros, which add nothing to any product; query, key and value in one layer."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.head = attention.heads, attention.head
        self.padded = math.ceil(self.head / HEAD_MULTIPLE) * HEAD_MULTIPLE
        width = attention.query.in_features
        self.projected = nn.Linear(width, 3 * self.heads * self.padded)
        self.out = nn.Linear(self.heads * self.padded, width)
        parts = (attention.query, attention.key, attention.value)
        self.projected.weight.copy_(torch.cat([self._pad(part.weight) for part in parts]))
        self.projected.bias.copy_(torch.cat([self._pad(part.bias[:, None]) for part in parts])[:, 0])
        self.out.weight.copy_(self._pad(attention.out.weight.T).T)
        self.out.bias.copy_(attention.out.bias)
        self.dropout = nn.Identity()

    def _pad(self, rows: Tensor) -> Tensor:
        """Rows (heads * head, n) with zero rows between the heads: (heads * padded, n)."""
        heads = rows.view(self.heads, self.head, -1)
        return nn.functional.pad(heads, (0, 0, 0, self.padded - self.head)).flatten(0, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend over tokens (batch, tokens, width)."""
        projected = self.projected(tokens).view(len(tokens), -1, 3 * self.heads, self.padded).transpose(1, 2)
        query, key, value = projected.split(self.heads, dim=1)
        attended: Tensor = self.out(_attend(query, key, value, self.head, self.dropout))
        return attended


def build(options: Mapping[str, Any], shape: Shape) -> Atm:
    """An `Atm` for this shape of data; see `AtmConfig` for the options."""
    return Atm(read_options(options, AtmConfig), shape)
