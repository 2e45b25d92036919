"""Numbers that cannot lie: SymPy expressions evaluated in ball arithmetic (Arb), ends rounded outward.

>>> import sympy as sp
>>> x = sp.Symbol("x")
>>> low, high = enclose(sp.sqrt(x) / 3, {x: 2})
>>> low < high < low * (1 + 1e-15)
True
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import sympy as sp
from flint import arb, fmpq

from fpsim import elementary

BITS = 160  # three binary64 significands: cancellation of two operands still leaves an accurate float

Number: TypeAlias = int | float | Fraction
Ball: TypeAlias = Any  # flint.arb
Evaluator: TypeAlias = Callable[[Sequence[Ball]], Ball]


def working_precision(bits: int = BITS) -> AbstractContextManager[None]:
    """Ball arithmetic with ``bits`` bits, one thread at a time: Arb's precision is one number for the whole process."""
    return elementary.working_precision(bits)


def ball(x: Number | Ball) -> Ball:
    """The ball of one number: exact for an int or float, an enclosure for a Fraction; a ball is returned as is."""
    if isinstance(x, arb):
        return x
    if isinstance(x, float):
        return arb(float(x))
    if isinstance(x, Fraction):
        return arb(fmpq(x.numerator, x.denominator))
    if isinstance(x, (int, np.integer)):
        return arb(int(x))
    return arb(float(x))


def compile_expression(expression: sp.Expr, symbols: Sequence[sp.Symbol]) -> Evaluator:
    """Turn an expression into a function of balls, one per symbol, in that order.

    Understands numbers, + * powers, exp, log, Abs, Min, Max. ``ValueError`` names anything else.
    """
    return _compiled(sp.sympify(expression), tuple(symbols))


# Theorems evaluate the same formulas window after window. Symbols of one name and other assumptions differ.
@functools.lru_cache(maxsize=1 << 12)
def _compiled(expression: sp.Expr, symbols: tuple[sp.Symbol, ...]) -> Evaluator:
    places: dict[sp.Expr, int] = {symbol: index for index, symbol in enumerate(symbols)}
    steps: list[Evaluator] = []

    def place(e: sp.Expr) -> int:
        """Where the value of a part will stand, behind the symbols' and those of the parts before: each is one step."""
        if e not in places:
            step = _step(e, place, symbols)
            places[e] = len(symbols) + len(steps)
            steps.append(step)
        return places[e]

    last = place(expression)

    def run(values: Sequence[Ball]) -> Ball:
        known = list(values)
        for step in steps:
            known.append(step(known))
        return known[last]

    return run


def _step(e: sp.Expr, place: Callable[[sp.Expr], int], symbols: Sequence[sp.Symbol]) -> Evaluator:
    """One operation on values that stand at known places."""
    if isinstance(e, sp.Integer):
        whole = arb(int(e.p))
        return lambda known: whole
    if isinstance(e, sp.Rational):
        fraction = fmpq(int(e.p), int(e.q))
        # a ball at call time: the working precision of the call decides the radius of 1/3
        return lambda known: arb(fraction)
    if isinstance(e, sp.Float):
        raise ValueError(f"{e}: a decimal float in a formula is not exact; write a Rational or pass a value")
    if e is sp.oo:
        return lambda known: arb.pos_inf()
    if e is sp.E:
        return lambda known: arb(1).exp()
    if e is sp.pi:
        return lambda known: arb.pi()
    if isinstance(e, sp.Pow):
        return _power(e, place)
    parts = [place(a) for a in e.args]
    if isinstance(e, sp.Add):
        return lambda known: _fold(arb(0), parts, known, operator.add)
    if isinstance(e, sp.Mul):
        return lambda known: _fold(arb(1), parts, known, operator.mul)
    if isinstance(e, (sp.Max, sp.Min)):
        rest, choose = parts[1:], arb.max if isinstance(e, sp.Max) else arb.min
        return lambda known: _fold(known[parts[0]], rest, known, choose)
    if isinstance(e, sp.exp):
        return lambda known: known[parts[0]].exp()
    if isinstance(e, sp.log):
        return lambda known: known[parts[0]].log()
    if isinstance(e, sp.Abs):
        return lambda known: abs(known[parts[0]])
    if isinstance(e, sp.Symbol):
        raise ValueError(f"no value for symbol {e}; given: {', '.join(map(str, symbols))}")
    raise ValueError(f"{type(e).__name__} cannot be enclosed: {e}")


def evaluate(expression: sp.Expr, values: Mapping[sp.Symbol, Number | Ball], bits: int = BITS) -> Ball:
    """The ball that certainly holds the expression's value. Not finite where the expression is undefined."""
    symbols = list(values)
    with working_precision(bits):
        return compile_expression(expression, symbols)([ball(values[s]) for s in symbols])


def ends(x: Ball) -> tuple[float, float]:
    """Lower and upper end of a ball as floats, rounded outward; (-inf, inf) if the ball is not finite."""
    if x.is_nan():
        return -math.inf, math.inf
    # at a higher precision than the ball's own, so that lower() and upper() do not widen it
    with working_precision(4 * BITS):
        low, high = x.lower(), x.upper()
    a, b = float(low), float(high)
    while arb(a) > low:
        a = math.nextafter(a, -math.inf)
    while arb(b) < high:
        b = math.nextafter(b, math.inf)
    return a, b


def largest(values: Iterable[Ball]) -> Ball:
    """The maximum of at least one ball, as a ball."""
    return functools.reduce(lambda x, y: x.max(y), values)


def norm(values: Iterable[Ball]) -> Ball:
    """Euclidean norm."""
    return sum((x * x for x in values), arb(0)).sqrt()


def enclose(expression: sp.Expr, values: Mapping[sp.Symbol, Number | Ball], bits: int = BITS) -> tuple[float, float]:
    """``ends(evaluate(...))``: the expression's value lies between the two floats."""
    return ends(evaluate(expression, values, bits))


def largest_root(a: Number | Ball, b: Number | Ball, c: Number | Ball, bits: int = BITS) -> Ball:
    """The largest G with a G^2 <= b G + c, that is (b + sqrt(b^2 + 4ac)) / (2a).

    Raises
    ------
    ValueError
        a is not certainly positive (no upper bound follows) or c is certainly negative.
    """
    with working_precision(bits):
        x, y, z = ball(a), ball(b), ball(c)
        if not x > 0:
            raise ValueError(f"a={x.str(8)} is not certainly positive: a G^2 <= b G + c bounds nothing")
        if z < 0:
            raise ValueError(f"c={z.str(8)} is negative; admissible: [0, inf)")
        # a radicand that dips below zero by its radius only is still nonnegative: c >= 0 by hypothesis
        radicand = (y * y + 4 * x * z).nonnegative_part()
        return (y + radicand.sqrt()) / (2 * x)


def _fold(start: Ball, parts: Sequence[int], known: Sequence[Ball], join: Callable[[Ball, Ball], Ball]) -> Ball:
    result = start
    for part in parts:
        result = join(result, known[part])
    return result


def _power(e: sp.Pow, place: Callable[[sp.Expr], int]) -> Evaluator:
    base, power = place(e.base), e.exp
    if isinstance(power, sp.Integer):
        n = int(power)
        return lambda known: known[base] ** n
    if isinstance(power, sp.Rational) and power.q == 2:
        n = int(power.p)
        return lambda known: known[base].sqrt() ** n
    exponent = place(power)
    return lambda known: known[base] ** known[exponent]
