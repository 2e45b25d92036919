"""T15: where the second moment ends that never decreases: its fixed point under a constant gradient, exactly.

Model. v' = fl(fl(B v) + i) with the stored decay B <= 1 and a constant i >= 0: |g| is constant, and i is what the
machine makes of it (c g^2, rounded as the program says). v, the product and the sum on one grid of precision p with
subnormal numbers, u = 2^-p, eta the smallest of them; product and sum to nearest, ties to even.

Statement. Let V = 0 if i <= eta/2, else V the smallest power of two with u V >= i, that is 2^ceil(log2(i/u)).
If v <= V then v' <= V, whatever B <= 1 is. If moreover 1-B <= u/2 (T14: no v decreases), then v reaches V after
finitely many steps and stays: v_inf = V, 1 <= V u/i < 2. So v_inf/g^2 lies between c/u and 2c/u up to rounding of i:
with beta2 = 0.999 in bfloat16 the steps are too long by 1.4 to 2, and for ever.

Zero rule: v = 0 stays 0 iff i <= eta/2 (also where nothing else freezes, since fl(B 0) = 0).

Why. A power of two is even, so a tie at V + i stays at V; rounding is monotone. Below V the power of two of v is at
most V/2, half the gap above v is at most u V/2 < i, so v + i rounds up. An i on v's own grid is 0 or at least eta,
so that V is normal; an i from a finer grid may lie between eta/2 and eta, which gives V = 2 * 2^emin, normal too.

Hysteresis: a v above V never decays; such coordinates, and with them their seeds, are not covered.

Tightness: exact once v has settled. Source: derived here.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import sympy as sp

from fpsim import exact
from fpsim.number_format import Format
from theory.chain import outcomes
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, le, lt
from theory.theorem import Bound, Hypothesis, Theorem, no_events, root_mean_square, stored_scalar
from theory.theorems._moving_average import MovingAverage, moving_average, plain_grid, same_grid
from theory.window import FloatArray, Window

QUANTITY = "largest v at the end of the window"

_v, _x, _next, _i, _f = (sp.Symbol(s, nonnegative=True) for s in ("v", "x", "v_+", "i", "f"))
_V, _u = (sp.Symbol(s, positive=True) for s in ("V", "u"))

KEPT = Axiom(
    "a power of two keeps what comes to it",
    le(_next, _V),
    conditions=(le(_x, _V), le(_i, _u * _V)),
    citation="to nearest even, V a power of two on the grid: fl(V + i) = V if i <= u V, half the gap; fl is monotone",
    test="tests/theory/test_t15.py::test_a_power_of_two_keeps_what_comes_to_it",
)
DECAYED = Axiom(
    "a decay does not raise",
    le(_x, _v),
    citation="v is on the grid and B v <= v: fl(B v) <= v by monotonicity",
    test="tests/theory/test_t15.py::test_a_decay_does_not_raise",
)

STATEMENT = le(_next, _V)
BELOW = Derivation(
    "T15",
    givens=(le(_v, _V), le(_i, _u * _V)),
    steps=(
        Step(le(_v, _V), Given(), "at or below V before the step"),
        Step(le(_i, _u * _V), Given(), "V is large enough"),
        Step(le(_x, _v), Instance(DECAYED)),
        Step(le(_x, _V), Combine({0: 1, 2: 1})),
        Step(STATEMENT, Instance(KEPT), "at or below V after it"),
    ),
    statement=STATEMENT,
)

# f the power of two of a v below V: half the gap above v is u f
RISES = Derivation(
    "T15, rise",
    givens=(le(2 * _f, _V), lt(_u * _V, 2 * _i)),
    steps=(
        Step(le(2 * _f, _V), Given(), "v < V, and V is a power of two"),
        Step(lt(_u * _V, 2 * _i), Given(), "V is the smallest that is large enough"),
        Step(lt(_u * _f, _i), Combine({0: _u / 2, 1: sp.Rational(1, 2)}), "more than half the gap is added"),
    ),
    statement=lt(_u * _f, _i),
)


def fixed_point(i: float, fmt: Format) -> Fraction:
    """V for one stored i.

    Examples
    --------
    bfloat16, beta2 = 0.999, g = 1: v settles at 0.25 or 0.5, not at 1.

    >>> from fpsim.formats import format
    >>> fixed_point(0.00099945068359375, format("bfloat16"))
    Fraction(1, 2)
    """
    added, eta = Fraction(i), Fraction(fmt.smallest_subnormal)
    if added <= eta / 2:
        return Fraction(0)
    needed = added * 2**fmt.precision
    power = Fraction(2) ** exact.floor_log2(needed)
    return power if power == needed else 2 * power


def evaluate_bound(window: Window) -> Bound:
    """V of every coordinate, the largest for each seed."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T15", QUANTITY, tuple(checks))
    average = moving_average(window.program, "v")
    assert average is not None
    added, why = _injected(window, average)
    checks.append(Hypothesis("what is added follows from |g| alone, without randomness", added is not None, why))
    if added is None:
        return Bound("T15", QUANTITY, tuple(checks))
    fmt = window.slots["v"][0]
    points = np.vectorize(lambda i: float(fixed_point(i, fmt)), otypes=[np.float64])(added)
    covered = np.all(window.start["v"] <= points, axis=0)
    above = f"{covered.sum()} of {window.seeds} seeds"
    checks.append(Hypothesis("the window starts at or below the fixed point", bool(covered.any()), above))
    if not covered.any():
        return Bound("T15", QUANTITY, tuple(checks))
    per_seed = np.where(covered, points.max(axis=0), math.nan)
    limit = root_mean_square(per_seed[covered])
    settled = bool(np.all(window.end["v"] == points))
    note = "v has settled" if settled else "v has not reached it everywhere: still on its way, or it started above"
    return Bound("T15", QUANTITY, tuple(checks), limit, limit, per_seed=per_seed, note=note)


def measured(window: Window) -> FloatArray:
    """[S] the largest v after the window's last step."""
    if "v" not in window.end:
        return np.full(window.seeds, math.nan)
    return np.asarray(np.max(window.end["v"], axis=0), dtype=np.float64)


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    average = moving_average(window.program, "v")
    if average is None:
        return (Hypothesis("v' = fl(fl(B v) + i), product and sum rounded one by one", False, window.optimizer),)
    slots = window.slots
    fmt = slots["v"][0]
    decay, half = window.scalars.get(average.scalar, math.nan), 2.0 ** -(fmt.precision + 1)
    other = [f"{s}: {slots[s][1]}" for s in (average.decay, average.add) if slots[s][1] != "nearest_even"]
    freezes = 0 <= decay <= 1 and 1 - Fraction(decay) <= Fraction(half)
    low, high = window.min_abs.get("g"), window.max_abs.get("g")
    constant = low is not None and high is not None and bool(np.array_equal(low, high))
    varying = "not tracked" if low is None or high is None else f"{np.sum(low != high)} of {low.size} vary"
    return (
        Hypothesis("v' = fl(fl(B v) + i), product and sum rounded one by one", True, average.injected),
        Hypothesis("product and sum are rounded to nearest even", not other, ", ".join(other)),
        same_grid(window, (average.decay, average.add, "v")),
        plain_grid(fmt),
        Hypothesis(
            "no v decreases: 1 - B <= u/2",
            freezes,
            f"{stored_scalar(window, average.scalar[7:])}, 1 - B = {1 - decay:g}, u/2 = {half:g}",
        ),
        Hypothesis("|g| is constant on the window", constant, varying),
        Hypothesis("v is known at both ends of the window", "v" in window.start and "v" in window.end),
        no_events(window)[0],
    )


def _injected(window: Window, average: MovingAverage) -> tuple[FloatArray | None, str]:
    """[d, S] what is added in every step, or why it is not known."""
    known: dict[float, float] = {}
    try:
        for g in np.unique(window.max_abs["g"]):
            law = {
                x: p
                for side in (float(g), -float(g))
                for x, p in outcomes(
                    window.program, window.slots, {"g": side, **window.scalars}, [average.injected]
                ).items()
            }
            if len(law) > 1 or not min(x[0] for x in law) >= 0:
                return None, f"{average.injected} may be {', '.join(f'{x[0]:g}' for x in law)}"
            ((known[float(g)],),) = law
    except ValueError as error:
        return None, str(error)
    return np.vectorize(known.__getitem__, otypes=[np.float64])(window.max_abs["g"]), f"{len(known)} values of |g|"


THEOREM = Theorem(
    identifier="T15",
    title="Where a second moment that never decreases settles under a constant gradient",
    quantity=QUANTITY,
    tightness="exact",
    source="derived here",
    statement=STATEMENT,
    derivations=(BELOW, RISES),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop", "adam"),
)
