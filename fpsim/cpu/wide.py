"""One operation in integer arithmetic, right for every format and mode: the slow path.

Magnitudes are those of ``wide_rounding``: 128 bits and a sticky bit.

* mul: at most 106 bits, exact.
* add, fma: the smaller summand is shifted right. Bits drop into ``sticky`` only where it lies 22 or more binary places
  lower (a product has 106 bits); then at most two leading bits cancel, and 126 remain.
* div: 100 quotient bits and whether the remainder is zero.
* sqrt: 91 root bits and whether the remainder is zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import MAGNITUDE, NAN, ONE, SIGN, ZERO, leading_zeros, multiply_high, to_bits
from fpsim.cpu.jit import kernel
from fpsim.cpu.wide_rounding import TOP, infinite, normalised, rounded, shifted_right, zero

_FRACTION = np.uint64((1 << 52) - 1)


@kernel
def parts(x: float) -> Any:
    """A nonzero finite number as (64-bit significand with its top bit set, exponent of that bit)."""
    bits = to_bits(x) & MAGNITUDE
    field = np.int64(bits >> np.uint64(52))
    if field == 0:
        k = leading_zeros(bits)
        return bits << np.uint64(k), -1011 - k
    return ((bits & _FRACTION) << np.uint64(11)) | TOP, field - 1023


@kernel
def _product(a: float, b: float) -> Any:
    m, e = parts(a)
    n, f = parts(b)
    return normalised(multiply_high(m, n), m * n, False, e + f + 1)


@kernel
def _sum(h: Any, l: Any, e: int, negative: bool, h2: Any, l2: Any, e2: int, negative2: bool) -> Any:  # noqa: E741
    """Sum of two exact nonzero magnitudes with signs: (high, low, sticky, e, negative), high = 0 for an exact zero."""
    if e2 > e or (e2 == e and (h2 > h or (h2 == h and l2 > l))):
        h, l, e, negative, h2, l2, e2, negative2 = h2, l2, e2, negative2, h, l, e, negative  # noqa: E741
    h2, l2, sticky = shifted_right(h2, l2, e - e2)
    if negative == negative2:
        low = l + l2
        carry = ONE if low < l else ZERO
        high = h + h2
        over = high < h
        high2 = high + carry
        over = over or high2 < high
        if over:
            sticky = sticky or (low & ONE) != ZERO
            low = (low >> ONE) | (high2 << np.uint64(63))
            high2 = (high2 >> ONE) | TOP
            e += 1
        return high2, low, sticky, e, negative
    low = l - l2
    high = h - h2 - (ONE if l < l2 else ZERO)
    if sticky:  # the dropped bits belong to what is subtracted: one unit less, and a positive rest
        high = high - (ONE if low == ZERO else ZERO)
        low = low - ONE
    if (high | low) == ZERO:
        return ZERO, ZERO, False, 0, False
    high, low, sticky, e = normalised(high, low, sticky, e)
    return high, low, sticky, e, negative


@kernel
def _quotient(a: float, b: float) -> Any:
    m, e = parts(a)
    n, f = parts(b)
    numerator, divisor = m >> np.uint64(11), n >> np.uint64(11)
    high, low = ZERO, numerator // divisor
    rest = numerator - low * divisor
    for _ in range(9):  # rest < 2^53, so eleven more bits at a time
        rest = rest << np.uint64(11)
        digit = rest // divisor
        rest = rest - digit * divisor
        high = (high << np.uint64(11)) | (low >> np.uint64(53))
        low = (low << np.uint64(11)) | digit
    return normalised(high, low, rest != ZERO, e - f - 99 + 127)


@kernel
def _root(a: float) -> Any:
    m, e = parts(a)
    radicand = m >> np.uint64(11)  # a = radicand * 2^(e - 52)
    scale = e - 52
    if scale % 2 != 0:
        radicand = radicand << ONE
        scale -= 1
    high, low = ZERO, ZERO  # the root so far
    rest_high, rest_low = ZERO, ZERO
    for i in range(91):  # 27 pairs of bits of the radicand, then 64 pairs of zeros
        pair = (radicand >> np.uint64(52 - 2 * i)) & np.uint64(3) if i < 27 else ZERO
        rest_high = (rest_high << np.uint64(2)) | (rest_low >> np.uint64(62))
        rest_low = (rest_low << np.uint64(2)) | pair
        high = (high << ONE) | (low >> np.uint64(63))
        low = low << ONE
        trial_high = (high << ONE) | (low >> np.uint64(63))
        trial_low = (low << ONE) | ONE
        if rest_high > trial_high or (rest_high == trial_high and rest_low >= trial_low):
            borrow = ONE if rest_low < trial_low else ZERO
            rest_low = rest_low - trial_low
            rest_high = rest_high - trial_high - borrow
            low = low | ONE
    return normalised(high, low, (rest_high | rest_low) != ZERO, scale // 2 - 64 + 127)


@kernel
def operate(kind: int, a: float, b: float, c: float, mode: int, draw: Any, integers: Any, floats: Any, row: int) -> Any:
    """The correctly rounded result of one operation: (result, tiny, overflowed).

    Operands that are zero or not finite are settled by binary64 arithmetic, which is exact there.
    """
    minus_zero = -0.0 if mode == codes.DOWN else 0.0
    if kind == codes.SUB:
        b = -b
    value = a  # of kind round, and of all that is settled below
    done = kind == codes.ROUND
    if kind in (codes.ADD, codes.SUB):
        done = not (abs(a) < np.inf and abs(b) < np.inf) or a == 0.0 or b == 0.0 or a == -b
        cancel = abs(a) < np.inf and a == -b and to_bits(a) != to_bits(b)
        value = minus_zero if cancel else a + b
    elif kind == codes.MUL:
        value = a * b
        done = not (abs(a) < np.inf and abs(b) < np.inf) or a == 0.0 or b == 0.0
    elif kind == codes.DIV:
        value = a / b
        done = not (abs(a) < np.inf and abs(b) < np.inf) or a == 0.0 or b == 0.0
    elif kind == codes.SQRT:
        value = math.sqrt(a)
        done = not 0.0 < a < np.inf
    elif kind == codes.FMA:
        if not (abs(a) < np.inf and abs(b) < np.inf):
            done, value = True, a * b + c
        elif not abs(c) < np.inf:
            done, value = True, c
        elif a == 0.0 or b == 0.0:
            product = a * b
            done = True
            value = product + c if product != -c or to_bits(product) == to_bits(c) else minus_zero
    high, low, sticky, e, negative = ZERO, ZERO, False, 0, False
    if done:
        if value != value:
            return NAN, False, False
        negative = (to_bits(value) & SIGN) != ZERO
        if abs(value) == np.inf:
            return infinite(negative, floats, row), False, False
        if value == 0.0:
            return zero(negative, floats, row), False, False
        high, e = parts(value)
    elif kind in (codes.ADD, codes.SUB):
        m, f = parts(a)
        n, g = parts(b)
        high, low, sticky, e, negative = _sum(m, ZERO, f, a < 0.0, n, ZERO, g, b < 0.0)
    elif kind == codes.MUL:
        high, low, sticky, e = _product(a, b)
        negative = (a < 0.0) != (b < 0.0)
    elif kind == codes.DIV:
        high, low, sticky, e = _quotient(a, b)
        negative = (a < 0.0) != (b < 0.0)
    elif kind == codes.SQRT:
        high, low, sticky, e = _root(a)
    else:
        high, low, sticky, e = _product(a, b)
        negative = (a < 0.0) != (b < 0.0)
        if c != 0.0:
            n, g = parts(c)
            high, low, sticky, e, negative = _sum(high, low, e, negative, n, ZERO, g, c < 0.0)
            if high == ZERO:
                return zero(mode == codes.DOWN, floats, row), False, False
    y, tiny, overflowed = rounded(high, low, sticky, e, negative, mode, draw, integers, floats, row)
    return (NAN if y != y else y), tiny, overflowed
