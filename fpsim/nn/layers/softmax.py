"""Softmax."""

from __future__ import annotations

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.primitives import apply, exact, total


def softmax_inside(call: Call, x: Tensor, dim: int) -> Tensor:
    """exp(x - max) over its sum, every operation rounded to the format inside a layer; the sum by the accumulator."""
    largest = exact(call, INSIDE, lambda one: one.detach().amax(dim, keepdim=True), x)
    e = apply(call, INSIDE, "exp", apply(call, INSIDE, "sub", x, largest))
    return apply(call, INSIDE, "div", e, total(call, INSIDE, e, (dim,), True))
