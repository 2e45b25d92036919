"""A multilayer perceptron: four linear layers with ReLU between them."""

from __future__ import annotations

import math

import torch

from experiments.networks.initial import fan_in, fill, linear
from experiments.problems.base import checked_integer
from fpsim.random_bits import Key


def mlp(inputs: tuple[int, ...], outputs: int, key: Key, *, width: int = 256, depth: int = 4) -> torch.nn.Module:
    """64-256-256-256-10 for the digits: ``depth`` linear layers, ``width`` units between them.

    Weights are normal with variance 2/n (1/n in the last layer), n the terms of a sum (He, Zhang, Ren, Sun, ICCV
    2015); biases are 0.

    Examples
    --------
    >>> net = mlp((1, 8, 8), 10, Key(0))
    >>> sum(p.numel() for p in net.parameters())
    150794
    """
    checked_integer("width", width, 1, 1 << 16)
    checked_integer("depth", depth, 1, 64)
    widths = [math.prod(inputs), *[width] * (depth - 1), outputs]
    layers: list[torch.nn.Module] = [torch.nn.Flatten()]
    for i in range(depth):
        layers += [linear(widths[i], widths[i + 1]), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    last = f"{2 * depth - 1}.weight"

    def deviation(name: str, parameter: torch.Tensor) -> float:
        return math.sqrt((1.0 if name == last else 2.0) / fan_in(parameter)) if parameter.ndim == 2 else 0.0

    return fill(network, key, deviation)
