"""Operations that a module's ``forward`` itself names: + - * /, powers, roots, exponentials, sums, means, variances.

Each is one correctly rounded operation in the format of activations unless its line says more. A Python number is
rounded to that format first; tensors broadcast, and the gradient of one that was broadcast is summed by the accumulator
of the backward pass.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, Call
from fpsim.nn.primitives import Rounded, Rule, apply, exact, total
from fpsim.nn.table import Handler, handles, named

Number: TypeAlias = Tensor | float


@handles(*named("add", "__add__", "__radd__"))
def add(call: Call, input: Number, other: Number, alpha: float = 1) -> Tensor:
    """input + alpha * other; an alpha other than 1 is an operation of its own."""
    return apply(call, ACTIVATION, "add", input, _scaled(call, other, alpha))


@handles(*named("sub", "subtract", "__sub__"))
def sub(call: Call, input: Number, other: Number, alpha: float = 1) -> Tensor:
    """input - alpha * other; an alpha other than 1 is an operation of its own."""
    return apply(call, ACTIVATION, "sub", input, _scaled(call, other, alpha))


@handles(*named("__rsub__", "rsub"))
def reversed_sub(call: Call, input: Number, other: Number, alpha: float = 1) -> Tensor:
    return sub(call, other, input, alpha)


@handles(*named("mul", "multiply", "__mul__", "__rmul__"))
def mul(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "mul", input, other)


@handles(*named("div", "divide", "true_divide", "__truediv__"))
def div(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "div", input, other)


@handles(torch.Tensor.__rtruediv__)
def reversed_div(call: Call, input: Number, other: Number) -> Tensor:
    return apply(call, ACTIVATION, "div", other, input)


@handles(*named("reciprocal"))
def reciprocal(call: Call, input: Tensor) -> Tensor:
    return apply(call, ACTIVATION, "div", 1.0, input)


@handles(*named("square"))
def square(call: Call, input: Tensor) -> Tensor:
    """x x; its gradient is (g x) 2."""
    return apply(call, ACTIVATION, "square", input)


@handles(*named("pow", "__pow__"))
def pow(call: Call, input: Tensor, exponent: float) -> Tensor:
    """x^2 is x x, x^3 is (x x) x, x^0.5 and x^-0.5 are roots, x^-1 is 1 / x."""
    powers = {2: square, 3: _cube, 0.5: sqrt, -0.5: rsqrt, -1: reciprocal}
    if not isinstance(exponent, (int, float)) or exponent not in powers or not isinstance(input, torch.Tensor):
        raise ValueError(
            f"pow with exponent={exponent!r}; admissible: a tensor to the power {', '.join(map(str, powers))}"
        )
    return powers[exponent](call, input)


def _cube(call: Call, input: Tensor) -> Tensor:
    return mul(call, square(call, input), input)


def _function(kind: str) -> Handler:
    def function(call: Call, input: Tensor) -> Tensor:
        return apply(call, ACTIVATION, kind, input)

    function.__doc__ = f"{kind}(input), rounded once."
    return function


FUNCTIONS: dict[str, Handler] = {
    kind: _function(kind)
    for kind in ("sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "tanh", "sigmoid", "sin", "cos", "erf")
}
sqrt, rsqrt = FUNCTIONS["sqrt"], FUNCTIONS["rsqrt"]
for _kind, _handler in FUNCTIONS.items():
    handles(*named(_kind))(_handler)


@handles(*named("neg", "negative", "__neg__"))
def neg(call: Call, input: Tensor) -> Tensor:
    """Exact."""
    return exact(call, ACTIVATION, torch.neg, input)


@handles(*named("positive"))
def positive(call: Call, input: Tensor) -> Tensor:
    """The number itself."""
    return exact(call, ACTIVATION, torch.positive, input)


@handles(*named("sum"))
def sum(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """By the accumulator, in C order of the axes that are summed; then rounded."""
    return total(call, ACTIVATION, input, axes_of(input, dim), keepdim)


@handles(*named("mean"))
def mean(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The sum, rounded, over the number of its terms, rounded."""
    axes = axes_of(input, dim)
    return apply(call, ACTIVATION, "div", total(call, ACTIVATION, input, axes, keepdim), terms(input, axes))


@handles(*named("var"))
def var(
    call: Call, input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The sum of squares of (x - mean), over n - correction; its gradient is (g (x - mean)) (2 / (n - correction))."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = axes_of(input, dim)
    n, less = terms(input, axes), float(unbiased) if correction is None else float(correction)
    if not 0 <= less < n:
        raise ValueError(f"var: correction={less} of {n:.0f} terms; admissible: 0 up to, not including, {n:.0f}")
    kept = [length for axis, length in enumerate(input.shape) if axis not in axes]

    def forward(r: Rounded, x: Tensor) -> Tensor:
        centred = r("sub", x, r("div", r.sum(x, axes), n))
        r.kept = (centred,)
        y = r("div", r.sum(r("mul", centred, centred), axes), n - less)
        return y if keepdim else y.reshape(kept)

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        shape = [1 if axis in axes else length for axis, length in enumerate(x[0].shape)]
        return r("mul", r("mul", g.reshape(shape), r.kept[0]), 2.0 / (n - less))

    return apply(call, ACTIVATION, Rule(forward, (backward,)), input)


@handles(*named("std"))
def std(
    call: Call, input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The square root of ``var``."""
    return sqrt(call, var(call, input, dim, unbiased, keepdim, correction=correction))


def axes_of(x: Tensor, dim: Any) -> tuple[int, ...]:
    """The axes that ``dim`` names, each from 0 on.

    Raises
    ------
    ValueError
        An axis that x has not, or the same twice.
    """
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(x.ndim))
    given = (dim,) if isinstance(dim, int) else tuple(dim)
    if x.ndim == 0 and given in ((0,), (-1,)):
        return ()
    axes = tuple(axis + x.ndim if axis < 0 else axis for axis in given)
    if any(not 0 <= axis < x.ndim for axis in axes) or len(set(axes)) < len(axes):
        raise ValueError(f"dim={dim!r} of a tensor of shape {tuple(x.shape)}; admissible: axes {-x.ndim}..{x.ndim - 1}")
    return axes


def terms(x: Tensor, axes: tuple[int, ...]) -> float:
    """The number of terms of a sum over ``axes``."""
    return float(math.prod(x.shape[axis] for axis in axes))


def _scaled(call: Call, x: Number, alpha: float) -> Number:
    return x if alpha == 1 else apply(call, ACTIVATION, "mul", x, alpha) if isinstance(x, torch.Tensor) else x * alpha
