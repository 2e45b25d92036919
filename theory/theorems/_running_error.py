"""The error of a moving average along a recorded sequence, against exact arithmetic on the same gradients.

The stored state is x' = O (I_x B x + I_q c q) + A: by composition, with the factors O that all terms share, those of
each term alone I, and what underflow adds, A. The exact one is r' = B r + c q; q = g or g^2; B, c >= 0. With the
recorded x, x',

    |x' - r'| <= B |x - r| + i_x B |x| + i_q c |q| + o |x'| + A/O,    i = max |I - 1|, o = max |1 - 1/O|.

Where product and sum are rounded to nearest, one by one and on one grid, R6 says more: an error of the product is at
most (1-B)|x|, one of the sum at most what is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import sympy as sp
from flint import arb

from fpsim.rounding import is_nearest
from theory.composition import NoEnclosure, compose, factor_bounds, model_values
from theory.composition import symbol as named
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, le
from theory.enclosure import Ball, ball, ends, evaluate, working_precision
from theory.factors import Exponents
from theory.roles import upstream
from theory.theorem import Bound, Hypothesis, root_mean_square
from theory.theorems._moment_coefficients import absolute_part, coefficients, exact_value, parts
from theory.theorems._moving_average import MovingAverage, moving_average, padded, same_grid
from theory.window import FloatArray, Window

Balls = npt.NDArray[np.object_]  # of balls

_e, _e_next, _x, _x_next, _q, _A = (sp.Symbol(s, nonnegative=True) for s in ("e", "e_+", "x", "x_+", "q", "A"))
_d, _j, _a = (sp.Symbol(s, nonnegative=True) for s in ("d", "j", "a"))
_B, _c, _ix, _iq, _o, _Y = (sp.Symbol(s, nonnegative=True) for s in ("B", "c", "i_x", "i_q", "o", "Y"))
_mu, _nu = (sp.Symbol(s, nonnegative=True) for s in ("mu", "nu"))

_COMPOSED = "tests/theory/test_composition.py::test_computed_values_lie_in_their_enclosure"
_NEAREST = "tests/theory/test_rounding_model.py::test_nearest_moves_against_the_step_and_at_most_twice_as_far"
PRODUCT = Axiom("error of the decay", le(_d, _ix * _B * _x), citation="composition: I_x", test=_COMPOSED)
SMALL_PRODUCT = Axiom(
    "small-step error of the decay",
    le(_d, (1 - _B) * _x),
    citation="R6: x is on the grid, B x = x - (1-B) x: fl is off by at most (1-B) |x|",
    test=_NEAREST,
)
ADDED = Axiom("error of what is added", le(_j, _iq * _c * _q), citation="composition: I_q", test=_COMPOSED)
SUM = Axiom("error of the sum", le(_a, _o * _x_next), citation="composition: 1 - 1/O", test=_COMPOSED)
SMALL_SUM = Axiom("small-step error of the sum", le(_a, _Y), citation="R6: a summand is on the grid", test=_NEAREST)

_total = le(_e_next, _B * _e + _d + _j + _a + _A)
RUNNING_ERROR = (
    _B * _e
    + _mu * _ix * _B * _x + (1 - _mu) * (1 - _B) * _x
    + _iq * _c * _q
    + _nu * _o * _x_next + (1 - _nu) * _Y
    + _A
)  # fmt: skip
RUNNING = Derivation(
    "error of a moving average along its run",
    givens=(_total,),
    steps=(
        Step(_total, Given(), "x' - r' = B (x - r) + the errors of product, injection and sum; triangle inequality"),
        Step(PRODUCT.conclusion, Instance(PRODUCT)),
        Step(SMALL_PRODUCT.conclusion, Instance(SMALL_PRODUCT), "to nearest"),
        Step(ADDED.conclusion, Instance(ADDED)),
        Step(SUM.conclusion, Instance(SUM)),
        Step(SMALL_SUM.conclusion, Instance(SMALL_SUM), "to nearest"),
        Step(
            le(_e_next, RUNNING_ERROR),
            Combine({0: 1, 1: _mu, 2: 1 - _mu, 3: 1, 4: _nu, 5: 1 - _nu}),
            "any weights mu, nu in [0, 1]: the smaller of two errors is used",
        ),
    ),
    statement=le(_e_next, RUNNING_ERROR),
    domain={_mu: sp.Interval(0, 1), _nu: sp.Interval(0, 1)},
)


@dataclass(frozen=True)
class Along:
    """[n+1, d', S'] arrays of balls along the recorded sequence.

    Attributes
    ----------
    reference : the exact moving average, with the stored scalars, from the first recorded state on
    modulus : that of |q|, from |x|
    error : bound of |x - reference|
    decay, inject : B and c
    """

    reference: Balls
    modulus: Balls
    error: Balls
    decay: Ball
    inject: Ball


def recorded(window: Window, state: str) -> tuple[Hypothesis, ...]:
    """The hypotheses about the record of a state and its gradients."""
    if state not in window.program.state:
        return (Hypothesis(f"the optimizer stores {state}", False, window.optimizer),)
    x, g = window.history.get(state), window.history.get("g")
    there = x is not None and g is not None and len(g) > 0 and len(x) == len(g) + 1
    held = f"history of {', '.join(window.history) or 'nothing'}"
    checks = [
        Hypothesis(f"the optimizer stores {state}", True),
        Hypothesis(f"{state} and g were recorded", there, f"{len(g)} steps" if there and g is not None else held),
    ]
    if there and x is not None and g is not None:
        finite = bool(np.all(np.isfinite(x)) and np.all(np.isfinite(g)))
        checks.append(
            Hypothesis("recorded values are finite", finite, f"{np.sum(~np.isfinite(x))} of {x.size} are not")
        )
    slots = {state, *(o.slot for o in upstream(window.program, [f"{state} ->"]))}
    wrong = {s: n for counts in (window.overflow, window.invalid) for s, n in counts.items() if n and s in slots}
    listed = ", ".join(f"{n} in {s}" for s, n in wrong.items())
    return (*checks, Hypothesis(f"no overflow or invalid operation in {state}", not wrong, listed))


def counted(window: Window) -> bool:
    """Whether the recorded steps lie in the window, so that its counts of underflow are about them."""
    steps = len(window.history["g"])
    after = window.first_step + window.steps
    return window.first_step <= window.history_first and window.history_first + steps <= after


def balls(x: npt.NDArray[np.float64]) -> Balls:
    """Every number as an exact ball."""
    return np.frompyfunc(arb, 1, 1)(np.asarray(x, np.float64))  # type: ignore[no-any-return]


def small_steps(window: Window, state: str) -> MovingAverage | None:
    """The moving average if product and sum are rounded to nearest on one grid: then R6 applies."""
    found = moving_average(window.program, state)
    if found is None or not same_grid(window, (found.decay, found.add, state)).ok:
        return None
    if not all(is_nearest(window.slots[s][1]) and window.slots[s][0].tiny == "round" for s in (found.decay, found.add)):
        return None
    return found if 0 <= window.scalars.get(found.scalar, -1.0) <= 1 else None


def along(window: Window, state: str, power: int) -> Along:
    """Reference and error of a recorded moving average of g^power.

    Raises
    ------
    NoEnclosure
        The state is no sum of rounded multiples of itself and of g^power.
    """
    old, q = named(state, nonnegative=power == 2), named("g") ** power
    exact = {"exact": (state, "g"), "nonnegative": (state,) if power == 2 else (), "scalars": window.scalars}
    composed = compose(window.program, window.slots, f"{state} ->", **exact)  # type: ignore[arg-type]
    found = list(parts(window, composed, (old, q)))
    values, one = model_values(window.slots, _names(found)), (Fraction(1), Fraction(1))
    shared = {s for _, _, x in found for s in x if all(y.get(s) == one for _, _, y in found)}
    outer_low, outer_high = (evaluate(x, values) for x in factor_bounds(dict.fromkeys(shared, one)))
    outer = (1 / outer_low - 1).max(1 - 1 / outer_high)
    exactly, off = [ball(0), ball(0)], [ball(0), ball(0)]
    for k, coefficient, exponents in found:
        low, high = (
            evaluate(x, values) for x in factor_bounds({s: x for s, x in exponents.items() if s not in shared})
        )
        size = exact_value(window, coefficient)
        exactly[k] += size
        off[k] += size * (high - 1).max(1 - low)
    absolute = absolute_part(window, composed, counted=counted(window)) / outer_low
    decayed, injected, most = _sizes(window, state, q, off, exactly[0])
    x, g = np.abs(window.history[state]), np.abs(window.history["g"])
    signed = balls(window.history[state][0])
    reference, modulus, error = [signed], [balls(x[0])], [balls(np.zeros(x.shape[1:]))]
    for k in range(len(g)):
        size, now, then = balls(g[k]) ** power, balls(x[k]), balls(x[k + 1])
        drive = size if power == 2 else balls(window.history["g"][k])
        reference.append(exactly[0] * reference[-1] + exactly[1] * drive)
        modulus.append(exactly[0] * modulus[-1] + exactly[1] * size)
        last = outer * then if most is None else smaller(outer * then, most[0] * size + most[1])
        error.append(exactly[0] * error[-1] + decayed * now + injected * size + last + absolute)
    return Along(*(np.array(rows, dtype=object) for rows in (reference, modulus, error)), *exactly)


def _sizes(
    window: Window, state: str, q: sp.Expr, off: list[Ball], decay: Ball
) -> tuple[Ball, Ball, tuple[Ball, Ball] | None]:
    """Coefficients of |x|, q in the error, and (factor, absolute part) of the largest summand if R6 applies."""
    average = small_steps(window, state)
    if average is None:
        return off[0], off[1], None
    summand = compose(window.program, window.slots, average.injected, exact=("g",), scalars=window.scalars)
    (largest,) = coefficients(window, summand, (q,), upper=True)
    return off[0].min(1 - decay), off[1], (largest, absolute_part(window, summand, counted=counted(window)))


def _names(found: list[tuple[int, sp.Expr, Exponents]]) -> set[str]:
    return {s for _, _, exponents in found for s in exponents}


def smaller(x: Balls, y: Balls) -> Balls:
    return np.frompyfunc(lambda a, b: a.min(b), 2, 1)(x, y)  # type: ignore[no-any-return]


def bound_of(
    theorem: str, quantity: str, window: Window, checks: Sequence[Hypothesis], error: Balls, scale: Balls
) -> Bound:
    """The bound of the largest error/scale of each recorded seed, ``checks`` being satisfied."""
    limits = np.array([ends(x)[1] for x in largest_ratio(error, scale)])
    finite = Hypothesis("the error is finite", bool(np.all(np.isfinite(limits))), f"{np.max(limits):.4g}")
    top = root_mean_square(limits) if finite.ok else math.nan
    return Bound(theorem, quantity, (*checks, finite), top, top, per_seed=padded(limits, window.seeds))


def measured_error(window: Window, state: str, power: int) -> FloatArray:
    """[S] the largest |x - reference|/modulus on the record; NaN where there is none, or no such average."""
    try:
        if not all(check.ok for check in recorded(window, state)):
            return np.full(window.seeds, math.nan)
        with working_precision():
            found = along(window, state, power)
            errors = np.abs(window.history[state] - found.reference)
            return padded(np.array([float(x.mid()) for x in largest_ratio(errors, found.modulus)]), window.seeds)
    except (NoEnclosure, ValueError):
        return np.full(window.seeds, math.nan)


def largest_ratio(top: Balls, bottom: Balls) -> list[Ball]:
    """[S'] the largest top/bottom over steps and coordinates of each seed; where the bottom is 0 so is the top."""
    result = []
    with working_precision():
        for seed in range(top.shape[2]):
            worst = ball(0)
            pairs: Iterable[tuple[Ball, Ball]] = zip(top[:, :, seed].flat, bottom[:, :, seed].flat, strict=True)
            for a, b in pairs:
                if b != 0:
                    worst = worst.max(a / b)
            result.append(worst)
    return result
