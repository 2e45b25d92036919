"""Scalar operands: expressions in the declared hyperparameters, evaluated with 256 bits and rounded once."""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

WORKING_BITS = 256
LARGEST_POWER = 1 << 64  # of an exponent: beyond it a power is a mistake, and takes for ever
LARGEST_EXPONENT = 1 << 24  # of two, of a value

Number: TypeAlias = int | float | Fraction
Arithmetic: TypeAlias = Mapping[str, Callable[..., Any]]
STEP = "t"  # the step number in bias corrections and schedules: 1 in the first step

OPERATORS = ("+", "-", "*", "/", "**")
FUNCTIONS = ("sqrt", "exp", "log", "log2", "cos", "ceil", "floor")  # of one argument
EXTREMES = ("min", "max")  # of two, or of more as nested pairs


@dataclass(frozen=True)
class ScalarExpression:
    """A number, a hyperparameter or the step number ``t``, pi, or expressions joined by an operator or a function.

    A float stands for its binary64 value exactly. ``kind`` is ``"number"``, ``"symbol"``, ``"pi"``, one of
    ``OPERATORS`` and ``EXTREMES`` (of ``left`` and ``right``), or one of ``FUNCTIONS`` (of ``left``).

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

    def __rpow__(self, other: Any) -> Any:
        return self._join("**", other, swapped=True)

    def __neg__(self) -> Any:
        return self._join("-", 0, swapped=True)

    def __str__(self) -> str:
        if self.kind in ("symbol", "pi"):
            return self.name or self.kind
        if self.kind == "number":
            assert self.number is not None
            return str(self.number) if self.number.denominator == 1 else repr(float(self.number))
        if self.kind in FUNCTIONS:
            return f"{self.kind}({self.bare(self.left)})"
        if self.kind in EXTREMES:
            return f"{self.kind}({self.bare(self.left)}, {self.bare(self.right)})"
        return f"({self.left}**{self.right})" if self.kind == "**" else f"({self.left} {self.kind} {self.right})"

    @staticmethod
    def bare(expression: ScalarExpression | None) -> str:
        """The text without the parentheses around all of it."""
        text = str(expression)
        joined = expression is not None and expression.kind in OPERATORS
        return text[1:-1] if joined else text

    @property
    def parts(self) -> tuple[ScalarExpression, ...]:
        """The expressions that this one joins."""
        return tuple(part for part in (self.left, self.right) if part is not None)

    def symbols(self) -> frozenset[str]:
        """Names of the hyperparameters (and ``t``) that occur."""
        if self.kind == "symbol":
            return frozenset({self.name})
        return frozenset().union(*(part.symbols() for part in self.parts))

    def substitute(self, values: Mapping[str, ScalarExpression | Number]) -> ScalarExpression:
        """The expression with some symbols replaced.

        Examples
        --------
        >>> t = ScalarExpression.symbol("t")
        >>> print((1 / t).substitute({"t": t + 1}))
        (1 / (t + 1))
        """
        if self.kind == "symbol":
            return ScalarExpression.of(values.get(self.name, self))
        if not self.parts:
            return self
        left, right = (None if part is None else part.substitute(values) for part in (self.left, self.right))
        return replace(self, left=left, right=right)

    def fold(self, arithmetic: Arithmetic, values: Mapping[str, Any]) -> Any:
        """The value of the expression in any arithmetic.

        ``arithmetic`` holds ``"number"``, which makes a literal, and what joins parts; ``values`` holds the symbols.
        """
        if self.kind == "number":
            return arithmetic["number"](self.number)
        if self.kind == "symbol":
            return values[self.name]
        return arithmetic[self.kind](*(part.fold(arithmetic, values) for part in self.parts))


def evaluate(expression: ScalarExpression, values: Mapping[str, Number]) -> Fraction:
    """The expression at exact values, with 256 working bits, as the dyadic rational that came out."""
    sign, mantissa, exponent = _evaluate(expression, values)
    magnitude = Fraction(mantissa) * Fraction(2) ** exponent
    return -magnitude if sign else magnitude


def evaluate_odd(expression: ScalarExpression, values: Mapping[str, Number]) -> float:
    """The same, rounded to odd in binary64: what a later rounding to at most 51 bits may start from.

    What is beyond the largest number becomes that, which is odd: no number of fewer bits and no midpoint is that large.
    """
    sign, mantissa, exponent = _evaluate(expression, values)
    excess = mantissa.bit_length() - 53
    if excess > 0:
        kept = mantissa >> excess
        mantissa, exponent = (kept if kept << excess == mantissa else kept | 1), exponent + excess
    beyond = exponent + mantissa.bit_length() > sys.float_info.max_exp
    magnitude = sys.float_info.max if beyond else math.ldexp(mantissa, exponent)
    return -magnitude if sign else magnitude


def _evaluate(expression: ScalarExpression, values: Mapping[str, Number]) -> tuple[int, int, int]:
    given = {name: _given(value) for name, value in values.items() if name != STEP}
    if STEP in values:
        given[STEP] = int(values[STEP])  # an integer power is a product, without a logarithm
    try:
        value = _context().mpf(expression.fold(_wide(), given))
    except (ArithmeticError, TypeError) as error:  # a quotient by 0; what is complex is no mpf
        raise _undefined(expression, values) from error
    sign, mantissa, exponent, _ = value._mpf_
    if not _context().isfinite(value) or exponent > LARGEST_EXPONENT:
        raise _undefined(expression, values)
    return int(sign), int(mantissa), int(exponent)


def _undefined(expression: ScalarExpression, values: Mapping[str, Number]) -> ValueError:
    at = ", ".join(f"{name} = {float(value):g}" for name, value in values.items() if name in expression.symbols())
    return ValueError(f"{expression} is not a finite real number{' at ' * bool(at)}{at}")


@functools.lru_cache(maxsize=1024)
def _given(value: Number) -> Any:
    """A hyperparameter, which has the same value in every step; equal numbers of two types are one number."""
    return _number(Fraction(value))


@functools.lru_cache(maxsize=1024)
def _number(q: Fraction) -> Any:
    return _context().mpf(q.numerator) / q.denominator


@functools.cache
def _context() -> Any:
    import mpmath

    context = mpmath.mp.clone()
    context.prec = WORKING_BITS
    return context


@functools.cache
def _wide() -> Arithmetic:
    """The arithmetic of ``evaluate``. The step number is a Python int: what joins two of them must not become a float.

    What lies within a relative 2^-200 of a whole number counts as that number under ``ceil`` and ``floor``.
    """
    context = _context()
    mpf = context.mpf

    def power(x: Any, y: Any) -> Any:
        if abs(y) > LARGEST_POWER:
            raise OverflowError
        return mpf(x) ** y

    def log2(x: Any) -> Any:
        sign, mantissa, exponent, _ = mpf(x)._mpf_
        return mpf(exponent) if (sign, mantissa) == (0, 1) else context.log(x, 2)

    def whole(towards: Callable[[Any], Any], x: Any) -> Any:
        near = context.nint(x)
        return near if abs(x - near) <= context.ldexp(1, -200) * max(1, abs(x)) else towards(x)

    return {
        "number": _number,
        "pi": lambda: +context.pi,
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": lambda x, y: mpf(x) / y,
        "**": power,
        "min": min,
        "max": max,
        "sqrt": context.sqrt,
        "exp": context.exp,
        "log": context.log,
        "log2": log2,
        "cos": context.cos,
        "ceil": lambda x: whole(context.ceil, x),
        "floor": lambda x: whole(context.floor, x),
    }


# what Python computes in binary64
_PYTHON: Arithmetic = {
    "number": float,
    "pi": lambda: math.pi,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "min": min,
    "max": max,
    **{name: getattr(math, name) for name in FUNCTIONS},
}


def evaluate_python(expression: ScalarExpression, values: Mapping[str, Number]) -> float:
    """The expression in binary64 as Python evaluates it, operation by operation."""
    given: dict[str, Any] = {name: (int(v) if name == STEP else float(v)) for name, v in values.items()}
    try:
        return float(expression.fold(_PYTHON, given))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise _undefined(expression, values) from error
