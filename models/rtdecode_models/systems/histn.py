"""HiSTN: a thousand parameters for ratings of valence and arousal, over a hierarchy of scalp regions.

After Kuang, Song and Michoski, arXiv 2408.15255. Electrodes are nodes of four regional graphs, the regions are nodes of
a ring, and the head as a whole is one node; what is found on each of the three levels is classified together. The graph
filters are Chebyshev polynomials of the graph Laplacian (Defferrard, Bresson and Vandergheynst, NeurIPS 2016).

The ratings have an order: train with `rtdecode_models.systems.ordinal.gaussian_smoothing`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.encoder import Encoder
from rtdecode_models.systems.histn_folded import FoldedHiSTN
from rtdecode_models.systems.labels import classes_of

#: The Emotiv EPOC's electrodes, counter-clockwise around the head from the left of the forehead.
ELECTRODES = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
#: Regions as runs of electrodes: left frontal, left temporal to occipital, right occipital to temporal, right frontal.
REGIONS = (slice(0, 4), slice(4, 7), slice(7, 10), slice(10, 14))
#: Edges inside each region, by place in it; the last region is the mirror image of the first.
EDGES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((0, 2), (1, 2), (1, 3), (2, 3)),
    ((0, 1), (1, 2)),
    ((0, 1), (1, 2)),
    ((3, 1), (2, 1), (2, 0), (1, 0)),
)
#: Regions side by side.
RING = ((0, 1), (1, 2), (2, 3), (3, 0))
#: Samples in the second convolution over time, and in that of the node level.
SHORT = 5


class HiSTNConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a `HiSTN`; the defaults are the published network.

    Parameters
    ----------
    label : str
        The rating that it decodes; the published form is one network for each.
    n_filters : int
        Filters of the first convolution over time (``F1``).
    kernel : int
        Samples in each.
    hops : int
        Degree of the graph filters (``K``).
    dropout : float
        After the front and before the classifier.
    """

    label: str = "valence"
    n_filters: int = 8
    kernel: int = 64
    hops: int = 2
    dropout: float = 0.5


class HiSTN(Encoder):
    """Windows (batch, time, 14) to ``logits`` (batch, classes).

    Parameters
    ----------
    config : HiSTNConfig
    n_classes : int
        Ratings.
    """

    outputs = ("logits",)

    def __init__(self, config: HiSTNConfig, n_classes: int) -> None:
        super().__init__()
        n = len(ELECTRODES)
        self.config = config
        self.temporal = nn.Conv2d(1, config.n_filters, (1, config.kernel), bias=False)
        self.mix = nn.Parameter(torch.empty(config.n_filters, n))
        nn.init.xavier_uniform_(self.mix)
        self.mix_norm = nn.BatchNorm1d(n)
        self.short = nn.Conv1d(n, n, SHORT, groups=n, bias=False)
        self.short_norm = nn.BatchNorm1d(n)
        self.drop = nn.Dropout(config.dropout)
        self.nodes = nn.ModuleList(
            RegionBlock(part.stop - part.start, edges, config.hops) for part, edges in zip(REGIONS, EDGES, strict=True)
        )
        self.node_norm = nn.BatchNorm1d(n)
        self.input_pools = nn.ModuleList(AttentionPool(part.stop - part.start) for part in REGIONS)
        self.node_pools = nn.ModuleList(AttentionPool(part.stop - part.start) for part in REGIONS)
        self.ring = GraphFilter(len(REGIONS), RING, config.hops)
        self.global_input_pool = AttentionPool(len(REGIONS))
        self.global_pool = AttentionPool(len(REGIONS))
        self.classifier = nn.Linear(n + len(REGIONS) + 1, n_classes)

    def forward(self, window: Tensor, subject: Tensor | None = None) -> dict[str, Tensor]:
        """Logits of windows (batch, time, 14), each channel scaled by its largest magnitude."""
        x = self.drop(self._front(window))
        node = torch.cat([block(x[:, part]) for block, part in zip(self.nodes, REGIONS, strict=True)], dim=1)
        node = functional.elu(self.node_norm(node)) + x
        pooled = _pool_regions(self.input_pools, x)
        region = self.ring(pooled) + _pool_regions(self.node_pools, node)
        whole = self.global_input_pool(pooled) + self.global_pool(region)
        features = torch.cat([node, region, whole], dim=1).mean(dim=-1)
        return {"logits": self.classifier(self.drop(features))}

    def _front(self, window: Tensor) -> Tensor:
        """Each electrode by itself: (batch, time, 14) to (batch, 14, (time - 4) / 2)."""
        n = self.config.kernel - 1
        padded = functional.pad(window.transpose(1, 2).unsqueeze(1), (n // 2, n - n // 2))
        mixed = (self.temporal(padded) * self.mix.unsqueeze(-1)).sum(dim=1)
        x = functional.elu(self.mix_norm(mixed))
        return functional.avg_pool1d(functional.elu(self.short_norm(self.short(x))), 2)

    def deploy(self, subject: int | None = None) -> nn.Module:
        """The same numbers from four convolutions: filters, mixes, graph polynomials and batch norms become weights."""
        with torch.no_grad():
            return FoldedHiSTN(self).eval()


class GraphFilter(nn.Module):
    """A polynomial of a graph's Laplacian, ``P = sum_k w_k T_k(2 L / lambda_max - I)``, applied over the nodes.

    Parameters
    ----------
    n_nodes : int
    edges : sequence of pairs of int
    hops : int
        Its degree.
    """

    basis: Tensor

    def __init__(self, n_nodes: int, edges: Sequence[tuple[int, int]], hops: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.from_numpy(chebyshev_basis(n_nodes, edges, hops)))
        # The identity: a filter that has learnt nothing passes its input on.
        self.weight = nn.Parameter(torch.eye(1, hops + 1)[0])

    def matrix(self) -> Tensor:
        """P, shape (nodes, nodes)."""
        return (self.weight[:, None, None] * self.basis).sum(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Nodes (batch, nodes, time) filtered."""
        return self.matrix() @ x


class RegionBlock(nn.Module):
    """The node level in one region: graph filter, then a separable convolution over time.

    Parameters
    ----------
    n_nodes, edges, hops
        Of the region's graph.
    """

    def __init__(self, n_nodes: int, edges: Sequence[tuple[int, int]], hops: int) -> None:
        super().__init__()
        self.filter = GraphFilter(n_nodes, edges, hops)
        self.depthwise = nn.Conv1d(n_nodes, n_nodes, SHORT, padding=SHORT // 2, groups=n_nodes, bias=False)
        self.pointwise = nn.Conv1d(n_nodes, n_nodes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Nodes (batch, nodes, time) to the same shape."""
        features: Tensor = self.pointwise(self.depthwise(self.filter(x)))
        return features


class AttentionPool(nn.Module):
    """Some nodes as one: weights from each node's mean over time, by a linear layer and a softmax.

    Parameters
    ----------
    n_nodes : int
    """

    def __init__(self, n_nodes: int) -> None:
        super().__init__()
        self.score = nn.Linear(n_nodes, n_nodes)

    def forward(self, x: Tensor) -> Tensor:
        """Nodes (batch, nodes, time) to (batch, 1, time)."""
        weights = functional.softmax(self.score(x.mean(dim=-1)), dim=-1)
        return weights.unsqueeze(1) @ x


def chebyshev_basis(n_nodes: int, edges: Sequence[tuple[int, int]], hops: int) -> NDArray[np.float32]:
    """Chebyshev polynomials T_0 .. T_hops of a graph's rescaled normalised Laplacian.

    Returns
    -------
    ndarray of float32, shape (hops + 1, nodes, nodes)
        Constants of the network.
    """
    adjacency = np.zeros((n_nodes, n_nodes))
    for i, j in edges:
        adjacency[i, j] = adjacency[j, i] = 1
    degree = adjacency.sum(axis=1)
    laplacian = np.eye(n_nodes) - adjacency / np.sqrt(np.outer(degree, degree))
    rescaled = 2 * laplacian / np.linalg.eigvalsh(laplacian)[-1] - np.eye(n_nodes)
    basis = [np.eye(n_nodes), rescaled]
    while len(basis) <= hops:
        basis.append(2 * rescaled @ basis[-1] - basis[-2])
    return np.stack(basis[: hops + 1]).astype(np.float32)


def _pool_regions(pools: nn.ModuleList, x: Tensor) -> Tensor:
    """Electrodes (batch, 14, time) to regions (batch, 4, time)."""
    return torch.cat([pool(x[:, part]) for pool, part in zip(pools, REGIONS, strict=True)], dim=1)


def build(options: Mapping[str, Any], shape: Shape) -> HiSTN:
    """A `HiSTN` for 14 Emotiv channels in their published order.

    Raises
    ------
    ValueError
        The channels are others, the window is too short, or the data have no such label.
    """
    config = msgspec.convert(options, HiSTNConfig)
    if shape.n_channels != len(ELECTRODES) or (shape.channels and shape.channels != ELECTRODES):
        raise ValueError(
            f"the channels are {', '.join(shape.channels) or shape.n_channels}; its graphs are of the electrodes "
            f"{', '.join(ELECTRODES)}, in this order: pick them in the conditioning"
        )
    if shape.n_times < SHORT + 1:
        raise ValueError(f"a window has {shape.n_times} samples; expected {SHORT + 1} or more")
    if config.n_filters < 1 or config.kernel < 1 or config.hops < 1 or not 0 <= config.dropout < 1:
        raise ValueError("expected n_filters, kernel and hops of 1 or more, and dropout from 0 to below 1")
    return HiSTN(config, classes_of(shape, config.label))
