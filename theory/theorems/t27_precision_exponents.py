"""T27: RMSprop with growing precision: exponents of the errors that keep the rate T^-1/4, and the bound at finite T.

Model, tensor by tensor. y is the stochastic gradient at the *stored* weights, E[y | past] = rho grad up to e;
g = y (1 + theta_G); v' = (1 + delta)(B v + c g^2), |delta| <= q_V; a = lr g (1 + theta_U)/D(v'), D = sqrt(v) + eps or
sqrt(v + eps); w' = w - a up to ebar (to nearest, ebar = Delta/2) or stochastic with gaps Delta. The errors theta and
delta may be an adversary's; their sizes are read off the program by composition, what underflowed in v included.

Finite T. With low, high = (1 -+ q_G)(1 -+ q_U)/sqrt(1 +- q_V), m and q their half sum and half difference, M = high^2,
zeta = -ln(1 - q_V), chi = -2 ln(1 - q_G), P = (zeta + ln(v_T/v_0)/T - ln B)/(1 - chi) (Lemma A, v shifted by eps where
eps is inside the root) the chain of T12 gives G <= sqrt(max D_i/A_i) Z from

    A = m rho,   B = m e/sqrt(D_min) + q sqrt(P D_max/c) + omega sqrt(D_max)/lr,   C = m R Rbar P/D_min + L Q/(2 lr)

(symmetric noise also A = m tau rho without the term in R, as in T12; without noise, no term in R). The constants are a
priori but R >= |y| and D_min: v <= max(v_0, (1 + q_V) c R^2/(1 - (1 + q_V) B)), which is finite only if q_V <= kappa c
with kappa < 1 (B = 1 - c). omega and Q as in T12.

Rate. x = T^-1/4, lr = a x^2, q <= theta x (that is q_G, q_U, q_V = O(T^-1/4)), and ebar <= E a x^3 or Delta <= s x^2.
* Regime A: c = b x^2, D >= d_0 > 0, q_V <= kappa c, kappa < 1.   * Regime B: c = b x^4, D = sqrt(v + c eps).
Then B <= x (theta sqrt(A_v D_max) + E sqrt(D_max)) and C + F/(lr T) <= x^2 gamma with the gamma of the derivations, so

    G <= T^-1/4 sqrt(K) (beta + sqrt(beta^2 + 4 gamma))/2,

where A_v = P/c <= (1/(1 - c) + kappa/(1 - kappa c) + rise/c)/(1 - chi) stays bounded in A and grows like ln T in B:
there G = O(T^-1/4 sqrt(ln T)). So q_V = O(T^-1/2) (A) or O(1/T) (B), q_G, q_U = O(T^-1/4), ebar = O(T^-3/4), Delta =
O(T^-1/2) suffice; for Adam arXiv:2510.21314 asks for more. Inequalities, not limits: each step of them is checked.

Not proven here: that the exponents are necessary. They are for an adversary; to nearest under noise, formats do better.
Tightness: upper. Source: derived here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import Rounding, Stochastic, is_nearest
from theory.composition import NoEnclosure, relative_factor
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.rounding_model import shrinks
from theory.theorem import Bound, Hypothesis, Theorem, no_events
from theory.theorems import _deterministic_rmsprop as form
from theory.theorems import _rmsprop_lemmas as lemmas
from theory.theorems import _rmsprop_numbers as numbers
from theory.theorems import t12_rmsprop
from theory.theorems._floor_root import fall, gaps_visited, quadratic_root, summation, weighted_root
from theory.theorems._mean_rounding import moments
from theory.theorems._rates import LEMMAS as RATES
from theory.theorems.t08_stochastic_gd import SIZE, measured, step_size
from theory.theorems.t08_stochastic_gd import D as GAP
from theory.theorems.t08_stochastic_gd import a as STEP
from theory.theorems.t08_stochastic_gd import b as BIAS
from theory.theorems.t08_stochastic_gd import lam as WEIGHT
from theory.theorems.t11_deterministic_rmsprop import underflow
from theory.window import Window

QUANTITY = "root mean square of the gradient norm over window and seeds"
_TEST = "tests/theory/test_t27.py"

floor = summation("T27", _TEST)


@dataclass(frozen=True)
class Errors:
    """1 - q and 1 + q of the three tensors, as balls."""

    v: tuple[Ball, Ball]
    update: tuple[Ball, Ball]
    gradient: tuple[Ball, Ball]

    @property
    def step(self) -> tuple[Ball, Ball]:
        """(low, high) of a/(lr phi(y)): y/D has an elasticity in [0, 1] in y."""
        low = self.gradient[0] * self.update[0] / self.v[1].sqrt()
        return low, self.gradient[1] * self.update[1] / self.v[0].sqrt()


def evaluate_bound(window: Window) -> Bound:
    """The bound at the window's T; see the module's docstring."""
    checks = list(form.hypotheses(window, noises=("none", "gaussian", "minibatch")))
    if not all(check.ok for check in checks):
        return Bound("T27", QUANTITY, tuple(checks))
    mode = window.slots[dict(window.program.outputs)["w"]][1]
    checks.append(Hypothesis("w to nearest or stochastic, variant A", is_nearest(mode) or shrinks(mode), str(mode)))
    if "noise" in window.slots:  # rounded up, say, noise has no longer the mean zero
        kept = window.slots["noise"][1]
        checks.append(Hypothesis("noise to nearest or stochastic", is_nearest(kept) or shrinks(kept), f"noise: {kept}"))
    outside = window.noise != "minibatch" or not window.gradient_inside
    checks.append(Hypothesis("minibatches are drawn outside the program", outside, window.noise))
    try:
        with working_precision(BITS):
            errors, below, watched = _errors(window)
            signal = t12_rmsprop._signal(window)
    except (NoEnclosure, ValueError) as none:
        return Bound("T27", QUANTITY, (*checks, Hypothesis("step and v are those of RMSprop", False, str(none))))
    with working_precision(BITS):
        checks += _precise_enough(window, errors, signal.low, below)
        checks.append(no_events(window, dict.fromkeys((*watched, *signal.slots)))[1])
        if not all(check.ok for check in checks):
            return Bound("T27", QUANTITY, tuple(checks))
        try:
            roots = [ends(root) for root in _roots(window, errors, signal, below, mode)]
        except ValueError as none:
            return Bound("T27", QUANTITY, (*checks, Hypothesis("a finite root", False, str(none))))
    lower, upper = min(roots, key=lambda pair: pair[1])
    checks.append(Hypothesis("a finite root", math.isfinite(upper), f"{upper:.4g}"))
    if not checks[-1].ok:
        return Bound("T27", QUANTITY, tuple(checks))
    return Bound("T27", QUANTITY, tuple(checks), lower, upper, exponent=2)


def _errors(window: Window) -> tuple[Errors, form.Denominator, tuple[str, ...]]:
    """The sizes of the errors, the denominator and the slots whose underflow would break them."""
    program, slots, stored = window.program, window.slots, dict(window.program.outputs)
    step = relative_factor(
        program,
        slots,
        program.operation(stored["w"]).operands[1],
        ("g", stored["v"]),
        (stored["v"],),
        scalars=window.scalars,
    )
    below = form.denominator(window, step.exact, stored["v"])
    missing = [name for name in ("scalar.beta2", "scalar.one_minus_beta2") if not window.scalars.get(name, 0.0) > 0]
    if missing:
        raise ValueError(f"no positive constant {', '.join(missing)}")
    lower, upper = (form.second_moment(window, upper=end) for end in (False, True))
    kept_, c_, _ = _scalars(window)
    spread = []
    for (decay, injection, lost), sign in ((lower, -1), (upper, 1)):
        smallest = ball(float(np.min(window.min_abs["v"])))
        if lost > 0 and not smallest > 0:
            raise ValueError("v = 0, and v underflowed")
        share = lost / smallest if lost > 0 else arb(0)  # T11, 'underflow of the second moment'
        spread.append(((decay + sign * share) / kept_, injection / c_))
    moment = spread[0][0].min(spread[0][1]), spread[1][0].max(spread[1][1])
    low, high = arb(1), arb(1)
    for _, rounding in numbers.gradient_roundings(window):
        low, high = low * rounding.sure_low, high * rounding.sure_high
    watched = (*step.underflow_slots, "g", "v", *(("noise",) if "noise" in slots else ()))
    update = ball(step.low_value[0]), ball(step.high_value[1])
    return Errors(moment, update, (low, high)), below, tuple(dict.fromkeys(watched))


def _precise_enough(window: Window, errors: Errors, rho: Ball, below: form.Denominator) -> list[Hypothesis]:
    kept, c_, _ = _scalars(window)
    up = errors.v[1] * kept
    share = float(1 - errors.v[0]), float(errors.v[1] - 1), float(c_)
    q_g, q_u = (float(y[1] - 1) for y in (errors.gradient, errors.update))
    sure = bool(errors.v[0] > 0) and bool(errors.gradient[0] > 0) and bool(_chi(errors) < 1)
    least = float(np.min(window.min_abs["v"]))
    shifted = least > 0 or (below.inside and bool(below.eps > 0))
    return [
        Hypothesis("(1 + q_V) beta2 < 1", bool(up < 1), f"q_V = {max(share[:2]):.3g}, 1 - beta2 = {share[2]:.3g}"),
        Hypothesis("q_V, q_G < 1 and chi < 1", sure, f"q_G = {q_g:.3g}, q_U = {q_u:.3g}"),
        Hypothesis("the gradient keeps its sign", bool(rho > 0), f"factor from {rho.str(5)}"),
        Hypothesis("v > 0 on the window, or eps inside the root", shifted, f"smallest v = {least:.3g}"),
    ]  # fmt: skip


def _scalars(window: Window) -> tuple[Ball, Ball, Ball]:
    kept_, c_, lr = (ball(window.scalars[f"scalar.{name}"]) for name in ("beta2", "one_minus_beta2", "lr"))
    return kept_, c_, lr


def _chi(errors: Errors) -> Ball:
    return -2 * errors.gradient[0].log()


@dataclass(frozen=True)
class Coordinate:
    """One coordinate's constants: the largest |y| and |grad|, the gradient's error, D0, D, A_v, (B v + shift)_min."""

    largest: Ball
    drift: Ball
    error: Ball
    least: Ball
    most: Ball
    mean_square: Ball
    remembered: Ball


def _coordinates(
    window: Window, errors: Errors, signal: t12_rmsprop._Signal, below: form.Denominator
) -> list[Coordinate]:
    kept_, c_, _ = _scalars(window)
    shift = below.eps if below.inside else arb(0)
    found = []
    for k in range(window.dimension):
        largest = ball(np.max(window.max_abs["g"][k])) / errors.gradient[0]
        ceiling = errors.v[1] * c_ * (largest * errors.gradient[1]) ** 2 / (1 - errors.v[1] * kept_)
        ceiling = ceiling.max(ball(np.max(window.start["v"][k])))
        grown = sum((((ceiling + shift) / (ball(y) + shift)).log() for y in window.start["v"][k]), arb(0))
        average = (grown / (window.seeds * window.steps) - errors.v[0].log() - kept_.log()) / (1 - _chi(errors))
        remembered = kept_ * ball(np.min(window.min_abs["v"][k]))
        error = ball(window.gradient_error[k]) + (0 if window.gradient_inside else 2.0**-53) * largest
        steep = window.gradient_bound[k]
        drift = (signal.high * ball(steep) + error).min(largest) if math.isfinite(steep) else largest
        found.append(
            Coordinate(largest, drift, error, below.at(remembered), below.at(ceiling), average / c_, remembered + shift)
        )
    return found


def _noise(window: Window, signal: t12_rmsprop._Signal, known: list[Coordinate]) -> list[tuple[list[Ball], list[Ball]]]:
    """(tau, V) of every coordinate for each way to treat the noise; see T12."""
    _, c_, _ = _scalars(window)
    ones, none = [arb(1)] * len(known), [arb(0)] * len(known)
    if window.noise == "none":  # no predictable preconditioner: D in the place of D0, and nothing varies
        return [(ones, none)]
    varied = [x.largest * (x.drift + x.error) / signal.low * c_ * x.mean_square / x.least for x in known]
    found = [(ones, varied)]
    if window.noise == "gaussian":
        squares = t12_rmsprop.spread_square(window, [x.drift for x in known], [x.largest for x in known])
        share_ = [x.remembered / (x.remembered + c_ * y) for x, y in zip(known, squares, strict=True)]
        found.append(([y * y.sqrt() for y in share_], none))
    return found


def _roots(
    window: Window, errors: Errors, signal: t12_rmsprop._Signal, below: form.Denominator, mode: Rounding
) -> Iterator[Ball]:
    lr = ball(window.scalars["scalar.lr"])
    low, high = errors.step
    middle, half = (high + low) / 2, (high - low) / 2
    symbols = [lemmas.middle, lemmas.tau, lemmas.rho, lemmas.e, lemmas.half, lemmas.A, lemmas.Db, lemmas.omega]
    symbols += [lemmas.alpha, lemmas.V, lemmas.L, lemmas.Q]
    formulas = [compile_expression(y, symbols) for y in (lemmas.SQUARE, lemmas.LINEAR, lemmas.CONSTANT)]
    rounding, to_nearest = moments(*window.slots[dict(window.program.outputs)["w"]]), is_nearest(mode)
    known = _coordinates(window, errors, signal, below)
    gaps, bends = gaps_visited(window), form.curvatures(window)
    drop = fall(window) / (lr * window.steps)
    for weight, (slope, varied) in itertools.product(_weights(mode), _noise(window, signal, known)):
        size = compile_expression(SIZE.subs(WEIGHT, weight), [STEP, GAP, BIAS])
        rows = []
        for k, one in enumerate(known):
            step = lr * high * one.mean_square.sqrt()
            off = gaps[k] / 2 if to_nearest else rounding.bias * gaps[k]
            moved = (step + off) ** 2 if to_nearest else size([step, gaps[k], rounding.bias])
            values = [middle, slope[k], signal.low, one.error / one.least.sqrt(), half, one.mean_square, one.most, off]
            values += [lr, varied[k], bends[k], moved]
            rows.append(tuple(formula(values) for formula in formulas))
        total = sum((row[2] for row in rows), drop)
        yield weighted_root([row[0] for row in rows], [row[1] for row in rows], total, [one.most for one in known])


def _weights(mode: Rounding) -> tuple[sp.Rational, ...]:
    everything = (sp.Rational(0), sp.Rational(1, 2), sp.Rational(1))
    return everything if isinstance(mode, Stochastic) else everything[:1]


THEOREM = Theorem(
    identifier="T27",
    title="RMSprop with growing precision: exponents that keep the rate T^-1/4",
    quantity=QUANTITY,
    tightness="upper",
    source="derived here",
    statement=floor.statement,
    derivations=(
        floor, *RATES, underflow, lemmas.coordinate,
        lemmas.lemma_a, lemmas.variation, lemmas.slope, lemmas.convex, step_size, quadratic_root,
    ),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop",),
    floor=True,
)  # fmt: skip
