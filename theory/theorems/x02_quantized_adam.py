"""X2: the published form of a bound for quantized Adam (arXiv:2510.21314), [inferred] as far as known. A comparison.

The paper's theorem 4.5 is known here by its abstract, by summaries and by public reviews only. Stated there: the
schedule lr = Theta(T^-1/2), 1 - beta2 = Theta(1/T), q_G, q_M = O(1/T), q_W, q_V = O(T^-2), the rate T^-1/4, a side
condition beta1^2 (1 + q_M)^2 < beta2 (1 - q_V), a full-precision master, exact arithmetic between roundings, weighted
sums. The inequality itself and its aggregate Q~ (its equation A.43) are not known. What is evaluated is a shape that is
consistent with these fragments, every constant of it [inferred]:

    E|grad F(W_tau)|^2 <= 2 R^ (F_0 - F*)/(lr T~) + C [ln(1 + R^2/((1 - b) eps)) - T ln b]/T~ + Q~
    a = beta1 (1 + q_M), b = beta2 (1 - q_V), rho = a/b, R^ = (1 + q_G) R + sqrt(eps), T~ = T - beta1/(1 - beta1)
    C = Defossez, Theorem 4 (X1) with 1 - beta1/beta2 replaced by 1 - rho
    Q~ = (2 R/sqrt(1 - beta2)) (d R q_G + d R q_M/(1 - beta1) + d R q_V/(1 - beta2) + sqrt(d) L q_W sup|W|).

Q~ is an aggregate for which all four exponents are exact: weighted sums give sqrt(V) <= R/sqrt(1 - beta2) ~ sqrt(T), so
that a direction error delta costs (2R/sqrt(1 - beta2)) delta. Each q is the relative error of storing the tensor (R1,
R2); the roundings of the arithmetic itself are not in that model.

Proven here: what the two side conditions are for. rho < 1 and sum M^2/(V + eps) <= [ln(1 + R^2/((1 - b) eps)) - T ln
b]/((1 - a)(1 - rho)) (test); a^2 < b keeps |M|/sqrt(V) below (1 - a^2/b)^(-1/2) (T5's constant for sums).
Source: [inferred] from secondary accounts of arXiv:2510.21314; not the paper's own inequality.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp

from fpsim.rounding import is_nearest
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, eq, le
from theory.enclosure import BITS, Ball, Number, ball, ends, evaluate, working_precision
from theory.rounding_model import low_high
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems import _defossez as lemmas
from theory.theorems import x01_defossez
from theory.theorems._defossez import CONSTANT, G2, MEMORY, F, N, R, alpha, d, r2
from theory.theorems.t05_adam_step import DERIVATION as STEP_BOUND
from theory.theorems.t08_stochastic_gd import measured
from theory.window import Window

QUANTITY = "root mean square of the gradient norm over window and seeds"
INFERRED = "[inferred] shape of arXiv:2510.21314, not its printed inequality"

qG, qM, qV, qW = sp.symbols("q_G q_M q_V q_W", nonnegative=True)
beta1 = sp.Symbol("beta1", nonnegative=True)
size = sp.Symbol("W_max", nonnegative=True)
PARTS = (d * R * qG, d * R * qM / (1 - beta1), d * R * qV / r2**2, sp.sqrt(d) * lemmas.L * qW * size)
AGGREGATE = 2 * R / r2 * sp.Add(*PARTS)
exact_part, Q = sp.symbols("exact Q", nonnegative=True)
quantized = Axiom(
    "quantized Adam, assembled [inferred]",
    le(G2, exact_part + Q),
    citation="[inferred] from summaries and reviews of arXiv:2510.21314: the exact-arithmetic bound with rounded "
    "decays and an aggregate Q~ of the storage errors",
    test="tests/theory/test_x02.py::test_rounded_states_obey_the_sums",
)
RIGHT = 2 * R * F / (alpha * N) + CONSTANT * lemmas.B / N + AGGREGATE
shape = Derivation(
    "quantized Adam, published form [inferred]",
    givens=(eq(exact_part, 2 * R * F / (alpha * N) + CONSTANT * lemmas.B / N), eq(Q, AGGREGATE)),
    steps=(
        Step(quantized.conclusion, Instance(quantized), "[inferred]"),
        Step(eq(exact_part, 2 * R * F / (alpha * N) + CONSTANT * lemmas.B / N), Given(), "X1 with a, b, R^"),
        Step(eq(Q, AGGREGATE), Given(), "[inferred]"),
        Step(le(G2, RIGHT), Combine({0: 1, 1: 1, 2: 1})),
    ),
    statement=le(G2, RIGHT),
)


def evaluate_bound(window: Window) -> Bound:
    """The inferred shape for the window, with the storage errors of its slots."""
    checks = [*x01_defossez.hypotheses(window)]
    if not all(check.ok for check in checks):
        return Bound("X2", QUANTITY, tuple(checks))
    first, second = x01_defossez.decays(window)
    errors = storage_errors(window)
    with working_precision(BITS):
        one, b1, b2 = ball(1), ball(first), ball(second)
        a, b = b1 * (one + errors[qM]), b2 * (one - errors[qV])
        text = ", ".join(f"{name} = {float(x):.3g}" for name, x in errors.items())
        checks.append(Hypothesis("a^2 < b: beta1^2 (1 + q_M)^2 < beta2 (1 - q_V)", bool(a * a < b), text))
        checks.append(Hypothesis("a < b: beta1 (1 + q_M) < beta2 (1 - q_V)", bool(a < b), text))
        if not all(check.ok for check in checks):
            return Bound("X2", QUANTITY, tuple(checks))
        values: dict[sp.Symbol, Number | Ball] = dict(x01_defossez.constants(window, first, second))
        eps_root = (ball(float(window.hyperparameters["eps"])) ** 2 / (one - b2)).sqrt()
        largest = ball(float(np.max(window.max_abs["g"])))
        values |= {R: (one + errors[qG]) * largest + eps_root, lemmas.b: b, lemmas.rr: (one - a / b).sqrt()}
        norm = np.max(np.linalg.norm(window.max_abs["w"], axis=0))
        values |= {**errors, beta1: b1, size: ball(float(norm)) * (one + ball(2.0**-40))}
        memory = evaluate(MEMORY, values)
        lower, upper = ends(evaluate(shape.statement.right, {**values, lemmas.B: memory}).sqrt())
    checks.append(Hypothesis("finite", math.isfinite(upper), f"{upper:.4g}"))
    return Bound("X2", QUANTITY, tuple(checks), lower, upper, exponent=2, note=INFERRED)


def storage_errors(window: Window) -> dict[sp.Symbol, Ball]:
    """q_G, q_M, q_V, q_W: the relative error of storing each tensor; q_M = 0 without a first moment."""
    found = {}
    for symbol, slot in ((qG, "g"), (qM, "m"), (qV, "v"), (qW, "w")):
        if slot not in window.slots:
            found[symbol] = ball(0)
            continue
        fmt, rounding = window.slots[slot]
        low, high = low_high(fmt, rounding)
        error = 1 - low if is_nearest(rounding) else high - 1
        found[symbol] = ball(int(error.p)) / int(error.q)
    return found


THEOREM = Theorem(
    identifier="X2",
    title="Quantized Adam, the published form of arXiv:2510.21314 as inferred (comparison)",
    quantity=QUANTITY,
    tightness="upper",
    source=INFERRED,
    statement=shape.statement,
    derivations=(shape, lemmas.theorem_4, STEP_BOUND),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop", "adam"),
    comparison=True,
)
