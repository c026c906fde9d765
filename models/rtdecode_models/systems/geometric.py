"""Spectra on the graph of a montage: Fourier features, a Laplacian eigenmap, a graph convolution, a classifier.

After Choi, "Geometric Machine Learning on EEG Signals", arXiv 2502.05334: the graph of the channels comes from training
data and is bent by Ricci flow, once, before training (`rtdecode_models.systems.ricci`). In what is exported it is a
constant, and so is the Fourier transform: cosines and sines as a matrix. The graph convolution is that of Kipf and
Welling, ICLR 2017. No width is known from the paper; all of them are chosen here.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import get_window
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.errors import ConfigError
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.labels import classes_of
from rtdecode_models.systems.ricci import channel_affinity, laplacian_eigenmap, normalised_adjacency, ricci_flow

#: Added to the power of windows of order one, so that silence has a logarithm.
FLOOR = 1e-6
#: Training windows that the graph is made from, spread evenly over all of them.
GRAPH_WINDOWS = 256


class GeometricConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a `Geometric`; all of them chosen here.

    Parameters
    ----------
    label : str
        What it decodes.
    low, high : float
        First and last frequency of the spectra in Hz.
    neighbours : int
        Edges of each channel in the graph, before surgery.
    n_vectors : int
        Smoothest eigenvectors that the spectra are projected on.
    flow_steps : int
        Of Ricci flow.
    widths : tuple of int
        Features of the graph convolutions.
    n_dims : int
        Of the embedding.
    dropout : float
        After each graph convolution.
    """

    label: str = "label"
    low: float = 1.0
    high: float = 45.0
    neighbours: int = 4
    n_vectors: int = 8
    flow_steps: int = 10
    widths: tuple[int, ...] = (64, 32)
    n_dims: int = 16
    dropout: float = 0.5


class Geometric(Encoder):
    """Windows (batch, time, channels) to ``logits`` (batch, classes) and ``embedding`` (batch, n_dims).

    Until `prepare` was called every channel is a neighbour of every other, and nothing is projected.

    Parameters
    ----------
    config : GeometricConfig
    shape : Shape
        Of the data.
    """

    outputs = ("logits", "embedding")
    fourier: Tensor
    projection: Tensor
    adjacency: Tensor

    def __init__(self, config: GeometricConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        basis = fourier_basis(shape.n_times, shape.sfreq, config.low, config.high)
        n_bins, n = len(basis) // 2, shape.n_channels
        self.register_buffer("fourier", torch.from_numpy(basis))
        self.register_buffer("projection", torch.eye(n))
        self.register_buffer("adjacency", torch.full((n, n), 1 / n))
        self.norm = nn.BatchNorm1d(n_bins)
        widths = (n_bins, *config.widths)
        self.convolutions = nn.ModuleList(GraphConvolution(width, wider) for width, wider in pairwise(widths))
        self.drop = nn.Dropout(config.dropout)
        self.embed = nn.Linear(widths[-1], config.n_dims)
        self.classifier = nn.Linear(config.n_dims, classes_of(shape, config.label))

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Logits and embeddings of windows (batch, time, channels), of order one."""
        x = self.norm(self.spectra(window)) @ self.projection
        for convolution in self.convolutions:
            x = self.drop(convolution(x, self.adjacency))
        embedding = self.embed(x.mean(dim=-1))
        return {"logits": self.classifier(embedding), "embedding": embedding}

    def spectra(self, window: Tensor) -> Tensor:
        """Logarithm of the power, (batch, time, channels) to (batch, bins, channels)."""
        cosines, sines = (self.fourier @ window).chunk(2, dim=1)
        return torch.log(cosines.square() + sines.square() + FLOOR)

    def prepare(self, trials: Trials) -> None:
        """The graph of the channels from the spectra of training windows: affinity, eigenmap, Ricci flow.

        Channels are as far apart as their spectra, each bin standardised over windows and channels. Edges join nearest
        neighbours, and are as long as their ends lie apart in the eigenmap; Ricci flow bends those lengths.

        Raises
        ------
        ConfigError
            There are no windows, or their channels do not differ.
        """
        if len(trials) == 0:
            raise ConfigError("there are no training windows to make the graph of the channels from")
        rows = np.unique(np.linspace(0, len(trials) - 1, GRAPH_WINDOWS).round().astype(np.int64))
        with torch.no_grad():
            spectra = self.spectra(torch.from_numpy(trials.x[rows]).to(self.fourier.device)).double().cpu().numpy()
        centred = spectra - spectra.mean(axis=(0, 2), keepdims=True)
        features = centred / np.maximum(spectra.std(axis=(0, 2), keepdims=True), 1e-12)
        try:
            projection, adjacency = graph_constants(features.reshape(-1, features.shape[2]).T, self.config)
        except ValueError as error:
            raise ConfigError(f"the graph of the channels: {error}") from error
        self.projection.copy_(torch.from_numpy(projection))
        self.adjacency.copy_(torch.from_numpy(adjacency))


class GraphConvolution(nn.Module):
    """``relu(W X A)`` over dense graphs, with features in rows and channels in columns.

    Parameters
    ----------
    width, wider : int
        Features of a channel, in and out.
    """

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, wider, 1)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """(batch, width, channels) to (batch, wider, channels)."""
        return functional.relu(self.mix(x) @ adjacency)


def fourier_basis(n_times: int, sfreq: float, low: float, high: float) -> NDArray[np.float32]:
    """Cosines, then sines, at the Fourier frequencies in [low, high], under a Hann window: the DFT as a matrix.

    Scaled so that a sine of amplitude one and of a frequency of its own gives cosines^2 + sines^2 = 1.

    Returns
    -------
    ndarray of float32, shape (2 * bins, n_times)

    Raises
    ------
    ValueError
        There is no such frequency below half the rate.
    """
    frequencies = np.fft.rfftfreq(n_times, 1 / sfreq)
    bins = np.flatnonzero((frequencies >= low) & (frequencies <= high))
    if len(bins) == 0 or not 0 < low <= high < sfreq / 2:
        raise ValueError(
            f"low and high are {low:g} and {high:g} Hz; windows of {n_times} samples at {sfreq:g} Hz have frequencies "
            f"every {sfreq / n_times:g} Hz up to {sfreq / 2:g} Hz"
        )
    taper = get_window("hann", n_times)
    angle = 2 * np.pi * bins[:, None] * np.arange(n_times)[None, :] / n_times
    waves = np.concatenate([np.cos(angle), np.sin(angle)]) * taper * (2 / taper.sum())
    return np.asarray(waves, dtype=np.float32)


def graph_constants(
    features: NDArray[np.float64], config: GeometricConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Projection on the eigenmap and normalised adjacency after Ricci flow, both of shape (channels, channels).

    Parameters
    ----------
    features : ndarray of float64, shape (channels, features)
        Of the channels.
    config : GeometricConfig

    Raises
    ------
    ValueError
        The channels do not differ.
    """
    affinity = channel_affinity(features, config.neighbours)
    _, vectors = laplacian_eigenmap(affinity, min(config.n_vectors, len(features)))
    apart = np.linalg.norm(vectors[:, None, 1:] - vectors[None, :, 1:], axis=-1)
    # Channels that fall on one point of the map stay two nodes: their edge is short, not gone.
    lengths = np.maximum(apart, 1e-3 * apart.max()) * (affinity > 0)
    flow = ricci_flow(lengths, steps=config.flow_steps)
    projection = vectors @ vectors.T
    return projection.astype(np.float32), normalised_adjacency(flow.lengths).astype(np.float32)


def build(options: Mapping[str, Any], shape: Shape) -> Geometric:
    """A `Geometric` for windows of this shape; its graph comes with `Geometric.prepare`.

    Raises
    ------
    ValueError
        An option makes no sense for these windows, or the data have no such label.
    """
    config = msgspec.convert(options, GeometricConfig)
    if shape.n_channels < 2:
        raise ValueError("there is one channel; a graph of channels needs two or more")
    if min(config.neighbours, config.n_dims, *config.widths) < 1 or config.n_vectors < 2 or config.flow_steps < 0:
        raise ValueError("expected neighbours, widths and n_dims from 1, n_vectors from 2, flow_steps from 0")
    if not config.widths or not 0 <= config.dropout < 1:
        raise ValueError("expected one width or more, and dropout from 0 to below 1")
    return Geometric(config, shape)
