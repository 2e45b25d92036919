"""The computed gradient in the mean: what a program's independent roundings do to E ghat, E |ghat| and E ghat^2.

If a value is a product of exact numbers, each rounded independently, then its mean is the exact product times the
product of the means: only the bias of n-bit stochastic rounding and the deterministic roundings of constants remain.
That covers curvature * (w - center). Any other value gets the factor that always holds (``composition``).
"""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb

from fpsim.rounding import Stochastic
from theory.composition import relative_factor
from theory.enclosure import BITS, Ball, ball, working_precision
from theory.theorems._mean_rounding import EXACT, RoundingMoments, moments
from theory.window import Window


@dataclass(frozen=True)
class GradientMean:
    """computed = exact * factor: bounds of E factor (low, high), of E factor^2 (second), and of the factor always.

    ``slots`` are those whose underflow would break it. The factor is positive.
    """

    low: Ball
    high: Ball
    second: Ball
    sure_low: Ball
    sure_high: Ball
    slots: tuple[str, ...]


@dataclass(frozen=True)
class _Product:
    """A product of independent roundings: their slots, and whether any has happened yet."""

    low: Ball
    high: Ball
    second: Ball
    sources: frozenset[str]


def gradient_mean(window: Window, value: str) -> GradientMean:
    """The factor of a value of the window's program against the same value in exact arithmetic.

    Raises
    ------
    NoEnclosure
        No relative factor follows; it names the slot.
    ValueError
        A slot on the way rounds neither to nearest nor stochastically.
    """
    exact = ("w", *window.exact_constants)
    factor = relative_factor(window.program, window.slots, value, exact=exact)
    low = ball(factor.low_value[0]).union(ball(factor.low_value[1]))
    high = ball(factor.high_value[0]).union(ball(factor.high_value[1]))
    with working_precision(BITS):
        product = _product(window, value)
        if product is None:
            return GradientMean(low, high, high * high, low, high, factor.underflow_slots)
        return GradientMean(product.low, product.high, product.second, low, high, factor.underflow_slots)


def stored(window: Window, slot: str, source: str) -> RoundingMoments:
    """The moments of storing ``source`` in ``slot``: exact where the slot's format holds the source's values."""
    fmt, rounding = window.slots[slot]
    held = source in window.slots and fmt.holds(window.slots[source][0])
    return EXACT if held else moments(fmt, rounding)


def _product(window: Window, name: str) -> _Product | None:
    """The value as a product of independent roundings, None if it is anything else."""
    one = arb(1)
    if name in ("w", *window.exact_constants) or name.startswith("scalar."):
        return _Product(one, one, one, frozenset())
    if name in window.program.inputs:
        # a constant, stored once (to nearest in a stochastic slot): the same factor in every step
        fmt, rounding = window.slots[name]
        sure = moments(fmt, "nearest_even" if isinstance(rounding, Stochastic) else rounding)
        return _Product(sure.sure_low, sure.sure_high, sure.sure_high**2, frozenset({name}))
    operation = window.program.operation(name)
    parts = [_product(window, operand) for operand in operation.operands]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if operation.kind == "round":
        return _times(known[0], stored(window, name, operation.operands[0]), name)
    if operation.kind in ("add", "sub") and not any(part.sources for part in known):
        return _times(known[0], moments(*window.slots[name]), name)
    if operation.kind == "mul" and not known[0].sources & known[1].sources:
        x, y = known
        joined = _Product(x.low * y.low, x.high * y.high, x.second * y.second, x.sources | y.sources)
        return _times(joined, moments(*window.slots[name]), name)
    return None


def _times(x: _Product, rounding: RoundingMoments, slot: str) -> _Product:
    if rounding is EXACT:
        return x
    return _Product(x.low * rounding.low, x.high * rounding.high, x.second * rounding.second, x.sources | {slot})
