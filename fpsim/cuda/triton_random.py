"""Philox4x32-10 in registers: the words that ``fpsim.random_bits`` defines."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.random_bits import MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1

_M0, _M1 = tl.constexpr(MULTIPLIER_0), tl.constexpr(MULTIPLIER_1)
_W0, _W1 = tl.constexpr(WEYL_0), tl.constexpr(WEYL_1)


@triton.jit
def philox(c0: tl.tensor, c1: tl.tensor, c2: tl.tensor, c3: tl.tensor, key0: tl.tensor, key1: tl.tensor) -> Any:
    """The four words, uint32, of the counter; of every argument the low 32 bits count."""
    x0, x1, x2, x3 = c0.to(tl.uint32), c1.to(tl.uint32), c2.to(tl.uint32), c3.to(tl.uint32)
    k0, k1 = key0.to(tl.uint32), key1.to(tl.uint32)
    for _ in tl.static_range(10):
        # One instruction on the card makes 64 bits of a product of 32-bit integers.
        p0 = x0.to(tl.uint64) * _M0
        p1 = x2.to(tl.uint64) * _M1
        x0, x1 = (p1 >> 32).to(tl.uint32) ^ x1 ^ k0, p1.to(tl.uint32)
        x2, x3 = (p0 >> 32).to(tl.uint32) ^ x3 ^ k1, p0.to(tl.uint32)
        k0 = k0 + tl.full((), _W0, tl.uint32)
        k1 = k1 + tl.full((), _W1, tl.uint32)
    return x0, x1, x2, x3


@triton.jit
def draw_of(word: tl.tensor, left: tl.constexpr, right: tl.constexpr) -> Any:
    """The integer (word << left mod 2^32) >> right, uint32."""
    return (word << left) >> right
