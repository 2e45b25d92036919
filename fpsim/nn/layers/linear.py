"""Matrix products and the linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from fpsim.nn import primitives, products
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.table import handles


@handles(functional.linear)
def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T, rounded, plus b, rounded."""
    weight = primitives.exact(call, call.role(call.use(weight)), torch.Tensor.t, weight)
    y = products.matmul(call, input, weight)
    if bias is not None:
        y = primitives.apply(call, INSIDE, "add", y, call.load(bias))
    return call.store(y)


@handles(
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm, torch.mm, torch.Tensor.mm
)
def matmul(call: Call, input: Tensor, other: Tensor, **unknown: Any) -> Tensor:
    """The product of matrices, or of stacks of them."""
    if unknown or input.ndim < 2 or other.ndim < 2:
        raise ValueError(
            f"matmul of shapes {tuple(input.shape)} and {tuple(other.shape)}; admissible: [.., m, k] and [.., k, n]"
        )
    return call.store(products.matmul(call, input, other))
