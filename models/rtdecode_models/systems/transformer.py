"""Positions of tokens, and the transformer block of the intracranial encoders, in operators that all runtimes take."""

import math
from typing import Literal

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani and others, arXiv 1706.03762, section 3.2), its products written out.

    Parameters
    ----------
    width : int
        Of a token.
    heads, head_width : int
        Their product need not be `width`.
    dropout : float
        On the attention weights.
    norm_queries : bool
        Layer normalisation of every head's queries and keys (Dehghani and others, arXiv 2302.05442, section 2.1).
    """

    def __init__(
        self, width: int, heads: int, head_width: int, *, dropout: float = 0.0, norm_queries: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = head_width
        self.queries = nn.Linear(width, heads * head_width)
        self.keys = nn.Linear(width, heads * head_width)
        self.values = nn.Linear(width, heads * head_width)
        self.norm_q: nn.Module = nn.LayerNorm(head_width) if norm_queries else nn.Identity()
        self.norm_k: nn.Module = nn.LayerNorm(head_width) if norm_queries else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, n, width) to the same shape."""
        batch, n, _ = tokens.shape
        shape = (batch, n, self.heads, self.head_width)
        q = self.norm_q(self.queries(tokens).reshape(shape)).transpose(1, 2)
        k = self.norm_k(self.keys(tokens).reshape(shape)).transpose(1, 2)
        v = self.values(tokens).reshape(shape).transpose(1, 2)
        weights = torch.softmax((q / math.sqrt(self.head_width)) @ k.transpose(2, 3), dim=-1)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).reshape(batch, n, self.heads * self.head_width)
        result: Tensor = self.out(mixed)
        return result


class PostNormBlock(nn.Module):
    """Attention and two linear layers, each added to what went in and then normalised.

    Parameters
    ----------
    width, heads, head_width : int
        See `SelfAttention`.
    hidden : int
        Width between the two linear layers.
    activation : {"relu", "gelu"}
        Between them.
    dropout : float
        On both branches and between the two linear layers.
    attention_dropout : float
        On the attention weights.
    norm_queries : bool
        See `SelfAttention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        hidden: int,
        *,
        activation: Literal["relu", "gelu"],
        dropout: float,
        attention_dropout: float,
        norm_queries: bool = False,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, head_width, dropout=attention_dropout, norm_queries=norm_queries)
        self.norm_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU() if activation == "relu" else nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )
        self.norm_2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, n, width) to the same shape."""
        tokens = self.norm_1(tokens + self.dropout(self.attention(tokens)))
        result: Tensor = self.norm_2(tokens + self.dropout(self.mlp(tokens)))
        return result


def sinusoids(n: int, width: int) -> Tensor:
    """Fixed position codes, shape (n, width): sines on even columns, cosines on odd ones.

    Vaswani and others, arXiv 1706.03762, section 3.5: column 2i turns by ``10000 ** (-2i / width)`` radians a step.
    """
    step = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    phase = torch.arange(n, dtype=torch.float64)[:, None] * step
    codes = torch.stack([phase.sin(), phase.cos()], dim=2).reshape(n, -1)[:, :width]
    return codes.float()
