"""T25: the floor of gradient descent with Gaussian noise, weights rounded to nearest or stochastically: dither.

Model. w' = fl(w - s), s the computed lr (grad + xi), xi Gaussian with standard deviation sigma, independent over
coordinates and steps; every operation of the gradient and of the step may round. Let s0 = lr (grad + xi) exactly, |s -
s0| <= eps0 + eta (lr |grad| + lr |xi|) by composition, e = fl(w - s) - (w - s0), r = lr sigma/Delta.

Hypotheses. Round to nearest, or stochastic (variant A), in w.sub and w; Gaussian noise of known sigma; no overflow, no
underflow in the gradient's operations; w in the box where L holds; the square's coefficient positive.

Statement. Where w_i stays inside one binade, ``_dither`` gives |E e| <= b0 + b1 lr g, E e^2 <= v0 + v1 lr g + v2 (lr
g)^2, |E lr xi e| <= k0 + k1 lr g (g = |grad_i|), b0 = O(Delta exp(-2 pi^2 r^2)) + O(error of the step), v0 near
Delta^2/12: rounding to nearest acts as a stochastic one with half its variance. Elsewhere b0 = Delta/2 and v0 =
Delta^2/4 (2^-n Delta, stochastic), or v0 = Delta E|s| (R5). Averages over window and seeds satisfy sum (A_i g_i^2 - B_i
g_i - C_i) <= (F_first - F*)/(lr T) with

    A = 1 - b1 - (lr L/2)(1 + 2 b1 + v2) - lr rest (1 + b1)^2/2,
    B = b0/lr + (L/2)(2 b0 + v1 + 2 k1) + rest (1 + b1) b0,
    C = L (lr^2 sigma^2 + v0 + 2 k0)/(2 lr) + rest b0^2/(2 lr),

L = M_ii and rest = |M| - M_ii of a matrix M above every Hessian (T8); the root bounds G = sqrt(avg E |grad|^2). The
best choice of the coordinates' bounds is taken.

The density. A step rounded to a format has none; the lemma for exact Gaussian steps does not apply to it, and
``_dither`` carries the difference: at most twice the mean rounding error of the step itself.

Tightness: sharp where r >= 1/2 (close to the noise floor); for r -> 0 the adversary Delta/(2 lr). Two-point noise has
no density and is refused.
Source: derived here; non-subtractive dither as in Widrow and Kollar, Quantization Noise, 2008.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
from flint import arb

from theory.composition import NoEnclosure
from theory.derivation import Axiom, Combine, Derivation, Step, cited, le
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.theorem import (
    Bound,
    Hypothesis,
    Theorem,
    no_events,
    not_flushed,
    one_format_of_weights,
    one_subtraction,
    stored_scalar,
)
from theory.theorems._dither import LEMMAS, Dither, StepError, adversarial, dithered, step_error, uniform_gap
from theory.theorems._floor_root import fall, gaps_visited, quadratic_root, summation, weighted_root
from theory.theorems._noise_scope import nearest_or_shrinking
from theory.theorems.t08_stochastic_gd import QUANTITY, curvatures, measured
from theory.window import Window

TEST = "tests/theory/test_t25.py"

alpha, L = sp.symbols("alpha L", positive=True)
g, rest, sigma = (sp.Symbol(s, nonnegative=True) for s in ("g", "rest", "sigma"))
b0, b1, v0, v1, v2, k0, k1 = sp.symbols("b0 b1 v0 v1 v2 k0 k1", nonnegative=True)
P = sp.Symbol("P", real=True)  # grad * E(w - w')
S, V, X, M1 = sp.symbols("S V X M1", nonnegative=True)  # E(w'-w)^2, E e^2, |E lr xi e|, |E(w'-w)|

BIAS = b0 + b1 * alpha * g
SQUARE = 1 - b1 - alpha * L / 2 * (1 + 2 * b1 + v2) - alpha * rest * (1 + b1) ** 2 / 2
LINEAR = b0 / alpha + L / 2 * (2 * b0 + v1 + 2 * k1) + rest * (1 + b1) * b0
CONSTANT = L * (alpha**2 * sigma**2 + v0 + 2 * k0) / (2 * alpha) + rest * b0**2 / (2 * alpha)

drive = Axiom(
    "mean of a dithered step",
    le(alpha * g**2 - BIAS * g, P),
    citation="w' - w = -lr grad - lr xi + e, E xi = 0, |E e| <= b0 + b1 lr |grad| (theory.theorems._dither)",
    test=f"{TEST}::test_moments_of_the_dithered_step",
)
size = Axiom("size of a dithered step", le(M1, alpha * g + BIAS), citation=drive.citation, test=drive.test)
square = Axiom(
    "second moment of a dithered step",
    le(S, alpha**2 * g**2 + alpha**2 * sigma**2 + V + 2 * X + 2 * alpha * g * BIAS),
    citation="E(lr grad + lr xi - e)^2, xi of mean 0 and variance sigma^2, X >= |E lr xi e|",
    test=drive.test,
)
variance = Axiom(
    "second moment of a dithered rounding",
    le(V, v0 + v1 * alpha * g + v2 * alpha**2 * g**2),
    citation="theory.theorems._dither, or R4, or R5",
    test=drive.test,
)
correlation = Axiom(
    "correlation of a dithered rounding",
    le(X, k0 + k1 * alpha * g),
    citation="theory.theorems._dither",
    test=drive.test,
)
coordinate = Derivation(
    "one dithered coordinate",
    givens=(),
    steps=(
        *cited(drive, size, square, variance, correlation),
        Step(
            le(SQUARE * g**2 - LINEAR * g - CONSTANT, (P - (L * S + rest * M1**2) / 2) / alpha),
            Combine(
                {
                    0: 1 / alpha,
                    1: rest * (M1 + alpha * g + BIAS) / (2 * alpha),
                    2: L / (2 * alpha),
                    3: L / (2 * alpha),
                    4: L / alpha,
                }
            ),
        ),
    ),
    statement=le(SQUARE * g**2 - LINEAR * g - CONSTANT, (P - (L * S + rest * M1**2) / 2) / alpha),
)
floor = summation("T25", TEST)


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T25", QUANTITY, tuple(checks))
    try:
        error = step_error(window)
    except (NoEnclosure, ValueError) as none:
        return Bound("T25", QUANTITY, (*checks, Hypothesis("the error of the step is enclosed", False, str(none))))
    checks.append(no_events(window, error.slots)[1])
    if not all(check.ok for check in checks):
        return Bound("T25", QUANTITY, tuple(checks))
    with working_precision(BITS):
        roots = []
        least = -math.inf
        for choice in _choices(window, error):
            rows = _coefficients(window, choice)
            smallest = min(ends(row[0])[0] for row in rows)
            least = max(least, smallest)
            if smallest > 0:
                total = fall(window) / (ball(window.scalars["scalar.lr"]) * window.steps)
                total = sum((row[2] for row in rows), total)
                ones = [arb(1)] * window.dimension
                roots.append(ends(weighted_root([x[0] for x in rows], [x[1] for x in rows], total, ones)))
    checks.append(Hypothesis("the coefficient A is positive", bool(roots), f"A = {least:.4g}"))
    if not roots:
        return Bound("T25", QUANTITY, tuple(checks))
    lower, upper = min(roots, key=lambda pair: pair[1])
    return Bound("T25", QUANTITY, tuple(checks), lower, upper, exponent=2, note=_note(window))


def _choices(window: Window, error: StepError) -> list[list[Dither]]:
    """For every coordinate what the dither gives (where it applies), and what always holds."""
    noise = ball(window.scalars["scalar.lr"]) * ball(float(window.hyperparameters["sigma"]))
    usual: list[list[Dither]] = []
    best: list[Dither] = []
    for k, (gap, eps) in enumerate(zip(gaps_visited(window), error.eps0, strict=True)):
        usual.append(adversarial(window, gap, noise, eps, error.eta))
        flat = uniform_gap(window, "w", k)
        found = None if flat is None else dithered(window, flat, noise, eps, error.eta)
        best.append(_smaller(usual[-1][0], found))
    return [best, *([row[j] for row in usual] for j in range(len(usual[0])))]


def _smaller(x: Dither, y: Dither | None) -> Dither:
    """Part by part the smaller of two bounds of one rounding."""
    if y is None:
        return x
    bias = y.bias if y.bias[0] < x.bias[0] else x.bias
    high, spread = (y.high, y.spread) if y.high < x.high else (x.high, x.spread)
    cross = y.cross if y.cross[0] < x.cross[0] else x.cross
    return Dither(bias, y.low, high, spread, cross)


def _coefficients(window: Window, choice: list[Dither]) -> list[tuple[Ball, Ball, Ball]]:
    symbols = [alpha, L, rest, sigma, b0, b1, v0, v1, v2, k0, k1]
    formulas = [compile_expression(x, symbols) for x in (SQUARE, LINEAR, CONSTANT)]
    lr, deviation = ball(window.scalars["scalar.lr"]), ball(float(window.hyperparameters["sigma"]))
    bends, rests = curvatures(window)
    rows = []
    for x, bend, further in zip(choice, bends, rests, strict=True):
        values = [lr, bend, further, deviation, *x.bias, x.high, *x.spread, *x.cross]
        row = [formula(values) for formula in formulas]
        rows.append((row[0], row[1], row[2]))
    return rows


def _note(window: Window) -> str:
    inside = sum(uniform_gap(window, "w", k) is not None for k in range(window.dimension))
    return "" if inside == window.dimension else f"{inside} of {window.dimension} coordinates stay inside one binade"


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    structure = one_subtraction(window)
    if not structure.ok:
        return (structure,)
    lr, deviation = window.scalars.get("scalar.lr", math.nan), window.hyperparameters.get("sigma", math.nan)
    widest = float(np.max(window.max_abs["w"])) if "w" in window.max_abs else math.nan
    known = isinstance(deviation, (int, float)) and 0 < deviation < math.inf
    return (
        structure,
        nearest_or_shrinking(window, ("w.sub", "w")),
        one_format_of_weights(window),
        Hypothesis("Gaussian noise", window.noise == "gaussian" and known, f"{window.noise}, sigma = {deviation}"),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        no_events(window)[0],
        not_flushed(window, ("w.sub", "w")),
        Hypothesis(
            "finite", math.isfinite(widest) and bool(np.all(np.isfinite(window.squared_gradient))), window.outcome
        ),
        Hypothesis(
            "w stays in the box", window.box is None or widest <= window.box, f"|w| up to {widest:.4g}, {window.box}"
        ),
    )


THEOREM = Theorem(
    identifier="T25",
    title="Gradient descent with Gaussian noise and rounded weights: the noise dithers the grid",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=floor.statement,
    derivations=(floor, coordinate, *LEMMAS, quadratic_root),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("sgd",),
    floor=True,
)
