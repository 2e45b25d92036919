"""Rounding and operations on registers of binary64 numbers, inlined into every Triton kernel that rounds.

The recipes and their proofs are those of ``fpsim.cpu.rounding_elements`` and ``fpsim.cpu.operation_elements``; here a
branch is a select, and infinities are repaired on the spot. Mode, tier and the number of random bits are compile-time
constants, the format is a row of ``triton_table``. A NaN may have any bits in a register; ``store`` makes it the one.

Exponent fields lie in the upper 32 bits of a number and are computed there: the card has no instruction for the minimum
or the sum of 64-bit integers.

Everything here is computed in binary64, which holds every operand and every result, whatever the dtype in memory: an
operand of fewer bits widens exactly, and a result that a narrower dtype holds narrows exactly. ``triton_single``
computes where binary32 is enough.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.cpu import codes, format_table
from fpsim.cuda.triton_single_tiers import SINGLE_TIER
from fpsim.cuda.triton_table import COLUMNS, FIRST_OF_SINGLE

SIGN = tl.constexpr(1 << 63)
MAGNITUDE = tl.constexpr((1 << 63) - 1)
EXPONENT = tl.constexpr(0x7FF << 52)
NAN_BITS = tl.constexpr(0x7FF8 << 48)
NAN_BITS_32 = tl.constexpr(0x7FC0 << 16)
ONE_BITS = tl.constexpr(1023 << 52)
_FIELD = tl.constexpr(0x7FF << 20)  # of an exponent, in the upper half
_HALF = tl.constexpr(1 << 19)  # 2^51 there
_SMALL = tl.constexpr((1023 - 900) << 52)
_SCALE = tl.constexpr((1023 + 256) << 52)
_ROOT_SCALE = tl.constexpr((1023 + 128) << 52)

NEAREST_EVEN = tl.constexpr(codes.NEAREST_EVEN)
NEAREST_AWAY = tl.constexpr(codes.NEAREST_AWAY)
TOWARD_ZERO = tl.constexpr(codes.TOWARD_ZERO)
UP = tl.constexpr(codes.UP)
DOWN = tl.constexpr(codes.DOWN)
TO_ODD = tl.constexpr(codes.TO_ODD)
STOCHASTIC = tl.constexpr(codes.STOCHASTIC)
STOCHASTIC_B = tl.constexpr(codes.STOCHASTIC_B)
STOCHASTIC_C = tl.constexpr(codes.STOCHASTIC_C)
BINARY64 = tl.constexpr(codes.BINARY64)

ROUND = tl.constexpr(codes.ROUND)
ADD = tl.constexpr(codes.ADD)
SUB = tl.constexpr(codes.SUB)
MUL = tl.constexpr(codes.MUL)
DIV = tl.constexpr(codes.DIV)
SQRT = tl.constexpr(codes.SQRT)
FMA = tl.constexpr(codes.FMA)
PLAIN = tl.constexpr(codes.PLAIN)
ODD = tl.constexpr(codes.ODD)
EXACT = tl.constexpr(codes.EXACT)
GUARDED = tl.constexpr(codes.GUARDED)
SINGLE = tl.constexpr(SINGLE_TIER)

ROW = tl.constexpr(COLUMNS)
LOWEST = tl.constexpr(format_table.LOWEST)
HIGHEST = tl.constexpr(format_table.HIGHEST)
MAGIC = tl.constexpr(format_table.MAGIC)
QUANTUM = tl.constexpr(format_table.QUANTUM)
MAX = tl.constexpr(format_table.INTEGERS + format_table.MAX)
OVERFLOW = tl.constexpr(format_table.INTEGERS + format_table.OVERFLOW)
INFINITE = tl.constexpr(format_table.INTEGERS + format_table.INFINITE)
ADDED = tl.constexpr(format_table.INTEGERS + format_table.ADD)
ODD_OVERFLOW = tl.constexpr(format_table.INTEGERS + format_table.ODD_OVERFLOW)
SINGLE_COLUMN = tl.constexpr(FIRST_OF_SINGLE)
FIRST_SINGLE = tl.constexpr(9)  # in a format_row


@triton.jit
def to_bits(x: tl.tensor) -> Any:
    return x.to(tl.uint64, bitcast=True)


@triton.jit
def from_bits(bits: tl.tensor) -> Any:
    return bits.to(tl.float64, bitcast=True)


@triton.jit
def constant(bits: tl.constexpr) -> Any:
    """The binary64 number with these bits."""
    return tl.full((), bits, tl.uint64).to(tl.float64, bitcast=True)


@triton.jit
def load(place: tl.tensor, inside: tl.tensor, tier: tl.constexpr = EXACT) -> Any:
    """Elements of any floating dtype, as binary64; in the tier SINGLE as binary32."""
    if tier == SINGLE:
        return tl.load(place, mask=inside, other=0.0).to(tl.float32)
    else:
        return tl.load(place, mask=inside, other=0.0).to(tl.float64)


@triton.jit
def store(place: tl.tensor, x: tl.tensor, inside: tl.tensor) -> None:
    """Elements as the dtype of ``place``; every NaN as the canonical one: the card's conversions make another."""
    if place.dtype.element_ty == tl.float64:
        tl.store(place, tl.where(x != x, constant(NAN_BITS), x), mask=inside)
    else:
        nan = tl.full((), NAN_BITS_32, tl.uint32).to(tl.float32, bitcast=True)
        tl.store(place, tl.where(x != x, nan, x.to(tl.float32)), mask=inside)


@triton.jit
def upper(x: tl.tensor) -> Any:
    """The upper 32 bits."""
    return (to_bits(x) >> 32).to(tl.uint32)


@triton.jit
def from_upper(bits: tl.tensor) -> Any:
    """The binary64 number with these upper 32 bits, and zeros below."""
    return from_bits(bits.to(tl.uint64) << 32)


@triton.jit
def integer_of(table: tl.tensor, row: tl.tensor, column: tl.constexpr) -> Any:
    return tl.load(table + row * ROW + column).to(tl.uint64, bitcast=True)


@triton.jit
def field_of(table: tl.tensor, row: tl.tensor, column: tl.constexpr) -> Any:
    return (integer_of(table, row, column) >> 32).to(tl.uint32)


@triton.jit
def float_of(table: tl.tensor, row: tl.tensor, column: tl.constexpr) -> Any:
    return from_bits(integer_of(table, row, column))


@triton.jit
def single_of(table: tl.tensor, row: tl.tensor, column: tl.constexpr) -> Any:
    return tl.load(table + row * ROW + column).to(tl.uint32)


@triton.jit
def number_of(table: tl.tensor, row: tl.tensor, column: tl.constexpr) -> Any:
    return single_of(table, row, column).to(tl.float32, bitcast=True)


@triton.jit
def format_row(table: tl.tensor, row: tl.tensor) -> Any:
    """What a rounding reads of its format; what it does not use is not loaded.

    (exponent fields of 2^emin and 2^emax, of C and of q; largest, overflow, infinite, add, to-odd overflow; and for
    binary32 from FIRST_SINGLE on: s; exponent fields of 2^emin, 2^emax and 2^s; 2^(emax + 1), largest, overflow,
    infinite, add, to-odd overflow)
    """
    return (
        field_of(table, row, LOWEST), field_of(table, row, HIGHEST), field_of(table, row, MAGIC),
        field_of(table, row, QUANTUM), float_of(table, row, MAX), float_of(table, row, OVERFLOW),
        float_of(table, row, INFINITE), float_of(table, row, ADDED), float_of(table, row, ODD_OVERFLOW),
        single_of(table, row, SINGLE_COLUMN), single_of(table, row, SINGLE_COLUMN + 1),
        single_of(table, row, SINGLE_COLUMN + 2), single_of(table, row, SINGLE_COLUMN + 3),
        number_of(table, row, SINGLE_COLUMN + 4), number_of(table, row, SINGLE_COLUMN + 5),
        number_of(table, row, SINGLE_COLUMN + 6), number_of(table, row, SINGLE_COLUMN + 7),
        number_of(table, row, SINGLE_COLUMN + 8), number_of(table, row, SINGLE_COLUMN + 9),
    )  # fmt: skip


@triton.jit
def _stochastic(
    mode: tl.constexpr, bits: tl.constexpr, size: tl.tensor, y: tl.tensor, q: tl.tensor, draw: tl.tensor
) -> Any:
    """The rules A, B and C for the draw R, given y as nearest even has it (see fpsim.cpu.rounding_elements)."""
    t = tl.where(y > size, y - q, y)
    rest = size - t
    if bits <= 20:  # w = 1 + R / 2^N
        w = from_upper((draw << (20 - bits)) | (ONE_BITS >> 32))
    else:
        w = from_bits((draw.to(tl.uint64) << (52 - bits)) | ONE_BITS)
    if mode == STOCHASTIC:
        away = rest >= (2.0 - w) * q
    else:
        two = 2.0 - constant((1022 - bits) << 52)  # 2 - 2^-(N+1)
        bound = (two - w) * q
        if mode == STOCHASTIC_B:
            away = rest >= bound
        else:
            away = (rest > bound) | ((rest == bound) & ((draw & 1) == 0))
    return tl.where(away, t + q, t)


@triton.jit
def rounded(
    mode: tl.constexpr,
    bits: tl.constexpr,
    alike: tl.constexpr,
    x: tl.tensor,
    infinite: tl.tensor,
    row: tl.tensor,
    draw: tl.tensor,
) -> Any:
    """x rounded to the format of ``row``.

    ``draw``: R of ``bits`` bits, uint32. ``alike``: whether infinities become what an overflow becomes; else
    ``infinite``: where an infinite x is one, and no overflow.
    """
    if mode == BINARY64:
        return x
    size = tl.abs(x)
    sign = to_bits(x) & SIGN
    exponent = tl.minimum(tl.maximum(upper(x) & _FIELD, row[0]), row[1])
    c = from_upper(exponent + row[2])
    q = from_upper(exponent - row[3])
    limit = row[5]
    if mode == NEAREST_EVEN:
        y = (size + c) - c
    elif mode == NEAREST_AWAY:
        last = (size < constant(EXPONENT)).to(tl.uint64)  # an infinity is none with its last bit set
        y = (from_bits(to_bits(size) | last) + c) - c
    elif mode == TOWARD_ZERO:
        y = (size + c) - c
        y = tl.where(y > size, y - q, y)
        limit = row[4]
    elif mode == UP or mode == DOWN:
        c = from_upper(exponent + row[2] + _HALF)
        y = (x + c) - c
        if mode == UP:
            y = tl.where(y < x, y + q, y)
            limit = tl.where(sign == 0, row[5], row[4])
        else:
            y = tl.where(y > x, y - q, y)
            limit = tl.where(sign == 0, row[4], row[5])
        y = tl.abs(y)
    elif mode == TO_ODD:
        y = (size + c) - c
        t = tl.where(y > size, y - q, y)
        even = (to_bits(t + c) & 1) == 0  # t + C is exact and its last bit is the parity of t / q
        y = tl.where(even & (t < size), t + q, t)
        limit = row[8]
    else:
        y = _stochastic(mode, bits, size, (size + c) - c, q, draw)
    y = tl.where(y > row[4], limit, y)  # a NaN stays one
    if not alike:
        y = tl.where(infinite & is_infinite(x), row[6], y)
    return from_bits(to_bits(y) | sign) + row[7]


@triton.jit
def odd(s: tl.tensor, residual: tl.tensor) -> Any:
    """``s`` moved to odd, where the exact result is ``s`` plus a nonzero ``residual``; NaN counts as zero."""
    pattern = to_bits(s)
    inexact = (residual < 0.0) | (residual > 0.0)
    opposite = (to_bits(residual) ^ pattern) >> 63
    moved = pattern + 1 - (opposite << 1)
    return tl.where(inexact & ((pattern & 1) == 0), from_bits(moved), s)


@triton.jit
def _sum(u: tl.tensor, v: tl.tensor) -> Any:
    """u + v to odd."""
    s = u + v
    t = s - u
    return odd(s, (u - (s - t)) + (v - t))


@triton.jit
def _nonzero(x: tl.tensor, exact_zero: tl.tensor) -> Any:
    """2^-1074 with the sign of x where x has underflowed to zero."""
    return tl.where((x == 0.0) & (exact_zero == 0), from_bits(to_bits(x) | 1), x)


@triton.jit
def flipped(x: tl.tensor, sign: tl.constexpr) -> Any:
    return from_bits(to_bits(x) ^ sign)


@triton.jit
def is_infinite(x: tl.tensor) -> Any:
    return tl.abs(x) == constant(EXPONENT)


@triton.jit
def _quotient(tier: tl.constexpr, a: tl.tensor, b: tl.tensor) -> Any:
    x = a / b
    if tier != PLAIN:
        scale = tl.full((), 1.0, tl.float64)
        if tier == GUARDED:
            scale = tl.where((to_bits(a) & MAGNITUDE) < _SMALL, constant(_SCALE), scale)
        # a/b - x has the sign of (a - x b) times that of b.
        rest = tl.fma(-x, b * scale, a * scale)
        x = odd(x, from_bits(to_bits(rest) ^ (to_bits(b) & SIGN)))
    if tier == GUARDED:
        x = _nonzero(x, (a == 0.0) | is_infinite(b))
    return x


@triton.jit
def _root(tier: tl.constexpr, a: tl.tensor) -> Any:
    x = tl.sqrt(a)
    if tier != PLAIN:
        s, radicand = x, a
        if tier == GUARDED:
            small = (to_bits(a) & MAGNITUDE) < _SMALL
            s = tl.where(small, x * constant(_ROOT_SCALE), x)
            radicand = tl.where(small, a * constant(_SCALE), a)
        x = odd(x, tl.fma(-s, s, radicand))
    return x


@triton.jit
def compute(
    kind: tl.constexpr, tier: tl.constexpr, mode: tl.constexpr, a: tl.tensor, b: tl.tensor, c: tl.tensor
) -> Any:
    """One operation, not yet rounded: plain, to odd, or guarded; operands that are missing repeat a.

    (the result, whether it is truly infinite where it is infinite)
    """
    # -((-a) + (-b)) makes an exact zero sum -0, as rounding down asks.
    flip: tl.constexpr = (1 << 63) if mode == DOWN and tier != PLAIN else 0
    minus: tl.constexpr = (1 << 63) if kind == SUB else 0
    infinite = tl.full((), 1, tl.int1)
    x = a
    if kind == ADD or kind == SUB:
        if tier == PLAIN:
            x = a + flipped(b, minus)
        else:
            x = flipped(_sum(flipped(a, flip), flipped(b, minus ^ flip)), flip)
        if tier == GUARDED:
            infinite = is_infinite(a) | is_infinite(b)
    elif kind == MUL:
        x = a * b
        if tier != PLAIN:
            x = odd(x, tl.fma(a, b, -x))
        if tier == GUARDED:
            infinite = is_infinite(a) | is_infinite(b)
            x = _nonzero(x, (a == 0.0) | (b == 0.0))
    elif kind == DIV:
        x = _quotient(tier, a, b)
        if tier == GUARDED:
            infinite = is_infinite(a) | (b == 0.0)
    elif kind == SQRT:
        x = _root(tier, a)
    elif kind == FMA:
        if tier == PLAIN:
            x = tl.fma(a, b, c)
        else:  # the product is exact in binary64
            x = flipped(_sum(flipped(a * b, flip), flipped(c, flip)), flip)
    return x, infinite
