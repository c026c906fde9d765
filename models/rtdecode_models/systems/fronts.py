"""Fronts: what stands before a trunk that all subjects share, one for each subject, whatever their channels."""

import math

import torch
from torch import Tensor, nn

from rtdecode.errors import ConfigError


class AdaptiveMaxPool(nn.Module):
    """The largest of each of `n_out` neighbourhoods that cover `n_in` inputs, which need not be a multiple.

    Output k is the maximum over inputs floor(k n_in / n_out) up to ceil((k + 1) n_in / n_out), as in torch's pooling of
    that name, here by a table of places: every inference runtime knows how to gather.

    Parameters
    ----------
    n_in, n_out : int
        Inputs and outputs.
    """

    places: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        starts = [k * n_in // n_out for k in range(n_out)]
        stops = [math.ceil((k + 1) * n_in / n_out) for k in range(n_out)]
        longest = max(stop - start for start, stop in zip(starts, stops, strict=True))
        # Shorter neighbourhoods name their last place more than once.
        table = [[min(start + k, stop - 1) for k in range(longest)] for start, stop in zip(starts, stops, strict=True)]
        self.register_buffer("places", torch.tensor(table), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_out) of (..., n_in)."""
        neighbours = x.index_select(-1, self.places.flatten())
        return neighbours.reshape(*x.shape[:-1], *self.places.shape).amax(dim=-1)


class Front(nn.Module):
    """A linear layer for one subject, over the channels of each sample, or over the whole window.

    Over the whole window it is MindEye2's: Scotti et al., "MindEye2: Shared-Subject Models Enable fMRI-To-Image With 1
    Hour of Data" (ICML 2024, arXiv 2403.11207), a linear layer for each subject under weight decay, hence ridge.

    Parameters
    ----------
    n_times, n_channels : int
        Of the subject's windows; of wider ones the first `n_channels` are taken.
    width : int
        Virtual channels.
    flat : bool
        Over the whole window, which becomes one sample of `width` numbers.
    """

    def __init__(self, n_times: int, n_channels: int, width: int, flat: bool) -> None:
        super().__init__()
        self.n_times, self.n_channels, self.width, self.flat = n_times, n_channels, width, flat
        self.linear = nn.Linear(self._n_features(), width)
        self._start_linear()

    def _n_features(self) -> int:
        """Numbers that the linear layer is given at once."""
        return self.n_channels * self.n_times if self.flat else self.n_channels

    def reset(self) -> None:
        """As before any training."""
        self._start_linear()

    def _start_linear(self) -> None:
        """The identity where it can be one, so that nothing is mixed without a reason."""
        self.linear.reset_parameters()
        if not self.flat and self.linear.in_features == self.width:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def features(self, window: Tensor) -> Tensor:
        """What the linear layer is given: (batch, samples, numbers), one sample where the front is flat."""
        own = window[..., : self.n_channels]
        return own.flatten(1).unsqueeze(1) if self.flat else own

    def linear_virtual(self, window: Tensor) -> Tensor:
        """What the linear layer gives, (batch, samples, width), of windows (batch, time, channels)."""
        virtual: Tensor = self.linear(self.features(window))
        return virtual

    def forward(self, window: Tensor) -> Tensor:
        """Virtual channels (batch, samples, width) of windows (batch, time, channels)."""
        return self.linear_virtual(window)


class BottleneckFront(Front):
    """Adaptive maximum, a residual bottleneck and the linear layer; flat, also layer norm, GELU and dropout behind it.

    Wang et al., "MindBridge: A Cross-Subject Brain Decoding Framework" (CVPR 2024, arXiv 2404.07850): subjects with
    unequal numbers of voxels are pooled to as many. Flat it is theirs; over channels the end is left out, since a norm
    over the channels of each sample would take away how strong a response is.

    Parameters
    ----------
    n_times, n_channels, width, flat
        See `Front`.
    pooled : int
        Numbers that are left by the maximum.
    bottleneck : int
        Width of the residual branch, whose last layer starts at zero.
    dropout : float
        Behind all of it, where `flat`.
    """

    def __init__(
        self, n_times: int, n_channels: int, width: int, flat: bool, pooled: int, bottleneck: int, dropout: float
    ) -> None:
        self.pooled = pooled
        super().__init__(n_times, n_channels, width, flat)
        n_in = n_channels * n_times if flat else n_channels
        self.pool = AdaptiveMaxPool(n_in, pooled) if pooled != n_in else nn.Identity()
        self.down = nn.Linear(pooled, bottleneck)
        self.up = nn.Linear(bottleneck, pooled)
        self.norm = nn.LayerNorm(width, elementwise_affine=flat)
        self.dropout = nn.Dropout(dropout)
        self.reset()

    def _n_features(self) -> int:
        return self.pooled

    def reset(self) -> None:
        """As before any training; the residual branch gives nothing."""
        super().reset()
        self.down.reset_parameters()
        self.norm.reset_parameters()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def features(self, window: Tensor) -> Tensor:
        """Pooled numbers and what the bottleneck adds to them: (batch, samples, pooled)."""
        pooled = self.pool(super().features(window))
        added: Tensor = pooled + self.up(nn.functional.gelu(self.down(pooled)))
        return added

    def forward(self, window: Tensor) -> Tensor:
        """Virtual channels (batch, samples, width) of windows (batch, time, channels)."""
        virtual = self.linear_virtual(window)
        return self.dropout(nn.functional.gelu(self.norm(virtual))) if self.flat else virtual


def check_channels(channels: tuple[int, ...], n_subjects: int, n_channels: int) -> tuple[int, ...]:
    """How many channels each subject has, by the recipe's list; all have all of them where it is empty.

    Raises
    ------
    ConfigError
        The list is not one of the data's subjects, or names more channels than the windows have.
    """
    if not channels:
        return (n_channels,) * n_subjects
    if len(channels) != n_subjects:
        raise ConfigError(f"model.channels has {len(channels)} entries; the data are of {n_subjects} subjects")
    wrong = [n for n in channels if not 1 <= n <= n_channels]
    if wrong:
        raise ConfigError(f"model.channels has {wrong[0]}; expected 1 to {n_channels}, the channels of a window")
    return channels
