"""Layers that centre and scale: inputs are loaded into the format inside a layer, the result is stored as activations.

Each operation in a line is rounded, in the order of its parentheses; sums are those of the accumulator, rounded; n is
the number of terms and eps the number given, both rounded to the format inside.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.layers.arithmetic import terms
from fpsim.nn.primitives import Rounded, Rule, apply, exact
from fpsim.nn.table import handles


@functools.lru_cache(maxsize=256)
def centred_rule(axes: tuple[int, ...], n: float, eps: float) -> Rule:
    """c (1 / root) of ``layer_norm``; the mean, the variance and 1 / root are kept."""

    def forward(r: Rounded, x: Tensor) -> Tensor:
        mean = r("div", r.sum(x, axes), n)
        c = r("sub", x, mean)
        variance = r("div", r.sum(r("mul", c, c), axes), n)
        scale = r("rsqrt", r("add", variance, eps))
        r.kept = (scale, mean, variance)
        return r("mul", c, scale)

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        centred = r("sub", g, r("div", r.sum(g, axes), n))
        along = r("mul", y, r("div", r.sum(r("mul", g, y), axes), n))
        return r("mul", r("sub", centred, along), r.kept[0])

    return Rule(forward, (backward,))


@functools.lru_cache(maxsize=256)
def root_mean_square_rule(axes: tuple[int, ...], n: float, eps: float) -> Rule:
    """x (1 / root) of ``rms_norm``."""

    def forward(r: Rounded, x: Tensor) -> Tensor:
        scale = r("rsqrt", r("add", r("div", r.sum(r("mul", x, x), axes), n), eps))
        r.kept = (scale,)
        return r("mul", x, scale)

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        along = r("mul", y, r("div", r.sum(r("mul", g, y), axes), n))
        return r("mul", r("sub", g, along), r.kept[0])

    return Rule(forward, (backward,))


@handles(functional.layer_norm, torch.layer_norm)
def layer_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(c (1 / root)) weight + bias: c = x - sum(x) / n, 1 / root = rsqrt(sum(c c) / n + eps).

    The gradient g of c (1 / root) = y gives x ((g - sum(g) / n) - y (sum(g y) / n)) (1 / root).
    """
    axes = _last_axes("layer_norm", input, normalized_shape)
    _check_shapes("layer_norm", input.shape[axes[0] :], weight=weight, bias=bias)
    rule = centred_rule(axes, terms(input, axes), float(eps))
    return call.store(_affine(call, apply(call, INSIDE, rule, call.load(input)), weight, bias))


@handles(functional.rms_norm, torch.rms_norm)
def rms_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """(x (1 / root)) weight: 1 / root = rsqrt(sum(x x) / n + eps); eps=None is the epsilon of the tensor's dtype.

    The gradient g of x (1 / root) = y gives x (g - y (sum(g y) / n)) (1 / root).
    """
    axes = _last_axes("rms_norm", input, normalized_shape)
    _check_shapes("rms_norm", input.shape[axes[0] :], weight=weight)
    eps = torch.finfo(input.dtype).eps if eps is None else float(eps)
    rule = root_mean_square_rule(axes, terms(input, axes), eps)
    return call.store(_affine(call, apply(call, INSIDE, rule, call.load(input)), weight, None))


@handles(functional.group_norm)
def group_norm(
    call: Call, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``layer_norm`` over each group of channels, and all that follows them; weight and bias are per channel."""
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups or not input.numel():
        raise ValueError(
            f"group_norm: num_groups={num_groups} for shape {tuple(input.shape)}; admissible: [n, channels, ..], of "
            "channels that the groups divide"
        )
    grouped = (input.shape[0], num_groups, input.shape[1] // num_groups, *input.shape[2:])
    axes = tuple(range(2, len(grouped)))
    x = exact(call, INSIDE, lambda x: x.reshape(grouped), call.load(input))
    y = apply(call, INSIDE, centred_rule(axes, terms(x, axes), float(eps)), x)
    y = exact(call, INSIDE, lambda y: y.reshape(input.shape), y)
    return call.store(_affine(call, y, _per_channel(call, input, weight), _per_channel(call, input, bias)))


@handles(functional.batch_norm)
def batch_norm(
    call: Call, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Training: ``layer_norm`` over all axes but the channels'; running statistics are activations and are updated as
    old (1 - momentum) + new momentum, the new variance being (variance n) / (n - 1).

    Evaluation: ((x - mean) rsqrt(var + eps)) weight + bias, of the running statistics rounded to activations.
    """
    if input.ndim < 2 or not input.numel():
        raise ValueError(f"batch_norm: shape {tuple(input.shape)}; admissible: [n, channels, ..] that has elements")
    axes = tuple(axis for axis in range(input.ndim) if axis != 1)
    n = terms(input, axes)
    x = call.load(input)
    if training:
        if n == 1.0:
            raise ValueError(f"batch_norm: shape {tuple(input.shape)}; admissible: more than one number per channel")
        statistics: list[Tensor] = []
        y = apply(call, INSIDE, _noting(centred_rule(axes, n, float(eps)), statistics), x)
        if running_mean is not None and running_var is not None:
            _follow(call, (running_mean, running_var), statistics, n, momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("batch_norm: running_mean or running_var is None; admissible: tensors, unless training")
    else:
        mean, variance = (call.load(_per_channel(call, input, s)) for s in (running_mean, running_var))
        scale = apply(call, INSIDE, "rsqrt", apply(call, INSIDE, "add", variance, float(eps)))
        y = apply(call, INSIDE, "mul", apply(call, INSIDE, "sub", x, mean), scale)
    return call.store(_affine(call, y, _per_channel(call, input, weight), _per_channel(call, input, bias)))


def _noting(rule: Rule, statistics: list[Tensor]) -> Rule:
    """The rule, which also leaves the mean and the variance."""

    def forward(r: Rounded, x: Tensor) -> Tensor:
        y = rule.forward(r, x)
        statistics.extend(r.kept[1:])
        return y

    return Rule(forward, rule.backward)


def _follow(
    call: Call, running: tuple[Tensor, Tensor], statistics: list[Tensor], n: float, momentum: float | None
) -> None:
    if momentum is None:
        raise ValueError("batch_norm: momentum=None; admissible: a number from 0 to 1")
    for which, (old, new) in enumerate(zip(running, statistics, strict=True)):
        sums, slot = call.precision.sums, call.precision.activations
        r = Rounded(call, call.number(), 0, slot, sums)
        new = new.reshape(old.shape)
        if which == 1:
            new = r("div", r("mul", new, n), n - 1.0)
        kept = r("mul", r("round", old.detach()), 1.0 - momentum)
        old.copy_(r("add", kept, r("mul", new, momentum)))


def _affine(call: Call, y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        y = apply(call, INSIDE, "mul", y, call.load(weight))
    return y if bias is None else apply(call, INSIDE, "add", y, call.load(bias))


def _per_channel(call: Call, input: Tensor, x: Tensor | None) -> Any:
    """A vector over channels, as it lies along axis 1 of the input."""
    if x is None:
        return None
    _check_shapes("a norm of channels", input.shape[1:2], weight_or_statistic=x)
    shape = (-1, *[1] * (input.ndim - 2))
    return exact(call, call.role(call.use(x)), lambda x: x.reshape(shape), x)


def _check_shapes(name: str, shape: torch.Size, **given: Tensor | None) -> None:
    for what, x in given.items():
        if x is not None and x.shape != shape:
            raise ValueError(f"{name}: {what} of shape {tuple(x.shape)}; admissible: {tuple(shape)}")


def _last_axes(name: str, x: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    count = len(shape)
    if not count or tuple(x.shape[-count:]) != tuple(shape) or 0 in shape:
        raise ValueError(
            f"{name}: normalized_shape={tuple(shape)} for shape {tuple(x.shape)}; admissible: its last axes, of more "
            "than 0 elements"
        )
    return tuple(range(x.ndim - count, x.ndim))
