"""Every rounding behind a stored moving average, along a record: its gap, the place in it, its error in the mean.

The stored state is x' = B x + c q + sum_k w_k xi_k, exactly: xi_k is the error of slot k against its exact operand,
w_k what the operations after it multiply it with (scalars and g, both known before the step). So a step may add,
subtract, and multiply by what carries no error; a product of two rounded values has no such form.

Before a rounding its exact operand is known, given the roundings before it. Of a result in between that was not
recorded the two neighbours of its exact operand are known: bounds are taken over all such cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fpsim.number_format import Format
from fpsim.program import Operation
from fpsim.rounding import Rounding, Stochastic, is_nearest
from theory.composition import NoEnclosure
from theory.rounding_model import shrinks
from theory.window import BoolArray, FloatArray, Window

MOST_CASES = 16  # of a value's neighbours; beyond, only the extremes are kept
EXACT_BITS = 40  # of wider significands the place in the gap is not resolved in binary64


@dataclass(frozen=True)
class SlotErrors:
    """What one slot adds to the state in each step, [n, d', S']: up to float errors of some 2^-52.

    Attributes
    ----------
    gap : |w| times the distance of the two values that the rounding may take, 0 where it is exact
    low, high : ends of an interval of the probability that w xi is the larger of its two values, given all before
    sure : bound of |w xi| for deterministic modes, of |E w xi| for stochastic ones (R4n)
    """

    slot: str
    stochastic: bool
    gap: FloatArray
    low: FloatArray
    high: FloatArray
    sure: FloatArray

    def times(self, factor: FloatArray | float) -> SlotErrors:
        size, turned = np.abs(factor), np.less(factor, 0)
        low, high = (np.where(turned, 1 - x, y) for x, y in ((self.high, self.low), (self.low, self.high)))
        return replace(self, gap=self.gap * size, low=low, high=high, sure=self.sure * size)


@dataclass(frozen=True)
class _Value:
    """[cases, n, d', S'] what a name may hold; where ``vague``, only between the extremes of the cases."""

    cases: FloatArray
    vague: BoolArray
    errors: tuple[SlotErrors, ...] = ()

    def negated(self) -> _Value:
        return _Value(-self.cases, self.vague, tuple(e.times(-1.0) for e in self.errors))


def slot_errors(window: Window, state: str) -> tuple[SlotErrors, ...]:
    """The roundings between a recorded state and g on one side and the next state on the other.

    Raises
    ------
    NoEnclosure
        The step is not made of sums and of products with scalars and g, or one of its scalars varies.
    """
    operations = {o.slot: o for o in window.program.operations}
    g = window.history["g"]
    known = {state: window.history[state][:-1], "g": g}
    found: dict[str, _Value] = {}

    def value(name: str) -> _Value:
        if name not in found:
            found[name] = computed(name)
        return found[name]

    def computed(name: str) -> _Value:
        if name in known:
            return _Value(known[name][np.newaxis], np.zeros(g.shape, dtype=np.bool_))
        if name.startswith("scalar."):
            if name not in window.scalars:
                raise NoEnclosure(name, "it changes from step to step")
            return _Value(np.full((1, *g.shape), window.scalars[name]), np.zeros(g.shape, dtype=np.bool_))
        if name not in operations:
            raise NoEnclosure(name, "it was not recorded")
        operation = operations[name]
        result, slack = _exactly(operation, [value(x) for x in operation.operands])
        if not operation.rounded:
            return result
        between = _rounded(result, slack, name, *window.slots[name])
        if name not in window.history:
            return between
        return replace(between, cases=window.history[name][np.newaxis], vague=np.zeros(g.shape, dtype=np.bool_))

    with np.errstate(all="ignore"):  # what is not finite makes the bound infinite, and no bound
        stored = value(dict(window.program.outputs)[state])
        exact = np.zeros(stored.cases.shape)
        return _rounded(stored, exact, f"{state} ->", *window.slots[state]).errors


def _exactly(operation: Operation, operands: list[_Value]) -> tuple[_Value, FloatArray]:
    """The exact result in binary64, and a bound of what binary64 is off by."""
    kind, slot = operation.kind, operation.slot
    if kind == "round":
        return operands[0], np.zeros(operands[0].cases.shape)
    if kind == "neg":
        return operands[0].negated(), np.zeros(operands[0].cases.shape)
    if kind in ("add", "sub"):
        first, second = operands
        return _sum(slot, first, second.negated() if kind == "sub" else second)
    if kind == "mul":
        return _product(slot, *operands)
    if kind == "fma":
        product, off = _product(slot, *operands[:2])
        total, further = _sum(slot, product, operands[2])
        return total, further + np.repeat(off, len(operands[2].cases), axis=0)
    raise NoEnclosure(slot, f"an operation of kind {kind}")


def _pairs(
    first: _Value, second: _Value, join: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
) -> tuple[_Value, FloatArray]:
    """Every case of the one with every case of the other."""
    result, off = join(first.cases[:, np.newaxis], second.cases[np.newaxis])
    shape = (-1, *result.shape[2:])
    return _Value(result.reshape(shape), first.vague | second.vague), off.reshape(shape)


def _sum(slot: str, first: _Value, second: _Value) -> tuple[_Value, FloatArray]:
    if {e.slot for e in first.errors} & {e.slot for e in second.errors}:
        raise NoEnclosure(slot, "a sum of two values with one rounding in common")

    def join(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        total = a + b
        rest = total - a  # Knuth's two-sum: the error of a + b is itself a binary64 number
        return total, np.abs((a - (total - rest)) + (b - rest))

    total, off = _pairs(first, second, join)
    return replace(total, errors=first.errors + second.errors), off


def _product(slot: str, first: _Value, second: _Value) -> tuple[_Value, FloatArray]:
    if first.errors and second.errors:
        raise NoEnclosure(slot, "a product of two rounded values")

    def join(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        product = a * b
        (p, q), (r, s) = _halves(a), _halves(b)
        off = np.abs(((p * r - product) + p * s + q * r) + q * s)  # Dekker; not where a part underflows
        tiny = (np.abs(product) < 2.0**-900) & (a != 0) & (b != 0)
        return product, np.where(np.isfinite(off), off, np.abs(product) * 2.0**-52) + np.where(tiny, 2.0**-1070, 0.0)

    product, off = _pairs(first, second, join)
    rounded, known = (first, second) if first.errors else (second, first)
    return replace(product, errors=tuple(e.times(known.cases[0]) for e in rounded.errors)), off


def _halves(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """x as a sum of two numbers of 26 bits (Veltkamp)."""
    scaled = x * (2.0**27 + 1)
    high = scaled - (scaled - x)
    return high, x - high


def _rounded(exact: _Value, off: FloatArray, slot: str, fmt: Format, mode: Rounding) -> _Value:
    """The two neighbours of every case, and the slot's errors."""
    y = exact.cases
    gap = _spacing(np.abs(y) + off, fmt)
    low, high = np.floor(y / gap) * gap, np.ceil(y / gap) * gap
    low, high = np.where(y - low < off, low - gap, low), np.where(high - y < off, high + gap, high)
    inside = high - low <= gap
    vague = exact.vague | ~np.all(inside, axis=0) | (fmt.precision > EXACT_BITS)
    gap = np.where((high > low) | vague, gap, 0.0)
    widest = np.max(gap, axis=0)
    share = 0.5 if is_nearest(mode) else 1.0
    if isinstance(mode, Stochastic):
        share = 2.0**-mode.bits if shrinks(mode) else 2.0 ** -(mode.bits + 1)
    places = (((y - low) - off) / gap - share, ((y - low) + off) / gap + share)  # y - low is exact
    least, most = (np.where(gap > 0, np.clip(x, 0.0, 1.0), edge) for x, edge in zip(places, (1.0, 0.0), strict=True))
    least, most = (np.where(vague, edge, x) for edge, x in ((0.0, np.min(least, axis=0)), (1.0, np.max(most, axis=0))))
    own = SlotErrors(slot, isinstance(mode, Stochastic), widest, np.minimum(least, most), most, share * widest)
    cases = np.concatenate([low, high]) if np.any(high > low) else low
    if len(cases) > MOST_CASES:
        cases, vague = np.stack([np.min(cases, axis=0), np.max(cases, axis=0)]), np.ones_like(vague)
    return _Value(cases, vague, (*exact.errors, own) if np.any(widest > 0) else exact.errors)


def _spacing(size: FloatArray, fmt: Format) -> FloatArray:
    """``exact.quantum`` of binary64 numbers; at 0 that of the smallest numbers."""
    exponent = np.where(size > 0, np.frexp(size)[1] - 1, fmt.emin)
    spacing = np.ldexp(1.0, np.maximum(exponent, fmt.emin) - fmt.mantissa_bits)
    below = (size < fmt.smallest_normal) & (not fmt.subnormals)
    return np.asarray(np.where(below, fmt.smallest_normal, spacing), dtype=np.float64)
