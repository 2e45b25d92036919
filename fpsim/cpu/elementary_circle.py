"""sin and cos, rounded to odd at 53 bits. An element gives (result, whether it is known).

x = k pi / 512 + r with |r| < 2^-8.34; with S, C the sine and cosine pairs of the table (for cos x: of k + 256)

    sin x = S + C r + S (cos r - 1) + C (sin r - r).

Reduction, |x| <= 2^30, |k| < 2^38: k P1 and k P2 are pairs, k P3 is rounded, and P1 + P2 + P3 is within 2^-170 of
pi / 512. x less the high part of k P1 is exact (Sterbenz; where |k| = 1 and x is about half of it, too). What remains
are four roundings of at most 2^-59: together below 2^-109.

Errors, u = 2^-53, with the powers of r in plain binary64:

    S (cos r - 1): at most six roundings, C (sin r - r): seven; four more in the sum of both
    cos r - 1 is cut at r^8 / 40320 < 2^-82 S, sin r - r at r^9 / 362880 < 2^-85 r
    C r_l (cos r - 1) is neglected: 2^-70.6 |r|
    products of low parts: 2^-103 of the result

``sine_pair`` adds up 16 u (|S (cos r - 1)| + |C (sin r - r)|) + 2^-69.6 |r| + 2^-80 |S| + 2^-102 |result| + 2^-108.
A tiny sine is x - x^3 / 6 and more, a tiny cosine 1 - x^2 / 2 and more: both less than the unit from x and from 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu.bits import NAN, fma
from fpsim.cpu.elementary_double import fast_two_sum, settle, two_product, two_sum
from fpsim.cpu.jit import inline
from fpsim.cpu.operation_elements import odd

_MAX = float.fromhex("0x1.fffffffffffffp+1023")
_SMALL_SINE = float.fromhex("0x1p-26")
_SMALL_COSINE = float.fromhex("0x1p-27")
_FAR = float.fromhex("0x1p+30")
_SHIFT = float.fromhex("0x1.8p+52")
_STEPS = float.fromhex("0x1.45f306dc9c883p+7")  # 512 / pi
_P1 = float.fromhex("0x1.921fb54442d18p-8")
_P2 = float.fromhex("0x1.1a62633145c07p-62")
_P3 = float.fromhex("-0x1.f1976b7ed8fbcp-118")
_16U = float.fromhex("0x1p-49")
_OF_R = float.fromhex("0x1.4p-70")
_OF_S = float.fromhex("0x1p-80")
_OF_RESULT = float.fromhex("0x1p-102")
_REDUCTION = float.fromhex("0x1p-108")


@inline
def _reduced(x: float) -> Any:
    steps = fma(x, _STEPS, _SHIFT) - _SHIFT
    p, e = two_product(steps, _P1)
    q, f = two_product(steps, _P2)
    a, a_low = two_sum(x - p, -e)
    b, b_low = two_sum(a, -q)
    rh, rl = two_sum(b, ((a_low + b_low) - f) - steps * _P3)
    return np.int64(steps), rh, rl


@inline
def sine_pair(x: float, turn: int, table: Any) -> Any:
    """sin(x + turn pi / 512) = h + l within ``error``: (h, l, error)."""
    k, rh, rl = _reduced(x)
    row = np.uint64(4 * ((k + turn) & 1023))
    sh, sl, ch, cl = table[row], table[row + np.uint64(1)], table[row + np.uint64(2)], table[row + np.uint64(3)]
    v = rh * rh
    cosine = v * fma(v, fma(v, -1 / 720, 1 / 24), -0.5)
    sine = rh * v * fma(v, fma(v, -1 / 5040, 1 / 120), -1 / 6)
    of_s, of_c = sh * fma(-rh, rl, cosine), ch * sine
    p, e = two_product(ch, rh)
    s, f = fast_two_sum(sh, p)
    low = fma(ch, rl, fma(cl, rh, sl)) + (f + e)
    error = fma(_16U, abs(of_s) + abs(of_c), fma(_OF_R, abs(rh), fma(_OF_S, abs(sh), _REDUCTION)))
    return s, low + (of_s + of_c), fma(_OF_RESULT, abs(s), error)


@inline
def sin(x: float, table: Any) -> Any:
    if abs(x) < _SMALL_SINE:
        return odd(x, -x), True
    if abs(x) <= _FAR:
        h, low, error = sine_pair(x, 0, table)
        return settle(h, low, error)
    return NAN, not abs(x) <= _MAX


@inline
def cos(x: float, table: Any) -> Any:
    if abs(x) < _SMALL_COSINE:
        return odd(1.0, -abs(x)), True
    if abs(x) <= _FAR:
        h, low, error = sine_pair(x, 256, table)
        return settle(h, low, error)
    return NAN, not abs(x) <= _MAX
