"""exp, exp2, expm1, sigmoid and tanh, rounded to odd at 53 bits. An element gives (result, whether it is known).

x = k ln 2 / 512 + r with |r| < 2^-10.52, and e^x = 2^(k / 512) e^r. Errors relative to e^x, u = 2^-53:

    k STEP1 is exact (20 and 29 bits), and so is x - k STEP1: for |x| >= 2^-11 a multiple of 2^-63 below 2^-10.4, else
    k = 0. STEP1 + STEP2 is within 2^-97 of ln 2 / 512, k STEP2 is a pair                                    2^-77
    r^2/2 .. r^6/720 in plain binary64: 3.1 roundings (r^2, the sum, the result) of at most 2^-22.04         2^-73.4
    r^7/5040 and beyond                                                                                     2^-85
    table: 2^(j / 512) = h + l; h r is a pair; four roundings of at most 2^-22; l (e^r - 1 - r) is neglected 2^-72.6
                                                                                                     sum < 2^-71.9

``EXP_ERROR`` is 2^-71, the bounds below are stated where they are used. In a result h + l with a bound that is computed
in floats, the factor between proof and bound (at least 1.4) covers the roundings of that computation.

Reference: Tang, "Table-driven implementation of the exponential function", ACM TOMS 15 (1989).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpsim.cpu.bits import NAN, fma, from_bits
from fpsim.cpu.elementary_double import fast_two_sum, quotient, settle, two_product, two_sum
from fpsim.cpu.jit import inline
from fpsim.cpu.operation_elements import odd

EXP_ERROR = float.fromhex("0x1p-71")
MAX = float.fromhex("0x1.fffffffffffffp+1023")  # what a finite result beyond becomes: it is odd
TINIEST = float.fromhex("0x1p-1074")
BELOW_ONE = float.fromhex("0x1.fffffffffffffp-1")
FEW = float.fromhex("0x1p-54")
_SHIFT = float.fromhex("0x1.8p+52")  # x + SHIFT - SHIFT is x rounded to an integer
_STEPS_TO_E = float.fromhex("0x1.71547652b82fep+9")  # 512 / ln 2
_STEP1 = float.fromhex("0x1.62e42ffp-10")
_STEP2 = float.fromhex("-0x1.718432a1b0e26p-44")
_LN2_H = float.fromhex("0x1.62e42fefa39efp-1")
_LN2_L = float.fromhex("0x1.abc9e3b39803fp-56")
_C3, _C4, _C5, _C6, _C7, _C8 = (1 / math.factorial(n) for n in range(3, 9))
_SMALL_TANGENT = float.fromhex("0x1p-27")
_SERIES = float.fromhex("0x1p-7")
_SERIES_ERROR = float.fromhex("0x1p-66")
_MINUS_ONE_ERROR = float.fromhex("0x1p-90")
_QUOTIENT_ERROR = float.fromhex("0x1p-98")


@inline
def power_of_two(k: int) -> Any:
    """2^k for -1022 <= k <= 1023."""
    return from_bits(np.uint64(k + 1023) << np.uint64(52))


@inline
def _assembled(k: int, rh: float, rl: float, table: Any) -> Any:
    """2^(k / 512) e^(rh + rl) = (h + l) 2^n: (h, l, n), h in [0.999, 2.002]."""
    j = np.uint64(2 * (k & 511))
    th, tl = table[j], table[j + np.uint64(1)]
    rest = fma(rh, fma(rh, fma(rh, fma(rh, _C6, _C5), _C4), _C3), 0.5)
    q = fma(rh * rh, rest, fma(rl, rh, rl))
    p, e = two_product(th, rh)
    s, f = fast_two_sum(th, p)
    h, low = fast_two_sum(s, f + (e + fma(th, q, fma(tl, rh, tl))))
    return h, low, k >> 9


@inline
def exp_pair(x: float, low: float, table: Any) -> Any:
    """e^(x + low) = (h + l) 2^n for |x| <= 709, |low| <= 2^-43."""
    steps = (fma(x, _STEPS_TO_E, _SHIFT)) - _SHIFT
    p, e = two_product(steps, _STEP2)
    s, f = two_sum(fma(-steps, _STEP1, x), -p)
    rh, rl = two_sum(s, (f - e) + low)
    return _assembled(np.int64(steps), rh, rl, table)


@inline
def scaled(h: float, low: float, n: int, error: float) -> Any:
    """(h + low) 2^n to odd, for -1021 <= n <= 1022: scaling is exact."""
    y, known = settle(h, low, error)
    return y * power_of_two(n), known


@inline
def exp(x: float, table: Any) -> Any:
    """Beyond 709.79 e^x is more than the largest number, below -745.2 less than the smallest."""
    if abs(x) < FEW:
        return odd(1.0, x), True
    if (x >= -707.0) & (x <= 709.0):
        h, low, n = exp_pair(x, 0.0, table)
        return scaled(h, low, n, 2.0 * EXP_ERROR)
    if x > 709.79:
        return (x if x > MAX else MAX), True
    if x < -745.2:
        return (0.0 if x < -MAX else TINIEST), True
    return NAN, x != x


@inline
def exp2(x: float, table: Any) -> Any:
    """x - k / 512 is exact, its product with ln 2 a pair within 2^-104 of its size."""
    if abs(x) < FEW:
        return odd(1.0, x), True
    if (x >= -1020.0) & (x <= 1022.0):
        if x == np.rint(x):
            return power_of_two(np.int64(x)), True
        steps = fma(x, 512.0, _SHIFT) - _SHIFT
        r = fma(steps, -1.0 / 512.0, x)
        rh, e = two_product(r, _LN2_H)
        h, low, n = _assembled(np.int64(steps), rh, fma(r, _LN2_L, e), table)
        return scaled(h, low, n, 2.0 * EXP_ERROR)
    if x >= 1024.0:
        return (x if x > MAX else MAX), True
    if x < -1074.0:
        return (0.0 if x < -MAX else TINIEST), True
    return NAN, x != x


@inline
def expm1_pair(x: float, table: Any) -> Any:
    """e^x - 1 = h + l within ``error``, for 2^-54 <= |x| <= 709: (h, l, error).

    Below 2^-7 the series, x + x^2 / 2 as a pair: the rest is at most 2^-16.57 |x| with 6.2 roundings, x^9 / 9! and
    beyond 2^-74 |x|: together below 2^-66.8 |x|, and |e^x - 1| > 0.99 |x|.
    Else e^x - 1 from the pair of e^x, with one rounding of at most 2^-52 (e^x + 1).
    """
    if abs(x) < _SERIES:
        w, we = two_product(x, x)
        s, f = fast_two_sum(x, 0.5 * w)
        rest = fma(x, fma(x, fma(x, fma(x, fma(x, _C8, _C7), _C6), _C5), _C4), _C3)
        return s, f + fma(0.5, we, x * w * rest), _SERIES_ERROR * abs(x)
    h, low, n = exp_pair(x, 0.0, table)
    scale = power_of_two(n)
    s, f = two_sum(h * scale, -1.0)
    return s, f + low * scale, fma(2.0 * EXP_ERROR, h * scale, _MINUS_ONE_ERROR)


@inline
def expm1(x: float, table: Any) -> Any:
    """Tiny: x < e^x - 1 < x + x^2, less than the unit. Below -38: e^x < 2^-54."""
    if abs(x) < FEW:
        return (odd(x, 1.0) if x != 0.0 else x), True
    if (x >= -38.0) & (x <= 706.0):
        h, low, error = expm1_pair(x, table)
        return settle(h, low, error)
    if x > 709.79:
        return (x if x > MAX else MAX), True
    if x < -38.0:
        return (-1.0 if x < -MAX else -BELOW_ONE), True
    return NAN, x != x


@inline
def sigmoid(x: float, table: Any) -> Any:
    """1 / (1 + e^-x). Tiny: 1/2 + x/4. Above 38: 1 - e^-x and more, e^-x < 2^-54. Below -745: less than 2^-1074.

    The relative error of 1 + e^-x is at most that of e^-x, and 2^-99 more from the sum and the quotient.
    """
    if abs(x) < FEW:
        return odd(0.5, x), True
    if (x >= -620.0) & (x <= 38.0):
        h, low, n = exp_pair(-x, 0.0, table)
        scale = power_of_two(n)
        s, f = two_sum(1.0, h * scale)
        s, f = fast_two_sum(s, fma(low, scale, f))
        qh, ql = quotient(1.0, 0.0, s, f)
        return settle(qh, ql, 2.0 * EXP_ERROR * qh)
    if x > 38.0:
        return (1.0 if x > MAX else BELOW_ONE), True
    if x < -745.2:
        return (0.0 if x < -MAX else TINIEST), True
    return NAN, x != x


@inline
def tanh(x: float, table: Any) -> Any:
    """t / (t + 2), t = e^(2 |x|) - 1. Tiny: |x| - |x|^3 / 3 and more. Above 20: 1 - 2 e^(-2 |x|) and more.

    A relative error of t is multiplied by 2 / (t + 2) < 1; the quotient's own is below 2^-99.
    """
    size = abs(x)
    if size < _SMALL_TANGENT:
        return odd(x, -x), True
    if size <= 20.0:
        h, low, error = expm1_pair(2.0 * size, table)
        h, low = fast_two_sum(h, low)
        s, f = two_sum(h, 2.0)
        s, f = fast_two_sum(s, f + low)
        qh, ql = quotient(h, low, s, f)
        y, known = settle(qh, ql, qh * (error / h + _QUOTIENT_ERROR))
        return math.copysign(y, x), known
    if size > 20.0:
        return math.copysign(1.0 if size > MAX else BELOW_ONE, x), True
    return NAN, True
