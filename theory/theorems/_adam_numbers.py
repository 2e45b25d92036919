"""The numbers of T21 for one window: what the roundings, the noise and the bias corrections do, coordinate by coordinate.

Rounding by rounding, given what came before: in the mean a slot's factor lies in [low, high] (``_mean_rounding``); its
mean square error is at most lambda^2 with lambda = u/(1+u) to nearest, z sqrt(1/4 + 2^-n) stochastic; factors of
successive roundings multiply: ||prod (1 + delta) - 1|| <= prod (1 + lambda) - 1. Roundings of m and of v are drawn
independently, given the gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import Stochastic, is_nearest
from theory.enclosure import Ball, ball, compile_expression
from theory.theorems import _adam_lemmas as lemmas
from theory.theorems import _rmsprop_numbers as second_moment
from theory.theorems._floor_root import LOSS_ACCURACY, gaps_visited
from theory.theorems._gradient_mean import stored
from theory.theorems._mean_rounding import EXACT, RoundingMoments, moments
from theory.theorems.t12_rmsprop import _reach, _signal
from theory.window import FloatArray, Window

Values = dict[sp.Symbol, Ball]


@dataclass(frozen=True)
class Slot:
    """One rounding in the mean (``mean``) and in the mean square (``spread``, relative)."""

    mean: RoundingMoments
    spread: Ball


NOTHING = Slot(EXACT, arb(0))


@dataclass(frozen=True)
class Corrections:
    """Extremes of the stored bias corrections: of c1, c2, the least c1_{t-1}/c1_t, the largest c2_t/c2_{t-1}."""

    c1: tuple[Ball, Ball]
    c2: tuple[Ball, Ball]
    fall1: Ball
    rise2: Ball
    before: tuple[Ball, Ball]


@dataclass(frozen=True)
class Step:
    """The rounded step a = mu eta_exact m' in the mean: relative half width q, mean square error lam."""

    middle: Ball
    half: Ball
    spread: Ball


def rounding(window: Window, slot: str) -> Slot:
    """What one slot does; nothing if it divides by a correction that is 1 throughout."""
    if slot not in window.slots:
        return NOTHING
    operation = next((o for o in window.program.operations if o.slot == slot), None)
    if operation is not None and operation.kind == "div" and slot in ("update.m_hat", "update.v_hat"):
        by = values_of(window, operation.operands[1])
        if by is not None and np.all(by == 1.0) and window.slots[slot][0].holds(window.slots[operation.operands[0]][0]):
            return NOTHING
    x = moments(*window.slots[slot])
    return Slot(x, _spread(window, slot, x))


def storing(window: Window, state: str, source: str) -> Slot:
    """Storing a result in the slot of a state."""
    x = stored(window, state, source)
    return NOTHING if x is EXACT else Slot(x, _spread(window, state, x))


def _spread(window: Window, slot: str, x: RoundingMoments) -> Ball:
    if isinstance(window.slots[slot][1], Stochastic):
        return x.gap * ball_of(lemmas.MEAN_SQUARE_ERROR, {lemmas.bits: x.bias}).sqrt()
    return (x.sure_high - 1).max(1 - x.sure_low)


def ball_of(expression: sp.Expr, values: Mapping[sp.Symbol, Ball]) -> Ball:
    return compile_expression(expression, list(values))(list(values.values()))


def values_of(window: Window, name: str) -> FloatArray | None:
    """A scalar's stored values in the step before the window and in its steps; one value if it is constant."""
    if name in window.scalars:
        return np.array([window.scalars[name]])
    return window.changing.get(name)


def product(balls: Iterable[Ball]) -> Ball:
    return functools.reduce(lambda x, y: x * y, balls, arb(1))


def chain(spreads: Iterable[Ball]) -> Ball:
    """|| prod (1 + delta) - 1 || from the parts."""
    return product(1 + x for x in spreads) - 1


def corrections(window: Window) -> Corrections:
    """The corrections' extremes; 1 where the program divides by none."""
    found = {o.slot: o.operands[1] for o in window.program.operations if o.slot in ("update.m_hat", "update.v_hat")}
    c1, c2 = (
        np.array([1.0]) if slot not in found else np.asarray(values_of(window, found[slot]))
        for slot in ("update.m_hat", "update.v_hat")
    )
    fall = min((ball(x) / ball(y) for x, y in _changes(c1)), key=float, default=arb(1))
    rise = max((ball(y) / ball(x) for x, y in _changes(c2)), key=float, default=arb(1))
    inside = [x[1:] if len(x) > 1 else x for x in (c1, c2)]
    lows, highs = ([ball(f(x)) for x in inside] for f in (np.min, np.max))
    return Corrections((lows[0], highs[0]), (lows[1], highs[1]), fall, rise, (ball(c1[0]), ball(c2[0])))


def _changes(x: FloatArray) -> list[tuple[float, float]]:
    """Pairs of neighbours; few, because a stored correction settles or changes by one spacing at a time."""
    return sorted({(float(a), float(b)) for a, b in zip(x[:-1], x[1:], strict=True) if a != b})


def step(window: Window) -> Step:
    """The update's roundings, v' and m' as stored to a."""
    at = {name: rounding(window, f"update.{name}") for name in ("m_hat", "v_hat", "sqrt", "eps", "div", "scale")}
    first, second = storing(window, "m", "m.add"), storing(window, "v", "v.add")
    over = ("m_hat", "div", "scale")
    low, high = (product(getattr(at[name].mean, side) for name in over) for side in ("low", "high"))
    low *= product(at[name].mean.inverse_low for name in ("sqrt", "eps")) * at["v_hat"].mean.inverse_low.sqrt()
    high *= product(at[name].mean.inverse_high for name in ("sqrt", "eps")) * at["v_hat"].mean.inverse_high.sqrt()
    # what is stored is not what the update divides: always within these factors
    low *= second.mean.sure_low.sqrt() / first.mean.sure_high
    high *= second.mean.sure_high.sqrt() / first.mean.sure_low
    below = [at[name].spread / at[name].mean.sure_low for name in ("v_hat", "sqrt", "eps")]
    stores = [second.mean.sure_high - second.mean.sure_low, first.mean.sure_high / first.mean.sure_low - 1]
    middle = (low + high) / 2
    spread = (chain([*(at[name].spread for name in over), *below, *stores]) + abs(1 - middle)) / middle
    return Step(middle, (high - low) / (2 * middle), spread)


def coordinates(window: Window) -> list[Values]:
    """The values of the symbols of ``_adam_lemmas``, one dictionary a coordinate, but for x and u.

    Raises
    ------
    NoEnclosure, ValueError
        The roundings of the gradient or of v have no factor.
    """
    s = {name: ball(value) for name, value in window.scalars.items()}
    B, G, kept, injection, eps, lr = (
        s[f"scalar.{name}"] for name in ("beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "lr")
    )
    signal, c = _signal(window), corrections(window)
    average, extreme = second_moment.shares(window)
    update = step(window)
    rounded = second_moment.gradient_roundings(window)
    at = {name: rounding(window, name) for name in ("m.decay", "m.inject", "m.add", "v.decay", "v.square", "v.inject")}
    at["v.add"] = rounding(window, "v.add")
    keep_m, keep_v = storing(window, "m", "m.add"), storing(window, "v", "v.add")

    # phi(g) against phi(y), and v' against x
    glow = product(1 - x.gap**2 / 10 - x.bias * x.gap if random else x.low for random, x in rounded)
    ghigh, gsecond = product(x.high for _, x in rounded), product(x.second for _, x in rounded)
    glow_sure, ghigh_sure = product(x.sure_low for _, x in rounded), product(x.sure_high for _, x in rounded)

    def through_v(side: str, choose: str) -> Ball:
        parts = {name: getattr(x.mean, side) for name, x in at.items()}
        inner = getattr(parts["v.decay"], choose)(parts["v.square"] * parts["v.inject"])
        return inner * parts["v.add"] * getattr(keep_v.mean, side)

    vlow, vhigh = through_v("inverse_low", "min"), through_v("inverse_high", "max")
    vleast = through_v("sure_low", "min")
    spread_v = chain(
        x.spread / x.mean.sure_low
        for x in (at["v.decay"], at["v.square"], at["v.inject"], at["v.add"], keep_v)
    )
    low, high = glow * vlow.sqrt(), ghigh * vhigh.sqrt()
    mid, half, second = (low + high) / 2, (high - low) / 2, gsecond * vhigh

    # m' in the mean and in the mean square
    behind = [at["m.add"], keep_m]
    blow, bhigh = (product(getattr(x.mean, side) for x in behind) for side in ("low", "high"))
    bsecond = product(x.mean.second for x in behind)
    off = (bhigh - 1).max(1 - blow)
    d, i = at["m.decay"].mean, at["m.inject"].mean
    em, eg = ((x.high - 1).max(1 - x.low) + off * x.high for x in (d, i))
    ec = (bsecond * d.high * i.high - 1).max(1 - blow**2 * d.low * i.low)
    em2, eg2 = (chain([x.spread, *(y.spread for y in behind)]) for x in (at["m.decay"], at["m.inject"]))

    smooth, separable = curvatures(window)
    size = [ball(x) / glow_sure for x in np.max(window.max_abs["g"], axis=1)]
    added = 0.0 if window.gradient_inside or window.noise != "gaussian" else 2.0**-53
    wrong = [ball(x) + added * y for x, y in zip(window.gradient_error, size, strict=True)]
    steepest = [ball(x) if math.isfinite(x) else arb.pos_inf() for x in gradient_bound(window)]
    drift = [
        (signal.high * x + e).min(y) if x.is_finite() else y for x, e, y in zip(steepest, wrong, size, strict=True)
    ]
    reach = _reach(window, drift, size)
    unit = update.middle * lr
    start, result = starts(window, unit, eps, c), []
    for n in range(window.dimension):
        v_min, v_max = ball(np.min(window.min_abs["v"][n])), ball(np.max(window.max_abs["v"][n]))
        H0 = unit / (c.c1[0] * ((kept * v_min / c.c2[1]).sqrt() + eps))
        H = unit / (c.c1[0].min(c.before[0]) * ((v_min / c.c2[1]).sqrt() + eps))
        h0 = unit / (c.c1[1] * ((kept * v_max / c.c2[0]).sqrt() + eps))
        h1 = unit / (c.c1[1] * ((v_max / c.c2[0].min(c.before[1])).sqrt() + eps))
        p, most = average[n], extreme[n]
        w = 1 / (1 + (1 - most).sqrt())
        square = mean_square(window, drift[n], size[n])
        fresh = (injection * square / (kept * v_min + injection * square)).min(most)
        A = (unit / c.c1[0]) ** 2 * c.c2[1] * p / injection
        error = wrong[n] * H0.sqrt() if wrong[n] > 0 else arb(0)
        tau = arb(1)
        if window.noise == "gaussian":
            slope = kept * v_min / (kept * v_min + injection * reach[n] ** 2)
            tau = slope * slope.sqrt()
        elif window.noise == "none":
            tau = (1 - most).sqrt()
        else:
            error += w * (unit / c.c1[0] * (kept * v_max * c.c2[1]).sqrt() * p / injection * most**2 / (1 - most)).sqrt()
        error *= mid
        # rounding the gradient changes x by at most p times what it changes g^2
        shrunk, grown = (1 + most * (ghigh_sure**2 - 1)).sqrt(), (1 - most * (1 - glow_sure**2)).sqrt()
        olow, ohigh = vlow.sqrt() / shrunk, vhigh.sqrt() / grown
        ratio = (c.rise2 / kept).sqrt()
        keep = ratio * ohigh
        lowest = (1 - w * fresh) * olow
        sure = (ratio - 1) + (1 - c.fall1) + w * (most * fresh).sqrt() + (1 / grown - 1).max(1 - 1 / shrunk) * ratio
        q, spread = update.half, update.spread
        guess = H.sqrt() * (G / (2 - G) * second * A).sqrt() / h1.sqrt()
        omega, extra, w0, w1 = weight(window, n, guess, H.sqrt(), spread)
        result.append({
            lemmas.gamma: G / (1 - B), lemmas.k: B / (1 - B), lemmas.L: smooth[n], lemmas.mid: mid, lemmas.tau: tau,
            lemmas.rho: signal.low, lemmas.top: signal.high, lemmas.Gamma: G, lemmas.error: error, lemmas.half: half,
            lemmas.sA: A.sqrt(), lemmas.sP: (second * A).sqrt(), lemmas.sH0: H0.sqrt(), lemmas.sH: H.sqrt(),
            lemmas.s0: h0.sqrt(), lemmas.s1: h1.sqrt(), lemmas.r: c.fall1.sqrt(),
            lemmas.drift: (keep - 1).max(1 - c.fall1 * lowest), lemmas.drift2: sure + ratio * spread_v,
            lemmas.keep: keep, lemmas.keep2: ratio * (1 + spread_v) / grown, lemmas.keep0: ratio.sqrt(), lemmas.beta: B,
            lemmas.em: em, lemmas.eg: eg, lemmas.em2: em2, lemmas.eg2: eg2, lemmas.ec: ec, lemmas.q: q + extra,
            lemmas.over: 1 / vleast.sqrt().sqrt(), lemmas.omega: omega, lemmas.lam: spread + extra,
            lemmas.w0: w0, lemmas.w1: w1,
            lemmas.shift: (mid * signal.high - lowest).max(ohigh - mid * tau * signal.low).max(arb(0)),
            lemmas.decay: B**2 * d.second * bsecond * keep, lemmas.start: start[n] / window.steps,
            lemmas.Q: i.second * bsecond, lemmas.long: 1 + spread + extra,
        })  # fmt: skip
    if not separable:  # |grad F(z) - grad F(w)| couples the coordinates: the same largest eta for all
        for symbol in (lemmas.sH0, lemmas.sH):
            largest = max((row[symbol] for row in result), key=float)
            for row in result:
                row[symbol] = largest
    return result


def weight(window: Window, n: int, guess: Ball, largest: Ball, spread: Ball) -> tuple[Ball, Ball, Ball, Ball]:
    """(omega, what it adds to q, w0, w1): two bounds of what storing the weight does; any choice is valid.

    ``guess`` is a step's likely size. To nearest the weight moves by at most half a gap, and at most |a|, beside -a;
    stochastic, the variance is at most Delta^2/4, and Delta times the mean step.
    """
    gap, none = gaps_visited(window)[n], arb(0)
    if is_nearest(window.slots["w.sub"][1]):
        return (gap / 2, none, none, none) if gap / 2 < guess else (none, 1 + spread, none, none)
    omega = gap * moments(*window.slots["w.sub"]).bias
    if gap / 4 < guess + omega:
        return omega, none, gap**2 / 4, none
    return omega, none, gap * omega, gap * (1 + spread) * largest


def curvatures(window: Window) -> tuple[list[Ball], bool]:
    """L of every coordinate, and whether the loss is a sum over the coordinates."""
    if window.curvature is not None:
        return [ball(x) for x in window.curvature], True
    return [ball(window.smoothness)] * window.dimension, window.dimension == 1


def starts(window: Window, unit: Ball, eps: Ball, c: Corrections) -> list[Ball]:
    """[d]: mean over the seeds of eta_ m^2 in the state that the window starts from."""
    eta = etas(window, unit, eps, c)
    return [
        sum((x * ball(m) ** 2 for x, m in zip(row, ms, strict=True)), arb(0)) / window.seeds
        for row, ms in zip(eta, window.start["m"], strict=True)
    ]


def etas(window: Window, unit: Ball, eps: Ball, c: Corrections) -> list[list[Ball]]:
    """[d][S]: eta_ of the state that the window starts from."""
    c1, c2 = c.before
    return [[unit / (c1 * ((ball(v) / c2).sqrt() + eps)) for v in row] for row in window.start["v"]]


def fall_of_shifted(window: Window) -> Ball:
    """Bound of E F(z_first) - F*, z = w - k eta_ m: F(w) + |grad| |d| + L |d|^2/2, |grad|^2 <= 2 L (F - F*)."""
    s, c, update = window.scalars, corrections(window), step(window)
    k = ball(s["scalar.beta1"]) / (1 - ball(s["scalar.beta1"]))
    eta = etas(window, update.middle * ball(s["scalar.lr"]), ball(s["scalar.eps"]), c)
    smooth, _ = curvatures(window)
    total = arb(0)
    for seed in range(window.seeds):
        loss = ball(window.loss_start[seed]) * (1 + LOSS_ACCURACY)
        moved = [k * row[seed] * ball(abs(m[seed])) for row, m in zip(eta, window.start["m"], strict=True)]
        bent = sum((x * y**2 / 2 for x, y in zip(smooth, moved, strict=True)), arb(0))
        if window.box is None:
            total += (loss.nonnegative_part().sqrt() + bent.sqrt()) ** 2
        else:
            total += loss + bent + sum((ball(x) * y for x, y in zip(window.gradient_bound, moved, strict=True)), arb(0))
    return total / window.seeds


def mean_square(window: Window, drift: Ball, size: Ball) -> Ball:
    """Bound of E y^2 given the past: sigma^2 + |grad|^2 where sigma is declared."""
    sigma = window.hyperparameters.get("sigma")
    if sigma is None or window.noise != "gaussian":
        return size**2
    noise = (ball(float(sigma)) * (1 + 2.0**-47)) ** 2
    if window.gradient_inside:
        noise *= moments(*window.slots["noise"]).second
    return noise + drift**2


def gradient_bound(window: Window) -> FloatArray:
    """[d]: bound of |grad_i|, also from where the weights were: at most L |w - w_end| from the last gradient."""
    known = np.asarray(window.gradient_bound, dtype=np.float64)
    if window.curvature is None:
        return known
    last, low, high = np.abs(window.end["w"]), window.min_abs["w"], window.max_abs["w"]
    apart = np.maximum(high - last, last - low)
    found = np.abs(window.end_gradient) + window.curvature[:, None] * apart
    return np.minimum(known, np.max(found, axis=1)) * (1+1e-9)
