"""Losses: logits are loaded into the format inside a layer, terms computed and reduced there, the result stored.

``reduction``: "none", "sum" by the accumulator in C order, or "mean": that sum, rounded, over the number of its terms,
rounded. A target of numbers is rounded to activations. Weights of classes or of terms are refused.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn import functional

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import INSIDE, Call
from fpsim.nn.layers.softmax import log_softmax_rule
from fpsim.nn.primitives import Rounded, Rule, apply, exact, total
from fpsim.nn.table import handles

REDUCTIONS = ("none", "mean", "sum")


@handles(functional.cross_entropy)
def cross_entropy(
    call: Call, input: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-l[target], l = log_softmax(x) over axis 1 (0 of a vector); terms of ``ignore_index`` are 0 and not counted.

    With smoothing s of c classes a term is (-l[target]) (1 - s) + (-sum(l)) (s / c). The gradient of a mean without
    smoothing is composed of 1 / n, of which the place of the target gets g = -(1 / n), and g - exp(l) sum(g): the
    difference of softmax and target, over n.
    """
    _check("cross_entropy", reduction, ("label_smoothing", label_smoothing))
    axis = _check_classes("cross_entropy", input, target, ignore_index)
    logs = apply(call, INSIDE, log_softmax_rule(axis), call.load(input))
    each = _picked(call, logs, target, ignore_index, axis)
    if label_smoothing:
        ignored = target == ignore_index
        spread = total(call, INSIDE, logs, (axis,), False)
        spread = exact(call, INSIDE, lambda x: torch.where(ignored, 0.0, -x), spread)
        each = apply(call, INSIDE, "mul", each, 1.0 - label_smoothing)
        each = apply(call, INSIDE, "add", each, apply(call, INSIDE, "mul", spread, label_smoothing / input.shape[axis]))
    return _reduced(call, each, reduction, float((target != ignore_index).sum()))


@handles(functional.nll_loss)
def nll_loss(call: Call, input: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """-x[target]; terms of ``ignore_index`` are 0 and not counted."""
    _check("nll_loss", reduction)
    axis = _check_classes("nll_loss", input, target, ignore_index)
    each = _picked(call, call.load(input), target, ignore_index, axis)
    return _reduced(call, each, reduction, float((target != ignore_index).sum()))


@handles(functional.mse_loss)
def mse_loss(call: Call, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """d d with d = x - target; the gradient of d is (g d) 2."""
    d = _difference(call, "mse_loss", input, target, reduction)
    return _reduced(call, apply(call, INSIDE, "square", d), reduction)


@handles(functional.l1_loss)
def l1_loss(call: Call, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|d| with d = x - target."""
    d = _difference(call, "l1_loss", input, target, reduction)
    return _reduced(call, exact(call, INSIDE, torch.abs, d), reduction)


@handles(functional.huber_loss)
def huber_loss(call: Call, input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """(d d) 0.5 up to |d| = delta, then (|d| - delta / 2) delta; d = x - target. The gradient of d is g d, or
    +-(g delta)."""
    _check("huber_loss", reduction, ("delta", delta))
    d = _difference(call, "huber_loss", input, target, reduction)
    return _reduced(call, apply(call, INSIDE, _huber(float(delta)), d), reduction)


@functools.lru_cache(maxsize=64)
def _huber(delta: float) -> Rule:
    def forward(r: Rounded, d: Tensor) -> Tensor:
        size = d.abs()
        beyond = r("mul", r("sub", size, 0.5 * delta), delta)
        return torch.where(size <= delta, r("mul", r("mul", d, d), 0.5), beyond)

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        (d,) = x
        return torch.where(d.abs() <= delta, r("mul", g, d), r("mul", g, delta) * d.sign())

    return Rule(forward, (backward,))


def _logits(r: Rounded, x: Tensor, t: Tensor) -> Tensor:
    return r("add", r("sub", x.clamp(min=0.0), r("mul", x, t)), r("log1p", r("exp", -x.abs())))


LOGITS = Rule(
    _logits,
    (
        lambda r, g, x, y: r("mul", g, r("sub", r("sigmoid", x[0]), x[1])),
        lambda r, g, x, y: -r("mul", g, x[0]),
    ),
)


@handles(functional.binary_cross_entropy_with_logits)
def binary_cross_entropy_with_logits(call: Call, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(max(x, 0) - x t) + log1p(exp(-|x|)); the gradient g (sigmoid(x) - t)."""
    _check("binary_cross_entropy_with_logits", reduction)
    _check_same("binary_cross_entropy_with_logits", input, target)
    return _reduced(call, apply(call, INSIDE, LOGITS, call.load(input), call.load(target)), reduction)


def _difference(call: Call, name: str, input: Tensor, target: Tensor, reduction: str) -> Tensor:
    _check(name, reduction)
    _check_same(name, input, target)
    return apply(call, INSIDE, "sub", call.load(input), call.load(target))


def _picked(call: Call, logs: Tensor, target: Tensor, ignore_index: int, axis: int) -> Tensor:
    """Minus the numbers of the targets' classes, 0 where a target is ignored."""
    ignored = target == ignore_index
    places = torch.where(ignored, 0, target).unsqueeze(axis)

    def pick(x: Tensor) -> Tensor:
        return torch.where(ignored, 0.0, -x.gather(axis, places).squeeze(axis))

    return exact(call, INSIDE, pick, logs)


def _reduced(call: Call, each: Tensor, reduction: str, count: float | None = None) -> Tensor:
    if reduction == "none":
        return call.store(each)
    y = total(call, INSIDE, each, tuple(range(each.ndim)), False) if each.ndim else each
    if reduction == "mean":
        y = apply(call, INSIDE, "div", y, float(each.numel()) if count is None else count)
    return call.store(y)


def _check(name: str, reduction: str, *numbers: tuple[str, float]) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"{name}: reduction={reduction!r}; admissible: {', '.join(map(repr, REDUCTIONS))}")
    for what, number in numbers:
        if what == "label_smoothing" and not 0.0 <= number <= 1.0:
            raise ValueError(f"{name}: label_smoothing={number!r}; admissible: 0 to 1")
        if what == "delta" and not number > 0.0:
            raise ValueError(f"{name}: delta={number!r}; admissible: above 0")


def _check_same(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: input of shape {tuple(input.shape)} and target of shape {tuple(target.shape)}; admissible: equal "
            "shapes"
        )


def _check_classes(name: str, input: Tensor, target: Tensor, ignore_index: int) -> int:
    """The axis of the classes."""
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"{name}: target of dtype {target.dtype}; admissible: torch.int64, indices of classes")
    axis = 1 if input.ndim > 1 else 0
    expected = tuple(input.shape[:axis]) + tuple(input.shape[axis + 1 :])
    if not input.ndim or tuple(target.shape) != expected:
        raise ValueError(
            f"{name}: input of shape {tuple(input.shape)} and target of shape {tuple(target.shape)}; admissible: "
            "[n, classes, ..] and [n, ..], or [classes] and []"
        )
    wrong = target[(target != ignore_index) & ((target < 0) | (target >= input.shape[axis]))]
    if wrong.numel():
        raise ValueError(
            f"{name}: target holds {int(wrong[0])}; admissible: 0..{input.shape[axis] - 1}, {ignore_index}"
        )
    return axis
