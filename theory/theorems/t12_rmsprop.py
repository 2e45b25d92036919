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
* noise. Symmetric (Gaussian): V = 0, tau = (1-P)^(3/2), P = c Y^2/(B v_min + c Y^2), Y = sigma + max|grad|: phi is
  odd and grows at least at the rate (1-p)^(3/2)/D0. Any unbiased noise: tau = 1 and V = R Rbar A_v c w/D0_min, w =
  1/(1 + sqrt(1-p_max)), or V = 0 and w sqrt(sqrt(B v_max) A_v p_max^2/(1-p_max)) added to e/sqrt(D0_min). None: tau =
  1, V = 0, D0 replaced by D.
* weights. To nearest omega = min(Delta/2, lr sqrt(M A_v)), Q = (lr sqrt(M A_v) + omega)^2. Stochastic omega = 2^-n
  Delta, Q as in T8. The smallest root over the alternatives is taken.

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
from theory.rounding_model import shrinks
from theory.theorem import Bound, Hypothesis, Theorem, no_events, not_flushed, one_format_of_weights, stored_scalar
from theory.theorems import _rmsprop_lemmas as lemmas
from theory.theorems import _rmsprop_numbers as numbers
from theory.theorems._floor_root import fall, gaps_visited, quadratic_root, summation, weighted_root
from theory.theorems._gradient_mean import gradient_mean, stored
from theory.theorems._mean_rounding import LEMMAS as ROUNDING_LEMMAS
from theory.theorems._mean_rounding import moments
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


def evaluate_bound(window: Window) -> Bound:
    """The bound of a cell; see the module's docstring."""
    checks = list(_hypotheses(window))
    if not all(check.ok for check in checks):
        return Bound("T12", QUANTITY, tuple(checks))
    try:
        signal = _signal(window)
        average, extreme = numbers.shares(window)
    except (NoEnclosure, ValueError) as none:
        return Bound("T12", QUANTITY, (*checks, Hypothesis("relative errors are enclosed", False, str(none))))
    watched = [s for s in (*_DAG, "v", "g", *signal.slots) if s != "w.sub" and s in window.slots]
    if "noise" in window.slots:
        watched.append("noise")
    checks.append(no_events(window, dict.fromkeys(watched))[1])
    checks.append(Hypothesis("the gradient keeps its sign", bool(signal.low > 0), f"factor from {signal.low.str(5)}"))
    if not all(check.ok for check in checks):
        return Bound("T12", QUANTITY, tuple(checks))
    with working_precision(BITS):
        alternatives = _alternatives(window, signal, average, extreme)
        roots = [
            ends(_root(window, signal, alternative, average, weight))
            for alternative in alternatives
            for weight in _weights(window)
        ]
    lower, upper = min(roots, key=lambda pair: pair[1])
    return Bound("T12", QUANTITY, tuple(checks), lower, upper, exponent=2)


def _root(window: Window, signal: _Signal, x: _Alternative, average: list[Ball], weight: sp.Expr) -> Ball:
    """The root for one treatment of the noise and one lambda."""
    factors = numbers.step_factors(window)
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
        omega = (gap / 2).min(step) if nearest else rounding.bias * gap
        moved = (step + omega) ** 2 if nearest else size([step, gap, rounding.bias])
        values = [middle, x.slope[k], signal.low, x.linear[k], half, mean_square, x.denominator[k], omega, lr]
        values += [x.constant[k], ball(curvature[k]), moved]
        rows.append((square(values), linear(values), constant(values)))
    constants = sum((row[2] for row in rows), fall(window) / (lr * window.steps))
    return weighted_root([row[0] for row in rows], [row[1] for row in rows], constants, x.denominator)


def _weights(window: Window) -> tuple[sp.Expr, ...]:
    """The lambdas to try: 0 means variance Delta^2/4, 1 the small-step lemma; to nearest there is nothing to choose."""
    everything = (sp.Integer(0), sp.Rational(1, 2), sp.Integer(1))
    return everything[:1] if is_nearest(window.slots["w.sub"][1]) else everything


def _alternatives(window: Window, signal: _Signal, average: list[Ball], extreme: list[Ball]) -> list[_Alternative]:
    kept, injection, eps = (ball(window.scalars[f"scalar.{name}"]) for name in ("beta2", "one_minus_beta2", "eps"))
    d, rounded = window.dimension, numbers.gradient_roundings(window)
    least = [ball(x) for x in np.min(window.min_abs["v"], axis=1)]
    most = [ball(x) for x in np.max(window.max_abs["v"], axis=1)]
    bottom, top = ([(kept * v).sqrt() + eps for v in values] for values in (least, most))
    size = [ball(x) * numbers.before_rounding(rounded) for x in np.max(window.max_abs["g"], axis=1)]
    # binary64 adds noise to a gradient computed outside with one more rounding
    added = 0.0 if window.gradient_inside or window.noise != "gaussian" else 2.0**-53
    error = [ball(x) + added * r for x, r in zip(window.gradient_error, size, strict=True)]
    linear = [x / y.sqrt() if x > 0 else arb(0) for x, y in zip(error, bottom, strict=True)]
    ones, none = [arb(1)] * d, [arb(0)] * d
    if window.noise == "none":
        return [_Alternative(ones, linear, none, [(_exact_second_moment(window) * v).sqrt() + eps for v in most])]
    # the mean of what is never larger than R is not either
    bound = [ball(x) if math.isfinite(x) else arb.pos_inf() for x in window.gradient_bound]
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
        reach = _reach(window, drift, size)
        slope = [kept * v / (kept * v + injection * y**2) for v, y in zip(least, reach, strict=True)]
        result.append(_Alternative([s * s.sqrt() for s in slope], linear, none, top))
    return result


def _reach(window: Window, drift: list[Ball], size: list[Ball]) -> list[Ball]:
    """Y with E (|noise| + |grad|)^2 <= Y^2: from sigma if it is declared, else from the largest |y|."""
    sigma = window.hyperparameters.get("sigma")
    if sigma is None:
        return [r + 2 * g for r, g in zip(size, drift, strict=True)]
    noise = ball(float(sigma)) * (1 + 2.0**-47)  # the declared law's variance, and its product with sigma
    if window.gradient_inside:
        noise = noise * moments(*window.slots["noise"]).second.sqrt()
    return [noise + g for g in drift]


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
    modes = {s: slots[s][1] for s in rounded if s in slots}
    other = [f"{s}: {mode}" for s, mode in modes.items() if not (is_nearest(mode) or shrinks(mode))]
    kept, injection, eps, lr = (
        window.scalars.get(f"scalar.{name}", math.nan) for name in ("beta2", "one_minus_beta2", "eps", "lr")
    )
    least = float(np.min(window.min_abs["v"]))
    widest = float(np.max(window.max_abs["w"]))
    recorded = (window.squared_gradient, window.max_abs["g"], window.max_abs["v"], window.gradient_error)
    finite = all(np.all(np.isfinite(x)) for x in recorded)
    return (
        Hypothesis("the operations are those of RMSprop", True),
        Hypothesis("round to nearest or stochastic, variant A", not other, ", ".join(other)),
        one_format_of_weights(window),
        Hypothesis("0 < stored beta2 <= 1", 0 < kept <= 1, stored_scalar(window, "beta2")),
        Hypothesis("stored 1 - beta2 > 0", injection > 0, stored_scalar(window, "one_minus_beta2")),
        Hypothesis(
            "constant eps >= 0 and lr > 0",
            eps >= 0 and 0 < lr < math.inf,
            f"{stored_scalar(window, 'eps')}, {stored_scalar(window, 'lr')}",
        ),
        Hypothesis("noise of mean zero", window.noise in ("none", "gaussian", "minibatch"), window.noise),
        Hypothesis(
            "minibatches are drawn outside the program", window.noise != "minibatch" or not window.gradient_inside
        ),
        no_events(window)[0],
        not_flushed(window, ("w.sub", "w")),
        Hypothesis("finite", bool(finite), window.outcome),
        Hypothesis("v > 0 on the window", least > 0, f"smallest v = {least:g}"),
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
