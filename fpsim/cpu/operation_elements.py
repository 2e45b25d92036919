"""One operation on binary64 operands, not yet rounded to the format: plain, rounded to odd, cut, or guarded.

Rounding to odd keeps everything that a later rounding to at most 51 bits (random bits included) can ask: it returns the
exact result where that has 53 bits, else the neighbour with an odd last bit, which is never a number or a midpoint of
the narrower grid. The exact residual of an operation tells which neighbour that is. The comparisons with the residual
are ordered: it is NaN for infinite operands, and those results are exact.

CUT, in the place of ODD for the modes toward zero and stochastic A, keeps the result's first 53 bits instead. These
modes ask for floor(|exact| / u) only, with u a quantum or a draw's unit; the multiples of u that they compare with have
at most 51 bits, so what 53 bits cut off changes no floor. It is one step of the bit pattern, toward zero, where the
residual points there.

GUARDED is for operands of which nothing is known, and formats with ``low_enough``: no positive number below 2^-968
reaches h, the smallest threshold of any rounding (half a quantum, a draw's unit). Then

* a result beyond binary64 is infinite here, and its rounding is an overflow: the caller takes a result for a true
  infinity only where ``infinite`` says so, from the operands;
* a nonzero exact result below 2^-968 rounds like every other such number of its sign. So the direction of its odd
  neighbour is of no consequence, but a zero that has underflowed becomes 2^-1074;
* with |x| >= 2^-968 the residual of a product has no bit below 2^(-968 - 1 - 104) >= 2^-1074, and is exact. Those of a
  quotient and a root are so where the numerator or radicand is at least 2^-900; a smaller one is multiplied by 2^256
  (so are the denominator, and the square of the root), which changes no sign. Should the denominator overflow
  by that, the quotient was below 2^-1140.

References: Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE TC 57 (2008); Knuth's TwoSum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import ONE, SIGN, ZERO, fma, from_bits, to_bits
from fpsim.cpu.jit import inline
from fpsim.number_format import Format

_SMALL = float.fromhex("0x1p-900")
_SCALE = float.fromhex("0x1p256")
_ROOT_SCALE = float.fromhex("0x1p128")


def low_enough(fmt: Format, bits: int) -> bool:
    """Whether numbers below 2^-968 are below every threshold of a rounding to ``fmt`` with ``bits`` random bits."""
    return fmt.emin - fmt.mantissa_bits - bits - 1 >= -968


@inline
def odd(s: float, residual: float) -> float:
    """``s`` moved to odd, where the exact result is ``s`` plus a nonzero ``residual``."""
    bits = to_bits(s)
    inexact = (residual < 0.0) | (residual > 0.0)
    # Away from zero when the residual has the sign of s: one unit up in the bit pattern, else one down.
    opposite = (to_bits(residual) ^ bits) >> np.uint64(63)
    moved = bits + (ONE - (opposite << ONE))
    return from_bits(moved) if inexact and (bits & ONE) == ZERO else s


@inline
def cut(s: float, residual: float) -> float:
    """``s`` moved toward zero, where the exact result is ``s`` plus a ``residual`` that points there."""
    beyond = from_bits(to_bits(residual) ^ (to_bits(s) & SIGN)) < 0.0
    return from_bits(to_bits(s) - ONE) if beyond else s


@inline
def _settled(tier: int, s: float, residual: float) -> Any:
    return cut(s, residual) if tier == codes.CUT else odd(s, residual)


@inline
def _sum(tier: int, u: float, v: float) -> Any:
    """u + v to odd, or cut."""
    s = u + v
    t = s - u
    return _settled(tier, s, (u - (s - t)) + (v - t))


@inline
def _nonzero(x: float, exact_zero: Any) -> Any:
    """2^-1074 with the sign of x where x has underflowed to zero."""
    return x if exact_zero or x != 0.0 else from_bits(to_bits(x) | ONE)


@inline
def compute(kind: int, tier: int, mode: int, a: float, b: float, c: float) -> Any:
    """(the unrounded result, whether it is truly infinite where it is infinite); operands that are missing repeat a."""
    minus = SIGN if kind == codes.SUB else ZERO
    # -((-a) + (-b)) makes an exact zero sum -0, as rounding down asks.
    flip = SIGN if mode == codes.DOWN and tier != codes.PLAIN else ZERO
    x, infinite = a, True
    if kind in (codes.ADD, codes.SUB):
        u, v = from_bits(to_bits(a) ^ flip), from_bits(to_bits(b) ^ minus ^ flip)
        x = u + v if tier == codes.PLAIN else from_bits(to_bits(_sum(tier, u, v)) ^ flip)
        infinite = tier != codes.GUARDED or max(abs(a), abs(b)) == np.inf
    elif kind == codes.MUL:
        x = a * b
        if tier != codes.PLAIN:
            x = _settled(tier, x, fma(a, b, -x))
        if tier == codes.GUARDED:
            infinite = max(abs(a), abs(b)) == np.inf
            x = _nonzero(x, a == 0.0 or b == 0.0)
    elif kind == codes.DIV:
        # a/b - x has the sign of (a - x b) times that of b.
        x = a / b
        if tier in (codes.ODD, codes.CUT):
            x = _settled(tier, x, from_bits(to_bits(fma(-x, b, a)) ^ (to_bits(b) & SIGN)))
        elif tier == codes.GUARDED:
            scale = _SCALE if abs(a) < _SMALL else 1.0
            x = odd(x, from_bits(to_bits(fma(-x, b * scale, a * scale)) ^ (to_bits(b) & SIGN)))
            infinite = abs(a) == np.inf or b == 0.0
            x = _nonzero(x, a == 0.0 or abs(b) == np.inf)
    elif kind == codes.SQRT:
        x = math.sqrt(a)
        if tier in (codes.ODD, codes.CUT):
            x = _settled(tier, x, fma(-x, x, a))
        elif tier == codes.GUARDED:
            small = a < _SMALL
            s = x * (_ROOT_SCALE if small else 1.0)
            x = odd(x, fma(-s, s, a * (_SCALE if small else 1.0)))
    elif kind == codes.FMA:
        if tier == codes.PLAIN:
            x = fma(a, b, c)
        else:  # the product is exact in binary64
            u, v = from_bits(to_bits(a * b) ^ flip), from_bits(to_bits(c) ^ flip)
            x = from_bits(to_bits(_sum(tier, u, v)) ^ flip)
    return x, infinite
