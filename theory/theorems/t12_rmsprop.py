"""T12: the floor of RMSprop with stochastic gradients, every operation rounded.

Model. v' = fl(fl(B v) + fl(c fl(g^2))), w' = fl(w - fl(lr fl(g / fl(fl(sqrt v') + eps)))) with the stored B =
fl(beta2), c = fl(1 - beta2), eps and lr; to nearest or n-bit stochastic (variant A), slot by slot. y is the gradient
with its noise before the last rounding: its mean is grad times a factor >= rho (computed in the machine) or grad up
to e_i (computed in binary64).

Notation of one coordinate, extremes measured on the window over all seeds: x = B v + c y^2, D = sqrt(x) + eps,
D0 = sqrt(B v) + eps, p = c y^2/x; v in [v_min, v_max], R >= |y|, Rbar >= |grad|, Delta the largest gap of w.

Statement. Averages over window and seeds satisfy sum (A_i y_i^2 - B_i y_i - C_i) <= (F_first - F*)/(lr T), where
y_i^2 = avg E grad_i^2/D0_i, and the root of the quadratic bounds G = sqrt(avg E |grad|^2) <= sqrt(max D0_i/A_i) Z
with

    A = m tau rho,   B = m e/sqrt(D0_min) + q sqrt(A_v D0_max) + omega sqrt(D0_max)/lr,   C = m V + L Q/(2 lr).

* A_v >= avg E y^2/x: Lemma A, A_v = (-ln B + zeta + ln(v_T/v_0)/T)/(c (1-chi)), or p_max/c if that is less. zeta and
  chi are what rounding takes from log v: 2 ln(1+u) to nearest (the amplification 2u/(1-beta2)), O(u^2) stochastic.
* E[a | y] in lr phi(y) [m-q, m+q], E[a^2 | y] <= M (lr phi(y))^2 for phi(y) = y/D. q = O(u) to nearest, O(u^2)
  stochastic.
* noise. Symmetric (Gaussian): V = 0, tau = (1-P)^(3/2), P = c Y^2/(B v_min + c Y^2), Y^2 = sigma^2 + max grad^2/3: phi
  is odd, so E phi(y) = grad E phi'(noise + s grad) for a uniform s in [-1, 1], and phi' is at least (1-p)^(3/2)/D0,
  which is convex in y^2. Any unbiased noise: tau = 1 and V = R Rbar A_v c w/D0_min, w =
  1/(1 + sqrt(1-p_max)), or V = 0 and w sqrt(sqrt(B v_max) A_v p_max^2/(1-p_max)) added to e/sqrt(D0_min). None: tau =
  1, V = 0, D0 replaced by D.
* weights. To nearest omega = min(Delta/2, lr sqrt(M A_v)), Q = (lr sqrt(M A_v) + omega)^2. Stochastic omega = 2^-n
  Delta, Q as in T8. The smallest root over the alternatives is taken.

* underflow. In v it is one more factor of v' (B v >= B v_min bounds it from above), in g and in what g is computed from
  it adds to e, in the step to the step's root mean square and, in the mean, to omega (``_adam_roundings``).

max|grad| is the problem's bound, or |grad| at the end of the window plus L times how far w was from there.

Stored beta2 = 1 is covered: then v only grows and Lemma A has -ln B = 0. ln(v_T/v_0) is bounded in the mean, from what
the seeds show, with 99.9 % confidence (``_rmsprop_numbers``): it decides where v grows once in many steps, or falls
nearly as fast as B^t.

Tightness: sharp with stochastic rounding and with wide formats; to nearest in narrow formats omega/lr dominates, the
worst case of a bias that noise averages out. Source: derived here; predictable preconditioner as in Defossez et al.,
TMLR 2022, whose factor 1/2 and constant term the symmetric case avoids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import is_nearest
from theory.composition import NoEnclosure
from theory.enclosure import BITS, Ball, ball, compile_expression, ends, working_precision
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_format_of_weights
from theory.theorems import _adam_roundings as roundings
from theory.theorems import _rmsprop_lemmas as lemmas
from theory.theorems import _rmsprop_numbers as numbers
from theory.theorems._adam_gradient import computed_off, gradient_bound, noise_square
from theory.theorems._floor_root import fall, gaps_visited, quadratic_root, summation, weighted_root
from theory.theorems._gradient_mean import gradient_mean, stored
from theory.theorems._mean_rounding import LEMMAS as ROUNDING_LEMMAS
from theory.theorems._mean_rounding import moments
from theory.theorems._noise_scope import mean_zero, nearest_or_shrinking, preconditioner_scalars
from theory.theorems.t08_stochastic_gd import SIZE, measured, step_size
from theory.theorems.t08_stochastic_gd import D as GAP
from theory.theorems.t08_stochastic_gd import a as STEP
from theory.theorems.t08_stochastic_gd import b as BIAS
from theory.theorems.t08_stochastic_gd import lam as WEIGHT
from theory.window import Window

QUANTITY = "root mean square of the gradient norm over window and seeds"
_DAG = {
    "v.decay": ("mul", ("scalar.beta2", "v")),
    "v.square": ("mul", ("g", "g")),
    "v.inject": ("mul", ("scalar.one_minus_beta2", "v.square")),
    "v.add": ("add", ("v.decay", "v.inject")),
    "update.sqrt": ("sqrt", ("v.add",)),
    "update.eps": ("add", ("update.sqrt", "scalar.eps")),
    "update.div": ("div", ("g", "update.eps")),
    "update.scale": ("mul", ("scalar.lr", "update.div")),
    "w.sub": ("sub", ("w", "update.scale")),
}
_NORMAL = ("update.sqrt", "update.eps")  # slots whose underflow the bound does not cover
floor = summation("T12", "tests/theory/test_t12.py")


@dataclass(frozen=True)
class _Signal:
    """Mean of the gradient without noise: at least ``low`` times the true one; always at most ``high`` times it."""

    low: Ball
    high: Ball
    slots: tuple[str, ...]


@dataclass(frozen=True)
class _Alternative:
    """One way to treat the noise: tau, e, V and the denominators, coordinate by coordinate."""

    slope: list[Ball]
    linear: list[Ball]
    constant: list[Ball]
    denominator: list[Ball]


@dataclass(frozen=True)
class _Underflow:
    """What underflow does: one more factor of v, absolute errors of g and of the step; no step is longer than longest.

    Nothing underflowed: the factor is 1, the errors are 0.
    """

    moment: roundings.Slot
    gradient: Ball
    step: Ball
    mean_step: Ball
    longest: Ball


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T12", QUANTITY, tuple(checks))
    try:
        signal, off = _signal(window), _underflow(window)
        average, extreme = numbers.shares(window, (off.moment.mean.log_loss, off.moment.mean.sure_high))
        error = _gradient_error(window, off)
    except (NoEnclosure, ValueError) as none:
        return Bound("T12", QUANTITY, (*checks, Hypothesis("relative errors are enclosed", False, str(none))))
    checks.append(Hypothesis("the gradient keeps its sign", bool(signal.low > 0), f"factor from {signal.low.str(5)}"))
    if not all(check.ok for check in checks):
        return Bound("T12", QUANTITY, tuple(checks))
    with working_precision(BITS):
        alternatives = _alternatives(window, signal, error, off, average, extreme)
        roots = [
            ends(_root(window, signal, off, alternative, average, weight))
            for alternative in alternatives
            for weight in _weights(window)
        ]
    lower, upper = min(roots, key=lambda pair: pair[1])
    return Bound("T12", QUANTITY, tuple(checks), lower, upper, exponent=2)


def _root(
    window: Window, signal: _Signal, off: _Underflow, x: _Alternative, average: list[Ball], weight: sp.Expr
) -> Ball:
    """The root for one treatment of the noise and one lambda."""
    factors = numbers.step_factors(window, off.moment.mean)
    middle, half = (factors.high + factors.low) / 2, (factors.high - factors.low) / 2
    lr, injection = ball(window.scalars["scalar.lr"]), ball(window.scalars["scalar.one_minus_beta2"])
    symbols = [
        lemmas.middle,
        lemmas.tau,
        lemmas.rho,
        lemmas.e,
        lemmas.half,
        lemmas.A,
        lemmas.Db,
        lemmas.omega,
        lemmas.alpha,
    ]
    symbols += [lemmas.V, lemmas.L, lemmas.Q]
    square, linear, constant = (compile_expression(y, symbols) for y in (lemmas.SQUARE, lemmas.LINEAR, lemmas.CONSTANT))
    size = compile_expression(SIZE.subs(WEIGHT, weight), [STEP, GAP, BIAS])
    gaps = gaps_visited(window)
    curvature = window.curvature if window.curvature is not None else np.full(window.dimension, window.smoothness)
    rounding, nearest = moments(*window.slots["w.sub"]), is_nearest(window.slots["w.sub"][1])
    rows = []
    for k in range(window.dimension):
        mean_square = average[k] / injection
        step, gap = lr * (factors.second * mean_square).sqrt(), gaps[k]
        if off.gradient > 0:  # an error of g changes g/D by at most as much over the least D0
            step += lr * factors.second.sqrt() * off.gradient / _least_denominator(window, k)
        step += off.step
        omega = (gap / 2).min(step) if nearest else rounding.bias * gap
        moved = (step + omega) ** 2 if nearest else size([step, gap, rounding.bias])
        omega += off.mean_step
        values = [middle, x.slope[k], signal.low, x.linear[k], half, mean_square, x.denominator[k], omega, lr]
        values += [x.constant[k], ball(curvature[k]), moved]
        rows.append((square(values), linear(values), constant(values)))
    constants = sum((row[2] for row in rows), fall(window) / (lr * window.steps))
    return weighted_root([row[0] for row in rows], [row[1] for row in rows], constants, x.denominator)


def _weights(window: Window) -> tuple[sp.Expr, ...]:
    """The lambdas to try: 0 means variance Delta^2/4, 1 the small-step lemma; to nearest there is nothing to choose."""
    everything = (sp.Integer(0), sp.Rational(1, 2), sp.Integer(1))
    return everything[:1] if is_nearest(window.slots["w.sub"][1]) else everything


def _sizes(window: Window) -> list[Ball]:
    """[d]: |y| is never larger."""
    stretch = numbers.before_rounding(numbers.gradient_roundings(window))
    return [ball(x) * stretch for x in np.max(window.max_abs["g"], axis=1)]


def _gradient_error(window: Window, off: _Underflow) -> list[Ball]:
    """[d]: |E y - rho grad| beyond the factor rho, and what underflow adds to g after y.

    Raises
    ------
    NoEnclosure
        Something underflowed where the gradient is computed, and nothing bounds it.
    """
    # binary64 adds noise to a gradient computed outside with one more rounding
    added = 0.0 if window.gradient_inside or window.noise != "gaussian" else 2.0**-53
    with working_precision(BITS):
        tiny = computed_off(window)
        if off.gradient > 0:  # E a is within m +- q of phi(g): what underflow adds is not known to be in the mean
            factors = numbers.step_factors(window, off.moment.mean)
            tiny += 2 * factors.high / (factors.high + factors.low) * off.gradient
        return [ball(x) + added * r + tiny for x, r in zip(window.gradient_error, _sizes(window), strict=True)]


def _least_denominator(window: Window, k: int) -> Ball:
    """D0 at the least v of a coordinate."""
    least = ball(np.min(window.min_abs["v"][k]))
    return (ball(window.scalars["scalar.beta2"]) * least).sqrt() + ball(window.scalars["scalar.eps"])


def _underflow(window: Window) -> _Underflow:
    """What underflowed. ``ValueError`` if v may vanish in it."""
    with working_precision(BITS):
        least = ball(np.min(window.min_abs["v"]))
        moment = roundings.second_moment_underflow(window, ball(window.scalars["scalar.beta2"]) * least)
        below = least.sqrt() + ball(window.scalars["scalar.eps"])
        update = roundings.update(window, below)
        longest = update.most * ball(window.scalars["scalar.lr"]) * ball(np.max(window.max_abs["g"])) / below
        return _Underflow(
            moment, roundings.gradient_underflow(window), update.off, update.off_mean, longest + update.off
        )


def _alternatives(
    window: Window,
    signal: _Signal,
    error: list[Ball],
    off: _Underflow,
    average: list[Ball],
    extreme: list[Ball],
) -> list[_Alternative]:
    kept, injection, eps = (ball(window.scalars[f"scalar.{name}"]) for name in ("beta2", "one_minus_beta2", "eps"))
    d, size = window.dimension, _sizes(window)
    least = [ball(x) for x in np.min(window.min_abs["v"], axis=1)]
    most = [ball(x) for x in np.max(window.max_abs["v"], axis=1)]
    bottom, top = ([(kept * v).sqrt() + eps for v in values] for values in (least, most))
    linear = [x / y.sqrt() if x > 0 else arb(0) for x, y in zip(error, bottom, strict=True)]
    ones, none = [arb(1)] * d, [arb(0)] * d
    if window.noise == "none":
        grown = _exact_second_moment(window) / off.moment.mean.sure_low
        return [_Alternative(ones, linear, none, [(grown * v).sqrt() + eps for v in most])]
    # the mean of what is never larger than R is not either
    known = gradient_bound(window, off.longest)
    bound = [ball(x) if math.isfinite(x) else arb.pos_inf() for x in known]
    drift = [(signal.high * x + e).min(r) if x.is_finite() else r for x, e, r in zip(bound, error, size, strict=True)]
    wide = [1 / (1 + (1 - p).sqrt()) for p in extreme]
    steep = [(g + e) / signal.low for g, e in zip(drift, error, strict=True)]
    varied = [r * g * w * p / y for r, g, w, p, y in zip(size, steep, wide, average, bottom, strict=True)]
    spread = [
        x + w * ((kept * v).sqrt() * p / injection * m**2 / (1 - m)).sqrt()
        for x, w, v, p, m in zip(linear, wide, most, average, extreme, strict=True)
    ]
    result = [_Alternative(ones, linear, varied, top), _Alternative(ones, spread, none, top)]
    if window.noise == "gaussian":
        slope = [
            kept * v / (kept * v + injection * y)
            for v, y in zip(least, spread_square(window, drift, size), strict=True)
        ]
        result.append(_Alternative([s * s.sqrt() for s in slope], linear, none, top))
    return result


def spread_square(window: Window, drift: list[Ball], size: list[Ball]) -> list[Ball]:
    """[d]: Y^2 of symmetric noise, E (noise + s grad)^2 for a uniform s in [-1, 1].

    ``drift`` bounds |grad|, ``size`` bounds |y|; where sigma is not declared |noise| <= |y| + |grad|.
    """
    noise = noise_square(window)
    if noise is None:
        return [(r + g) ** 2 + g**2 / 3 for r, g in zip(size, drift, strict=True)]
    return [noise + g**2 / 3 for g in drift]


def _exact_second_moment(window: Window) -> Ball:
    """x <= v' times this, always."""
    at = {slot: moments(*window.slots[slot]).sure_low for slot in ("v.decay", "v.square", "v.inject", "v.add")}
    store = stored(window, "v", "v.add").sure_low
    return 1 / (store * at["v.add"] * at["v.decay"].min(at["v.square"] * at["v.inject"]))


def _signal(window: Window) -> _Signal:
    if not window.gradient_inside:
        return _Signal(arb(1), arb(1), ())
    if window.noise == "none":
        x = gradient_mean(window, "g")
        return _Signal(x.sure_low, x.sure_high, x.slots)
    operands = window.program.operation(numbers.noisy_slot(window)).operands
    x = gradient_mean(window, next(name for name in operands if name != "noise"))
    return _Signal(x.low, x.sure_high, x.slots)


def _hypotheses(window: Window) -> tuple[Hypothesis, ...]:
    program, slots = window.program, window.slots
    found = {o.slot: (o.kind, o.operands) for o in program.operations}
    differing = [slot for slot, what in _DAG.items() if found.get(slot) != what]
    stored_in = dict(program.outputs)
    differing += [name for name, value in (("w", "w.sub"), ("v", "v.add")) if stored_in.get(name) != value]
    if differing or set(program.state) != {"w", "v"}:
        return (Hypothesis("the operations are those of RMSprop", False, ", ".join(differing) or window.optimizer),)
    rounded = [*_DAG, "w", "v", "g", *(("noise",) if "noise" in slots else ())]
    least = float(np.min(window.min_abs["v"]))
    widest = float(np.max(window.max_abs["w"]))
    smallest = float(np.min(np.max(window.max_abs["g"], axis=1)))
    drawn = ["g", *(s for s in slots if s.endswith("noisy"))]
    usual = smallest >= max(slots[s][0].smallest_normal for s in drawn) or no_events(window, drawn)[1].ok
    recorded = (window.squared_gradient, window.max_abs["g"], window.max_abs["v"], window.gradient_error)
    finite = all(np.all(np.isfinite(x)) for x in recorded)
    return (
        Hypothesis("the operations are those of RMSprop", True),
        nearest_or_shrinking(window, [s for s in rounded if s in slots]),
        one_format_of_weights(window),
        *preconditioner_scalars(window),
        *mean_zero(window),
        no_events(window)[0],
        no_events(window, [s for s in _NORMAL if s in slots])[1],
        not_flushed(window, ("w.sub", "w")),
        Hypothesis("finite", bool(finite), window.outcome),
        Hypothesis("v > 0 on the window", least > 0, f"smallest v = {least:g}"),
        Hypothesis("no gradient underflowed, or each was once normal", usual, f"largest |g| = {smallest:g}"),
        Hypothesis("w stays in the box", window.box is None or widest <= window.box, f"{widest:.4g} > {window.box}"),
    )


THEOREM = Theorem(
    identifier="T12",
    title="RMSprop with stochastic gradients: a floor from a predictable preconditioner",
    quantity=QUANTITY,
    tightness="sharp",
    source="derived here",
    statement=floor.statement,
    derivations=(floor, *lemmas.LEMMAS, quadratic_root, step_size, *ROUNDING_LEMMAS),
    evaluate=evaluate_bound,
    measured=measured,
    optimizers=("rmsprop",),
    floor=True,
)
