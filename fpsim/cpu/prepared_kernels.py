"""Operations on whole arrays, not yet rounded to the format: the exact result, or its rounding to odd at 53 bits.

References: IEEE 754-2019 sections 5.3.1, 9.2.1 and 9.6; Sterbenz's lemma; Boldo and Melquiond (2008) for rounding to
odd, as in ``operation_kernels``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpsim.cpu import jit
from fpsim.cpu.bits import NAN, ONE, SIGN, ZERO, fma, from_bits, multiply_high, to_bits
from fpsim.cpu.wide import parts

_SEAM = 2.0**50  # quotients from here on are divided digit by digit
_FIELD = np.uint64(52)
_FRACTION = np.uint64((1 << 52) - 1)
_BIAS = np.uint64(1023)
_TWICE = np.uint64(2046 + 1023)
_NORMAL = 2.0**-1022
_UNSURE = 2.0**-100  # residuals up to here are decided in integers
_STRIP = 512


@jit.inline
def _near_remainder(x: float, y: float, q: float) -> Any:
    """x rem y for finite x and nonzero finite y with |q| < 2^50, where q = RN53(x / y).

    n = rint(q) is within 1/2 + 2^-4 of x / y, so r = x - n y has |r| < |y|. It is a binary64 number, hence the fma is
    exact: if |x| >= |y|, x and y are multiples of the unit u of y, and |r| < |y| <= 2^53 u; if |x| < |y|, then n = 0
    and r = x, or |n| = 1, |q| > 1/2 and so |y| / 2 < |x| < |y| (Sterbenz).
    If |r| is more than |y| / 2, or the half with n odd, the nearest (even) integer is the next one and r is moved by
    one y, which is exact for the same two reasons. 2 |r| may overflow; it is then rightly the larger.
    """
    n = np.rint(q)
    r = fma(-n, y, x)
    twice, size, half = 2.0 * abs(r), abs(y), 0.5 * n
    other = r - from_bits(to_bits(size) | (to_bits(r) & SIGN))
    r = other if (twice > size) | ((twice == size) & (np.rint(half) != half)) else r
    return from_bits(to_bits(x) & SIGN) if r == 0.0 else r


@jit.kernel
def _far_remainder(x: float, y: float) -> Any:
    """x rem y in integers, for quotients of 2^49 and more, and for all that is not finite.

    x = M 2^d and y = N in units of 2^(f - 52), M and N of 53 bits. Eleven bits of the quotient at a time: the rest is
    below N < 2^53, so that the shifted rest fits 64 bits. The last digit has the parity of the quotient.
    """
    if x != x or y != y or abs(x) == np.inf or y == 0.0:
        return NAN
    if abs(y) == np.inf:
        return x
    m, e = parts(x)
    n, f = parts(y)
    rest, divisor = m >> np.uint64(11), n >> np.uint64(11)
    digit = rest // divisor
    rest -= digit * divisor
    left = e - f
    while left > 0:
        places = min(left, 11)
        rest = rest << np.uint64(places)
        digit = rest // divisor
        rest -= digit * divisor
        left -= places
    if rest == ZERO:
        return from_bits(to_bits(x) & SIGN)
    beyond = rest + rest > divisor or (rest + rest == divisor and (digit & ONE) != ZERO)
    # Both are multiples of 2^-1074, and so is their exact difference: ldexp does not round.
    size = math.ldexp(np.float64(divisor - rest if beyond else rest), f - 52)
    return -size if (x < 0.0) != beyond else size


@jit.inline
def _near_inverse_root(m: float) -> Any:
    """For 1 <= m < 4: r = 1 / sqrt(m) rounded to odd at 53 bits, and whether that is proven.

    y = RN(1 / RN(sqrt(m))) is r (1 + d) with |d| < 2^-51.9. h = 1 - m y^2 is the sum of 1 - q (exact, Sterbenz), -e_q
    (at most 2^-53) and -m e_p (at most 2^-52), where p + e_p = y^2 and q + e_q = m p exactly. As |h| < 2^-50.8, the two
    roundings of their sum err by less than 2^-102.4. Now r = y (1 - h)^(-1/2) is y + y h / 2 but for less than
    0.4 h^2 < 2^-102.9, and c = y h / 2 is rounded by less than 2^-104; together r is within 2^-101 of y + c, which is
    s + e exactly (|c| < y) with s = RN(y + c). With |e| > 2^-100, r is on the side of s to which e points, no further
    from it than the next number.
    """
    y = 1.0 / math.sqrt(m)
    p = y * y
    q = m * p
    h = fma(-m, fma(y, y, -p), (1.0 - q) - fma(m, p, -q))
    c = 0.5 * y * h
    s = y + c
    e = c - (s - y)
    bits = to_bits(s)
    moved = bits - ONE if e < 0.0 else bits + ONE
    return from_bits(bits if (bits & ONE) != ZERO else moved), abs(e) > _UNSURE


@jit.kernel
def _exceeds(m: Any, y: Any) -> Any:
    """Whether m y^2 > 2^158, for m y^2 within 2^127 of it: the sign of the difference modulo 2^128."""
    square_high, square_low = multiply_high(y, y), y * y
    low = m * square_low
    high = multiply_high(m, square_low) + m * square_high
    return (high >> np.uint64(63)) == ZERO and (high | low) != ZERO


@jit.kernel
def _odd_inverse_root(x: float) -> Any:
    """1 / sqrt(x) rounded to odd at 53 bits.

    A positive finite x is m 2^(2k - 52) with an integer 2^52 <= m < 2^54, so 1 / sqrt(x) = t 2^(-53 - k) with
    t = 2^79 / sqrt(m) in (2^52, 2^53]. The estimate y of t has two roundings, each of at most 2^-53 of its size; it is
    within 2 of t, m y^2 within 2^54 (2 * 2^53 + 4) 4 < 2^112 of 2^158, and so are the neighbours that are tried. The
    integer part of t is the largest y with m y^2 <= 2^158, decided exactly. t is an integer only if m divides 2^158
    and y^2 = 2^158 / m: m = 2^52, for 2^53 is no square times 2^158.
    """
    if not 0.0 < x < np.inf:
        if x == 0.0:
            return from_bits(to_bits(x) | to_bits(np.inf))
        return 0.0 if x > 0.0 else NAN
    m, e = parts(x)
    odd = e & 1
    m = m >> np.uint64(11 - odd)
    y = np.uint64(2.0**79 / math.sqrt(np.float64(m)))
    while _exceeds(m, y):
        y -= ONE
    while not _exceeds(m, y + ONE):
        y += ONE
    if m != ONE << np.uint64(52):
        y |= ONE
    k = (e - odd) >> 1
    return np.float64(y) * from_bits(np.uint64(1023 - 53 - k) << np.uint64(52))


def _make(sources: int) -> Any:
    """The entries; ``sources`` in their closures makes an edit of a kernel another cache entry."""

    @jit.entry
    def remainder(x: Any, y: Any, result: Any) -> int:
        for start in range(0, len(x), _STRIP):
            stop = min(start + _STRIP, len(x))
            far = 0
            for i in range(start, stop):
                q = x[i] / y[i]
                far += 0 if (abs(q) < _SEAM) & (abs(y[i]) < np.inf) else 1
                result[i] = _near_remainder(x[i], y[i], q)
            if far > 0:
                for i in range(start, stop):
                    if not (abs(x[i] / y[i]) < _SEAM and abs(y[i]) < np.inf):
                        result[i] = _far_remainder(x[i], y[i])
        return sources

    @jit.entry
    def inverse_root(x: Any, result: Any) -> int:
        for start in range(0, len(x), _STRIP):
            stop = min(start + _STRIP, len(x))
            unsure = 0
            for i in range(start, stop):
                # x = m 4^k with 1 <= m < 4; the biased exponent f of x is odd where its exponent f - 1023 is even.
                field = to_bits(x[i]) >> _FIELD
                odd = (field & ONE) ^ ONE
                m = from_bits((to_bits(x[i]) & _FRACTION) | ((_BIAS + odd) << _FIELD))
                scale = from_bits(((_TWICE + odd - field) >> ONE) << _FIELD)  # 2^-k
                root, sure = _near_inverse_root(m)
                normal = (x[i] >= _NORMAL) & (x[i] < np.inf)
                unsure += 0 if sure & normal else 1
                result[i] = root * scale if sure & normal else NAN
            if unsure > 0:
                for i in range(start, stop):
                    if result[i] != result[i]:
                        result[i] = _odd_inverse_root(x[i])
        return sources

    @jit.entry
    def extreme(x: Any, y: Any, flip: Any, result: Any) -> int:
        """Maximum, or minimum with the sign bit in ``flip``: NaN propagates, -0 is below +0."""
        for i in range(len(x)):
            u = from_bits(to_bits(x[i]) ^ flip)
            v = from_bits(to_bits(y[i]) ^ flip)
            largest = u if u > v else v
            largest = from_bits(to_bits(u) & to_bits(v)) if u == v else largest  # only zeros differ in their bits
            largest = from_bits(to_bits(largest) ^ flip)
            result[i] = NAN if (u != u) | (v != v) else largest
        return sources

    @jit.entry
    def with_sign(x: Any, keep: Any, flip: Any, result: Any) -> int:
        """x with the bits of ``keep`` kept and those of ``flip`` inverted."""
        for i in range(len(x)):
            result[i] = NAN if x[i] != x[i] else from_bits((to_bits(x[i]) & keep) ^ flip)
        return sources

    return remainder, inverse_root, extreme, with_sign


remainder, inverse_root, extreme, with_sign = _make(jit.SOURCES)
