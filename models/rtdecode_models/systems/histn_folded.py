"""HiSTN as it is deployed: every linear chain of the trained network multiplied out into one convolution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from rtdecode_models.systems.histn import AttentionPool, HiSTN, RegionBlock


class FoldedHiSTN(nn.Module):
    """A trained `HiSTN` from windows (1, time, 14) to the tuple of its logits, without graphs and batch norms.

    Parameters
    ----------
    trained : HiSTN
        Copied from; stays as it was.
    """

    membership: Tensor
    ring: Tensor

    def __init__(self, trained: HiSTN) -> None:
        super().__init__()
        self.outputs = trained.outputs
        n, kernel = trained.mix.shape[1], trained.config.kernel
        # Time filters and their mix in each electrode: one filter for each electrode.
        mixed = torch.tensordot(trained.mix, trained.temporal.weight[:, 0, 0], dims=([0], [0]))
        self.padding = ((kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2)
        self.first = _normed(mixed[:, None, None], trained.mix_norm, groups=n)
        self.second = _normed(trained.short.weight.unsqueeze(2), trained.short_norm, groups=n)
        self.node = _normed(_node_kernel(trained), trained.node_norm, groups=1)
        self.parts = [pool.score.out_features for pool in _pools(trained.input_pools)]
        self.register_buffer("membership", _block_diagonal(torch.ones(1, size) for size in self.parts))
        self.register_buffer("ring", trained.ring.matrix().clone())
        self.input_score = _scores(_pools(trained.input_pools))
        self.node_score = _scores(_pools(trained.node_pools))
        self.global_input_score = _scores([trained.global_input_pool])
        self.global_score = _scores([trained.global_pool])
        self.classifier = _linear(trained.classifier.weight, trained.classifier.bias)

    def forward(self, window: Tensor) -> tuple[Tensor]:
        """Logits (batch, classes)."""
        x = functional.pad(window.transpose(1, 2).unsqueeze(2), self.padding)
        x = functional.elu(self.second(functional.elu(self.first(x))))
        x = functional.avg_pool2d(x, (1, 2))
        node = (functional.elu(self.node(x)) + x).squeeze(2)
        pooled = self._regions(self.input_score, x.squeeze(2))
        region = self.ring @ pooled + self._regions(self.node_score, node)
        whole = _pool(self.global_input_score, pooled) + _pool(self.global_score, region)
        features = torch.cat([node, region, whole], dim=1).mean(dim=-1)
        return (self.classifier(features),)

    def _regions(self, score: nn.Linear, x: Tensor) -> Tensor:
        """Electrodes (batch, 14, time) to regions (batch, 4, time)."""
        scores = score(x.mean(dim=-1)).split(self.parts, dim=-1)
        weights = torch.cat([functional.softmax(part, dim=-1) for part in scores], dim=-1)
        return self.membership @ (weights.unsqueeze(-1) * x)


def _node_kernel(trained: HiSTN) -> Tensor:
    """Graph filters, depthwise and pointwise convolutions of all regions as one kernel (14, 14, 1, samples)."""
    blocks = cast("list[RegionBlock]", list(trained.nodes))
    filters = _block_diagonal(block.filter.matrix() for block in blocks)
    depthwise = torch.cat([block.depthwise.weight[:, 0] for block in blocks])
    pointwise = _block_diagonal(block.pointwise.weight[..., 0] for block in blocks)
    return (pointwise[:, :, None, None] * depthwise[None, :, None] * filters[None, :, :, None]).sum(dim=1).unsqueeze(2)


def _pools(modules: nn.ModuleList) -> list[AttentionPool]:
    return cast("list[AttentionPool]", list(modules))


def _block_diagonal(blocks: Iterable[Tensor]) -> Tensor:
    """Matrices along the diagonal of one."""
    whole = torch.zeros(0, 0)
    for block in blocks:
        (rows, columns), (height, width) = whole.shape, block.shape
        whole = functional.pad(whole, (0, width, 0, height))
        whole[rows:, columns:] = block
    return whole


def _normed(kernel: Tensor, norm: nn.BatchNorm1d, groups: int) -> nn.Conv2d:
    """A convolution over images of one row with the batch norm that follows it inside."""
    if norm.running_var is None or norm.running_mean is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    height, samples = kernel.shape[2:]
    padding = (0, samples // 2) if groups == 1 else (0, 0)
    folded = nn.Conv2d(kernel.shape[1] * groups, len(kernel), (height, samples), groups=groups, padding=padding)
    folded.weight.copy_(kernel * scale[:, None, None, None])
    if folded.bias is not None:
        folded.bias.copy_(norm.bias - norm.running_mean * scale)
    return folded


def _scores(pools: list[AttentionPool]) -> nn.Linear:
    """The score layers of several pools side by side."""
    return _linear(_block_diagonal(pool.score.weight for pool in pools), torch.cat([pool.score.bias for pool in pools]))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with these numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def _pool(score: nn.Linear, x: Tensor) -> Tensor:
    """Nodes (batch, nodes, time) to their weighted sum (batch, 1, time)."""
    return functional.softmax(score(x.mean(dim=-1)), dim=-1).unsqueeze(1) @ x
