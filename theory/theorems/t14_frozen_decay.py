"""T14: which second moments a decay rounded to nearest leaves as they are: the exact set.

Model. v' = fl(fl(B v) + i) with i >= 0 and the stored decay B <= 1; v, the product and the sum on one grid of precision
p with subnormal numbers, u = 2^-p; the product is rounded to nearest, the rest in any mode.

Statement. Write v = M gap, gap the distance to the next smaller number (below a power of two that is half of the one
above), M whole. Then fl(B v) = v iff (1-B) M < 1/2, or (1-B) M = 1/2 and M is even (nearest_away: or just equal). In
significands s in [1, 2) of a normal v: (1-B) s <= u for s > 1, 1-B <= u/2 for s = 1.

Consequences. 1-B <= u/2: no v ever decreases. 1-B >= u/(1+2u): every normal v decreases (the smallest s above 1 is
1+2u, and odd; s = 1 needs only 1-B > u/2). In between those with 1 < s <= u/(1-B) stay. Subnormal v count M from 1, so
whatever B > 1/2 is, v = gap and its small multiples stay for ever: v never decays to zero.
A v whose product stays does not fall in the whole step, because i >= 0 and rounding is monotone.

What is bounded: the number of recorded decays that lower v. Where the record holds the product itself the two numbers
are equal; where it holds v alone the falls of v are counted, which are no more (an addition may make up for a decay).

Tightness: exact. Source: derived here.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import sympy as sp

from fpsim.number_format import Format
from fpsim.rounding import Rounding, is_nearest
from theory.axioms import NEAREST_STAYS
from theory.composition import NoEnclosure, compose
from theory.derivation import Combine, Derivation, Given, Instance, Step, eq, le, lt
from theory.rounding_model import gap_toward
from theory.theorem import Bound, Hypothesis, Theorem, no_events, root_mean_square, stored_scalar
from theory.theorems._moving_average import MovingAverage, moving_average, padded, plain_grid, same_grid
from theory.window import BoolArray, FloatArray, Window

QUANTITY = "recorded decays that lower v"

# significand, its power of two, half the gap below, what the decay takes away
_s, _half, _a = (sp.Symbol(x, nonnegative=True) for x in ("s", "half", "a"))
_F = sp.Symbol("f", positive=True)
_u, _B = sp.Symbol("u", positive=True), sp.Symbol("B", nonnegative=True)
_DOMAIN = {_u: sp.Interval.Lopen(0, sp.Rational(1, 4)), _B: sp.Interval(0, 1)}

_taken = eq(_a, (1 - _B) * _s * _F)
_gap = eq(_half, _u * _F)
STATEMENT = le((1 - _B) * _s, _u)

STAYS = Derivation(
    "T14",
    givens=(_taken, _gap),
    steps=(
        Step(_taken, Given(), "v = s f, f a power of two"),
        Step(_gap, Given(), "s > 1: the gap below v is 2 u f"),
        Step(le(_a, _half), Instance.of_names(NEAREST_STAYS, a=_a, half=_half), "v stays"),
        Step(STATEMENT, Combine({2: 1 / _F, 0: -1 / _F, 1: 1 / _F})),
    ),
    statement=STATEMENT,
    domain=_DOMAIN,
)

TOTAL = Derivation(
    "T14, total freeze",
    givens=(le(1 - _B, _u / 2), lt(_s, 2), _taken, _gap),
    steps=(
        Step(le(1 - _B, _u / 2), Given()),
        Step(lt(_s, 2), Given()),
        Step(_taken, Given()),
        Step(_gap, Given()),
        Step(lt(_a, _half), Combine({0: _s * _F, 1: _u * _F / 2, 2: 1, 3: -1}), "nearer to v than to its neighbour"),
    ),
    statement=lt(_a, _half),
    domain=_DOMAIN,
)

NEVER = Derivation(
    "T14, no stagnation",
    givens=(le(_u / (1 + 2 * _u), 1 - _B), le(1 + 2 * _u, _s), _taken, _gap),
    steps=(
        Step(le(_u / (1 + 2 * _u), 1 - _B), Given()),
        Step(le(1 + 2 * _u, _s), Given(), "the smallest significand above 1"),
        Step(_taken, Given()),
        Step(_gap, Given()),
        Step(
            le(_half, _a),
            Combine({0: (1 + 2 * _u) * _F, 1: (1 - _B) * _F, 2: -1, 3: 1}),
            "a tie at most, and then at s = 1 + 2u, whose integer significand is odd",
        ),
    ),
    statement=le(_half, _a),
    domain=_DOMAIN,
)


def frozen(v: FloatArray, decay: float, fmt: Format, rounding: Rounding) -> BoolArray:
    """Whether fl(decay * v) = v for stored v >= 0, exactly.

    Parameters
    ----------
    v : float64, any shape, nonnegative values of ``fmt``
    decay : the stored scalar, in [0, 1]
    fmt, rounding : of the product; to nearest

    Examples
    --------
    bfloat16 stores 0.999 as 1; with the float32 value of 0.998 only significands up to 1.953 stay:

    >>> from fpsim.formats import format
    >>> frozen(np.array([1.0, 1.5, 1.984375]), float(np.float32(0.998)), format("bfloat16"), "nearest_even")
    array([False,  True, False])
    """
    gap = gap_toward(v, -np.ones_like(v), fmt)
    count = np.where(v > 0, v / np.where(gap > 0, gap, 1.0), 0.0)
    if decay == 1.0:
        return np.ones(v.shape, dtype=np.bool_)
    limit = 1 / (2 * (1 - Fraction(decay)))
    whole = limit.numerator // limit.denominator
    tied = (count == whole) & (limit == whole)
    stays = (count <= whole) & ~(tied & (count % 2 == 1) & (rounding == "nearest_even"))
    return np.asarray(stays | (v == 0.0), dtype=np.bool_)


def regime(decay: float, precision: int) -> str:
    """What happens to normal v, in words, from the stored decay alone.

    Examples
    --------
    >>> regime(0.953125, 4)
    'normal v with 1 < s <= 1.25 stay: 1 - beta2 = 0.046875, u = 0.0625'
    >>> regime(0.96875, 4)
    'no v ever decreases: 1 - beta2 = 0.03125 <= u/2 = 0.03125'
    """
    lost, u = 1 - Fraction(decay), Fraction(1, 2**precision)
    if lost <= u / 2:
        return f"no v ever decreases: 1 - beta2 = {float(lost):g} <= u/2 = {float(u / 2):g}"
    if lost >= u / (1 + 2 * u):
        return f"every normal v decreases: 1 - beta2 = {float(lost):g} >= u/(1+2u) = {float(u / (1 + 2 * u)):g}"
    limit, half = 1 / (2 * lost), 2 ** (precision - 1)
    whole = min(limit.numerator // limit.denominator, 2 * half - 1)
    largest = (whole - (whole == limit and whole % 2)) / half
    return f"normal v with 1 < s <= {largest:g} stay: 1 - beta2 = {float(lost):g}, u = {float(u):g}"


def evaluate_bound(window: Window) -> Bound:
    """How many of each seed's recorded decays can lower v."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T14", QUANTITY, tuple(checks))
    average = moving_average(window.program, "v")
    assert average is not None
    before = window.history["v"][:-1]
    fmt, rounding = window.slots[average.decay]
    decay = window.scalars[average.scalar]
    moving = ~frozen(before, decay, fmt, rounding)
    counts = np.sum(moving, axis=(0, 1)).astype(np.float64)
    limit = root_mean_square(counts)
    note = f"{regime(decay, fmt.precision)}; {1 - float(np.mean(moving)):.3g} of {moving.size} decays leave v as it is"
    if average.decay not in window.history:
        note += f"; {average.decay} was not recorded, falls of v are counted"
    return Bound("T14", QUANTITY, tuple(checks), limit, limit, per_seed=padded(counts, window.seeds), note=note)


def measured(window: Window) -> FloatArray:
    """[S] recorded decays that lowered v; where the product was not recorded, steps in which v fell."""
    average = moving_average(window.program, "v")
    if average is None or "v" not in window.history:
        return np.full(window.seeds, math.nan)
    v = window.history["v"]
    after = window.history.get(average.decay, v[1:])
    return padded(np.sum(after < v[:-1], axis=(0, 1)).astype(np.float64), window.seeds)


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    average = moving_average(window.program, "v")
    if average is None:
        return (Hypothesis("v' = fl(fl(B v) + i), product and sum rounded one by one", False, window.optimizer),)
    decay = window.scalars.get(average.scalar, math.nan)
    mode = window.slots[average.decay][1]
    known = Hypothesis("v' = fl(fl(B v) + i), product and sum rounded one by one", True, str(average.injected))
    recorded = "v" in window.history and len(window.history["v"]) > 1
    finite = recorded and bool(np.all(np.isfinite(window.history["v"])))
    least = float(np.min(window.history["v"])) if finite else math.nan
    return (
        known,
        Hypothesis("B is constant and at most 1", 0 <= decay <= 1, stored_scalar(window, average.scalar[7:])),
        Hypothesis("the product is rounded to nearest", is_nearest(mode), f"{average.decay}: {mode}"),
        same_grid(window, (average.decay, average.add, "v")),
        plain_grid(window.slots["v"][0]),
        _squares(window, average),
        Hypothesis("v was recorded", recorded, f"history of {', '.join(window.history) or 'nothing'}"),
        Hypothesis("v >= 0", least >= 0, f"smallest recorded v = {least:g}"),
        no_events(window)[0],
    )


def _squares(window: Window, average: MovingAverage) -> Hypothesis:
    """i >= 0 by its sign in the program."""
    try:
        terms = compose(window.program, window.slots, average.injected, exact=("g",)).terms
    except (NoEnclosure, KeyError) as none:
        return Hypothesis("what is added is not negative", False, str(none))
    negative = [t.exact for t in terms if not t.nonnegative]
    scalars = {str(x): window.scalars.get(str(x), math.nan) for t in terms for x in t.exact.free_symbols}
    below = [f"{n} = {x:g}" for n, x in scalars.items() if n.startswith("scalar.") and not x >= 0]
    return Hypothesis(
        "what is added is not negative", not negative and not below, ", ".join(map(str, negative + below))
    )


THEOREM = Theorem(
    identifier="T14",
    title="Stagnation of the second moment: which v a rounded decay leaves as they are",
    quantity=QUANTITY,
    tightness="exact",
    source="derived here",
    statement=STATEMENT,
    derivations=(STAYS, TOTAL, NEVER),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop", "adam"),
)
