"""Second moments of momentum on a quadratic: three Lyapunov equations, solved and checked, and their monotone growth.

One eigenvalue lambda of the Hessian, z = w - x*, m the momentum, e_m and e_w the errors made in one step:

    m' = B m + c lambda z + e_m,        z' = z - alpha m' + e_w,

B and c the stored scalars (c = 1 - B is not used; Polyak's form is c = 1). Window averages X = avg E z^2, Y = avg E
m^2, C = avg E z m satisfy three linear equations whose sources are Q_w = E e_w^2, Q_m = E e_m^2, R = E e_w e_m (errors
uncorrelated with the past). A starting state (z, m) is the source e_w = z + alpha m, e_m = m in front of the window,
1/T of it in the average. With D = (1-B)(2(1+B) - x), x = alpha c lambda,

    lambda^2 X = [lambda ((1-B)(1-B^2) + 2 B x)/(alpha c) Q_w + alpha lambda (1+B)/c Q_m - 2 lambda (1-B^2+B x)/c R]/D
    Y          = [c lambda (1+B)/alpha Q_w + 2 Q_m - 2 c lambda R]/D
    avg E (c lambda z - (1-B) m)^2 = [2 c^2 lambda^2 Q_w + (2 (1-B)^2 + (3-B) x) Q_m - 2 c lambda (2-2B+x) R]/D.

Every coefficient of Q_w and Q_m grows with lambda as long as x < 2(1+B), the range of stability: in a rotated basis the
largest eigenvalue and the trace of the errors' covariance are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from theory.derivation import Combine, Derivation, Given, Sign, Step, eq, le
from theory.enclosure import Ball, compile_expression

alpha, c, lam = sp.symbols("alpha c lambda", positive=True)
B = sp.Symbol("B", nonnegative=True)
t = sp.Symbol("t", nonnegative=True)
Qw, Qm = sp.symbols("Q_w Q_m", nonnegative=True)
R, X, Y, C = sp.symbols("R X Y C", real=True)
DECAY = {B: sp.Interval.Ropen(0, 1)}

_x = alpha * c * lam
_D = (1 - B) * (2 * (1 + B) - _x)
_square = B**2 * Y + c**2 * lam**2 * X + 2 * B * c * lam * C  # E (B m + c lambda z)^2
_product = B * C + c * lam * X  # E z (B m + c lambda z)
EQUATIONS = (
    eq(X, X - 2 * alpha * _product + alpha**2 * _square + Qw - 2 * alpha * R + alpha**2 * Qm),
    eq(Y, _square + Qm),
    eq(C, _product - alpha * _square + R - alpha * Qm),
)
_TEXTS = ("square of z' = z - alpha m' + e_w", "square of m'", "product of z' and m'")

GRADIENT = (
    lam * ((1 - B) * (1 - B**2) + 2 * B * _x) / (alpha * c * _D),
    alpha * lam * (1 + B) / (c * _D),
    -2 * lam * (1 - B**2 + B * _x) / (c * _D),
)
MOMENTUM = (c * lam * (1 + B) / (alpha * _D), 2 / _D, -2 * c * lam / _D)
CHANGE = (
    2 * c**2 * lam**2 / _D,
    (2 * (1 - B) ** 2 + (3 - B) * _x) / _D,
    -2 * c * lam * (2 - 2 * B + _x) / _D,
)


def _solved(
    name: str, left: sp.Expr, coefficients: tuple[sp.Expr, ...], multipliers: tuple[sp.Expr, ...]
) -> Derivation:
    claim = eq(left, sum((k * s for k, s in zip(coefficients, (Qw, Qm, R), strict=True)), sp.Integer(0)))
    steps = [Step(e, Given(), text) for e, text in zip(EQUATIONS, _TEXTS, strict=True)]
    by = Combine({k: m / _D for k, m in enumerate(multipliers)})
    return Derivation(name, EQUATIONS, (*steps, Step(claim, by, "three linear equations")), claim, DECAY)


_gradient = _solved(
    "momentum: gradient", lam**2 * X, GRADIENT,
    (
        lam * ((1 - B) * (1 - B**2) + 2 * B * _x) / (alpha * c),
        alpha * lam * B**2 * (1 + B) / c,
        2 * B * lam * (B**2 + _x - 1) / c,
    ),
)  # fmt: skip
_momentum = _solved(
    "momentum: size", Y, MOMENTUM, (c * lam * (1 + B) / alpha, 2 - (1 - B) * _x, 2 * B * c * lam)
)  # fmt: skip
_change = _solved(
    "momentum: change", c**2 * lam**2 * X + (1 - B) ** 2 * Y - 2 * c * (1 - B) * lam * C, CHANGE,
    (2 * c**2 * lam**2, 2 * (1 - B) ** 2 + (3 * B - 1) * _x, 2 * c * lam * (2 * B + _x - 2)),
)  # fmt: skip

# every lambda of the stable range: alpha c lambda = 2 (1+B) t/(1+t)
_range = 2 * (1 + B) * t / ((1 + t) * alpha * c)


def _grows(name: str, coefficient: sp.Expr) -> Derivation:
    claim = le(0, sp.factor(sp.diff(coefficient, lam)).subs(lam, _range))
    return Derivation(name, (), (Step(claim, Sign(), "derivative in lambda"),), claim, DECAY)


_growth = tuple(
    _grows(f"momentum: {name} grows with lambda ({source})", coefficient)
    for name, found in (("gradient", GRADIENT), ("size", MOMENTUM), ("change", CHANGE))
    for source, coefficient in zip(("Q_w", "Q_m"), found, strict=False)
)
LEMMAS = (_gradient, _momentum, _change, *_growth)


@dataclass(frozen=True)
class Responses:
    """Coefficients of (Q_w, Q_m, R) in the three averages, at one lambda; balls."""

    gradient: tuple[Ball, ...]
    momentum: tuple[Ball, ...]
    change: tuple[Ball, ...]


_SYMBOLS = [alpha, c, B, lam]
_COMPILED = tuple(tuple(compile_expression(k, _SYMBOLS) for k in found) for found in (GRADIENT, MOMENTUM, CHANGE))


def responses(step: Ball, injection: Ball, kept: Ball, curvature: Ball) -> Responses:
    """The coefficients' numbers; all positive only where 0 <= B < 1 and 0 < x < 2(1+B)."""
    values = [step, injection, kept, curvature]
    return Responses(*(tuple(f(values) for f in found) for found in _COMPILED))


def decay_rate(step: Ball, injection: Ball, kept: Ball, curvature: Ball) -> float:
    """Spectral radius of one step, roughly: it only chooses the weights of a bound."""
    x, b = float(step * injection * curvature), float(kept)
    return float(np.max(np.abs(np.roots([1.0, -(1 - x + b), b]))))


def bounded_gains(step: Ball, injection: Ball, kept: Ball, curvature: Ball, rate: Ball) -> list[list[Ball]] | None:
    """[[g of e_w, g of e_m], [m of e_w, m of e_m]]: rms response of lambda z and m to errors of rms at most 1.

    sum_k h_k e_(t-k) with Cauchy-Schwarz and weights rate^k: squared at most (sum h_k^2 rate^-k) (sum rate^k). Without
    m or z there is y_t = (1+B-x) y_(t-1) - B y_(t-2) + e_t + theta e_(t-1): e_w with theta = -B and -alpha e_m with 0
    for z, c lambda e_w with 0 and e_m with -1 for m; the sum of squares is the variance of that ARMA(2,1) process with
    weighted coefficients. ``curvature`` may be a wide ball. None where that recursion is not certainly stable.
    """
    root = rate.sqrt()
    first, second = (1 + kept - step * injection * curvature) / root, -kept / rate
    factors = (1 + second, 1 - first - second, 1 + first - second)
    if not all(factor > 0 for factor in factors):
        return None
    scale = 1 / (factors[0] * factors[1] * factors[2] * (1 - rate))

    def gain(theta: Ball) -> Ball:
        theta = theta / root
        return (((1 + theta**2) * (1 - second) + 2 * theta * first) * scale).nonnegative_part().sqrt()

    plain = gain(arb(0))
    return [
        [curvature * gain(-kept), curvature * step * plain],
        [injection * curvature * plain, gain(arb(-1))],
    ]
