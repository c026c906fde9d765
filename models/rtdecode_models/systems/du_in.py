"""Du-IN: words from stereotactic EEG, by convolutions over 100 ms and a transformer over the word.

After Zheng and others, "Du-IN: Discrete units-guided mask modeling for decoding speech from intracranial neural
signals" (NeurIPS 2024, arXiv 2405.11459): ten bipolar channels of one subject are mixed by a matrix of the subject's
own, cut into segments of 100 ms, each segment becomes a token by three convolutions, and eight transformer blocks over
the tokens lead to one of 61 words. What comes before in its training stands in `du_in_tokenizer` and `du_in_masked`;
all three call the shared part ``encoder``, so that one stage starts from the weights of another.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Deployed, Encoder
from rtdecode_models.systems.labels import classes_of
from rtdecode_models.systems.transformer import PostNormBlock, sinusoids


class DuInConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of Du-IN's shared encoder; the defaults are the published ones.

    Parameters
    ----------
    segment_s : float
        Seconds in one token. A window must be a whole number of them.
    mixed : int
        Virtual channels that the subject's matrix gives.
    filters : int
        Feature maps of the first two convolutions.
    last_filters : int
        Feature maps of the third; times the steps that a segment has left (10), the width of a token.
    kernel, stride : int
        Samples of the first convolution at 1000 Hz.
    depth, heads, head_width, hidden : int
        Transformer blocks, their attention heads, the heads' width, and the width of their linear layers.
    dropout : float
        In the blocks, also on the attention weights.
    """

    segment_s: float = 0.1
    mixed: int = 16
    filters: int = 128
    last_filters: int = 16
    kernel: int = 19
    stride: int = 10
    depth: int = 8
    heads: int = 8
    head_width: int = 64
    hidden: int = 320
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what no encoder can be built from."""
        for name in ("mixed", "filters", "last_filters", "kernel", "stride", "depth", "heads", "head_width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not self.segment_s > 0:
            raise ValueError(f"segment_s is {self.segment_s}; expected seconds, more than 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected 0 or more, below 1")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}; expected an odd number of samples")


class SubjectLayer(nn.Module):
    """One linear map of the channels for each subject.

    Parameters
    ----------
    n_subjects, n_in, n_out : int
        How many maps, from how many channels to how many.
    """

    def __init__(self, n_subjects: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = n_in**-0.5
        self.weight = nn.Parameter(torch.empty(n_subjects, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_subjects, 1, n_out).uniform_(-bound, bound))

    def forward(self, x: Tensor, subject: Tensor | None = None) -> Tensor:
        """Map (batch, time, n_in) to (batch, time, n_out); who it is may be left out where there is one subject."""
        if subject is None:
            if len(self.weight) > 1:
                raise ValueError(f"windows of one of {len(self.weight)} subjects; expected to be told which")
            return x @ self.weight[0] + self.bias[0]
        return x @ self.weight.index_select(0, subject) + self.bias.index_select(0, subject)

    def of(self, subject: int) -> "SubjectLayer":
        """The layer of one subject alone."""
        n_subjects, n_in, n_out = self.weight.shape
        if not 0 <= subject < n_subjects:
            raise ConfigError(
                f"subject {subject} of an encoder that knows {n_subjects}; expected 0 to {n_subjects - 1}"
            )
        alone = SubjectLayer(1, n_in, n_out)
        with torch.no_grad():
            alone.weight.copy_(self.weight[subject : subject + 1])
            alone.bias.copy_(self.bias[subject : subject + 1])
        return alone


class DuInEncoder(nn.Module):
    """What all three stages share: windows to tokens.

    Parameters
    ----------
    config : DuInConfig
        Its shape.
    shape : Shape
        Of the data.

    Attributes
    ----------
    n_tokens, segment, steps, width : int
        Tokens in a window, samples and convolved steps in a token, and its width.
    """

    time: Tensor

    def __init__(self, config: DuInConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.segment = round(config.segment_s * shape.sfreq)
        self.n_tokens, rest = divmod(shape.n_times, self.segment)
        if rest or not self.n_tokens:
            raise ValueError(
                f"windows of {shape.n_times} samples at {shape.sfreq:g} Hz; "
                f"expected a whole number of segments of {config.segment_s:g} s ({self.segment} samples)"
            )
        self.steps = (self.segment + 2 * (config.kernel // 2) - config.kernel) // config.stride + 1
        self.width = self.steps * config.last_filters
        self.subjects = SubjectLayer(shape.n_subjects, shape.n_channels, config.mixed)
        # Convolutions over images whose rows are the segments: none of them sees across a segment's edge.
        self.patch = nn.Sequential(
            nn.Conv2d(
                config.mixed, config.filters, (1, config.kernel), (1, config.stride), padding=(0, config.kernel // 2)
            ),
            nn.BatchNorm2d(config.filters),
            nn.Conv2d(config.filters, config.filters, (1, 3), padding=(0, 1)),
            nn.BatchNorm2d(config.filters),
            nn.Conv2d(config.filters, config.last_filters, (1, 3), padding=(0, 1)),
            nn.BatchNorm2d(config.last_filters),
        )
        self.register_buffer("time", sinusoids(self.n_tokens, self.width), persistent=False)
        self.blocks = nn.Sequential(*(block(config, self.width) for _ in range(config.depth)))

    def patches(self, window: Tensor, subject: Tensor | None = None) -> Tensor:
        """Tokens before the transformer, (batch, tokens, width), of windows (batch, time, channels)."""
        mixed = self.subjects(window, subject).transpose(1, 2)
        segments = mixed.reshape(len(window), self.config.mixed, self.n_tokens, self.segment)
        convolved: Tensor = self.patch(segments)
        return convolved.permute(0, 2, 3, 1).reshape(len(window), self.n_tokens, self.width)

    def transform(self, patches: Tensor) -> Tensor:
        """Tokens after the transformer, (batch, tokens, width), of those before it."""
        tokens: Tensor = self.blocks(patches + self.time)
        return tokens

    def forward(self, window: Tensor, subject: Tensor | None = None) -> Tensor:
        """Tokens (batch, tokens, width) of conditioned windows (batch, time, channels)."""
        return self.transform(self.patches(window, subject))

    def of(self, subject: int | None) -> "DuInEncoder":
        """A copy that knows one subject only; which may be left out where there is no other."""
        known = len(self.subjects.weight)
        if subject is None and known > 1:
            raise ConfigError(f"a Du-IN of {known} subjects; say for which of them it is deployed")
        copy = deepcopy(self)
        copy.subjects = self.subjects.of(subject or 0)
        return copy


def block(config: DuInConfig, width: int) -> PostNormBlock:
    """One of Du-IN's transformer blocks."""
    return PostNormBlock(
        width,
        config.heads,
        config.head_width,
        config.hidden,
        activation="relu",
        dropout=config.dropout,
        attention_dropout=config.dropout,
        norm_queries=True,
    )


class WordsConfig(DuInConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Du-IN's classifier.

    Parameters
    ----------
    label : str
        Which label is decoded.
    head_hidden : int
        Width between the classifier's two linear layers.
    """

    label: str = "label"
    head_hidden: int = 128


class DuIn(Encoder):
    """The classification stage: windows to ``logits``.

    Parameters
    ----------
    config : WordsConfig
        Its shape.
    shape : Shape
        Of the data; the label's number of classes among it.
    """

    outputs = ("logits",)

    def __init__(self, config: WordsConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.encoder = DuInEncoder(config, shape)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(self.encoder.n_tokens * self.encoder.width, config.head_hidden),
            nn.ReLU(),
            nn.Linear(config.head_hidden, classes_of(shape, config.label)),
        )

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """``logits`` (batch, classes) of conditioned windows (batch, time, channels)."""
        return {"logits": self.classifier(self.encoder(window, subject))}

    def deploy(self, subject: int | None = None) -> nn.Module:
        """The classifier of one subject, with that subject's matrix alone."""
        copy = deepcopy(self)
        copy.encoder = self.encoder.of(subject)
        return Deployed(copy, None).eval()


def build(options: Mapping[str, Any], shape: Shape) -> DuIn:
    """Du-IN's classifier for this shape of data."""
    return DuIn(msgspec.convert(dict(options), WordsConfig), shape)
