"""A small convolutional network: three convolutions of 3 x 3 with ReLU, two of them of stride 2, and a linear layer."""

from __future__ import annotations

import math

import torch

from experiments.networks.initial import convolution, fan_in, fill, linear
from experiments.problems.base import checked_integer
from fpsim.random_bits import Key


def cnn(inputs: tuple[int, ...], outputs: int, key: Key, *, width: int = 8) -> torch.nn.Module:
    """``width``, 2 ``width`` and 4 ``width`` channels; strides take the place of pooling.

    Weights are normal with variance 2/n (1/n in the last layer), n the terms of a sum; biases are 0.

    Examples
    --------
    >>> cnn((1, 8, 8), 10, Key(0))(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    checked_integer("width", width, 1, 1024)
    if len(inputs) != 3:
        raise ValueError(f"cnn: samples of shape {inputs}; admissible: images [channels, rows, columns]")
    channels, rows, columns = inputs
    sizes = [channels, width, 2 * width, 4 * width]
    layers: list[torch.nn.Module] = []
    for i, stride in enumerate((1, 2, 2)):
        layers += [convolution(sizes[i], sizes[i + 1], 3, stride), torch.nn.ReLU()]
    left = 4 * width * -(-rows // 4) * -(-columns // 4)
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(), linear(left, outputs))

    def deviation(name: str, parameter: torch.Tensor) -> float:
        if parameter.ndim == 1:
            return 0.0
        return math.sqrt((2.0 if parameter.ndim == 4 else 1.0) / fan_in(parameter))

    return fill(network, key, deviation)
