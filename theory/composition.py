"""What all roundings of a program together can do to one of its values, read off the program itself.

A computed value is written as a sum of terms and an absolute part,

    computed = sum_i exact_i * prod_s (1 + delta_s)^{k_is}  +  e,      |e| <= absolute,

with l_s <= 1 + delta_s <= h_s for every slot s (R1, R2 of ``rounding_model``) and k_is in a known interval. Rules:

* products add exponents, quotients subtract, square roots halve;
* a sum of terms of one sign is one term: a weighted mean of the factors lies between two of them, and what lies
  between two products prod (1+delta_s)^{k_s} and prod (1+delta_s)^{k'_s} is such a product with exponents in between;
* a sum or difference of values that carry no rounding yet is a new exact value; other sums of terms of unknown sign
  stay apart, and whoever needs one factor for them gets ``NoEnclosure``, naming the slot;
* neg, abs, max, min are exact and monotone; so is a product with a scalar whose stored value is a power of two, up to
  underflow, if the result has the precision of the other operand;
* underflow (R3) enters the absolute part and is carried along with the measured sizes of the other operands.

``exact`` names the values that are the reference: stored states, the stored gradient. Any other array contributes the
factor of its own slot, the error of storing it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

import sympy as sp

from fpsim.number_format import Format
from fpsim.program import Operation, Program
from fpsim.rounding import Rounding
from theory.enclosure import enclose
from theory.factors import (
    Composed,
    Exponents,
    NoEnclosure,
    Term,
    combined,
    eta,
    factor_bounds,
    high,
    least,
    low,
    negated,
    size,
    symbol,
)
from theory.rounding_model import low_high, underflow_unit

Slots: TypeAlias = Mapping[str, tuple[Format, Rounding]]

__all__ = [
    "Composed",
    "Factor",
    "NoEnclosure",
    "Slots",
    "Term",
    "compose",
    "eta",
    "factor_bounds",
    "high",
    "least",
    "low",
    "model_values",
    "relative_factor",
    "size",
    "symbol",
]

_LINEAR = {"add": 1, "sub": -1}


@dataclass(frozen=True)
class Factor:
    """low <= computed/exact <= high where no underflow happened; |computed - exact * factor| <= absolute in general.

    Attributes
    ----------
    exact : what is computed, in the names of the exact values
    exponents : slot -> interval of the exponent of its (1 + delta)
    low, high : in the symbols l(slot), h(slot)
    low_value, high_value : enclosures (lower end, upper end) of the two numbers for the given formats
    absolute : in the symbols eta(slot), size(name), least(name)
    underflow_slots : slots whose eta appears in ``absolute``
    """

    exact: sp.Expr
    exponents: Exponents
    low: sp.Expr
    high: sp.Expr
    low_value: tuple[float, float]
    high_value: tuple[float, float]
    absolute: sp.Expr
    underflow_slots: tuple[str, ...]


def model_values(slots: Slots, names: Collection[str]) -> dict[sp.Symbol, Fraction]:
    """l, h and eta of the named slots as exact rationals."""
    values: dict[sp.Symbol, Fraction] = {}
    for name in names:
        fmt, rounding = slots[name]
        l_, h_ = low_high(fmt, rounding)
        values[low(name)] = Fraction(int(l_.p), int(l_.q))
        values[high(name)] = Fraction(int(h_.p), int(h_.q))
        values[eta(name)] = underflow_unit(fmt, rounding)
    return values


def compose(
    program: Program,
    slots: Slots,
    value: str,
    *,
    exact: Collection[str] = (),
    nonnegative: Collection[str] = (),
    scalars: Mapping[str, float] | None = None,
) -> Composed:
    """The terms of a value.

    Parameters
    ----------
    value : name of an array, a scalar, an operation, or ``"NAME ->"`` for what is stored in state NAME after the step
    exact : names taken as the reference; the walk stops there
    nonnegative : those of them that are known to be >= 0
    scalars : stored values; a scalar without one may be anything

    Raises
    ------
    NoEnclosure
        A quotient by, or a root of, terms that may cancel; a kind of operation without a rule.

    Examples
    --------
    >>> from fpsim.optim.sgd import sgd
    >>> from fpsim.precision import Precision
    >>> slots = Precision.uniform("bfloat16").resolve(sgd)
    >>> compose(sgd, slots, "w ->", exact=("w", "g")).terms[0].exact
    w
    """
    return _Walk(program, slots, frozenset(exact), frozenset(nonnegative), scalars or {}).value(value)


def relative_factor(
    program: Program,
    slots: Slots,
    value: str,
    exact: Collection[str] = (),
    nonnegative: Collection[str] = (),
    scalars: Mapping[str, float] | None = None,
) -> Factor:
    """The value as one exact expression times a factor; arguments as for ``compose``.

    Raises
    ------
    NoEnclosure
        The value is a sum of rounded terms that may cancel.
    """
    composed = compose(program, slots, value, exact=exact, nonnegative=nonnegative, scalars=scalars)
    term = composed.merged(value)
    lower, upper = factor_bounds(term.exponents)
    values = model_values(slots, tuple(term.exponents))
    return Factor(
        exact=term.exact,
        exponents=term.exponents,
        low=lower,
        high=upper,
        low_value=enclose(lower, values),
        high_value=enclose(upper, values),
        absolute=composed.absolute,
        underflow_slots=composed.underflow_slots,
    )


class _Walk:
    def __init__(
        self,
        program: Program,
        slots: Slots,
        exact: frozenset[str],
        nonnegative: frozenset[str],
        scalars: Mapping[str, float],
    ) -> None:
        self.program, self.slots, self.exact, self.nonnegative = program, slots, exact, nonnegative
        self.scalars = scalars
        self.known: dict[str, Composed] = {}

    def value(self, name: str) -> Composed:
        if name.endswith(" ->"):
            return self._stored(name.removesuffix(" ->"))
        if name not in self.known:
            self.known[name] = self._value(name)
        return self.known[name]

    def _value(self, name: str) -> Composed:
        atom = symbol(name, nonnegative=name in self.nonnegative)
        term = Term(atom, {}, bool(atom.is_nonnegative))
        if name in self.exact or name.startswith("scalar."):
            return Composed((term,), sp.Integer(0), ())
        if name in self.program.inputs:
            return Composed((term.rounded(name),), eta(name), (name,))
        return self._operation(self.program.operation(name))

    def _stored(self, array: str) -> Composed:
        source = dict(self.program.outputs)[array]
        computed = self.value(source)
        return computed if self._holds(array, source) else self._rounding(array, computed, tiny=True)

    def _operation(self, o: Operation) -> Composed:
        parts = [self.value(name) for name in o.operands]
        tiny = tuple(dict.fromkeys(s for part in parts for s in part.underflow_slots))
        if o.kind == "round":
            if self._holds(o.slot, o.operands[0]):
                return parts[0]
            return self._rounding(o.slot, parts[0], tiny=True)
        if o.kind in _LINEAR:
            return self._rounding(o.slot, self._sum(parts, _LINEAR[o.kind], tiny), tiny=not self._aligned(o))
        if o.kind == "fma":
            product = self._product(o.operands[:2], parts[:2], tiny)
            return self._rounding(o.slot, self._sum([product, parts[2]], 1, tiny), tiny=True)
        if o.kind == "mul":
            product = self._product(o.operands, parts, tiny)
            if self._shifts(o):
                return replace(
                    product,
                    absolute=product.absolute + eta(o.slot),
                    underflow_slots=tuple(dict.fromkeys((*tiny, o.slot))),
                )
            return self._rounding(o.slot, product, tiny=True)
        if o.kind == "div":
            return self._rounding(o.slot, self._quotient(o, parts, tiny), tiny=True)
        if o.kind == "sqrt":
            term = parts[0].merged(o.slot)
            root = Term(sp.sqrt(term.exact), combined({}, term.exponents, Fraction(1, 2)), True)
            return self._rounding(o.slot, Composed((root,), sp.sqrt(parts[0].absolute), tiny), tiny=True)
        if o.kind == "neg":
            return Composed(tuple(negated(t) for t in parts[0].terms), parts[0].absolute, tiny)
        if o.kind == "abs":
            term = parts[0].merged(o.slot)
            return Composed((Term(sp.Abs(term.exact), term.exponents, True),), parts[0].absolute, tiny)
        if o.kind in ("max", "min"):
            return self._extreme(o, parts, tiny)
        raise NoEnclosure(o.slot, f"no composition rule for {o.kind}")

    def _rounding(self, slot: str, x: Composed, *, tiny: bool) -> Composed:
        absolute = x.absolute * high(slot) + (eta(slot) if tiny else 0)
        names = (*x.underflow_slots, slot) if tiny else x.underflow_slots
        return Composed(tuple(term.rounded(slot) for term in x.terms), absolute, tuple(dict.fromkeys(names)))

    def _sum(self, parts: list[Composed], sign: int, tiny: tuple[str, ...]) -> Composed:
        x, y = parts
        second = y.terms if sign > 0 else tuple(negated(t) for t in y.terms)
        terms = (*x.terms, *second)
        if not any(term.exponents for term in terms):
            terms = (Term(sp.Add(*(t.exact for t in terms)), {}, all(t.nonnegative for t in terms)),)
        return Composed(terms, x.absolute + y.absolute, tiny)

    def _product(self, names: tuple[str, ...], parts: list[Composed], tiny: tuple[str, ...]) -> Composed:
        x, y = parts
        square = names[0] == names[1]
        if square or min(len(x.terms), len(y.terms)) > 1:
            x, y = (Composed((z.merged(name),), z.absolute, ()) for z, name in zip(parts, names, strict=True))
        terms = tuple(
            Term(a.exact * b.exact, combined(a.exponents, b.exponents, 1), square or (a.nonnegative and b.nonnegative))
            for a in x.terms
            for b in y.terms
        )
        absolute = x.absolute * _size(names[1]) + (_size(names[0]) + x.absolute) * y.absolute
        return Composed(terms, absolute, tiny)

    def _quotient(self, o: Operation, parts: list[Composed], tiny: tuple[str, ...]) -> Composed:
        x, y = parts
        below = y.merged(o.slot)
        terms = tuple(
            Term(t.exact / below.exact, combined(t.exponents, below.exponents, -1), t.nonnegative and below.nonnegative)
            for t in x.terms
        )
        # x/y - (x-e_x)/(y-e_y) = e_x/y - (x-e_x)/(y-e_y) e_y/y for the computed x, y and their absolute parts
        top, bottom = _size(o.operands[0]), _least(o.operands[1])
        absolute = x.absolute / bottom
        if y.absolute != 0:
            absolute += (top + x.absolute) * y.absolute / (bottom * (bottom - y.absolute))
        return Composed(terms, absolute, tiny)

    def _extreme(self, o: Operation, parts: list[Composed], tiny: tuple[str, ...]) -> Composed:
        first, second = (part.merged(o.slot) for part in parts)
        # max(x F, y G) with F, G > 0 is max(x, y) times something between F and G, whatever the signs of x and y
        alike = tuple(Term(sp.Integer(0), part.exponents, True) for part in (first, second))
        exponents = Composed(alike, sp.Integer(0), ()).merged(o.slot).exponents
        choose = sp.Max if o.kind == "max" else sp.Min
        if o.kind == "max":
            nonnegative = first.nonnegative or second.nonnegative
        else:
            nonnegative = first.nonnegative and second.nonnegative
        term = Term(choose(first.exact, second.exact), exponents, nonnegative)
        return Composed((term,), parts[0].absolute + parts[1].absolute, tiny)

    def _format_of(self, name: str) -> Format:
        """The format whose grid holds the named value."""
        if name in self.slots:
            return self.slots[name][0]
        return self._format_of(self.program.operation(name).operands[0])

    def _holds(self, slot: str, source: str) -> bool:
        return self.slots[slot][0].holds(self._format_of(source))

    def _shifts(self, o: Operation) -> bool:
        """Whether a product only changes the exponent."""
        for scalar, other in (o.operands, o.operands[::-1]):
            value = self.scalars.get(scalar, 0.0)
            if math.isfinite(value) and math.frexp(value)[0] == 0.5:
                return self.slots[o.slot][0].precision >= self._format_of(other).precision
        return False

    def _aligned(self, o: Operation) -> bool:
        """Whether a tiny sum is exact: operands are multiples of the result's smallest subnormal number."""
        fmt = self.slots[o.slot][0]
        if not fmt.subnormals or fmt.tiny == "flush":
            return False
        return all(_unit(self._format_of(name)) >= fmt.smallest_subnormal for name in o.operands)


def _unit(fmt: Format) -> float:
    """A number of which every value of the format is a multiple: the quantum of its smallest binade."""
    return float(2.0 ** (fmt.emin - fmt.mantissa_bits))


def _size(name: str) -> sp.Symbol:
    return symbol(name) if name.startswith("scalar.") else size(name)


def _least(name: str) -> sp.Symbol:
    return symbol(name) if name.startswith("scalar.") else least(name)
