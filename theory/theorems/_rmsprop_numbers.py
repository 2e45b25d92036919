"""The numbers of T12 for one window: what the roundings do to the step in the mean, and Lemma A for every coordinate.

Rounding by rounding, given what came before (y the stochastic gradient before its last rounding, phi(y) = y/D):

* g = fl(y): phi has an elasticity in [0, 1], so to nearest phi(g)/phi(y) lies in [l, h]; stochastic, phi is concave
  with y^2 |phi''| <= 4/5 phi, so E phi(g)/phi(y) lies in [1 - z^2/10 - b z, 1] and E phi(g)^2 <= (1 + z^2/4)
  phi(y)^2;
* v' = x rho_a ((1-p) rho_d + p rho_i): 1/v' is convex in the factors, so E x/v' <= I_a max(I_d, I_s I_i), I the mean
  of a reciprocal; 1/(sqrt(v') + eps) is a concave function of 1/v' of elasticity at most 1/2, its square one of at
  most 1;
* root and sum with eps divide: each costs at most I in the mean (a positive shift only narrows the relative gap);
* quotient and product multiply.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from flint import arb

from fpsim.rounding import Stochastic
from theory.enclosure import BITS, Ball, ball, compile_expression, evaluate, working_precision
from theory.theorems._gradient_mean import stored
from theory.theorems._mean_rounding import DECAY_EXCESS, EXACT, RoundingMoments, b, decay, moments, z
from theory.theorems._rmsprop_lemmas import SHARE, B, chi, rise, zeta
from theory.verdict import confidence_interval
from theory.window import Window

MISSED = Fraction(1, 1000)
TILTS = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2))


@dataclass(frozen=True)
class StepFactors:
    """E[a | y]/(alpha phi(y)) lies in [low, high], E[a^2 | y]/(alpha phi(y))^2 is at most second."""

    low: Ball
    high: Ball
    second: Ball


def gradient_roundings(window: Window) -> list[tuple[bool, RoundingMoments]]:
    """The roundings between y and the g that is used: (stochastic?, moments). None without noise: then y is g."""
    names: list[tuple[str, RoundingMoments]] = []
    if not window.gradient_inside:
        names.append(("g", moments(*window.slots["g"])))
    elif window.noise != "none":
        noisy = noisy_slot(window)
        names.append((noisy, moments(*window.slots[noisy])))
        if window.program.operation("g").kind == "round":
            names.append(("g", stored(window, "g", window.program.operation("g").operands[0])))
    return [(isinstance(window.slots[name][1], Stochastic), x) for name, x in names if x is not EXACT]


def noisy_slot(window: Window) -> str:
    """The addition of the noise. ``ValueError`` if there is none."""
    for operation in window.program.operations:
        if operation.kind == "add" and "noise" in operation.operands:
            return operation.slot
    raise ValueError("the program adds no array 'noise' to its gradient")


def step_factors(window: Window, tiny: RoundingMoments = EXACT) -> StepFactors:
    """All roundings of the step, y to a. ``tiny``: what underflow does to v, as one more factor."""
    at = {slot: moments(*window.slots[slot]) for slot in window.program.slots if slot.startswith(("v.", "update."))}
    with working_precision(BITS):
        low = at["update.div"].low * at["update.scale"].low
        high = at["update.div"].high * at["update.scale"].high
        second = at["update.div"].second * at["update.scale"].second
        for stochastic, x in gradient_roundings(window):
            low *= 1 - x.gap**2 / 10 - x.bias * x.gap if stochastic else x.low
            high *= x.high
            second *= x.second
        for slot in ("update.sqrt", "update.eps"):
            low, high, second = (
                low * at[slot].inverse_low,
                high * at[slot].inverse_high,
                second * at[slot].inverse_second,
            )
        decayed, injected = at["v.decay"], (at["v.square"], at["v.inject"])
        most = at["v.add"].inverse_high * decayed.inverse_high.max(injected[0].inverse_high * injected[1].inverse_high)
        least = at["v.add"].inverse_low * decayed.inverse_low.min(injected[0].inverse_low * injected[1].inverse_low)
        least, most = least * tiny.inverse_low, most * tiny.inverse_high
        return StepFactors(low * least.sqrt(), high * most.sqrt(), second * most)


def shares(window: Window, tiny: tuple[Ball, Ball] | None = None) -> tuple[list[Ball], list[Ball]]:
    """([d], [d]): P_i >= avg E p_i of Lemma A, and the largest p_i that the measured extremes allow.

    ``tiny``: what underflow does to v besides: the mean of -log of its factor, and the factor, from above.

    Raises
    ------
    ValueError
        chi >= 1: the injected part is rounded too coarsely for Lemma A.
    """
    at = {slot: moments(*window.slots[slot]) for slot in ("v.decay", "v.square", "v.inject", "v.add")}
    kept, injection = (ball(window.scalars[f"scalar.{name}"]) for name in ("beta2", "one_minus_beta2"))
    gradient = gradient_roundings(window)
    with working_precision(BITS):
        decay_loss = _decay_loss(window, at["v.decay"], kept)
        tiny_loss, tiny_growth = tiny or (arb(0), arb(1))
        store_loss = stored(window, "v", "v.add").log_loss + tiny_loss
        injected = (
            at["v.square"].log_loss + at["v.inject"].log_loss + sum((2 * x.log_loss for _, x in gradient), arb(0))
        )
        variants = [(decay_loss + at["v.add"].log_loss + store_loss, injected - decay_loss)]
        held = window.slots["v.add"][0].holds(window.slots["v.decay"][0])
        if isinstance(window.slots["v.add"][1], Stochastic) and held:
            # the small-step form of the addition's loss: proportional to the share of what is added
            add, grown = at["v.add"], arb(1)
            for _, x in gradient:
                grown *= x.second
            proportional = add.gap / (1 + add.gap) * grown * at["v.decay"].inverse_high
            variants.append((decay_loss + add.gap * add.bias + store_loss, injected - decay_loss + proportional))
        variants = [(loss, slope) for loss, slope in variants if slope < 1]
        if not variants:
            raise ValueError("chi >= 1: the injected part of v is rounded too coarsely")
        formula = compile_expression(SHARE, [zeta, rise, B, chi])
        rises = _rises(window, kept, injection, tiny_growth)
        least_v, largest_g = np.min(window.min_abs["v"], axis=1), np.max(window.max_abs["g"], axis=1)
        extreme = []
        for v, g in zip(least_v, largest_g, strict=True):
            fresh = injection * (ball(g) * before_rounding(gradient)) ** 2
            extreme.append(fresh / (kept * ball(v) + fresh))
        average = []
        for increase, most in zip(rises, extreme, strict=True):
            candidates = [formula([loss, increase / window.steps, kept, slope]) for loss, slope in variants]
            average.append(min((*candidates, most), key=lambda x: float(x)).max(arb(0)))
        return average, extreme


def _rises(window: Window, kept: Ball, injection: Ball, tiny_growth: Ball | int = 1) -> list[Ball]:
    """[d]: bound of E log(v_T/v_0).

    Stored beta2 < 1: the upper 99.9 % confidence limit over the seeds. Where v falls nearly as fast as B^t, the share
    is a small difference of two large numbers, and the largest of a few seeds would not do. Where stochastic rounding
    lets v rise once in many steps, all seeds may show no rise, and the limit is their mean: ``_luck`` is added to it.

    Stored beta2 = 1: then v never falls, nothing but its rise bounds the shares, and stochastically rounded it rises
    once in many steps: all seeds may show no rise at all. With 0 <= X <= b the rise in one step, E e^(-l X/b) <=
    exp(-(1 - e^-l) E X/b), so exp(sum ((1 - e^-l) E X - l X)/b) is a supermartingale over all steps and seeds, and
    with probability 1 - p

        sum E X <= (sum X + b ln(1/p)/l) l/(1 - e^-l).

    p is ``MISSED``, shared by the coordinates and the l that are tried.

    Raises
    ------
    ValueError
        Stored beta2 = 1, and v passes through a narrower format than its own: then it may fall.
    """
    first, last = window.start["v"], window.end["v"]
    if kept != 1:
        luck = _luck(window, tiny_growth)
        return [ball(confidence_interval(row)[1]).max(ball(float(np.mean(row))) + luck) for row in np.log(last / first)]
    formats = [window.slots[name][0] for name in ("v", "v.decay", "v.add", "v")]
    if not all(wide.holds(narrow) for narrow, wide in itertools.pairwise(formats)):
        raise ValueError("stored beta2 = 1, and the formats of v, v.decay and v.add differ: v may fall")
    at = {slot: moments(*window.slots[slot]).sure_high for slot in ("v.square", "v.inject", "v.add")}
    certain = (arb(window.dimension * len(TILTS)) / ball(MISSED)).log()
    result = []
    for k in range(window.dimension):
        seen = sum(((ball(y) / ball(x)).log() for x, y in zip(first[k], last[k], strict=True)), arb(0))
        g, v = ball(np.max(window.max_abs["g"][k])), ball(np.min(window.min_abs["v"][k]))
        largest = (tiny_growth * at["v.add"] * (1 + at["v.square"] * at["v.inject"] * injection * g**2 / v)).log()
        limits = [(seen + largest * certain / l_) * l_ / (1 - (-l_).exp()) for l_ in map(ball, TILTS)]
        result.append(functools.reduce(lambda x, y: x.min(y), limits) / window.seeds)
    return result


def _luck(window: Window, tiny_growth: Ball | int) -> Ball:
    """What stochastic rounding can hide of the seeds' mean rise of log v, with probability 1 - ``MISSED``.

    With zeta, chi and X = log(v'/v) of Lemma A, two arguments; ``MISSED`` is shared by them and the coordinates. Summed
    over steps and seeds, (1 - chi) p - zeta + log B - X is at most ``luck`` times the number of seeds:

    * E (v/v')^(1/2) <= ((1 - p) e^(zeta + chi p)/B)^(1/2), as the mean of a reciprocal bounds every loss of
      ``_mean_rounding``: the running product of the quotients is a supermartingale, 1 at first;
    * Hoeffding and Azuma: one rounding moves log v by log(1 + z) at most (the gradient's counts twice), whatever came
      before, and the part of log v that is not its mean is a martingale.
    """
    stored_v = stored(window, "v", "v.add")
    parts = [(slot, moments(*window.slots[slot])) for slot in ("v.decay", "v.square", "v.inject", "v.add")]
    widths = [
        (1 + x.gap).log()
        for slot, x in (*parts, *([] if stored_v is EXACT else [("v", stored_v)]))
        if isinstance(window.slots[slot][1], Stochastic)
    ]
    widths += [2 * (1 + x.gap).log() for random, x in gradient_roundings(window) if random]
    if not widths:
        return arb(0)
    off = ball(tiny_growth) - 1
    if off > 0:
        widths.append(((1 + off) / (1 - off)).log())
    certain = (2 * arb(window.dimension) / ball(MISSED)).log()
    steady = (sum((x**2 for x in widths), arb(0)) * window.steps * certain / (2 * window.seeds)).sqrt()
    return steady.min(2 * certain / window.seeds)


def before_rounding(gradient: list[tuple[bool, RoundingMoments]]) -> Ball:
    """|y| <= |g| times this."""
    result = arb(1)
    for _, x in gradient:
        result /= x.sure_low
    return result


def _decay_loss(window: Window, rounding: RoundingMoments, kept: Ball) -> Ball:
    """Mean of -log fl(B v)/(B v): 0 for B = 1; stochastic also at most z (1-B)/B + b z, since v is on the grid."""
    if kept == 1:
        return arb(0)
    if not isinstance(window.slots["v.decay"][1], Stochastic) or not window.slots["v.decay"][0].holds(
        window.slots["v"][0]
    ):
        return rounding.log_loss
    near = evaluate(DECAY_EXCESS, {z: rounding.gap, b: rounding.bias, decay: kept})
    return near if near < rounding.log_loss else rounding.log_loss
