"""log, log2 and log1p, rounded to odd at 53 bits. An element gives (result, whether it is known).

x = 2^k z with z in [0.6875, 1.375), c from the table near 1 / z, z c = 1 + r, |r| <= 2^-9 (2^-10 away from z = 1), and

    log x = k ln 2 - log c + r - r^2 / 2 + r^3 (1/3 - r/4 + r^2/5 - r^3/6 + r^4/7 - r^5/8) + ...

z c is a pair, and z c - 1 is exact; k LN2_H is exact (11 and 42 bits), k LN2_L below 2^-33. r - r^2 / 2 is kept as a
pair, what follows is plain. Errors, u = 2^-53:

    c = 1 and k = 0 (relative to r): the rest is 2^-19.58 with four roundings, and four more in the sum     2^-69.58
        the omitted r^9 / 9                                                                                2^-75
    else absolutely: sixteen roundings of at most 2^-31, log c within 2^-106, |log x| > 2^-10              2^-70

``_ERROR`` is 2^-68 relative. For log1p(x), 1 + x = h + l is a pair and l enters r; with c = 1, k = 0 then r = x.

Reference: Tang, "Table-driven implementation of the logarithm function", ACM TOMS 16 (1990).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpsim.cpu.bits import NAN, fma, from_bits, to_bits
from fpsim.cpu.elementary_constants import LOG_FIRST
from fpsim.cpu.elementary_double import fast_two_sum, product, settle, two_product, two_sum
from fpsim.cpu.jit import inline
from fpsim.cpu.operation_elements import odd

_ERROR = float.fromhex("0x1p-68")
_FEW = float.fromhex("0x1p-54")
_SMALLEST_NORMAL = float.fromhex("0x1p-1022")
_MAX = float.fromhex("0x1.fffffffffffffp+1023")
_TOP = np.uint64(0xFFF << 52)
_FRACTION = np.uint64((1 << 52) - 1)
_FIRST = np.uint64(LOG_FIRST)
LN2_H = float.fromhex("0x1.62e42fefa38p-1")  # 42 bits
LN2_L = float.fromhex("0x1.ef35793c7673p-45")
_LOG2_E_H = float.fromhex("0x1.71547652b82fep+0")
_LOG2_E_L = float.fromhex("0x1.777d0ffda0d24p-56")


@inline
def reduced(h: float, low: float, table: Any, at: Any) -> Any:
    """h + low = 2^k z, z c = 1 + rh + rl: (k as a float, rh, rl, where c stands in the table); h is normal.

    From k = 1023 on the part of ``low`` is dropped: it is below 2^-1000.
    """
    bits = to_bits(h)
    from_first = bits - _FIRST
    k = np.int64(from_first) >> np.int64(52)
    row = at + np.uint64(3) * ((from_first >> np.uint64(43)) & np.uint64(511))
    z = from_bits(bits - (from_first & _TOP))
    c = table[row]
    p, e = two_product(z, c)
    scale = from_bits(np.uint64(1023 - k if k < 1023 else 0) << np.uint64(52))
    rh, rl = two_sum(p - 1.0, fma(c, low * scale, e))
    return np.float64(k), rh, rl, row


@inline
def log_pair(x: float, low: float, table: Any) -> Any:
    """log(x + low) = h + l within ``_ERROR`` of its size."""
    k, rh, rl, row = reduced(x, low, table, np.uint64(0))
    w, we = two_product(rh, rh)
    s, e1 = fast_two_sum(k * LN2_H, table[row + np.uint64(1)])
    s, e2 = two_sum(s, rh)
    s, e3 = fast_two_sum(s, -0.5 * w)
    rest = fma(rh, fma(rh, fma(rh, fma(rh, fma(rh, -0.125, 1 / 7), -1 / 6), 0.2), -0.25), 1 / 3)
    linear = fma(-rl, rh - w, rl)
    constant = fma(k, LN2_L, table[row + np.uint64(2)])
    return fast_two_sum(s, (e1 + e2) + (e3 + (constant + fma(w * rh, rest, fma(-0.5, we, linear)))))


@inline
def _outside(x: float) -> Any:
    """The logarithm of what is no normal number: subnormal ones are left to the specification."""
    if x > _MAX:
        return x, True
    if x == 0.0:
        return -math.inf, True
    return NAN, not x > 0.0


@inline
def log(x: float, table: Any) -> Any:
    if (x < _SMALLEST_NORMAL) | (x > _MAX) | (x != x):
        return _outside(x)
    if x == 1.0:
        return 0.0, True
    h, low = log_pair(x, 0.0, table)
    return settle(h, low, _ERROR * abs(h))


@inline
def log2(x: float, table: Any) -> Any:
    """The product with log2 e adds less than 2^-101. Powers of two are exact."""
    if (x < _SMALLEST_NORMAL) | (x > _MAX) | (x != x):
        return _outside(x)
    bits = to_bits(x)
    if (bits & _FRACTION) == np.uint64(0):
        return np.float64(np.int64(bits >> np.uint64(52)) - 1023), True
    h, low = log_pair(x, 0.0, table)
    h, low = product(h, low, _LOG2_E_H, _LOG2_E_L)
    return settle(h, low, _ERROR * abs(h))


@inline
def log1p(x: float, table: Any) -> Any:
    """Tiny: x - x^2 < log(1 + x) < x, less than the unit."""
    if abs(x) < _FEW:
        return (odd(x, -1.0) if x != 0.0 else x), True
    if (x > -1.0) & (x <= _MAX):
        h, low = two_sum(1.0, x)
        h, low = log_pair(h, low, table)
        return settle(h, low, _ERROR * abs(h))
    if x > _MAX:
        return x, True
    if x == -1.0:
        return -math.inf, True
    return NAN, True
