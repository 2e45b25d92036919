"""The terms that composition works with: exact values times products of rounding factors, and the symbols of both.

A slot rounds every element of an array anew. Where an operation moves elements (``expand``, ``gather``, a reduction),
the factors of what it reads are those of other elements: they get names of their own, ``SLOT|OPERATION``, so that they
never cancel against the factors of the element that stands there. Bounds know the slot only: l[SLOT], h[SLOT].
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import sympy as sp

Exponents: TypeAlias = Mapping[str, tuple[Fraction, Fraction]]

_COPY = "|"


class NoEnclosure(Exception):
    """No enclosure of the wanted kind follows; ``slot`` says where, ``reason`` why."""

    def __init__(self, slot: str, reason: str) -> None:
        super().__init__(f"{slot}: {reason}")
        self.slot, self.reason = slot, reason


@dataclass(frozen=True)
class Term:
    """exact * prod_s (1 + delta_s)^k_s with k_s in ``exponents[s]``; ``nonnegative``: the exact part is known >= 0."""

    exact: sp.Expr
    exponents: Exponents
    nonnegative: bool

    def rounded(self, slot: str) -> Term:
        return Term(self.exact, combined(self.exponents, {slot: (Fraction(1), Fraction(1))}, 1), self.nonnegative)


@dataclass(frozen=True)
class Composed:
    """A value as terms, a bound of its absolute part, and the slots whose underflow entered it."""

    terms: tuple[Term, ...]
    absolute: sp.Expr
    underflow_slots: tuple[str, ...]

    @property
    def exact(self) -> sp.Expr:
        """What is computed, without any rounding."""
        return sp.Add(*(term.exact for term in self.terms))

    @property
    def inexact(self) -> bool:
        """Whether any rounding entered."""
        return self.absolute != 0 or any(term.exponents for term in self.terms)

    def merged(self, slot: str) -> Term:
        """All terms as one. ``NoEnclosure`` at ``slot`` unless there is one or all have one sign."""
        if len(self.terms) == 1:
            return self.terms[0]
        if not all(term.nonnegative for term in self.terms):
            listed = ", ".join(str(term.exact) for term in self.terms)
            raise NoEnclosure(slot, f"the rounded terms {listed} may cancel")
        return Term(self.exact, hull(*(term.exponents for term in self.terms)), True)

    def error(self) -> sp.Expr:
        """Bound of |computed - exact|: the sum of |term| (largest |factor - 1|), and the absolute part."""
        return sp.Add(*(magnitude(t.exact) * deviation(t.exponents) for t in self.terms if t.exponents), self.absolute)

    def collapsed(self) -> Composed:
        """One exact term; every rounding so far as part of ``absolute``."""
        term = Term(self.exact, {}, all(term.nonnegative for term in self.terms))
        return Composed((term,), self.error(), self.underflow_slots)


def magnitude(expression: sp.Expr) -> sp.Expr:
    """|x| of a value, which is real even where SymPy cannot tell (a quotient whose denominator may vanish)."""
    found = sp.Abs(expression)
    return sp.Max(expression, -expression) if found.has(sp.conjugate, sp.re, sp.im) else found


def negated(term: Term) -> Term:
    return Term(-term.exact, term.exponents, False)


def combined(a: Exponents, b: Exponents, weight: int | Fraction) -> Exponents:
    """Exponents of A * B^weight."""
    result = dict(a)
    for slot, (x, y) in b.items():
        least_, most = result.get(slot, (Fraction(0), Fraction(0)))
        result[slot] = (least_ + min(weight * x, weight * y), most + max(weight * x, weight * y))
    return result


def hull(*several: Exponents) -> Exponents:
    """The smallest intervals that hold the exponents of each; a factor that is missing has exponent 0."""
    none = (Fraction(0), Fraction(0))
    return {
        s: (min(e.get(s, none)[0] for e in several), max(e.get(s, none)[1] for e in several))
        for s in dict.fromkeys(itertools.chain.from_iterable(several))
    }


def moved(exponents: Exponents, operation: str) -> Exponents:
    """The factors of other elements, read through an operation."""
    return {f"{name}{_COPY}{operation}": interval for name, interval in exponents.items()}


def slot_of(name: str) -> str:
    """The slot that a factor belongs to.

    Examples
    --------
    >>> slot_of("v.square|norm")
    'v.square'
    """
    return name.partition(_COPY)[0]


def symbol(name: str, *, nonnegative: bool = False) -> sp.Symbol:
    """The symbol of an array, a scalar (taken positive) or a slot's value."""
    if name.startswith("scalar."):
        return sp.Symbol(name, positive=True)
    return sp.Symbol(name, nonnegative=True) if nonnegative else sp.Symbol(name, real=True)


def low(slot: str) -> sp.Symbol:
    """l of the slot: the least 1 + delta."""
    return sp.Symbol(f"l[{slot_of(slot)}]", positive=True)


def high(slot: str) -> sp.Symbol:
    """h of the slot: the largest 1 + delta."""
    return sp.Symbol(f"h[{slot_of(slot)}]", positive=True)


def unit(slot: str) -> sp.Symbol:
    """h - 1 of the slot to first order: u to nearest, 2u otherwise."""
    return sp.Symbol(f"u[{slot_of(slot)}]", positive=True)


def eta(slot: str) -> sp.Symbol:
    """Bound of the slot's underflow error; 0 on a run where nothing underflowed there."""
    return sp.Symbol(f"eta[{slot}]", nonnegative=True)


def size(name: str) -> sp.Symbol:
    """Largest |computed value| of the name on the run."""
    return sp.Symbol(f"size[{name}]", nonnegative=True)


def least(name: str) -> sp.Symbol:
    """Smallest |computed value| of the name on the run."""
    return sp.Symbol(f"least[{name}]", positive=True)


def factor_bounds(exponents: Exponents) -> tuple[sp.Expr, sp.Expr]:
    """(low, high) of prod_s (1+delta_s)^k_s: l <= 1 <= h, so each bound takes one end of each exponent interval."""
    return _factor_bounds(tuple(exponents.items()))


@functools.lru_cache(maxsize=1 << 12)
def _factor_bounds(exponents: tuple[tuple[str, tuple[Fraction, Fraction]], ...]) -> tuple[sp.Expr, sp.Expr]:
    lower, upper = sp.Integer(1), sp.Integer(1)
    for slot, (a, b) in exponents:
        l_, h_ = low(slot), high(slot)
        small = [l_ ** sp.Rational(b)] if b > 0 else []
        large = [h_ ** sp.Rational(b)] if b > 0 else []
        if a < 0:
            small.append(h_ ** sp.Rational(a))
            large.append(l_ ** sp.Rational(a))
        lower *= sp.Min(*small) if small else 1
        upper *= sp.Max(*large) if large else 1
    return lower, upper


def deviation(exponents: Exponents) -> sp.Expr:
    """Bound of |prod_s (1+delta_s)^k_s - 1|."""
    return _deviation(*factor_bounds(exponents)) if exponents else sp.Integer(0)


@functools.lru_cache(maxsize=1 << 12)
def _deviation(lower: sp.Expr, upper: sp.Expr) -> sp.Expr:
    return sp.Max(upper - 1, 1 - lower)


def coefficients(exponents: Exponents) -> dict[str, Fraction]:
    """slot -> d/du of the bounds of the factor at u = 0, in units of ``unit(slot)``: the largest |exponent|, added up
    over the slot's roundings of different elements.

    Examples
    --------
    >>> coefficients({"v": (Fraction(-3), Fraction(1)), "v|norm": (Fraction(0), Fraction(2))})
    {'v': Fraction(5, 1)}
    """
    total: dict[str, Fraction] = {}
    for name, (a, b) in exponents.items():
        total[slot_of(name)] = total.get(slot_of(name), Fraction(0)) + max(-a, b, Fraction(0))
    return {slot: k for slot, k in total.items() if k}


def first_order(exponents: Exponents) -> sp.Expr:
    """The relative error to first order: sum of coefficient times unit."""
    return sp.Add(*(sp.Rational(k) * unit(slot) for slot, k in coefficients(exponents).items()))
