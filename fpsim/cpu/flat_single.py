"""Rounding of float32 arrays in 32-bit lanes: twice as many numbers in a register as by way of float64.

LINEAR, formats with emin = -126, float32's own. The numbers of such a format with m mantissa bits are the float32
numbers whose last s = 23 - m bits are zero, subnormal ones too; and float32 numbers of one sign are ordered like their
bits. Rounding the bits, as an integer, to a multiple of 2^s is rounding the number: a carry into the exponent is right.
With m >= 1 the parity of the significand is that of bit s. A mode is an increment before the last s bits are cut off:

    nearest even  2^(s-1) - 1 + bit s;  nearest away  2^(s-1);  away from zero  2^s - 1
    stochastic    with f = nu 2^s the bits that are cut off, an integer:
        A   floor(f 2^(N-s)) + R >= 2^N  iff  f + floor(R 2^(s-N)) >= 2^s, whichever of s and N is larger
        B   the same with 2 R + 1 in the place of R and N + 1 in that of N
        C   as B, but not where both are equal and R is odd; equal they can be only if N < s, and then the
            increment is one less

A number's sign is above all that and stays. The largest finite value is the last one that is rounded so: a block that
holds anything beyond it, infinities and NaN included, is done again by way of float64.

MAGIC, formats whose C = 1.5 * 2^23 q and q are normal float32 numbers: the recipe of rounding_elements in float32.

Integers are cast after every step: Numba computes sums of 32-bit integers in 64 bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import ZERO
from fpsim.cpu.flat_kernels import BLOCK, draws, single_room, word_room
from fpsim.cpu.flat_memory import float64_at, floats_at, int64_at, put, uint32_at
from fpsim.cpu.format_table import ADD, EMIN, FRACTION, MAX
from fpsim.cpu.rounding_elements import INFINITY, draw_of, format_row, rounded, special
from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic

NEITHER, LINEAR, MAGIC = range(3)
MAGNITUDE, SIGN, _EXPONENT = np.uint32(0x7FFFFFFF), np.uint32(0x80000000), np.uint32(0x7F800000)
ONE, NOTHING, _HALF = np.uint32(1), np.uint32(0), np.uint32(1 << 22)


def path(fmt: Format, rounding: Rounding) -> int:
    """Which of the two rounds float32 numbers to a format of ``format_table.fast``."""
    m = fmt.mantissa_bits
    if fmt.emin == -126 and 1 <= m <= 22:
        return LINEAR
    if m <= 21 and fmt.emin - m >= -126 and fmt.emax + 24 - m <= 127 and not isinstance(rounding, Stochastic):
        return MAGIC
    return NEITHER


@intrinsic  # type: ignore[untyped-decorator]
def to_bits(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def from_bits(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic  # type: ignore[untyped-decorator]
def shifted(typing_context: Any, x: Any, places: Any) -> Any:
    """x >> places in 32 bits, places < 32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.lshr(*arguments)

    return types.uint32(types.uint32, types.uint32), generate


@intrinsic  # type: ignore[untyped-decorator]
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding, in hardware."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@jit.inline
def linear(mode: int, bits: Any, shift: Any, word: Any, kept: Any, middle: Any, rest: Any, parity: Any) -> Any:
    """The bits rounded; no carry reaches the sign of a finite number.

    kept, middle : the draw's bits in a word, and the bit below them;  rest : 32 - number of random bits
    parity : 1 where variant C can meet a tie
    """
    full = np.uint32(ONE << shift)
    low = np.uint32(full - ONE)
    up = NOTHING
    if mode == codes.NEAREST_EVEN:
        up = np.uint32(np.uint32(shifted(low, ONE)) + np.uint32(shifted(bits, shift) & ONE))
    elif mode == codes.NEAREST_AWAY:
        up = shifted(full, ONE)
    elif mode == codes.UP:
        up = low if (bits & SIGN) == NOTHING else NOTHING
    elif mode == codes.DOWN:
        up = NOTHING if (bits & SIGN) == NOTHING else low
    elif mode == codes.TO_ODD:
        odd = full if (bits & low) != NOTHING else NOTHING
        return np.uint32(np.uint32(bits & ~low) | odd)
    elif mode >= codes.STOCHASTIC:
        draw = np.uint32(word & kept)
        if mode != codes.STOCHASTIC:
            draw = np.uint32(draw | middle)
        up = shifted(draw, np.uint32(32) - shift)
        if mode == codes.STOCHASTIC_C:
            up = np.uint32(up - np.uint32(shifted(word, rest) & parity))
    return np.uint32(np.uint32(bits + up) & np.uint32(~low))


@jit.inline
def by_magic(mode: int, bits: Any, lowest: Any, magic: Any, shift: Any) -> Any:
    """The bits rounded, of a number that is not beyond the largest value."""
    size = from_bits(np.uint32(bits & MAGNITUDE))
    exponent = np.uint32(bits & _EXPONENT)
    exponent = lowest if exponent < lowest else exponent
    c = from_bits(np.uint32(exponent + magic))
    q = from_bits(np.uint32(exponent - shift))
    y = (size + c) - c
    if mode == codes.NEAREST_AWAY:
        y = (from_bits(np.uint32(np.uint32(bits & MAGNITUDE) | ONE)) + c) - c
    elif mode == codes.TOWARD_ZERO:
        y = y - q if y > size else y
    elif mode in (codes.UP, codes.DOWN):
        x, c = from_bits(bits), from_bits(np.uint32(np.uint32(exponent + magic) + _HALF))
        y = (x + c) - c
        y = y + q if mode == codes.UP and y < x else y
        y = y - q if mode == codes.DOWN and y > x else y
    elif mode == codes.TO_ODD:
        t = y - q if y > size else y
        y = t + q if np.uint32(to_bits(t + c) & ONE) == NOTHING and t < size else t
    return np.uint32(np.uint32(to_bits(y) & MAGNITUDE) | np.uint32(bits & SIGN))


@cache
def flat_single(mode: int, way: int) -> Any:
    """The kernel ``round`` of float32 arrays, with the arguments of ``flat_kernels.flat``."""
    sources = jit.SOURCES
    random = codes.STOCHASTIC <= mode <= codes.STOCHASTIC_C

    @jit.entry
    def kernel(
        a: int, step_a: int, b: int, step_b: int, c: int, step_c: int, out: int, aliased: int, n: int,
        integers: int, floats: int, key0: int, key1: int, first: int, bits: int,
    ) -> int:  # fmt: skip
        ints, reals = int64_at(integers), float64_at(floats)
        row = format_row(ints, reals, 0)
        m = ints[FRACTION]
        places = np.uint32(23 - m)
        kept = np.uint32(0xFFFFFFFF << (32 - bits))
        middle = np.uint32(1 << (31 - bits)) if bits < 32 else NOTHING
        rest = np.uint32(32 - bits) if bits > 0 else NOTHING
        parity = ONE if bits < 23 - m else NOTHING
        lowest = np.uint32((ints[EMIN] + 127) << 23)
        magic, shift = np.uint32((23 - m) << 23), np.uint32(m << 23)
        top, add = to_bits(np.float32(reals[MAX])), np.float32(reals[ADD])
        one_zero = to_bits(add) == NOTHING
        words, room = uint32_at(word_room()), single_room()
        none, right = ZERO, np.uint64(32 - bits)
        for start in range(0, n, BLOCK):
            count = np.uint64(min(BLOCK, n - start))
            u = floats_at(a + start * 4 * step_a, 4)
            target = floats_at(room if aliased else out + start * 4, 4)
            if random:
                draws(words, bits, first + start, count, np.uint64(key0), np.uint64(key1))
            peak = NOTHING
            for i in range(count):
                x = to_bits(u[i])
                word = words[i] if random else NOTHING
                if way == LINEAR:
                    y = linear(mode, x, places, word, kept, middle, rest, parity)
                else:
                    y = by_magic(mode, x, lowest, magic, shift)
                size = np.uint32(x & MAGNITUDE)
                peak = size if size > peak else peak
                target[i] = from_bits(y)
            if one_zero:
                for i in range(count):
                    target[i] = target[i] + add
            # What is not beyond the largest value is not rounded beyond it. Infinities and NaN have the larger bits.
            if peak > top:
                for i in range(count):
                    x64 = np.float64(u[i])
                    draw = draw_of(words[i], none, right) if random else ZERO
                    result, _ = rounded(mode, x64, row, draw)
                    put(target, i, special(x64, result, row[INFINITY]))
            if aliased:
                to = floats_at(out + start * 4, 4)
                for i in range(count):
                    to[i] = target[i]
        return sources

    return kernel
