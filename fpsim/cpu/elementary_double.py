"""Pairs of binary64 numbers h + l, and the decision which odd number a pair is to become.

u = 2^-53. ``two_sum`` and ``two_product`` are exact, ``fast_two_sum`` is for a = 0 or |a| >= |b|. Overflow and
underflow are excluded where these are used: kernels send arguments that come near either to the specification.

``settle`` is Ziv's test. The exact result is within ``error`` of h + l, h = RN(h + l). If |l| > error, it lies strictly
between h and that neighbour of h that l points to: |l| is at most half a unit of h (a quarter, where h is a power of
two and l points down), and error <= |l|. The odd one of the two is its rounding to odd at 53 bits.
Otherwise, and for NaN, the caller marks the element, and the specification decides.

References: Dekker (1971); Knuth, TAOCP 2, 4.2.2; Joldes, Muller and Popescu, "Tight and rigorous error bounds for basic
building blocks of double-word arithmetic", ACM TOMS 44 (2017); Ziv (1991).
"""

from __future__ import annotations

from typing import Any

from fpsim.cpu.bits import fma
from fpsim.cpu.jit import inline
from fpsim.cpu.operation_elements import odd

SMALLEST = float.fromhex("0x1p-900")  # results from here to LARGEST are settled
LARGEST = float.fromhex("0x1p1020")


@inline
def two_sum(a: float, b: float) -> Any:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@inline
def fast_two_sum(a: float, b: float) -> Any:
    s = a + b
    return s, b - (s - a)


@inline
def two_product(a: float, b: float) -> Any:
    p = a * b
    return p, fma(a, b, -p)


@inline
def product(ah: float, al: float, bh: float, bl: float) -> Any:
    """(ah + al)(bh + bl) within 2^-102 of its size: |l| <= u |h| in both, one product u^2, two roundings of l's."""
    p, e = two_product(ah, bh)
    return fast_two_sum(p, fma(ah, bl, fma(al, bh, e)))


@inline
def quotient(ah: float, al: float, bh: float, bl: float) -> Any:
    """(ah + al) / (bh + bl) within 2^-100 of its size.

    a - q b = (ah - q bh) + (al - q bl), the first exact; each l is at most u of its h, so the three roundings and the
    neglected bl / bh in the last quotient are at most 2^-53 of 2^-51 each.
    """
    q = ah / bh
    rest = fma(-q, bh, ah) + fma(-q, bl, al)
    return fast_two_sum(q, rest / bh)


@inline
def settle(h: float, l: float, error: float) -> Any:  # noqa: E741
    """(the exact result to odd, whether it is known)."""
    s, t = fast_two_sum(h, l)
    size = abs(s)
    return odd(s, t), (abs(t) > error) & (size > SMALLEST) & (size < LARGEST)
