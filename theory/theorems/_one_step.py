"""One step of gradient descent with a relative gradient error: what every floor of GD starts from.

F is L-smooth, the step is w' = w - alpha (grad F(w) + e) with |e| <= q |grad F(w)| and 0 < alpha <= 1/L. Then

    F(w') - F(w) <= -alpha (1-q) (1 - alpha L (1-q)/2) |grad F(w)|^2.

A relative error alone leaves no floor: for q < 1 every step decreases F. The worst case is e = -q grad F(w) with the
curvature L along it, a shorter step in the steepest quadratic; the bound is attained. PEPit's semidefinite program,
which knows nothing of this proof, finds the same number (``tests/theory/test_pepit.py``).

Symbols: G = |grad F(w)|, E = |e|, c = <grad F(w), e>, so that |grad F(w) + e|^2 = G^2 + 2c + E^2.
"""

from __future__ import annotations

import sympy as sp

from theory.axioms import DESCENT
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Sign, Step, le

q, G, E = sp.symbols("q G E", nonnegative=True)
alpha, L = sp.symbols("alpha L", positive=True)
c, f, f_next = sp.symbols("c f f_next", real=True)

DECREASE = alpha * (1 - q) * (1 - alpha * L * (1 - q) / 2)

CAUCHY_SCHWARZ = Axiom(
    "Cauchy-Schwarz inequality",
    le(-E * G, c),
    citation="<x, y> >= -|x| |y|",
    test="tests/theory/test_pepit.py::test_cauchy_schwarz",
)

one_step = Derivation(
    "one step with a relative gradient error",
    givens=(le(E, q * G), le(alpha * L, 1)),
    steps=(
        Step(le(E, q * G), Given(), "the relative error"),
        Step(le(alpha * L, 1), Given(), "the step size"),
        Step(le(-E * G, c), Instance(CAUCHY_SCHWARZ), "the error may point against the gradient"),
        Step(le(0, (G - E) ** 2), Sign()),
        Step(le(0, alpha**2 * (G**2 + 2 * c + E**2)), Combine({3: alpha**2, 2: 2 * alpha**2}), "a squared length"),
        Step(
            le(f_next, f - alpha * (G**2 + c) + L * (alpha**2 * (G**2 + 2 * c + E**2)) / 2),
            Instance.of_names(
                DESCENT, f_next=f_next, f=f, inner=-alpha * (G**2 + c), L=L, square=alpha**2 * (G**2 + 2 * c + E**2)
            ),
            "the descent lemma for s = -alpha (grad + e)",
        ),
        Step(le(0, G * (q * G - E)), Combine({0: G}), "the error's part along the gradient"),
        Step(le(E**2, (q * G) ** 2), Combine({0: q * G + E}), "and its square"),
        Step(
            le(f_next, f - DECREASE * G**2),
            Combine({5: 1, 2: alpha * (1 - alpha * L), 6: alpha * (1 - alpha * L), 7: L * alpha**2 / 2}),
            "1 - alpha L >= 0: c and then E are replaced by their worst values",
        ),
    ),
    statement=le(f_next, f - DECREASE * G**2),
)

decreases = Derivation(
    "a relative gradient error below 1 leaves no floor",
    givens=(le(f_next, f - DECREASE * G**2), le(alpha * L, 1), le(q, 1)),
    steps=(
        Step(le(f_next, f - DECREASE * G**2), Given(), "the step"),
        Step(le(alpha * L, 1), Given()),
        Step(le(q, 1), Given()),
        Step(le(0, 1 + q), Sign()),
        Step(le(0, 2 - alpha * L * (1 - q)), Combine({1: 1 - q, 3: 1}), "alpha L (1-q) <= 1 - q"),
        Step(le(f_next, f), Combine({0: 1, 4: alpha * (1 - q) * G**2 / 2}), "F does not increase"),
    ),
    statement=le(f_next, f),
)

LEMMAS = (one_step, decreases)
