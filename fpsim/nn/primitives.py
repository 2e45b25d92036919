"""The differentiable operations that layers are made of: each rounded, and its derivative a few rounded operations.

``where`` says in which formats: ``INSIDE`` a layer, or ``ACTIVATION`` for operations that ``forward`` itself names. The
derivative of an operand that was broadcast is summed by the accumulator of the backward pass. Constants are numbers
rounded to nearest even to the operation's format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, INSIDE, WEIGHT, Call
from fpsim.nn.roles import Slot


class _Backward:
    """The rounded operations of one derivative."""

    def __init__(self, call: Call, number: int, slot: Slot) -> None:
        self.call, self.number_of, self.slot, self._part = call, number, slot, 7

    def __call__(self, kind: str, *operands: Tensor | float, slot: Slot | None = None) -> Tensor:
        self._part += 1
        like = next(x for x in operands if isinstance(x, torch.Tensor))
        given = [x if isinstance(x, torch.Tensor) else _constant(self.call, x, like, self.slot) for x in operands]
        key = self.call.key(self.number_of, self._part)
        return self.call.arithmetic.operation(kind, given, slot or self.slot, key)

    def summed(self, g: Tensor, shape: torch.Size) -> Tensor:
        """g summed over the axes along which an operand of ``shape`` was broadcast."""
        new = g.ndim - len(shape)
        axes = tuple(range(new)) + tuple(new + i for i, n in enumerate(shape) if n == 1 and g.shape[new + i] != 1)
        if axes:
            self._part += 1
            key = self.call.key(self.number_of, self._part)
            g = self.call.arithmetic.sum(g, axes, self.call.precision.backward_sums, key)
        return g.reshape(shape)


# kind -> (rounded operations r, gradient, operands, result) -> gradients of the operands, before sums of broadcasts
_Rule = Callable[[_Backward, Tensor, Sequence[Tensor], Tensor], tuple[Tensor, ...]]


def _div(r: _Backward, g: Tensor, x: Sequence[Tensor], y: Tensor) -> tuple[Tensor, ...]:
    return r("div", g, x[1]), -r("div", r("mul", g, y), x[1])


def _rsqrt(r: _Backward, g: Tensor, x: Sequence[Tensor], y: Tensor) -> tuple[Tensor, ...]:
    return (r("mul", r("mul", g, r("mul", r("mul", y, y), y)), -0.5),)


def _erf(r: _Backward, g: Tensor, x: Sequence[Tensor], y: Tensor) -> tuple[Tensor, ...]:
    two_over_root_pi = 1.1283791670955126
    return (r("mul", g, r("mul", r("exp", -r("mul", x[0], x[0])), two_over_root_pi)),)


RULES: dict[str, _Rule] = {
    "add": lambda r, g, x, y: (g, g),
    "sub": lambda r, g, x, y: (g, -g),
    "mul": lambda r, g, x, y: (r("mul", g, x[1]), r("mul", g, x[0])),
    "div": _div,
    "sqrt": lambda r, g, x, y: (r("div", r("mul", g, 0.5), y),),
    "rsqrt": _rsqrt,
    "exp": lambda r, g, x, y: (r("mul", g, y),),
    "log": lambda r, g, x, y: (r("div", g, x[0]),),
    "tanh": lambda r, g, x, y: (r("mul", g, r("sub", 1.0, r("mul", y, y))),),
    "sigmoid": lambda r, g, x, y: (r("mul", g, r("mul", y, r("sub", 1.0, y))),),
    "sin": lambda r, g, x, y: (r("mul", g, r("cos", x[0])),),
    "cos": lambda r, g, x, y: (-r("mul", g, r("sin", x[0])),),
    "erf": _erf,
}


def apply(call: Call, where: str, kind: str, *operands: Tensor | float) -> Tensor:
    """One rounded operation, differentiable.

    Parameters
    ----------
    kind : a name in ``RULES``
    operands : tensors and numbers; they broadcast

    Examples
    --------
    >>> from fpsim.nn.arithmetic import Fast
    >>> from fpsim.nn.roles import NetworkPrecision
    >>> call = Call(NetworkPrecision.uniform("bfloat16"), Fast(), None, 0)
    >>> apply(call, INSIDE, "add", torch.tensor([1.0]), 2.0**-8).tolist()
    [1.0]
    """
    slot = forward_slot(call, where)
    like = next(x for x in operands if isinstance(x, torch.Tensor))
    given = [call.use(x) if isinstance(x, torch.Tensor) else _constant(call, x, like, slot) for x in operands]
    roles = [call.role(x) for x in given]
    return call.tagged(_Primitive.apply(call, call.number(), where, kind, roles, *given), where)


def forward_slot(call: Call, where: str) -> Slot:
    return call.precision.inside if where == INSIDE else call.precision.activations


def backward_slot(call: Call, where: str) -> Slot:
    return call.gradient_slot(where)


def total(call: Call, where: str, x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """The sum over ``axes`` by the accumulator, then rounded to the operation's format; differentiable."""
    axes = tuple(sorted(axis % x.ndim for axis in axes))
    return call.tagged(_Total.apply(call, call.number(), where, axes, keepdim, call.use(x)), where)


def exact(call: Call, where: str, function: Callable[..., Tensor], *operands: Any) -> Tensor:
    """What needs no rounding, forward or backward: PyTorch's own function."""
    return call.tagged(function(*(call.use(x) for x in operands)), where)


def _constant(call: Call, number: float, like: Tensor, slot: Slot) -> Tensor:
    x = torch.tensor(float(number), dtype=torch.float64)
    rounded = call.arithmetic.operation("round", (x,), (slot[0], "nearest_even"), None)
    return rounded.to(like)


class _Primitive(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, call: Call, number: int, where: str, kind: str, roles: list[str], *operands: Tensor
    ) -> Tensor:
        given = [x.detach() for x in operands]
        y = call.arithmetic.operation(kind, given, forward_slot(call, where), call.key(number, 0))
        ctx.call, ctx.number, ctx.where, ctx.kind, ctx.roles = call, number, where, kind, roles
        ctx.save_for_backward(*operands, y)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        *operands, y = ctx.saved_tensors
        r = _Backward(ctx.call, ctx.number, backward_slot(ctx.call, ctx.where))
        found: list[Tensor | None] = []
        raw = RULES[ctx.kind](r, g, operands, y)
        for x, gradient, role, needed in zip(operands, raw, ctx.roles, ctx.needs_input_grad[5:], strict=True):
            if not needed:
                found.append(None)
                continue
            summed = gradient.shape != x.shape
            gradient = r.summed(gradient, x.shape)
            wanted = ctx.call.gradient_slot(role)
            if summed or wanted != r.slot or role == WEIGHT:
                gradient = r("round", gradient, slot=wanted)
            found.append(gradient)
        return None, None, None, None, None, *found


class _Total(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, call: Call, number: int, where: str, axes: tuple[int, ...], keepdim: bool, x: Tensor
    ) -> Tensor:
        y = call.arithmetic.sum(x.detach(), axes, call.precision.sums, call.key(number, 0))
        y = call.arithmetic.operation("round", (y,), forward_slot(call, where), call.key(number, 1))
        ctx.shape, ctx.kept = x.shape, y.shape
        return y if keepdim else y.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return None, None, None, None, None, g.reshape(ctx.kept).expand(ctx.shape)


__all__ = ["ACTIVATION", "INSIDE", "RULES", "apply", "exact", "total"]
