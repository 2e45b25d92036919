"""Facts that the checked derivations rest on, each with its source and the test that exercises it numerically."""

from __future__ import annotations

import sympy as sp

from theory.derivation import Axiom, le

_MODEL_TEST = "tests/theory/test_rounding_model.py"

# magnitudes of one rounded product: argument x, result y, factors l and h, underflow unit eta
_x, _y, _eta, _l, _h = (sp.Symbol(s, nonnegative=True) for s in ("x", "y", "eta", "l", "h"))
_a, _s, _half = (sp.Symbol(s, nonnegative=True) for s in ("a", "s", "half"))
_f, _f_next, _inner, _square, _smoothness = (
    *(sp.Symbol(s, real=True) for s in ("f", "f_next", "inner")),
    *(sp.Symbol(s, nonnegative=True) for s in ("square", "L")),
)

COMPOSED_LOW = Axiom(
    "composition, lower side",
    le(_l * _x - _eta, _y),
    citation="R1-R3 slot by slot, theory.composition: |computed| >= low |exact| - absolute",
    test="tests/theory/test_composition.py::test_computed_values_lie_in_their_enclosure",
)
COMPOSED_HIGH = Axiom(
    "composition, upper side",
    le(_y, _h * _x + _eta),
    citation="R1-R3 slot by slot, theory.composition: |computed| <= high |exact| + absolute",
    test="tests/theory/test_composition.py::test_computed_values_lie_in_their_enclosure",
)
NEAREST_STAYS = Axiom(
    "R6, stopping",
    le(_a, _half),
    citation="to nearest, w on the grid: fl(w - a) = w only if |a| is at most half the gap on the side of -a",
    test=f"{_MODEL_TEST}::test_nearest_stays_iff_the_step_is_at_most_half_the_gap",
)
NEAREST_MOVES = Axiom(
    "R6, moving",
    le(_s, 2 * _a),
    citation="to nearest, w on the grid: s = fl(w - a) - w is 0 or has the sign of -a, and |s| <= 2|a|",
    test=f"{_MODEL_TEST}::test_nearest_moves_against_the_step_and_at_most_twice_as_far",
)
DESCENT = Axiom(
    "descent lemma",
    le(_f_next, _f + _inner + _smoothness * _square / 2),
    citation="Nesterov, Lectures on convex optimization, 2018, Lemma 1.2.3: f(w+s) <= f(w) + <grad f(w), s> + L|s|^2/2",
    test="tests/theory/test_t06.py::test_descent_lemma",
)
