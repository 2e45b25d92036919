"""Multinomial logistic regression: one linear layer, a convex problem."""

from __future__ import annotations

import math

import torch

from experiments.networks.initial import linear
from fpsim.random_bits import Key


def logistic(inputs: tuple[int, ...], outputs: int, key: Key) -> torch.nn.Module:
    """Scores W x + b, all 0 at the start: the problem is convex, and the key is not used.

    Examples
    --------
    >>> logistic((1, 8, 8), 10, Key(0))(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    return torch.nn.Sequential(torch.nn.Flatten(), linear(math.prod(inputs), outputs))
