"""Exactly rounded sums, products, quotients and roots of float32 arrays in 32-bit lanes.

The operation is computed in float32, x = RN24(exact), and x is rounded by the recipes of flat_single. Either x itself
decides (PLAIN: the proofs of ``tiers`` with T = 24), or x to odd, if P <= 23 (ODD: the odd x lies on the same side of
every number of at most 23 bits as the exact result). What these proofs assume is tested on each block of 1024
elements. Where it fails for one of them, the block is done again in float64 lanes. The tests:

NO OVERFLOW. |x| <= the largest value of the format. That also finds infinities and NaN, whose bits are larger, and
every result that could overflow: the largest value is on the grid, so a smaller x rounds to no more than it.

SUMS that are subnormal are exact. The residual (Knuth's TwoSum; u, v the operands, x = RN(u + v), t = RN(x - u)) is
exact if nothing overflows, which |x| <= 2^127 ensures. With operands of one sign that is plain. Else: where neither is
more than twice the other, x is exact, t = v, and all that follows is u, v or 0. If |u| > 2 |v|, then x - u is exact, of
size at most 2 |v|, and x - t = u. If |v| > 2 |u|, then |x - u| is at most |v| + 2^102, half a unit of x more, so t is
finite, and |x - t| <= |u| + 2^103. The last three operations take differences of nearly equal numbers. An x beyond
2^127 is still 2^127 or more when moved to odd by one unit: the test is |odd x| < 2^127.

PRODUCTS. |x| >= 2^-125, then the product is a normal number. ODD: with e its exponent, the residual fma(a, b, -x) is a
multiple of 2^(e - 47); it is exact for |x| >= 2^-101, as then e >= -102.

QUOTIENTS. |x| >= 2^-125. ODD: a - x b is a multiple of 2^(e_x + e_b - 46) >= 2^(e_a - 47), so fma(-x, b, a) is exact
for |a| >= 2^-102; it is tested with 2^-101.

ROOTS are normal numbers. ODD: a - x^2 is a multiple of 2^(2 e_x - 46) >= 2^(e_a - 47): the same.

A zero is below every threshold. It is no underflow, and passes, where an operand of the product, the numerator or the
radicand is zero.

The loop for the rest knows nothing of all that. It computes in float64, where operands of 24 bits and P <= 24 make
products, quotients and roots PLAIN, and sums are no more than they are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import ZERO
from fpsim.cpu.flat_kernels import BLOCK, single_room
from fpsim.cpu.flat_memory import float64_at, floats_at, int64_at, put
from fpsim.cpu.flat_single import (
    LINEAR,
    MAGNITUDE,
    NEITHER,
    NOTHING,
    ONE,
    SIGN,
    by_magic,
    fma,
    from_bits,
    linear,
    path,
    shifted,
    to_bits,
)
from fpsim.cpu.format_table import ADD, EMIN, FRACTION, MAX
from fpsim.cpu.operation_elements import compute
from fpsim.cpu.rounding_elements import INFINITY, format_row, rounded, special
from fpsim.cpu.tiers import SINGLE, Range, plain
from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic, asked_bits, code

KINDS = ("add", "sub", "mul", "div", "sqrt")
_TOP_SUM = (127 + 127) << 23  # bits of 2^127
_LEAST = (-125 + 127) << 23  # bits of 2^-125
_LEAST_EXACT = (-101 + 127) << 23  # bits of 2^-101


def single_kernel(kind: str, ranges: Sequence[Range], fmt: Format, rounding: Rounding) -> Any:
    """The kernel for float32 arrays and a format of ``format_table.fast``; None where none is proven.

    A largest value of at least 1 lies above all thresholds.
    """
    if kind not in KINDS or isinstance(rounding, Stochastic) or fmt.emax < 0:
        return None
    way, asked = path(fmt, rounding), fmt.precision + asked_bits(rounding)
    simple = plain(kind, ranges, fmt, rounding, asked, SINGLE)
    if way == NEITHER or not (simple or asked < SINGLE) or max(r.precision for r in ranges) > SINGLE:
        return None
    return _kernel(codes.KINDS[kind], codes.PLAIN if simple else codes.ODD, code(rounding), way)


@jit.inline
def _odd(s: Any, residual: Any) -> Any:
    """Bits of ``s`` to odd, where the exact result is ``s`` plus ``residual``."""
    bits = to_bits(s)
    inexact = (residual < np.float32(0.0)) | (residual > np.float32(0.0))
    # One unit toward zero if the residual points there; the last bit then says that something was cut off.
    back = shifted(np.uint32(to_bits(residual) ^ bits), np.uint32(31))
    return np.uint32(np.uint32(bits - back) | ONE) if inexact else bits


@jit.inline
def _computed(kind: int, tier: int, flip: Any, x: Any, y: Any) -> Any:
    """Bits of the result in 24 bits, rounded to odd or to nearest; its sign is inverted if ``flip`` is the sign bit."""
    if kind in (codes.ADD, codes.SUB):
        minus = SIGN if kind == codes.SUB else NOTHING
        u = from_bits(np.uint32(to_bits(x) ^ flip))
        v = from_bits(np.uint32(to_bits(y) ^ np.uint32(minus ^ flip)))
        s = u + v
        t = s - u
        residual = (u - (s - t)) + (v - t)
    elif kind == codes.MUL:
        s = x * y
        residual = fma(x, y, -s)
    elif kind == codes.DIV:
        s = x / y
        residual = from_bits(np.uint32(to_bits(fma(-s, y, x)) ^ np.uint32(to_bits(y) & SIGN)))
    else:
        s = np.float32(math.sqrt(x))
        residual = fma(-s, s, x)
    return to_bits(s) if tier == codes.PLAIN else _odd(s, residual)


@cache
def _kernel(kind: int, tier: int, mode: int, way: int) -> Any:
    """A kernel with the arguments of ``flat_kernels.flat``."""
    sources = jit.SOURCES
    arity = 1 if kind == codes.SQRT else 2
    sums = kind in (codes.ADD, codes.SUB)
    # -((-a) + (-b)), rounded up inside, makes an exact zero sum -0, as rounding down asks.
    mirrored = sums and mode == codes.DOWN and tier == codes.ODD
    inner = codes.UP if mirrored else mode
    flip = SIGN if mirrored else NOTHING
    scales = kind in (codes.MUL, codes.DIV)
    least = np.uint32(_LEAST_EXACT if kind == codes.MUL and tier == codes.ODD else _LEAST)
    guards_a = kind in (codes.DIV, codes.SQRT) and tier == codes.ODD
    least_a = np.uint32(_LEAST_EXACT)
    limited = sums and tier == codes.ODD
    wide = tier if sums else codes.PLAIN

    @jit.entry
    def kernel(
        a: int, step_a: int, b: int, step_b: int, c: int, step_c: int, out: int, aliased: int, n: int,
        integers: int, floats: int, key0: int, key1: int, first: int, bits: int,
    ) -> int:  # fmt: skip
        ints, reals = int64_at(integers), float64_at(floats)
        row = format_row(ints, reals, 0)
        m = ints[FRACTION]
        places = np.uint32(23 - m)
        lowest = np.uint32((ints[EMIN] + 127) << 23)
        magic, shift = np.uint32((23 - m) << 23), np.uint32(m << 23)
        top, add = to_bits(np.float32(reals[MAX])), np.float32(reals[ADD])
        if limited:
            top = min(top, np.uint32(_TOP_SUM - 1))
        if scales:
            top = np.uint32(top - least)
        room = single_room()
        for start in range(0, n, BLOCK):
            count = np.uint64(min(BLOCK, n - start))
            u, v = floats_at(a + start * 4 * step_a, 4), floats_at(b + start * 4 * step_b, 4)
            target = floats_at(room if aliased else out + start * 4, 4)
            peak, low = NOTHING, np.uint32(0xFFFFFFFF)
            for i in range(count):
                x = u[i]
                y = v[i] if arity > 1 else x
                s = _computed(kind, tier, flip, x, y)
                size = np.uint32(s & MAGNITUDE)
                if scales:
                    nonzero = np.uint32(to_bits(x) & MAGNITUDE) != NOTHING
                    if kind == codes.MUL:
                        nonzero = nonzero & (np.uint32(to_bits(y) & MAGNITUDE) != NOTHING)
                    # What is too small becomes larger than any top.
                    size = np.uint32(size - (least if nonzero else NOTHING))
                peak = size if size > peak else peak
                if guards_a:  # a zero becomes the largest integer, and passes
                    small = np.uint32(np.uint32(to_bits(x) & MAGNITUDE) - ONE)
                    low = small if small < low else low
                if way == LINEAR:
                    near = linear(inner, s, places, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
                else:
                    near = by_magic(inner, s, lowest, magic, shift)
                target[i] = from_bits(np.uint32(near ^ flip)) + add
            if peak > top or (guards_a and low < np.uint32(least_a - ONE)):
                for i in range(count):
                    x64 = np.float64(u[i])
                    y64 = np.float64(v[i]) if arity > 1 else x64
                    value, _ = compute(kind, wide, mode, x64, y64, x64)
                    result, _ = rounded(mode, value, row, ZERO)
                    put(target, i, special(value, result, row[INFINITY]))
            if aliased:
                to = floats_at(out + start * 4, 4)
                for i in range(count):
                    to[i] = target[i]
        return sources

    return kernel
