"""Scalar operands: expressions in the declared hyperparameters, evaluated with 256 bits and rounded once."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

WORKING_BITS = 256

Number: TypeAlias = int | float | Fraction
STEP = "t"  # the step number in bias corrections: 1 in the first step

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}


@dataclass(frozen=True)
class ScalarExpression:
    """A number, a hyperparameter or the step number ``t``, or two expressions joined by + - * / **.

    A float stands for its binary64 value exactly.

    Examples
    --------
    >>> beta = ScalarExpression.symbol("beta")
    >>> print(1 - beta ** ScalarExpression.symbol("t"))
    (1 - (beta**t))
    """

    kind: str
    name: str = ""
    number: Fraction | None = None
    left: ScalarExpression | None = None
    right: ScalarExpression | None = None

    @classmethod
    def symbol(cls, name: str) -> ScalarExpression:
        return cls("symbol", name=name)

    @classmethod
    def of(cls, value: ScalarExpression | Number) -> ScalarExpression:
        return value if isinstance(value, ScalarExpression) else cls("number", number=Fraction(value))

    def _join(self, kind: str, other: Any, swapped: bool = False) -> Any:
        if not isinstance(other, (ScalarExpression, int, float, Fraction)):
            return NotImplemented  # an array operand: its own operator takes over
        left, right = (ScalarExpression.of(other), self) if swapped else (self, ScalarExpression.of(other))
        return ScalarExpression(kind, left=left, right=right)

    def __add__(self, other: Any) -> Any:
        return self._join("+", other)

    def __radd__(self, other: Any) -> Any:
        return self._join("+", other, swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._join("-", other)

    def __rsub__(self, other: Any) -> Any:
        return self._join("-", other, swapped=True)

    def __mul__(self, other: Any) -> Any:
        return self._join("*", other)

    def __rmul__(self, other: Any) -> Any:
        return self._join("*", other, swapped=True)

    def __truediv__(self, other: Any) -> Any:
        return self._join("/", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._join("/", other, swapped=True)

    def __pow__(self, other: Any) -> Any:
        return self._join("**", other)

    def __str__(self) -> str:
        if self.kind == "symbol":
            return self.name
        if self.kind == "number":
            assert self.number is not None
            return str(self.number) if self.number.denominator == 1 else repr(float(self.number))
        return f"({self.left}**{self.right})" if self.kind == "**" else f"({self.left} {self.kind} {self.right})"

    def symbols(self) -> frozenset[str]:
        """Names of the hyperparameters (and ``t``) that occur."""
        if self.kind == "symbol":
            return frozenset({self.name})
        if self.left is None or self.right is None:
            return frozenset()
        return self.left.symbols() | self.right.symbols()

    def fold(self, number: Callable[[Fraction], Any], values: Mapping[str, Any]) -> Any:
        """The value of the expression in any arithmetic: ``number`` makes a literal, ``values`` holds the symbols."""
        if self.kind == "number":
            assert self.number is not None
            return number(self.number)
        if self.kind == "symbol":
            return values[self.name]
        assert self.left is not None and self.right is not None
        return _OPERATORS[self.kind](self.left.fold(number, values), self.right.fold(number, values))


def evaluate(expression: ScalarExpression, values: Mapping[str, Number]) -> Fraction:
    """The expression at exact values, with 256 working bits, as the dyadic rational that came out."""
    sign, mantissa, exponent = _evaluate(expression, values)
    magnitude = Fraction(mantissa) * Fraction(2) ** exponent
    return -magnitude if sign else magnitude


def evaluate_odd(expression: ScalarExpression, values: Mapping[str, Number]) -> float:
    """The same, rounded to odd in binary64: what a later rounding to at most 51 bits may start from."""
    sign, mantissa, exponent = _evaluate(expression, values)
    excess = mantissa.bit_length() - 53
    if excess > 0:
        kept = mantissa >> excess
        mantissa, exponent = (kept if kept << excess == mantissa else kept | 1), exponent + excess
    magnitude = math.ldexp(mantissa, exponent)
    return -magnitude if sign else magnitude


def _evaluate(expression: ScalarExpression, values: Mapping[str, Number]) -> tuple[int, int, int]:
    given = {name: _number(Fraction(value)) for name, value in values.items()}
    if STEP in given:
        given[STEP] = int(values[STEP])  # an integer power is a product, without a logarithm
    sign, mantissa, exponent, _ = expression.fold(_number, given)._mpf_
    return int(sign), int(mantissa), int(exponent)


@functools.lru_cache(maxsize=1024)
def _number(q: Fraction) -> Any:
    return _context().mpf(q.numerator) / q.denominator


@functools.cache
def _context() -> Any:
    import mpmath

    context = mpmath.mp.clone()
    context.prec = WORKING_BITS
    return context


def evaluate_python(expression: ScalarExpression, values: Mapping[str, Number]) -> float:
    """The expression in binary64 as Python evaluates it, operation by operation."""
    given: dict[str, Any] = {name: (int(v) if name == STEP else float(v)) for name, v in values.items()}
    return float(expression.fold(float, given))
