"""T2: how far a stochastically rounded second moment strays: its variance does not grow like 1/(1 - beta2)^2.

Model. v' = fl(fl(B v) + fl(c fl(g^2))) with the stored B <= 1 and c, |g| constant on the window; all four roundings
n-bit stochastic, variant A, slot by slot with z = 2^(1-p) and b = 2^-n; v, product and sum on one grid. The exact
moving average is r' = B r + Q, Q = c g^2, from the v that the window starts with.

Statement. E v = r without bias (b = 0). With e = v - r, E2 = E e^2, and any lambda in [0, 1] in each place,

    E2' <= B^2 E2 + X + Y + S,       X = k (r^2 + E2),  k = min(z^2 B^2/4, z B (1 - B + b z B)),  Y = y Q^2,
    S = min(z^2/4 (X + Y + (B r + Q)^2 + B^2 E2), z (kappa Q^2 + Q B r)),

kappa = (1 + z^2/4)^2 and y = z^2/4 (1 + z^2/4) + (z/2 + b z (1 + z)/2)^2 for equal slots. The n-bit biases add, in the
root of the mean square, b z B sqrt(r^2 + E2) + (1 - (1 - b z)^2) Q + b z sqrt((B r + Q)^2 + B^2 E2 + X + Y). The
theorem bounds the root mean square of (v - r)/r at the end of the window.

Consequence. Rounding to nearest may be off by 2u/(1-B); this is at most about u/sqrt(1-B), and about sqrt(2u):
the first side of each min is R4 (a variance of at most a quarter of the squared gap), the second R5 (at most the
distance to a stored number times the gap), which vanishes with 1-B as the memory 1/(1-B) grows.

Why E v <= r with bias, and with it E v^2 <= r^2 + E2: variant A never rounds up in the mean, and everything is
nonnegative. The errors of different roundings are uncorrelated.

Tightness: sharp; bound/exact of the stationary law 1.1 to 1.7 (exact Markov chains, ``theory.chain``).
Source: derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy as sp

from fpsim.rounding import Stochastic
from theory.derivation import Axiom, Combine, Derivation, Given, Step, cited, eq, le
from theory.rounding_model import shrinks
from theory.theorem import Bound, Hypothesis, Theorem, no_events, stored_scalar
from theory.theorems._moving_average import MovingAverage, moving_average, same_grid
from theory.window import FloatArray, Window

QUANTITY = "root mean square of v's relative deviation from its exact moving average, at the end of the window"

_E2, _E2_next, _S2, _X, _Y, _S, _M2, _r, _Q, _B = (
    sp.Symbol(s, nonnegative=True) for s in ("E2", "E2_+", "S2", "X", "Y", "S", "M2", "r", "Q", "B")
)
_k, _y, _z, _kappa, _lam = (sp.Symbol(s, nonnegative=True) for s in ("k", "y", "z", "kappa", "lambda"))

_VARIANCE = "tests/theory/test_rounding_model.py::test_stochastic_bias_and_variance"
_SMALL = "tests/theory/test_rounding_model.py::test_variance_is_at_most_a_mean_step_times_a_gap"
_RUNS = "tests/theory/test_t02.py::test_one_step_from_every_state"
UNCORRELATED = Axiom(
    "errors of roundings are uncorrelated",
    le(_E2_next, _B**2 * _E2 + _X + _Y + _S),
    citation="martingale differences: each error has mean 0 given what was computed before it",
    test=_RUNS,
)
SECOND_MOMENT = Axiom(
    "second moment of v",
    le(_S2, _r**2 + _E2),
    citation="E v <= r: E v^2 = E (v-r)^2 + 2 r E v - r^2",
    test=_RUNS,
)
DECAY = Axiom("variance of the product", le(_X, _k * _S2), citation="R4, and R5 with v on the grid", test=_SMALL)
INJECTED = Axiom(
    "variance of what is added",
    le(_Y, _y * _Q**2),
    citation="R4 twice: E Var(y|s) + Var E(y|s), s the square",
    test=_VARIANCE,
)
SUM = Axiom("variance of the sum", le(_S, _z**2 / 4 * _M2), citation="R4", test=_VARIANCE)
SUM_SMALL = Axiom(
    "small-step variance of the sum",
    le(_S, _z * (_kappa * _Q**2 + _Q * _B * _r)),
    citation="R5 with the product on the grid: E y (x + y) gaps, x the product, y what is added",
    test=_SMALL,
)
SUMS = Axiom(
    "second moment of the exact sum",
    le(_M2, _X + _Y + (_B * _r + _Q) ** 2 + _B**2 * _E2),
    citation="variances of the two summands add to the square of their mean",
    test=_RUNS,
)

_sum = _lam * _z**2 / 4 * ((_B * _r + _Q) ** 2 + _B**2 * _E2) + (1 - _lam) * _z * (_kappa * _Q**2 + _Q * _B * _r)
SPREAD = _B**2 * _E2 + (1 + _lam * _z**2 / 4) * (_k * (_r**2 + _E2) + _y * _Q**2) + _sum
STATEMENT = le(_E2_next, SPREAD)

STEP = Derivation(
    "T2",
    givens=(),
    steps=(
        *cited(UNCORRELATED, SECOND_MOMENT, DECAY, INJECTED, SUM, SUM_SMALL, SUMS),
        Step(
            STATEMENT,
            Combine(
                {
                    0: 1,
                    4: _lam,
                    5: 1 - _lam,
                    6: _lam * _z**2 / 4,
                    2: 1 + _lam * _z**2 / 4,
                    3: 1 + _lam * _z**2 / 4,
                    1: (1 + _lam * _z**2 / 4) * _k,
                }
            ),
        ),
    ),
    statement=STATEMENT,
    domain={_lam: sp.Interval(0, 1)},
)

_a = sp.Symbol("a", nonnegative=True)
_still, _moved = le(_E2_next, _a * _E2 + _k * _r**2), eq(_E2_next, _E2)
STATIONARY = Derivation(
    "T2, stationary",
    givens=(_still, _moved),
    steps=(
        Step(_still, Given(), "the step, what multiplies E2 and what does not, for Q = (1-B) r"),
        Step(_moved, Given(), "stationary"),
        Step(le(_E2, _k * _r**2 / (1 - _a)), Combine({0: 1 / (1 - _a), 1: -1 / (1 - _a)})),
    ),
    statement=le(_E2, _k * _r**2 / (1 - _a)),
    domain={_a: sp.Interval.Ropen(0, 1)},
)


@dataclass(frozen=True)
class Roundings:
    """(z, b) of the four slots: relative gap and 2^-n, which is 0 for infinitely many bits."""

    decay: tuple[float, float]
    square: tuple[float, float]
    inject: tuple[float, float]
    add: tuple[float, float]


def deviation(
    start: FloatArray, added: FloatArray, decay: float, roundings: Roundings, steps: int
) -> tuple[FloatArray, FloatArray]:
    """(r, bound of sqrt(E (v - r)^2)) after some steps; the bound is rounded up.

    Parameters
    ----------
    start : float64, any shape, v before the first step
    added : float64, same shape, Q = c g^2
    decay : B in [0, 1]

    Examples
    --------
    bfloat16, ideal stochastic rounding, beta2 = 0.9999: about sqrt(2u) = 0.0884.

    >>> rounding = Roundings(*((2.0**-7, 0.0),) * 4)
    >>> r, bound = deviation(np.array([1.0]), np.array([1e-4]), 0.9999, rounding, 50_000)
    >>> r.round(6), bound.round(4)
    (array([1.]), array([0.0886]))
    """
    (zd, bd), (zs, bs), (zi, bi), (za, ba) = roundings.decay, roundings.square, roundings.inject, roundings.add
    lost = float(1 - Fraction(decay))
    k = min(zd**2 / 4 * decay**2, zd * decay * (lost + bd * zd * decay))
    kappa = (1 + zs**2 / 4) * (1 + zi**2 / 4)
    short = bs * zs + bi * zi  # >= 1 - (1 - bs zs)(1 - bi zi)
    variance = (zi**2 / 4 * (1 + zs**2 / 4) + (zs / 2 + bi * zi * (1 + zs) / 2) ** 2) * added**2
    r, rho = np.array(start, dtype=np.float64), np.zeros(np.shape(start))
    with np.errstate(over="ignore", invalid="ignore"):  # a bound that grows without end is no bound: not finite
        for _ in range(steps):
            following = decay * r + added
            x = k * (r**2 + rho**2)
            mean_square = following**2 + (decay * rho) ** 2
            s = np.minimum(za**2 / 4 * (x + variance + mean_square), za * (kappa * added**2 + added * decay * r))
            bias = (
                bd * zd * decay * np.sqrt(r**2 + rho**2) + short * added + ba * za * np.sqrt(mean_square + x + variance)
            )
            rho = np.sqrt((decay * rho) ** 2 + x + variance + s) + bias
            r = following
    # sums, products and roots of nonnegative numbers: each of the at most 64 operations of a step errs by 2^-53
    return r, rho * (1 + 64 * (steps + 1) * 2.0**-52)


def evaluate_bound(window: Window) -> Bound:
    """The root mean square over coordinates and seeds, given the states that the window starts with."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T2", QUANTITY, tuple(checks))
    average, names = _structure(window)
    assert average is not None
    roundings = Roundings(*(_rounding(window, s) for s in (average.decay, *names[:2], average.add)))
    r, rho = deviation(window.start["v"], _added(window), window.scalars[average.scalar], roundings, window.steps)
    with np.errstate(over="ignore", invalid="ignore"):
        limit = float(np.sqrt(np.mean((rho / r) ** 2))) * (1 + 2.0**-40)
    checks.append(Hypothesis("the bound is finite", math.isfinite(limit), f"{limit:.4g}"))
    return Bound("T2", QUANTITY, tuple(checks), limit, limit, exponent=2)


def measured(window: Window) -> FloatArray:
    """[S] mean over the coordinates of ((v - r)/r)^2 at the end of the window."""
    average, _ = _structure(window)
    if average is None or not all(check.ok for check in _hypotheses(window)):
        return np.full(window.seeds, math.nan)
    nothing = Roundings(*((0.0, 0.0),) * 4)
    r, _ = deviation(window.start["v"], _added(window), window.scalars[average.scalar], nothing, window.steps)
    return np.asarray(np.mean(((window.end["v"] - r) / r) ** 2, axis=0), dtype=np.float64)


def _structure(window: Window) -> tuple[MovingAverage | None, tuple[str, str, str]]:
    """The moving average, and (square, injection, scalar of the injection) if c g^2 is two products."""
    average = moving_average(window.program, "v")
    operations = {o.slot: o for o in window.program.operations}
    inject = operations.get(average.injected) if average is not None else None
    if average is None or inject is None or inject.kind != "mul":
        return None, ("", "", "")
    for scalar, square in (inject.operands, inject.operands[::-1]):
        found = operations.get(square)
        if scalar.startswith("scalar.") and found is not None and found.kind == "mul" and found.operands == ("g", "g"):
            return average, (square, inject.slot, scalar)
    return None, ("", "", "")


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    name = "v' = fl(fl(B v) + fl(c fl(g g)))"
    average, (square, inject, scalar) = _structure(window)
    if average is None:
        return (Hypothesis(name, False, window.optimizer),)
    slots = (average.decay, square, inject, average.add)
    other = [f"{s}: {window.slots[s][1]}" for s in slots if not shrinks(window.slots[s][1])]
    low, high = window.min_abs.get("g"), window.max_abs.get("g")
    constant = low is not None and high is not None and bool(np.array_equal(low, high))
    varying = "not tracked" if low is None or high is None else f"{np.sum(low != high)} of {low.size} vary"
    decay, injection = (window.scalars.get(s, math.nan) for s in (average.scalar, scalar))
    checks = (
        Hypothesis(name, True),
        Hypothesis("stochastic rounding, variant A", not other, ", ".join(other)),
        same_grid(window, (average.decay, average.add, "v")),
        Hypothesis("B <= 1 and c > 0 are constant", 0 <= decay <= 1 and injection > 0, stored_scalar(window, "beta2")),
        Hypothesis("|g| is constant on the window", constant, varying),
        *no_events(window, slots),
    )
    if not all(check.ok for check in checks):
        return checks
    if "v" not in window.start or "v" not in window.end:
        return (*checks, Hypothesis("v is known at both ends of the window", False))
    least = float(np.min(np.maximum(window.start["v"], _added(window))))
    finite = bool(np.all(np.isfinite(window.start["v"])) and np.all(np.isfinite(window.end["v"])))
    return (
        *checks,
        Hypothesis("v is positive in the mean", least > 0, f"smallest max(v, c g^2) = {least:.4g}"),
        Hypothesis("v is finite and not negative", finite and bool(np.all(window.start["v"] >= 0))),
    )


def _added(window: Window) -> FloatArray:
    """Q = c g^2, [d, S]."""
    _, (_, _, scalar) = _structure(window)
    return np.asarray(window.scalars[scalar] * window.max_abs["g"] ** 2, dtype=np.float64)


def _rounding(window: Window, slot: str) -> tuple[float, float]:
    fmt, mode = window.slots[slot]
    assert isinstance(mode, Stochastic)
    return 2.0 ** (1 - fmt.precision), 2.0**-mode.bits


THEOREM = Theorem(
    identifier="T2",
    title="The spread of a stochastically rounded second moment",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=STATEMENT,
    derivations=(STEP, STATIONARY),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop", "adam"),
)
