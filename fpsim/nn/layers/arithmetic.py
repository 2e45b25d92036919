"""Operations that a module's ``forward`` itself names: + - * /, square roots, exponentials, ReLU, sums."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch.nn import functional

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, Call
from fpsim.nn.primitives import apply, exact, total
from fpsim.nn.table import handles

Number: TypeAlias = Tensor | float


@handles(torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__)
def add(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "add", input, other)


@handles(torch.sub, torch.Tensor.sub, torch.Tensor.__sub__)
def sub(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "sub", input, other)


@handles(torch.Tensor.__rsub__)
def reversed_sub(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "sub", other, input)


@handles(torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__)
def mul(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "mul", input, other)


@handles(torch.div, torch.Tensor.div, torch.Tensor.__truediv__)
def div(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "div", input, other)


@handles(functional.relu, torch.relu, torch.Tensor.relu)
def relu(call: Call, input: Tensor, inplace: bool = False) -> Tensor:
    """Exact: the number, or 0 for what is not above it; NaN stays."""
    y = exact(call, ACTIVATION, lambda x: torch.where(x <= 0.0, 0.0, x), input)
    return call.replace(input, y) if inplace else y


@handles(torch.sum, torch.Tensor.sum)
def sum(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    return total(call, ACTIVATION, input, _axes(input, dim), keepdim)


@handles(torch.mean, torch.Tensor.mean)
def mean(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The sum, rounded, over the number of its terms, rounded."""
    axes = _axes(input, dim)
    count = 1
    for axis in axes:
        count *= input.shape[axis]
    return apply(call, ACTIVATION, "div", total(call, ACTIVATION, input, axes, keepdim), float(count))


def _axes(x: Tensor, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(x.ndim))
    return (dim,) if isinstance(dim, int) else tuple(dim)
