"""T8: the floor of gradient descent whose every operation rounds stochastically.

Model. w' = fl(w - a), a = fl(lr ghat) with the stored lr; all roundings n-bit stochastic, variant A. The computed
gradient is the true one times a factor (computed in the machine; its mean is read off the program) or has an absolute
error of at most e_i (computed in binary64, then stored in slot g).

Hypotheses. Stochastic rounding, variant A, in update.scale, w.sub, w and a stored g; the sum computed in the format of
w; no noise; no overflow; w in the box where L holds; rho > lr kappa L_i / 2.

Statement. With rho, mu, kappa bounds of the mean, the mean size and the mean square of a / (lr |grad|), b = 2^-n,
Delta_i the largest gap visited, and any lambda in [0, 1], averages over window and seeds satisfy sum (A_i g_i^2 - B_i
g_i - C_i) <= (F_first - F*) / (lr T), where

    A = rho - lr kappa L/2,   B = e + b Delta/lr + lr kappa L e + (2b + lambda) mu L Delta/2,
    C = lr kappa L e^2/2 + (2b + lambda) mu L Delta e/2 + (b^2 + lambda b + (1-lambda)/4) L Delta^2/(2 lr),

and the root of the quadratic bounds G = sqrt(avg E |grad|^2). As T grows, without bias (b = e = 0, lambda = 1):
G <= sqrt(sum (L_i Delta_i)^2) / (2 - lr L): free of lr. For a separable problem L_i is the curvature of the
coordinate.

Without a diagonal, the roundings of different coordinates are still independent: E s.Ms = (E s).M(E s) + sum M_ii
Var s_i for a matrix M above every Hessian. So L_i = M_ii in the terms above, and the rest L - M_ii multiplies (E s_i)^2
only: lr mu^2 (L - M_ii)/2 less in A, and so on (LINEAR, CONSTANT below).

Why: a stored w never lies inside the gap that holds w - a, so the two possible steps have one sign and their second
moment is at most m^2 + min(m Delta, Delta^2/4), m the mean step (R5, exact for n bits when stated with m); the rest
is the descent lemma. F_first is the mean of the seeds; the theorem speaks about what follows given those states. The
fall F_first - F_last that was seen would not do: where weights move once in many steps, all seeds may show none. The
measured Delta_i, the largest over the seeds, stand for bounds that almost surely hold.

Tightness: sharp; for isotropic curvature and centres spread evenly over their gaps, sqrt(3/2) up to O(lr L).
Source: derived here; its l1 form E|r|^2 <= sqrt(d) Delta lr G is in Li et al., NeurIPS 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from theory.composition import NoEnclosure
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Sign, Step, eq, le
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.rounding_model import shrinks
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_format_of_weights, stored_scalar
from theory.theorems._floor_root import fall, gaps_visited, quadratic_root, summation, weighted_root
from theory.theorems._gradient_mean import GradientMean, gradient_mean
from theory.theorems._mean_rounding import moments, second_moment
from theory.window import FloatArray, Window

QUANTITY = "root mean square of the gradient norm over window and seeds"

# one rounding of w - a: values x0 and x0 + D of |s|, probability t of the larger; b = 2^-n
x0, a, e, g = sp.symbols("x0 a e g", nonnegative=True)
D = sp.Symbol("Delta", positive=True)
t = sp.Symbol("t", nonnegative=True)
b = sp.Symbol("b", nonnegative=True)
m, s2 = sp.symbols("m s2", nonnegative=True)
lam = sp.Symbol("lambda", nonnegative=True)
UNIT = {t: sp.Interval(0, 1), lam: sp.Interval(0, 1)}

step_mean = Axiom(
    "mean of the step",
    le(m, a + b * D),
    citation="R4n: rounding w - a misses its mean by less than 2^-n Delta; |a| is the exact step",
    test="tests/theory/test_t08.py::test_step_of_a_stored_weight",
)

MEAN, VALUE = x0 + t * D, (1 - t) * x0**2 + t * (x0 + D) ** 2
SIZE = a**2 + (2 * b + lam) * D * a + (b**2 + lam * b + (1 - lam) / 4) * D**2

step_size = Derivation(
    "second moment of the step",
    givens=(eq(m, MEAN), eq(s2, VALUE)),
    steps=(
        Step(eq(m, MEAN), Given(), "the two values of |s| are x0 and x0 + Delta, x0 >= 0"),
        Step(eq(s2, VALUE), Given()),
        Step(le(0, x0 + t**2 * D), Sign(), "variance t(1-t) Delta^2 <= m Delta: the small-step lemma R5"),
        Step(le(0, (t - sp.Rational(1, 2)) ** 2), Sign(), "variance at most Delta^2/4"),
        Step(
            le(s2, m**2 + lam * D * m + (1 - lam) * D**2 / 4),
            Combine({0: -(m + MEAN) - lam * D, 1: 1, 2: lam * D, 3: (1 - lam) * D**2}),
        ),
        Step(le(m, a + b * D), Instance(step_mean)),
        Step(le(s2, SIZE), Combine({4: 1, 5: m + a + b * D + lam * D})),
    ),
    statement=le(s2, SIZE),
    domain=UNIT,
)

# one coordinate, averages over the rounding of one step; rho, mu, kappa: moments of a / (alpha |grad|)
alpha, L, rho, mu, kappa = sp.symbols("alpha L rho mu kappa", positive=True)
P = sp.Symbol("P", real=True)  # grad * E m
E1, E2, S = sp.symbols("E1 E2 S", nonnegative=True)  # E|a|, E a^2, E s^2

# M dominates the Hessian: E s.Ms = (E s).M(E s) + sum M_ii Var s_i <= sum (L - M_ii)(E s_i)^2 + M_ii E s_i^2
rest = sp.Symbol("rest", nonnegative=True)  # L - M_ii; the symbol L below stands for M_ii
M1 = sp.Symbol("M1", nonnegative=True)  # |E s|
SQUARE = rho - alpha * kappa * L / 2 - alpha * mu**2 * rest / 2
LINEAR = (
    e + b * D / alpha + alpha * kappa * L * e + (2 * b + lam) * mu * L * D / 2 + rest * mu * (alpha * mu * e + b * D)
)
CONSTANT = (
    rest * (alpha * mu * e + b * D) ** 2 / (2 * alpha)
    + alpha * kappa * L * e**2 / 2
    + (2 * b + lam) * mu * L * D * e / 2
    + (b**2 + lam * b + (1 - lam) / 4) * L * D**2 / (2 * alpha)
)
drive = Axiom(
    "mean of the gradient step",
    le(alpha * rho * g**2 - (alpha * e + b * D) * g, P),
    citation="E fl(x) lies between (1 - 2^-n z) x and x; independent roundings multiply in the mean; |errors| <= e",
    test="tests/theory/test_t08.py::test_moments_of_the_gradient_step",
)
first = Axiom("mean size of the gradient step", le(E1, alpha * mu * (g + e)), citation=drive.citation, test=drive.test)
second = Axiom(
    "second moment of the gradient step",
    le(E2, alpha**2 * kappa * (g + e) ** 2),
    citation="second moment of one rounding; independent roundings multiply",
    test=drive.test,
)
average_step = Axiom(
    "second moment of the step, averaged over a",
    le(S, E2 + (2 * b + lam) * D * E1 + (b**2 + lam * b + (1 - lam) / 4) * D**2),
    citation="the derivation 'second moment of the step', whose right side is affine in |a| and a^2",
    test="tests/theory/test_t08.py::test_step_of_a_stored_weight",
)
mean_of_step = Axiom(
    "mean of the step, averaged over a",
    le(M1, E1 + b * D),
    citation="|E s| <= E |E[s | a]| <= E|a| + 2^-n Delta",
    test="tests/theory/test_t08.py::test_step_of_a_stored_weight",
)
coordinate = Derivation(
    "one coordinate",
    givens=(),
    steps=(
        Step(le(alpha * rho * g**2 - (alpha * e + b * D) * g, P), Instance(drive)),
        Step(le(E1, alpha * mu * (g + e)), Instance(first)),
        Step(le(E2, alpha**2 * kappa * (g + e) ** 2), Instance(second)),
        Step(average_step.conclusion, Instance(average_step)),
        Step(le(M1, E1 + b * D), Instance(mean_of_step)),
        Step(le(M1, alpha * mu * (g + e) + b * D), Combine({4: 1, 1: 1})),
        Step(
            le(SQUARE * g**2 - LINEAR * g - CONSTANT, (P - (L * S + rest * M1**2) / 2) / alpha),
            Combine(
                {
                    0: 1 / alpha,
                    1: L * (2 * b + lam) * D / (2 * alpha),
                    2: L / (2 * alpha),
                    3: L / (2 * alpha),
                    5: rest * (M1 + alpha * mu * (g + e) + b * D) / (2 * alpha),
                }
            ),
        ),
    ),
    statement=le(SQUARE * g**2 - LINEAR * g - CONSTANT, (P - (L * S + rest * M1**2) / 2) / alpha),
    domain=UNIT,
)

floor = summation("T8", "tests/theory/test_t08.py")


@dataclass(frozen=True)
class _Coefficients:
    """SQUARE, LINEAR and CONSTANT of every coordinate; the latter two for one lambda."""

    square: list[Ball]
    linear: list[Ball]
    constant: Ball


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T8", QUANTITY, tuple(checks))
    gradient, why = _gradient(window)
    checks.append(Hypothesis("the gradient is the true one times a factor", gradient is not None, why))
    if gradient is None:
        return Bound("T8", QUANTITY, tuple(checks))
    checks.append(no_events(window, gradient.slots)[1])
    candidates = [_coefficients(window, gradient, weight) for weight in (0, sp.Rational(1, 2), 1)]
    smallest = min(ends(x)[0] for x in candidates[0].square)
    checks.append(Hypothesis("rho > lr kappa L / 2", smallest > 0, f"rho - lr kappa L / 2 = {smallest:.4g}"))
    if not all(check.ok for check in checks):
        return Bound("T8", QUANTITY, tuple(checks))
    with working_precision(BITS):
        share = fall(window) / (ball(window.scalars["scalar.lr"]) * window.steps)
        ones = [arb(1)] * window.dimension
        roots = [ends(weighted_root(x.square, x.linear, share + x.constant, ones)) for x in candidates]
    lower, upper = min(roots, key=lambda pair: pair[1])
    return Bound("T8", QUANTITY, tuple(checks), lower, upper, exponent=2)


def measured(window: Window) -> FloatArray:
    """Window average of the squared norm of the true gradient, [S]."""
    return np.asarray(np.mean(window.squared_gradient, axis=0), dtype=np.float64)


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    program, slots = window.program, window.slots
    by_slot = {o.slot: o for o in program.operations}
    step, scale = by_slot.get("w.sub"), by_slot.get("update.scale")
    plain = (
        step is not None and step.kind == "sub" and step.operands == ("w", "update.scale")
        and scale is not None and scale.kind == "mul" and scale.operands == ("scalar.lr", "g")
        and program.state == ("w",) and dict(program.outputs)["w"] == "w.sub"
    )  # fmt: skip
    if not plain:
        return (Hypothesis("w <- w - lr g is the only update", False, window.optimizer),)
    rounded = ("update.scale", "w.sub", "w") + (() if window.gradient_inside else ("g",))
    other = [f"{s}: {slots[s][1]}" for s in rounded if not shrinks(slots[s][1])]
    lr = window.scalars.get("scalar.lr", math.nan)
    widest = float(np.max(window.max_abs["w"]))
    return (
        Hypothesis("w <- w - lr g is the only update", True),
        Hypothesis("stochastic rounding, variant A", not other, ", ".join(other)),
        one_format_of_weights(window),
        Hypothesis("no noise", window.noise == "none", window.noise),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        no_events(window)[0],
        not_flushed(window, rounded),
        Hypothesis("w stays in the box", window.box is None or widest <= window.box, f"{widest:.4g} > {window.box}"),
        Hypothesis("finite", bool(np.all(np.isfinite(window.squared_gradient))), window.outcome),
    )


def _gradient(window: Window) -> tuple[GradientMean | None, str]:
    if not window.gradient_inside:
        x = moments(*window.slots["g"])
        return GradientMean(x.low, x.high, x.second, x.sure_low, x.sure_high, ()), ""
    try:
        return gradient_mean(window, "g"), ""
    except (NoEnclosure, ValueError) as none:
        return None, str(none)


def _coefficients(window: Window, gradient: GradientMean, weight: sp.Expr | int) -> _Coefficients:
    scale = moments(*window.slots["update.scale"])
    symbols = [e, D, b, L, rest, alpha, rho, mu, kappa]
    square, linear, constant = (compile_expression(x.subs(lam, weight), symbols) for x in (SQUARE, LINEAR, CONSTANT))
    bends, rests = curvatures(window)
    rows = []
    with working_precision(BITS):
        lr = ball(window.scalars["scalar.lr"])
        bias = moments(*window.slots["w.sub"]).bias
        common = [lr, gradient.low * scale.low, gradient.high * scale.high, gradient.second * scale.second]
        # a subnormal result errs by less than its quantum, and its variance is at most a quarter of its square
        tiny = _quantum(window, "update.scale") / (2 * lr)
        tiny += arb(0) if window.gradient_inside else _quantum(window, "g") / 2
        for error, gap, bend, further in zip(window.gradient_error, gaps_visited(window), bends, rests, strict=True):
            values = [ball(error) + tiny, gap, bias, bend, further, *common]
            rows.append((square(values), linear(values), constant(values)))
        total = sum((row[2] for row in rows), arb(0))
    return _Coefficients([row[0] for row in rows], [row[1] for row in rows], total)


def curvatures(window: Window) -> tuple[list[Ball], list[Ball]]:
    """(M_ii, L - M_ii) of every coordinate; a separable problem has a diagonal M and needs no L."""
    if window.curvature is not None:
        return [ball(x) for x in window.curvature], [arb(0)] * window.dimension
    largest = ball(window.smoothness)
    if window.hessian_diagonal is None:
        return [largest] * window.dimension, [arb(0)] * window.dimension
    diagonal = [ball(x).min(largest) for x in window.hessian_diagonal]
    return diagonal, [largest - x for x in diagonal]


def _quantum(window: Window, slot: str) -> Ball:
    """Smallest spacing of the slot's format if results underflowed there, else 0: no inexact result was that small.

    Formats that flush lose more than that to an underflow; ``not_flushed`` is a hypothesis.
    """
    return ball(window.slots[slot][0].smallest_subnormal if window.underflow.get(slot, 1) else 0.0)


THEOREM = Theorem(
    identifier="T8",
    title="Stochastically rounded gradient descent: a floor that does not depend on the step size",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=floor.statement,
    derivations=(floor, coordinate, step_size, quadratic_root, second_moment),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("sgd",),
    floor=True,
)
