"""Further operations in rational arithmetic: the part of the specification that ``exact.value`` hands on to this file.

Special cases and the signs of zeros are those of IEEE 754-2019: sections 5.3.1 (remainder), 9.2.1 (rSqrt), 9.6
(minimum, maximum), 5.5.1 (abs, negate), 5.11 (comparison) and 5.9 (rounding to an integer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from fpsim.exact import NAN, Exact, floor_log2, quantum, round_value
from fpsim.exact import value as first_value
from fpsim.number_format import Format
from fpsim.rounding import Rounding


def value(kind: str, operands: Sequence[float]) -> Exact:
    """The exact result of ``kind``, one of ``KINDS``, on binary64 operands; NaN where an operand is one."""
    if kind not in _FUNCTIONS:
        raise ValueError(f"kind={kind!r}; admissible: {', '.join(KINDS)}")
    if any(math.isnan(x) for x in operands):
        return NAN
    return _FUNCTIONS[kind](*operands)


def compare(a: float, b: float) -> float:
    """The one of the four relations that holds: -1 for less, 0 for equal, 1 for greater, NaN for unordered."""
    if math.isnan(a) or math.isnan(b):
        return math.nan
    return float((a > b) - (a < b))


def integers(fmt: Format) -> Format:
    """A format of the same precision whose numbers up to 2^precision are the integers."""
    return Format(2, fmt.mantissa_bits, bias=1 - fmt.mantissa_bits, specials="none", overflow="saturate")


def round_to_integral(x: float, fmt: Format, rounding: Rounding, word: int | None = None) -> float:
    """x rounded once to the numbers of ``fmt`` that are integers: the spacing is 1 wherever the format's is less.

    Where it is less, |x| < 2^mantissa_bits, and what ``integers(fmt)`` makes of x is on the grid of ``fmt`` with the
    exponent unbounded above: the second rounding moves it only by overflow, flushing or the loss of a zero's sign.
    """
    if math.isfinite(x) and x != 0.0 and quantum(abs(Fraction(x)), fmt) < 1:
        x = round_value(first_value("round", (x,)), integers(fmt), rounding, word)
    return round_value(first_value("round", (x,)), fmt, rounding, word)


def _rem(x: float, y: float) -> Exact:
    """x - y n, where n is the integer nearest to x / y, and the even one of two; a zero has the sign of x."""
    if math.isinf(x) or y == 0.0:
        return NAN
    if math.isinf(y):
        return _number(x)
    n = round(Fraction(x) / Fraction(y))  # a Fraction rounds to the nearest integer, ties to even
    rest = Fraction(x) - n * Fraction(y)
    return Exact("finite", abs(rest), rest < 0 if rest else _is_negative(x))


def _reciprocal(x: float) -> Exact:
    return first_value("div", (1.0, x))


def _rsqrt(x: float) -> Exact:
    """1 / sqrt(x). An irrational one is replaced by a dyadic rational of more than 200 bits, rounded to odd."""
    if x == 0.0:
        return Exact("infinite", negative=_is_negative(x))
    if x < 0.0:
        return NAN
    if math.isinf(x):
        return Exact("finite")
    shift = 256 + floor_log2(Fraction(x)) // 2
    scaled = Fraction(4) ** shift / Fraction(x)
    integer = scaled.numerator // scaled.denominator
    root = math.isqrt(integer)
    if Fraction(root * root) != scaled:
        root |= 1  # to odd: the sticky bit
    return Exact("finite", root / Fraction(2) ** shift)


def _minimum(a: float, b: float) -> Exact:
    """The smaller one, where -0 is below +0."""
    return _number(a if (a, not _is_negative(a)) <= (b, not _is_negative(b)) else b)


def _maximum(a: float, b: float) -> Exact:
    """The larger one, where -0 is below +0."""
    return _number(b if (a, not _is_negative(a)) <= (b, not _is_negative(b)) else a)


def _absolute(x: float) -> Exact:
    return _number(abs(x))


def _negative(x: float) -> Exact:
    return _number(-x)


def _is_negative(x: float) -> bool:
    return math.copysign(1.0, x) < 0.0


def _number(x: float) -> Exact:
    return first_value("round", (x,))


_FUNCTIONS: dict[str, Callable[..., Exact]] = {
    "rem": _rem,
    "reciprocal": _reciprocal,
    "rsqrt": _rsqrt,
    "min": _minimum,
    "max": _maximum,
    "abs": _absolute,
    "neg": _negative,
}
KINDS = tuple(_FUNCTIONS)
