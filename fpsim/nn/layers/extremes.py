"""Absolute values, extremes, bounds and choices.

The numbers are exact; only an operand of another role, such as a weight, is rounded to the format of activations. Of
gradients, the shares that equal numbers have in one gradient are rounded, and sums of broadcasts.
"""

from __future__ import annotations

from typing import Any

import torch

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, Call
from fpsim.nn.layers.arithmetic import Number, axes_of
from fpsim.nn.primitives import Rounded, Rule, apply, constant, exact, forward_slot
from fpsim.nn.table import handles, named


@handles(*named("abs", "absolute", "__abs__"))
def abs(call: Call, input: Tensor) -> Tensor:
    """The gradient at 0 is 0."""
    return exact(call, ACTIVATION, torch.abs, input)


@handles(*named("clamp", "clip"))
def clamp(call: Call, input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """To bounds that are rounded to the format; a number at a bound passes its gradient on."""
    lower, upper = _bound(call, "min", input, min), _bound(call, "max", input, max)
    return exact(call, ACTIVATION, lambda x: torch.clamp(x, lower, upper), input)


@handles(*named("hardtanh"))
def hardtanh(call: Call, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """To bounds that are rounded to the format; a number at a bound passes no gradient on."""
    bounds = [_bound(call, *given) for given in (("min_val", input, min_val), ("max_val", input, max_val))]
    return exact(call, ACTIVATION, lambda x: torch.nn.functional.hardtanh(x, *bounds), input)


@handles(*named("relu6"))
def relu6(call: Call, input: Tensor, inplace: bool = False) -> Tensor:
    return hardtanh(call, input, 0.0, 6.0)


def _bound(call: Call, name: str, input: Tensor, given: float | None) -> float | None:
    if isinstance(given, torch.Tensor):
        raise ValueError(f"clamp: {name} is a tensor; admissible: a number, or torch.maximum and torch.minimum")
    return None if given is None else float(constant(given, input, forward_slot(call, ACTIVATION)[0]))


def _larger(r: Rounded, g: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    """What the operand that won gets of g: all, or half of it where the two are equal."""
    half = r("mul", g, 0.5)
    return torch.where(mine > other, g, torch.where(mine == other, half, 0.0))


_MAXIMUM = Rule(
    lambda r, a, b: r("round", torch.maximum(a, b)),
    (lambda r, g, x, y: _larger(r, g, x[0], x[1]), lambda r, g, x, y: _larger(r, g, x[1], x[0])),
)
_MINIMUM = Rule(
    lambda r, a, b: r("round", torch.minimum(a, b)),
    (lambda r, g, x, y: _larger(r, g, -x[0], -x[1]), lambda r, g, x, y: _larger(r, g, -x[1], -x[0])),
)


@handles(*named("maximum"))
def maximum(call: Call, input: Tensor, other: Tensor) -> Tensor:
    """Of equal numbers, each gets half of the gradient, rounded."""
    return apply(call, ACTIVATION, _MAXIMUM, input, other)


@handles(*named("minimum"))
def minimum(call: Call, input: Tensor, other: Tensor) -> Tensor:
    """Of equal numbers, each gets half of the gradient, rounded."""
    return apply(call, ACTIVATION, _MINIMUM, input, other)


def _extreme(call: Call, name: str, x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]

    def forward(r: Rounded, x: Tensor) -> Tensor:
        return r("round", getattr(torch, name)(x, axes, keepdim))

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        chosen = x[0] == y.reshape(shape)
        count = r("round", chosen.sum(axes, keepdim=True).to(g.dtype), slot=(r.slot[0], "nearest_even"))
        return torch.where(chosen, r("div", g.reshape(shape), count), 0.0)

    return apply(call, ACTIVATION, Rule(forward, (backward,)), x)


@handles(*named("amax"))
def amax(call: Call, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Equal largest numbers share the gradient: g over their number, rounded."""
    return _extreme(call, "amax", input, axes_of(input, dim), keepdim)


@handles(*named("amin"))
def amin(call: Call, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Equal smallest numbers share the gradient: g over their number, rounded."""
    return _extreme(call, "amin", input, axes_of(input, dim), keepdim)


def _along(call: Call, name: str, input: Tensor, dim: int, keepdim: bool) -> Any:
    """Values and their places; the gradient goes to the place that PyTorch names."""
    places: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        found = getattr(torch, name)(x, dim, keepdim)
        places.append(found.indices)
        return found.values

    values = exact(call, ACTIVATION, function, input)
    return getattr(torch.return_types, name)((values, places[0]))


@handles(*named("max"))
def max(
    call: Call, input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, other: Tensor | None = None
) -> Any:
    """``amax``; ``maximum`` of two tensors; along an axis also the places."""
    if isinstance(dim, torch.Tensor) or other is not None:
        return maximum(call, input, dim if other is None else other)
    return amax(call, input) if dim is None else _along(call, "max", input, dim, keepdim)


@handles(*named("min"))
def min(
    call: Call, input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, other: Tensor | None = None
) -> Any:
    """``amin``; ``minimum`` of two tensors; along an axis also the places."""
    if isinstance(dim, torch.Tensor) or other is not None:
        return minimum(call, input, dim if other is None else other)
    return amin(call, input) if dim is None else _along(call, "min", input, dim, keepdim)


@handles(torch.where)
def where(call: Call, condition: Tensor, input: Number, other: Number) -> Tensor:
    """Each operand gets the gradient where it was chosen."""
    rule = Rule(
        lambda r, a, b: r("round", torch.where(condition, a, b)),
        (
            lambda r, g, x, y: torch.where(condition, g, 0.0),
            lambda r, g, x, y: torch.where(condition, 0.0, g),
        ),
    )
    return apply(call, ACTIVATION, rule, input, other)


@handles(torch.Tensor.where)
def chosen(call: Call, input: Tensor, condition: Tensor, other: Number) -> Tensor:
    return where(call, condition, input, other)
