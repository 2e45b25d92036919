"""The lemmas of Defossez, Bottou, Bach, Usunier (arXiv:2003.02395, TMLR 2022), re-derived as far as algebra goes.

Their form. m_n = beta1 m_{n-1} + g_n, v_n = beta2 v_{n-1} + g_n^2 (weighted sums), x_n = x_{n-1} - alpha_n m_n/sqrt(eps
+ v_n), alpha_n = alpha (1 - beta1) sqrt((1 - beta2^n)/(1 - beta2)); |g_i| <= R - sqrt(eps). Lemma 5.1 and the one-step
form of Lemma 5.2 are proven here; A.1 to A.4 are axioms with a numerical test each.

Symbols: a = beta1 and b = beta2, or with rounded states a = beta1 (1 + q_M), b = beta2 (1 - q_V); roots are kept as
symbols, rho = a/b: r1 = sqrt(1 - a), r2 = sqrt(1 - beta2), rr = sqrt(1 - rho).
"""

from __future__ import annotations

import sympy as sp

from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Sign, Step, cited, eq, le
from theory.theorems.t11_deterministic_rmsprop import increment, shifted

SOURCE = "Defossez, Bottou, Bach, Usunier, A simple convergence proof of Adam and Adagrad, TMLR 2022, arXiv:2003.02395"
_TEST = "tests/theory/test_x01.py"

# Lemma 5.1, one coordinate, one step: s = sqrt(eps + v), t = sqrt(eps + v~), u = E g^2, y = |g|, G = |grad|
s, t, y, u, R = sp.symbols("s t y u R", positive=True)
G = sp.Symbol("G", nonnegative=True)
YOUNG = G**2 / (4 * t) + y**2 * u**2 / (t**3 * s**2) + G**2 * y**2 / (4 * t * u) + u * y**4 / (t * s**4)
variation = Derivation(
    "Defossez, Lemma 5.1: the preconditioner against its mean",
    givens=(),
    steps=(
        Step(le((u + y**2) / (s + t), u / t + y**2 / s), Sign(), "|t^2 - s^2| = |u - g^2| <= u + g^2"),
        Step(
            le(G * y * (u + y**2) / (s * t * (s + t)), G * y * u / (s * t**2) + G * y**3 / (s**2 * t)),
            Combine({0: G * y / (s * t)}),
            "|G g| |1/s - 1/t|",
        ),
        Step(le(G * y * u / (s * t**2), G**2 / (4 * t) + y**2 * u**2 / (t**3 * s**2)), Sign(), "Young, weight t/2"),
        Step(le(G * y**3 / (s**2 * t), G**2 * y**2 / (4 * t * u) + u * y**4 / (t * s**4)), Sign(), "Young, t/(2u)"),
        Step(le(G * y * (u + y**2) / (s * t * (s + t)), YOUNG), Combine({1: 1, 2: 1, 3: 1})),
    ),
    statement=le(G * y * (u + y**2) / (s * t * (s + t)), YOUNG),
)  # fmt: skip
drive, mean, fourth = sp.symbols("drive mean fourth", real=True)  # E G g/s, E g^2/s^2, E g^4/s^4
taken = Axiom(
    "Defossez, Lemma 5.1: expectations",
    le(G**2 / t - (G**2 / (4 * t) + u**2 / t**3 * mean + G**2 / (4 * t) + u / t * fourth), drive),
    citation="the derivation above under E given the past: E g = grad, E g^2 = u; " + SOURCE,
    test=f"{_TEST}::test_lemma_5_1",
)
below_one = Axiom(
    "a square below its sum",
    le(fourth, mean),
    citation="g^2 <= eps + v = s^2, so g^4/s^4 <= g^2/s^2",
    test=f"{_TEST}::test_lemma_5_1",
)
lemma_51 = Derivation(
    "Defossez, Lemma 5.1",
    givens=(le(u, t**2), le(u, R * t), le(0, mean)),
    steps=(
        Step(le(u, t**2), Given(), "eps + v~ >= E g^2"),
        Step(le(u, R * t), Given(), "E g^2/t <= sqrt(E g^2) <= R"),
        Step(le(0, mean), Given()),
        *cited(taken, below_one),
        Step(
            le(G**2 / (2 * t) - 2 * R * mean, drive),
            Combine({3: 1, 4: u / t, 0: u * mean / t**3, 1: 2 * mean / t}),
        ),
    ),
    statement=le(G**2 / (2 * t) - 2 * R * mean, drive),
)  # fmt: skip

# sums over N steps and d coordinates: X of E|grad|^2 (weighted), Su of E|m|^2/(eps + v), SU of E g^2/(eps + v)
alpha, aN, N, d, L, r1, r2, rr, eps = sp.symbols("alpha alpha_N N d L r_1 r_2 r_r epsilon", positive=True)
X, Su, SU, B, F, G2 = sp.symbols("X S_u S_U B F G_2", nonnegative=True)
W = sp.Symbol("W", real=True)
logs = Axiom(
    "Defossez, Lemma 5.2, summed",
    le(SU, d * B),
    citation="'the new gradient is a logarithmic increment' of the shifted sum eps + v, telescoped; v <= R^2/(1 - b) "
    "gives B = ln(1 + R^2/((1 - b) eps)) - N ln b",
    test=f"{_TEST}::test_lemmas_5_2_and_a_2",
)
descent = Axiom(
    "Defossez: descent lemma, telescoped",
    le(W - aN**2 * L / 2 * Su, F),
    citation="W = sum alpha_n E sum_i G_i m_i/s_i; F = F_0 - F*; alpha_n <= alpha_N",
    test="tests/theory/test_t08.py::test_descent_lemma",
)
drive_0 = Axiom(
    "Defossez, Lemma 5.1, summed",
    le(alpha / (2 * R) * X - 2 * R * aN * SU, W),
    citation="alpha_n/(2 sqrt(eps + v~)) >= alpha/(2R) and alpha_n <= alpha_N = alpha/sqrt(1 - beta2)",
    test=f"{_TEST}::test_lemma_5_1",
)
CONSTANT_0 = 4 * d * R**2 / r2 + alpha * d * R * L / r2**2
_LAST = {aN: alpha / r2}
theorem_2 = Derivation(
    "Defossez, Theorem 2",
    givens=(eq(X, N * G2),),
    steps=(
        Step(drive_0.conclusion.replace(_LAST), Instance(drive_0, _LAST), "alpha_N = alpha/sqrt(1 - beta2)"),
        Step(descent.conclusion.replace({**_LAST, Su: SU}), Instance(descent, {**_LAST, Su: SU}), "m = g"),
        Step(logs.conclusion, Instance(logs)),
        Step(eq(X, N * G2), Given(), "tau is uniform"),
        Step(
            le(G2, 2 * R * F / (alpha * N) + CONSTANT_0 * B / N),
            Combine({
                0: 2 * R / (alpha * N), 1: 2 * R / (alpha * N),
                2: 2 * R / (alpha * N) * (2 * R * alpha / r2 + alpha**2 * L / (2 * r2**2)), 3: -1 / N,
            }),
        ),
    ),
    statement=le(G2, 2 * R * F / (alpha * N) + CONSTANT_0 * B / N),
)  # fmt: skip

k3, k4 = sp.symbols("k_3 k_4", nonnegative=True)
a_1 = Axiom(
    "Defossez, Lemma A.1, summed",
    le(alpha / (2 * R) * X - aN**3 * L**2 * r1 / (4 * R) * k4 * Su - 3 * R * aN / r1 * k3 * SU, W),
    citation=SOURCE + ", Lemma A.1 with k_3 = sum rho^k sqrt(k+1), k_4 = sum a^k sqrt(k) (k+1)",
    test=f"{_TEST}::test_lemma_a_1",
)
a_2 = Axiom(
    "Defossez, Lemma A.2",
    le(Su, d * B / (r1**2 * rr**2)),
    citation=SOURCE + ", Lemma A.2",
    test=f"{_TEST}::test_lemmas_5_2_and_a_2",
)
a_3 = Axiom("Defossez, Lemma A.3", le(k3, 2 / rr**3), citation=SOURCE + ", A.3", test=f"{_TEST}::test_geometric_sums")
a_4 = Axiom(
    "Defossez, Lemma A.4",
    le(k4, 4 * (1 - r1**2) / r1**5),
    citation=SOURCE + ", A.4",
    test=f"{_TEST}::test_geometric_sums",
)
UNIT = {r1: sp.Interval.Lopen(0, 1)}
TERMS = (
    alpha * d * R * L * r1**2 / (rr**2 * r2**2),
    12 * d * R**2 * r1 / (rr**3 * r2),
    2 * alpha**2 * d * L**2 * (1 - r1**2) / (rr**2 * r2**3),
)
CONSTANT = sp.Add(*TERMS)
_INNER = alpha / (2 * R) * X
_SPENT = aN**2 * L / 2 * Su + aN**3 * L**2 * (1 - r1**2) / (R * r1**4) * Su + 6 * R * aN / (r1 * rr**3) * SU
momentum = Derivation(
    "Defossez, Theorem 4: coefficients",
    givens=(),
    steps=(
        *cited(a_1, descent, a_3, a_4),
        Step(
            le(_INNER, F + _SPENT),
            Combine({0: 1, 1: 1, 2: 3 * R * aN / r1 * SU, 3: aN**3 * L**2 * r1 / (4 * R) * Su}),
        ),
    ),
    statement=le(_INNER, F + _SPENT),
    domain=UNIT,
)
_STEP = alpha * r1**2 / r2
summed = Derivation(
    "Defossez, Theorem 4: sums",
    givens=(),
    steps=(
        Step(le(_INNER, F + _SPENT.subs(aN, _STEP)), Instance(momentum, {aN: _STEP}), "alpha_N = alpha (1-a)/r_2"),
        *cited(a_2, logs),
        Step(
            le(_INNER, F + alpha / (2 * R) * CONSTANT * B),
            Combine({
                0: 1, 1: _STEP**2 * L / 2 + _STEP**3 * L**2 * (1 - r1**2) / (R * r1**4),
                2: 6 * R * _STEP / (r1 * rr**3),
            }),
        ),
    ),
    statement=le(_INNER, F + alpha / (2 * R) * CONSTANT * B),
    domain=UNIT,
)  # fmt: skip
theorem_4 = Derivation(
    "Defossez, Theorem 4",
    givens=(le(N * G2, X),),
    steps=(
        Step(le(N * G2, X), Given(), "tau with P(tau = j) ~ 1 - a^(N-j), whose sum is at least N~ = N - a/(1-a)"),
        Step(le(_INNER, F + alpha / (2 * R) * CONSTANT * B), Instance(summed)),
        Step(le(G2, 2 * R * F / (alpha * N) + CONSTANT * B / N), Combine({0: 1 / N, 1: 2 * R / (alpha * N)})),
    ),
    statement=le(G2, 2 * R * F / (alpha * N) + CONSTANT * B / N),
    domain=UNIT,
)

# B in the derivations; b = beta2 with exact states
b, steps = sp.symbols("b T", positive=True)
MEMORY = sp.log(1 + R**2 / ((1 - b) * eps)) - steps * sp.log(b)
LEMMAS = (theorem_2, summed, momentum, lemma_51, variation, increment, shifted)
