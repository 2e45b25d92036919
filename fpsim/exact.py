"""One correctly rounded operation in rational arithmetic: the specification.

Slow and meant to be obviously right. Every fast path equals it bit for bit. An operation is split in two: ``value``
computes the exact result once, ``round_value`` rounds it in any mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic, parse

_HALF = Fraction(1, 2)
_FIRST = ("round", "add", "sub", "mul", "div", "sqrt", "fma")


@dataclass(frozen=True)
class Exact:
    """An exact result: ``kind`` is finite, infinite or nan.

    A zero carries the sign that IEEE 754 section 6.3 gives it; ``zero_by_mode`` marks an exact zero sum of operands of
    unlike sign, which is -0 under ``down`` and +0 otherwise.
    """

    kind: str
    magnitude: Fraction = Fraction(0)
    negative: bool = False
    zero_by_mode: bool = False


NAN = Exact("nan")


def value(kind: str, operands: Sequence[float]) -> Exact:
    """The exact result of ``kind`` on binary64 operands: round, add, sub, mul, div, sqrt, fma, or one of the kinds of
    ``fpsim.exact_operations`` and ``fpsim.elementary``.

    An irrational square root is replaced by a dyadic rational with more than 200 significant bits, rounded to odd: it
    lies strictly between the same two of all numbers that a format of at most 53 bits and 32 random bits compares with.
    """
    if kind not in _FIRST:
        return _further(kind, operands)
    if any(math.isnan(x) for x in operands):
        return NAN
    if kind == "round":
        return _of(operands[0])
    if kind == "sub":
        return _add(_of(operands[0]), _of(-operands[1]))
    if kind == "add":
        return _add(_of(operands[0]), _of(operands[1]))
    if kind == "mul":
        return _mul(_of(operands[0]), _of(operands[1]))
    if kind == "fma":
        return _add(_mul(_of(operands[0]), _of(operands[1])), _of(operands[2]))
    if kind == "div":
        return _div(_of(operands[0]), _of(operands[1]))
    return _sqrt(_of(operands[0]))


def round_value(exact: Exact, fmt: Format, rounding: Rounding, word: int | None = None) -> float:
    """Round an exact result into ``fmt``; ``word`` is the random integer of a stochastic mode, in 0..2^bits-1."""
    mode = parse(rounding)
    if exact.kind == "nan":
        return math.nan
    negative = exact.negative
    if exact.kind == "infinite":
        if fmt.overflow == "saturate_all":
            return fmt.lowest if negative else fmt.max
        return _signed(math.inf, negative) if fmt.has_infinity and (fmt.signed or not negative) else math.nan
    if exact.magnitude == 0:
        return _zero(mode == "down" if exact.zero_by_mode else negative, fmt)
    result = round_magnitude(exact.magnitude, negative, fmt, mode, word)
    if result == 0 or (fmt.tiny == "flush" and result < Fraction(fmt.smallest_normal)):
        return _zero(negative, fmt)
    if negative and not fmt.signed:
        return fmt.lowest if mode in ("toward_zero", "up") or _saturates(fmt) else math.nan
    if result > Fraction(fmt.max):
        return _overflow(negative, fmt, mode)
    return _signed(float(result), negative)


def operation(kind: str, operands: Sequence[float], fmt: Format, rounding: Rounding, word: int | None = None) -> float:
    """One correctly rounded operation.

    Examples
    --------
    >>> operation("div", (1.0, 3.0), Format(8, 7), "nearest_even")
    0.333984375
    """
    return round_value(value(kind, operands), fmt, rounding, word)


def quantum(magnitude: Fraction, fmt: Format) -> Fraction:
    """Spacing of the grid at a positive magnitude, the exponent unbounded above."""
    exponent = floor_log2(magnitude)
    if exponent < fmt.emin and not fmt.subnormals:
        return Fraction(2) ** fmt.emin
    return Fraction(2) ** (max(exponent, fmt.emin) - fmt.mantissa_bits)


def floor_log2(magnitude: Fraction) -> int:
    """floor(log2) of a positive rational."""
    guess = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return guess if Fraction(2) ** guess <= magnitude else guess - 1


def round_magnitude(
    magnitude: Fraction, negative: bool, fmt: Format, rounding: Rounding, word: int | None = None
) -> Fraction:
    """The positive magnitude of a number of this sign rounded to a multiple of its ``quantum``: the exponent is
    unbounded above, and neither flushing nor the rules of unsigned formats have been applied."""
    mode = parse(rounding)
    q = quantum(magnitude, fmt)
    scaled = magnitude / q
    n = scaled.numerator // scaled.denominator
    nu = scaled - n
    if isinstance(mode, Stochastic):
        if word is None or not 0 <= word < 1 << mode.bits:
            raise ValueError(f"word={word!r} is outside 0..2^{mode.bits}-1")
        whole = 1 << mode.bits
        if mode.variant == "A":
            away = math.floor(nu * whole) + word >= whole
        elif mode.variant == "B":
            away = math.floor(nu * 2 * whole) + 2 * word + 1 >= 2 * whole
        else:
            away = round(nu * whole) + word >= whole  # a Fraction rounds to the nearest integer, ties to even
    elif mode == "nearest_even":
        away = nu > _HALF or (nu == _HALF and _is_odd(n, magnitude, fmt))
    elif mode == "nearest_away":
        away = nu >= _HALF
    elif mode == "toward_zero":
        away = False
    elif mode == "to_odd":
        away = nu > 0 and not _is_odd(n, magnitude, fmt)
    else:
        away = nu > 0 and (mode == "down") == negative
    return (n + 1 if away else n) * q


def _is_odd(n: int, magnitude: Fraction, fmt: Format) -> bool:
    """Parity of the integer significand n, or of the code of n q: a binade's codes follow those of the one below."""
    if fmt.parity == "significand" or n == 0:
        return n % 2 == 1
    binade = max(floor_log2(magnitude), fmt.emin) - fmt.emin
    code = (binade << fmt.mantissa_bits) + n - (0 if fmt.has_zero else 1)
    return code % 2 == 1


def _overflow(negative: bool, fmt: Format, mode: Rounding) -> float:
    back_to_zero = mode == "toward_zero" or (mode == "up" and negative) or (mode == "down" and not negative)
    largest = back_to_zero or (mode == "to_odd" and fmt.odd_overflow == "largest")
    if largest or _saturates(fmt):
        return _signed(fmt.max, negative)
    return _signed(math.inf, negative) if fmt.overflow == "infinity" else math.nan


def _saturates(fmt: Format) -> bool:
    return fmt.overflow in ("saturate", "saturate_all")


def _zero(negative: bool, fmt: Format) -> float:
    return -0.0 if negative and fmt.has_negative_zero else fmt.least


def _signed(magnitude: float, negative: bool) -> float:
    return -magnitude if negative else magnitude


def _further(kind: str, operands: Sequence[float]) -> Exact:
    from fpsim import exact_operations  # both files build on this one

    if kind in exact_operations.KINDS:
        return exact_operations.value(kind, operands)
    from fpsim import elementary

    if kind in elementary.KINDS:
        return elementary.value(kind, operands)
    admissible = ", ".join((*_FIRST, *exact_operations.KINDS, *elementary.KINDS))
    raise ValueError(f"kind={kind!r}; admissible: {admissible}")


def _of(x: float) -> Exact:
    negative = math.copysign(1.0, x) < 0
    if math.isinf(x):
        return Exact("infinite", negative=negative)
    return Exact("finite", abs(Fraction(x)), negative)


def _add(a: Exact, b: Exact) -> Exact:
    if a.kind == "nan" or b.kind == "nan":
        return NAN
    if a.kind == "infinite" or b.kind == "infinite":
        if a.kind == b.kind and a.negative != b.negative:
            return NAN
        return a if a.kind == "infinite" else b
    total = (-a.magnitude if a.negative else a.magnitude) + (-b.magnitude if b.negative else b.magnitude)
    if total == 0:
        return Exact("finite", negative=a.negative and b.negative, zero_by_mode=a.negative != b.negative)
    return Exact("finite", abs(total), total < 0)


def _mul(a: Exact, b: Exact) -> Exact:
    negative = a.negative != b.negative
    if "infinite" in (a.kind, b.kind):
        finite_zero = (a.kind == "finite" and a.magnitude == 0) or (b.kind == "finite" and b.magnitude == 0)
        return NAN if finite_zero else Exact("infinite", negative=negative)
    return Exact("finite", a.magnitude * b.magnitude, negative)


def _div(a: Exact, b: Exact) -> Exact:
    negative = a.negative != b.negative
    if a.kind == "infinite":
        return NAN if b.kind == "infinite" else Exact("infinite", negative=negative)
    if b.kind == "infinite":
        return Exact("finite", negative=negative)
    if b.magnitude == 0:
        return NAN if a.magnitude == 0 else Exact("infinite", negative=negative)
    return Exact("finite", a.magnitude / b.magnitude, negative)


def _sqrt(a: Exact) -> Exact:
    if a.kind == "finite" and a.magnitude == 0:
        return a  # sqrt(-0) = -0
    if a.negative:
        return NAN
    if a.kind == "infinite":
        return a
    # a = n / 4^k * 4^-s exactly after scaling; s makes the integer root longer than 200 bits.
    shift = 256 - floor_log2(a.magnitude) // 2
    scaled = a.magnitude * Fraction(4) ** shift
    integer = scaled.numerator // scaled.denominator
    root = math.isqrt(integer)
    if Fraction(root * root) != scaled:
        root |= 1  # to odd: the sticky bit
    return Exact("finite", root / Fraction(2) ** shift)
