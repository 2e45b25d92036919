"""T9: the dither law: gradient descent with Gaussian noise on a separable quadratic, weights rounded on a uniform grid.

Model. w' = fl(w - s), s the computed lr (h z + xi), z = w - x*, xi Gaussian with standard deviation sigma; w_i stays in
one binade with gap Delta; r = lr sigma/Delta, k = 1 - lr h, |k| < 1.

Hypotheses. To nearest or stochastic, variant A, in w.sub; Gaussian noise of known sigma; a diagonal Hessian and the
minimiser known; no overflow, no underflow in the step; every coordinate inside one binade.

Statement. e = fl(w - s) - (w - lr (h z + xi)) has a mean of at most b given w (``_dither``), and lr xi - e without that
mean is a martingale difference whose mean square lies in [q0, q1] = lr^2 sigma^2 + Delta^2/12 (to nearest) or Delta^2/6
(stochastic) up to O(exp(-2 pi^2 r^2)) and the error of the step. The window's average Z^2 = avg E z^2 satisfies

    sqrt(U(q0)) - b/(1-|k|) <= Z <= sqrt(U(q1)) + b/(1-|k|),
    U(q) = V + (z_0^2 - V)(1 - k^(2T))/(T (1-k^2)),   V = q/(1-k^2) = q/(lr h (2 - lr h)).

As T grows and r >= 1/2: Z^2 = (lr^2 sigma^2 + Delta^2/12 or 6)/(lr h (2 - lr h)). G^2 = sum h_i^2 Z_i^2 is compared.

Commensurate grids: a step that lies on a coarse lattice itself is no dither; its rounding error, at most eta (|lr h z|
+ |lr xi|), is part of b, q0 and q1, which then say little: the law widens instead of failing.
Tightness: law. Source: derived here; non-subtractive dither as in Widrow and Kollar, Quantization Noise, 2008.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import is_nearest
from theory.composition import NoEnclosure
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, cited, eq, le
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.rounding_model import shrinks
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
from theory.theorems._dither import LEMMAS, Dither, dithered, step_error, uniform_gap
from theory.theorems._floor_root import root_is_monotone
from theory.theorems._floor_root import x as _root_x
from theory.theorems._floor_root import y as _root_y
from theory.theorems.t08_stochastic_gd import QUANTITY, measured
from theory.window import Window

TEST = "tests/theory/test_t09.py"
MEASURED = 2.0**-38  # relative error of a squared gradient computed in binary64

T = sp.Symbol("T", positive=True)
k = sp.Symbol("k", nonnegative=True)  # |1 - lr h|
kT = sp.Symbol("k_T", nonnegative=True)  # k^(2T)
q, q0, q1, z0, zT, b, Z = (sp.Symbol(s, nonnegative=True) for s in ("q", "q_0", "q_1", "z_0", "z_T", "b", "Z"))
U, U1, M = sp.symbols("U U_1 M", nonnegative=True)  # mean square, its upper end and its root: the martingale part
CONTRACTS = {k: sp.Interval.Ropen(0, 1), kT: sp.Interval(0, 1)}


def variance(source: sp.Expr) -> sp.Expr:
    """U of the docstring."""
    limit = source / (1 - k**2)
    return limit + (z0**2 - limit) * (1 - kT) / (T * (1 - k**2))


_telescoped = Axiom(
    "scalar recursion: averaged over the window",
    eq(U, k**2 * U + q + (z0**2 - zT) / T),
    citation="E y'^2 = k^2 E y^2 + q for uncorrelated increments of mean square q, summed over T steps",
    test=f"{TEST}::test_recursion",
)
_last = Axiom(
    "scalar recursion: after T steps",
    eq(zT, q / (1 - k**2) + kT * (z0**2 - q / (1 - k**2))),
    citation="E y_T^2 - V = k^(2T) (y_0^2 - V)",
    test=f"{TEST}::test_recursion",
)
martingale = Derivation(
    "T9, martingale part",
    givens=(),
    steps=(
        *cited(_telescoped, _last),
        Step(eq(U, variance(q)), Combine({0: 1 / (1 - k**2), 1: -1 / (T * (1 - k**2))})),
    ),
    statement=eq(U, variance(q)),
    domain=CONTRACTS,
)
_above = Axiom(
    "bounded means, from above",
    le(Z, M + b / (1 - k)),
    citation="Minkowski: the response to conditional means of at most b is at most b (1 + k + k^2 + ..)",
    test=f"{TEST}::test_recursion",
)
_below = Axiom(
    "bounded means, from below", le(M, Z + b / (1 - k)), citation=_above.citation, test=f"{TEST}::test_recursion"
)
_largest = Axiom(
    "mean squares of the increments, from above",
    le(M**2, variance(q1)),
    citation="'martingale part', increasing in every increment's mean square",
    test=f"{TEST}::test_recursion",
)
_smallest = Axiom(
    "mean squares of the increments, from below",
    le(variance(q0), M**2),
    citation=_largest.citation,
    test=f"{TEST}::test_recursion",
)
law = Derivation(
    "T9",
    givens=(eq(U1, variance(q1)),),
    steps=(
        *cited(_above, _largest),
        Step(eq(U1, variance(q1)), Given(), "'martingale part' at the largest mean square of an increment"),
        Step(le(M**2, U1), Combine({1: 1, 2: -1})),
        Step(le(M, sp.sqrt(U1)), Instance(root_is_monotone, {_root_x: M, _root_y: U1})),
        Step(le(Z, sp.sqrt(U1) + b / (1 - k)), Combine({0: 1, 4: 1})),
    ),
    statement=le(Z, sp.sqrt(U1) + b / (1 - k)),
    domain=CONTRACTS,
)
lower = Derivation(
    "T9, from below",
    givens=(),
    steps=(
        *cited(_below, _smallest),
        Step(le(variance(q0), (Z + b / (1 - k)) ** 2), Combine({1: 1, 0: M + Z + b / (1 - k)})),
    ),
    statement=le(variance(q0), (Z + b / (1 - k)) ** 2),
    domain=CONTRACTS,
)


def evaluate_bound(window: Window) -> Bound:
    """The law's enclosure for a cell; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T9", QUANTITY, tuple(checks), two_sided=True)
    try:
        error = step_error(window)
    except (NoEnclosure, ValueError) as none:
        failed = Hypothesis("the error of the step is enclosed", False, str(none))
        return Bound("T9", QUANTITY, (*checks, failed), two_sided=True)
    checks.append(no_events(window, error.slots)[1])
    with working_precision(BITS):
        noise = ball(window.scalars["scalar.lr"]) * ball(float(window.hyperparameters["sigma"]))
        gaps = [uniform_gap(window, "w", i) for i in range(window.dimension)]
        found = [
            None if gap is None else dithered(window, gap, noise, eps, error.eta)
            for gap, eps in zip(gaps, error.eps0, strict=True)
        ]
        inside = [x for x in found if x is not None]
        detail = f"{len(inside)} of {window.dimension} coordinates, and the step's error within a quarter of a gap"
        checks.append(Hypothesis("every coordinate stays inside one binade", len(inside) == len(found), detail))
        if not all(check.ok for check in checks):
            return Bound("T9", QUANTITY, tuple(checks), two_sided=True)
        pairs = [_coordinate(window, i, x, noise) for i, x in enumerate(inside)]
        low = sum((x for x, _ in pairs), arb(0)) * (1 - MEASURED)
        high = sum((x for _, x in pairs), arb(0)) * (1 + MEASURED)
        limits = ends(low.nonnegative_part().sqrt())[0], ends(high.sqrt())[1]
    return Bound("T9", QUANTITY, tuple(checks), max(limits[0], 0.0), limits[1], exponent=2, two_sided=True)


def _coordinate(window: Window, i: int, x: Dither, noise: Ball) -> tuple[Ball, Ball]:
    """Ends of h^2 Z^2 of one coordinate."""
    assert window.hessian is not None
    assert window.minimizer is not None
    h, lr, center = ball(float(window.hessian[i])), ball(window.scalars["scalar.lr"]), float(window.minimizer[i])
    # the largest distance that the extremes of |w| allow; w keeps its sign in a binade
    far = max(float(np.max(window.max_abs["w"][i])), 0.0)
    sign = 1.0 if center >= 0 else -1.0
    reach = [sign * far, sign * float(np.min(window.min_abs["w"][i]))]
    if np.any(np.sign(window.start["w"][i]) != sign) or float(np.min(window.min_abs["w"][i])) == 0.0:
        reach = [far, -far]
    m = lr * h * max(abs(ball(v) - ball(center)) for v in reach)
    bias = x.bias[0] + x.bias[1] * m
    further = x.spread[0] * m + x.spread[1] * m**2 + 2 * (x.cross[0] + x.cross[1] * m)
    least, most = noise**2 + x.low - further - bias**2, noise**2 + x.high + further
    factor = abs(1 - lr * h)
    squares = [(ball(float(w)) - ball(center)) ** 2 for w in window.start["w"][i]]
    start = sum(squares, arb(0)) / window.seeds
    formula = compile_expression(variance(q), [k, kT, T, z0, q])
    below, above = (
        formula([factor, factor ** (2 * window.steps), ball(window.steps), start.sqrt(), y.max(arb(0))])
        for y in (least, most)
    )
    gain = bias / (1 - factor)
    low = (below.nonnegative_part().sqrt() - gain).max(arb(0))
    return (h * low) ** 2, (h * (above.sqrt() + gain)) ** 2


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    slots, structure = window.slots, one_subtraction(window)
    if not structure.ok:
        return (structure,)
    quadratic = window.hessian is not None and window.hessian.ndim == 1 and bool(np.all(window.hessian > 0))
    known = quadratic and window.minimizer is not None and "w" in window.max_abs and "w" in window.start
    mode = slots["w.sub"][1]
    lr, deviation = window.scalars.get("scalar.lr", math.nan), window.hyperparameters.get("sigma", math.nan)
    noisy = window.noise == "gaussian" and isinstance(deviation, (int, float)) and 0 < deviation < math.inf
    largest = lr * float(np.max(window.hessian)) if quadratic and window.hessian is not None else math.nan
    return (
        structure,
        Hypothesis("a separable quadratic with a known minimiser", known, f"Hessian known: {quadratic}"),
        Hypothesis("round to nearest or stochastic, variant A", is_nearest(mode) or shrinks(mode), str(mode)),
        one_format_of_weights(window),
        Hypothesis("Gaussian noise", noisy, f"{window.noise}, sigma = {deviation}"),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        Hypothesis("lr h < 2", largest * (1 + 2.0**-40) < 2, f"lr h = {largest:.6g}"),
        no_events(window)[0],
        not_flushed(window, ("w.sub", "w")),
        Hypothesis("finite", bool(np.all(np.isfinite(window.squared_gradient))), window.outcome),
    )


THEOREM = Theorem(
    identifier="T9",
    title="The dither law: rounded weights, Gaussian noise and a quadratic",
    quantity=QUANTITY,
    tightness="law",
    source="derived here",
    statement=law.statement,
    derivations=(law, lower, martingale, *LEMMAS),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("sgd",),
)
