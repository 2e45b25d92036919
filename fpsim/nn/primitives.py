"""The differentiable operations that layers are made of: each rounded, and its derivative a few rounded operations.

``where`` says in which formats: ``INSIDE`` a layer, or ``ACTIVATION`` for operations that ``forward`` itself names. The
derivative of an operand that was broadcast is summed by the accumulator of the backward pass. Constants are numbers
rounded to nearest even to the operation's format.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fpsim import exact as specification
from fpsim.accumulator import Accumulator
from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, BACKWARD, INSIDE, Call, convert
from fpsim.nn.roles import Slot
from fpsim.number_format import Format


class Rounded:
    """The rounded operations of one operation, forward or backward: ``r(kind, *operands)``, ``r.sum(x, axes)``.

    Every rounding has random bits of its own. ``kept``: what the forward pass leaves for the backward pass.
    """

    def __init__(self, call: Call, number: int, part: int, slot: Slot, sums: Accumulator) -> None:
        self.call, self.slot = call, slot
        self.kept: tuple[Tensor, ...] = ()
        self._number, self._part, self._end, self._sums = number, part, part + BACKWARD, sums

    def __call__(self, kind: str, *operands: Tensor | float, slot: Slot | None = None) -> Tensor:
        like = next(x for x in operands if isinstance(x, torch.Tensor))
        given = [x if isinstance(x, torch.Tensor) else constant(x, like, self.slot[0]) for x in operands]
        return self.call.arithmetic.operation(kind, given, slot or self.slot, self._key())

    def sum(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The sum over ``axes``, which stay with length 1: by the accumulator, then rounded."""
        return self("round", self.accumulated(x, tuple(axes)))

    def accumulated(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The sum over ``axes`` in the accumulator's format."""
        return self.call.arithmetic.sum(x, axes, self._sums, self._key())

    def unbroadcast(self, g: Tensor, shape: torch.Size) -> Tensor:
        """g summed, in the accumulator's format, over the axes along which an operand of ``shape`` was broadcast."""
        new = g.ndim - len(shape)
        axes = tuple(range(new)) + tuple(new + i for i, n in enumerate(shape) if n == 1 and g.shape[new + i] != 1)
        return (self.accumulated(g, axes) if axes else g).reshape(shape)

    def _key(self) -> Any:
        if self._part == self._end:
            raise RuntimeError(f"more than {BACKWARD} roundings in one operation")
        self._part += 1
        return self.call.key(self._number, self._part - 1)


@dataclass(frozen=True, eq=False)
class Rule:
    """An operation and its derivative, in rounded operations.

    Parameters
    ----------
    forward : (r, *operands) -> result, where r is a ``Rounded``; operands are detached tensors
    backward : for each operand (r, gradient, operands, result) -> its gradient, of the shape of the result or its own
    """

    forward: Callable[..., Tensor]
    backward: tuple[Callable[[Rounded, Tensor, Sequence[Tensor], Tensor], Tensor], ...]


def _one(kind: str, *backward: Any) -> Rule:
    return Rule(lambda r, *x: r(kind, *x), backward)


def _erf(r: Rounded, g: Tensor, x: Sequence[Tensor], y: Tensor) -> Tensor:
    return r("mul", g, r("mul", r("exp", -r("mul", x[0], x[0])), 2.0 / math.sqrt(math.pi)))


RULES: dict[str, Rule] = {
    "add": _one("add", lambda r, g, x, y: g, lambda r, g, x, y: g),
    "sub": _one("sub", lambda r, g, x, y: g, lambda r, g, x, y: -g),
    "mul": _one("mul", lambda r, g, x, y: r("mul", g, x[1]), lambda r, g, x, y: r("mul", g, x[0])),
    "div": _one("div", lambda r, g, x, y: r("div", g, x[1]), lambda r, g, x, y: -r("div", r("mul", g, y), x[1])),
    "square": Rule(lambda r, x: r("mul", x, x), (lambda r, g, x, y: r("mul", r("mul", g, x[0]), 2.0),)),
    "sqrt": _one("sqrt", lambda r, g, x, y: r("div", r("mul", g, 0.5), y)),
    "rsqrt": _one("rsqrt", lambda r, g, x, y: r("mul", r("mul", g, r("mul", r("mul", y, y), y)), -0.5)),
    "exp": _one("exp", lambda r, g, x, y: r("mul", g, y)),
    "expm1": _one("expm1", lambda r, g, x, y: r("mul", g, r("add", y, 1.0))),
    "log": _one("log", lambda r, g, x, y: r("div", g, x[0])),
    "log1p": _one("log1p", lambda r, g, x, y: r("div", g, r("add", x[0], 1.0))),
    "tanh": _one("tanh", lambda r, g, x, y: r("mul", g, r("sub", 1.0, r("mul", y, y)))),
    "sigmoid": _one("sigmoid", lambda r, g, x, y: r("mul", g, r("mul", y, r("sub", 1.0, y)))),
    "sin": _one("sin", lambda r, g, x, y: r("mul", g, r("cos", x[0]))),
    "cos": _one("cos", lambda r, g, x, y: -r("mul", g, r("sin", x[0]))),
    "erf": _one("erf", _erf),
}


def apply(call: Call, where: str, rule: str | Rule, *operands: Tensor | float) -> Tensor:
    """One operation in rounded arithmetic, differentiable.

    Parameters
    ----------
    rule : Rule, or a name in ``RULES``
    operands : tensors and numbers; they broadcast. Tensors of integers or truth values count as constants

    Examples
    --------
    >>> from fpsim.nn.arithmetic import Fast
    >>> from fpsim.nn.roles import NetworkPrecision
    >>> call = Call(NetworkPrecision.uniform("bfloat16"), Fast(), None, 0)
    >>> apply(call, INSIDE, "add", torch.tensor([1.0]), 2.0**-8).tolist()
    [1.0]
    """
    slot = forward_slot(call, where)
    tensors = [x for x in operands if isinstance(x, torch.Tensor) and x.is_floating_point()]
    like = next((x for x in tensors if x.ndim), tensors[0])
    given = [_read(call, x, like, slot) for x in operands]
    roles = [call.role(x) for x in given]
    rule = RULES[rule] if isinstance(rule, str) else rule
    return call.tagged(_Primitive.apply(call, call.number(), where, rule, roles, *given), where)


def _read(call: Call, x: Tensor | float, like: Tensor, slot: Slot) -> Tensor:
    if not isinstance(x, torch.Tensor):
        return constant(x, like, slot[0])
    if x.is_complex():
        raise ValueError(f"an operand of {x.dtype}; admissible: real numbers")
    if not x.is_floating_point():
        return call.arithmetic.operation("round", (x.to(like.dtype),), (slot[0], "nearest_even"), None)
    x = call.use(x)
    if x.dtype != like.dtype or x.device != like.device:
        if x.ndim or x.requires_grad:
            raise ValueError(
                f"operands of {like.dtype} on {like.device} and of {x.dtype} on {x.device}; admissible: one dtype, one "
                "device"
            )
        return x.to(like)
    return x


def forward_slot(call: Call, where: str) -> Slot:
    return call.precision.inside if where == INSIDE else call.precision.activations


def backward_slot(call: Call, where: str) -> Slot:
    return call.gradient_slot(where)


def total(call: Call, where: str, x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """The sum over ``axes`` by the accumulator, then rounded to the operation's format; differentiable."""
    axes = tuple(sorted(axis % x.ndim for axis in axes))
    kept = [n for axis, n in enumerate(x.shape) if axis not in axes]

    def forward(r: Rounded, x: Tensor) -> Tensor:
        y = r.sum(x, axes)
        return y if keepdim else y.reshape(kept)

    def backward(r: Rounded, g: Tensor, x: Sequence[Tensor], y: Tensor) -> Tensor:
        shape = [1 if axis in axes else n for axis, n in enumerate(x[0].shape)]
        return g.reshape(shape).expand(x[0].shape)

    return apply(call, where, Rule(forward, (backward,)), x)


def exact(call: Call, where: str, function: Callable[..., Tensor], *operands: Any) -> Tensor:
    """What needs no rounding, forward or backward: PyTorch's own function.

    An operand of another role, such as a weight in an operation of activations, is rounded to the formats of ``where``
    before, and its gradient to its role's format after.
    """
    given = []
    for x in operands:
        x = call.use(x)
        if isinstance(x, torch.Tensor) and x.is_floating_point() and call.role(x) != where:
            role = call.role(x)
            here, there = (forward_slot(call, where), backward_slot(call, where)), call.slots(role)
            if here[0][0] != there[0][0] or here[1][0] != there[1][0]:
                x = convert(call, x, here[0], there[1])
        given.append(x)
    return call.tagged(function(*given), where)


def constant(number: float, like: Tensor, fmt: Format) -> Tensor:
    """A number, rounded to nearest even, as a tensor without axes."""
    return torch.tensor(_rounded(float(number), math.copysign(1.0, number), fmt), dtype=like.dtype, device=like.device)


@functools.lru_cache(maxsize=4096)
def _rounded(number: float, sign: float, fmt: Format) -> float:
    return specification.operation("round", (number,), fmt, "nearest_even")


class _Primitive(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, call: Call, number: int, where: str, rule: Rule, roles: list[str], *operands: Tensor
    ) -> Tensor:
        r = Rounded(call, number, 0, forward_slot(call, where), call.precision.sums)
        y = rule.forward(r, *(x.detach() for x in operands))
        ctx.call, ctx.number, ctx.where, ctx.rule, ctx.roles = call, number, where, rule, roles
        ctx.save_for_backward(y, *operands, *r.kept)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        y, *saved = ctx.saved_tensors
        call, count = ctx.call, len(ctx.roles)
        r = Rounded(call, ctx.number, BACKWARD, backward_slot(call, ctx.where), call.precision.backward_sums)
        operands, r.kept = saved[:count], tuple(saved[count:])
        found: list[Tensor | None] = []
        for i, (x, role) in enumerate(zip(operands, ctx.roles, strict=True)):
            if not ctx.needs_input_grad[5 + i]:
                found.append(None)
                continue
            gradient = ctx.rule.backward[i](r, g, operands, y)
            slot, summed = call.gradient_slot(role), gradient.shape != x.shape
            if summed:
                gradient = r.unbroadcast(gradient, x.shape)
            found.append(r("round", gradient, slot=slot) if summed or slot != r.slot else gradient)
        return None, None, None, None, None, *found


__all__ = ["ACTIVATION", "INSIDE", "RULES", "Rounded", "Rule", "apply", "constant", "exact", "total"]
