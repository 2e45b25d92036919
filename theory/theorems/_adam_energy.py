"""Lemmas of T20 and T22: Adam with exact gradients pays for its momentum with energy.

One coordinate, notation of ``_adam_lemmas``: m' = beta1 m + Gamma g + e, k = beta1/(1-beta1), gamma = Gamma/(1-beta1).
Averages over window and seeds: x^2 = avg E eta g^2, u^2 = avg E eta m'^2 + start (no less than avg E eta_ m^2), V^2 =
u^2 + (k/2) avg E eta (m' - m)^2. H, h are the square roots of the largest and the least eta.
"""

from __future__ import annotations

import sympy as sp

from theory.derivation import Axiom, Combine, Derivation, Given, Identity, Instance, Sign, Step, cited, eq, le
from theory.theorems._floor_root import quadratic_root

_TEST = "tests/theory/test_t20.py"

b1, Gamma = sp.Symbol("b1", nonnegative=True), sp.Symbol("Gamma", positive=True)
m, m_next, g, e = sp.symbols("m_t m_next g e", real=True)
UNIT = {b1: sp.Interval.Ropen(0, 1)}
_K = b1 / (1 - b1)

energy = Derivation(
    "energy of the momentum",
    givens=(eq(m_next, b1 * m + Gamma * g + e),),
    steps=(
        Step(eq(m_next, b1 * m + Gamma * g + e), Given()),
        Step(
            eq(Gamma / (1 - b1) * g * m_next,
               m_next**2 + _K / 2 * (m_next**2 - m**2) + _K / 2 * (m_next - m) ** 2 - e * m_next / (1 - b1)),
            Identity((0,)),
            "the descent along m' is a square, a difference that telescopes, and another square",
        ),
    ),
    statement=eq(
        Gamma / (1 - b1) * g * m_next,
        m_next**2 + _K / 2 * (m_next**2 - m**2) + _K / 2 * (m_next - m) ** 2 - e * m_next / (1 - b1),
    ),
    domain=UNIT,
)  # fmt: skip

k = sp.Symbol("k", nonnegative=True)
a, delta = sp.symbols("a delta", real=True)
reconstruction = Derivation(
    "gradient from the energy",
    givens=(),
    steps=(
        Step(
            le((a + k * delta) ** 2, (1 + 2 * k) * (a**2 + k * delta**2 / 2)),
            Sign(),
            "gamma g = m' + k (m' - m) - (1+k) e: the energy holds the gradient, without any drift of v",
        ),
    ),
    statement=le((a + k * delta) ** 2, (1 + 2 * k) * (a**2 + k * delta**2 / 2)),
)

gamma, L, l_, h = sp.symbols("gamma L l h", positive=True)
u, V, x, H, step = sp.symbols("u V x H p", nonnegative=True)  # step: avg E (eta m')^2 is at most its square
kappa, e2, f2, off, error, q, omega, omega2, w0, w1, start = sp.symbols(
    "kappa e_2 f_2 eps_g e0 q omega omega_2 w0 w1 start", nonnegative=True
)
top = sp.Symbol("rho_h", positive=True)
Y, S2 = sp.symbols("Y S2", nonnegative=True)
after, M, Md, D1, Em, gain = sp.symbols("after M M_d D1 E_m gain", real=True)

drift = Axiom(
    "telescoping with a moving preconditioner",
    le(-kappa * u**2 - start, D1),
    citation="D1 = avg E eta (m'^2 - m^2); E eta <= (1+kappa) eta_ given the past, E eta m^2 at the end >= 0",
    test=f"{_TEST}::test_terms_of_the_energy",
)
rounded = Axiom(
    "rounding in the energy",
    le(Em, (e2 * u + f2 * x) * u),
    citation="Em = avg E eta e m'; ||e|| <= e_2 ||m|| + f_2 ||g|| in the 1/D norm, then Cauchy-Schwarz",
    test=f"{_TEST}::test_terms_of_the_energy",
)
computed = Axiom(
    "computed gradient in the energy",
    le(M - u * (off * x + error * H), Md),
    citation="M = avg E eta g m', Md: grad for g; |grad - g| <= eps_g |g| + e0",
    test=f"{_TEST}::test_terms_of_the_energy",
)
weight = Axiom(
    "storing the weight, along the momentum",
    le(Md - q * u * (top * x + error * H) - omega * (top * x / h + error), gain),
    citation="gain = -avg E grad s; |E[s + eta m']| <= q eta |m'| + omega; |grad| <= rho_h |g| + e0",
    test=f"{_TEST}::test_terms_of_the_energy",
)
size = Axiom(
    "size of the step along the momentum",
    le(S2, (l_ * step + omega2) ** 2 + w0 + w1 * u),
    citation="S2 = avg E s^2, Minkowski's inequality; the variance of storing w by R5",
    test=f"{_TEST}::test_terms_of_the_energy",
)
LOST = k * kappa / 2 + (1 + k) * e2
CROSS = gamma * (q * top + off) + (1 + k) * f2
LINEAR = gamma * (q + 1) * error * H + gamma * L * w1 / 2
GRADIENT = gamma * omega * top / h
CONSTANT = gamma * omega * error + gamma * L * ((l_ * step + omega2) ** 2 + w0) / 2 + (1 + k / 2) * start
_left = V**2 - LOST * u**2 - CROSS * x * u - LINEAR * u - GRADIENT * x - CONSTANT
coordinate = Derivation(
    "T20, one coordinate",
    givens=(
        eq(gamma * M, after + k * D1 / 2 + k * Y / 2 - (1 + k) * Em), eq(u**2, after + start),
        eq(V**2, u**2 + k * Y / 2),
    ),
    steps=(
        Step(eq(gamma * M, after + k * D1 / 2 + k * Y / 2 - (1 + k) * Em), Given(), "'energy of the momentum'"),
        Step(eq(u**2, after + start), Given()),
        Step(eq(V**2, u**2 + k * Y / 2), Given(), "Y = avg E eta (m' - m)^2"),
        *cited(drift, rounded, computed, weight, size),
        Step(
            le(_left, gamma * (gain - L * S2 / 2)),
            Combine({0: -1, 1: 1, 2: 1, 3: k / 2, 4: 1 + k, 5: gamma, 6: gamma, 7: gamma * L / 2}),
        ),
    ),
    statement=le(_left, gamma * (gain - L * S2 / 2)),
)  # fmt: skip

# sums over the coordinates: P^2 = sum V^2, X^2 = sum x^2
G, X, P, cross, linear, j, F, E0 = sp.symbols("G X P c d j F E0", nonnegative=True)
T, hold, ratio, K = sp.symbols("T hold r K", positive=True)
c0, X1, XU, U1 = sp.symbols("c0 X1 XU U1", nonnegative=True)
W, V2 = sp.symbols("W V2", real=True)


def _sum(name: str, claim: object, citation: str, test: str = "test_sums_of_the_energy") -> Axiom:
    return Axiom(f"T20: {name}", claim, citation=citation, test=f"{_TEST}::{test}")  # type: ignore[arg-type]


_summed = _sum("coordinates summed", le(V2 - XU - U1 - X1 - c0, gamma * W), "'one coordinate', summed and averaged")
_descent = _sum(
    "descent lemma, telescoped", le(W, F / T), "F(w+s) <= F(w) + grad.s + L |s|^2/2; F >= E F_first - F*",
    "test_descent_along_the_momentum",
)  # fmt: skip
_held = _sum("least share", le(hold * P**2, V2), "V2 = sum V^2 - LOST u^2 and u <= V")
_cross = _sum("Cauchy-Schwarz for x u", le(XU, cross * X * P), "XU = sum CROSS x u")
_linear = _sum("Cauchy-Schwarz for u", le(U1, linear * P), "U1 = sum LINEAR u")
_gradient = _sum("Cauchy-Schwarz for x", le(X1, j * X), "X1 = sum GRADIENT x")
_back = _sum(
    "gradient from the energy, summed", le(X, ratio * P),
    "'gradient from the energy' with (1+k) |e|: (gamma - (1+k) f_2) x <= (sqrt(1+2k) + (1+k) e_2) V",
)  # fmt: skip
_norm = _sum(
    "norms of the gradient", le(G, K * X + E0), "grad^2 <= (rho_h |g| + e0)^2 and eta >= h^2, coordinate by coordinate"
)
N = sp.Symbol("N", positive=True)  # hold - c r, what is left of the energy
ENERGY = ((linear + j * ratio) / N + sp.sqrt(((linear + j * ratio) / N) ** 2 + 4 * (gamma * F / T + c0) / N)) / 2
STATEMENT = le(G, K * ratio * ENERGY + E0)
main = Derivation(
    "T20",
    givens=(eq(hold, N + cross * ratio),),
    steps=(
        *cited(_summed, _descent, _held, _cross, _linear, _gradient, _back),
        Step(eq(hold, N + cross * ratio), Given(), "the hypothesis that energy is left"),
        Step(
            le(N * P**2, (linear + j * ratio) * P + gamma * F / T + c0),
            Combine({0: 1, 1: gamma, 2: 1, 3: 1, 4: 1, 5: 1, 6: cross * P + j, 7: -(P**2)}),
        ),
        Step(le(P**2, (linear + j * ratio) / N * P + (gamma * F / T + c0) / N), Combine({8: 1 / N})),
        Step(
            le(P, ENERGY),
            Instance.of_names(
                quadratic_root, B=(linear + j * ratio) / N, C=(gamma * F / T + c0) / N, K=sp.Integer(1), Z=P, G=P
            ),
        ),
        Step(_norm.conclusion, Instance(_norm)),
        Step(STATEMENT, Combine({11: 1, 6: K, 10: K * ratio})),
    ),
    statement=STATEMENT,
)

# T22: the root of the second moment, R = sqrt(q), q = a v + b g^2 >= E v'; h0 = sqrt(a v/q), w >= 1/(1 + h0)
R, h0, w_, bb, gg = (sp.Symbol(name, positive=True) for name in ("R", "h_0", "w", "b", "g_t"))
growth = Derivation(
    "growth of the root of the second moment",
    givens=(le(1, w_ * (1 + h0)), eq(bb, (1 - h0**2) * R**2 / gg**2)),
    steps=(
        Step(le(1, w_ * (1 + h0)), Given()),
        Step(eq(bb, (1 - h0**2) * R**2 / gg**2), Given(), "b g^2 = q - a v"),
        Step(eq(bb * gg**2 / R, (1 - h0**2) * R), Identity((1,))),
        Step(
            le(R, h0 * R + w_ * bb * gg**2 / R),
            Combine({0: (1 - h0) * R, 2: -w_}),
            "sqrt(v') <= sqrt(a) sqrt(v) + w b g^2/sqrt(q), with w near 1/2 where the share of g is small",
        ),
    ),
    statement=le(R, h0 * R + w_ * bb * gg**2 / R),
    domain={h0: sp.Interval.Lopen(0, 1)},
)
S1, Q, before, first = sp.symbols("S1 Q before start_v", nonnegative=True)
ra, wb, inv = (sp.Symbol(name, positive=True) for name in ("r_a", "wb", "t"))
_grown = Axiom(
    "T22: growth, averaged",
    le(S1, ra * before + wb * Q),
    citation="'growth of the root of the second moment', E sqrt(v') <= sqrt(q); S1 = avg E sum sqrt(v'), r_a = sqrt(a)",
    test="tests/theory/test_t22.py::test_terms_of_the_root",
)
_telescoped = Axiom(
    "T22: telescoping",
    le(before, S1 + first),
    citation="avg sqrt(v) before the step = after it + (first - last)/T",
    test="tests/theory/test_t22.py::test_terms_of_the_root",
)
_quotient = Axiom(
    "T22: new gradient over the root",
    le(Q, inv * X**2),
    citation="Q = avg E sum g^2/sqrt(q), E 1/sqrt(v') >= 1/sqrt(q); 1/sqrt(v') <= t eta",
    test="tests/theory/test_t22.py::test_terms_of_the_root",
)
free = sp.Symbol("f", positive=True)  # 1 - r_a
ROOTS = (ra * first + wb * inv * X**2) / free
second_moment_root = Derivation(
    "D-lemma",
    givens=(eq(ra, 1 - free),),
    steps=(
        *cited(_grown, _telescoped, _quotient),
        Step(eq(ra, 1 - free), Given(), "the hypothesis a < 1: v forgets"),
        Step(le(S1, ROOTS), Combine({0: 1 / free, 1: ra / free, 2: wb / free, 3: S1 / free})),
    ),
    statement=le(S1, ROOTS),
)
S = sp.Symbol("S", nonnegative=True)
n0, n1, N1_ = sp.symbols("n0 n1 D", nonnegative=True)
_jensen = Axiom(
    "T22: Cauchy-Schwarz for the sum of moduli",
    le(S, top * X * sp.sqrt(N1_) + E0),
    citation="|g| = (|g| sqrt(eta)) / sqrt(eta), D = avg E sum 1/eta; |grad| <= rho_h |g| + e0",
    test="tests/theory/test_t22.py::test_terms_of_the_root",
)
_denominators = Axiom(
    "T22: denominators",
    le(sp.sqrt(N1_), sp.sqrt(n0 + n1 * X**2)),
    citation="1/eta = (c1/(mu lr)) (sqrt(v'/c2) + eps) and the D-lemma, or the largest v seen with n1 = 0",
    test="tests/theory/test_t22.py::test_terms_of_the_root",
)
MODULI = top * X * sp.sqrt(n0 + n1 * X**2) + E0
moduli = Derivation(
    "T22",
    givens=(),
    steps=(
        *cited(_jensen, _denominators),
        Step(le(S, MODULI), Combine({0: 1, 1: top * X}), "X as in T20"),
    ),
    statement=le(S, MODULI),
)

ENERGY_LEMMAS = (coordinate, energy, reconstruction)
