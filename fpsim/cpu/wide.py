"""One operation in integer arithmetic, right for every format and mode: the slow path.

A nonzero magnitude is ``(high * 2^64 + low + theta) * 2^(e - 127)`` with bit 63 of ``high`` set, 0 <= theta < 1, and
``sticky`` telling whether theta is nonzero. A rounding to p <= 53 bits with up to 32 random bits looks at the top 86
bits and asks of the rest only whether it is zero, so 128 bits and a sticky bit decide it:

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
from fpsim.cpu.bits import MAGNITUDE, NAN, ONE, SIGN, ZERO, from_bits, leading_zeros, multiply_high, to_bits
from fpsim.cpu.format_table import (
    ADD,
    BITS,
    EMIN,
    FLOATS,
    FLUSH,
    FRACTION,
    INFINITE,
    INTEGERS,
    MAX,
    OVERFLOW,
    SMALLEST_NORMAL,
    SUBNORMALS,
)
from fpsim.cpu.jit import kernel

_TOP = np.uint64(1 << 63)
_FRACTION = np.uint64((1 << 52) - 1)


@kernel
def _normalised(high: Any, low: Any, sticky: bool, e: int) -> Any:
    """Shift a nonzero magnitude left until bit 63 of ``high`` is set; ``e`` is the exponent of that bit."""
    if high == ZERO:
        high, low, e = low, ZERO, e - 64
    k = leading_zeros(high)
    if k > 0:
        high = (high << np.uint64(k)) | (low >> np.uint64(64 - k))
        low = low << np.uint64(k)
    return high, low, sticky, e - k


@kernel
def _shifted_right(high: Any, low: Any, places: int) -> Any:
    """(high, low) >> places, and whether a set bit dropped out."""
    if places == 0:
        return high, low, False
    if places >= 128:
        return ZERO, ZERO, (high | low) != ZERO
    if places >= 64:
        k = np.uint64(places - 64)
        dropped = low != ZERO
        if k > ZERO:
            dropped = dropped or (high << np.uint64(64) - k) != ZERO
        return ZERO, high >> k, dropped
    k = np.uint64(places)
    rest = np.uint64(64) - k
    return high >> k, (low >> k) | (high << rest), (low << rest) != ZERO


@kernel
def _parts(x: float) -> Any:
    """A nonzero finite number as (64-bit significand with its top bit set, exponent of that bit)."""
    bits = to_bits(x) & MAGNITUDE
    field = np.int64(bits >> np.uint64(52))
    if field == 0:
        k = leading_zeros(bits)
        return bits << np.uint64(k), -1011 - k
    return ((bits & _FRACTION) << np.uint64(11)) | _TOP, field - 1023


@kernel
def _product(a: float, b: float) -> Any:
    m, e = _parts(a)
    n, f = _parts(b)
    return _normalised(multiply_high(m, n), m * n, False, e + f + 1)


@kernel
def _sum(h: Any, l: Any, e: int, negative: bool, h2: Any, l2: Any, e2: int, negative2: bool) -> Any:  # noqa: E741
    """Sum of two exact nonzero magnitudes with signs: (high, low, sticky, e, negative), high = 0 for an exact zero."""
    if e2 > e or (e2 == e and (h2 > h or (h2 == h and l2 > l))):
        h, l, e, negative, h2, l2, e2, negative2 = h2, l2, e2, negative2, h, l, e, negative  # noqa: E741
    h2, l2, sticky = _shifted_right(h2, l2, e - e2)
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
            high2 = (high2 >> ONE) | _TOP
            e += 1
        return high2, low, sticky, e, negative
    low = l - l2
    high = h - h2 - (ONE if l < l2 else ZERO)
    if sticky:  # the dropped bits belong to what is subtracted: one unit less, and a positive rest
        high = high - (ONE if low == ZERO else ZERO)
        low = low - ONE
    if (high | low) == ZERO:
        return ZERO, ZERO, False, 0, False
    high, low, sticky, e = _normalised(high, low, sticky, e)
    return high, low, sticky, e, negative


@kernel
def _quotient(a: float, b: float) -> Any:
    m, e = _parts(a)
    n, f = _parts(b)
    numerator, divisor = m >> np.uint64(11), n >> np.uint64(11)
    high, low = ZERO, numerator // divisor
    rest = numerator - low * divisor
    for _ in range(9):  # rest < 2^53, so eleven more bits at a time
        rest = rest << np.uint64(11)
        digit = rest // divisor
        rest = rest - digit * divisor
        high = (high << np.uint64(11)) | (low >> np.uint64(53))
        low = (low << np.uint64(11)) | digit
    return _normalised(high, low, rest != ZERO, e - f - 99 + 127)


@kernel
def _root(a: float) -> Any:
    m, e = _parts(a)
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
    return _normalised(high, low, (rest_high | rest_low) != ZERO, scale // 2 - 64 + 127)


@kernel
def _moves_away(mode: int, odd: bool, high: Any, low: Any, sticky: bool, negative: bool, bits: int, draw: Any) -> Any:
    """Whether ``mode`` takes n + 1, for the fraction nu = (high 2^64 + low + theta) / 2^128 and the parity of n."""
    rest = low != ZERO or sticky
    if mode == codes.NEAREST_EVEN:
        return high > _TOP or (high == _TOP and (rest or odd))
    if mode == codes.NEAREST_AWAY:
        return high >= _TOP
    if mode == codes.STOCHASTIC:
        return (high >> np.uint64(64 - bits)) + draw >= ONE << np.uint64(bits)
    inexact = high != ZERO or rest
    if mode == codes.TO_ODD:
        return inexact and not odd
    if mode == codes.UP:
        return inexact and not negative
    if mode == codes.DOWN:
        return inexact and negative
    return False


@kernel
def _rounded(
    high: Any,
    low: Any,
    sticky: bool,
    e: int,
    negative: bool,
    mode: int,
    draw: Any,
    integers: Any,
    floats: Any,
    row: int,
) -> Any:
    """A nonzero magnitude rounded to the format of ``row``: (result, tiny, overflowed)."""
    emin = integers[row * INTEGERS + EMIN]
    lowest = (
        emin
        if e < emin and integers[row * INTEGERS + SUBNORMALS] == 0
        else max(e, emin) - integers[row * INTEGERS + FRACTION]
    )
    k = e - lowest + 1  # bits of the integer significand
    whole = ZERO
    if k > 0:
        whole = high >> np.uint64(64 - k)
        high, low = (high << np.uint64(k)) | (low >> np.uint64(64 - k)), low << np.uint64(k)
    elif k < 0:
        high, low, dropped = _shifted_right(high, low, -k)
        sticky = sticky or dropped
    if _moves_away(mode, (whole & ONE) != ZERO, high, low, sticky, negative, integers[row * INTEGERS + BITS], draw):
        whole = whole + ONE
    if e > 1023:
        y = np.inf
    elif lowest >= -1022:
        y = np.float64(whole) * from_bits(np.uint64(lowest + 1023) << np.uint64(52))
    else:
        y = np.float64(whole) * from_bits(ONE << np.uint64(lowest + 1074))
    overflowed = y > floats[row * FLOATS + MAX]
    if overflowed:
        inward = mode in (codes.TOWARD_ZERO, codes.TO_ODD) or mode == (codes.UP if negative else codes.DOWN)
        y = floats[row * FLOATS + MAX] if inward else floats[row * FLOATS + OVERFLOW]
    elif integers[row * INTEGERS + FLUSH] != 0 and y < floats[row * FLOATS + SMALLEST_NORMAL]:
        y = 0.0
    return (-y if negative else y) + floats[row * FLOATS + ADD], e < emin, overflowed


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
            infinite = floats[row * FLOATS + INFINITE]
            return (NAN if infinite != infinite else (-infinite if negative else infinite)), False, False
        if value == 0.0:
            return value + floats[row * FLOATS + ADD], False, False
        high, e = _parts(value)
    elif kind in (codes.ADD, codes.SUB):
        m, f = _parts(a)
        n, g = _parts(b)
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
            n, g = _parts(c)
            high, low, sticky, e, negative = _sum(high, low, e, negative, n, ZERO, g, c < 0.0)
            if high == ZERO:
                return minus_zero + floats[row * FLOATS + ADD], False, False
    y, tiny, overflowed = _rounded(high, low, sticky, e, negative, mode, draw, integers, floats, row)
    return (NAN if y != y else y), tiny, overflowed
