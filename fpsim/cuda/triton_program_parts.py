"""What the text of a printed program calls, besides ``triton_elements``."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.cuda.triton_elements import (
    ADD,
    FMA,
    MUL,
    SIGN,
    SUB,
    compute,
    constant,
    flipped,
    from_bits,
    from_upper,
    is_infinite,
    rounded,
    to_bits,
)
from fpsim.cuda.triton_random import draw_of, philox
from fpsim.cuda.triton_single import bits_of, double, number_of
from fpsim.cuda.triton_wide import operate

__all__ = [
    "abs_of", "draw_of", "less_of", "load_nothing", "max_of", "min_of", "neg_of", "operate", "operation", "philox",
    "places", "sign_of", "suspicious", "where_of", "widened",
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
def places(
    start: tl.tensor,
    count: tl.tensor,
    left: tl.tensor,
    lanes_per_block: tl.tensor,
    block: tl.tensor,
    runs: tl.tensor,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> Any:
    """What BLOCK threads of a stage work on, from place ``start`` of ``count`` elements of COLUMNS lanes each.

    (element, lane of the thread block, of the block and of all, whether there is one, its run, and zeros of two types)
    """
    place = start + tl.arange(0, BLOCK)
    element, spot = place // COLUMNS, place % COLUMNS
    column = left + spot
    inside = (place < count * COLUMNS) & (column < lanes_per_block)
    lane = block * lanes_per_block + column
    run = tl.load(runs + lane, mask=inside, other=0)
    return element, spot, column, lane, inside, run, place * 0, tl.full((BLOCK,), 0, tl.uint32)


@triton.jit
def load_nothing(like: tl.tensor) -> Any:
    """Zeros, where a sum begins."""
    return from_bits(like.to(tl.uint64) & 0)


@triton.jit
def suspicious(kind: tl.constexpr, y: tl.tensor, a: tl.tensor, b: tl.tensor, c: tl.tensor, row: tl.tensor) -> Any:
    """Whether an underflow, an overflow, or a result without a number may lie behind y; if False, none does.

    An underflow ends at or below the smallest normal number, an overflow at or above the largest one, or in NaN.
    Exact zeros, infinities of infinities and what follows from NaN are none.
    """
    size = tl.abs(y)
    odd = (size <= from_upper(row[0])) | (size >= row[4]) | ((y != y) & (a == a) & (b == b) & (c == c))
    if kind == ADD:
        nought = a == flipped(b, SIGN)
    elif kind == SUB:
        nought = a == b
    elif kind == MUL:
        nought = (a == 0.0) | (b == 0.0)
    elif kind == FMA:
        nought = ((a == 0.0) | (b == 0.0)) & (c == 0.0)
    else:
        nought = a == 0.0
    plain = ((size == 0.0) & nought) | (is_infinite(y) & (is_infinite(a) | is_infinite(b) | is_infinite(c)))
    return odd & (plain == 0)


@triton.jit
def widened(low: tl.tensor, high: tl.tensor, x: tl.tensor) -> Any:
    """The smallest and the largest magnitude, of which NaN is none."""
    size = tl.abs(x)
    return tl.where(size < low, size, low), tl.where(size > high, size, high)


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
