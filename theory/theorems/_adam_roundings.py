"""What the roundings, underflows and bias corrections of a step of Adam do, slot by slot.

Given what came before, in the mean a slot's factor lies in [low, high] (``_mean_rounding``); its mean square error is
at most lambda^2, lambda = u/(1+u) to nearest, z sqrt(1/4 + 2^-n) stochastic; factors of successive roundings multiply:
||prod (1 + delta) - 1|| <= prod (1 + lambda) - 1. Roundings of m and of v are drawn independently, given the gradient.

A result that underflowed errs by at most one unit (R3), stochastically by at most 2^-n units in the mean.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from flint import arb, ctx

from fpsim.rounding import Stochastic
from theory.enclosure import Ball, ball, evaluate
from theory.rounding_model import underflow_unit
from theory.theorems import _adam_lemmas as lemmas
from theory.theorems._gradient_mean import stored
from theory.theorems._mean_rounding import EXACT, RoundingMoments, moments
from theory.theorems._rmsprop_numbers import noisy_slot
from theory.window import FloatArray, Window

CORRECTED = ("update.m_hat", "update.v_hat")


@dataclass(frozen=True)
class Slot:
    """One rounding: relative in the mean (``mean``) and in the mean square (``spread``); underflow (``off``, mean)."""

    mean: RoundingMoments
    spread: Ball
    off: Ball
    off_mean: Ball


NOTHING = Slot(EXACT, arb(0), arb(0), arb(0))


@dataclass(frozen=True)
class Corrections:
    """Stored bias corrections: (least, largest) c1 and c2, least c1_{t-1}/c1_t, largest c2_t/c2_{t-1}, those before."""

    c1: tuple[Ball, Ball]
    c2: tuple[Ball, Ball]
    fall1: Ball
    rise2: Ball
    before: tuple[Ball, Ball]


@dataclass(frozen=True)
class Update:
    """The rounded step a = mu eta_exact m': mu, half width of the mean, mean square error, maximum, underflow."""

    middle: Ball
    half: Ball
    spread: Ball
    most: Ball
    off: Ball
    off_mean: Ball


def product(balls: Iterable[Ball]) -> Ball:
    return functools.reduce(lambda x, y: x * y, balls, arb(1))


def chain(spreads: Iterable[Ball]) -> Ball:
    """|| prod (1 + delta) - 1 || from the parts."""
    return product(1 + x for x in spreads) - 1


def values_of(window: Window, name: str) -> FloatArray | None:
    """A scalar's stored values in the step before the window and in its steps; one value if it is constant."""
    if name in window.scalars:
        return np.array([window.scalars[name]])
    return window.changing.get(name)


def correction_names(window: Window) -> dict[str, str]:
    """Slot of the correction -> the scalar that it divides by."""
    return {o.slot: o.operands[1] for o in window.program.operations if o.slot in CORRECTED}


def rounding(window: Window, slot: str) -> Slot:
    """What one slot does; nothing if it is not there or divides by a correction that is 1 throughout."""
    if slot not in window.slots:
        return NOTHING
    if slot in CORRECTED:
        by = values_of(window, correction_names(window)[slot])
        source = window.program.operation(slot).operands[0]
        if by is not None and np.all(by == 1.0) and window.slots[slot][0].holds(window.slots[source][0]):
            return NOTHING
    return _slot(window, slot, moments(*window.slots[slot]))


def storing(window: Window, state: str, source: str) -> Slot:
    """Storing a result in the slot of a state; nothing if there is no such state."""
    if state not in window.slots:
        return NOTHING
    x = stored(window, state, source)
    return NOTHING if x is EXACT else _slot(window, state, x)


def _slot(window: Window, slot: str, x: RoundingMoments) -> Slot:
    fmt, mode = window.slots[slot]
    unit = ball(underflow_unit(fmt, mode)) if window.underflow.get(slot, 1) else arb(0)
    if not isinstance(mode, Stochastic):
        return Slot(x, (x.sure_high - 1).max(1 - x.sure_low), unit, unit)
    spread = x.gap * evaluate(lemmas.MEAN_SQUARE_ERROR, {lemmas.bits: x.bias}).sqrt()
    return Slot(x, spread, unit, unit if fmt.tiny == "flush" else unit * x.bias)


def corrections(window: Window) -> Corrections:
    """The corrections' extremes; 1 where the program divides by none."""
    names = correction_names(window)
    c1, c2 = (np.asarray(values_of(window, names[s]) if s in names else np.ones(1), np.float64) for s in CORRECTED)
    return _extremes(c1.tobytes(), c2.tobytes(), ctx.prec)


@functools.lru_cache(maxsize=16)  # a bound asks for them dozens of times; balls are of one working precision
def _extremes(first: bytes, second: bytes, precision: int) -> Corrections:
    c1, c2 = np.frombuffer(first), np.frombuffer(second)
    falls, rises = ([ball(x) / ball(y) for x, y in _steepest(c)] for c in (c1, c2))
    fall = functools.reduce(lambda x, y: x.min(y), falls, arb(1))
    rise = functools.reduce(lambda x, y: x.max(1 / y), rises, arb(1))
    inside = [c[1:] if len(c) > 1 else c for c in (c1, c2)]
    low, high = ((ball(np.min(c)), ball(np.max(c))) for c in inside)
    return Corrections(low, high, fall, rise, (ball(c1[0]), ball(c2[0])))


def _steepest(x: FloatArray) -> set[tuple[float, float]]:
    """Pairs of different neighbours with the least quotient, up to what a quotient in binary64 cannot tell apart."""
    changed = x[:-1] != x[1:]
    before, after = x[:-1][changed], x[1:][changed]
    with np.errstate(all="ignore"):
        quotients = before / after
        # one rounding of each quotient; NaN, which no comparison holds of, is kept
        worst = ~(quotients > np.min(quotients, initial=np.inf) * (1 + 2.0**-50) + 2.0**-1060)
    return set(zip(before[worst].tolist(), after[worst].tolist(), strict=True))


def update(window: Window, least: Ball) -> Update:
    """The update's roundings, from v' and m' as stored to a; ``least``: no denominator is smaller."""
    at = {name: rounding(window, f"update.{name}") for name in ("m_hat", "v_hat", "sqrt", "eps", "div", "scale")}
    first, second = storing(window, "m", "m.add").mean, storing(window, "v", "v.add").mean
    over = [at[name] for name in ("m_hat", "div", "scale")]
    below = [at[name] for name in ("sqrt", "eps")]
    v_hat = at["v_hat"].mean
    low = product(x.mean.low for x in over) * product(x.mean.inverse_low for x in below) * v_hat.inverse_low.sqrt()
    high = product(x.mean.high for x in over) * product(x.mean.inverse_high for x in below) * v_hat.inverse_high.sqrt()
    most = product(x.mean.sure_high for x in over) / product(x.mean.sure_low for x in below) / v_hat.sure_low.sqrt()
    # what is stored is not what the update divides: always within these factors
    stores_low, stores_high = second.sure_low.sqrt() / first.sure_high, second.sure_high.sqrt() / first.sure_low
    low, high, most = low * stores_low, high * stores_high, most * stores_high
    spreads = [x.spread for x in over] + [x.spread / x.mean.sure_low for x in (*below, at["v_hat"])]
    middle = (low + high) / 2
    spread = (chain([*spreads, (stores_high - 1).max(1 - stores_low)]) + abs(1 - middle)) / middle
    lr = ball(window.scalars["scalar.lr"])
    after = lr * at["scale"].mean.sure_high
    denominator = least * product(x.mean.sure_low for x in (*below, at["v_hat"])) / at["div"].mean.sure_high
    off, off_mean = (
        getattr(at["scale"], kind) + after * (getattr(at["div"], kind) + at["m_hat"].off / denominator)
        for kind in ("off", "off_mean")
    )
    return Update(middle, (high - low) / (2 * middle), spread, most, off, off_mean + off * _shy(over[1:]))


def momentum_underflow(window: Window) -> tuple[Ball, Ball]:
    """(always, mean): absolute error of the stored m' from underflow."""
    parts = [rounding(window, name) for name in ("m.decay", "m.inject", "m.add")] + [storing(window, "m", "m.add")]
    grown = product(x.mean.sure_high for x in parts)
    always, mean = (sum((getattr(x, kind) for x in parts), arb(0)) * grown for kind in ("off", "off_mean"))
    return always, mean + always * _shy(parts[2:])


def _shy(later: Iterable[Slot]) -> Ball:
    """How far the mean factor of later roundings can depend on what underflowed before."""
    later = list(later)
    return product(x.mean.high for x in later) - product(x.mean.low for x in later)


def gradient_underflow(window: Window) -> Ball:
    """|g - y| beyond the relative roundings, g the stored gradient."""
    total = sum((rounding(window, name).off for name in _gradient_slots(window)), arb(0))
    return total * product(rounding(window, name).mean.sure_high for name in _gradient_slots(window))


def _gradient_slots(window: Window) -> list[str]:
    if not window.gradient_inside:
        return ["g"]
    return ["g"] if window.noise == "none" else ["g", noisy_slot(window)]


def second_moment_underflow(window: Window, least: Ball) -> Slot:
    """Underflow in v as one more factor 1 + delta, |delta| <= theta; ``least`` <= B v for every v of the window."""
    at = {name: rounding(window, name) for name in ("v.decay", "v.square", "v.inject", "v.add")}
    at["v"] = storing(window, "v", "v.add")
    injection = ball(window.scalars["scalar.one_minus_beta2"])
    grown = product(x.mean.sure_high for x in at.values())
    tiny = gradient_underflow(window)
    if tiny > 0:  # y^2 and g^2 then differ by at most this
        largest = max(ball(window.slots[name][0].smallest_normal) for name in _gradient_slots(window))
        tiny = injection * (2 * largest * tiny + tiny**2)
    low = least * at["v.decay"].mean.sure_low * at["v.add"].mean.sure_low

    def theta(kind: str) -> Ball:
        parts = [getattr(at[name], kind) for name in ("v.decay", "v.inject", "v.add", "v")]
        return (sum(parts, tiny) + injection * getattr(at["v.square"], kind)) * grown / low

    off = theta("off")
    mean = (theta("off_mean") + off * _shy((at["v.add"], at["v"]))).min(off)
    if off == 0:
        return NOTHING
    if not off < 1:
        raise ValueError(f"v underflows by up to {off.str(4)} of itself")
    shrunk = 1 / (1 - off)
    random = all(isinstance(window.slots[name][1], Stochastic) for name, x in at.items() if x.off > 0)
    # stochastic: the mean of delta lies in [-mean, mean], and 1/(1+delta) <= 1 - delta + delta^2/(1-off)
    inverse = 1 + mean + off**2 * shrunk if random else shrunk
    always = RoundingMoments(
        1 - mean, 1 + mean, 1 + 2 * mean + off**2, 1 / (1 + mean), inverse, inverse**2 if not random else shrunk**2,
        inverse - 1 if random else -(1 - off).log(), 1 - off, 1 + off, off, mean,
    )  # fmt: skip
    return Slot(always, off, arb(0), arb(0))
