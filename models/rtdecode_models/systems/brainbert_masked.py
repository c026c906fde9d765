"""BrainBERT's pre-training: masked stretches of the spectrogram, told from what is around them.

Wang and others (ICLR 2023, arXiv 2302.14367, section 2): stretches of frames and bands of frequencies are masked, and
the loss counts bins that stand out from the background (further than one standard deviation from the mean) more.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.brainbert import BrainBertConfig, BrainBertEncoder
from rtdecode_models.systems.encoder import Encoder


class MaskedConfig(BrainBertConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the pre-training, and its masks.

    Parameters
    ----------
    masked : float
        Chance that a masked stretch begins at a frame (or frequency) that none covers yet.
    most_frames, most_bins : int
        Longest stretch; each length from 1 up is as likely.
    zeroed, replaced : float
        Share of the stretches that become zeros, and that become another stretch of the same spectrogram. The others
        stay as they are, and are predicted all the same.
    content_weight : float
        Of the second term of the loss, over bins that stand out.
    content_threshold : float
        From how many standard deviations on a bin does so.
    centre : int
        Frames in the middle that are averaged for the embedding.
    """

    masked: float = 0.1
    most_frames: int = 5
    most_bins: int = 2
    zeroed: float = 0.8
    replaced: float = 0.1
    content_weight: float = 2.0
    content_threshold: float = 1.0
    centre: int = 10

    def __post_init__(self) -> None:
        """Refuse chances that are none."""
        super().__post_init__()
        if not 0 < self.masked <= 1:
            raise ValueError(f"masked is {self.masked}; expected a chance above 0, at most 1")
        if self.zeroed < 0 or self.replaced < 0 or self.zeroed + self.replaced > 1:
            raise ValueError(f"zeroed is {self.zeroed} and replaced {self.replaced}; expected shares that add up to 1")
        if self.most_frames < 1 or self.most_bins < 1:
            raise ValueError(f"most_frames is {self.most_frames}, most_bins {self.most_bins}; expected 1 or more")


class BrainBertMasked(Encoder):
    """The pre-training stage.

    The output is ``embedding`` (batch, channels, width), as the probe will see it; with it come the two terms of the
    loss: ``loss_masked``, the mean absolute error over masked bins, and ``loss_content``, the same over those of them
    that stand out, with its weight. While it trains there are these two alone.

    Parameters
    ----------
    config : MaskedConfig
        Its shape.
    shape : Shape
        Of the data.
    """

    outputs = ("embedding",)

    def __init__(self, config: MaskedConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.encoder = BrainBertEncoder(config, shape.n_times)
        for name, most, there in (
            ("most_frames", config.most_frames, self.encoder.n_frames),
            ("most_bins", config.most_bins, config.n_bins),
            ("centre", config.centre, self.encoder.n_frames),
        ):
            if most > there:
                raise ValueError(f"{name} is {most}, of spectrograms with {there}")
        self.first = (self.encoder.n_frames - config.centre) // 2
        width = self.encoder.width
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, config.n_bins)
        )

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """The embedding and the losses of conditioned windows (batch, time, channels)."""
        batch, _, channels = window.shape
        whole = self.encoder.spectrograms(window)
        hidden, masked = mask(whole, self.config)
        error = (self.head(self.encoder(hidden)) - whole).abs()
        stands_out = masked & (whole.abs() > self.config.content_threshold)
        losses = {
            "loss_masked": _mean(error, masked),
            "loss_content": self.config.content_weight * _mean(error, stands_out),
        }
        if self.training:  # nothing is trained on the embedding, which takes a pass of its own
            return losses
        return losses | {"embedding": self.embed(whole).reshape(batch, channels, self.encoder.width)}

    def embed(self, spectrograms: Tensor) -> Tensor:
        """Mean feature (n, width) of the frames in the middle of spectrograms (n, frames, bins)."""
        features = self.encoder(spectrograms)
        middle: Tensor = features[:, self.first : self.first + self.config.centre].mean(dim=1)
        return middle

    def deploy(self, subject: int | None = None) -> nn.Module:
        """Windows to the embedding, without masks and losses."""
        return _Features(deepcopy(self)).eval()


class _Features(nn.Module):
    """The encoder of a pre-training, and what it gives."""

    def __init__(self, stage: BrainBertMasked) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, window: Tensor) -> tuple[Tensor]:
        """The embedding (batch, channels, width); exported for a batch of one."""
        batch, _, channels = window.shape
        spectrograms = self.stage.encoder.spectrograms(window)
        return (self.stage.embed(spectrograms).reshape(batch, channels, self.stage.encoder.width),)


def mask(spectrograms: Tensor, config: MaskedConfig) -> tuple[Tensor, Tensor]:
    """Spectrograms (n, frames, bins) with stretches hidden, first frames and then frequencies; bool, where they are."""
    hidden, frames = _hide(spectrograms, config.most_frames, config)
    turned, bins = _hide(hidden.transpose(1, 2), config.most_bins, config)
    return turned.transpose(1, 2), frames[:, :, None] | bins[:, None, :]


def _hide(x: Tensor, longest: int, config: MaskedConfig) -> tuple[Tensor, Tensor]:
    """Hide stretches along the second axis of `x` (n, positions, rest); the second value, bool, is where they are."""
    where, age, stretch = stretches(len(x), x.shape[1], config.masked, longest, x.device)
    # What happens to a stretch, and where another one would begin, is drawn once for all of its positions.
    fate = torch.rand(where.shape, device=x.device).gather(1, stretch)
    other = torch.randint(0, x.shape[1] - longest + 1, where.shape, device=x.device).gather(1, stretch) + age
    elsewhere = x.gather(1, other[:, :, None].expand_as(x))
    zeroed = where & (fate < config.zeroed)
    replaced = where & (fate >= config.zeroed) & (fate < config.zeroed + config.replaced)
    hidden = torch.where(replaced[:, :, None], elsewhere, x)
    return hidden.masked_fill(zeroed[:, :, None], 0.0), where


def stretches(batch: int, n: int, chance: float, longest: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Masked stretches that do not overlap.

    Parameters
    ----------
    batch, n : int
        Rows, and positions in each.
    chance : float
        That one begins at a position that none covers.
    longest : int
        Each length from 1 to this is as likely; the last one may be cut short by the end.
    device : torch.device
        Of the results.

    Returns
    -------
    where : Tensor of bool, shape (batch, n)
        Covered positions.
    age : Tensor of int64, shape (batch, n)
        How far each is from the beginning of its stretch; 0 where none is.
    stretch : Tensor of int64, shape (batch, n)
        The position at which its stretch begins; where none is, its own.
    """
    begins = torch.rand(batch, n, device=device) < chance
    lengths = torch.randint(1, longest + 1, (batch, n), device=device)
    left = torch.zeros(batch, dtype=torch.int64, device=device)
    begun = torch.zeros(batch, dtype=torch.int64, device=device)
    where, starts = [], []
    for position in range(n):
        fresh = left == 0
        left = torch.where(fresh, begins[:, position] * lengths[:, position], left)
        begun = torch.where(fresh, position, begun)
        where.append(left > 0)
        starts.append(begun)
        left = (left - 1).clamp(min=0)
    stretch = torch.stack(starts, dim=1)
    return torch.stack(where, dim=1), torch.arange(n, device=device) - stretch, stretch


def _mean(error: Tensor, where: Tensor) -> Tensor:
    """Mean error over some bins; 0 where there are none."""
    return (error * where).sum() / where.sum().clamp(min=1)


def build(options: Mapping[str, Any], shape: Shape) -> BrainBertMasked:
    """BrainBERT's pre-training for this shape of data."""
    return BrainBertMasked(msgspec.convert(dict(options), MaskedConfig), shape)
