"""One operation in integer arithmetic, right for every format and mode: the slow path, without branches.

The steps are those of ``fpsim.cpu.wide`` and ``fpsim.cpu.wide_rounding``, where their widths are reasoned: a nonzero
magnitude is ``(high * 2^64 + low + theta) * 2^(e - 127)`` with bit 63 of ``high`` set and ``sticky`` telling whether
theta is nonzero. No shift is by 64 or more places, which neither the card nor the compiler defines.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.cpu import format_table
from fpsim.cuda.triton_elements import (
    ADD,
    DIV,
    DOWN,
    EXPONENT,
    FMA,
    INFINITE,
    MAGNITUDE,
    MAX,
    MUL,
    NAN_BITS,
    NEAREST_AWAY,
    NEAREST_EVEN,
    ODD_OVERFLOW,
    OVERFLOW,
    ROUND,
    ROW,
    SIGN,
    SQRT,
    STOCHASTIC,
    STOCHASTIC_B,
    STOCHASTIC_C,
    SUB,
    TO_ODD,
    TOWARD_ZERO,
    UP,
    constant,
    float_of,
    from_bits,
    to_bits,
)

TOP = tl.constexpr(1 << 63)
_FRACTION = tl.constexpr((1 << 52) - 1)
_LOW = tl.constexpr((1 << 32) - 1)

_EMIN = tl.constexpr(format_table.EMIN)
_FRACTION_BITS = tl.constexpr(format_table.FRACTION)
_SUBNORMALS = tl.constexpr(format_table.SUBNORMALS)
_FLUSH = tl.constexpr(format_table.FLUSH)
_SIGNED = tl.constexpr(format_table.SIGNED)
_CODE_PARITY = tl.constexpr(format_table.CODE_PARITY)
_SMALLEST_NORMAL = tl.constexpr(format_table.INTEGERS + format_table.SMALLEST_NORMAL)
_LEAST = tl.constexpr(format_table.INTEGERS + format_table.LEAST)
_MINUS_LEAST = tl.constexpr(format_table.INTEGERS + format_table.MINUS_LEAST)
_LOWEST_VALUE = tl.constexpr(format_table.INTEGERS + format_table.LOWEST_VALUE)
_NEGATIVE = tl.constexpr(format_table.INTEGERS + format_table.NEGATIVE)
_MINUS_INFINITE = tl.constexpr(format_table.INTEGERS + format_table.MINUS_INFINITE)


@triton.jit
def _moved_left(high: tl.tensor, low: tl.tensor, e: tl.tensor, places: tl.constexpr) -> Any:
    """Moved left where the top ``places`` bits are zero."""
    short = (high >> (64 - places)) == 0
    return (
        tl.where(short, (high << places) | (low >> (64 - places)), high),
        tl.where(short, low << places, low),
        tl.where(short, e - places, e),
    )


@triton.jit
def _normalised(high: tl.tensor, low: tl.tensor, e: tl.tensor) -> Any:
    """Shift a nonzero magnitude left until bit 63 of ``high`` is set; ``e`` is the exponent of that bit."""
    empty = high == 0
    high, low, e = tl.where(empty, low, high), tl.where(empty, 0, low), tl.where(empty, e - 64, e)
    high, low, e = _moved_left(high, low, e, 32)
    high, low, e = _moved_left(high, low, e, 16)
    high, low, e = _moved_left(high, low, e, 8)
    high, low, e = _moved_left(high, low, e, 4)
    high, low, e = _moved_left(high, low, e, 2)
    return _moved_left(high, low, e, 1)


@triton.jit
def _shifted_right(high: tl.tensor, low: tl.tensor, places: tl.tensor) -> Any:
    """(high, low) >> places, places >= 0, and whether a set bit dropped out."""
    all_out, far = places >= 128, places >= 64
    k = (places & 63).to(tl.uint64)
    h, l = tl.where(far, 0, high), tl.where(far, high, low)  # noqa: E741
    dropped = (far & (low != 0)) | (((l << 1) << (63 - k)) != 0)
    h, l = h >> k, (l >> k) | ((h << 1) << (63 - k))  # noqa: E741
    return (
        tl.where(all_out, 0, h),
        tl.where(all_out, 0, l),
        tl.where(all_out, (high | low) != 0, dropped),
    )


@triton.jit
def _parts(x: tl.tensor) -> Any:
    """A nonzero finite number as (64-bit significand with its top bit set, exponent of that bit)."""
    bits = to_bits(x) & MAGNITUDE
    field = (bits >> 52).to(tl.int64)
    tiny, _, k = _normalised(bits, bits & 0, field * 0)
    normal = ((bits & _FRACTION) << 11) | TOP
    return tl.where(field == 0, tiny, normal), tl.where(field == 0, k - 1011, field - 1023)


@triton.jit
def _product(a: tl.tensor, b: tl.tensor) -> Any:
    m, e = _parts(a)
    n, f = _parts(b)
    m0, m1, n0, n1 = m & _LOW, m >> 32, n & _LOW, n >> 32
    middle = m1 * n0 + ((m0 * n0) >> 32)
    other = m0 * n1 + (middle & _LOW)
    high = m1 * n1 + (middle >> 32) + (other >> 32)
    return _normalised(high, m * n, e + f + 1)


@triton.jit
def _sum(
    h: tl.tensor,
    l: tl.tensor,  # noqa: E741
    e: tl.tensor,
    negative: tl.tensor,
    h2: tl.tensor,
    l2: tl.tensor,
    e2: tl.tensor,
    negative2: tl.tensor,
) -> Any:
    """Sum of two exact nonzero magnitudes with signs: (high, low, sticky, e, negative), high = 0 for an exact zero."""
    swap = (e2 > e) | ((e2 == e) & ((h2 > h) | ((h2 == h) & (l2 > l))))
    big, big_low, top, sign = tl.where(swap, h2, h), tl.where(swap, l2, l), tl.where(swap, e2, e), negative
    sign = tl.where(swap, negative2, negative)
    small, small_low, sticky = _shifted_right(tl.where(swap, h, h2), tl.where(swap, l, l2), top - tl.where(swap, e, e2))
    # The same sign: a carry beyond bit 63 moves everything one place.
    low = big_low + small_low
    high = big + small
    over = high < big
    total = high + (low < big_low).to(tl.uint64)
    over = over | (total < high)
    sum_sticky = sticky | (over & ((low & 1) != 0))
    sum_low = tl.where(over, (low >> 1) | (total << 63), low)
    sum_high = tl.where(over, (total >> 1) | TOP, total)
    # Opposite signs. The dropped bits belong to what is subtracted: one unit less, and a positive rest.
    less = sticky.to(tl.uint64)
    low = big_low - small_low
    high = big - small - (big_low < small_low).to(tl.uint64)
    high = high - (less & (low == 0).to(tl.uint64))
    low = low - less
    zero = (high | low) == 0
    high, low, lower = _normalised(high, low, top)
    same = negative == negative2
    return (
        tl.where(same, sum_high, high),
        tl.where(same, sum_low, low),
        tl.where(same, sum_sticky, sticky),
        tl.where(same, tl.where(over, top + 1, top), lower),
        tl.where(same, sign, sign & (zero == 0)),
    )


@triton.jit
def _quotient(a: tl.tensor, b: tl.tensor) -> Any:
    m, e = _parts(a)
    n, f = _parts(b)
    rest, divisor = m >> 11, n >> 11
    digit = (rest >= divisor).to(tl.uint64)
    rest = rest - digit * divisor
    high, low = digit & 0, digit
    for _ in range(99):
        rest = rest << 1
        digit = (rest >= divisor).to(tl.uint64)
        rest = rest - digit * divisor
        high = (high << 1) | (low >> 63)
        low = (low << 1) | digit
    high, low, e = _normalised(high, low, e - f + 28)
    return high, low, rest != 0, e


@triton.jit
def _root(a: tl.tensor) -> Any:
    m, e = _parts(a)
    uneven = (e & 1) != 0  # a = radicand * 2^(e - 52)
    radicand = m >> 11
    radicand = tl.where(uneven, radicand << 1, radicand)
    scale = tl.where(uneven, e - 53, e - 52)
    radicand = radicand << 10  # the first of 27 pairs of bits is now at the top
    high, low = radicand & 0, radicand & 0  # the root so far
    rest_high, rest_low = radicand & 0, radicand & 0
    for _ in range(91):
        pair = radicand >> 62
        radicand = radicand << 2
        rest_high = (rest_high << 2) | (rest_low >> 62)
        rest_low = (rest_low << 2) | pair
        high = (high << 1) | (low >> 63)
        low = low << 1
        trial_high = (high << 1) | (low >> 63)
        trial_low = (low << 1) | 1
        fits = (rest_high > trial_high) | ((rest_high == trial_high) & (rest_low >= trial_low))
        borrow = (rest_low < trial_low).to(tl.uint64)
        rest_high = tl.where(fits, rest_high - trial_high - borrow, rest_high)
        rest_low = tl.where(fits, rest_low - trial_low, rest_low)
        low = tl.where(fits, low | 1, low)
    high, low, top = _normalised(high, low, (scale >> 1) + 63)
    return high, low, (rest_high | rest_low) != 0, top


@triton.jit
def _moves_away(
    mode: tl.constexpr,
    bits: tl.constexpr,
    odd: tl.tensor,
    high: tl.tensor,
    low: tl.tensor,
    sticky: tl.tensor,
    negative: tl.tensor,
    draw: tl.tensor,
) -> Any:
    """Whether ``mode`` takes n + 1, for the fraction nu = (high 2^64 + low + theta) / 2^128 and the parity of n."""
    rest = (low != 0) | sticky
    inexact = (high != 0) | rest
    if mode == NEAREST_EVEN:
        away = (high > TOP) | ((high == TOP) & (rest | odd))
    elif mode == NEAREST_AWAY:
        away = high >= TOP
    elif mode == STOCHASTIC:
        away = ((high >> (64 - bits)) + draw) >> bits != 0
    elif mode == STOCHASTIC_B:
        away = ((high >> (63 - bits)) + draw + draw + 1) >> (bits + 1) != 0
    elif mode == STOCHASTIC_C:
        kept, over = high >> (64 - bits), high << bits
        up = (over > TOP) | ((over == TOP) & (rest | ((kept & 1) != 0)))
        away = (kept + draw + up.to(tl.uint64)) >> bits != 0
    elif mode == TO_ODD:
        away = inexact & (odd == 0)
    elif mode == UP:
        away = inexact & (negative == 0)
    elif mode == DOWN:
        away = inexact & negative
    else:
        away = inexact & (inexact == 0)
    return away


@triton.jit
def _signed(table: tl.tensor, row: tl.tensor, negative: tl.tensor, minus: tl.constexpr, plus: tl.constexpr) -> Any:
    return tl.where(negative, float_of(table, row, minus), float_of(table, row, plus))


@triton.jit
def _rounded(
    mode: tl.constexpr, bits: tl.constexpr, high: tl.tensor, low: tl.tensor, sticky: tl.tensor, e: tl.tensor,
    negative: tl.tensor, draw: tl.tensor, table: tl.tensor, row: tl.tensor,
) -> Any:  # fmt: skip
    """A nonzero magnitude rounded to the format of ``row``."""
    at = table + row * ROW
    emin, parity_of_code = tl.load(at + _EMIN), tl.load(at + _CODE_PARITY)
    no_subnormals = tl.load(at + _SUBNORMALS) == 0
    lowest = tl.where((e < emin) & no_subnormals, emin, tl.maximum(e, emin) - tl.load(at + _FRACTION_BITS))
    k = e - lowest + 1  # bits of the integer significand
    inside = tl.maximum(k, 0).to(tl.uint64)
    whole = (high >> 1) >> (63 - inside)
    right_high, right_low, dropped = _shifted_right(high, low, tl.maximum(-k, 0))
    left_high = (high << inside) | ((low >> 1) >> (63 - inside))
    high, low = tl.where(k > 0, left_high, right_high), tl.where(k > 0, low << inside, right_low)
    sticky = sticky | dropped
    parity = tl.where((parity_of_code != 0) & (whole != 0), (lowest - emin + parity_of_code).to(tl.uint64), whole)
    away = _moves_away(mode, bits, (parity & 1) != 0, high, low, sticky, negative, draw)
    whole = whole + away.to(tl.uint64)
    normal = tl.minimum(tl.maximum(lowest + 1023, 1), 2046).to(tl.uint64) << 52
    subnormal = (normal & 0) + 1 << tl.minimum(tl.maximum(lowest + 1074, 0), 52).to(tl.uint64)
    y = whole.to(tl.float64) * from_bits(tl.where(lowest >= -1022, normal, subnormal))
    y = tl.where(e > 1023, constant(EXPONENT), y)
    y = tl.where((tl.load(at + _FLUSH) != 0) & (y < float_of(table, row, _SMALLEST_NORMAL)), 0.0, y)
    largest = float_of(table, row, MAX)
    if mode == TOWARD_ZERO:
        beyond = largest
    elif mode == UP:
        beyond = tl.where(negative, largest, float_of(table, row, OVERFLOW))
    elif mode == DOWN:
        beyond = tl.where(negative, float_of(table, row, OVERFLOW), largest)
    elif mode == TO_ODD:
        beyond = float_of(table, row, ODD_OVERFLOW)
    else:
        beyond = float_of(table, row, OVERFLOW)
    result = tl.where(y > largest, beyond, y)
    result = from_bits(to_bits(result) ^ (negative.to(tl.uint64) << 63))
    if mode == TOWARD_ZERO or mode == UP:
        unsigned = float_of(table, row, _LOWEST_VALUE)
    else:
        unsigned = float_of(table, row, _NEGATIVE)
    result = tl.where(negative & (tl.load(at + _SIGNED) == 0), unsigned, result)
    return tl.where(y == 0.0, _signed(table, row, negative, _MINUS_LEAST, _LEAST), result)


@triton.jit
def operate(
    kind: tl.constexpr,
    mode: tl.constexpr,
    bits: tl.constexpr,
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    draw: tl.tensor,
    table: tl.tensor,
    row: tl.tensor,
) -> Any:
    """The correctly rounded result of one operation on operands of any dtype, for the draw R of ``bits`` bits, uint32.

    Operands that are zero or not finite are settled by binary64 arithmetic, which is exact there.
    """
    a, b, c = a.to(tl.float64), b.to(tl.float64), c.to(tl.float64)
    if kind == SUB:
        b = from_bits(to_bits(b) ^ SIGN)
    size_a, size_b = to_bits(a) & MAGNITUDE, to_bits(b) & MAGNITUDE
    infinite = (size_a >= EXPONENT) | (size_b >= EXPONENT)
    zero = (size_a == 0) | (size_b == 0)
    negative_a, negative_b = (to_bits(a) >> 63) != 0, (to_bits(b) >> 63) != 0
    minus_zero = tl.full((), 0, tl.uint64)
    if mode == DOWN:
        minus_zero = tl.full((), SIGN, tl.uint64)
    value, done = a, size_a == size_a
    negative = negative_a
    if kind == ROUND:
        high, e = _parts(a)
        low, sticky = high & 0, high != high
    elif kind == ADD or kind == SUB:
        cancel = (infinite == 0) & (to_bits(a) == (to_bits(b) ^ SIGN))
        done = infinite | zero | cancel
        value = tl.where(cancel, from_bits(minus_zero), a + b)
        m, f = _parts(a)
        n, g = _parts(b)
        high, low, sticky, e, negative = _sum(m, m & 0, f, negative_a, n, n & 0, g, negative_b)
    elif kind == MUL:
        value, done = a * b, infinite | zero
        high, low, e = _product(a, b)
        sticky, negative = high != high, negative_a != negative_b
    elif kind == DIV:
        value, done = a / b, infinite | zero
        high, low, sticky, e = _quotient(a, b)
        negative = negative_a != negative_b
    elif kind == SQRT:
        value, done = tl.sqrt(a), (size_a >= EXPONENT) | (size_a == 0) | negative_a
        high, low, sticky, e = _root(a)
    elif kind == FMA:
        size_c, negative_c = to_bits(c) & MAGNITUDE, (to_bits(c) >> 63) != 0
        product = a * b  # where it is used, a zero or not finite, and exact
        opposite = (size_c == 0) & (to_bits(product) != to_bits(c))
        settled = tl.where(opposite, from_bits(minus_zero), product + c)
        done = infinite | zero | (size_c >= EXPONENT)
        value = tl.where(infinite, product + c, tl.where(size_c >= EXPONENT, c, settled))
        negative = negative_a != negative_b
        m, l, f = _product(a, b)  # noqa: E741
        n, g = _parts(c)
        high, low, sticky, e, sign = _sum(m, l, f, negative, n, n & 0, g, negative_c)
        # An exact product: c is zero.
        high, low, sticky = tl.where(size_c == 0, m, high), tl.where(size_c == 0, l, low), sticky & (size_c != 0)
        e, negative = tl.where(size_c == 0, f, e), tl.where(size_c == 0, negative, sign)
        # An exact zero sum.
        cancelled = (done == 0) & ((high | low) == 0)
        done, value = done | cancelled, tl.where(cancelled, from_bits(minus_zero), value)
    if kind != ROUND:
        high_done, e_done = _parts(value)
        high, low, sticky = tl.where(done, high_done, high), tl.where(done, 0, low), sticky & (done == 0)
        e, negative = tl.where(done, e_done, e), tl.where(done, (to_bits(value) >> 63) != 0, negative)
    y = _rounded(mode, bits, high, low, sticky, e, negative, draw.to(tl.uint64), table, row)
    size = to_bits(value) & MAGNITUDE
    y = tl.where(done & (size == 0), _signed(table, row, negative, _MINUS_LEAST, _LEAST), y)
    y = tl.where(done & (size == EXPONENT), _signed(table, row, negative, _MINUS_INFINITE, INFINITE), y)
    return tl.where((done & (size > EXPONENT)) | (y != y), constant(NAN_BITS), y)
