"""Deciding identities and signs of expressions: sufficient, rigorous, and never by sampling alone.

An identity holds if simplification brings the difference to zero. A sign holds if
1. every factor of numerator and denominator has it: an even power, or a polynomial whose coefficients have one sign
   after every variable has been written in a parameter t >= 0 (x = lo + t on [lo, oo), x = (lo + hi t)/(1 + t) on
   [lo, hi)): Polya's certificate, in exact rationals; one variable: Sturm's root count; or
2. interval subdivision proves it: on every box of a finite cover the ball of the value lies on the right side (only
   strict signs on compact boxes).
Sampling is used only to refute: a point where the ball of the value certainly has the wrong sign.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

import sympy as sp

from theory.enclosure import BITS, Ball, ball, compile_expression, working_precision

# variable -> its interval; a variable that is not listed has the interval of its SymPy assumptions
Domain: TypeAlias = Mapping[sp.Symbol, sp.Interval]
_Intervals: TypeAlias = frozenset[tuple[sp.Symbol, sp.Interval]]  # a domain that can be remembered

_BOXES = 20_000
_POINTS = 12
# a chain asks the same of an expression many times over, and its mutants (theory.mutation) once per change
_REMEMBERED = 1 << 15


def interval_of(symbol: sp.Symbol, domain: Domain) -> sp.Interval:
    """Where a variable lies: its entry in ``domain``, or what its assumptions (positive, nonnegative, real) say."""
    if symbol in domain:
        return domain[symbol]
    if symbol.is_positive:
        return sp.Interval.open(0, sp.oo)
    if symbol.is_nonnegative:
        return sp.Interval(0, sp.oo)
    if symbol.is_real:
        return sp.Interval.open(-sp.oo, sp.oo)
    raise ValueError(f"symbol {symbol} is neither real nor nonnegative nor positive, and has no domain")


def is_identity(difference: sp.Expr, domain: Domain | None = None) -> bool:
    """Whether ``difference`` is identically zero."""
    expression = sp.sympify(difference)
    return _is_identity(expression, _part_for(domain, expression))


@lru_cache(_REMEMBERED)
def _is_identity(difference: sp.Expr, domain: _Intervals) -> bool:
    if difference == 0:
        return True
    if _refuted(difference, dict(domain), lambda x: x > 0 or x < 0):
        return False
    simplifiers = (sp.expand, lambda e: sp.cancel(sp.together(e)), sp.radsimp, sp.simplify)
    return any(simplifier(difference) == 0 for simplifier in simplifiers)


def has_sign(
    expression: sp.Expr,
    domain: Domain | None = None,
    *,
    strict: bool = False,
    facts: Iterable[tuple[sp.Expr, bool]] = (),
) -> bool:
    """Whether ``expression`` >= 0 (> 0 if ``strict``) is proven on the domain.

    ``facts`` are expressions known to be >= 0, with a flag whether they are > 0; the expression may be a product or
    quotient of one of them with something of provable sign. ``False`` means not proven, not disproven.
    """
    expression = sp.sympify(expression)
    known = [(sp.sympify(fact), positive) for fact, positive in facts]
    if expression == 0:
        return not strict
    if not known:
        return _is_signed(expression, _part_for(domain, expression), strict)
    if _by_factors(expression, _part_for(domain, expression), strict):
        return True
    usable = (fact for fact, positive in known if fact != 0 and (positive or not strict))
    return any(_has_sign_of(fact, expression, _part_for(domain, expression, fact), strict) for fact in usable)


@lru_cache(_REMEMBERED)
def _is_signed(expression: sp.Expr, domain: _Intervals, strict: bool) -> bool:
    if _refuted(expression, dict(domain), lambda x: x < 0):
        return False
    return _by_factors(expression, domain, strict) or _subdivided(expression, dict(domain))


@lru_cache(_REMEMBERED)
def _by_factors(expression: sp.Expr, domain: _Intervals, strict: bool) -> bool:
    return _algebraic(expression, dict(domain), strict)


@lru_cache(_REMEMBERED)
def _has_sign_of(fact: sp.Expr, expression: sp.Expr, domain: _Intervals, strict: bool) -> bool:
    """Whether the expression is the fact times something of provable sign."""
    where, share = dict(domain), expression / fact
    return not _refuted(share, where, lambda x: x < 0) and _algebraic(sp.cancel(sp.together(share)), where, strict)


def _part_for(domain: Domain | None, *expressions: sp.Expr) -> _Intervals:
    """The intervals of the variables that occur."""
    symbols = set().union(*(e.free_symbols for e in expressions))
    return frozenset((s, interval) for s, interval in (domain or {}).items() if s in symbols)


def _algebraic(expression: sp.Expr, domain: Domain, strict: bool) -> bool:
    """Sign by factors; variables that may be negative are split into their two signs."""
    symbols = sorted(expression.free_symbols, key=str)
    if any(isinstance(a, (sp.exp, sp.log, sp.Max, sp.Min)) for a in sp.preorder_traversal(expression)):
        return False
    powers = [a for a in expression.atoms(sp.Pow) if a.exp.is_Rational]
    root = math.lcm(*(int(a.exp.q) for a in powers))
    choices = [_parameters(s, interval_of(s, domain), strict, root) for s in symbols]
    for choice in itertools.product(*choices):
        rewritten = expression.subs(dict(zip(symbols, (value for value, _ in choice), strict=True)), simultaneous=True)
        positive = {p for _, parameter in choice for p, is_positive in parameter.items() if is_positive}
        sign, nonzero = _sign_of_quotient(rewritten, positive)
        if sign != 1 or (strict and not nonzero):
            return False
    return True


def _parameters(
    symbol: sp.Symbol, interval: sp.Interval, strict: bool, root: int
) -> list[tuple[sp.Expr, dict[sp.Symbol, bool]]]:
    """The variable in a parameter t >= 0, piece by piece: (expression, {t: whether t > 0}).

    On [0, oo) it is the ``root``-th power of the parameter, so that its roots become polynomials.
    """
    low, high = interval.start, interval.end
    y = sp.Dummy(f"t_{symbol}", positive=True)
    if low == -sp.oo and high == sp.oo:
        return [(y, {y: False}), (-y, {y: False})]
    if low == -sp.oo:
        return [(high - y, {y: bool(interval.right_open)})]
    if high == sp.oo:
        if low == 0:
            return [(y**root, {y: bool(interval.left_open)})]
        return [(low + y, {y: bool(interval.left_open)})]
    inside = (low + high * y) / (1 + y)
    pieces: list[tuple[sp.Expr, dict[sp.Symbol, bool]]] = [(inside, {y: bool(interval.left_open)})]
    if strict and not interval.right_open:
        pieces.append((high, {}))  # the limit t -> oo keeps >= but not >
    return pieces


def _sign_of_quotient(expression: sp.Expr, positive: set[sp.Symbol]) -> tuple[int, bool]:
    """(sign, certainly not zero) of a rational function of parameters t >= 0; sign 0 means undecided."""
    numerator, denominator = sp.fraction(sp.cancel(sp.together(sp.powdenest(expression, force=True))))
    sign, nonzero = 1, True
    for part in (numerator, denominator):
        if part == 0:
            return 1, False
        try:
            constant, factors = sp.factor_list(part)
        except sp.PolynomialError:  # a root of a sum is no polynomial
            return 0, False
        sign *= 1 if constant > 0 else -1
        for factor, multiplicity in factors:
            s, certain = _sign_of_polynomial(factor, positive)
            if multiplicity % 2 == 0 and s == 0:
                s, certain = 1, False
            sign *= s**multiplicity
            nonzero = nonzero and certain
    return sign, nonzero


def _sign_of_polynomial(factor: sp.Expr, positive: set[sp.Symbol]) -> tuple[int, bool]:
    generators = sorted(factor.free_symbols, key=str)
    try:
        terms = sp.Poly(factor, *generators).terms()
    except sp.PolynomialError:
        return 0, False
    if not all(coefficient.is_Rational for _, coefficient in terms):
        return 0, False
    signs = {1 if coefficient > 0 else -1 for _, coefficient in terms}
    if len(signs) != 1:
        if len(generators) == 1 and sp.Poly(factor, *generators).count_roots(0, sp.oo) == 0:
            return (1 if factor.subs(generators[0], 1) > 0 else -1), True  # Sturm: no root on [0, oo)
        return 0, False
    certain = any(all(n == 0 or g in positive for g, n in zip(generators, powers, strict=True)) for powers, _ in terms)
    return signs.pop(), certain


def _subdivided(expression: sp.Expr, domain: Domain) -> bool:
    """Whether expression > 0 on a compact box, by certified bisection."""
    symbols = sorted(expression.free_symbols, key=str)
    intervals = [interval_of(s, domain) for s in symbols]
    if not symbols or not all(i.start.is_finite and i.end.is_finite for i in intervals):
        return False
    try:
        function = compile_expression(expression, symbols)
    except ValueError:
        return False
    pending = [[(_fraction(i.start), _fraction(i.end)) for i in intervals]]
    with working_precision(BITS):
        for _ in range(_BOXES):
            if not pending:
                return True
            box = pending.pop()
            value = function([ball(low).union(ball(high)) for low, high in box])
            if value > 0:
                continue
            widest = max(range(len(box)), key=lambda k: box[k][1] - box[k][0])
            low, high = box[widest]
            middle = (low + high) / 2
            for half in ((low, middle), (middle, high)):
                pending.append([*box[:widest], half, *box[widest + 1 :]])
    return False


def _refuted(expression: sp.Expr, domain: Domain, wrong: Callable[[Ball], bool]) -> bool:
    """Whether some sample point certainly has the wrong sign (a proof of the contrary, not of the claim)."""
    symbols = sorted(expression.free_symbols, key=str)
    try:
        function = compile_expression(expression, symbols)
    except ValueError:
        return False
    generator = random.Random(20)
    with working_precision(BITS):
        for _ in range(_POINTS):
            value = function([_sample(interval_of(s, domain), generator) for s in symbols])
            if value.is_finite() and wrong(value):
                return True
    return False


def _sample(interval: sp.Interval, generator: random.Random) -> Ball:
    share = Fraction(generator.randrange(1, 1000), 1000)
    low, high = interval.start, interval.end
    if low == -sp.oo and high == sp.oo:
        return ball((share - Fraction(1, 2)) * 8)
    if low == -sp.oo:
        return ball(_fraction(high) - share / (1 - share))
    if high == sp.oo:
        return ball(_fraction(low) + share / (1 - share))
    return ball(_fraction(low) + share * (_fraction(high) - _fraction(low)))


def _fraction(number: sp.Expr) -> Fraction:
    rational = sp.Rational(number)
    return Fraction(int(rational.p), int(rational.q))
