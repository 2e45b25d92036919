"""Operations and roundings on registers of binary32 numbers, for the slots that ``triton_single_tiers`` admits.

Three roundings of a binary32 number x to a format of m mantissa bits:

LINEAR, formats with emin = -126, binary32's own. Their numbers are the binary32 numbers whose last s = 23 - m bits are
zero, subnormal ones too; and numbers of one sign are ordered like their bits. Rounding the bits to a multiple of 2^s is
rounding the number: a carry into the exponent is right, and one out of the largest exponent makes the infinity. A mode
is an increment before the last s bits are cut off. With f these bits, as an integer:

    nearest even  2^(s-1) - 1 + bit s;  nearest away  2^(s-1);  away from zero  2^s - 1
    stochastic    A: floor(f 2^(N-s)) + R >= 2^N  iff  f + floor(R 2^(s-N)) >= 2^s, whichever of s and N is larger
                  B: the same with 2 R + 1 in the place of R and N + 1 in that of N
                  C: as B, but not where both are equal and R is odd; equal they can be only if N < s, and then the
                  increment is one less

A NaN may carry into the sign; it is put back at the end.

MAGIC, formats of fewer exponents. E is the exponent of x clamped to [emin, emax], q = 2^(E - m) and c = 2^23 q: in
[c, 2c) the numbers of binary32 are the multiples of q. So |x| + c, rounded by the card to nearest or in a direction, is
c plus the rounded |x|, and taking c away is exact. Signed modes take c with the sign of x. Nearest away sets the last
bit of |x| first, worth less than q / 2 and zero in a tie, as m <= 21. To odd: one of the sums rounded down and up has
an odd last bit, or both are equal. Stochastic: with u = q / 2^N and c = 2^23 u the sum rounded toward zero is
c + floor(|x| / u) u, as |x| / u < 2^(p + N) <= 2^23; adding R to its bits carries into the multiple of q iff the mode
says so; B again with 2 R + 1 and N + 1. From 2^(emax + 1) on, |x| is beyond the largest value and stays; the other
modes keep such an |x| there, as they are monotone and 2^(emax + 1) itself stays.

ITSELF: x.

The card's directed roundings are instructions that Triton has no name for. A quotient of binary32 numbers, written with
a slash, is an approximation on the card.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.cuda import triton_single_tiers as tiers
from fpsim.cuda.triton_elements import (
    ADD,
    DIV,
    DOWN,
    FIRST_SINGLE,
    MUL,
    NEAREST_AWAY,
    NEAREST_EVEN,
    ROUND,
    SQRT,
    STOCHASTIC,
    STOCHASTIC_C,
    SUB,
    TO_ODD,
    TOWARD_ZERO,
    UP,
)

LINEAR = tl.constexpr(tiers.LINEAR)
MAGIC = tl.constexpr(tiers.MAGIC)
ITSELF = tl.constexpr(tiers.ITSELF)
NEAREST = tl.constexpr(tiers.NEAREST)
DIRECTED = tl.constexpr(tiers.DIRECTED)
ODD = tl.constexpr(tiers.ODD)

_CUT = tl.constexpr(FIRST_SINGLE.value)  # places in a format_row
_LOWEST = tl.constexpr(FIRST_SINGLE.value + 1)
_HIGHEST = tl.constexpr(FIRST_SINGLE.value + 2)
_SHIFTED = tl.constexpr(FIRST_SINGLE.value + 3)
_BEYOND = tl.constexpr(FIRST_SINGLE.value + 4)
_MAX = tl.constexpr(FIRST_SINGLE.value + 5)
_OVERFLOW = tl.constexpr(FIRST_SINGLE.value + 6)
_INFINITE = tl.constexpr(FIRST_SINGLE.value + 7)
_ADDED = tl.constexpr(FIRST_SINGLE.value + 8)
_ODD_OVERFLOW = tl.constexpr(FIRST_SINGLE.value + 9)
_SIGN = tl.constexpr(1 << 31)
_MAGNITUDE = tl.constexpr((1 << 31) - 1)
_EXPONENT = tl.constexpr(0xFF << 23)
_ALL = tl.constexpr((1 << 32) - 1)  # Triton 3.6 interprets no ~ of unsigned numbers
_LARGEST = tl.constexpr((0xFF << 23) - 1)


@triton.jit
def bits_of(x: tl.tensor) -> Any:
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def number_of(bits: tl.tensor) -> Any:
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def single(x: tl.tensor) -> Any:
    """A number that binary32 has, in a register of that size."""
    return x.to(tl.float32)


@triton.jit
def double(x: tl.tensor) -> Any:
    """The same number in a register of binary64."""
    return x.to(tl.float64)


@triton.jit
def _directed(kind: tl.constexpr, way: tl.constexpr, a: tl.tensor, b: tl.tensor, c: tl.tensor) -> Any:
    """An operation that the card rounds toward zero (rz), up (rp) or down (rm)."""
    if kind == ADD:
        return tl.inline_asm_elementwise(f"add.{way}.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, True, 1)
    elif kind == SUB:
        return tl.inline_asm_elementwise(f"sub.{way}.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, True, 1)
    elif kind == MUL:
        return tl.inline_asm_elementwise(f"mul.{way}.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, True, 1)
    elif kind == DIV:
        return tl.inline_asm_elementwise(f"div.{way}.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, True, 1)
    elif kind == SQRT:
        return tl.inline_asm_elementwise(f"sqrt.{way}.f32 $0, $1;", "=f,f", [a], tl.float32, True, 1)
    else:
        return tl.inline_asm_elementwise(f"fma.{way}.f32 $0, $1, $2, $3;", "=f,f,f,f", [a, b, c], tl.float32, True, 1)


@triton.jit
def _odd(low: tl.tensor, high: tl.tensor) -> Any:
    """What was rounded down or what was rounded up, whichever has an odd last bit; two zeros: the upper one."""
    return tl.where((bits_of(low) & 1) != 0, low, high)


@triton.jit
def _computed(
    kind: tl.constexpr, how: tl.constexpr, mode: tl.constexpr, a: tl.tensor, b: tl.tensor, c: tl.tensor
) -> Any:
    """One operation, rounded to 24 bits as its tier says."""
    if kind == ROUND:
        return a
    elif how == DIRECTED:
        if mode == UP:
            return _directed(kind, "rp", a, b, c)
        elif mode == DOWN:
            return _directed(kind, "rm", a, b, c)
        else:
            return _directed(kind, "rz", a, b, c)
    elif how == ODD:
        return _odd(_directed(kind, "rm", a, b, c), _directed(kind, "rp", a, b, c))
    elif kind == ADD:
        return a + b
    elif kind == SUB:
        return a - b
    elif kind == MUL:
        return a * b
    elif kind == DIV:
        return tl.div_rn(a, b)
    elif kind == SQRT:
        return tl.sqrt_rn(a)
    else:
        return tl.fma(a, b, c)


@triton.jit
def _linear(mode: tl.constexpr, bits: tl.constexpr, x: tl.tensor, draw: tl.tensor, s: tl.tensor) -> Any:
    pattern = bits_of(x)
    one = tl.full((), 1, tl.uint32)
    low = (one << s) - 1
    negative = (pattern.to(tl.int32, bitcast=True) >> 31).to(tl.uint32, bitcast=True)  # all bits, or none
    if mode == NEAREST_EVEN:
        up = (low >> 1) + ((pattern >> s) & 1)
    elif mode == NEAREST_AWAY:
        up = (low >> 1) + 1
    elif mode == UP:
        up = low & (negative ^ _ALL)
    elif mode == DOWN:
        up = low & negative
    elif mode == TOWARD_ZERO:
        up = draw & 0
    elif mode == TO_ODD:
        up = tl.where((pattern & low) != 0, (pattern & (low + 1)) ^ (low + 1), pattern & 0)
    else:
        top = draw << (32 - bits)  # R 2^(32 - N)
        if mode != STOCHASTIC and bits < 32:
            top = top | (1 << (31 - bits))
        up = top >> (32 - s)
        if mode == STOCHASTIC_C:
            up = up - tl.where(s > bits, draw & 1, draw & 0)
    return number_of((pattern + up) & (low ^ _ALL))


@triton.jit
def _magic(mode: tl.constexpr, bits: tl.constexpr, x: tl.tensor, draw: tl.tensor, row: tl.tensor) -> Any:
    """The rounded magnitude."""
    pattern = bits_of(x)
    size = tl.abs(x)
    exponent = tl.minimum(tl.maximum(pattern & _EXPONENT, row[_LOWEST]), row[_HIGHEST])
    c = number_of(exponent + row[_SHIFTED])
    if mode == NEAREST_EVEN:
        return (size + c) - c
    elif mode == NEAREST_AWAY:
        last = (size < number_of(tl.full((), _EXPONENT, tl.uint32))).to(tl.uint32)  # an infinity stays one
        return (number_of(bits_of(size) | last) + c) - c
    elif mode == TOWARD_ZERO:
        return _directed(ADD, "rz", size, c, c) - c
    elif mode == UP or mode == DOWN:
        c = number_of(bits_of(c) | (pattern & _SIGN))
        if mode == UP:
            return tl.abs(_directed(ADD, "rp", x, c, c) - c)
        else:
            return tl.abs(_directed(ADD, "rm", x, c, c) - c)
    elif mode == TO_ODD:
        return _odd(_directed(ADD, "rm", size, c, c), _directed(ADD, "rp", size, c, c)) - c
    else:
        asked: tl.constexpr = bits if mode == STOCHASTIC else bits + 1
        if mode != STOCHASTIC:
            draw = (draw << 1) | 1
        c = number_of(exponent + row[_SHIFTED] - (asked << 23))
        total = bits_of(_directed(ADD, "rz", size, c, c)) + draw
        y = number_of((total >> asked) << asked) - c
        return tl.where(size < row[_BEYOND], y, size)


@triton.jit
def _ended(mode: tl.constexpr, alike: tl.constexpr, x: tl.tensor, y: tl.tensor, row: tl.tensor) -> Any:
    """y, x rounded, where it is in the format; else what the mode and the format say."""
    sign = bits_of(x) & _SIGN
    limit = row[_OVERFLOW]
    if mode == TOWARD_ZERO:
        limit = row[_MAX]
    elif mode == UP:
        limit = tl.where(sign == 0, row[_OVERFLOW], row[_MAX])
    elif mode == DOWN:
        limit = tl.where(sign == 0, row[_MAX], row[_OVERFLOW])
    elif mode == TO_ODD:
        limit = row[_ODD_OVERFLOW]
    size = tl.abs(y)
    size = tl.where(size > row[_MAX], limit, size)  # a NaN stays one
    if not alike:
        size = tl.where(bits_of(x) << 1 == _EXPONENT << 1, row[_INFINITE], size)
    return number_of((bits_of(size) & _MAGNITUDE) | sign) + row[_ADDED]


@triton.jit
def single_operation(
    kind: tl.constexpr,
    how: tl.constexpr,
    way: tl.constexpr,
    natural: tl.constexpr,
    mode: tl.constexpr,
    bits: tl.constexpr,
    alike: tl.constexpr,
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    draw: tl.tensor,
    row: tl.tensor,
) -> Any:
    """One correctly rounded operation; ``row`` as ``format_row`` gives it, operands of any dtype in binary32."""
    x = _computed(kind, how, mode, single(a), single(b), single(c))
    if way == ITSELF:
        return x
    elif way == MAGIC:
        return _ended(mode, alike, x, _magic(mode, bits, x, draw, row), row)
    else:
        y = _linear(mode, bits, x, draw, row[_CUT])
        if kind != ROUND and how == DIRECTED and mode >= STOCHASTIC and alike:
            # The largest number stands for an overflow, and its double is the infinity.
            y = tl.where(tl.abs(x) < number_of(tl.full((), _LARGEST, tl.uint32)), y, x + x)
        else:
            y = tl.where(x == x, y, x)
        if natural:
            return y
        else:
            return _ended(mode, alike, x, y, row)
