"""T11: the floor of RMSprop with exact gradients, every operation rounded, whatever the program and its modes.

Model. v' >= a v + b g^2 - eta and step a = f lr y/D + t, low <= f <= high, |t| <= tiny, read off the program by
composition: eps outside or inside the root, fused products, any rounding mode in v and in the update; w' = fl(w - a)
to nearest or n-bit stochastic (variant A). y is the gradient that the machine has: rho g - e <= y <= r g + e along the
true gradient, g = |grad|. D is the denominator that the stored v' gives; the program of T12 has a second route, with
T12's means of stochastic roundings and D in exact arithmetic (``_deterministic_rmsprop``).

Statement. Averages over window and seeds satisfy sum (A_i y_i^2 - B_i y_i - C_i) <= (F_first - F*)/(lr T), where
y_i^2 = avg E grad_i^2/D_i, and the root of the quadratic bounds G = sqrt(avg E |grad|^2) <= sqrt(max D_i/A_i) Z with

    A = low rho - L p^2/(2 lr),   B = high e/sqrt(D_min) + omega sqrt(D_max)/lr + L (2 p q + k1 p)/(2 lr),
    C = L (q^2 + k1 q + k0)/(2 lr).

* p y + q >= the root mean square of a: Lemma A, p = 0 and q = lr sqrt(M A_v) + tiny, A_v = (-ln a + ln(v_T/v_0)/T)/b;
  or the smallest denominator, p = lr r sqrt(M/D_min) and q = lr e sqrt(M)/D_min + tiny: then RMSprop is gradient
  descent with the step lr/D, whose floor without errors is 0. Coordinate by coordinate either may be taken.
* weights. To nearest omega = min(Delta/2, rms a) + tiny, k1 = 2 omega, k0 = omega^2. Stochastic omega = 2^-n Delta +
  tiny, k1 = (2 2^-n + lambda) Delta, k0 = (4^-n + lambda 2^-n + (1 - lambda)/4) Delta^2 as in T8.

Lemma A alone gives G <= sqrt(sum ((D_max,i sqrt(A_v,i) + e_i)/rho)^2), whatever becomes of the weights: what the
window's largest v says of its gradients. The smallest of all is taken; this one matters where a coarse format leaves
no positive A or where omega/lr is large.

What it adds to T12 without noise: a step has the sign of its gradient, so relative errors of the update enter as the
factor low, not as a bias q; underflow in v, in the update and in the gradient stays inside the bound (a - eta/v_min in
the place of a; tiny; e); the second alternative for the size of the step; v_0 = 0, by Lemma A on v + eps^2; every mode
in v and the update, and every program of the form.

Tightness: sharp. Source: derived here; Lemma A as in Defossez et al., TMLR 2022, Lemma 5.2, with rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import sympy as sp
from flint import arb

from fpsim.rounding import Stochastic, is_nearest
from theory.derivation import Axiom, Combine, Derivation, Given, Identity, Instance, Step, cited, eq, le
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.rounding_model import shrinks
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems import _deterministic_rmsprop as numbers
from theory.theorems._floor_root import fall, gaps_visited, quadratic_root, summation, weighted_root
from theory.theorems._mean_rounding import LEMMAS as ROUNDING_LEMMAS
from theory.theorems._mean_rounding import moments
from theory.theorems._rmsprop_lemmas import logarithm
from theory.theorems._rmsprop_lemmas import r as RATIO
from theory.theorems.t08_stochastic_gd import measured, step_size
from theory.window import Window

QUANTITY = "root mean square of the gradient norm over window and seeds"
_TEST = "tests/theory/test_t11.py"

# one coordinate, one step, signs along the true gradient
g, y = (sp.Symbol(name, nonnegative=True) for name in ("g", "y"))
signed_y, signed_a, t = (sp.Symbol(name, real=True) for name in ("y_g", "a_g", "t"))
low, high, f, rho, reach, D, d0, alpha, L = sp.symbols("low high f rho r D d_0 alpha L", positive=True)
e, tiny = sp.symbols("e tiny", nonnegative=True)

PUSH = low * rho * g**2 / D - high * e * g / D - tiny * g / alpha  # <= grad a / alpha
push = Derivation(
    "a step has the sign of its gradient",
    givens=(
        le(rho * g - e, signed_y), le(low, f), le(f, high), le(-tiny, t), eq(signed_a, f * alpha * signed_y / D + t),
    ),
    steps=(
        Step(le(rho * g - e, signed_y), Given(), "the gradient handed over, along the true one"),
        Step(le(low, f), Given(), "composition of the update"),
        Step(le(f, high), Given()),
        Step(le(-tiny, t), Given(), "underflow"),
        Step(eq(signed_a, f * alpha * signed_y / D + t), Given(), "the step"),
        Step(
            le(PUSH, g * signed_a / alpha),
            Combine({0: f * g / D, 1: rho * g**2 / D, 2: e * g / D, 3: g / alpha, 4: -g / alpha}),
            "whatever the sign of y: the relative error costs a factor, the absolute ones a term linear in g",
        ),
    ),
    statement=le(PUSH, g * signed_a / alpha),
)  # fmt: skip

# the second moment, every run: v' >= a v + b y^2 - eta, v >= v_min
v, v1, kept, fresh, bottom = sp.symbols("v v_+ kappa b v_min", positive=True)
eta, shift = sp.symbols("eta delta", nonnegative=True)
underflow = Derivation(
    "underflow of the second moment",
    givens=(le(kept * v + fresh * y**2 - eta, v1), le(bottom, v)),
    steps=(
        Step(le(kept * v + fresh * y**2 - eta, v1), Given(), "composition"),
        Step(le(bottom, v), Given(), "the smallest v of the window"),
        Step(le((kept - eta / bottom) * v + fresh * y**2, v1), Combine({0: 1, 1: eta / bottom})),
    ),
    statement=le((kept - eta / bottom) * v + fresh * y**2, v1),
)
shifted = Derivation(
    "a shifted second moment",
    givens=(le(kept * v + fresh * y**2 - eta, v1), le(kept, 1)),
    steps=(
        Step(le(kept * v + fresh * y**2 - eta, v1), Given()),
        Step(le(kept, 1), Given()),
        Step(
            le(kept * (v + shift) + fresh * y**2 - eta, v1 + shift),
            Combine({0: 1, 1: shift}),
            "D^2 >= v + delta with delta = eps^2, or eps if it is inside the root: v may start at 0",
        ),
    ),
    statement=le(kept * (v + shift) + fresh * y**2 - eta, v1 + shift),
)
increment = Derivation(
    "the new gradient is a logarithmic increment",
    givens=(le(kept * v + fresh * y**2, v1),),
    steps=(
        Step(le(kept * v + fresh * y**2, v1), Given()),
        Step(le(fresh * y**2 / v1, 1 - kept * v / v1), Combine({0: 1 / v1})),
        Step(le(1 - kept * v / v1, -sp.log(kept * v / v1)), Instance(logarithm, {RATIO: kept * v / v1})),
        Step(eq(-sp.log(kept * v / v1), sp.log(v1) - sp.log(v) - sp.log(kept)), Identity()),
        Step(le(fresh * y**2 / v1, sp.log(v1) - sp.log(v) - sp.log(kept)), Combine({1: 1, 2: 1, 3: 1})),
    ),
    statement=le(fresh * y**2 / v1, sp.log(v1) - sp.log(v) - sp.log(kept)),
)
share = sp.Symbol("share", nonnegative=True)  # avg E y^2/v'
grown, rise = sp.symbols("grown rise", real=True)  # avg E (ln v' - ln v), and its bound
averaged = Axiom(
    "the logarithmic increment, averaged",
    le(fresh * share, grown - sp.log(kept)),
    citation="the derivation 'the new gradient is a logarithmic increment', affine in what is averaged",
    test=f"{_TEST}::test_lemma_a_of_every_run",
)
telescoped = Axiom(
    "the logarithm, telescoped",
    le(grown, rise),
    citation="avg (ln v_{t+1} - ln v_t) = (ln v_T - ln v_0)/T <= rise",
    test=f"{_TEST}::test_lemma_a_of_every_run",
)
SHARE = (rise - sp.log(kept)) / fresh
lemma_a = Derivation(
    "Lemma A of every run",
    givens=(),
    steps=(
        *cited(averaged, telescoped),
        Step(le(share, SHARE), Combine({0: 1 / fresh, 1: 1 / fresh})),
    ),
    statement=le(share, SHARE),
)

# averages over window and seeds: yy^2 of g^2/D, size = rms a
yy, p, q, k1, k0, omega, Db, M, size, moved, inverse = sp.symbols(
    "yy p q k_1 k_0 omega Dbar M size S inverse", nonnegative=True
)
gain, N = sp.symbols("gain N", real=True)
rms_step = Axiom(
    "root mean square of the step",
    le(size, alpha * sp.sqrt(M) * (reach * yy + e / sp.sqrt(d0)) / sp.sqrt(d0) + tiny),
    citation="Minkowski: a = f alpha y/D + t, |y| <= r g + e, 1/D^2 <= 1/(d_0 D)",
    test=f"{_TEST}::test_sizes_of_the_step",
)
SLOPE, LEVEL = alpha * sp.sqrt(M) * reach / sp.sqrt(d0), alpha * sp.sqrt(M) * e / d0 + tiny
smallest_denominator = Derivation(
    "size of a step with a denominator bounded below",
    givens=(eq(p, SLOPE), eq(q, LEVEL)),
    steps=(
        Step(rms_step.conclusion, Instance(rms_step)),
        Step(eq(p, SLOPE), Given()),
        Step(eq(q, LEVEL), Given()),
        Step(le(size, p * yy + q), Combine({0: 1, 1: -yy, 2: -1}), "gradient descent with the step alpha/D"),
    ),
    statement=le(size, p * yy + q),
)

pushed = Axiom(
    "a step has the sign of its gradient, averaged",
    le(low * rho * yy**2 - high * e * inverse, N),
    citation="the derivation of that name; inverse = avg E g/D, N = avg E grad (a - t)/alpha",
    test=f"{_TEST}::test_push_of_the_step",
)
cauchy = Axiom(
    "Cauchy-Schwarz in the norm 1/D",
    le(inverse, yy / sp.sqrt(d0)),
    citation="avg g/D <= sqrt(avg g^2/D) sqrt(avg 1/D), D >= d_0",
    test=f"{_TEST}::test_push_of_the_step",
)
stored = Axiom(
    "storing the weight, with underflow",
    le(N - omega * sp.sqrt(Db) / alpha * yy, gain),
    citation="gain = -avg E grad s/alpha; |E[s + a - t]| <= omega: to nearest half a gap and |a| (R6), else 2^-n gap",
    test="tests/theory/test_t08.py::test_step_of_a_stored_weight",
)
square_of_step = Axiom(
    "size of the stored step",
    le(moved, size**2 + k1 * size + k0),
    citation="S = avg E s^2. To nearest |s| <= |a| + omega; stochastic: the derivation 'second moment of the step'",
    test="tests/theory/test_t08.py::test_step_of_a_stored_weight",
)
SQUARE = low * rho - L * p**2 / (2 * alpha)
LINEAR = high * e / sp.sqrt(d0) + omega * sp.sqrt(Db) / alpha + L * (2 * p * q + k1 * p) / (2 * alpha)
CONSTANT = L * (q**2 + k1 * q + k0) / (2 * alpha)
_COORDINATE = le(SQUARE * yy**2 - LINEAR * yy - CONSTANT, gain - L * moved / (2 * alpha))
coordinate = Derivation(
    "T11, one coordinate",
    givens=(le(size, p * yy + q),),
    steps=(
        Step(le(size, p * yy + q), Given(), "Lemma A or the smallest denominator"),
        *cited(pushed, cauchy, stored, square_of_step),
        Step(
            _COORDINATE,
            Combine({0: L * (size + p * yy + q + k1) / (2 * alpha), 1: 1, 2: high * e, 3: 1, 4: L / (2 * alpha)}),
        ),
    ),
    statement=_COORDINATE,
)
floor = summation("T11", _TEST)

Gi, Y = sp.symbols("G_i Y", nonnegative=True)  # rms grad_i, rms y
seen = Axiom(
    "gradient from its share",
    le(Y, Db * sp.sqrt(share)),
    citation="y^2 = D^2 (y/D)^2 <= Dbar^2 (y/D)^2; share = avg E y^2/D^2 here",
    test=f"{_TEST}::test_sizes_of_the_step",
)
true = Axiom(
    "true gradient from the machine's",
    le(rho * Gi - e, Y),
    citation="Minkowski: |y| >= rho g - e in every step",
    test=f"{_TEST}::test_sizes_of_the_step",
)
ALONE = (Db * sp.sqrt(share) + e) / rho
alone = Derivation(
    "Lemma A alone",
    givens=(),
    steps=(
        *cited(seen, true),
        Step(le(Gi, ALONE), Combine({0: 1 / rho, 1: 1 / rho}), "whatever becomes of the weights"),
    ),
    statement=le(Gi, ALONE),
)


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(numbers.hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T11", QUANTITY, tuple(checks))
    last = dict(window.program.outputs)["w"]
    mode = window.slots[last][1]
    checks.append(
        Hypothesis("w to nearest or stochastic, variant A", is_nearest(mode) or shrinks(mode), f"{last}: {mode}")
    )
    found, missing = numbers.routes(window)
    checks.append(Hypothesis("step and v are those of RMSprop", bool(found), "; ".join(missing)))
    if not all(check.ok for check in checks):
        return Bound("T11", QUANTITY, tuple(checks))
    with working_precision(BITS):
        alone_ = [_alone(route) for route in found]
        roots = list(alone_)
        for route, weight in itertools.product(found, _weights(mode)):
            roots += _roots(window, route, weight)
    lower, upper = min(roots, key=lambda pair: pair[1])
    checks.append(Hypothesis("a finite root", math.isfinite(upper), f"{upper:.4g}"))
    if not checks[-1].ok:
        return Bound("T11", QUANTITY, tuple(checks))
    note = "Lemma A alone: what the window's largest v says" if (lower, upper) in alone_ else ""
    return Bound("T11", QUANTITY, tuple(checks), lower, upper, exponent=2, note=note)


def _alone(route: numbers.Route) -> tuple[float, float]:
    """The bound of Lemma A alone."""
    cap = compile_expression(ALONE, [Db, share, e, rho])
    each = (cap([*x, route.rho]) for x in zip(route.most, route.mean_square, route.error, strict=True))
    return ends(sum((x**2 for x in each), arb(0)).sqrt())


def _weights(mode: object) -> tuple[sp.Rational, ...]:
    everything = (sp.Rational(0), sp.Rational(1, 2), sp.Rational(1))
    return everything if isinstance(mode, Stochastic) else everything[:1]


def _roots(window: Window, route: numbers.Route, weight: sp.Rational) -> Iterator[tuple[float, float]]:
    """The root for Lemma A, for the smallest denominators, and for the better one of each coordinate."""
    lr = ball(window.scalars["scalar.lr"])
    symbols = [low, rho, L, alpha, high, e, d0, Db, p, q, k1, k0, omega]
    formulas = [compile_expression(x, symbols) for x in (SQUARE, LINEAR, CONSTANT)]
    gaps, bends = gaps_visited(window), numbers.curvatures(window)
    rows: tuple[list[tuple[Ball, ...]], list[tuple[Ball, ...]]] = ([], [])
    for k in range(window.dimension):
        for column, (slope, level) in zip(rows, numbers.sizes(window, route, k), strict=True):
            first, rest, off = storing(window, gaps[k], level if column is rows[0] else None, weight)
            values = [route.low, route.rho, bends[k], lr, route.high, route.error[k], route.least[k], route.most[k]]
            values += [slope, level, first, rest, off + route.tiny]
            column.append(tuple(formula(values) for formula in formulas))
    remembers, bounded = rows
    better = [y if y[0] > x[0] / 2 and y[2] < x[2] / 2 else x for x, y in zip(remembers, bounded, strict=True)]
    drop = fall(window) / (lr * window.steps)
    for column in (remembers, bounded, better):
        if all(bool(row[0] > 0) for row in column):
            total = sum((row[2] for row in column), drop)
            root = weighted_root([row[0] for row in column], [row[1] for row in column], total, route.most)
            yield ends(root)


def storing(window: Window, gap: Ball, level: Ball | None, weight: sp.Rational) -> tuple[Ball, Ball, Ball]:
    """(k1, k0, |E[s + a]|) of storing w; ``level`` is the rms step where that does not depend on the gradient."""
    slot = dict(window.program.outputs)["w"]
    rounding = moments(*window.slots[slot])
    if is_nearest(window.slots[slot][1]):
        off = gap / 2 if level is None else (gap / 2).min(level)
        return 2 * off, off**2, off
    lam, bias = arb(int(weight.p)) / int(weight.q), rounding.bias
    return (2 * bias + lam) * gap, (bias**2 + lam * bias + (1 - lam) / 4) * gap**2, bias * gap


THEOREM = Theorem(
    identifier="T11",
    title="RMSprop with exact gradients: the floor, for every program and rounding mode",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=floor.statement,
    derivations=(
        floor, coordinate, push, alone, lemma_a, increment, underflow, shifted, smallest_denominator, quadratic_root,
        step_size, *ROUNDING_LEMMAS,
    ),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop",),
    floor=True,
)  # fmt: skip
