"""BrainBERT: a transformer over the spectrogram of each intracranial electrode.

After Wang and others, "BrainBERT: Self-supervised representation learning for intracranial recordings" (ICLR 2023,
arXiv 2302.14367). Five seconds of one electrode, against the mean of its neighbours, become a spectrogram of 186 frames
and 40 frequencies up to 200 Hz; a transformer over the frames gives features, and the mean of the ten in the middle is
what a linear probe decodes. Electrodes are encoded one by one, all of a window's in one batch.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import msgspec
import torch
from torch import Tensor, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.labels import classes_of
from rtdecode_models.systems.spectrogram import Spectrogram, standardised
from rtdecode_models.systems.transformer import PostNormBlock, sinusoids

#: Published sizes: width, hidden width, blocks.
SIZES: dict[str, tuple[int, int, int]] = {
    "large": (768, 3072, 6),
    "base": (768, 3072, 3),
    "small": (384, 1200, 3),
}


class BrainBertConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of BrainBERT's shared encoder; the defaults are the published large one.

    Parameters
    ----------
    size : {"large", "base", "small"}
        Sets `width`, `hidden` and `depth` where those are not given.
    width, hidden, depth : int, optional
        Of a token, of the blocks' linear layers, and how many blocks.
    heads : int
        Attention heads.
    dropout : float
        On the tokens, in the blocks, and on the attention weights.
    frame, hop : int
        Samples in a frame of the spectrogram, and from one to the next; 400 and 50 at 2048 Hz.
    n_bins : int
        Frequencies that are kept, from 0 up.
    dropped : int
        Frames left out at either end, where the frames reach beyond the window.
    """

    size: Literal["large", "base", "small"] = "large"
    width: int | None = None
    hidden: int | None = None
    depth: int | None = None
    heads: int = 12
    dropout: float = 0.1
    frame: int = 400
    hop: int = 50
    n_bins: int = 40
    dropped: int = 10

    def __post_init__(self) -> None:
        """Refuse what no encoder can be built from."""
        width, hidden, depth = self.sizes
        for name, value in (("width", width), ("hidden", hidden), ("depth", depth), ("heads", self.heads)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more")
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected 0 or more, below 1")
        if self.dropped < 0:
            raise ValueError(f"dropped is {self.dropped}; expected 0 frames or more")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Width, hidden width and blocks, by `size` where they are not given."""
        width, hidden, depth = SIZES[self.size]
        return self.width or width, self.hidden or hidden, self.depth or depth


class BrainBertEncoder(nn.Module):
    """What pre-training and probes share: spectrograms to features.

    Parameters
    ----------
    config : BrainBertConfig
        Its shape.
    n_times : int
        Samples in a window.

    Attributes
    ----------
    width, n_frames : int
        Of a feature, and how many frames are left.
    """

    positions: Tensor

    def __init__(self, config: BrainBertConfig, n_times: int) -> None:
        super().__init__()
        self.config = config
        self.width, hidden, depth = config.sizes
        self.spectrogram = Spectrogram(n_times, config.frame, config.hop, config.n_bins)
        self.n_frames = self.spectrogram.n_frames - 2 * config.dropped
        if self.n_frames < 1:
            raise ValueError(
                f"windows of {n_times} samples have {self.spectrogram.n_frames} frames; "
                f"expected more than the {2 * config.dropped} that are dropped"
            )
        self.project = nn.Linear(config.n_bins, self.width)
        self.norm = nn.LayerNorm(self.width)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("positions", sinusoids(self.n_frames, self.width), persistent=False)
        self.blocks = nn.Sequential(
            *(
                PostNormBlock(
                    self.width,
                    config.heads,
                    self.width // config.heads,
                    hidden,
                    activation="gelu",
                    dropout=config.dropout,
                    attention_dropout=config.dropout,
                )
                for _ in range(depth)
            )
        )

    def spectrograms(self, window: Tensor) -> Tensor:
        """Standardised spectrograms (batch x channels, frames, bins) of windows (batch, time, channels)."""
        batch, n_times, channels = window.shape
        signals = window.transpose(1, 2).reshape(batch * channels, n_times)
        frames = standardised(self.spectrogram(signals))
        return frames[:, self.config.dropped : self.config.dropped + self.n_frames]

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Features (n, frames, width) of spectrograms (n, frames, bins)."""
        tokens = self.dropout(self.norm(self.project(spectrograms) + self.positions))
        features: Tensor = self.blocks(tokens)
        return features


class ProbeConfig(BrainBertConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """BrainBERT with a linear probe.

    Parameters
    ----------
    label : str
        Which label is decoded. Empty for none: the features are the only output.
    frozen : bool
        Train the probe alone; False trains the encoder with it.
    centre : int
        Frames in the middle that are averaged.
    electrodes : {"mean", "concatenate"}
        What the probe sees of several electrodes: their mean feature, or all of them side by side. The same with one.
    """

    label: str = "label"
    frozen: bool = True
    centre: int = 10
    electrodes: Literal["mean", "concatenate"] = "mean"


class BrainBert(Encoder):
    """Windows to ``embedding``, the features of every electrode, and the probe's ``logits``.

    Of two classes the probe gives one number, as the paper's does, and the logits are (0, that number): their softmax
    is its sigmoid.

    Parameters
    ----------
    config : ProbeConfig
        Its shape.
    shape : Shape
        Of the data; the label's number of classes among it.
    """

    def __init__(self, config: ProbeConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.encoder = BrainBertEncoder(config, shape.n_times)
        if not 1 <= config.centre <= self.encoder.n_frames:
            raise ValueError(f"centre is {config.centre}; expected 1 to {self.encoder.n_frames} frames")
        self.first = (self.encoder.n_frames - config.centre) // 2
        self.probe: nn.Linear | None = None
        if config.label:
            n_classes = classes_of(shape, config.label)
            several = shape.n_channels if config.electrodes == "concatenate" else 1
            self.probe = nn.Linear(several * self.encoder.width, 1 if n_classes == 2 else n_classes)
        self.outputs = ("embedding",) if self.probe is None else ("logits", "embedding")
        if config.frozen:
            self.encoder.requires_grad_(False)
            self.encoder.eval()

    def train(self, mode: bool = True) -> Self:
        """As usual; a frozen encoder stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.config.frozen:
            self.encoder.eval()
        return self

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """``logits`` (batch, classes) and ``embedding`` (batch, channels, width) of windows (batch, time, channels)."""
        batch, _, channels = window.shape
        features = self.encoder(self.encoder.spectrograms(window))
        middle = features[:, self.first : self.first + self.config.centre].mean(dim=1)
        embedding = middle.reshape(batch, channels, self.encoder.width)
        if self.probe is None:
            return {"embedding": embedding}
        seen = embedding.flatten(1) if self.config.electrodes == "concatenate" else embedding.mean(dim=1)
        logits: Tensor = self.probe(seen)
        if self.probe.out_features == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return {"logits": logits, "embedding": embedding}


def build(options: Mapping[str, Any], shape: Shape) -> BrainBert:
    """BrainBERT with a probe for this shape of data."""
    return BrainBert(msgspec.convert(dict(options), ProbeConfig), shape)
