"""Sensors to virtual channels by attention over their positions, and a linear layer for each subject.

Défossez et al., "Decoding speech perception from non-invasive brain recordings" (Nature Machine Intelligence 2023),
section "Spatial attention"; taken over by Benchetrit, Banville and King, "Brain decoding: toward real-time
reconstruction of visual perception" (ICLR 2024, arXiv 2310.19812).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.errors import ConfigError

#: Both coordinates of a sensor whose position is not known.
MISSING = -0.1
#: Room around the unit square, so that the lowest frequency does not wrap around.
MARGIN = 0.2


def fourier_embedding(positions: Tensor, n_freqs: int) -> Tensor:
    """Cosines and sines of positions in the plane.

    Phases are 2 pi (i x + j y) / (1 + 2 MARGIN) of positions shifted by `MARGIN`, for i, j = 0 to ``n_freqs - 1``.

    Parameters
    ----------
    positions : Tensor, shape (channels, 2)
        On [0, 1].
    n_freqs : int
        Frequencies along each axis.

    Returns
    -------
    Tensor, shape (channels, 2 * n_freqs ** 2)
        All cosines, then all sines.
    """
    x, y = ((positions + MARGIN) * (2 * math.pi / (1 + 2 * MARGIN))).unbind(dim=1)
    steps = torch.arange(n_freqs, dtype=positions.dtype)
    phase = (x[:, None, None] * steps[:, None] + y[:, None, None] * steps).flatten(1)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class ChannelMerger(nn.Module):
    """Each virtual channel is a weighted mean of the sensors, by a softmax over what it makes of their positions.

    Parameters
    ----------
    positions : ndarray of float64, shape (channels, 2)
        On [0, 1]; a sensor with a coordinate that is not finite, or at `MISSING`, is left out.
    width : int
        Virtual channels.
    n_freqs : int
        Frequencies along each axis: 32 give embeddings of 2048 numbers.
    ban_radius : float
        While training, the sensors within this radius of a random point are left out of each batch; 0 for none.

    Raises
    ------
    ConfigError
        Positions are no (channels, 2) array, none is known, or one lies outside [0, 1].
    """

    embedding: Tensor
    positions: Tensor
    missing: Tensor

    def __init__(self, positions: NDArray[np.float64], width: int, n_freqs: int = 32, ban_radius: float = 0.2) -> None:
        super().__init__()
        where = torch.as_tensor(np.asarray(positions, np.float64))
        if where.ndim != 2 or where.shape[1] != 2:
            raise ConfigError(f"positions are of shape {tuple(where.shape)}; expected (channels, 2)")
        missing = ~where.isfinite().all(dim=1) | (where == MISSING).all(dim=1)
        _check(where, missing)
        where = torch.where(missing[:, None], MISSING, where)
        self.ban_radius = ban_radius
        self.heads = nn.Parameter(torch.randn(width, 2 * n_freqs**2) / math.sqrt(2 * n_freqs**2))
        self.register_buffer("positions", where.float())
        self.register_buffer("missing", missing)
        self.register_buffer("embedding", fourier_embedding(where, n_freqs).float(), persistent=False)

    def weights(self) -> Tensor:
        """Weights (width, channels), each row a distribution over the sensors; drawn anew while training."""
        left_out = self.missing | self._banned() if self.training and self.ban_radius > 0 else self.missing
        scores = (self.heads @ self.embedding.T).masked_fill(left_out, -math.inf)
        return torch.softmax(scores, dim=1)

    def _banned(self) -> Tensor:
        """The sensors around a random point; none where that would leave no sensor."""
        centre = torch.rand(2, device=self.positions.device)
        banned = (self.positions - centre).square().sum(dim=1) <= self.ban_radius**2
        return banned & ~(self.missing | banned).all()

    def forward(self, sensors: Tensor) -> Tensor:
        """Virtual channels (batch, width, time) of sensors (batch, channels, time)."""
        return self.weights() @ sensors


def _check(where: Tensor, missing: Tensor) -> None:
    if missing.all():
        raise ConfigError(f"none of the {len(where)} sensors has a known position; the channel merger needs them")
    wrong = torch.nonzero(~missing & ((where < 0) | (where > 1)).any(dim=1))
    if len(wrong):
        at = int(wrong[0])
        x, y = where[at].tolist()
        raise ConfigError(f"sensor {at} is at ({x:g}, {y:g}); expected positions scaled to [0, 1]")


class SubjectLayer(nn.Module):
    """One matrix for each subject, over channels, without a bias.

    Parameters
    ----------
    n_subjects : int
        Subjects.
    width : int
        Channels, in and out. The first weights are drawn from N(0, 1) / sqrt(width).
    """

    def __init__(self, n_subjects: int, width: int) -> None:
        super().__init__()
        self.matrices = nn.Parameter(torch.randn(n_subjects, width, width) / math.sqrt(width))

    def matrix(self, subject: int | None) -> Tensor:
        """A subject's matrix (out, in); None is the only one there is.

        Raises
        ------
        ConfigError
            There is no such subject, or several and none was named.
        """
        if subject is None and len(self.matrices) > 1:
            raise ConfigError(f"the encoder knows {len(self.matrices)} subjects; say whose windows these are")
        at = subject or 0
        if not 0 <= at < len(self.matrices):
            raise ConfigError(f"subject {at} is not one of the {len(self.matrices)} that the encoder knows")
        return self.matrices[at]

    def forward(self, channels: Tensor, subject: Tensor | None) -> Tensor:
        """Channels (batch, width, time) of the same, each window by the matrix of its subject."""
        if subject is None:
            return self.matrix(None) @ channels
        return self.matrices[subject] @ channels
