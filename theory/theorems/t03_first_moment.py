"""T3: the error of a rounded first moment, relative to the moving average of |g|.

Model. m' = fl(fl(B m) + fl(c g)) with the stored B = fl(beta1), c = fl(1 - beta1), or any other order of operations
from which composition finds B m and c g times factors. Exact arithmetic on the same stored gradients, with the same B
and c and from the same recorded start: r' = B r + c g, and R' = B R + c |g| from R = |m|.

Statement. |m - r| <= e, step by step along the record, with e = 0 at its start and

    e' = B e + i_m B |m| + i_g c |g| + o |m'| + A,

i_m, i_g, o the largest relative errors of the product, of what is injected and of the sum, A what underflow adds. To
nearest i_m B |m| may be replaced by (1-B) |m|, and o |m'| by the largest |c g| (R6). The theorem bounds the largest
|m - r|/R of every seed by the largest e/R.

Consequence. With |m| <= S, S' = B h^2 S + c h^2 |g|, the sum is S - R: the error is at most h^2 c/(1 - B h^2) - 1,
about 2u/(1-B), relative to R. It is not relative to |m|: where gradients cancel, m is small and its error is not. That
e reads the recorded |m| makes it smaller there: sharper than the closed form.

Tightness: sharp. Source: derived here; running error analysis as in Wilkinson, Error analysis revisited, 1986.
"""

from __future__ import annotations

import sympy as sp

from theory.composition import NoEnclosure
from theory.derivation import Combine, Derivation, Given, Step, eq, le
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems._running_error import RUNNING, along, bound_of, measured_error, recorded
from theory.window import FloatArray, Window

QUANTITY = "largest error of m against exact arithmetic, relative to the moving average of |g|"

_R, _S, _B, _c, _g, _h, _i = (sp.Symbol(s, nonnegative=True) for s in ("R", "S", "B", "c", "g", "h", "i"))
_e, _e_next = (sp.Symbol(s, nonnegative=True) for s in ("e", "e_+"))

# h: upper factor of the decayed part, i that of the injected part; the running error of one step with |m| at most S
_step = le(_e_next, _h * _B * _e + (_h - 1) * _B * _R + (_i - 1) * _c * _g)
CLOSED = Derivation(
    "T3, closed form",
    givens=(_step, le(_e, _S - _R)),
    steps=(
        Step(_step, Given(), "one step, relative errors against the exact state"),
        Step(le(_e, _S - _R), Given(), "before the step"),
        Step(
            le(_e_next, (_h * _B * _S + _i * _c * _g) - (_B * _R + _c * _g)),
            Combine({0: 1, 1: _h * _B}),
            "after it: S' - R' with S' = B h S + c i |g| and R' = B R + c |g|",
        ),
    ),
    statement=le(_e_next, (_h * _B * _S + _i * _c * _g) - (_B * _R + _c * _g)),
)

_fixed = eq(_S * (1 - _B * _h), _c * _i)
STATIONARY = Derivation(
    "T3, constant |g| = 1",
    givens=(_fixed, eq(_R * (1 - _B), _c)),
    steps=(
        Step(_fixed, Given(), "S' = S"),
        Step(eq(_R * (1 - _B), _c), Given(), "R' = R"),
        Step(
            eq((_S - _R) * (1 - _B * _h) * (1 - _B), _c * (_i * (1 - _B) - (1 - _B * _h))),
            Combine({0: 1 - _B, 1: -(1 - _B * _h)}),
            "with h = i = (1+u)^2 the error is about 2u/(1-B) of R",
        ),
    ),
    statement=eq((_S - _R) * (1 - _B * _h) * (1 - _B), _c * (_i * (1 - _B) - (1 - _B * _h))),
    domain={_B: sp.Interval.Ropen(0, 1)},
)


def evaluate_bound(window: Window) -> Bound:
    """The largest e/R of each recorded seed."""
    checks = list(recorded(window, "m"))
    if not all(check.ok for check in checks):
        return Bound("T3", QUANTITY, tuple(checks))
    try:
        found = along(window, "m", 1)
    except (NoEnclosure, ValueError) as none:
        reason = Hypothesis("m is a sum of rounded multiples of m and g", False, str(none))
        return Bound("T3", QUANTITY, (*checks, reason))
    detail = f"B = {float(found.decay):.6g}, c = {float(found.inject):.6g}"
    checks.append(Hypothesis("m is a sum of rounded multiples of m and g", True, detail))
    return bound_of("T3", QUANTITY, window, checks, found.error, found.modulus)


def measured(window: Window) -> FloatArray:
    """[S] the largest |m - r|/R on the record."""
    return measured_error(window, "m", 1)


THEOREM = Theorem(
    identifier="T3",
    title="The error of a rounded first moment",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=RUNNING.statement,
    derivations=(RUNNING, CLOSED, STATIONARY),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("momentum", "adam"),
)
