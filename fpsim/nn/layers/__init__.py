"""The layers that are emulated, one kind a file; importing this package registers all."""

from fpsim.nn.layers import (
    arithmetic,
    attention,
    convolution,
    dropout,
    embedding,
    linear,
    moves,
    pooling,
    softmax,
)

__all__ = [
    "arithmetic",
    "attention",
    "convolution",
    "dropout",
    "embedding",
    "linear",
    "moves",
    "pooling",
    "softmax",
]
