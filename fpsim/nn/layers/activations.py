"""Activation functions: loaded into the format inside a layer, computed as their line says, stored as activations.

Each operation in a line is rounded, in the order of its parentheses. ReLU, ReLU6, hardtanh and the single operations
tanh and sigmoid need no format inside: see ``arithmetic`` and ``extremes``. What calls a handler
does ``inplace``.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch.nn import functional

from fpsim.nn.arithmetic import Tensor
from fpsim.nn.call import ACTIVATION, INSIDE, Call
from fpsim.nn.primitives import Rounded, Rule, apply, exact
from fpsim.nn.table import handles, named


@handles(*named("relu"))
def relu(call: Call, input: Tensor, inplace: bool = False) -> Tensor:
    """Exact: the number, or 0 for what is not above it; NaN stays."""
    return exact(call, ACTIVATION, lambda x: torch.where(x <= 0.0, 0.0, x), input)


def _stored(call: Call, rule: Rule, input: Tensor) -> Tensor:
    return call.store(apply(call, INSIDE, rule, call.load(input)))


@handles(*named("leaky_relu"))
def leaky_relu(call: Call, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x above 0, else slope x; the gradient g, or g slope."""
    return _stored(call, _leaky(float(negative_slope)), input)


@functools.lru_cache(maxsize=64)
def _leaky(slope: float) -> Rule:
    return Rule(
        lambda r, x: torch.where(x > 0.0, x, r("mul", x, slope)),
        (lambda r, g, x, y: torch.where(x[0] > 0.0, g, r("mul", g, slope)),),
    )


def _silu(r: Rounded, x: Tensor) -> Tensor:
    s = r("sigmoid", x)
    r.kept = (s,)
    return r("mul", x, s)


def _silu_back(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
    (s,) = r.kept
    return r("mul", g, r("mul", s, r("add", r("mul", x[0], r("sub", 1.0, s)), 1.0)))


SILU = Rule(_silu, (_silu_back,))


@handles(*named("silu"))
def silu(call: Call, input: Tensor, inplace: bool = False) -> Tensor:
    """x s with s = sigmoid(x); the gradient g (s (1 + x (1 - s)))."""
    return _stored(call, SILU, input)


def _gelu(r: Rounded, x: Tensor) -> Tensor:
    below = r("mul", r("add", r("erf", r("mul", x, 1.0 / math.sqrt(2.0))), 1.0), 0.5)
    r.kept = (below,)
    return r("mul", x, below)


def _gelu_back(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
    density = r("mul", r("exp", r("mul", r("mul", x[0], x[0]), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    return r("mul", g, r("add", r.kept[0], r("mul", x[0], density)))


_SCALE, _CUBIC = math.sqrt(2.0 / math.pi), 0.044715


def _tanh_gelu(r: Rounded, x: Tensor) -> Tensor:
    square = r("mul", x, x)
    inner = r("mul", r("add", r("mul", r("mul", square, x), _CUBIC), x), _SCALE)
    t = r("tanh", inner)
    r.kept = (square, t)
    return r("mul", r("mul", x, 0.5), r("add", t, 1.0))


def _tanh_gelu_back(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
    square, t = r.kept
    left = r("mul", r("add", t, 1.0), 0.5)
    flat = r("sub", 1.0, r("mul", t, t))
    slope = r("mul", r("add", r("mul", square, 3.0 * _CUBIC), 1.0), _SCALE)
    right = r("mul", r("mul", r("mul", x[0], 0.5), flat), slope)
    # The square overflows where tanh is flat: 0 times infinity stands for 0 there.
    return r("mul", g, r("add", left, torch.where(flat == 0.0, 0.0, right)))


GELU = {"none": Rule(_gelu, (_gelu_back,)), "tanh": Rule(_tanh_gelu, (_tanh_gelu_back,))}


@handles(functional.gelu)
def gelu(call: Call, input: Tensor, approximate: str = "none") -> Tensor:
    """x P with P = (erf(x (1 / sqrt 2)) + 1) 0.5; the gradient g (P + x (exp((x x) -0.5) (1 / sqrt(2 pi)))).

    ``approximate="tanh"``: (x 0.5) (t + 1), t = tanh(((((x x) x) 0.044715) + x) sqrt(2 / pi)); the gradient
    g ((t + 1) 0.5 + ((x 0.5) (1 - t t)) (((x x) (3 0.044715) + 1) sqrt(2 / pi))).
    """
    if approximate not in GELU:
        raise ValueError(f"gelu: approximate={approximate!r}; admissible: {', '.join(map(repr, GELU))}")
    return _stored(call, GELU[approximate], input)


def _softplus(r: Rounded, x: Tensor) -> Tensor:
    """max(x, 0) + log1p(exp(-|x|)), which overflows nowhere."""
    return r("add", r("log1p", r("exp", -x.abs())), x.clamp(min=0.0))


@handles(functional.softplus)
def softplus(call: Call, input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """(log1p(exp(-|z|)) + max(z, 0)) / beta with z = x beta; x where z is above the threshold.

    The gradient is g sigmoid(z), or g. With beta = 1 neither the product nor the quotient is an operation.
    """
    if not beta > 0.0:
        raise ValueError(f"softplus: beta={beta!r}; admissible: above 0")
    return _stored(call, _softplus_rule(float(beta), float(threshold)), input)


@functools.lru_cache(maxsize=64)
def _softplus_rule(beta: float, threshold: float) -> Rule:
    def forward(r: Rounded, x: Tensor) -> Tensor:
        z = x if beta == 1.0 else r("mul", x, beta)
        r.kept = (z,)
        y = _softplus(r, z)
        return torch.where(z > threshold, x, y if beta == 1.0 else r("div", y, beta))

    def backward(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
        (z,) = r.kept
        return torch.where(z > threshold, g, r("mul", g, r("sigmoid", z)))

    return Rule(forward, (backward,))


LOG_SIGMOID = Rule(lambda r, x: -_softplus(r, -x), (lambda r, g, x, y: r("mul", g, r("sigmoid", -x[0])),))


@handles(functional.logsigmoid)
def logsigmoid(call: Call, input: Tensor) -> Tensor:
    """-(log1p(exp(-|x|)) + max(-x, 0)); the gradient g sigmoid(-x)."""
    return _stored(call, LOG_SIGMOID, input)


def _mish(r: Rounded, x: Tensor) -> Tensor:
    t = r("tanh", _softplus(r, x))
    r.kept = (t,)
    return r("mul", x, t)


def _mish_back(r: Rounded, g: Tensor, x: Any, y: Tensor) -> Tensor:
    (t,) = r.kept
    flat = r("mul", r("sub", 1.0, r("mul", t, t)), r("sigmoid", x[0]))
    return r("mul", g, r("add", t, r("mul", x[0], flat)))


MISH = Rule(_mish, (_mish_back,))


@handles(*named("mish"))
def mish(call: Call, input: Tensor, inplace: bool = False) -> Tensor:
    """x t with t = tanh(log1p(exp(-|x|)) + max(x, 0)); the gradient g (t + x ((1 - t t) sigmoid(x)))."""
    return _stored(call, MISH, input)


@handles(*named("elu"))
def elu(call: Call, input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, else expm1(x) alpha; the gradient g, or g (exp(x) alpha)."""
    return _stored(call, _elu(float(alpha)), input)


@functools.lru_cache(maxsize=64)
def _elu(alpha: float) -> Rule:
    return Rule(
        lambda r, x: torch.where(x > 0.0, x, r("mul", r("expm1", x), alpha)),
        (lambda r, g, x, y: torch.where(x[0] > 0.0, g, r("mul", g, r("mul", r("exp", x[0]), alpha))),),
    )
