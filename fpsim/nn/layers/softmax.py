"""Softmax and its logarithm: the largest number is subtracted first, so that no exponential overflows."""

from __future__ import annotations

import functools
from typing import Any

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.layers.arithmetic import axes_of
from fpsim.nn.primitives import Rounded, Rule, apply
from fpsim.nn.table import handles, named


@functools.lru_cache(maxsize=64)
def softmax_rule(dim: int) -> Rule:
    def forward(r: Rounded, x: Tensor) -> Tensor:
        e = r("exp", r("sub", x, x.amax(dim, keepdim=True)))
        return r("div", e, r.sum(e, (dim,)))

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        return r("mul", y, r("sub", g, r.sum(r("mul", g, y), (dim,))))

    return Rule(forward, (backward,))


@functools.lru_cache(maxsize=64)
def log_softmax_rule(dim: int) -> Rule:
    def forward(r: Rounded, x: Tensor) -> Tensor:
        d = r("sub", x, x.amax(dim, keepdim=True))
        return r("sub", d, r("log", r.sum(r("exp", d), (dim,))))

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        return r("sub", g, r("mul", r("exp", y), r.sum(g, (dim,))))

    return Rule(forward, (backward,))


def softmax_inside(call: Call, x: Tensor, dim: int | None, dtype: None = None) -> Tensor:
    """softmax of numbers inside a layer."""
    return apply(call, INSIDE, softmax_rule(_axis(x, dim, dtype)), x)


@handles(*named("softmax"))
def softmax(call: Call, input: Tensor, dim: int | None = None, dtype: None = None, *, _stacklevel: int = 3) -> Tensor:
    """e / s with e = exp(x - max), s = sum(e); the gradient y (g - sum(g y)).

    Loaded into the format inside a layer, stored as activations; the sums are those of the accumulator, rounded.
    """
    return call.store(softmax_inside(call, call.load(input), dim, dtype))


@handles(*named("log_softmax"))
def log_softmax(
    call: Call, input: Tensor, dim: int | None = None, dtype: None = None, *, _stacklevel: int = 3
) -> Tensor:
    """d - log(sum(exp(d))) with d = x - max; the gradient g - exp(y) sum(g).

    Loaded into the format inside a layer, stored as activations; the sums are those of the accumulator, rounded.
    """
    return call.store(apply(call, INSIDE, log_softmax_rule(_axis(input, dim, dtype)), call.load(input)))


def _axis(x: Tensor, dim: int | None, dtype: None = None) -> int:
    if dtype is not None:
        raise ValueError(f"softmax: dtype={dtype!r} is not emulated; admissible: None")
    if not isinstance(dim, int):
        raise ValueError(f"softmax: dim={dim!r}; admissible: one axis of {-x.ndim}..{x.ndim - 1}")
    if not x.numel():
        raise ValueError(f"softmax of a tensor of shape {tuple(x.shape)}; admissible: one that has elements")
    return axes_of(x, dim)[0]
