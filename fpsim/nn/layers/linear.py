"""Matrix products and the linear layer."""

from __future__ import annotations

import torch
from torch.nn import functional

from fpsim.nn import products
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.primitives import apply, exact
from fpsim.nn.table import handles


@handles(functional.linear)
def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T by the accumulator, rounded to the format inside a layer, plus b, rounded; stored as activations.

    Axes before the last are one long axis of rows. The gradient g gives x: g W; W: the sum over rows of g x; b: the sum
    of g over rows, each by the accumulator of the backward pass, then rounded.
    """
    if weight.ndim != 2 or not input.ndim or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: input of shape {tuple(input.shape)} and weight of shape {tuple(weight.shape)}; admissible: "
            "[.., k] and [n, k]"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"linear: bias of shape {tuple(bias.shape)}; admissible: {(weight.shape[0],)}")
    shape = (*input.shape[:-1], weight.shape[0])
    if input.ndim != 2:
        input = _as_it_is(call, lambda x: x.reshape(-1, x.shape[-1]), input)
    y = products.matmul(call, input, _as_it_is(call, torch.Tensor.t, weight))
    if bias is not None:
        y = apply(call, INSIDE, "add", y, call.load(bias))
    return call.store(y if len(shape) == 2 else exact(call, INSIDE, lambda y: y.reshape(shape), y))


def _as_it_is(call: Call, function: object, x: Tensor) -> Tensor:
    """What moves the numbers of a tensor, which keeps its role."""
    x = call.use(x)
    return call.tagged(function(x), call.role(x))  # type: ignore[operator]


@handles(
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm, torch.mm, torch.Tensor.mm
)
def matmul(call: Call, input: Tensor, other: Tensor) -> Tensor:
    """The product of matrices, or of stacks of them that broadcast, by the accumulator; stored as activations."""
    if input.ndim < 2 or other.ndim < 2 or input.shape[-1] != other.shape[-2]:
        raise ValueError(
            f"matmul of shapes {tuple(input.shape)} and {tuple(other.shape)}; admissible: [.., m, k] and [.., k, n]"
        )
    return call.store(products.matmul(call, input, other))
