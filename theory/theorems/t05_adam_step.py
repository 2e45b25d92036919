"""T5: no Adam step is longer than a constant, whatever the gradients: |m|/sqrt(v) <= C for the stored states.

This bounds a single step. It is not a bound of Adam's error floor; that theorem is still to come.

Model. The program gives, by composition, for every coordinate and with the *stored* scalars

    |m'| <= B |m| + Gamma |g|,     B = beta1 h..., Gamma = (1-beta1) h...   (slots m.decay, m.inject, m.add)
    v'   >= b v + c g^2,           b = beta2 l..., c = (1-beta2) l...       (slots v.decay, v.square, v.inject, v.add)

with each slot's own l and h. Any rounding mode will do.

Hypotheses. B^2 < b; no underflow in these slots on the window; the state that the window starts from obeys the bound
(m = v = 0 does).

Statement. m'^2 <= K v' after every step of the window, K = Gamma^2 / (c (1 - B^2/b)); C = sqrt(K).

Derivation. Induction over the steps: Young's inequality with the weight lambda that makes b = B^2 (1 + lambda). This
gives the constant of Cauchy-Schwarz over the whole history, needs no sums, and allows any start under the bound.

Tightness: attained as precision grows by g_{t-j} proportional to (B/b)^j, that is by growing gradients.
Source: derived here; exact arithmetic as in the side condition beta1^2 < beta2 of arXiv:2510.21314.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import sympy as sp

from theory.composition import Composed, NoEnclosure, compose
from theory.composition import symbol as named
from theory.derivation import Combine, Derivation, Given, Identity, Sign, Step, eq, le
from theory.enclosure import Ball, ball, ends, evaluate
from theory.theorem import Bound, Hypothesis, Theorem, no_events
from theory.theorems._moment_coefficients import coefficients
from theory.window import FloatArray, Window

QUANTITY = "largest |m|/sqrt(v)"

# |m|, v, |g| before the step, |m'|, v' after it
_m, _v, _g, _m_next, _v_next = (sp.Symbol(s, nonnegative=True) for s in ("m", "v", "g", "m_+", "v_+"))
_B, _Gamma, _b, _c, _K, _lambda = (sp.Symbol(s, positive=True) for s in ("B", "Gamma", "b", "c", "K", "lambda"))

SQUARED_CONSTANT = _Gamma**2 / (_c * (1 - _B**2 / _b))

_first = le(_m_next, _B * _m + _Gamma * _g)
_second = le(_b * _v + _c * _g**2, _v_next)
_before = le(_m**2, _K * _v)
_slack = eq(_b, _B**2 * (1 + _lambda))
_constant = eq(_K, SQUARED_CONSTANT)
STATEMENT = le(_m_next**2, _K * _v_next)

DERIVATION = Derivation(
    "T5",
    givens=(_first, _second, _before, _slack, _constant),
    steps=(
        Step(_first, Given(), "upper side of the first moment, by composition"),
        Step(_second, Given(), "lower side of the second moment, by composition"),
        Step(_before, Given(), "the bound before the step"),
        Step(_slack, Given(), "the hypothesis B^2 < b, its slack named lambda"),
        Step(_constant, Given(), "the constant"),
        Step(eq(_K * _c, _Gamma**2 * (1 + 1 / _lambda)), Identity(using=(3, 4)), "the constant in terms of the slack"),
        Step(
            le(2 * _B * _m * _Gamma * _g, _lambda * _B**2 * _m**2 + _Gamma**2 * _g**2 / _lambda),
            Sign(),
            "Young's inequality with weight lambda",
        ),
        Step(le(_m_next**2, (_B * _m + _Gamma * _g) ** 2), Combine({0: _m_next + _B * _m + _Gamma * _g}), "square"),
        Step(
            STATEMENT,
            Combine({7: 1, 6: 1, 1: _K, 2: (1 + _lambda) * _B**2, 3: -_K * _v, 5: -(_g**2)}),
            "the bound after the step",
        ),
    ),
    statement=STATEMENT,
)


def evaluate_bound(window: Window) -> Bound:
    """C for the stored scalars and the slots of the run, the same for every seed."""
    checks = [Hypothesis("the optimizer stores m and v", {"m", "v"} <= set(window.program.state), window.optimizer)]
    if not checks[0].ok:
        return Bound("T5", QUANTITY, tuple(checks))
    constant = [s.name for s in window.program.scalars if not window.program.varies(s)]
    missing = [name for name in constant if not window.scalars.get(name, -1.0) >= 0]
    checks.append(Hypothesis("constant scalars are known and nonnegative", not missing, ", ".join(missing)))
    checks.append(Hypothesis("the ratio was recorded", window.step_ratio is not None))
    if missing:
        return Bound("T5", QUANTITY, tuple(checks))
    try:
        run = partial(compose, window.program, window.slots, scalars=window.scalars)
        first = run("m ->", exact=("m", "g"))
        second = run("v ->", exact=("v", "g"), nonnegative=("v",))
        changing = sorted(_scalars_of(first, second) - set(window.scalars))
        if changing:
            checks.append(Hypothesis("the scalars of m and v are constant", False, ", ".join(changing)))
            return Bound("T5", QUANTITY, tuple(checks))
        upper = coefficients(window, first, (named("m"), named("g")), upper=True)
        lower = coefficients(window, second, (named("v", nonnegative=True), named("g") ** 2), upper=False)
    except NoEnclosure as none:
        return Bound("T5", QUANTITY, (*checks, Hypothesis("m and v are sums of rounded products", False, str(none))))
    checks += no_events(window, (*first.underflow_slots, *second.underflow_slots))
    if not all(check.ok for check in checks):
        return Bound("T5", QUANTITY, tuple(checks))
    values = dict(zip((_B, _Gamma, _b, _c), (*upper, *lower), strict=True))
    detail = ", ".join(f"{s}={float(x.mid()):.6g}" for s, x in values.items())
    contracts = bool(values[_b] - values[_B] ** 2 > 0) and bool(values[_c] > 0)
    checks.append(Hypothesis("B^2 < b and c > 0", contracts, detail))
    if not contracts:
        return Bound("T5", QUANTITY, tuple(checks))
    squared = evaluate(SQUARED_CONSTANT, values)
    outside = _states_outside(window.start["m"], window.start["v"], squared)
    above = f"{outside} states above it" if outside else ""
    checks.append(Hypothesis("the window starts under the bound", outside == 0, above))
    low, high = ends(squared.sqrt())
    return Bound("T5", QUANTITY, tuple(checks), low, high, per_seed=np.full(window.seeds, high))


def measured(window: Window) -> FloatArray:
    """The largest recorded |m|/sqrt(v) of each seed."""
    return np.full(window.seeds, math.nan) if window.step_ratio is None else window.step_ratio


def _scalars_of(*values: Composed) -> set[str]:
    """Names of the scalars in the exact parts of composed values."""
    names = {str(x) for value in values for term in value.terms for x in term.exact.free_symbols}
    return {name for name in names if name.startswith("scalar.")}


def _states_outside(m: FloatArray, v: FloatArray, squared: Ball) -> int:
    """How many states do not certainly obey m^2 <= K v."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # a float comparison with a wide margin settles all but a few
        doubtful = ~((m == 0.0) | (np.abs(m) / np.sqrt(v) < 0.999 * ends(squared.sqrt())[0]))
    return sum(not ball(x) ** 2 <= squared * ball(y) for x, y in zip(m[doubtful], v[doubtful], strict=True))


THEOREM = Theorem(
    identifier="T5",
    title="Adam: the step |m|/sqrt(v) is bounded for every gradient sequence",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=STATEMENT,
    derivations=(DERIVATION,),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("adam",),
)
