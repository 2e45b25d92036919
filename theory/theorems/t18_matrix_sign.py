"""T18: Muon and sign descent with momentum settle where the gradient is of the order lr L* / sqrt(1 - beta).

One theorem for two methods. |.| is the norm that a step has length one in and |.|' its dual: for Muon the spectral and
the nuclear norm of an n x m matrix, for sign descent the largest modulus and the sum of the moduli of d coordinates.

Model. m' = b m + c G + E with the stored decay b and injection c, O the polar factor (signs) of m', <m', O> >=
(1-tau)|m'|', |O| <= 1 + tau, and w' = w - lr O + err + zeta: err is bounded, zeta has mean zero given the past and
E zeta M zeta / 2 <= V, M above every Hessian. L*: F(Y) <= F(X) + <grad F(X), Y-X> + L* |Y-X|^2 / 2, grad F is
L*-Lipschitz from |.| to |.|'. x = avg |m'|', y = avg |G|', S = avg |E|', averages over the window and in the mean.

(i)   (lr/c) ((1-tau) x - b (1+tau) (x + m0/T) - (1+tau) S) <= F0/T + e y + N
(ii)  y <= k_n x + D_n + S/c,  k_n = (1-b)(1+b^n)/(c (1-b^n)),  for any n >= 1
(iii) S <= p x + q y + z

|err| <= e: the bias of n-bit stochastic rounding or half a gap to nearest, and the roundings of O and lr O in the same
way. N: the descent lemma's second-order term (L*/2)(lr(1+tau) + e)^2, or its Euclidean counterpart, and V.
D_n = dev_n (bound of avg |G_{t+1} - G_t|') + b^n (1-b) m0/(c (1-b^n) T) + (n-1)/T sup |G|': the last for the steps at
an end of the window that no n steps reconstruct; dev_n = min_i sum_j w_j |j - i|, w_j = b^(n-j) (1-b)/(1-b^n).
m0 = |m|' before the window. b = 1 counts as the limit.

Hypotheses. Exact gradients (no noise) up to rounding; round to nearest or stochastic (variant A) in the step and in w;
any mode in m; no overflow; the 2 x 2 system (i)-(iii) has a solution: kappa > 0 and kappa A > K P below.

Statement. y <= (K R + kappa J) / (kappa A - K P), kappa = ((1-tau) - b(1+tau) - (1+tau)p)/c, K = k_n + p/c,
P = e/lr + (1+tau) q/c, A = 1 - q/c, J = D_n + z/c, R = (F0/T + N)/lr + (1+tau)(z + b m0/T)/c; the best n is taken.

In exact arithmetic and T -> oo this is lr L* min_n (k_n/2 + dev_n), about lr L*/sqrt(1-beta), 3.067 lr L* at 0.9.

What differs from the usual form of the argument. The stored c is not 1 - b. In the sum of moduli, rounding to nearest
costs half of the *largest* gap, not sqrt(d) of them, and E costs no sqrt(d). A stochastically rounded weight lies on
the grid, so w' - w has one sign whatever is drawn, and E|w_i' - w_i| = |E(w_i' - w_i)|: for sign descent on separable F
the mean drift of the gradient contains no rounding noise at all.

Tightness: the exponent 1/2 of 1 - beta is attained (quadratics, sign descent). Source: derived here.
"""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
from flint import arb

from theory.composition import NoEnclosure
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, eq, le, lt
from theory.enclosure import BITS, Ball, compile_expression, ends, working_precision
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems._dual_norms import Numbers, hypotheses, method_of, numbers
from theory.window import FloatArray, Window

QUANTITY = "average dual norm of the gradient (nuclear norm, or sum of moduli)"
LONGEST = 48  # n, the steps that a gradient is reconstructed from: about 2/sqrt(1-beta) is best

alpha, c, kappa = sp.symbols("alpha c kappa", positive=True)
b, tau, x, x0, y, S, e, p, q, z, m0, k, D, nM, nP, nE, nG = sp.symbols(
    "b tau x x_0 y S e p q z m_0 k D nM nP nE nG", nonnegative=True
)
F, N, MO, PO, EO, GO, f, f_next, A, R, J = sp.symbols("F N MO PO EO GO f f_next A R J", real=True)
P, K = sp.symbols("P K", nonnegative=True)

KAPPA = ((1 - tau) - b * (1 + tau) - (1 + tau) * p) / c
COST = e / alpha + (1 + tau) * q / c
REST = (F + N) / alpha + (1 + tau) * (z + b * m0) / c
NAMED = (eq(kappa, KAPPA), eq(P, COST), eq(R, REST), eq(A, 1 - q / c), eq(K, k + p / c), eq(J, D + z / c))
DETERMINANT = kappa * A - K * P
LIMIT = (K * R + kappa * J) / DETERMINANT
STATEMENT = le(y, LIMIT)

descent = Axiom(
    "descent in a norm",
    le(f_next, f - alpha * GO + e * nG + N),
    citation="E F(w') <= F(w) + <G, s> + L* |s|^2/2 + V, s = -lr O + err the mean step, |<G, err>| <= |err| |G|'; "
    "N >= L* |s|^2/2 + V (after s, zeta costs E zeta M zeta/2 = V: its mean is zero)",
    test="tests/theory/test_t18.py::test_descent_in_a_norm",
)
one_step = Derivation(
    "T18, one step",
    givens=(eq(MO, b * PO + c * GO + EO), le((1 - tau) * nM, MO), le(PO, (1 + tau) * nP), le(EO, (1 + tau) * nE)),
    steps=(
        Step(eq(MO, b * PO + c * GO + EO), Given(), "the inner product of O with m' = b m + c G + E"),
        Step(le((1 - tau) * nM, MO), Given(), "O is a subgradient of the dual norm at m', up to tau"),
        Step(le(PO, (1 + tau) * nP), Given(), "duality, |O| <= 1 + tau"),
        Step(le(EO, (1 + tau) * nE), Given()),
        Step(descent.conclusion, Instance(descent)),
        Step(
            le(alpha / c * ((1 - tau) * nM - b * (1 + tau) * nP - (1 + tau) * nE), f - f_next + e * nG + N),
            Combine({0: alpha / c, 1: alpha / c, 2: alpha * b / c, 3: alpha / c, 4: 1}),
        ),
    ),
    statement=le(alpha / c * ((1 - tau) * nM - b * (1 + tau) * nP - (1 + tau) * nE), f - f_next + e * nG + N),
)

averaged = Axiom(
    "T18: averaged over the window",
    le(alpha / c * ((1 - tau) * x - b * (1 + tau) * x0 - (1 + tau) * S), F + e * y + N),
    citation="'T18, one step' averaged over steps and seeds; F >= E[F_first-F_last]/T; x0 = avg |m|' before the steps",
    test="tests/theory/test_t18.py::test_the_three_inequalities",
)
shifted = Axiom(
    "average of a shifted sequence",
    le(x0, x + m0),
    citation="sum_{t<T} a_t <= a_0 + sum_{1<=t<=T} a_t for a >= 0; m0 = a_0/T",
    test="tests/theory/test_t18.py::test_the_three_inequalities",
)
unrolled = Axiom(
    "momentum unrolled over n steps",
    le(y, k * x + D + S / c),
    citation="c S_n G_i = M_n - b^n M_0 - c sum_j b^(n-j) (G_j - G_i) - sum_j b^(n-j) E_j, S_n = (1-b^n)/(1-b); "
    "triangle inequality, averaged over windows of n steps",
    test="tests/theory/test_t18.py::test_the_three_inequalities",
)
main = Derivation(
    "T18",
    givens=(le(S, p * x0 + q * y + z - p * m0), *NAMED, lt(0, DETERMINANT)),
    steps=(
        Step(averaged.conclusion, Instance(averaged), "(i)"),
        Step(shifted.conclusion, Instance(shifted)),
        Step(le(S, p * x0 + q * y + z - p * m0), Given(), "(iii): every rounding is relative; z holds p m0"),
        Step(NAMED[0], Given()),
        Step(NAMED[1], Given()),
        Step(NAMED[2], Given()),
        Step(
            le(kappa * x, R + P * y),
            Combine({0: 1 / alpha, 1: (b + p) * (1 + tau) / c, 2: (1 + tau) / c, 3: x, 4: -y, 5: -1}),
        ),
        Step(unrolled.conclusion, Instance(unrolled), "(ii)"),
        Step(NAMED[3], Given()),
        Step(NAMED[4], Given()),
        Step(NAMED[5], Given()),
        Step(le(A * y, K * x + J), Combine({7: 1, 2: 1 / c, 1: p / c, 8: y, 9: -x, 10: -1})),
        Step(lt(0, DETERMINANT), Given(), "the system has a solution"),
        Step(STATEMENT, Combine({6: K / DETERMINANT, 11: kappa / DETERMINANT})),
    ),
    statement=STATEMENT,
)


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell, for the best n; see the module's docstring."""
    checks = list(hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T18", QUANTITY, tuple(checks))
    try:
        with working_precision(BITS):
            found = numbers(window)
    except (NoEnclosure, ValueError) as none:
        failed = Hypothesis("m is decayed and fed by the gradient times a factor", False, str(none))
        return Bound("T18", QUANTITY, (*checks, failed))
    checks.append(Hypothesis("underflow leaves a finite error", bool(found.finite), found.tiny))
    if not found.finite:
        return Bound("T18", QUANTITY, tuple(checks))
    with working_precision(BITS):
        best, solvable = _best(found)
    name = "kappa > 0 and kappa A > K P for some n: roundings are small against lr and 1 - beta"
    checks.append(Hypothesis(name, best is not None, solvable))
    if best is None:
        return Bound("T18", QUANTITY, tuple(checks))
    lower, upper = ends(best)
    return Bound("T18", QUANTITY, tuple(checks), lower, upper)


def measured(window: Window) -> FloatArray:
    """Window average of the dual norm of the true gradient, [S]."""
    method = method_of(window.program)
    missing = np.full((1, window.seeds), math.nan)
    samples = window.samples.get(method.samples, missing) if method else missing
    return np.asarray(np.mean(samples, axis=0), dtype=np.float64)


_SYMBOLS = (alpha, b, c, tau, p, q, z, e, F, N, m0, k, D)


def _best(found: Numbers) -> tuple[Ball | None, str]:
    """The smallest limit over n, None where the system has no solution; and what decided."""
    names = {claim.left: compile_expression(claim.right, _SYMBOLS) for claim in NAMED}
    limit, determinant = (compile_expression(u, list(names)) for u in (LIMIT, DETERMINANT))
    best: Ball | None = None
    detail = ""
    for n in range(1, min(LONGEST, found.steps) + 1):
        given = [*found.symbols, *unrolling(found, n)]
        values = {name: function(given) for name, function in names.items()}
        if n == 1:
            ratio = found.e / found.lr
            shown = {"kappa": values[kappa], "A": values[A], "K": values[K], "P": values[P], "e/lr": ratio}
            detail = ", ".join(f"{name} = {float(x.mid()):.4g}" for name, x in shown.items()) + " for n = 1"
        if not (values[kappa] > 0 and determinant(list(values.values())) > 0):
            continue
        value = limit(list(values.values()))
        if value.is_finite() and (best is None or ends(value)[1] < ends(best)[1]):
            best = value
    return best, detail


def unrolling(found: Numbers, n: int) -> tuple[Ball, Ball]:
    """(k_n, D_n)."""
    powers = [arb(1)]
    for _ in range(n):
        powers.append(powers[-1] * found.decay)
    total = sum(powers[:n], arb(0))  # S_n
    weights = [powers[n - j] / total for j in range(1, n + 1)]
    spread = [sum((w * abs(j - i) for j, w in enumerate(weights, 1)), arb(0)) for i in range(1, n + 1)]
    deviation = min(spread, key=lambda u: ends(u)[1])
    scale = found.injection * total
    edge = powers[n] * found.start / scale + found.largest * (n - 1) / found.steps
    return (1 + powers[n]) / scale, deviation * found.drift + edge


THEOREM = Theorem(
    identifier="T18",
    title="Muon and sign descent with momentum: the gradient's floor is lr L* over the root of 1 - beta",
    quantity=QUANTITY,
    tightness="upper",
    source="derived here",
    statement=STATEMENT,
    derivations=(main, one_step),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("muon", "signum"),
)
