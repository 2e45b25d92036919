"""The stochastic gradient of a window of Adam: bounds of its size, its mean, its noise and its absolute error."""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
from flint import arb

from theory.composition import NoEnclosure, eta, model_values, relative_factor, symbol
from theory.composition import least as least_of
from theory.composition import size as size_of
from theory.enclosure import Ball, ball, ends, evaluate
from theory.rounding_model import underflow_unit
from theory.theorems._adam_roundings import gradient_underflow
from theory.theorems._floor_root import gaps_visited
from theory.theorems._mean_rounding import moments
from theory.theorems._rmsprop_numbers import noisy_slot
from theory.theorems._value_ranges import value_ranges
from theory.window import FloatArray, Window


def gradients(window: Window, high: Ball, least: Ball, farthest: Ball) -> tuple[list[Ball], list[Ball], list[Ball]]:
    """[d] each: bound of |y|, of |E y| given the past, and of the absolute error of the gradient.

    ``high``: factor of the computed gradient from above; ``least``: |g| >= this times |y|; ``farthest``: no step is
    longer.
    """
    size = [ball(x) / least for x in np.max(window.max_abs["g"], axis=1)]
    added = 0.0 if window.gradient_inside or window.noise != "gaussian" else 2.0**-53
    off = gradient_underflow(window) + computed_off(window)
    wrong = [ball(x) + added * y + off for x, y in zip(window.gradient_error, size, strict=True)]
    known = gradient_bound(window, farthest)
    drift = [(high * ball(x) + e).min(y) if math.isfinite(x) else y for x, e, y in zip(known, wrong, size, strict=True)]
    return size, drift, wrong


def computed_off(window: Window) -> Ball:
    """Absolute error of the gradient computed in the machine: what underflow adds to its factor.

    Raises
    ------
    NoEnclosure
        Nothing bounds it, or the size of a value that it depends on.
    """
    if not window.gradient_inside:
        return arb(0)
    value = "g"
    if window.noise != "none":
        operands = window.program.operation(noisy_slot(window)).operands
        value = next(name for name in operands if name != "noise")
    factor = relative_factor(window.program, window.slots, value, exact=("w", *window.exact_constants))
    if not any(window.underflow.get(slot, 1) for slot in factor.underflow_slots):
        return arb(0)
    known: dict[sp.Symbol, Ball] = {symbol(name): ball(x) for name, x in window.scalars.items()}
    known |= {k: ball(x) for k, x in model_values(window.slots, tuple(window.program.slots)).items()}
    # no inexact result was tiny in a slot without an underflow
    known |= {eta(slot): arb(0) for slot in window.program.slots if not window.underflow.get(slot, 1)}
    for name, (low, high) in value_ranges(window, value).items():
        known[size_of(name)] = abs(low).max(abs(high))
        known[least_of(name)] = low if low > 0 else (-high if high < 0 else arb(0))
    upper = ends(evaluate(factor.absolute, known))[1]
    if not math.isfinite(upper):
        raise NoEnclosure(value, f"underflow in {', '.join(factor.underflow_slots)} is not bounded")
    return ball(upper)


def noise_square(window: Window) -> Ball | None:
    """Bound of the noise's mean square as the machine adds it; None where it is not declared.

    Rounding is odd, so the stored noise is as symmetric as the drawn one, whatever underflowed in it.
    """
    if window.noise == "none":
        return arb(0)
    sigma = window.hyperparameters.get("sigma")
    if sigma is None or window.noise != "gaussian":
        return None
    noise = (ball(float(sigma)) * (1 + 2.0**-47)) ** 2  # the declared law's variance, and its product with sigma
    if not window.gradient_inside:
        return noise
    slot, root = window.slots["noise"], (noise * moments(*window.slots["noise"]).second).sqrt()
    return (root + (ball(underflow_unit(*slot)) if window.underflow.get("noise", 1) else arb(0))) ** 2


def mean_square(window: Window, drift: Ball, size: Ball) -> Ball:
    """Bound of E y^2 given the past: sigma^2 + |E y|^2 where sigma is declared."""
    noise = noise_square(window)
    return size**2 if noise is None else noise + drift**2


def gradient_bound(window: Window, farthest: Ball) -> FloatArray:
    """[d]: bound of |grad_i| on the window: the problem's, or |grad_i| at its end + L_i |w - w_end|.

    While w cannot jump over zero, |w - w_end| follows from the extremes of |w|.
    """
    known = np.asarray(window.gradient_bound, dtype=np.float64)
    gaps = np.array([ends(x)[1] for x in gaps_visited(window)])[:, None]
    last, low, high = np.abs(window.end["w"]), window.min_abs["w"], window.max_abs["w"]
    jumps = 2 * low <= (ends(farthest)[1] + gaps) * (1 + 2.0**-40)
    apart = np.where(jumps, high + last, np.maximum(high - last, last - low))
    if window.curvature is None:  # |grad(w) - grad(w_end)| <= L |w - w_end|, seed by seed
        changed = window.smoothness * np.sqrt(np.sum(apart**2, axis=0, keepdims=True))
    else:
        changed = window.curvature[:, None] * apart
    found = np.max(np.abs(window.end_gradient) + changed, axis=1) * (1 + 2.0**-40)
    # the gradient at the end is a binary64 number, its error relative to the terms that known is the sum of
    return np.minimum(known, np.where(np.isfinite(known), found + 2.0**-40 * known, np.inf))
