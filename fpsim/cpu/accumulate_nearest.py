"""Products and a sequential sum, each rounded to nearest even: both roundings of a step fused in one loop.

Notation. p, m, emin, max: of the format of the sum; t: a rounded product; s: the sum. All roundings are
``(x + C) - C`` with C = 2^52 quanta of the sign of x (see rounding_elements). Compared with the general path

* the sign of a zero t may be wrong, which no sum notices: s starts from +0 and is never -0 to nearest, and s + 0 = s;
* the quantum of a sum is that of its own exponent, also below 2^emin: there s + t is a multiple of 2^(emin - m), which
  no product undercuts, so it has at most m bits and either quantum leaves it as it is.

Both computations in binary64 are exact enough because the tiers say PLAIN (see tiers). What else may be left out:

CLAMPED  No result overflows. For products, max|a| max|b| <= max of their format. For sums either of
         (1)  |s_k| <= (1 + u)^k sum |t_i| <= e^(u k) sum |t_i| <= max, with sum |t_i| bounded by the largest row sum
              of |a| times max |b|, or by the largest column sum of |b| times max |a|;
         (2)  all |t| <= 2^h with h >= emin, and 2^(h+p+1) <= max. Where |s| >= 2^(h+p+1), the spacing is at least
              2^(h+2) and t is less than half of it: s moves no further from zero. Where |s| is less,
              |s + t| < 2^(h+p+1) + 2^h rounds to at most 2^(h+p+1). So |s| <= 2^(h+p+1) for ever.
FREE     CLAMPED, and no product lies below 2^emin of its format: its quantum is that of its own exponent too.
LIMITED  Anything finite: results beyond the largest finite value become what the format says. Infinite and NaN sums
         stay what they are, as an exponent field of all ones plus that of C wraps around to some small finite C.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.cpu import jit
from fpsim.cpu.bits import EXPONENT, MAGNITUDE, SIGN, from_bits, pointer, to_bits
from fpsim.cpu.format_table import FLOATS, INTEGERS, LOWEST, MAGIC, MAX, OVERFLOW
from fpsim.number_format import Format

FREE, CLAMPED, LIMITED = range(3)
_WIDTH, _DEPTH = 512, 64  # elements of a strip, and steps before the next row: a tile of 256 KiB of the right matrix
_NARROW = 4  # with fewer columns, sum by sum: a strip of one element costs as much as one of eight
_SIGNED_EXPONENT = EXPONENT | SIGN
_MARGIN = 1.0 + 2.0**-20  # more than the rounding errors of a bound in binary64


def variant(
    left: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    a: float,
    b: float,
    low: int,
    product: Format,
    total: Format,
) -> int | None:
    """The cheapest proven variant for finite operands; None where none is proven.

    ``a`` and ``b`` are the largest magnitudes, 2^low is at most the smallest product that is not zero. The caller knows
    that both operations are PLAIN.
    """
    finest = product.emin - product.mantissa_bits
    if finest < total.emin - total.mantissa_bits:
        return None
    if any(fmt.emax + 1 + 52 - fmt.mantissa_bits > 1023 for fmt in (product, total)):
        return None
    largest = a * b
    if math.frexp(largest)[1] + 52 > 1023:
        return None
    if largest > product.max or not _bounded(left, right, a, b, product, total):
        # An infinite product: the kernel makes of an infinity what the format makes of anything too large.
        as_overflow = {"infinity": True, "saturate_all": True, "nan": not total.has_infinity}.get(total.overflow, False)
        return LIMITED if as_overflow or product.overflow != "infinity" else None
    return FREE if low >= product.emin else CLAMPED


def _bounded(
    left: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    a: float,
    b: float,
    product: Format,
    total: Format,
) -> bool:
    """Whether no sum overflows, by (2), or by (1) with ever better bounds of sum |t_i|."""
    top = max(math.frexp(a * b)[1], product.emin) + total.precision + 1
    if top <= total.emax:
        return True
    terms = right.shape[0]
    exponent = terms * 2.0**-total.precision
    if exponent > 700.0:  # whose exponential binary64 does not hold
        return False
    growth = math.exp(exponent) * _MARGIN

    def fits(sums: float) -> bool:
        errors = sums * 2.0**-product.precision + terms * math.ldexp(1.0, product.emin - product.mantissa_bits)
        return bool((sums + errors) * growth <= total.max)

    if fits(terms * a * b):
        return True
    with np.errstate(over="ignore"):
        return fits(float(np.abs(left).sum(axis=1).max()) * b) or fits(float(np.abs(right).sum(axis=0).max()) * a)


@jit.inline
def _limited(y: float, largest: float, overflow: float) -> float:
    beyond = from_bits(to_bits(overflow) | (to_bits(y) & SIGN))
    return beyond if abs(y) > largest else y


def _step(kind: int) -> Any:
    @jit.inline
    def step(s: float, a: float, b: float, first: Any, second: Any) -> Any:
        """rd(s + rd(a * b))."""
        lowest, magic, largest, overflow = first
        _, magic_sum, largest_sum, overflow_sum = second
        x = a * b
        bits = to_bits(x)
        if kind == FREE:
            c = from_bits((bits & _SIGNED_EXPONENT) + magic)
        else:
            c = from_bits((max(bits & EXPONENT, lowest) + magic) | (bits & SIGN))
        t = (x + c) - c
        if kind == LIMITED:
            t = _limited(t, largest, overflow)
        x = s + t
        c = from_bits((to_bits(x) & _SIGNED_EXPONENT) + magic_sum)
        y = (x + c) - c
        if kind == LIMITED:
            y = _limited(y, largest_sum, overflow_sum)
        return y

    return step


def _strip(kind: int) -> Any:
    step = _step(kind)

    @jit.kernel
    def strip(a: float, right: Any, b: Any, out: Any, o: Any, n: Any, first: Any, second: Any) -> None:
        """One term of n neighbouring sums."""
        for j in range(n):
            out[o + j] = step(out[o + j], a, right[b + j], first, second)

    return strip


def _chain(kind: int) -> Any:
    step = _step(kind)

    @jit.kernel
    def chain(left: Any, a: Any, right: Any, b: Any, stride: Any, n: Any, s: float, first: Any, second: Any) -> float:
        """All terms of one sum."""
        for k in range(n):
            s = step(s, left[a + k], right[b + k * stride], first, second)
        return s

    return chain


@jit.inline
def _numbers(integers: Any, floats: Any, row: int) -> Any:
    i, f = row * INTEGERS, row * FLOATS
    overflow = from_bits(to_bits(floats[f + OVERFLOW]) & MAGNITUDE)
    return np.uint64(integers[i + LOWEST]), np.uint64(integers[i + MAGIC]), floats[f + MAX], overflow


# Not in the closure of an entry: the cache on disk would not know them again in another process.
_strip_free, _strip_clamped, _strip_limited = _strip(FREE), _strip(CLAMPED), _strip(LIMITED)
_chain_free, _chain_clamped, _chain_limited = _chain(FREE), _chain(CLAMPED), _chain(LIMITED)


def _make(sources: int) -> Any:
    @jit.entry
    def accumulate(
        kind: int,
        left: Any,
        right: Any,
        out: Any,
        integers: Any,
        floats: Any,
        product_row: int,
        sum_row: int,
        first_row: int,
        last_row: int,
        first_column: int,
        last_column: int,
    ) -> int:
        """out += left @ right, sequentially over k, for some rows and columns; all C-contiguous.

        integers, floats : the flat format tables
        """
        terms, columns = right.shape
        l, r, o = pointer(left), pointer(right), pointer(out)  # noqa: E741
        ints, reals = pointer(integers), pointer(floats)
        first, second = _numbers(ints, reals, product_row), _numbers(ints, reals, sum_row)
        if last_column - first_column < _NARROW:
            n, stride = np.uint64(terms), np.uint64(columns)
            for i in range(first_row, last_row):
                a = np.uint64(i * terms)
                for j in range(first_column, last_column):
                    s = out[i, j]
                    if kind == FREE:
                        s = _chain_free(l, a, r, np.uint64(j), stride, n, s, first, second)
                    elif kind == CLAMPED:
                        s = _chain_clamped(l, a, r, np.uint64(j), stride, n, s, first, second)
                    else:
                        s = _chain_limited(l, a, r, np.uint64(j), stride, n, s, first, second)
                    out[i, j] = s
            return sources
        for start in range(first_column, last_column, _WIDTH):
            n = np.uint64(min(_WIDTH, last_column - start))
            for begin in range(0, terms, _DEPTH):
                for i in range(first_row, last_row):
                    to = np.uint64(i * columns + start)
                    for k in range(begin, min(terms, begin + _DEPTH)):
                        at = np.uint64(k * columns + start)
                        if kind == FREE:
                            _strip_free(left[i, k], r, at, o, to, n, first, second)
                        elif kind == CLAMPED:
                            _strip_clamped(left[i, k], r, at, o, to, n, first, second)
                        else:
                            _strip_limited(left[i, k], r, at, o, to, n, first, second)
        return sources

    return accumulate


accumulate = _make(jit.SOURCES)
