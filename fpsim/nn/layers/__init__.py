"""The layers that are emulated, one kind a file; importing this package registers all."""

from fpsim.nn.layers import (
    activations,
    arithmetic,
    attention,
    convolution,
    dropout,
    embedding,
    extremes,
    linear,
    losses,
    moves,
    normalization,
    pooling,
    softmax,
)

__all__ = [
    "activations",
    "arithmetic",
    "attention",
    "convolution",
    "dropout",
    "embedding",
    "extremes",
    "linear",
    "losses",
    "moves",
    "normalization",
    "pooling",
    "softmax",
]
