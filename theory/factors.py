"""The terms that composition works with: exact values times products of rounding factors, and the symbols of both."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import sympy as sp

Exponents: TypeAlias = Mapping[str, tuple[Fraction, Fraction]]


class NoEnclosure(Exception):
    """No relative enclosure follows; ``slot`` says where, ``reason`` why."""

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

    def merged(self, slot: str) -> Term:
        """All terms as one. ``NoEnclosure`` at ``slot`` unless there is one or all have one sign."""
        if len(self.terms) == 1:
            return self.terms[0]
        if not all(term.nonnegative for term in self.terms):
            listed = ", ".join(str(term.exact) for term in self.terms)
            raise NoEnclosure(slot, f"the rounded terms {listed} may cancel")
        exponents = {
            s: (
                min(t.exponents.get(s, (Fraction(0),) * 2)[0] for t in self.terms),
                max(t.exponents.get(s, (Fraction(0),) * 2)[1] for t in self.terms),
            )
            for s in dict.fromkeys(itertools.chain.from_iterable(t.exponents for t in self.terms))
        }
        return Term(sp.Add(*(t.exact for t in self.terms)), exponents, True)


def negated(term: Term) -> Term:
    return Term(-term.exact, term.exponents, False)


def combined(a: Exponents, b: Exponents, weight: int | Fraction) -> Exponents:
    """Exponents of A * B^weight."""
    result = dict(a)
    for slot, (x, y) in b.items():
        least_, most = result.get(slot, (Fraction(0), Fraction(0)))
        result[slot] = (least_ + min(weight * x, weight * y), most + max(weight * x, weight * y))
    return result


def symbol(name: str, *, nonnegative: bool = False) -> sp.Symbol:
    """The symbol of an array, a scalar (taken positive) or a slot's value."""
    if name.startswith("scalar."):
        return sp.Symbol(name, positive=True)
    return sp.Symbol(name, nonnegative=True) if nonnegative else sp.Symbol(name, real=True)


def low(slot: str) -> sp.Symbol:
    """l of the slot: the least 1 + delta."""
    return sp.Symbol(f"l[{slot}]", positive=True)


def high(slot: str) -> sp.Symbol:
    """h of the slot: the largest 1 + delta."""
    return sp.Symbol(f"h[{slot}]", positive=True)


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
    lower, upper = sp.Integer(1), sp.Integer(1)
    for slot, (a, b) in exponents.items():
        l_, h_ = low(slot), high(slot)
        small = [l_ ** sp.Rational(b)] if b > 0 else []
        large = [h_ ** sp.Rational(b)] if b > 0 else []
        if a < 0:
            small.append(h_ ** sp.Rational(a))
            large.append(l_ ** sp.Rational(a))
        lower *= sp.Min(*small) if small else 1
        upper *= sp.Max(*large) if large else 1
    return lower, upper
