"""T24: where gradient descent with momentum, rounded to nearest, comes to rest, the gradient is as small as without.

Model. m' = D1 b m + D2 c ghat + e, |e| <= A, and w' = fl(w - a), |a| >= low lr |m'| - A_a: by composition, with the
stored decay b and injection c (1 for momentum in Polyak's form), D1 in [l1, h1], D2 in [l2, h2]; A and A_a collect
underflow (0 if none happened). ghat is the gradient handed over, |ghat_i| >= |grad_i| - E_i.

Hypotheses. Round to nearest in w.sub and w, nothing flushed to zero there; a deterministic run; no overflow;
b h1 <= 1; the run has halted: its last step changed neither w nor m. A seed that has not halted is not covered.

Statement. At a fixed point of (w, m), for every coordinate, with B = b l1 and C = c l2,

    |grad_i F(w)| <= ((1 - B)((half_i + A_a)/(low lr) + S) h_s + A) / C + E_i,

half_i = half the distance from w_i to its neighbour on the side of -grad_i. h_s and S belong to the storing of m, where
its format is narrower than that of the sum (1 and 0 otherwise). Without underflow and with b + c = 1 this is
(1 + u) kappa half_i / lr, kappa = (1 - l^2 b)/(l^3 c): T6 but for a factor kappa = 1 + O(u b/(1-b)), not 1/(1-b).

Why the side of -grad_i: s m, s the sign of ghat_i, obeys (1 - D1 b) s m = D2 c |ghat_i| + s e with 1 - D1 b >= 0. If
m has the other sign, or is 0, then C |ghat_i| <= A alone, and the statement holds with half_i = 0.

That every run comes to rest is not proven: rounding m can raise the energy F + (lr b/2c)|m|^2. Runs are covered where
they did.

Tightness: bound/measured on quadratic and rational problems from 1.03 in binary16; the loss is in the coordinates that
came to rest before the grid stopped them.
Source: derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import sympy as sp

from fpsim.rounding import Stochastic, is_nearest
from theory.axioms import COMPOSED_LOW, NEAREST_STAYS
from theory.composition import Factor, NoEnclosure, model_values, relative_factor
from theory.composition import symbol as named
from theory.derivation import Combine, Derivation, Given, Instance, Step, le
from theory.derivation import eq as equal
from theory.enclosure import Ball, ball, ends, evaluate
from theory.rounding_model import low_high, underflow_unit
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_subtraction, stored_scalar
from theory.theorems._momentum import first_moment
from theory.theorems._rest_set import bound_at_rest, end_norm, half_gaps
from theory.theorems._underflow import absolute_part
from theory.window import Window

QUANTITY = "gradient norm where the run halted"

_grad, _ghat, _a, _half, _A, _Aa, _S, _E, _size, _mu = (
    sp.Symbol(s, nonnegative=True) for s in ("grad", "ghat", "a", "half", "A", "A_a", "S", "E", "size", "mu")
)
_low, _lr, _C, _h = (sp.Symbol(s, positive=True) for s in ("low", "lr", "C", "h_s"))
_B = sp.Symbol("B", nonnegative=True)
_D1, _D2 = sp.symbols("D1 D2", positive=True)  # decay and injection with their roundings
_m, _e = sp.symbols("m e", real=True)  # the stored momentum and the underflow, times the sign of ghat

LIMIT = ((1 - _B) * _h * ((_half + _Aa) / (_low * _lr) + _S) + _A) / _C + _E
STATEMENT = le(_grad**2, LIMIT**2)
_UNIT = {_B: sp.Interval(0, 1)}

MOMENTUM = Derivation(
    "T24, momentum at rest",
    givens=(equal(_m, _D1 * _m + _D2 * _ghat + _e), le(_D1, 1), le(_B, _D1), le(_C, _D2), le(_m, _mu), le(-_A, _e)),
    steps=(
        Step(equal(_m, _D1 * _m + _D2 * _ghat + _e), Given(), "m is what the step makes of it"),
        Step(le(_D1, 1), Given(), "the hypothesis b h1 <= 1"),
        Step(le(_B, _D1), Given(), "B = b l1"),
        Step(le(_C, _D2), Given(), "C = c l2"),
        Step(le(_m, _mu), Given(), "mu = max(s m, 0), s the sign of ghat"),
        Step(le(-_A, _e), Given(), "underflow"),
        Step(
            le(_C * _ghat, (1 - _B) * _mu + _A),
            Combine({0: -1, 2: _mu, 3: _ghat, 4: 1 - _D1, 5: 1}),
            "the decay lost is what the gradient brings",
        ),
    ),
    statement=le(_C * _ghat, (1 - _B) * _mu + _A),
)

REST = Derivation(
    "T24",
    givens=(*MOMENTUM.givens, le(_mu, _h * (_size + _S)), le(_grad - _E, _ghat)),
    steps=(
        *(Step(claim, Given()) for claim in MOMENTUM.givens),
        Step(MOMENTUM.statement, Instance(MOMENTUM), "m did not change"),
        Step(le(_mu, _h * (_size + _S)), Given(), "storing m: size = |m'|, unless mu = 0"),
        Step(le(_a, _half), Instance.of_names(NEAREST_STAYS, a=_a, half=_half), "w did not move"),
        Step(
            le(_low * (_lr * _size) - _Aa, _a),
            Instance.of_names(COMPOSED_LOW, l=_low, x=_lr * _size, eta=_Aa, y=_a),
            "the computed step against lr |m'|",
        ),
        Step(le(_grad - _E, _ghat), Given(), "the gradient handed over against the true one"),
        Step(
            le(_grad, LIMIT),
            Combine(
                {
                    6: 1 / _C,
                    7: (1 - _B) / _C,
                    8: (1 - _B) * _h / (_C * _low * _lr),
                    9: (1 - _B) * _h / (_C * _low * _lr),
                    10: 1,
                }
            ),
        ),
        Step(STATEMENT, Combine({11: LIMIT + _grad}), "square, to be summed over the coordinates"),
    ),
    statement=STATEMENT,
    domain=_UNIT,
)


def evaluate_bound(window: Window) -> Bound:
    """The bound of every seed that halted; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T24", QUANTITY, tuple(checks))
    try:
        rest = _rest(window)
    except NoEnclosure as none:
        failed = Hypothesis("m is decayed, fed by the gradient, and scales the step", False, str(none))
        return Bound("T24", QUANTITY, (*checks, failed))
    detail = f"c l2 = {ends(rest.injection)[0]:.6g}"
    checks.append(Hypothesis("the gradient enters m", bool(rest.injection > 0), detail))
    checks.append(Hypothesis("b h1 <= 1", bool(rest.decay_high <= 1), f"b h1 = {ends(rest.decay_high)[1]:.6g}"))
    finite = all(x.is_finite() for x in (rest.momentum, rest.step, rest.stored))
    checks.append(Hypothesis("underflow leaves a finite error", finite, rest.tiny(window)))
    if not all(check.ok for check in checks):
        return Bound("T24", QUANTITY, tuple(checks))
    lr = ball(window.scalars["scalar.lr"])
    halves, squares = half_gaps(window), []
    for seed in range(window.seeds):
        total = ball(0)
        for half, error in zip(halves[:, seed], window.gradient_error, strict=True):
            size = rest.stretch * ((ball(half) + rest.step) / (rest.low * lr) + rest.stored)
            total += (((1 - rest.decay_low) * size + rest.momentum) / rest.injection + ball(error)) ** 2
        squares.append(total)
    return bound_at_rest("T24", QUANTITY, checks, squares, window.halted)


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    slots, structure = window.slots, one_subtraction(window, momentum=True)
    if not structure.ok:
        return (structure,)
    other = [s for s in ("w.sub", "w") if not is_nearest(slots[s][1])]
    random = [s for s in window.program.slots if isinstance(slots[s][1], Stochastic) and not s.startswith("scalar.")]
    nested = slots["w"][0].holds(slots["w.sub"][0]) or slots["w.sub"][0].holds(slots["w"][0])
    lr, still = window.scalars.get("scalar.lr", math.nan), int(np.sum(window.halted))
    return (
        structure,
        Hypothesis("round to nearest in w.sub and w", not other, ", ".join(other)),
        Hypothesis("deterministic", not random and window.noise == "none", f"noise {window.noise}, random {random}"),
        Hypothesis("the formats of w.sub and w are nested", nested),
        Hypothesis("a constant positive step size", 0 < lr < math.inf, stored_scalar(window, "lr")),
        no_events(window)[0],
        not_flushed(window, ("w.sub", "w")),
        Hypothesis("halted", still > 0, f"{still} of {window.seeds} seeds"),
    )


@dataclass(frozen=True)
class _Rest:
    """The symbols of the statement as balls, and the slots whose underflow entered them."""

    decay_low: Ball
    decay_high: Ball
    injection: Ball
    momentum: Ball
    low: Ball
    step: Ball
    stretch: Ball
    stored: Ball
    slots: tuple[str, ...]

    def tiny(self, window: Window) -> str:
        return ", ".join(f"{n} in {s}" for s in self.slots if (n := window.underflow.get(s, "not counted")) != 0)


def _rest(window: Window) -> _Rest:
    """The numbers of a step; ``NoEnclosure`` where it is not one of momentum."""
    slots = window.slots
    first = first_moment(window)
    step = _step(window, first.fresh)
    values = model_values(slots, tuple(step.exponents))
    stretch, stored = ball(1), ball(0)
    if not first.held:
        stretch = evaluate(low_high(*slots["m"])[1], {})
        stored = ball(underflow_unit(*slots["m"]) if window.underflow.get("m", 1) else 0)
    return _Rest(
        decay_low=first.decay * first.kept[0],
        decay_high=first.decay * first.kept[1],
        injection=first.injection * first.fed[0],
        momentum=first.absolute,
        low=evaluate(step.low, values),
        step=absolute_part(window, step.absolute, step.underflow_slots),
        stretch=stretch,
        stored=stored,
        slots=tuple(dict.fromkeys((*first.underflow_slots, *step.underflow_slots))),
    )


def _step(window: Window, fresh: str) -> Factor:
    """What is subtracted from w, as lr times the new momentum and a factor."""
    name = window.program.operation("w.sub").operands[1]
    step = relative_factor(window.program, window.slots, name, exact=(fresh,), scalars=window.scalars)
    if sp.cancel(step.exact - named("scalar.lr") * named(fresh)) != 0:
        raise NoEnclosure(name, f"{step.exact} is not lr times the new momentum")
    return step


THEOREM = Theorem(
    identifier="T24",
    title="Round-to-nearest gradient descent with momentum: it rests where plain descent could, up to a factor near 1",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=STATEMENT,
    derivations=(REST, MOMENTUM),
    evaluate=evaluate_bound,
    measured=end_norm,
    optimizers=("momentum",),
    floor=True,
)
