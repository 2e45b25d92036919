"""T6: gradient descent rounded to nearest stops, and where it stops the gradient is small: the exact stop set.

Model. w' = fl(w - a), a = fl(lr ghat) with the stored lr, ghat the gradient the machine has: computed in the machine,
operation by operation, or computed in binary64 with an absolute error of at most E_i and then stored in slot g. By
composition |a_i| >= low lr (|grad_i| - E_i) - A_i, where A_i collects underflow (0 if none happened).

Hypotheses. Round to nearest in w.sub and w, nothing flushed to zero there; a deterministic run; no overflow; the run
has halted: its last step changed nothing. A seed that has not halted is not covered.

Statement. At the point w where the run halted, for every coordinate,

    |grad_i F(w)| <= (half_i + A_i) / (low lr) + E_i,

half_i = half the distance from w_i to its neighbour on the side of -grad_i (below a power of two that gap is half of
the one above). If the sum is computed in a finer format than w is stored in, half_i grows by half a gap of that format.
Under the PL inequality F - F* <= |grad F|^2 / (2 mu).

Why the side of -grad_i: if a_i has the opposite sign of grad_i, then low lr |grad_i| is at most the error terms alone,
and the statement holds with half_i = 0.

When runs halt. If lr L high <= 1 (high: upper factor of a against lr grad) then F does not increase; if < 1 it
decreases strictly while w moves, and the grid being finite the run halts. Second derivation; needs E = A = 0 (so that
the gradient's sign is exact) and the sum computed in the format of w.

A relative error of the gradient alone leaves no floor: third derivation, the one-step lemma of ``_one_step``. What
stops a run is the grid.

Tightness: attained (a tie that goes to w). For a separable quadratic started outside, bound/measured is at most
1/(1 - 2 lr L) up to the rounding of the gradient.
Source: derived here; stagnation as in arXiv:2202.12276 and arXiv:2010.06192.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp

from fpsim.rounding import Stochastic, is_nearest
from theory.axioms import COMPOSED_HIGH, COMPOSED_LOW, DESCENT, NEAREST_MOVES, NEAREST_STAYS
from theory.composition import NoEnclosure, model_values, relative_factor
from theory.composition import symbol as named
from theory.derivation import Combine, Derivation, Given, Instance, Step, eq, le
from theory.enclosure import ball, ends, evaluate
from theory.rounding_model import gap_toward
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_subtraction, stored_scalar
from theory.theorems._one_step import LEMMAS as ONE_STEP
from theory.theorems._rest_set import bound_at_rest, end_norm, half_gaps
from theory.theorems._underflow import absolute_part
from theory.window import BoolArray, FloatArray, Window

QUANTITY = "gradient norm where the run halted"

_grad, _ghat, _a, _half, _A, _E = (sp.Symbol(s, nonnegative=True) for s in ("grad", "ghat", "a", "half", "A", "E"))
_low, _high, _lr, _L, _y = (sp.Symbol(s, positive=True) for s in ("low", "high", "lr", "L", "y"))
_f, _f_next, _step, _change = (sp.Symbol(s, real=True) for s in ("f", "f_next", "s", "inner"))

LIMIT = (_half + _A) / (_low * _lr) + _E
STATEMENT = le(_grad**2, LIMIT**2)


STOP = Derivation(
    "T6, stop set",
    givens=(le(_grad - _E, _ghat),),
    steps=(
        Step(le(_a, _half), Instance.of_names(NEAREST_STAYS, a=_a, half=_half), "w did not move"),
        Step(
            le(_low * (_lr * _ghat) - _A, _a),
            Instance.of_names(COMPOSED_LOW, l=_low, x=_lr * _ghat, eta=_A, y=_a),
            "the computed step against lr times the gradient handed over",
        ),
        Step(le(_grad - _E, _ghat), Given(), "the gradient handed over against the true one"),
        Step(
            le(_grad, LIMIT),
            Combine({0: 1 / (_low * _lr), 1: 1 / (_low * _lr), 2: 1}),
            "divide by low lr",
        ),
        Step(STATEMENT, Combine({3: LIMIT + _grad}), "square, to be summed over the coordinates"),
    ),
    statement=STATEMENT,
)

# y |grad| = |s|: the step taken as a multiple of the gradient, s = -y grad
DESCENDS = Derivation(
    "T6, descent",
    givens=(le(_lr * _high * _L, 1), eq(_change, -_grad * (_y * _grad))),
    steps=(
        Step(le(_y * _grad, 2 * _a), Instance.of_names(NEAREST_MOVES, s=_y * _grad, a=_a), "at most twice as far"),
        Step(
            le(_a, _high * (_lr * _grad) + 0),
            Instance.of_names(COMPOSED_HIGH, h=_high, x=_lr * _grad, eta=sp.Integer(0), y=_a),
            "the computed step against lr times the gradient",
        ),
        Step(le(_lr * _high * _L, 1), Given(), "the step size"),
        Step(le(_L * _y * _grad, 2 * _grad), Combine({0: _L, 1: 2 * _L, 2: 2 * _grad}), "so L y <= 2"),
        Step(eq(_change, -_grad * (_y * _grad)), Given(), "the step taken points against the gradient"),
        Step(
            le(_f_next, _f + _change + _L * (_y * _grad) ** 2 / 2),
            Instance.of_names(DESCENT, f_next=_f_next, f=_f, inner=_change, L=_L, square=(_y * _grad) ** 2),
            "one coordinate's share of the descent lemma; the shares add up",
        ),
        Step(le(_f_next, _f), Combine({5: 1, 4: 1, 3: _y * _grad / 2}), "F does not increase"),
    ),
    statement=le(_f_next, _f),
)


def evaluate_bound(window: Window) -> Bound:
    """The bound of every seed that halted; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T6", QUANTITY, tuple(checks))
    step_name = window.program.operation("w.sub").operands[1]
    exact = ("w", *window.exact_constants)
    try:
        factor = relative_factor(window.program, window.slots, step_name, exact=exact, scalars=window.scalars)
        gradient = relative_factor(window.program, window.slots, "g", exact=exact, scalars=window.scalars)
    except NoEnclosure as none:
        return Bound(
            "T6", QUANTITY, (*checks, Hypothesis("the step is an exact value times a factor", False, str(none)))
        )
    if sp.cancel(factor.exact / named("scalar.lr") - gradient.exact) != 0:
        return Bound(
            "T6", QUANTITY, (*checks, Hypothesis("the step is lr times the gradient", False, str(factor.exact)))
        )
    low = evaluate(factor.low, model_values(window.slots, tuple(factor.exponents)))
    scale = 1 / (low * ball(window.scalars["scalar.lr"]))
    absolute = absolute_part(window, factor.absolute, factor.underflow_slots)
    if not absolute.is_finite():
        tiny = ", ".join(f"{window.underflow.get(s, 'not counted')} in {s}" for s in factor.underflow_slots)
        return Bound("T6", QUANTITY, (*checks, Hypothesis("underflow leaves a finite error", False, tiny)))
    halves = half_gaps(window)
    squares = []
    for seed in range(window.seeds):
        limits = [
            (ball(h) + absolute) * scale + ball(e) for h, e in zip(halves[:, seed], window.gradient_error, strict=True)
        ]
        squares.append(sum((x * x for x in limits), ball(0)))
    return bound_at_rest("T6", QUANTITY, checks, squares, _at_rest(window))


def loss_bound(bound: Bound, strong_convexity: float) -> FloatArray:
    """Upper end of F - F* for every covered seed, from the PL inequality with constant mu > 0."""
    assert bound.per_seed is not None
    squares = (ball(x) ** 2 / (2 * ball(strong_convexity)) for x in bound.per_seed)
    return np.array([ends(x)[1] if x.is_finite() else math.nan for x in squares])


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    slots, structure = window.slots, one_subtraction(window)
    if not structure.ok:
        return (structure,)
    not_nearest = [s for s in ("w.sub", "w") if not is_nearest(slots[s][1])]
    random = [s for s in window.program.slots if isinstance(slots[s][1], Stochastic) and not s.startswith("scalar.")]
    nested = slots["w"][0].holds(slots["w.sub"][0]) or slots["w.sub"][0].holds(slots["w"][0])
    lr = window.scalars.get("scalar.lr", math.nan)
    still = int(np.sum(_at_rest(window)))
    return (
        structure,
        Hypothesis("round to nearest in w.sub and w", not not_nearest, ", ".join(not_nearest)),
        Hypothesis("deterministic", not random and window.noise == "none", f"noise {window.noise}, random {random}"),
        Hypothesis("the formats of w.sub and w are nested", nested),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        no_events(window)[0],
        not_flushed(window, ("w.sub", "w")),
        Hypothesis("halted", still > 0, f"{still} of {window.seeds} seeds; {_may_cycle(window)}"),
    )


def _at_rest(window: Window) -> BoolArray:
    """The seeds that halted, those left out whose record shows a cycle: back at the start although they moved."""
    returned = np.all(window.start["w"] == window.end["w"], axis=0)
    moved = np.zeros(window.seeds, dtype=np.bool_)
    step = window.program.operation("w.sub").operands[1]
    if "w" in window.max_abs:
        moved |= np.any(window.min_abs["w"] != window.max_abs["w"], axis=0)
    if step in window.max_abs:  # a cycle between w and -w keeps |w|
        gap = gap_toward(window.end["w"], np.zeros_like(window.end["w"]), window.slots["w.sub"][0])
        stored = gap_toward(window.end["w"], np.zeros_like(window.end["w"]), window.slots["w"][0])
        moved |= np.any(window.max_abs[step] > np.maximum(gap, stored), axis=0)
    return np.asarray(window.halted & ~(returned & moved), dtype=np.bool_)


def _may_cycle(window: Window) -> str:
    product = window.scalars.get("scalar.lr", math.nan) * window.smoothness
    return f"stored lr times L = {product:.3g}" + (", runs need not halt" if product >= 1 else "")


THEOREM = Theorem(
    identifier="T6",
    title="Round-to-nearest gradient descent stops: the exact stop set",
    quantity=QUANTITY,
    tightness="exact",
    source="derived here",
    statement=STATEMENT,
    derivations=(STOP, DESCENDS, *ONE_STEP),
    evaluate=evaluate_bound,
    measured=end_norm,
    optimizers=("sgd",),
    floor=True,
)
