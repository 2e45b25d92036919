"""What the text of a printed program calls, besides ``triton_elements``."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.cuda.triton_elements import (
    SIGN,
    compute,
    constant,
    flipped,
    from_bits,
    rounded,
    to_bits,
)
from fpsim.cuda.triton_random import draw_of, philox
from fpsim.cuda.triton_single import bits_of, double, number_of
from fpsim.cuda.triton_wide import operate

__all__ = [
    "abs_of", "draw_of", "less_of", "max_of", "min_of", "neg_of", "operate", "operation", "philox", "sign_of",
    "where_of",
]  # fmt: skip


@triton.jit
def operation(
    kind: tl.constexpr,
    tier: tl.constexpr,
    mode: tl.constexpr,
    bits: tl.constexpr,
    alike: tl.constexpr,
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    draw: tl.tensor,
    row: tl.tensor,
) -> Any:
    """One correctly rounded operation; ``row`` as ``format_row`` gives it, operands of any dtype in binary64."""
    x, infinite = compute(kind, tier, mode, double(a), double(b), double(c))
    return rounded(mode, bits, alike, x, infinite, row, draw)


@triton.jit
def neg_of(x: tl.tensor) -> Any:
    if x.dtype == tl.float64:
        return flipped(x, SIGN)
    else:
        return number_of(bits_of(x) ^ (1 << 31))


@triton.jit
def abs_of(x: tl.tensor) -> Any:
    return tl.abs(x)


@triton.jit
def sign_of(x: tl.tensor) -> Any:
    """1, -1, or x itself where it is a zero of either sign or NaN."""
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, x))


@triton.jit
def max_of(a: tl.tensor, b: tl.tensor) -> Any:
    """IEEE 754-2019 maximum: NaN propagates, -0 is below +0."""
    a, b = double(a), double(b)
    largest = tl.where(a > b, a, b)
    largest = tl.where(a == b, from_bits(to_bits(a) & to_bits(b)), largest)
    return tl.where(a != a, a, largest)


@triton.jit
def min_of(a: tl.tensor, b: tl.tensor) -> Any:
    return neg_of(max_of(neg_of(a), neg_of(b)))


@triton.jit
def less_of(a: tl.tensor, b: tl.tensor) -> Any:
    return tl.where(a < b, constant(1023 << 52), constant(0))


@triton.jit
def where_of(condition: tl.tensor, a: tl.tensor, b: tl.tensor) -> Any:
    return tl.where(condition == 0.0, b, a)
