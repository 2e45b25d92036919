"""x^y = e^(y log |x|), rounded to odd at 53 bits. An element gives (result, whether it is known).

The logarithm needs more bits than ``elementary_logarithm`` gives: r^3 / 3 is a pair too, the plain rest begins with
r^4 / 4. Relative to log x, u = 2^-53:

    c = 1 and k = 0: eleven roundings of at most 2^-29; the omitted r^10 / 10 is below 2^-84              2^-78.5
    else sixteen roundings of 2^-42, and with k != 0 of 2^-33 where |log x| > 0.3                         2^-80

|y log x| <= 709 makes that 2^-69 of the power; e^r adds 2^-71.9 (``elementary_exponential``): ``_ERROR`` is 2^-68.

Powers that are numbers of 53 bits never pass Ziv's test. Those with integer y in 2..64 are found by multiplying with a
check that each product is exact; y = 1/2 is a square root; the specification decides the others.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpsim.cpu.bits import NAN, fma
from fpsim.cpu.elementary_constants import EXP_STEPS
from fpsim.cpu.elementary_double import fast_two_sum, two_product, two_sum
from fpsim.cpu.elementary_exponential import FEW, exp_pair, scaled
from fpsim.cpu.elementary_logarithm import LN2_H, LN2_L, reduced
from fpsim.cpu.jit import inline
from fpsim.cpu.operation_elements import odd

_ERROR = float.fromhex("0x1p-67")  # relative to the significand, which is below 2.002
_SMALLEST_NORMAL = float.fromhex("0x1p-1022")
_MAX = float.fromhex("0x1.fffffffffffffp+1023")
_LOW = float.fromhex("0x1p-400")
_HIGH = float.fromhex("0x1p+400")
_UNDERFLOW = float.fromhex("0x1p-900")
_INTEGERS = float.fromhex("0x1p+53")
_THIRD_L = float.fromhex("0x1.5555555555555p-56")
_LOG_AT = np.uint64(2 * EXP_STEPS)  # the table of logarithms stands behind that of exponentials


@inline
def _log_pair(x: float, table: Any) -> Any:
    k, rh, rl, row = reduced(x, 0.0, table, _LOG_AT)
    w, we = two_product(rh, rh)
    v, ve = two_product(w, rh)
    g, ge = two_product(v, 1 / 3)
    ge += fma(v, _THIRD_L, fma(w, rl, (ve + we * rh) * (1 / 3)))
    s, e1 = fast_two_sum(k * LN2_H, table[row + np.uint64(1)])
    s, e2 = two_sum(s, rh)
    s, e3 = fast_two_sum(s, -0.5 * w)
    s, e4 = fast_two_sum(s, g)
    rest = fma(rh, fma(rh, fma(rh, fma(rh, fma(rh, 1 / 9, -0.125), 1 / 7), -1 / 6), 0.2), -0.25)
    linear = fma(-rl, rh, rl) - 0.5 * we
    constant = fma(k, LN2_L, table[row + np.uint64(2)])
    return fast_two_sum(s, ((e1 + e2) + (e3 + e4)) + (constant + fma(w * w, rest, linear + ge)))


@inline
def _exact_power(x: float, y: float) -> Any:
    """x^y for an integer y in 2..64 if every product is exact and of ordinary size."""
    if not ((y >= 2.0) & (y <= 64.0) & (y == np.rint(y))):
        return NAN, False
    z = x
    for _ in range(np.int64(y) - 1):
        p = z * x
        if (fma(z, x, -p) != 0.0) | (not (p > _LOW) & (p < _HIGH)):
            return NAN, False
        z = p
    return z, True


@inline
def _positive(x: float, y: float, table: Any) -> Any:
    """x normal and positive, y finite and not zero."""
    if x == 1.0:
        return 1.0, True
    if y == 1.0:
        return x, True
    if (x > _LOW) & (x < _HIGH):
        if y == 2.0:
            p, e = two_product(x, x)
            return odd(p, e), True
        if y == 0.5:
            s = math.sqrt(x)
            return odd(s, fma(-s, s, x)), True
    h, low = _log_pair(x, table)
    ph, pl = two_product(y, h)
    ph, pl = fast_two_sum(ph, fma(y, low, pl))
    if (abs(ph) < FEW) & (abs(ph) > _UNDERFLOW):
        return odd(1.0, ph), True
    if (abs(ph) >= FEW) & (abs(ph) <= 707.0):
        h, low, n = exp_pair(ph, pl, table)
        z, known = scaled(h, low, n, _ERROR)
        if known:
            return z, True
        return _exact_power(x, y)
    return NAN, False


@inline
def power(x: float, y: float, table: Any) -> Any:
    """Zeros, infinities, NaN, subnormal x and results near the ends of binary64 are left to the specification."""
    size = abs(x)
    if not ((size >= _SMALLEST_NORMAL) & (size <= _MAX) & (abs(y) <= _MAX) & (y != 0.0)):
        return NAN, False
    z, known = _positive(size, y, table)
    if x > 0.0:
        return z, known
    if y != np.rint(y):
        return NAN, True
    half = 0.5 * y
    is_odd = (abs(y) < _INTEGERS) & (half != np.rint(half))
    return (-z if is_odd else z), known
