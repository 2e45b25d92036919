"""The Triton kernel of an array function: one rounded operation on contiguous arrays.

Random bits are numbered by the element's place e in the result (``fpsim.random_bits.array_draw``): a block of 256
elements (512, where 16 bits are enough) shares 64 counters of four words. So a thread takes one counter and works on
all elements that draw from it, 64 places apart; each of these accesses is contiguous over the threads.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.cuda.triton_elements import EXACT, SINGLE, compute, format_row, load, rounded, store
from fpsim.cuda.triton_random import draw_of, philox
from fpsim.cuda.triton_single import single_operation
from fpsim.cuda.triton_wide import operate


@triton.jit
def _result(
    u: tl.tensor, v: tl.tensor, w: tl.tensor, table: tl.tensor, row: tl.tensor, draw: tl.tensor,
    kind: tl.constexpr, tier: tl.constexpr, mode: tl.constexpr, bits: tl.constexpr, alike: tl.constexpr,
    how: tl.constexpr, way: tl.constexpr, natural: tl.constexpr,
) -> Any:  # fmt: skip
    """One correctly rounded operation in the tier that is proven exact."""
    if tier == EXACT:
        return operate(kind, mode, bits, u, v, w, draw, table, 0)
    elif tier == SINGLE:
        return single_operation(kind, how, way, natural, mode, bits, alike, u, v, w, draw, row)
    else:
        x, infinite = compute(kind, tier, mode, u, v, w)
        return rounded(mode, bits, alike, x, infinite, row, draw)


@triton.jit
def _four(place: tl.tensor, i: tl.tensor, size: tl.tensor, step: tl.constexpr, tier: tl.constexpr) -> Any:
    """The elements ``i``, and 64, 128 and 192 places after."""
    return (
        load(place + i * step, i < size, tier), load(place + (i + 64) * step, i + 64 < size, tier),
        load(place + (i + 128) * step, i + 128 < size, tier), load(place + (i + 192) * step, i + 192 < size, tier),
    )  # fmt: skip


@triton.jit
def _all(
    place: tl.tensor, i: tl.tensor, size: tl.tensor, step: tl.constexpr, tier: tl.constexpr, halves: tl.constexpr
) -> Any:
    """The elements that draw from the counter of ``i``, the first one."""
    if halves == 2:
        return _four(place, i, size, step, tier) + _four(place, i + 256, size, step, tier)
    else:
        return _four(place, i, size, step, tier)


@triton.jit(do_not_specialize=["key0", "key1"])
def array_kernel(
    a: tl.tensor, b: tl.tensor, c: tl.tensor, result: tl.tensor, size: tl.tensor, table: tl.tensor,
    key0: tl.tensor, key1: tl.tensor,
    kind: tl.constexpr, tier: tl.constexpr, mode: tl.constexpr, bits: tl.constexpr, alike: tl.constexpr,
    step_a: tl.constexpr, step_b: tl.constexpr, step_c: tl.constexpr, count: tl.constexpr,
    how: tl.constexpr, way: tl.constexpr, natural: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """result[i] = the operation on a[i step_a], ..., for i < size; ``block`` elements in each program, or counters.

    All reading comes first: a thread then waits for memory once.
    """
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    row = format_row(table, 0)
    if bits == 0:
        inside = place < size
        u = load(a + place * step_a, inside, tier)
        v, w = u, u
        if count > 1:
            v = load(b + place * step_b, inside, tier)
        if count > 2:
            w = load(c + place * step_c, inside, tier)
        draw = place.to(tl.uint32)  # of no consequence
        y = _result(u, v, w, table, row, draw, kind, tier, mode, bits, alike, how, way, natural)
        store(result + place, y, inside)
    else:
        halves: tl.constexpr = 2 if bits <= 16 else 1
        first = (place >> 6) * (256 * halves) + (place & 63)
        u = _all(a, first, size, step_a, tier, halves)
        v, w = u, u
        if count > 1:
            v = _all(b, first, size, step_b, tier, halves)
        if count > 2:
            w = _all(c, first, size, step_c, tier, halves)
        words = philox(place, place >> 32, place & 0, place & 0, key0, key1)
        for n in tl.static_range(4 * halves):
            draw = draw_of(words[n % 4], 16 if halves == 2 and n < 4 else 0, 32 - bits)
            i = first + 64 * n
            y = _result(u[n], v[n], w[n], table, row, draw, kind, tier, mode, bits, alike, how, way, natural)
            store(result + i, y, i < size)
