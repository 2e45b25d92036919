"""T26: RMSprop with exact gradients and weights rounded to nearest: frozen, or moved by at least part of the step.

Model and notation of T11 (composed route): g = |grad|, a the computed step, D the denominator, y_i^2 = avg g_i^2/D_i.

Two regimes. A coordinate in a step is frozen, |a| <= Delta/2 (R6), or moves by s, against a, with

    kappa |a| <= |s| <= 2 |a|,   kappa = 2/3 while |w_i| stays in one binade, 1/2 otherwise.

Where it is frozen, low rho g/sqrt(D) <= sqrt(D) (Delta/2 + tiny)/lr + high e/sqrt(D); where it moves, the push of T11
counts kappa times.

Statement. Averages over window and seeds satisfy sum (A_i y_i^2 - B_i y_i - C_i) <= (F_first - F*)/(lr T) with

    A = kappa low rho - L p^2/(2 lr),   B = 2 high e/sqrt(D_min) + 2 tiny sqrt(D_max)/lr + L (2 p q + k1 p)/(2 lr),
    C = kappa low rho Z + L (q^2 + k1 q + k0)/(2 lr),
    sqrt(Z) low rho = sqrt(D_max) (Delta/2 + tiny)/lr + high e/sqrt(D_min),

where avg s^2 <= size^2 + k1 size + k0, size <= p y + q: the sizes a priori of T11, or p = q = k1 = 0 and k0 the squared
moves of the run. These are a sampled quantity (``Window.samples["squared_move"]``): its upper 99.9 % confidence limit
over the seeds stands for the mean, with the largest curvature for every coordinate. Without it the sizes a priori are
used, and the bound is close to T11's: T11 pays omega sqrt(D_max)/lr once, this theorem kappa < 1 and no cross term.

Why kappa: rounding w - a to nearest overshoots what it moves by at most half the gap behind the point where it lands.
That gap is at most |s| in the binade of w, inward and beyond zero, and at most 2 |s| behind a power of two. "One
gap for half a gap to one and a half", hence 2/3, is wrong across a binade: with gap 1 up to a power of two and 2 behind
it, all of (1/2, 2) moves by 1. Without subnormal numbers zero stands alone between wide gaps, and |s| can be a third of
|a|: such formats are left out.

Tightness: sharp. Source: derived here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import is_nearest
from theory.axioms import NEAREST_MOVES, NEAREST_STAYS
from theory.composition import NoEnclosure
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Sign, Step, cited, le
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems import _deterministic_rmsprop as numbers
from theory.theorems import t11_deterministic_rmsprop as t11
from theory.theorems._floor_root import fall, gaps_visited, quadratic_root, summation, weighted_root
from theory.theorems.t08_stochastic_gd import measured
from theory.theorems.t11_deterministic_rmsprop import (
    PUSH,
    QUANTITY,
    D,
    Db,
    L,
    alpha,
    cauchy,
    d0,
    e,
    gain,
    high,
    inverse,
    k0,
    k1,
    low,
    moved,
    p,
    push,
    q,
    rho,
    size,
    square_of_step,
    tiny,
    yy,
)  # fmt: skip
from theory.verdict import confidence_interval
from theory.window import Window

_TEST = "tests/theory/test_t26.py"
a, s, half = sp.symbols("a s half", nonnegative=True)
kappa = sp.Symbol("kappa", positive=True)
g = sp.Symbol("g", positive=True)
g0 = t11.g
UNIT = {kappa: sp.Interval.Lopen(0, 1)}
SHOVE = PUSH.subs(g0, g)  # <= grad a / alpha, a along the gradient
CREDIT = kappa * low * rho * g**2 / D - 2 * high * e * g / D - 2 * tiny * g / alpha

moves_enough = Axiom(
    "R6, moving enough",
    le(kappa * a, s),
    citation="to nearest, w on the grid, fl(w - a) /= w: |s| >= |a|/2, and 2|a|/3 if w and fl(w - a) share a binade",
    test=f"{_TEST}::test_a_step_that_moves",
)
forward = Derivation(
    "a move along the gradient",
    givens=(le(SHOVE, g * a / alpha),),
    steps=(
        Step(moves_enough.conclusion, Instance(moves_enough)),
        Step(le(SHOVE, g * a / alpha), Given(), "T11: a step has the sign of its gradient"),
        Step(le(0, (2 - kappa) * (high * e * g / D + tiny * g / alpha)), Sign()),
        Step(le(CREDIT, g * s / alpha), Combine({0: g / alpha, 1: kappa, 2: 1}), "-grad s = g |s|"),
    ),
    statement=le(CREDIT, g * s / alpha),
    domain=UNIT,
)
backward = Derivation(
    "a move against the gradient",
    givens=(le(SHOVE, -g * a / alpha),),
    steps=(
        Step(le(s, 2 * a), Instance.of_names(NEAREST_MOVES, s=s, a=a)),
        Step(le(SHOVE, -g * a / alpha), Given(), "the errors e or tiny turned the step around"),
        Step(le(0, (2 - kappa) * low * rho * g**2 / D), Sign()),
        Step(le(CREDIT, -g * s / alpha), Combine({0: g / alpha, 1: 2, 2: 1}), "-grad s = -g |s|"),
    ),
    statement=le(CREDIT, -g * s / alpha),
    domain=UNIT,
)
ZONE = (sp.sqrt(D) * (half + tiny) / alpha + high * e / sp.sqrt(D)) ** 2
frozen = Derivation(
    "a frozen coordinate",
    givens=(le(SHOVE, g * a / alpha),),
    steps=(
        Step(le(a, half), Instance.of_names(NEAREST_STAYS, a=a, half=half)),
        Step(le(SHOVE, g * a / alpha), Given(), "a may have either sign; |a| is what matters"),
        Step(
            le(low**2 * rho**2 * g**2 / D, ZONE),
            Combine({
                0: D / g * (low * rho * g / D + (half + tiny) / alpha + high * e / D) * g / alpha,
                1: D / g * (low * rho * g / D + (half + tiny) / alpha + high * e / D),
            }),
            "(low rho)^2 g^2/D is at most the zone",
        ),
    ),
    statement=le(low**2 * rho**2 * g**2 / D, ZONE),
)  # fmt: skip

Xm = sp.Symbol("X_m", nonnegative=True)
Z, mean = sp.symbols("Z mean", nonnegative=True)
split = Axiom(
    "moved or frozen",
    le(yy**2, Xm + Z),
    citation="y^2 = X_m + X_f over moved and frozen steps; X_f <= Z by 'a frozen coordinate', D between d_0 and Dbar",
    test=f"{_TEST}::test_frozen_zone",
)
credited = Axiom(
    "moves, averaged",
    le(kappa * low * rho * Xm - 2 * high * e * inverse - 2 * tiny * mean / alpha, gain),
    citation="the derivations 'a move along/against the gradient'; a frozen step gains 0; mean = avg g",
    test=f"{_TEST}::test_frozen_zone",
)
weighted = Axiom(
    "Cauchy-Schwarz with D",
    le(mean, sp.sqrt(Db) * yy),
    citation="avg g <= sqrt(avg g^2/D) sqrt(avg D)",
    test="tests/theory/test_t11.py::test_push_of_the_step",
)
SQUARE = kappa * low * rho - L * p**2 / (2 * alpha)
LINEAR = 2 * high * e / sp.sqrt(d0) + 2 * tiny * sp.sqrt(Db) / alpha + L * (2 * p * q + k1 * p) / (2 * alpha)
CONSTANT = kappa * low * rho * Z + L * (q**2 + k1 * q + k0) / (2 * alpha)
ROOT_OF_ZONE = (sp.sqrt(Db) * (half + tiny) / alpha + high * e / sp.sqrt(d0)) / (low * rho)
_COORDINATE = le(SQUARE * yy**2 - LINEAR * yy - CONSTANT, gain - L * moved / (2 * alpha))
coordinate = Derivation(
    "T26, one coordinate",
    givens=(le(size, p * yy + q),),
    steps=(
        Step(le(size, p * yy + q), Given(), "a priori; 0 if the moves were measured"),
        *cited(split, credited, cauchy, weighted, square_of_step),
        Step(
            _COORDINATE,
            Combine({
                0: L * (size + p * yy + q + k1) / (2 * alpha), 1: kappa * low * rho, 2: 1, 3: 2 * high * e,
                4: 2 * tiny / alpha, 5: L / (2 * alpha),
            }),
        ),
    ),
    statement=_COORDINATE,
)  # fmt: skip
floor = summation("T26", _TEST)


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(numbers.hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T26", QUANTITY, tuple(checks))
    last = dict(window.program.outputs)["w"]
    mode = window.slots[last][1]
    checks.append(Hypothesis("w to nearest", is_nearest(mode), f"{last}: {mode}"))
    fmt = window.slots["w"][0]
    checks.append(Hypothesis("the grid of w has no hole around 0", fmt.subnormals, f"{fmt.name}: subnormal numbers"))
    name = "step and v are those of RMSprop"
    try:
        with working_precision(BITS):
            route = numbers.composed(window)
        fits = all(bool(x > 0) for x in (route.low, route.rho, *route.least))
        smallest = min(float(x) for x in route.least)
        checks.append(
            Hypothesis(name, fits, f"low = {route.low.str(4)}, rho = {route.rho.str(4)}, D >= {smallest:.3g}")
        )
    except (NoEnclosure, ValueError) as none:
        return Bound("T26", QUANTITY, (*checks, Hypothesis(name, False, str(none))))
    if not all(check.ok for check in checks):
        return Bound("T26", QUANTITY, tuple(checks))
    with working_precision(BITS):
        roots = list(_roots(window, route))
    lower, upper = min(roots, key=lambda pair: pair[1], default=(math.nan, math.inf))
    checks.append(Hypothesis("a finite root", math.isfinite(upper), f"{upper:.4g}"))
    if not checks[-1].ok:
        return Bound("T26", QUANTITY, tuple(checks))
    seen = squared_moves(window)
    note = "squared moves a priori" if seen is None else f"squared moves of the run: at most {seen:.4g} a step"
    return Bound("T26", QUANTITY, tuple(checks), lower, upper, exponent=2, note=note)


def squared_moves(window: Window) -> float | None:
    """Upper 99.9 % confidence limit of avg E |w' - w|^2; None if the window has no finite one."""
    samples = window.samples.get("squared_move")
    if samples is None or not np.all(np.isfinite(samples)):
        return None
    limit = confidence_interval(np.mean(samples, axis=0))[1]
    return limit if math.isfinite(limit) else None


def shares_of_step(window: Window) -> list[sp.Rational]:
    """[d]: kappa. Each seed's |w_i| must stay in one binade of its own for 2/3."""
    emin = window.slots["w"][0].emin
    low_, high_ = (np.maximum(np.frexp(x["w"])[1] - 1, emin) for x in (window.min_abs, window.max_abs))
    still = np.all((low_ == high_) & (window.min_abs["w"] > 0), axis=1)
    return [sp.Rational(2, 3) if one else sp.Rational(1, 2) for one in still]


def _roots(window: Window, route: numbers.Route) -> Iterator[tuple[float, float]]:
    """The root for the sizes a priori (memory, smallest denominators) and for the measured moves."""
    lr = ball(window.scalars["scalar.lr"])
    symbols = [kappa, low, rho, L, alpha, high, e, d0, Db, tiny, p, q, k1, k0, Z]
    formulas = [compile_expression(x, symbols) for x in (SQUARE, LINEAR, CONSTANT)]
    zone = compile_expression(ROOT_OF_ZONE**2, [Db, half, tiny, alpha, high, e, d0, low, rho])
    gaps, bends, shares = gaps_visited(window), numbers.curvatures(window), shares_of_step(window)
    none = arb(0)
    rows: tuple[list[tuple[Ball, ...]], ...] = ([], [], [])
    for k in range(window.dimension):
        share = arb(int(shares[k].p)) / int(shares[k].q)
        error, least, most = route.error[k], route.least[k], route.most[k]
        still = zone([most, gaps[k] / 2, route.tiny, lr, route.high, error, least, route.low, route.rho])
        sizes = [*numbers.sizes(window, route, k), (none, none)]
        for column, (slope, level) in zip(rows, sizes, strict=True):
            first, rest = none, none
            if column is not rows[2]:
                first, rest, _ = t11.storing(window, gaps[k], level if column is rows[0] else None, sp.Rational(0))
            values = [share, route.low, route.rho, bends[k], lr, route.high, error, least, most, route.tiny]
            column.append(tuple(formula([*values, slope, level, first, rest, still]) for formula in formulas))
    drop = fall(window) / (lr * window.steps)
    seen = squared_moves(window)
    measured_size = None if seen is None else ball(window.smoothness) * ball(seen) / (2 * lr)
    for column, moves in zip(rows, (none, none, measured_size), strict=True):
        if moves is not None and all(bool(row[0] > 0) for row in column):
            total = sum((row[2] for row in column), drop + moves)
            root = weighted_root([row[0] for row in column], [row[1] for row in column], total, route.most)
            yield ends(root)


THEOREM = Theorem(
    identifier="T26",
    title="RMSprop with exact gradients and weights to nearest: frozen or moved, two regimes",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=floor.statement,
    derivations=(floor, coordinate, forward, backward, frozen, push, quadratic_root),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop",),
    floor=True,
)
