"""A small decoder-only transformer in the manner of OLMo 2.

What it takes from there (Team OLMo, "2 OLMo 2 Furious", 2025, section 2.1): RMSNorm of the output of attention and MLP
before it is added to the residual, RMSNorm of queries and keys over all heads, rotary positions, SwiGLU, no biases,
normal starting weights. Unlike there, the deviation of these is 1/sqrt(n), n the terms of a sum (with 0.02, which
suits wide models, the epsilon of the norms would outweigh what they norm here), the embedding is the output layer too
(tied), and the context is short.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from experiments.networks.initial import embedding, fan_in, fill, linear
from experiments.problems.base import checked_integer
from fpsim.random_bits import Key

BASE = 10000.0  # of the angles of rotary positions; OLMo 2 has 500000, for contexts a hundred times as long
DEVIATION = 0.02  # of embeddings
EPSILON = 1e-6


class Attention(torch.nn.Module):
    """Causal self-attention with normed queries and keys and rotary positions."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (linear(width, width, bias=False) for _ in range(3))
        self.query_norm, self.key_norm = (torch.nn.RMSNorm(width, eps=EPSILON) for _ in range(2))
        self.out = linear(width, width, bias=False)
        cos, sin = rotations(length, width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self._rotated(self._split(self.query_norm(self.query(x))))
        k = self._rotated(self._split(self.key_norm(self.key(x))))
        v = self._split(self.value(x))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, length, width] to [batch, heads, length, width / heads]."""
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        """Each pair (a, b) of coordinates i and i + half turned by the angle of its position and i."""
        a, b = x.chunk(2, dim=-1)
        length = x.shape[-2]
        cos, sin = self.cos[:length], self.sin[:length]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Block(torch.nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, length: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads, length)
        self.gate, self.up = (linear(width, hidden, bias=False) for _ in range(2))
        self.down = linear(hidden, width, bias=False)
        self.attention_norm, self.mlp_norm = (torch.nn.RMSNorm(width, eps=EPSILON) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention_norm(self.attention(x))
        return x + self.mlp_norm(self.down(functional.silu(self.gate(x)) * self.up(x)))


class Transformer(torch.nn.Module):
    """Scores of the next token at every place, ``[batch, length, tokens]``."""

    def __init__(self, tokens: int, length: int, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.embedding = embedding(tokens, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads, hidden, length) for _ in range(depth))
        self.norm = torch.nn.RMSNorm(width, eps=EPSILON)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.embedding.weight)


def transformer(
    inputs: tuple[int, ...], outputs: int, key: Key, *, width: int = 32, depth: int = 2, heads: int = 2, hidden: int = 0
) -> torch.nn.Module:
    """``depth`` blocks of ``width`` coordinates with ``heads`` heads; ``hidden`` units of the MLP (0: 8/3 of the width,
    rounded up to a multiple of 8).

    Examples
    --------
    >>> net = transformer((32,), 16, Key(0))
    >>> net(torch.zeros(3, 32, dtype=torch.int64)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([3, 32, 16]), 25888)
    """
    checked_integer("depth", depth, 1, 64)
    checked_integer("heads", heads, 1, 256)
    checked_integer("width", width, 2 * heads, 1 << 14)
    if width % (2 * heads):
        raise ValueError(f"width={width} with heads={heads}; admissible: a multiple of twice the heads")
    hidden = checked_integer("hidden", hidden, 0, 1 << 16) or -(-8 * width // 24) * 8
    network = Transformer(outputs, inputs[0], width, depth, heads, hidden)

    def deviation(name: str, parameter: torch.Tensor) -> float:
        if parameter.ndim != 2:
            return 0.0
        return DEVIATION if name == "embedding.weight" else 1.0 / math.sqrt(fan_in(parameter))

    return fill(network, key, deviation)


def rotations(length: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of position times BASE^(-2i/width), ``[length, width / 2]``, from Python's functions."""
    angles = [[place * BASE ** (-2.0 * i / width) for i in range(width // 2)] for place in range(length)]
    cos, sin = ([[f(angle) for angle in row] for row in angles] for f in (math.cos, math.sin))
    return torch.tensor(cos, dtype=torch.float32), torch.tensor(sin, dtype=torch.float32)
