"""Lemmas of T21: Adam's step along the shifted point z, the size of the momentum, and the sums over coordinates.

One coordinate. A step is s = fl(w - a) - w, a = the rounded eta m' with eta = mu lr / (c1 (sqrt(v'/c2) + eps)), m' and
v' as stored, c1 and c2 the stored bias corrections, mu the middle of what the roundings of the update do in the mean.
eta0 is eta without the new gradient (B v instead of v'), the part that is known before the gradient is drawn; eta_, m
belong to the step before. With k = beta1/(1-beta1), gamma = (1-beta1 as stored)/(1-beta1) and e = m' - beta1 m -
Gamma g (what rounding does to m'), the point z = w - k eta_ m moves by

    dz = -gamma eta g + k (eta_ - eta) m - (1+k) eta e + (s + eta m').

Norms over window and seeds: x^2 = avg E eta0 grad^2, u^2 = avg E eta m'^2 and no less than avg E eta_ m^2. The symbols
H0, H, h0, h1, r below are the square roots of the largest and least eta0 and eta and of the least c1_{t-1}/c1_t.
"""

from __future__ import annotations

import sympy as sp

from theory.derivation import Axiom, Combine, Derivation, Given, Identity, Instance, Sign, Step, cited, eq, le
from theory.theorems._floor_root import quadratic_root
from theory.theorems._mean_rounding import b as BIAS
from theory.theorems._mean_rounding import s as SHORT
from theory.theorems._mean_rounding import shortfall

_TEST = "tests/theory/test_t21.py"

gamma, k, L, bend, mid, tau, rho, top, Gamma = sp.symbols("gamma k L M m tau rho rho_h Gamma", positive=True)
rest, steep, steep2, steep_u = sp.symbols("rest s s_2 s_u", nonnegative=True)
x, u, error, half, sA, sP = sp.symbols("x u e0 half a P", nonnegative=True)
sH0, sH, s0, s1, r = sp.symbols("H0 H h0 h1 r", positive=True)  # roots of the largest and least eta0, eta; root of r1
drift, drift2, keep, keep2, keep0, beta = sp.symbols("rho_D rho_2 kappa kappa_2 kappa_0 beta", nonnegative=True)
em, em2, lost, lost2, mixed = sp.symbols("e_m e_m2 p p_2 p_c", nonnegative=True)
q, over, omega, omega2, lam, w0, w1, shift = sp.symbols("q o omega omega_2 lambda w0 w1 varpi", nonnegative=True)
N1, N2, N3, N4, N5, gain = sp.symbols("N1 N2 N3 N4 N5 gain", real=True)
S1, S2 = sp.symbols("S1 S2", nonnegative=True)

# one rounding, in units of the gap: the value lies t above its lower neighbour, and goes up with probability t - short
t, short, bits = (sp.Symbol(name, nonnegative=True) for name in ("t", "short", "b_n"))
MEAN_SQUARE_ERROR = sp.Rational(1, 4) + bits
mean_square_error = Derivation(
    "mean square error of one rounding",
    givens=(),
    steps=(
        Step(le(0, (t - sp.Rational(1, 2)) ** 2), Sign()),
        Step(le(0, short * (1 - t)), Sign()),
        Step(le(short, bits), Instance(shortfall, {SHORT: short, BIAS: bits})),
        Step(
            le((1 - (t - short)) * t**2 + (t - short) * (1 - t) ** 2, MEAN_SQUARE_ERROR),
            Combine({0: 1, 1: 2, 2: 1}),
            "mean square; the gap is at most z times the value",
        ),
    ),
    statement=le((1 - (t - short)) * t**2 + (t - short) * (1 - t) ** 2, MEAN_SQUARE_ERROR),
    domain={t: sp.Interval(0, 1), short: sp.Interval(0, 1)},
)

# displacement of a point: the weight moves, the momentum's part of z moves
w, w_next, m, m_next, g, eta, eta_, e, s = sp.symbols("w w_next m_t m_next g eta eta_prev e s", real=True)
b1 = sp.Symbol("b1", nonnegative=True)
z, z_next = sp.symbols("z z_next", real=True)
_K = b1 / (1 - b1)
shifted = Derivation(
    "motion of the shifted point",
    givens=(
        eq(w_next, w + s), eq(m_next, b1 * m + Gamma * g + e), eq(z, w - _K * eta_ * m),
        eq(z_next, w_next - _K * eta * m_next),
    ),
    steps=(
        Step(eq(w_next, w + s), Given()),
        Step(eq(m_next, b1 * m + Gamma * g + e), Given(), "e: what rounding does to the new momentum"),
        Step(eq(z, w - _K * eta_ * m), Given()),
        Step(eq(z_next, w_next - _K * eta * m_next), Given()),
        Step(
            eq(z_next - z,
               -Gamma / (1 - b1) * eta * g + _K * (eta_ - eta) * m - eta * e / (1 - b1) + (s + eta * m_next)),
            Identity((0, 1, 2, 3)),
            "1 + k = 1/(1 - beta1), (1 + k) beta1 = k",
        ),
    ),
    statement=eq(
        z_next - z, -Gamma / (1 - b1) * eta * g + _K * (eta_ - eta) * m - eta * e / (1 - b1) + (s + eta * m_next)
    ),
    domain={b1: sp.Interval.Ropen(0, 1)},
)  # fmt: skip

# what E[eta g] can miss beside the slope: the error of the gradient (e0), half the spread of the rounding factors
fresh = (error + half * sA / s0) * x
mean_gradient = Axiom(
    "mean of the new gradient's part",
    le(gamma * (mid * tau * rho * x**2 - fresh), N1),
    citation="N1 = gamma avg E grad eta g; T12's slope of the mean step, E[eta g | y] within mid +- half of phi(y)",
    test=f"{_TEST}::test_mean_of_the_new_gradient",
)
displaced = Axiom(
    "gradient at the shifted point",
    le(-gamma * k * L * sH * u * (mid * top * sH0 * x + error * sH0 + half * sA), N2),
    citation="N2 = gamma avg E eta g (grad F(z) - grad); L-smooth, |z - w| = k eta_ |m|; |E phi(y)| <= top eta0 |grad| "
    "+ e0; Cauchy-Schwarz",
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)
moved = Axiom(
    "motion of the preconditioner",
    le(-k * (drift * u + steep * x / r) * (x / r + k * L * sH**2 * u), N3),
    citation="N3 = -avg E k (eta_ - eta) m dF(z); given the past |E eta/eta_ - 1| <= rho_D + s |grad|/|m|",
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)
stored_momentum = Axiom(
    "storing the momentum",
    le(-((1 + k) * beta * em * keep * u / r + gamma * lost / s0) * x
       - ((1 + k) * beta * em * keep * sH * u + gamma * lost) * k * L * sH * u, N4),
    citation="N4 = avg E (1+k) eta e dF(z); |E e| <= e_m beta1 |m| + Gamma f over the roundings, avg E (eta f)^2 <= "
    "p^2; E eta <= kappa eta_",
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)  # fmt: skip
stored_weight = Axiom(
    "storing the weight",
    le(-(q * over * u + omega / s0) * x - (q * sH * u + omega) * k * L * sH * u, N5),
    citation="N5 = -avg E (s + eta m') dF(z); |E[s + eta m' | m', v']| <= q eta |m'| + omega; eta <= over^2 eta0",
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)
P0 = gamma * (sP + lost2) + omega2
P1 = (k * drift2 + (1 + k) * em2 * beta * keep2 + lam) * sH
shifted_size = Axiom(
    "size of the shifted step",
    le(S2, (P0 + P1 * u) ** 2 + w0 + w1 * u),
    citation="S2 = avg E dz^2: Minkowski's inequality over the four parts; w0 + w1 u bounds the variance of storing w "
    "(R5: at most Delta^2/4, and Delta times the mean step)",
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)
MEAN_X = gamma * mid * top * sH0
MEAN_U = (k * (drift + steep_u) + (1 + k) * beta * em * keep + q) * sH
MEAN_0 = gamma * (error * sH0 + half * sA + lost) + omega
mean_shift = Axiom(
    "mean of the shifted step",
    le(S1, MEAN_X * x + MEAN_U * u + MEAN_0),
    citation="S1^2 = avg of the square of E dz given the past; the same four parts as in the terms above",
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)
SQUARE = gamma * mid * tau * rho - k * steep / r**2 - rest * MEAN_X**2 / 2
LINEAR = gamma * (error + half * sA / s0) + gamma * lost / s0 + omega / s0 + rest * MEAN_X * MEAN_0
DISPLACED = k * L * sH * (MEAN_X + k * steep * sH / r)
CROSS = k * drift / r + (1 + k) * beta * em * keep / r + q * over + rest * MEAN_X * MEAN_U
MOMENTUM2 = k * L * sH**2 * (k * drift + (1 + k) * beta * em * keep + q) + (bend * P1**2 + rest * MEAN_U**2) / 2
MOMENTUM1 = k * L * sH * MEAN_0 + bend * P0 * P1 + bend * w1 / 2 + rest * MEAN_U * MEAN_0
CONSTANT = (bend * (P0**2 + w0) + rest * MEAN_0**2) / 2
REST = (DISPLACED + CROSS) * x * u + MOMENTUM2 * u**2 + MOMENTUM1 * u + CONSTANT
_moves = MEAN_X * x + MEAN_U * u + MEAN_0
shifted_point = Derivation(
    "T21, one coordinate of the shifted point",
    givens=(eq(gain, N1 + N2 + N3 + N4 + N5),),
    steps=(
        *cited(mean_gradient, displaced, moved, stored_momentum, stored_weight, shifted_size, mean_shift),
        Step(eq(gain, N1 + N2 + N3 + N4 + N5), Given(), "'motion of the shifted point', times -dF(z)"),
        Step(le(S1**2, _moves**2), Combine({6: S1 + _moves})),
        Step(
            le(SQUARE * x**2 - LINEAR * x - REST, gain - (bend * S2 + rest * S1**2) / 2),
            Combine({0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: bend / 2, 7: -1, 8: rest / 2}),
            "E dz.M dz = (E dz).M(E dz) + sum M_ii Var dz_i for independent noise: rest = L - M_ii; else M_ii = L",
        ),
    ),
    statement=le(SQUARE * x**2 - LINEAR * x - REST, gain - (bend * S2 + rest * S1**2) / 2),
)

# the size of the momentum: u^2 = avg E eta m'^2 + start, start = E eta_ m^2 before the first step, over T
decay, start = sp.symbols("decay start", nonnegative=True)
Q, long = sp.symbols("Q l", positive=True)
M0, Mg, Mx, Ne, Ns, after, before = sp.symbols("M0 Mg Mx Ne Ns after before", real=True)
recursion = Axiom(
    "size of the new momentum",
    le(after, decay * before + 2 * beta * Gamma * (Mg + mixed * u) + Gamma**2 * Q**2),
    citation="E eta m'^2 <= E eta (second moments of the roundings) (beta1 m + Gamma g)^2, roundings of m and of v "
    "independent; Mg = avg E eta m g; decay = beta1^2 (second moments) kappa",
    test=f"{_TEST}::test_size_of_the_momentum",
)
shifted_average = Axiom(
    "average shifted by one step",
    le(before, u**2),
    citation="before = after + (E first - E last)/T <= after + start",
    test=f"{_TEST}::test_size_of_the_momentum",
)
correlation = Axiom(
    "momentum and new gradient",
    le(Mg, u * (mid * top * keep0 * x + error * keep0 + half * sA / s1)),
    citation="Mg = avg E m E[eta g]; |E eta g| <= mid top eta0 |grad| + e0 + half |phi|; Cauchy-Schwarz",
    test=f"{_TEST}::test_size_of_the_momentum",
)
FREE = Gamma**2 * Q**2 + start
FREE_CROSS = 2 * beta * Gamma * mid * top * keep0
FREE_LINEAR = 2 * beta * Gamma * (error * keep0 + half * sA / s1 + mixed)
momentum = Derivation(
    "T21, one coordinate of the momentum",
    givens=(eq(u**2, after + start),),
    steps=(
        *cited(recursion, shifted_average, correlation),
        Step(eq(u**2, after + start), Given()),
        Step(
            le((1 - decay) * u**2 - FREE_CROSS * x * u - FREE_LINEAR * u, FREE),
            Combine({0: 1, 1: decay, 2: 2 * beta * Gamma, 3: 1}),
            "from the recursion alone: for any smoothness",
        ),
    ),
    statement=le((1 - decay) * u**2 - FREE_CROSS * x * u - FREE_LINEAR * u, FREE),
)

noise_part = Axiom(
    "momentum and noise",
    le(Mx, u * (shift * keep0 * x + error * keep0 + half * sA / s1) + steep2 * x**2),
    citation="Mx = avg E eta m (g - grad): E[eta g] and E[eta] grad differ by (varpi + s_2 |grad|/|m|) eta0 |grad|, e0 "
    "and half |phi|",
    test=f"{_TEST}::test_size_of_the_momentum",
)
rounded_momentum = Axiom(
    "storing the momentum, along the gradient",
    le(-(beta * em * keep * u / r + Gamma * lost / s0) * x, Ne),
    citation=stored_momentum.citation,
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)
rounded_weight = Axiom(
    "storing the weight, along the gradient",
    le(-(q * over * u + omega / s0) * x, Ns),
    citation=stored_weight.citation,
    test=f"{_TEST}::test_terms_of_the_shifted_step",
)
step_size = Axiom(
    "size of the step",
    le(S2, (long * sH * u + omega2) ** 2 + w0 + w1 * u),
    citation="S2 = avg E s^2, s = -a + storing w; E a^2 <= l^2 H^2 eta m'^2",
    test=f"{_TEST}::test_size_of_the_momentum",
)
HELD = 1 - decay - Gamma * L * (long * sH) ** 2
HELD_CROSS = 2 * Gamma * (beta * shift * keep0 + beta * em * keep / r + q * over)
HELD_LINEAR = 2 * Gamma * beta * (error * keep0 + half * sA / s1 + mixed) + Gamma * L * (2 * long * sH * omega2 + w1)
HELD_GRADIENT = 2 * Gamma * (Gamma * (error + half * sA / s0) + Gamma * lost / s0 + omega / s0)
HELD_CONSTANT = FREE + Gamma * L * (omega2**2 + w0)
HELD_SQUARE = 2 * Gamma * (beta * steep2 - Gamma * mid * tau * rho)
held = HELD * u**2 - HELD_SQUARE * x**2 - HELD_CROSS * x * u - HELD_LINEAR * u - HELD_GRADIENT * x - HELD_CONSTANT
momentum_with_loss = Derivation(
    "T21, one coordinate of the momentum with the loss",
    givens=(
        eq(u**2, after + start), eq(Mg, Mx + M0), eq(gain, beta * M0 + Gamma * N1 / gamma + Ne + Ns),
    ),
    steps=(
        *cited(recursion, shifted_average, noise_part, mean_gradient, rounded_momentum, rounded_weight, step_size),
        Step(eq(u**2, after + start), Given()),
        Step(eq(Mg, Mx + M0), Given(), "M0 = avg E eta m grad"),
        Step(eq(gain, beta * M0 + Gamma * N1 / gamma + Ne + Ns), Given(), "gain = -avg E grad s"),
        Step(
            le(held, 2 * Gamma * (gain - L * S2 / 2)),
            Combine({
                0: 1, 1: decay, 2: 2 * beta * Gamma, 3: 2 * Gamma**2 / gamma, 4: 2 * Gamma, 5: 2 * Gamma,
                6: Gamma * L, 7: 1, 8: 2 * beta * Gamma, 9: -2 * Gamma,
            }),
            "what the loss gains along m pays for the momentum's growth: the terms m grad cancel",
        ),
    ),
    statement=le(held, 2 * Gamma * (gain - L * S2 / 2)),
)  # fmt: skip

# sums over the coordinates: Z^2 = sum SQUARE x^2, S^2 = sum weight u^2
G, Z, S, B, c, d, f, j, kappa, quadratic, linear = sp.symbols("G Z S B c d f j K g h", nonnegative=True)
K, T = sp.symbols("k_max T", positive=True)
c0, X1, XU, U1, U2 = sp.symbols("c0 X1 XU U1 U2", nonnegative=True)
F, W, X2, C = sp.symbols("F W X2 C", real=True)


def _sum(name: str, claim: object, citation: str, test: str = "test_sums_over_coordinates") -> Axiom:
    return Axiom(f"T21: {name}", claim, citation=citation, test=f"{_TEST}::{test}")  # type: ignore[arg-type]


_floor = _sum(
    "shifted points summed", le(X2 - X1 - XU - U2 - U1 - c0, W),
    "'one coordinate of the shifted point', summed and averaged", "test_never_violated",
)  # fmt: skip
_descent = _sum(
    "descent lemma at the shifted points, telescoped", le(W, F / T),
    "F(z+dz) <= F(z) + dF(z).dz + L |dz|^2/2, coordinate by coordinate where the loss is a sum; F >= E F(z_first) - F*",
    "test_descent_at_the_shifted_point",
)  # fmt: skip
_cauchy = _sum("Cauchy-Schwarz for x", le(X1, B * Z), "B^2 = sum LINEAR^2/SQUARE")
_cross = _sum("Cauchy-Schwarz for x u", le(XU, kappa * Z * S), "XU = sum (DISPLACED + CROSS) x u")
_square = _sum("largest ratio", le(U2, quadratic * S**2), "U2 = sum MOMENTUM2 u^2, g its largest ratio to the weight")
_first = _sum("Cauchy-Schwarz for u", le(U1, linear * S), "U1 = sum MOMENTUM1 u")
floor = Derivation(
    "T21",
    givens=(eq(X2, Z**2), eq(C, F / T + quadratic * S**2 + linear * S + c0), le(G**2, K * Z**2), le(0, C)),
    steps=(
        *cited(_floor, _descent, _cauchy, _cross, _square, _first),
        Step(eq(X2, Z**2), Given()),
        Step(eq(C, F / T + quadratic * S**2 + linear * S + c0), Given()),
        Step(
            le(Z**2, (B + kappa * S) * Z + C), Combine({0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: -1, 7: -1})
        ),
        Step(le(G**2, K * Z**2), Given(), "K: largest weight of grad_i^2 in x_i^2, over SQUARE_i"),
        Step(le(0, C), Given(), "a loss that rose counts as C = 0"),
        Step(
            le(G, sp.sqrt(K) * (B + kappa * S + sp.sqrt((B + kappa * S) ** 2 + 4 * C)) / 2),
            Instance.of_names(quadratic_root, B=B + kappa * S, C=C, K=K, Z=Z, G=G),
        ),
    ),
    statement=le(G, sp.sqrt(K) * (B + kappa * S + sp.sqrt((B + kappa * S) ** 2 + 4 * C)) / 2),
)  # fmt: skip

_held = _sum(
    "momentum summed", le(U2 - X2 - XU - U1 - X1 - c0, W),
    "'one coordinate of the momentum', with or without the loss, times its weight, summed", "test_never_violated",
)  # fmt: skip
_telescoped = _sum(
    "descent lemma at the weights, telescoped", le(W, F / T),
    "F(w+s) <= F(w) + grad.s + L |s|^2/2; F >= 2 Gamma (largest weight) (E F_first - F*); 0 without the loss",
    "test_descent_at_the_shifted_point",
)  # fmt: skip
_held_cross = _sum("Cauchy-Schwarz for x u in the momentum", le(XU, c * Z * S), "XU = sum weight CROSS x u")
_held_linear = _sum("Cauchy-Schwarz for u in the momentum", le(U1, d * S), "U1 = sum weight LINEAR u")
_held_square = _sum("largest ratio in the momentum", le(X2, f * Z**2), "X2 = sum weight SQUARE x^2, f no less than 0")
_held_gradient = _sum("Cauchy-Schwarz for x in the momentum", le(X1, j * Z), "X1 = sum weight GRADIENT x")
momentum_sum = Derivation(
    "T21, momentum",
    givens=(eq(U2, S**2), eq(C, F / T + j * Z + f * Z**2 + c0), le(0, C)),
    steps=(
        *cited(_held, _telescoped, _held_cross, _held_linear, _held_gradient, _held_square),
        Step(eq(U2, S**2), Given()),
        Step(eq(C, F / T + j * Z + f * Z**2 + c0), Given()),
        Step(le(S**2, (c * Z + d) * S + C), Combine({0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: -1, 7: -1})),
        Step(le(0, C), Given(), "every term of C is nonnegative"),
        Step(
            le(S, (c * Z + d + sp.sqrt((c * Z + d) ** 2 + 4 * C)) / 2),
            Instance.of_names(quadratic_root, B=c * Z + d, C=C, K=1, Z=S, G=S),
        ),
    ),
    statement=le(S, (c * Z + d + sp.sqrt((c * Z + d) ** 2 + 4 * C)) / 2),
)

LEMMAS = (shifted_point, shifted, momentum_sum, momentum_with_loss, momentum, mean_square_error, quadratic_root)
