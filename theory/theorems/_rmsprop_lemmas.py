"""Lemmas of T12: the second moment along a run, the preconditioned step as a function of the gradient, their sums.

Symbols, one coordinate, one step: v the stored second moment before the step, B and c the stored decay and injection,
y the stochastic gradient before its last rounding, x = B v + c y^2, D = sqrt(x) + eps what the update would divide by
in exact arithmetic, D0 = sqrt(B v) + eps the part of it that is known before y is drawn, p = c y^2 / x the share of
the new gradient, h = sqrt(1 - p) = sqrt(B v / x).
"""

from __future__ import annotations

import sympy as sp

from theory.derivation import Axiom, Combine, Derivation, Given, Identity, Instance, Sign, Step, cited, eq, le

_TEST = "tests/theory/test_t12.py"

v, c, B, x, y, root = sp.symbols("v c B x y s", positive=True)
eps = sp.Symbol("epsilon", nonnegative=True)
p = sp.Symbol("p", nonnegative=True)
h = sp.Symbol("h", positive=True)
r = sp.Symbol("r", positive=True)
H01 = {h: sp.Interval.Lopen(0, 1)}

logarithm = Derivation(
    "1 - r below -log r",
    givens=(),
    steps=(Step(le(1 - r, -sp.log(r)), Sign(anchor=(r, sp.Integer(1)))),),
    statement=le(1 - r, -sp.log(r)),
)

share_of_gradient = Derivation(
    "share of the new gradient",
    givens=(eq(x, B * v + c * y**2), eq(p, c * y**2 / x)),
    steps=(
        Step(eq(x, B * v + c * y**2), Given()),
        Step(eq(p, c * y**2 / x), Given()),
        Step(eq(p, 1 - B * v / x), Identity((0, 1))),
        Step(le(1 - B * v / x, -sp.log(B * v / x)), Instance(logarithm, {r: B * v / x})),
        Step(eq(-sp.log(B * v / x), sp.log(x) - sp.log(v) - sp.log(B)), Identity()),
        Step(
            le(p, sp.log(x) - sp.log(v) - sp.log(B)), Combine({2: 1, 3: 1, 4: 1}), "c y^2/x is a logarithmic increment"
        ),
    ),
    statement=le(p, sp.log(x) - sp.log(v) - sp.log(B)),
)

# averages over window and seeds: P of p; X, V, V1 of log x, log v before and after the step
P = sp.Symbol("P", nonnegative=True)
lx, lv, lv1, rise = sp.symbols("X V V1 rise", real=True)
zeta, A = sp.symbols("zeta A", nonnegative=True)
chi = sp.Symbol("chi", real=True)
rounding_loss = Axiom(
    "what rounding takes from the second moment",
    le(lx - lv1, zeta + chi * P),
    citation="v' = rho_a ((1-p) rho_d + p rho_i) x, log concave: E log(x/v') <= E[-log rho_a - log rho_d] + chi p",
    test=f"{_TEST}::test_second_moment_loses_little",
)
telescoped = Axiom(
    "telescoping",
    le(lv1 - lv, rise),
    citation="avg (log v_{t+1} - log v_t) = (log v_T - log v_0)/T <= rise",
    test=f"{_TEST}::test_second_moment_loses_little",
)
averaged = Axiom(
    "share of the new gradient, averaged",
    le(P, lx - lv - sp.log(B)),
    citation="the derivation 'share of the new gradient', which is affine in what is averaged",
    test=f"{_TEST}::test_second_moment_loses_little",
)
SHARE = (zeta + rise - sp.log(B)) / (1 - chi)
lemma_a = Derivation(
    "Lemma A",
    givens=(),
    steps=(
        *cited(averaged, rounding_loss, telescoped),
        Step(
            le(P, SHARE),
            Combine({0: 1 / (1 - chi), 1: 1 / (1 - chi), 2: 1 / (1 - chi)}),
            "avg E c y^2/x; divided by c it bounds avg E y^2/x",
        ),
    ),
    statement=le(P, SHARE),
    domain={chi: sp.Interval.open(-sp.oo, 1)},
)

# phi(y) = y / (sqrt(B v + c y^2) + eps); root = sqrt(x), so sqrt(B v) = h root
q = sp.Symbol("q", nonnegative=True)  # stands for B v
PHI = y / (sp.sqrt(q + c * y**2) + eps)
SLOPE = (h**2 * root + eps) / (root + eps) ** 2
slope = Derivation(
    "slope of the step",
    givens=(eq(c, (1 - h**2) * root**2 / y**2), eq(q, h**2 * root**2)),
    steps=(
        Step(eq(c, (1 - h**2) * root**2 / y**2), Given(), "c y^2 = p x"),
        Step(eq(q, h**2 * root**2), Given(), "B v = (1 - p) x"),
        Step(eq(sp.diff(PHI, y), SLOPE), Identity((0, 1)), "the derivative of phi, written in h and sqrt(x)"),
        Step(
            le(h**3, (h * root + eps) * SLOPE),
            Sign(),
            "phi grows at least at the rate (1-p)^(3/2) / D0",
        ),
        Step(le(h**3 / (h * root + eps), sp.diff(PHI, y)), Combine({2: -1, 3: 1 / (h * root + eps)})),
    ),
    statement=le(h**3 / (h * root + eps), sp.diff(PHI, y)),
    domain=H01,
)

# (1-p)^(3/2) lies above its tangents as a function of 1/(1-p) = 1 + (c/(B v)) y^2; h0: at another y^2
h0 = sp.Symbol("h0", positive=True)
TANGENT = h0**3 - sp.Rational(3, 2) * h0**5 * (1 / h**2 - 1 / h0**2)
convex = Derivation(
    "the least slope is convex in the square of the gradient",
    givens=(),
    steps=(
        Step(le(0, (h - h0) ** 2 * (2 * h**3 + 4 * h**2 * h0 + 6 * h * h0**2 + 3 * h0**3)), Sign()),
        Step(le(TANGENT, h**3), Combine({0: 1 / (2 * h**2)}), "so its mean is at least its value at the mean of y^2"),
    ),
    statement=le(TANGENT, h**3),
)

# curvature of phi: y^2 |phi''| / phi = l k (3 - k - 2 k l), k = p, l = sqrt(x)/D; what rounding y can cost in the mean
k, ell = sp.symbols("k l", nonnegative=True)
bend = Derivation(
    "curvature of the step",
    givens=(eq(c, k * root**2 / y**2), eq(q, (1 - k) * root**2), eq(eps, root * (1 - ell) / ell)),
    steps=(
        Step(eq(c, k * root**2 / y**2), Given()),
        Step(eq(q, (1 - k) * root**2), Given()),
        Step(eq(eps, root * (1 - ell) / ell), Given()),
        Step(eq(-(y**2) * sp.diff(PHI, y, 2), ell * k * (3 - k - 2 * k * ell) * y * ell / root), Identity((0, 1, 2))),
        Step(le(ell * k * (3 - k - 2 * k * ell), sp.Rational(4, 5)), Sign()),
        Step(eq(y * ell / root, PHI), Identity((0, 1, 2))),
        Step(
            le(-(y**2) * sp.diff(PHI, y, 2), sp.Rational(4, 5) * PHI),
            Combine({3: 1, 4: y * ell / root, 5: sp.Rational(4, 5)}),
        ),
    ),
    statement=le(-(y**2) * sp.diff(PHI, y, 2), sp.Rational(4, 5) * PHI),
    domain={k: sp.Interval(0, 1), ell: sp.Interval.Lopen(0, 1)},
)

# noise without symmetry: what D differs from D0; R >= |y|, w >= 1/(1 + h)
w, R, D0 = sp.symbols("w R D0", positive=True)
variation = Derivation(
    "variation of the preconditioner",
    givens=(le(1, w * (1 + h)), le(y, R), le(D0, h * root + eps)),
    steps=(
        Step(le(y, R), Given()),
        Step(le(D0, h * root + eps), Given()),
        Step(le(1, w * (1 + h)), Given()),
        Step(le(1 - (h * root + eps) / (root + eps), 1 - h), Sign(), "1 - D0_t/D_t <= 1 - h"),
        Step(le(1 - h, w * (1 - h**2)), Combine({2: 1 - h}), "1 - h = p / (1 + h)"),
        Step(
            le(y / (h * root + eps) * (1 - (h * root + eps) / (root + eps)), R / D0 * (w * (1 - h**2))),
            Combine({
                3: y / (h * root + eps), 4: y / (h * root + eps), 0: w * (1 - h**2) / (h * root + eps),
                1: R * w * (1 - h**2) / (D0 * (h * root + eps)),
            }),
            "|y| (1/D0_t - 1/D_t) <= (R/D0) w p",
        ),
    ),
    statement=le(y / (h * root + eps) * (1 - (h * root + eps) / (root + eps)), R / D0 * (w * (1 - h**2))),
    domain=H01,
)  # fmt: skip

variation_square = Derivation(
    "variation of the preconditioner, squared",
    givens=(le(1, w * (1 + h)),),
    steps=(
        Step(le(1, w * (1 + h)), Given()),
        Step(le((1 - h) ** 2, w**2 * (1 - h**2) ** 2), Combine({0: (1 - h) ** 2 * (1 + w * (1 + h))})),
        Step(le(root**2 / (h * root + eps), root / h), Sign()),
        Step(
            le((1 - h**2) / c * root**2 / (h * root + eps) * (1 - h) ** 2, w**2 * (1 - h**2) ** 3 * root / (c * h)),
            Combine({1: (1 - h**2) * root**2 / (c * (h * root + eps)), 2: w**2 * (1 - h**2) ** 3 / c}),
            "y^2 (1 - D0/D)^2 / D0 <= w^2 p^3 sqrt(B v) / (c (1-p))",
        ),
    ),
    statement=le((1 - h**2) / c * root**2 / (h * root + eps) * (1 - h) ** 2, w**2 * (1 - h**2) ** 3 * root / (c * h)),
    domain=H01,
)

# one coordinate, averages over window and seeds
alpha, L, tau, rho, middle = sp.symbols("alpha L tau rho m", positive=True)
yy, e, half, V, omega, Db, S, Q = sp.symbols("y e q V omega Dbar S Q", nonnegative=True)
N, N0, gain = sp.symbols("N N0 gain", real=True)
M1 = sp.Symbol("M1", nonnegative=True)
mean_step = Axiom(
    "mean of the rounded step",
    le(middle * N0 - half * M1, N),
    citation="E[a | y, v]/(alpha phi(y)) lies in [m - q, m + q]; N = avg E grad a/alpha, N0: grad phi, M1: |grad phi|",
    test=f"{_TEST}::test_mean_of_the_rounded_step",
)
slope_of_mean = Axiom(
    "mean of the exact step",
    le(tau * rho * yy**2 - e * yy - V, N0),
    citation="y_i^2 = avg E grad^2/D0. Symmetric noise: E phi(y) = grad E phi'(noise + s grad), s uniform in [-1, 1], "
    "at least tau/D0 by 'slope of the step' and Jensen, V = 0; any unbiased noise: "
    "tau = 1 and the variation of the preconditioner in V or in e; no noise: tau = 1, V = 0, D0 replaced by D",
    test=f"{_TEST}::test_slope_of_the_mean_step",
)
cauchy_step = Axiom(
    "Cauchy-Schwarz with Lemma A",
    le(M1, sp.sqrt(A * Db) * yy),
    citation="|grad| |phi| = (|grad|/sqrt(D0)) (|phi| sqrt(D0)); phi^2 <= y^2/x; A = SHARE/c",
    test=f"{_TEST}::test_second_moment_loses_little",
)
stored_step = Axiom(
    "storing the weight",
    le(N - omega * sp.sqrt(Db) / alpha * yy, gain),
    citation="gain = -avg E grad s/alpha; |E[s + a]| <= omega: to nearest half a gap and |a| (R6), else 2^-n gap",
    test="tests/theory/test_t08.py::test_step_of_a_stored_weight",
)
step_square = Axiom(
    "size of the step",
    le(S, Q),
    citation="S = avg E s^2; E a^2 <= alpha^2 M A. To nearest Q = (alpha sqrt(M A) + omega)^2; stochastic: T8, SIZE",
    test=f"{_TEST}::test_mean_of_the_rounded_step",
)
SQUARE = middle * tau * rho
LINEAR = middle * e + half * sp.sqrt(A * Db) + omega * sp.sqrt(Db) / alpha
CONSTANT = middle * V + L * Q / (2 * alpha)
coordinate = Derivation(
    "T12, one coordinate",
    givens=(),
    steps=(
        *(
            Step(axiom.conclusion, Instance(axiom))
            for axiom in (mean_step, slope_of_mean, cauchy_step, stored_step, step_square)
        ),
        Step(
            le(SQUARE * yy**2 - LINEAR * yy - CONSTANT, gain - L * S / (2 * alpha)),
            Combine({0: 1, 1: middle, 2: half, 3: 1, 4: L / (2 * alpha)}),
        ),
    ),
    statement=le(SQUARE * yy**2 - LINEAR * yy - CONSTANT, gain - L * S / (2 * alpha)),
)

LEMMAS = (coordinate, variation_square, logarithm, share_of_gradient, lemma_a, slope, convex, bend, variation)
