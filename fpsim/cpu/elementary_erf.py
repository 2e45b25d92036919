"""erf, rounded to odd at 53 bits. An element gives (result, whether it is known).

x0 = j / 128 is the point next to |x|, d = |x| - x0 is exact, |d| <= 2^-8, and erf |x| = a0 + a1 d + ... + a8 d^8 + R.

a0 and a1 are pairs, so is a1 d; the rest is plain: with fused steps 6 roundings in the sum, 6 in coefficients, powers,
products and 4 where it is added, each at most u times sum |a_k| |d|^k <= (2^8 d)^2 sum |a_k| 2^-8k; that sum times
2^16 and 16 u is the last column of the table. R: |H_n(x)| e^(-x^2 / 2) <= 1.09 2^(n/2) sqrt(n!) (Cramer) bounds a_(n+1)
by 1.23 2^(n/2) sqrt(n!) / (n+1)!, hence |R| < 2^-6.4 |d|^9 <= 2^-62.4 d^2. Products of low parts: 2^-102 of the result.

For |x| > 6, 1 - |erf x| < 2^-54. Below 2^-900 the residual of a1 d may underflow: left to the specification.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpsim.cpu.bits import NAN, fma
from fpsim.cpu.elementary_constants import ERF_END, ERF_ROW
from fpsim.cpu.elementary_double import SMALLEST, fast_two_sum, settle, two_product
from fpsim.cpu.jit import inline

_MAX = float.fromhex("0x1.fffffffffffffp+1023")
_BELOW_ONE = float.fromhex("0x1.fffffffffffffp-1")
_SHIFT = float.fromhex("0x1.8p+52")
_REMAINDER = float.fromhex("0x1p-62")
_OF_RESULT = float.fromhex("0x1p-102")


@inline
def erf_pair(size: float, table: Any) -> Any:
    """erf = h + l within ``error`` for 2^-900 < size <= 6: (h, l, error)."""
    j = fma(size, 128.0, _SHIFT) - _SHIFT
    d = fma(j, -1.0 / 128.0, size)
    row = np.uint64(ERF_ROW) * np.uint64(np.int64(j))
    p, e = two_product(table[row + np.uint64(2)], d)
    s, f = fast_two_sum(table[row], p)
    rest = table[row + np.uint64(10)]
    rest = fma(rest, d, table[row + np.uint64(9)])
    rest = fma(rest, d, table[row + np.uint64(8)])
    rest = fma(rest, d, table[row + np.uint64(7)])
    rest = fma(rest, d, table[row + np.uint64(6)])
    rest = fma(rest, d, table[row + np.uint64(5)])
    rest = fma(rest, d, table[row + np.uint64(4)])
    low = fma(d * d, rest, fma(table[row + np.uint64(3)], d, e)) + (table[row + np.uint64(1)] + f)
    return s, low, fma(d * d, table[row + np.uint64(11)] + _REMAINDER, _OF_RESULT * abs(s))


@inline
def erf(x: float, table: Any) -> Any:
    size = abs(x)
    if (size > SMALLEST) & (size <= ERF_END):
        s, low, error = erf_pair(size, table)
        y, known = settle(s, low, error)
        return math.copysign(y, x), known
    if size > ERF_END:
        return math.copysign(1.0 if size > _MAX else _BELOW_ONE, x), True
    return (x, True) if x == 0.0 else (NAN, x != x)
