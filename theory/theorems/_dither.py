"""Dither: what rounding w - s does in the mean when s has a Gaussian part, and how much the rounding of s spoils it.

Let w lie on a uniform grid of gap Delta, s0 = m + x the exact step with x ~ N(0, (r Delta)^2), and s the step that the
machine has, |s - s0| <= eps0 + eta (|m| + |x|) (composition; for any dependence). Write e = fl(w - s) - (w - s0).

Exact step (s = s0), to nearest: e is a sawtooth of s0, its Fourier series meets the Gaussian characteristic function,
and with q = exp(-2 pi^2 r^2), Q = q/(1 - q^3) >= sum_j q^(j^2),

    |E e| <= (Delta/pi) Q,   |E e^2 - Delta^2/12| <= (Delta/pi)^2 Q,   |E x e| <= 2 (r Delta)^2 Q.

Stochastic: E e = 0 but for the bias of n bits, and |E e^2 - Delta^2/6| <= (Delta/pi)^2 Q.

Rounded step. A step that lies on a lattice has no density and no decaying characteristic function. But fl(w - s) and
fl(w - s0) differ, by J = +-Delta, only if a midpoint c_k = (k + 1/2) Delta lies between s and s0, that is |s0 - c_k| <=
eps0 + eta (|m| + |x|). The density of s0 near the midpoints, summed, is at most its mean over a gap plus its total
variation, so

    E|J| <= 2/(1 - 2 eta) ((eps0 + eta |m|)(1 + 2 p Delta) + eta (E|x| + 4 h1 Delta)),

p = 1/(sqrt(2 pi) r Delta) the density's maximum and h1 that of |x| p(x). So the rounding of the step costs about twice
its own mean size, and not a gap: the dither survives narrow steps. If eta |m| > Delta/8 then |J| <= Delta + |s - s0| is
less than 9 eta |m| + ..., which the same expression covers. |x| > 4 r Delta, and that the noise of a run is a Gaussian
only up to a coupling (error below 2^-25 sigma inside 5 sigma), enter as ``RARE``.

Source: Fourier series of non-subtractive dither as in Widrow and Kollar, Quantization Noise, 2008; the transfer to
rounded steps is derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from fpsim.number_format import Format
from fpsim.rounding import is_nearest
from theory.composition import NoEnclosure, compose, factor_bounds, model_values
from theory.composition import symbol as named
from theory.derivation import Axiom, Combine, Derivation, Given, Instance, Step, cited, le
from theory.enclosure import BITS, Ball, ball, compile_expression, evaluate, working_precision
from theory.rounding_model import underflow_unit
from theory.theorems._mean_rounding import moments
from theory.window import Window

TEST = "tests/theory/test_t25.py"
REACH = 4  # standard deviations of x within which crossings are counted
RARE = 2.0**-13  # beyond: P = 6.4e-5 < RARE, E|x| = 2.7e-4 < 3 RARE, E x^2 = 1.2e-3 < 10 RARE, in units of sigma
COUPLING = 2.0**-25  # |noise - Gaussian| / sigma within 5 sigma, and in the mean

# pi is a symbol here, so that signs stay rational; its value is the number
pi, Delta, r = (sp.Symbol(s, positive=True) for s in ("pi", "Delta", "r"))
q = sp.Symbol("q", positive=True)
S = sp.Symbol("S", nonnegative=True)
mean, excess, cross = sp.symbols("mean excess cross", nonnegative=True)
SERIES = q / (1 - q**3)
DAMPED = {q: sp.Interval.open(0, 1)}

_series = Axiom(
    "dither: the series",
    le(S, q + q**3 * S),
    citation="S = sum_{j>=1} q^(j^2) with q = exp(-2 pi^2 r^2) < 1; (j+1)^2 - j^2 >= 3",
    test=f"{TEST}::test_series",
    domain=DAMPED,
)
_MEAN, _EXCESS, _CROSS = Delta / pi * SERIES, (Delta / pi) ** 2 * SERIES, 2 * (r * Delta) ** 2 * SERIES


def _damped(name: str, quantity: sp.Symbol, factor: sp.Expr, citation: str) -> Derivation:
    fourier = Axiom(f"{name}, Fourier", le(quantity, factor * S), citation=citation, test=f"{TEST}::test_dither_lemma")
    return Derivation(
        name,
        givens=(),
        steps=(
            Step(le(quantity, factor * S), Instance(fourier), "the series, term by term"),
            Step(le(S, q + q**3 * S), Instance(_series), "S = sum q^(j^2)"),
            Step(le(quantity, factor * SERIES), Combine({0: 1, 1: factor / (1 - q**3)})),
        ),
        statement=le(quantity, factor * SERIES),
        domain=DAMPED,
    )


_LAW = "E exp(i w s) of a Gaussian s is exp(-(w r Delta)^2/2) in modulus, w = 2 pi j/Delta: q^(j^2)"
dither_mean = _damped(
    "dither: mean", mean, Delta / pi, f"e = (Delta/pi) sum (-1)^(j+1) sin(2 pi j s/Delta)/j, up to sign; {_LAW}"
)
dither_excess = _damped(
    "dither: second moment",
    excess,
    (Delta / pi) ** 2,
    "e^2 = Delta^2/12 + (Delta/pi)^2 sum (-1)^j cos(2 pi j s/Delta)/j^2; "
    f"f(1-f) = 1/6 - sum cos(2 pi j f)/(pi j)^2; {_LAW}",
)
dither_cross = _damped(
    "dither: correlation with the noise",
    cross,
    2 * (r * Delta) ** 2,
    f"E x sin(w(m+x)) = w (r Delta)^2 q^(j^2) cos(w m) (Stein), times the sawtooth's Delta/(pi j); {_LAW}",
)

# any density: characteristic function at most V/|w|
V, V1 = sp.symbols("V V1", nonnegative=True)
_basel = Axiom(
    "dither: any density",
    le(mean, Delta / pi * (V * Delta / (2 * pi)) * V1),
    citation="sawtooth series with |phi(w)| <= V/|w|, V the total variation of the density; V1 = sum 1/j^2",
    test=f"{TEST}::test_any_density",
)
_zeta2 = Axiom(
    "Basel problem", le(V1, pi**2 / 6), citation="Euler, 1735: sum 1/j^2 = pi^2/6", test=f"{TEST}::test_any_density"
)
any_density = Derivation(
    "dither: any step density",
    givens=(),
    steps=(
        Step(_basel.conclusion, Instance(_basel)),
        Step(le(V1, pi**2 / 6), Instance(_zeta2)),
        Step(
            le(mean, Delta**2 * V / 12),
            Combine({0: 1, 1: V * Delta**2 / (2 * pi**2)}),
            "a unimodal density has V = 2 max p: |E e| <= Delta^2 max p/6",
        ),
    ),
    statement=le(mean, Delta**2 * V / 12),
)

# crossings of midpoints: eps0, eta, |m|; x1 = E|x|; p the largest density, h1 that of |x|p
eps0, size_m, eta = (sp.Symbol(s, nonnegative=True) for s in ("eps0", "m", "eta"))
p, h1, x1 = (sp.Symbol(s, positive=True) for s in ("p", "h1", "x1"))
N0, N1, J = sp.symbols("N0 N1 J", nonnegative=True)  # N0, N1: lattice sums of p and |x|p
NARROW = {eta: sp.Interval.Ropen(0, sp.Rational(1, 2))}
CROSSING = 2 / (1 - 2 * eta) * ((eps0 + eta * size_m) * (1 + 2 * p * Delta) + eta * (x1 + 4 * h1 * Delta))

_lattice = Axiom(
    "lattice sum of a density",
    le(Delta * N0, 1 + 2 * p * Delta),
    citation="sum_k max over the k-th gap <= integral/Delta + total variation; a unimodal p varies by 2 max p",
    test=f"{TEST}::test_lattice_sums",
)
_lattice_first = Axiom(
    "lattice sum of |x| times a density",
    le(Delta * N1, x1 + 4 * h1 * Delta),
    citation="the same of |x| p(x), two humps of height h1: variation 4 h1",
    test=f"{TEST}::test_lattice_sums",
)
_between = Axiom(
    "a midpoint between two steps",
    le((1 - 2 * eta) * J, 2 * Delta * ((eps0 + eta * size_m) * N0 + eta * N1)),
    citation="|s0 - c| <= eps0 + eta(|m|+|x|) =: h(x) <= 3 Delta/8 keeps s0 within h/(1-2 eta) of c, in its gap",
    test=f"{TEST}::test_rounded_steps",
)
crossing = Derivation(
    "dither: rounded steps",
    givens=(),
    steps=(
        *cited(_between, _lattice, _lattice_first),
        Step(
            le(J, CROSSING),
            Combine({0: 1 / (1 - 2 * eta), 1: 2 / (1 - 2 * eta) * (eps0 + eta * size_m), 2: 2 * eta / (1 - 2 * eta)}),
        ),
    ),
    statement=le(J, CROSSING),
    domain=NARROW,
)
# what a crossing costs in the second moment: |e| = Delta/2 - d before and Delta/2 + d after, d the distance to c
d_ = sp.Symbol("d", nonnegative=True)
moved_square = Derivation(
    "dither: a crossing in the second moment",
    givens=(le(d_, sp.Rational(3, 8) * Delta),),
    steps=(
        Step(le(d_, sp.Rational(3, 8) * Delta), Given(), "the midpoint is within the error of the step"),
        Step(
            le((Delta / 2 + d_) ** 2 - (Delta / 2 - d_) ** 2, sp.Rational(3, 4) * Delta * Delta),
            Combine({0: 2 * Delta}),
            "at most 3 Delta/4 times |J|",
        ),
    ),
    statement=le((Delta / 2 + d_) ** 2 - (Delta / 2 - d_) ** 2, sp.Rational(3, 4) * Delta * Delta),
)
LEMMAS = (dither_mean, dither_excess, dither_cross, any_density, crossing, moved_square)


@dataclass(frozen=True)
class Dither:
    """Bounds of e = fl(w - s) - (w - s0), given w, with |m| the size of the exact mean step; all are balls.

    |E e| <= bias[0] + bias[1] |m|;  low - spread(|m|) <= E e^2 <= high + spread(|m|), spread = spread[0] |m| +
    spread[1] m^2;  |E x e| <= cross[0] + cross[1] |m|.
    """

    bias: tuple[Ball, Ball]
    low: Ball
    high: Ball
    spread: tuple[Ball, Ball]
    cross: tuple[Ball, Ball]


@dataclass(frozen=True)
class StepError:
    """|s - s0| <= eps0 + eta (|m| + |x|) where none of ``slots`` underflows."""

    eps0: list[Ball]
    eta: Ball
    slots: tuple[str, ...]


def step_error(window: Window) -> StepError:
    """The step that the machine subtracts in ``w.sub`` against lr times (true gradient plus noise).

    Raises
    ------
    NoEnclosure
        The step is not lr times the gradient, or no relative error of its terms follows.
    """
    step = window.program.operation("w.sub").operands[1]
    exact = ("w", *window.exact_constants)
    found = [compose(window.program, window.slots, name, exact=exact, scalars=window.scalars) for name in (step, "g")]
    whole, gradient = (sp.Add(*(term.exact for term in x.terms)) for x in found)
    if sp.expand(whole - named("scalar.lr") * gradient) != 0:
        raise NoEnclosure(step, f"{whole} is not lr times the gradient {gradient}")
    if window.gradient_inside and window.noise == "gaussian" and sp.diff(gradient, named("noise")) != 1:
        raise NoEnclosure("g", f"{gradient} does not add the noise to the gradient")
    with working_precision(BITS):
        eta_ = arb(0)
        for term in found[0].terms:
            values = model_values(window.slots, tuple(term.exponents))
            least, most = (evaluate(side, values) for side in factor_bounds(term.exponents))
            # binary64 makes the noise, and adds it to a gradient that is computed outside
            further = (1 + ball(2.0**-53)) ** 2
            eta_ = eta_.max(most * further - 1).max(1 - least / further)
        lr = ball(window.scalars["scalar.lr"])
        # R3: an underflow of the step, or of the gradient where it is stored, is an absolute error
        tiny = {name: arb(0) for name in (step, "g")}
        for name in tiny:
            if name in found[0].underflow_slots and window.underflow.get(name, 1):
                tiny[name] = ball(underflow_unit(*window.slots[name]))
        outside = [tiny[step] + lr * (ball(e) + tiny["g"]) * (1 + eta_) for e in window.gradient_error]
    return StepError(outside, eta_, tuple(name for name in found[0].underflow_slots if name not in tiny))


def uniform_gap(window: Window, name: str, coordinate: int) -> Ball | None:
    """The gap of a stored array's grid if everything that was visited lies inside one uniform stretch of it, else None.

    One binade without its ends, or, with subnormals, everything up to the top of the smallest binade.
    """
    fmt: Format = window.slots[name][0]
    least, most = float(np.min(window.min_abs[name][coordinate])), float(np.max(window.max_abs[name][coordinate]))
    if not math.isfinite(most):
        return None
    finest = 2.0 ** (fmt.emin - fmt.mantissa_bits)
    if fmt.subnormals and fmt.tiny == "round" and most < 2.0 ** (fmt.emin + 1):
        return ball(finest)
    if least == 0.0:
        return None
    bottom = 2.0 ** (math.frexp(least)[1] - 1)
    signs = np.sign(np.concatenate([window.start[name][coordinate], window.end[name][coordinate]]))
    if least == bottom or most >= 2 * bottom or bottom < fmt.smallest_normal or np.any(signs != signs[0]):
        return None
    return ball(bottom * 2.0**-fmt.mantissa_bits)


def dithered(window: Window, gap: Ball, deviation: Ball, eps: Ball, eta_: Ball, slot: str = "w.sub") -> Dither | None:
    """The numbers of a uniform grid of the given gap, x of the given standard deviation; None if s is too coarse."""
    fmt, rounding = window.slots[slot]
    with working_precision(BITS):
        eps = eps + COUPLING * deviation
        r_, pi_ = deviation / gap, arb.pi()
        q_ = (-2 * pi_**2 * r_**2).exp()
        series = q_ / (1 - q_**3)
        first, second = deviation * (2 / pi_).sqrt(), deviation**2
        squares = 4 * eps**2 + 2 * eta_**2 * second
        if not is_nearest(rounding):
            b = moments(fmt, rounding).bias
            size_, noise = eps + eta_ * first, (gap / pi_) ** 2 * series
            spread = b * gap**2 + gap * (1 + 2 * b) * size_ + squares
            return Dither(
                (b * gap + size_, eta_),
                gap**2 / 6 - noise - spread,
                gap**2 / 6 + noise + spread,
                (gap * (1 + 2 * b) * eta_, 4 * eta_**2),
                (b * gap * first + eps * first + eta_ * second, eta_ * first),
            )
        if not (eps + REACH * eta_ * deviation) * 4 <= gap:
            return None
        values = [pi_, gap, r_, q_]
        bias, spread, cross_ = (compile_expression(x, [pi, Delta, r, q])(values) for x in (_MEAN, _EXCESS, _CROSS))
        peak = 1 / (2 * pi_).sqrt()
        hump, hump2 = arb(-0.5).exp() * peak, 2 * arb(-1).exp() * peak
        crossed = compile_expression(CROSSING, [Delta, eps0, size_m, eta, p, h1, x1])
        constant = [peak / deviation, hump, first]
        j0 = crossed([gap, eps, arb(0), eta_, *constant]) + RARE * (gap + eps + 3 * eta_ * deviation)
        j1 = (2 * eta_ / (1 - 2 * eta_) * (1 + 2 * peak / r_)).max(9 * eta_) + RARE * eta_
        wide = first + 4 * hump * gap
        k0 = 2 / (1 - 2 * eta_) * (eps * wide + eta_ * (second + 4 * hump2 * deviation * gap))
        k0 += RARE * (3 * deviation * (gap + eps) + 10 * eta_ * second)
        k1 = (2 * eta_ / (1 - 2 * eta_) * wide).max(8 * eta_ * deviation) + 3 * RARE * eta_ * deviation
        spread += 3 * gap * j0 / 4 + RARE * gap * (gap / 4 + eps + 3 * eta_ * deviation) + squares
        middle = gap**2 / 12
        return Dither(
            (bias + j0, j1),
            middle - spread,
            middle + spread,
            (3 * gap * j1 / 4 + RARE * gap * eta_, 4 * eta_**2),
            (cross_ + k0, k1),
        )


def adversarial(window: Window, gap: Ball, deviation: Ball, eps: Ball, eta_: Ball) -> list[Dither]:
    """What holds on any grid whose gaps are at most ``gap``: R4, stochastic also R5."""
    fmt, rounding = window.slots["w.sub"]
    with working_precision(BITS):
        eps = eps + COUPLING * deviation
        first, second = deviation * (2 / arb.pi()).sqrt(), deviation**2
        size_, squares = eps + eta_ * first, 4 * eps**2 + 2 * eta_**2 * second
        b = arb(0.5) if is_nearest(rounding) else moments(fmt, rounding).bias
        bias = (b * gap + size_, eta_)
        cross_ = (b * gap * first + eps * first + eta_ * second, eta_ * first)
        # a bias of b gaps adds b^2 Delta^2 to what its law's variance is at most
        half = gap**2 / 4 + 2 * b * gap * size_ + squares + (arb(0) if is_nearest(rounding) else b**2 * gap**2)
        result = [Dither(bias, arb(0), half, (2 * b * gap * eta_, 4 * eta_**2), cross_)]
        if not is_nearest(rounding):
            small = gap * (first + size_ + b * gap + b**2 * gap) + 2 * b * gap * size_ + squares
            result.append(Dither(bias, arb(0), small, (gap * (1 + eta_ + 2 * b * eta_), 4 * eta_**2), cross_))
        return result
