"""Starting weights from a key: normal variates by fpsim's own recipe, not by PyTorch's generator.

Parameter number i of a module, in the order of ``named_parameters``, draws from ``key.fold(i)``; so its weights are the
same in every version of PyTorch, on every device and for every number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from experiments.recipes import gaussian
from fpsim.random_bits import Key

Law = Callable[[str, torch.Tensor], float]


def fill(module: torch.nn.Module, key: Key, deviation: Law) -> torch.nn.Module:
    """Set every parameter to normal variates times ``deviation(name, tensor)``, rounded once to its dtype.

    A deviation of 0 leaves a parameter as it is: biases that are 0, gains that are 1.
    """
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            size = deviation(name, parameter)
            if size:
                out = np.empty((1, parameter.numel(), 1))
                gaussian(key.fold(number), range(1), parameter.numel(), [0], size, out)
                parameter.copy_(torch.from_numpy(out.reshape(parameter.shape)))
    return module


def zeros(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(*shape))


def linear(inputs: int, outputs: int, bias: bool = True) -> torch.nn.Linear:
    """A linear layer of zeros, made without PyTorch's generator."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, bias=bias)
    return _zeroed(layer)


def convolution(inputs: int, outputs: int, size: int, stride: int) -> torch.nn.Conv2d:
    layer = torch.nn.utils.skip_init(torch.nn.Conv2d, inputs, outputs, size, stride=stride, padding=size // 2)
    return _zeroed(layer)


def embedding(count: int, width: int) -> torch.nn.Embedding:
    return torch.nn.Embedding(count, width, _weight=torch.zeros(count, width))


def _zeroed(layer: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


def fan_in(parameter: torch.Tensor) -> int:
    """The number of terms in one sum of a linear layer or convolution."""
    return parameter[0].numel()
