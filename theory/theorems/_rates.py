"""Lemmas of T27: what a share q_V <= kappa (1 - beta2) leaves of the second moment, and every term's power of T.

x = T^-1/4, lr = a x^2; regime A: c = b x^2 and D >= d_0, regime B: c = b x^4 and D = sqrt(v + c eps); c = 1 - beta2.
"""

from __future__ import annotations

import sympy as sp

from theory.derivation import Combine, Derivation, Given, Identity, Instance, Sign, Step, eq, le
from theory.theorems import _floor_root
from theory.theorems import _rmsprop_lemmas as lemmas
from theory.theorems._floor_root import quadratic_root
from theory.theorems._mean_rounding import log_below_reciprocal
from theory.theorems._mean_rounding import r as RATIO
from theory.theorems.t08_stochastic_gd import SIZE
from theory.theorems.t08_stochastic_gd import D as GAP
from theory.theorems.t08_stochastic_gd import a as STEP
from theory.theorems.t08_stochastic_gd import b as BIAS
from theory.theorems.t08_stochastic_gd import lam as WEIGHT

v, v1, top, kept, c, R = sp.symbols("v v_+ V B c R", positive=True)
g, qv = sp.symbols("g q_V", nonnegative=True)
kappa = sp.Symbol("kappa", nonnegative=True)
PART = {c: sp.Interval.open(0, 1), kappa: sp.Interval.Ropen(0, 1)}

bounded = Derivation(
    "the second moment stays bounded",
    givens=(
        le(v, top), le(v1, (1 + qv) * (kept * v + c * g**2)), le(g, R),
        le((1 + qv) * c * R**2, top * (1 - (1 + qv) * kept)),
    ),
    steps=(
        Step(le(v, top), Given(), "induction: before the step"),
        Step(le(v1, (1 + qv) * (kept * v + c * g**2)), Given(), "the rounded recursion"),
        Step(le(g, R), Given()),
        Step(le((1 + qv) * c * R**2, top * (1 - (1 + qv) * kept)), Given(), "V = (1 + q_V) c R^2/(1 - (1 + q_V) B)"),
        Step(
            le(v1, top),
            Combine({0: (1 + qv) * kept, 1: 1, 2: (1 + qv) * c * (R + g), 3: 1}),
        ),
    ),
    statement=le(v1, top),
)  # fmt: skip
room = Derivation(
    "room for the rounding of the second moment",
    givens=(le(qv, kappa * c), eq(kept, 1 - c)),
    steps=(
        Step(eq(kept, 1 - c), Given()),
        Step(le(qv, kappa * c), Given(), "q_V = O(1 - beta2), with a constant below 1"),
        Step(le(0, kappa * c**2), Sign()),
        Step(
            le(c * (1 - kappa), 1 - (1 + qv) * kept),
            Combine({0: 1 + qv, 1: 1 - c, 2: 1}),
            "so V <= (1 + q_V) R^2/(1 - kappa)",
        ),
    ),
    statement=le(c * (1 - kappa), 1 - (1 + qv) * kept),
    domain=PART,
)

share = sp.Symbol("A_v", nonnegative=True)
rise, chi = lemmas.rise, lemmas.chi
AVERAGE = (1 / (1 - c) + kappa / (1 - kappa * c) + rise / c) / (1 - chi)
memory = Derivation(
    "Lemma A with a share of 1 - beta2",
    givens=(eq(lemmas.zeta, -sp.log(1 - kappa * c)), eq(share, lemmas.SHARE.subs(lemmas.B, 1 - c) / c)),
    steps=(
        Step(eq(lemmas.zeta, -sp.log(1 - kappa * c)), Given(), "q_V <= kappa c"),
        Step(eq(share, lemmas.SHARE.subs(lemmas.B, 1 - c) / c), Given(), "T12's Lemma A, B = 1 - c"),
        *(
            Step(le(-sp.log(1 - y), 1 / (1 - y) - 1), Instance(log_below_reciprocal, {RATIO: 1 - y}))
            for y in (c, kappa * c)
        ),
        Step(
            eq(share, (-sp.log(1 - kappa * c) + rise - sp.log(1 - c)) / ((1 - chi) * c)),
            Combine({1: 1, 0: 1 / ((1 - chi) * c)}),
        ),
        Step(
            le(share, AVERAGE),
            Combine({4: 1, 2: 1 / ((1 - chi) * c), 3: 1 / ((1 - chi) * c)}),
            "bounded if rise/c is: O(T^-1/2) in regime A, O(ln T) in B",
        ),
    ),
    statement=le(share, AVERAGE),
    domain={**PART, chi: sp.Interval.open(-sp.oo, 1)},
)  # fmt: skip

# the regimes: x = T^-1/4
x, a, b, d0, eps, L, m, M = sp.symbols("x a b d_0 epsilon L m M", positive=True)
theta, E, s, A, Db, F, bound_R, mean_R = sp.symbols("theta E s A Dbar F R Rbar", nonnegative=True)
q, omega, Q, gap = sp.symbols("q omega Q Delta", nonnegative=True)
UP_TO_ONE = {x: sp.Interval.Lopen(0, 1)}
_LINEAR = le(q * sp.sqrt(A * Db) + omega * sp.sqrt(Db) / (a * x**2), x * (theta * sp.sqrt(A * Db) + E * sp.sqrt(Db)))
linear = Derivation(
    "terms linear in the gradient",
    givens=(le(q, theta * x), le(omega, E * a * x**3)),
    steps=(
        Step(le(q, theta * x), Given(), "q_G, q_U, q_V = O(T^-1/4)"),
        Step(le(omega, E * a * x**3), Given(), "ebar = O(T^-3/4); 0 for ideal stochastic rounding"),
        Step(
            _LINEAR,
            Combine({0: sp.sqrt(A * Db), 1: sp.sqrt(Db) / (a * x**2)}),
            "lr = a T^-1/2",
        ),
    ),
    statement=_LINEAR,
)
NEAREST, RANDOM = a * L * (sp.sqrt(M * A) + E) ** 2 / 2, L * (a * M * A + s * sp.sqrt(M * A)) / 2
nearest = Derivation(
    "size of the step, to nearest",
    givens=(eq(Q, (a * x**2 * sp.sqrt(M * A) + omega) ** 2), le(omega, E * a * x**3)),
    steps=(
        Step(eq(Q, (a * x**2 * sp.sqrt(M * A) + omega) ** 2), Given()),
        Step(le(omega, E * a * x**3), Given()),
        Step(le(0, E * (1 - x)), Sign(), "x <= 1"),
        Step(le(omega, E * a * x**2), Combine({1: 1, 2: a * x**2})),
        Step(
            le(L * Q / (2 * a * x**2), x**2 * NEAREST),
            Combine({
                0: L / (2 * a * x**2),
                3: L / (2 * a * x**2) * (2 * a * x**2 * sp.sqrt(M * A) + omega + E * a * x**2),
            }),
        ),
    ),
    statement=le(L * Q / (2 * a * x**2), x**2 * NEAREST),
    domain=UP_TO_ONE,
)  # fmt: skip
_RANDOM_SIZE = eq(Q, SIZE.subs({WEIGHT: 1, BIAS: 0, GAP: gap, STEP: a * x**2 * sp.sqrt(M * A)}))
random = Derivation(
    "size of the step, stochastic",
    givens=(_RANDOM_SIZE, le(gap, s * x**2)),
    steps=(
        Step(_RANDOM_SIZE, Given(), "T8, lambda = 1"),
        Step(le(gap, s * x**2), Given(), "Delta = O(T^-1/2)"),
        Step(
            le(L * Q / (2 * a * x**2), x**2 * RANDOM),
            Combine({0: L / (2 * a * x**2), 1: L * sp.sqrt(M * A) / 2}),
        ),
    ),
    statement=le(L * Q / (2 * a * x**2), x**2 * RANDOM),
)  # fmt: skip
# what the preconditioner varies by, and the fall of the loss: m R Rbar P/d_0 + F/(lr T), T = x^-4
_VARIES = m * bound_R * mean_R * (c * A) / d0 + F * x**4 / (a * x**2)
_IN_A = eq(_VARIES, x**2 * (m * bound_R * mean_R * b * A / d0 + F / a))
_IN_B = eq(_VARIES, x**2 * (m * bound_R * mean_R * sp.sqrt(b / eps) * A + F / a))
regime_a = Derivation(
    "the preconditioner's variation in regime A",
    givens=(eq(c, b * x**2),),
    steps=(
        Step(eq(c, b * x**2), Given(), "1 - beta2 = b T^-1/2"),
        Step(_IN_A, Identity((0,)), "P = c A_v"),
    ),
    statement=_IN_A,
)
regime_b = Derivation(
    "the preconditioner's variation in regime B",
    givens=(eq(c, b * x**4), eq(d0, sp.sqrt(b * x**4 * eps))),
    steps=(
        Step(eq(c, b * x**4), Given(), "1 - beta2 = b/T"),
        Step(eq(d0, sp.sqrt(b * x**4 * eps)), Given(), "D >= sqrt(c eps), which falls like T^-1/2"),
        Step(_IN_B, Identity((0, 1))),
    ),
    statement=_IN_B,
)
G, Z, B, C, K = (getattr(_floor_root, name) for name in "GZBCK")
beta, gamma = sp.symbols("beta gamma", nonnegative=True)
rate = Derivation(
    "the rate T^-1/4",
    givens=(le(Z**2, B * Z + C), le(G**2, K * Z**2), le(B, beta * x), le(C, gamma * x**2)),
    steps=(
        Step(le(Z**2, B * Z + C), Given(), "T27 at finite T"),
        Step(le(B, beta * x), Given(), "the derivation 'terms linear in the gradient'"),
        Step(le(C, gamma * x**2), Given(), "the derivations about sizes and regimes"),
        Step(le((Z / x) ** 2, beta * (Z / x) + gamma), Combine({0: x**-2, 1: Z / x**2, 2: x**-2})),
        Step(le(G**2, K * Z**2), Given()),
        Step(le((G / x) ** 2, K * (Z / x) ** 2), Combine({4: x**-2})),
        Step(
            le(G / x, _floor_root.ROOT.subs({B: beta, C: gamma})),
            Instance(quadratic_root, {G: G / x, Z: Z / x, B: beta, C: gamma}),
        ),
        Step(le(G, x * _floor_root.ROOT.subs({B: beta, C: gamma})), Combine({6: x})),
    ),
    statement=le(G, x * _floor_root.ROOT.subs({B: beta, C: gamma})),
)
LEMMAS = (rate, linear, nearest, random, regime_a, regime_b, memory, room, bounded)
