"""The numbers of T21 for one window, coordinate by coordinate: a value for every symbol of ``_adam_lemmas``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy as sp
from flint import arb

from fpsim.rounding import is_nearest
from theory.enclosure import Ball, ball
from theory.theorems import _adam_lemmas as lemmas
from theory.theorems import _adam_roundings as roundings
from theory.theorems import _rmsprop_numbers as second_moment
from theory.theorems._adam_gradient import gradients, mean_square, noise_square
from theory.theorems._adam_roundings import Slot, chain, product, rounding, storing
from theory.theorems._floor_root import LOSS_ACCURACY, gaps_visited
from theory.theorems._mean_rounding import moments
from theory.theorems.t12_rmsprop import _signal
from theory.window import Window

Values = dict[sp.Symbol, Ball]
SQUARES = ("v.decay", "v.square", "v.inject", "v.add")


@dataclass(frozen=True)
class Scalars:
    """Stored scalars: decays B (of m) and kept (of v), injections G and c, eps, lr."""

    B: Ball
    G: Ball
    kept: Ball
    injection: Ball
    eps: Ball
    lr: Ball


@dataclass(frozen=True)
class SecondMoment:
    """What rounding does between y and g, and between x = B v + c y^2 and v', for eta = mu lr/(c1 (sqrt(v'/c2) + eps)).

    E[eta g | y] / (eta_x y) in [low, high]; E[(eta g)^2 | y] <= square (eta_x y)^2; E[eta / eta_x] in [eta_low,
    eta_high] times what the rounding of g does to x (glow^2 y^2 <= g^2 <= ghigh^2 y^2); ||eta/eta_x - 1|| <= spread;
    eta <= most eta_0 always.
    """

    low: Ball
    high: Ball
    square: Ball
    eta_low: Ball
    eta_high: Ball
    spread: Ball
    most: Ball
    glow: Ball
    ghigh: Ball


@dataclass(frozen=True)
class FirstMoment:
    """m' = beta1 m + Gamma g + e: |E e| <= mean beta1 |m| + fresh Gamma |g| + off_mean, in the mean square with *2.

    E eta m'^2 <= E eta (decay (beta1 m)^2 + 2 (1 +- mixed) beta1 m Gamma g + inject (Gamma g)^2), beside ``off``.
    """

    mean: Ball
    fresh: Ball
    mean2: Ball
    fresh2: Ball
    mixed: Ball
    decay: Ball
    inject: Ball
    off: Ball
    off_mean: Ball


def scalars(window: Window) -> Scalars:
    names = ("beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "lr")
    return Scalars(*(ball(window.scalars[f"scalar.{name}"]) for name in names))


def denominators(window: Window, n: int | None = None) -> tuple[Ball, Ball]:
    """Least and largest sqrt(v/c2) + eps over the states of the window, of one coordinate or of all."""
    s, c = scalars(window), roundings.corrections(window)
    rows = slice(None) if n is None else n
    low, high = ball(np.min(window.min_abs["v"][rows])), ball(np.max(window.max_abs["v"][rows]))
    return (low / c.c2[1].max(c.before[1])).sqrt() + s.eps, (high / c.c2[0].min(c.before[1])).sqrt() + s.eps


def second_moment_rounding(window: Window, tiny: Slot) -> SecondMoment:
    rounded = second_moment.gradient_roundings(window)
    glow = product(1 - x.gap**2 / 10 - x.bias * x.gap if random else x.low for random, x in rounded)
    ghigh, gsecond = product(x.high for _, x in rounded), product(x.second for _, x in rounded)
    at = {name: rounding(window, name) for name in SQUARES}
    later = [at["v.add"], storing(window, "v", "v.add"), tiny]

    def through(side: str, choose: str) -> Ball:
        parts = {name: getattr(x.mean, side) for name, x in at.items()}
        inner = getattr(parts["v.decay"], choose)(parts["v.square"] * parts["v.inject"])
        return inner * product(getattr(x.mean, side) for x in later)

    least, most = through("inverse_low", "min").sqrt(), through("inverse_high", "max")
    spread = chain(x.spread / x.mean.sure_low for x in (*(at[name] for name in SQUARES[:3]), *later))
    return SecondMoment(
        glow * least, ghigh * most.sqrt(), gsecond * most, least, most.sqrt(), spread,
        1 / through("sure_low", "min").sqrt(),
        product(x.sure_low for _, x in rounded), product(x.sure_high for _, x in rounded),
    )  # fmt: skip


def first_moment_rounding(window: Window) -> FirstMoment:
    d, i = (rounding(window, name) for name in ("m.decay", "m.inject"))
    later = [rounding(window, "m.add"), storing(window, "m", "m.add")]
    low, high, square = (product(getattr(x.mean, side) for x in later) for side in ("low", "high", "second"))
    off = (high - 1).max(1 - low)
    mean, fresh = ((x.mean.high - 1).max(1 - x.mean.low) + off * x.mean.high for x in (d, i))
    mean2, fresh2 = (chain([x.spread, *(y.spread for y in later)]) for x in (d, i))
    mixed = (square * d.mean.high * i.mean.high - 1).max(1 - low**2 * d.mean.low * i.mean.low)
    return FirstMoment(
        mean, fresh, mean2, fresh2, mixed, d.mean.second * square, i.mean.second * square,
        *roundings.momentum_underflow(window),
    )  # fmt: skip


def coordinates(window: Window, *, split: bool = False, diagonal: bool = False) -> list[Values]:
    """The values of the symbols of ``_adam_lemmas``, one dictionary a coordinate, but for x and u.

    ``split``: the true gradient's part in the share of the new gradient is counted along the run, not by the largest
    gradient of the window: E p <= p(sigma^2) + p(grad^2), and p(grad^2) <= beta_p |grad|. ``diagonal``: where
    coordinates are coupled, the variance of the step meets the diagonal of the Hessian's bound, its mean the norm.

    Raises
    ------
    NoEnclosure, ValueError
        The roundings of the gradient or of v have no factor.
    """
    s, c = scalars(window), roundings.corrections(window)
    signal = _signal(window)
    tiny = roundings.second_moment_underflow(window, s.kept * ball(np.min(window.min_abs["v"])))
    average, extreme = second_moment.shares(window, (tiny.mean.log_loss, tiny.mean.sure_high))
    v, m, update = second_moment_rounding(window, tiny), first_moment_rounding(window), updated(window)
    (smooth, separable), bends = curvatures(window), quadratic_curvatures(window, diagonal)
    size, drift, wrong = gradients(window, signal.high, v.glow, longest_step(window))
    noise = noise_square(window) if split else None
    unit, start, gaps = update.middle * s.lr, starts(window), gaps_visited(window)
    mid, half = (v.low + v.high) / 2, (v.high - v.low) / 2
    result: list[Values] = []
    for n in range(window.dimension):
        v_min, v_max = ball(np.min(window.min_abs["v"][n])), ball(np.max(window.max_abs["v"][n]))
        least, largest = denominators(window, n)
        H0 = unit / (c.c1[0] * ((s.kept * v_min / c.c2[1]).sqrt() + s.eps))
        H, h1 = unit / (c.c1[0].min(c.before[0]) * least), unit / (c.c1[1] * largest)
        h0 = unit / (c.c1[1] * ((s.kept * v_max / c.c2[0]).sqrt() + s.eps))
        p, most = average[n], extreme[n]
        w = 1 / (1 + (1 - most).sqrt())
        fresh = share(mean_square(window, drift[n], size[n]), v_min, s).min(most)
        apart, still = arb(0), fresh
        if noise is not None:
            # p(g^2)/|g| is largest at g^2 = B v/c
            apart = signal.high * (s.injection / (s.kept * v_min)).sqrt() / 2
            if drift[n] ** 2 * s.injection < s.kept * v_min:
                apart = signal.high * share(drift[n] ** 2, v_min, s) / drift[n] if drift[n] > 0 else arb(0)
            still = (share(noise, v_min, s) + apart * wrong[n] / signal.high).min(most)
        A = (unit / c.c1[0]) ** 2 * c.c2[1] * p / s.injection
        error, tau = wrong[n] * H0.sqrt(), arb(1)
        if window.noise == "gaussian":
            # (1-p)^(3/2) is convex in y^2
            tau = cubed_root(1 - fresh)
        elif window.noise == "none":
            tau = (1 - most).sqrt()
        else:
            varied = (s.kept * v_max * c.c2[1]).sqrt() * p / s.injection * most**2 / (1 - most)
            error += w * (unit / c.c1[0] * varied).sqrt()
        # rounding the gradient changes x by at most p times what it changes g^2
        shrunk, grown = (1 + most * (v.ghigh**2 - 1)).sqrt(), (1 - most * (1 - v.glow**2)).sqrt()
        ratio = (c.rise2 / s.kept).sqrt()
        keep, lowest = ratio * v.eta_high / grown, (1 - w * still) * v.eta_low / shrunk
        typical = cubed_root(1 - still) if noise is not None else tau
        longest = ball(np.max(window.max_abs["m"][n])) * apart
        falls = (keep - 1).max(1 - c.fall1 * lowest)
        spread = (ratio - 1) + (1 - c.fall1) + w * (most * fresh).sqrt()
        spread += ratio * ((1 / grown - 1).max(1 - 1 / shrunk) + v.spread / grown)
        sP = (v.square * A).sqrt() + H0 * v.eta_high * roundings.gradient_underflow(window)
        decay = s.B**2 * m.decay * keep
        mixed = m.mixed * sP / h1.sqrt()
        if s.B > 0:
            mixed += H.sqrt() * m.off * decay.sqrt() / (s.B * s.G)
        new = m.inject.sqrt() * sP / h1.sqrt() + H.sqrt() * m.off / s.G
        guess = H.sqrt() * (s.G / (2 - s.G)).sqrt() * new
        weight = storing_weight(window, gaps[n], guess, H.sqrt(), update)
        result.append({
            lemmas.gamma: s.G / (1 - s.B), lemmas.k: s.B / (1 - s.B), lemmas.L: smooth[n],
            lemmas.bend: bends[n][0], lemmas.rest: bends[n][1], lemmas.mid: mid,
            lemmas.tau: tau, lemmas.rho: signal.low, lemmas.top: signal.high, lemmas.Gamma: s.G,
            # an error of g meets the factors from mid - half to mid + half, like y itself
            lemmas.error: mid * error + half * H0.sqrt() * roundings.gradient_underflow(window),
            lemmas.half: half, lemmas.sA: A.sqrt(), lemmas.sP: sP,
            lemmas.sH0: H0.sqrt(), lemmas.sH: H.sqrt(), lemmas.s0: h0.sqrt(), lemmas.s1: h1.sqrt(),
            lemmas.r: c.fall1.sqrt(), lemmas.drift: falls, lemmas.drift2: spread,
            lemmas.steep: w * longest, lemmas.steep_u: w * fresh if apart > 0 else arb(0),
            lemmas.steep2: mid.max(arb(1)) * longest * 3 / 2,
            lemmas.keep: keep, lemmas.keep2: ratio * (1 + v.spread) / grown, lemmas.keep0: ratio.sqrt(),
            lemmas.beta: s.B, lemmas.em: m.mean, lemmas.em2: m.mean2,
            lemmas.lost: m.fresh * sP + H * v.most.sqrt() * m.off_mean / s.G,
            lemmas.lost2: m.fresh2 * sP + H * m.off / s.G, lemmas.mixed: mixed, lemmas.over: v.most.sqrt(),
            lemmas.shift: (mid * signal.high - lowest).max(keep / ratio - mid * typical * signal.low).max(arb(0)),
            lemmas.decay: decay, lemmas.start: start[n] / window.steps, lemmas.Q: new, **weight,
        })  # fmt: skip
    if not separable:  # |grad F(z) - grad F(w)| couples the coordinates: the same largest eta for all
        for symbol in (lemmas.sH0, lemmas.sH):
            largest = max((row[symbol] for row in result), key=float)
            for row in result:
                row[symbol] = largest
    return result


def updated(window: Window) -> roundings.Update:
    return roundings.update(window, denominators(window)[0])


def longest_step(window: Window) -> Ball:
    """|a| is never larger."""
    s, c, update = scalars(window), roundings.corrections(window), updated(window)
    return update.most * s.lr / c.c1[0] * ball(np.max(window.max_abs["m"])) / denominators(window)[0] + update.off


def share(square: Ball, v_min: Ball, s: Scalars) -> Ball:
    """p(y^2) = c y^2/(B v + c y^2) at the least v: concave in y^2, at most the sum of p of two parts."""
    fresh = s.injection * square
    return fresh / (s.kept * v_min + fresh)


def cubed_root(x: Ball) -> Ball:
    return x * x.sqrt()


def quadratic_curvatures(window: Window, diagonal: bool) -> list[tuple[Ball, Ball]]:
    """(M_ii, L - M_ii) of every coordinate where the coordinates' noise and roundings are independent, else (L, 0)."""
    smooth, separable = curvatures(window)
    independent = window.noise in ("none", "gaussian") and not window.gradient_inside
    if separable or window.hessian_diagonal is None or not (independent and diagonal):
        return [(x, arb(0)) for x in smooth]
    return [(ball(m).min(x), x - ball(m).min(x)) for m, x in zip(window.hessian_diagonal, smooth, strict=True)]


def storing_weight(window: Window, gap: Ball, guess: Ball, largest: Ball, update: roundings.Update) -> Values:
    """q, omega, lambda, l, w0, w1: two bounds of what storing the weight does; either is valid, ``guess`` chooses.

    To nearest the sum errs by at most half a gap and at most |a|; stochastic, its variance is at most Delta^2/4, and
    Delta times the mean step.
    """
    none, one = arb(0), 1 + update.spread
    extra, omega, omega2, w0, w1 = none, update.off_mean, update.off, none, none
    if is_nearest(window.slots["w.sub"][1]):
        if gap / 2 < guess:
            omega, omega2 = omega + gap / 2, omega2 + gap / 2
        else:
            extra, omega, omega2 = one, omega + update.off, 2 * omega2
    else:
        missed = gap * moments(*window.slots["w.sub"]).bias
        omega, omega2 = omega + missed, omega2 + missed
        if gap / 4 < guess + omega2:
            w0 = gap**2 / 4
        else:
            w0, w1 = gap * omega2, gap * one * largest
    return {
        lemmas.q: update.half + extra, lemmas.omega: omega, lemmas.omega2: omega2, lemmas.lam: update.spread + extra,
        lemmas.long: one + extra, lemmas.w0: w0, lemmas.w1: w1,
    }  # fmt: skip


def curvatures(window: Window) -> tuple[list[Ball], bool]:
    """L of every coordinate, and whether the loss is a sum over the coordinates."""
    if window.curvature is not None:
        return [ball(x) for x in window.curvature], True
    return [ball(window.smoothness)] * window.dimension, window.dimension == 1


def etas(window: Window) -> list[list[Ball]]:
    """[d][S]: eta of the state that the window starts from."""
    s, c = scalars(window), roundings.corrections(window)
    unit, (c1, c2) = updated(window).middle * s.lr, c.before
    return [[unit / (c1 * ((ball(v) / c2).sqrt() + s.eps)) for v in row] for row in window.start["v"]]


def starts(window: Window) -> list[Ball]:
    """[d]: mean over the seeds of eta m^2 in the state that the window starts from."""
    return [
        sum((x * ball(m) ** 2 for x, m in zip(row, ms, strict=True)), arb(0)) / window.seeds
        for row, ms in zip(etas(window), window.start["m"], strict=True)
    ]


def fall_of_shifted(window: Window) -> Ball:
    """Bound of E F(z_first) - F*, z = w - k eta m: F(w) + |grad| |d| + L |d|^2/2 and |grad|^2 <= 2 L (F - F*)."""
    s, eta, (smooth, _) = scalars(window), etas(window), curvatures(window)
    k, total = s.B / (1 - s.B), arb(0)
    for seed in range(window.seeds):
        loss = ball(window.loss_start[seed]) * (1 + LOSS_ACCURACY)
        moved = [k * row[seed] * abs(ball(m[seed])) for row, m in zip(eta, window.start["m"], strict=True)]
        bent = sum((x * y**2 / 2 for x, y in zip(smooth, moved, strict=True)), arb(0))
        if window.box is None:
            total += (loss.nonnegative_part().sqrt() + bent.sqrt()) ** 2
        else:
            total += loss + bent + sum((ball(x) * y for x, y in zip(window.gradient_bound, moved, strict=True)), arb(0))
    return total / window.seeds


def farthest_shift(window: Window) -> Ball:
    """Bound of |z_i - w_i| on the window."""
    s, c = scalars(window), roundings.corrections(window)
    largest = ball(np.max(window.max_abs["m"])) / (c.c1[0].min(c.before[0]) * denominators(window)[0])
    return s.B / (1 - s.B) * updated(window).middle * s.lr * largest


def first_bound(window: Window, rows: list[Values], square: list[Ball]) -> Ball:
    """Z from the window: |grad| <= its bound, or grad^2 <= E y^2 and avg E (eta_x y)^2 <= A, whichever is less."""
    signal, v = _signal(window), second_moment_rounding(window, roundings.NOTHING)
    _, drift, wrong = gradients(window, signal.high, v.glow, longest_step(window))
    _, extreme = second_moment.shares(window)
    total = arb(0)
    for n, (row, a) in enumerate(zip(rows, square, strict=True)):
        steepest = (drift[n] + wrong[n]) / signal.low * row[lemmas.sH0]
        # eta0^2 <= eta_x^2/(1 - p), and eta0 >= h0
        typical = row[lemmas.sA] / ((1 - extreme[n]).sqrt() * row[lemmas.s0])
        typical = (typical + wrong[n] * row[lemmas.sH0]) / signal.low
        total += a * steepest.min(typical) ** 2
    return total.sqrt()
