"""Numbers that are read in several places by one operation: their gradient is a sum, by the accumulator.

The terms come in the order of the places that read the number, and the sum is rounded to the format of its gradient. A
number that one place reads gets that place's gradient as it is, one that no place reads gets +0. Where sums round
stochastically, all numbers that are read c times are one array of sums, whose key is folded with c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import BACKWARD, WEIGHT, Call


def gathered(call: Call, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function(x)``, differentiable, where the function only moves numbers: it may repeat them, leave them out, and
    put zeros in."""
    x = call.use(x)
    role, number = call.role(x), call.number()  # also where no gradient is recorded: the draws that follow are the same
    if not (x.requires_grad and torch.is_grad_enabled()):
        return call.tagged(function(x), role)
    return call.tagged(_Gathered.apply(call, number, role, function, x), role)


def sum_by_source(call: Call, number: int, g: Tensor, source: Tensor, size: int, role: str) -> Tensor:
    """``[m, d]`` gradients of what m places read -> ``[size, d]``, the gradients of what they read.

    source : ``[m]`` integers in 0..size-1
    """
    order = torch.argsort(source, stable=True)
    counts = torch.bincount(source, minlength=size)
    starts = counts.cumsum(0) - counts
    result = g.new_zeros(size, g.shape[1])
    several = False
    for c in counts.unique().tolist():
        if c == 0:
            continue
        which = (counts == c).nonzero()[:, 0]
        terms = g[order[starts[which] + torch.arange(c, device=g.device)[:, None]]]
        if c > 1:
            several = True
            key = call.key(number, BACKWARD)
            terms = call.arithmetic.sum(terms, (0,), call.precision.backward_sums, key.fold(c) if key else None)
        result[which] = terms[0]
    if several or role == WEIGHT:
        result = call.arithmetic.operation("round", (result,), call.gradient_slot(role), call.key(number, BACKWARD + 1))
    return result


class _Gathered(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, call: Call, number: int, role: str, function: Callable[[Tensor], Tensor], x: Tensor
    ) -> Tensor:
        ctx.call, ctx.number, ctx.role, ctx.shape = call, number, role, x.shape
        # The same function tells where each number comes from: 1, 2, .. for the numbers of x, 0 for zeros put in.
        places = torch.arange(1.0, x.numel() + 1.0, dtype=torch.float64, device=x.device).reshape(x.shape)
        ctx.source = function(places).long() - 1
        y = function(x.detach())
        return y.view_as(y)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        read = ctx.source >= 0
        size = ctx.shape.numel()
        found = sum_by_source(ctx.call, ctx.number, g[read][:, None], ctx.source[read], size, ctx.role)
        return None, None, None, None, found.reshape(ctx.shape)
