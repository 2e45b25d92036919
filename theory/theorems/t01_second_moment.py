"""T1: a rounded second moment lies between two moving averages with other decays: the effective beta2.

Model. v' = fl(fl(B v) + i), i = fl(c fl(g^2)) with the stored B = fl(beta2), c = fl(1 - beta2), or any other order of
operations from which composition finds B v and c g^2 times factors. Exact arithmetic on the same stored gradients, with
the same B and c and from the same recorded start: r' = B r + c g^2.

Statement. Along the record V- <= v <= V+, both equal to v at its start, with

    V+' = a+ V+ + b+ g^2 + A,   V-' = a- V- + b- g^2 - A,

a+ = B h^2, b+ = c h^3, a- = B l^2, b- = c l^3 for one rounding each of product, sum, square and injection, slot by
slot; A from underflow. So rounding replaces beta2 by a- and a+, and the relative error of a v fed with ever smaller
gradients grows with the number of steps. Constant |g|: v/g^2 lies between b-/(1 - a-) and b+/(1 - a+), first order
1 -+ u (3 - B)/(1 - B).

Where product and sum are rounded to nearest, one by one and on one grid, and B <= 1, more holds: with D+ = min(h B, 1)
and D- = max(l B, 2B - 1) (fl(B v) <= v, and R6),

    V+' = min(h (D+ V+ + Y+) + A, D+ V+ + 2 Y+),   V-' = max(l (D- V- + Y-) - A, D- V-),

Y the bounds of i, A the underflow of the sum (0 unless i comes from a finer grid).

Then the sandwich stays finite for ever, also where a+ >= 1: v never grows by more than twice what is added (T14, T15).

The theorem bounds the largest |v - r|/r of every seed; at every step by the smaller of the sandwich and of the running
error of T3, which reads the recorded v and so does not compound.

Tightness: sharp. Source: derived here.
"""

from __future__ import annotations

import numpy as np
import sympy as sp

from theory.axioms import COMPOSED_HIGH, COMPOSED_LOW
from theory.composition import NoEnclosure, compose, model_values
from theory.composition import high as high_of
from theory.composition import low as low_of
from theory.composition import symbol as named
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, eq, le
from theory.enclosure import ball
from theory.rounding_model import underflow_unit
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems._moment_coefficients import absolute_part, coefficients
from theory.theorems._running_error import (
    RUNNING,
    Along,
    Balls,
    along,
    balls,
    bound_of,
    counted,
    measured_error,
    recorded,
    small_steps,
    smaller,
)
from theory.window import FloatArray, Window

QUANTITY = "largest relative error of v against exact arithmetic"

_names = ("v", "v_+", "V", "x", "i", "q", "D", "b", "A", "l", "h", "lambda")
_v, _next, _V, _x, _i, _q, _D, _b, _A, _l, _h, _lam = (sp.Symbol(s, nonnegative=True) for s in _names)
_r, _V_next, _a = (sp.Symbol(s, positive=True) for s in ("r_+", "V_+", "a"))
_UNIT = {_lam: sp.Interval(0, 1)}

SMALL_SUM = Axiom(
    "a sum rounded to nearest grows by at most twice what is added",
    le(_next, _x + 2 * _i),
    citation="R6 with x on the grid: |fl(x + i) - x| <= 2 i",
    test="tests/theory/test_rounding_model.py::test_nearest_moves_against_the_step_and_at_most_twice_as_far",
)
MONOTONE = Axiom(
    "a sum is no smaller than a summand on its grid",
    le(_x, _next),
    citation="i >= 0 and x on the grid: fl(x + i) >= fl(x) = x by monotonicity",
    test="tests/theory/test_t01.py::test_sums_of_nonnegative_numbers_do_not_fall",
)

_under, _over = le(_v, _V), le(_V, _v)
_decay_high, _decay_low = le(_x, _D * _v), le(_D * _v, _x)
_share_high, _share_low = le(_i, _b * _q), le(_b * _q, _i)
HIGH = _lam * (_h * (_D * _V + _b * _q) + _A) + (1 - _lam) * (_D * _V + 2 * _b * _q)
LOW = _lam * (_l * (_D * _V + _b * _q) - _A) + (1 - _lam) * _D * _V
_high_is, _low_is = eq(_V_next, HIGH), eq(_V_next, LOW)
STATEMENT = le(_next / _r - 1, _V_next / _r - 1)

UPPER = Derivation(
    "T1",
    givens=(_under, _decay_high, _share_high, _high_is),
    steps=(
        Step(_under, Given(), "before the step"),
        Step(_decay_high, Given(), "the product, D = min(h B, 1)"),
        Step(_share_high, Given(), "what is added, by composition"),
        Step(
            le(_next, _h * (_x + _i) + _A),
            Instance.of_names(COMPOSED_HIGH, h=_h, x=_x + _i, eta=_A, y=_next),
            "the sum, relative error",
        ),
        Step(le(_next, _x + 2 * _i), Instance(SMALL_SUM), "the sum, small step"),
        Step(_high_is, Given(), "lambda = 0 or 1, step by step"),
        Step(
            le(_next, _V_next),
            Combine(
                {
                    3: _lam,
                    4: 1 - _lam,
                    1: _lam * _h + 1 - _lam,
                    2: _lam * _h + 2 * (1 - _lam),
                    0: (_lam * _h + 1 - _lam) * _D,
                    5: -1,
                }
            ),
        ),
        Step(STATEMENT, Combine({6: 1 / _r}), "relative to the exact moving average"),
    ),
    statement=STATEMENT,
    domain=_UNIT,
)

LOWER = Derivation(
    "T1, lower side",
    givens=(_over, _decay_low, _share_low, _low_is),
    steps=(
        Step(_over, Given(), "before the step"),
        Step(_decay_low, Given(), "the product, D = max(l B, 2B - 1)"),
        Step(_share_low, Given(), "what is added, by composition"),
        Step(
            le(_l * (_x + _i) - _A, _next),
            Instance.of_names(COMPOSED_LOW, l=_l, x=_x + _i, eta=_A, y=_next),
            "the sum, relative error",
        ),
        Step(le(_x, _next), Instance(MONOTONE)),
        Step(_low_is, Given(), "lambda = 0 or 1, step by step"),
        Step(
            le(_V_next, _next),
            Combine(
                {3: _lam, 4: 1 - _lam, 1: _lam * _l + 1 - _lam, 2: _lam * _l, 0: (_lam * _l + 1 - _lam) * _D, 5: 1}
            ),
        ),
        Step(le(1 - _next / _r, 1 - _V_next / _r), Combine({6: 1 / _r}), "relative to the exact moving average"),
    ),
    statement=le(1 - _next / _r, 1 - _V_next / _r),
    domain=_UNIT,
)

_whole = le(_next, _a * _v + _b * _q + _A)
COMPOSED = Derivation(
    "T1, any order of operations",
    givens=(_whole, _under, eq(_V_next, _a * _V + _b * _q + _A)),
    steps=(
        Step(_whole, Given(), "one step by composition"),
        Step(_under, Given(), "before the step"),
        Step(eq(_V_next, _a * _V + _b * _q + _A), Given()),
        Step(le(_next, _V_next), Combine({0: 1, 1: _a, 2: -1})),
    ),
    statement=le(_next, _V_next),
)


def evaluate_bound(window: Window) -> Bound:
    """The largest bound of the relative error of each recorded seed."""
    name = "v is a sum of rounded multiples of v and g^2"
    checks = list(recorded(window, "v"))
    if checks[-1].ok and len(checks) > 2 and checks[1].ok:
        least = float(np.min(window.history["v"]))
        checks.append(Hypothesis("v >= 0", least >= 0, f"smallest recorded v = {least:.6g}"))
    if not all(check.ok for check in checks):
        return Bound("T1", QUANTITY, tuple(checks))
    try:
        found = along(window, "v", 2)
        error = sure_error(window, found)
    except (NoEnclosure, ValueError) as none:
        return Bound("T1", QUANTITY, (*checks, Hypothesis(name, False, str(none))))
    checks.append(Hypothesis(name, True, f"B = {float(found.decay):.6g}, c = {float(found.inject):.6g}"))
    return bound_of("T1", QUANTITY, window, checks, error, found.reference)


def measured(window: Window) -> FloatArray:
    """[S] the largest |v - r|/r on the record, whose v >= 0."""
    return measured_error(window, "v", 2)


def sure_error(window: Window, found: Along) -> Balls:
    """The smaller of the sandwich's and of the running error of ``along(window, "v", 2)``; ``NoEnclosure`` as there."""
    low, high = sandwich(window)
    return np.frompyfunc(lambda above, below, running: above.max(below).min(running), 3, 1)(  # type: ignore[no-any-return]
        high - found.reference, found.reference - low, found.error
    )


def sandwich(window: Window) -> tuple[Balls, Balls]:
    """(V-, V+) along the record, [n+1, d', S'].

    Raises
    ------
    NoEnclosure
        v is no sum of rounded multiples of v and g^2.
    """
    v, q = named("v", nonnegative=True), named("g") ** 2
    average, squares = small_steps(window, "v"), balls(window.history["g"]) ** 2
    low, high = [balls(window.history["v"][0])], [balls(window.history["v"][0])]
    known = {"scalars": window.scalars, "nonnegative": ("v",)}
    if average is None:
        composed = compose(window.program, window.slots, "v ->", exact=("v", "g"), **known)  # type: ignore[arg-type]
        (a_low, b_low), (a, b) = (coefficients(window, composed, (v, q), upper=up) for up in (False, True))
        extra = absolute_part(window, composed, counted=counted(window))
        for square in squares:
            high.append(a * high[-1] + b * square + extra)
            low.append(_positive(a_low * low[-1] + b_low * square - extra))
        return np.array(low, dtype=object), np.array(high, dtype=object)
    values = model_values(window.slots, (average.decay, average.add))
    injected = compose(window.program, window.slots, average.injected, exact=("g",), **known)  # type: ignore[arg-type]
    (b_low,), (b,) = (coefficients(window, injected, (q,), upper=up) for up in (False, True))
    extra = absolute_part(window, injected, counted=counted(window))
    decay = ball(window.scalars[average.scalar])
    product = compose(window.program, window.slots, average.decay, exact=("v",), **known)  # type: ignore[arg-type]
    tiny = absolute_part(window, product, counted=counted(window))
    whole = compose(window.program, window.slots, "v ->", exact=("v", "g"), **known)  # type: ignore[arg-type]
    lost = average.add in whole.underflow_slots and (not counted(window) or window.underflow.get(average.add, 1))
    off = ball(underflow_unit(*window.slots[average.add])) if lost else ball(0)
    l_d, h_d, l_a, h_a = (ball(values[f(s)]) for s in (average.decay, average.add) for f in (low_of, high_of))
    for square in squares:
        top = smaller(h_d * decay * high[-1] + tiny, high[-1])
        added = b * square + extra
        high.append(smaller(h_a * (top + added) + off, top + 2 * added))
        bottom = _larger(_positive(l_d * decay * low[-1] - tiny), _positive((2 * decay - 1) * low[-1]))
        low.append(_larger(l_a * (bottom + _positive(b_low * square - extra)) - off, bottom))
    return np.array(low, dtype=object), np.array(high, dtype=object)


def _positive(x: Balls) -> Balls:
    return _larger(x, np.full(x.shape, ball(0), dtype=object))


def _larger(x: Balls, y: Balls) -> Balls:
    return np.frompyfunc(lambda a, b: a.max(b), 2, 1)(x, y)  # type: ignore[no-any-return]


THEOREM = Theorem(
    identifier="T1",
    title="A rounded second moment is a moving average with another decay",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=STATEMENT,
    derivations=(UPPER, LOWER, COMPOSED, RUNNING),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop", "adam"),
)
