"""Operations on strips, not yet rounded to the format: plain, or rounded to odd at 53 bits.

A kernel reads operand strips at the offsets ``a``, ``b``, ``c`` of the register file and writes ``n`` elements of the
scratch strip ``x``. Offsets are unsigned, so that no index can be negative and the loops are vectorised.

What rounding to odd is for, and why its residuals are exact, stands in operation_elements and tiers.
"""

from __future__ import annotations

import math
from typing import Any

from fpsim.cpu.bits import EXPONENT, MAGNITUDE, NAN, ONE, SIGN, ZERO, fma, from_bits, to_bits
from fpsim.cpu.jit import kernel
from fpsim.cpu.operation_elements import odd


@kernel
def add_plain(registers: Any, x: Any, a: Any, b: Any, n: Any, flip_b: Any) -> None:
    """a + b, or a - b with the sign bit in ``flip_b``."""
    for i in range(n):
        x[i] = registers[a + i] + from_bits(to_bits(registers[b + i]) ^ flip_b)


@kernel
def add_odd(registers: Any, x: Any, a: Any, b: Any, n: Any, flip_b: Any, flip: Any) -> None:
    """a +- b. ``flip`` = the sign bit computes -((-a) + (-b)): an exact zero sum is then -0, as rounding down asks."""
    for i in range(n):
        u = from_bits(to_bits(registers[a + i]) ^ flip)
        v = from_bits(to_bits(registers[b + i]) ^ flip_b ^ flip)
        s = u + v
        t = s - u
        residual = (u - (s - t)) + (v - t)
        x[i] = from_bits(to_bits(odd(s, residual)) ^ flip)


@kernel
def multiply_plain(registers: Any, x: Any, a: Any, b: Any, n: Any) -> None:
    for i in range(n):
        x[i] = registers[a + i] * registers[b + i]


@kernel
def multiply_odd(registers: Any, x: Any, a: Any, b: Any, n: Any) -> None:
    for i in range(n):
        u = registers[a + i]
        v = registers[b + i]
        p = u * v
        x[i] = odd(p, fma(u, v, -p))


@kernel
def divide_plain(registers: Any, x: Any, a: Any, b: Any, n: Any) -> None:
    for i in range(n):
        x[i] = registers[a + i] / registers[b + i]


@kernel
def divide_odd(registers: Any, x: Any, a: Any, b: Any, n: Any) -> None:
    for i in range(n):
        u = registers[a + i]
        v = registers[b + i]
        q = u / v
        # u/v - q has the sign of (u - q v) times that of v.
        remainder = from_bits(to_bits(fma(-q, v, u)) ^ (to_bits(v) & SIGN))
        x[i] = odd(q, remainder)


@kernel
def root_plain(registers: Any, x: Any, a: Any, n: Any) -> None:
    for i in range(n):
        x[i] = math.sqrt(registers[a + i])


@kernel
def root_odd(registers: Any, x: Any, a: Any, n: Any) -> None:
    for i in range(n):
        u = registers[a + i]
        s = math.sqrt(u)
        x[i] = odd(s, fma(-s, s, u))


@kernel
def fused_plain(registers: Any, x: Any, a: Any, b: Any, c: Any, n: Any) -> None:
    for i in range(n):
        x[i] = fma(registers[a + i], registers[b + i], registers[c + i])


@kernel
def fused_odd(registers: Any, x: Any, a: Any, b: Any, c: Any, n: Any, flip: Any) -> None:
    """a * b + c where the product is exact in binary64; ``flip`` as in ``add_odd``."""
    for i in range(n):
        u = from_bits(to_bits(registers[a + i] * registers[b + i]) ^ flip)
        v = from_bits(to_bits(registers[c + i]) ^ flip)
        s = u + v
        t = s - u
        residual = (u - (s - t)) + (v - t)
        x[i] = from_bits(to_bits(odd(s, residual)) ^ flip)


@kernel
def move(registers: Any, x: Any, a: Any, n: Any, keep: Any, flip: Any) -> None:
    """a with the bits of ``keep`` kept and those of ``flip`` inverted: copy, abs and neg."""
    for i in range(n):
        x[i] = from_bits((to_bits(registers[a + i]) & keep) ^ flip)


@kernel
def sign(registers: Any, x: Any, a: Any, n: Any) -> None:
    """1, -1, or a itself where it is a zero of either sign or NaN."""
    for i in range(n):
        u = registers[a + i]
        x[i] = 1.0 if u > 0.0 else (-1.0 if u < 0.0 else u)


@kernel
def extreme(registers: Any, x: Any, a: Any, b: Any, n: Any, flip: Any) -> None:
    """IEEE 754-2019 maximum, or minimum with the sign bit in ``flip``: NaN propagates, -0 is below +0."""
    for i in range(n):
        u = from_bits(to_bits(registers[a + i]) ^ flip)
        v = from_bits(to_bits(registers[b + i]) ^ flip)
        largest = u if u > v else v
        if u == v:  # only zeros differ in their bits
            largest = from_bits(to_bits(u) & to_bits(v))
        if u != u or v != v:
            largest = NAN
        x[i] = from_bits(to_bits(largest) ^ flip)


@kernel
def widest(registers: Any, a: Any, n: Any) -> Any:
    """Bits of the smallest nonzero and of the largest finite magnitude: what a guard compares."""
    low = MAGNITUDE
    high = ZERO
    for i in range(n):
        magnitude = to_bits(registers[a + i]) & MAGNITUDE
        # Zero wraps to the top and infinities count as zero: both are harmless.
        finite = magnitude if magnitude < EXPONENT else ZERO
        low = min(low, (finite - ONE) & MAGNITUDE)
        high = max(high, finite)
    return low + ONE, high
