"""The Triton kernel of an array function: one rounded operation on contiguous arrays.

Random bits are numbered by the element's place e in the result (``fpsim.random_bits.array_draw``): a block of 256
elements (512, where 16 bits are enough) shares 64 counters of four words. So a thread takes some neighbouring counters
and works on all elements that draw from them: runs of neighbours, 64 places apart, read and written at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fpsim.cuda.triton_elements import EXACT, SINGLE, compute, format_row, load, rounded, store
from fpsim.cuda.triton_random import draw_of, philox
from fpsim.cuda.triton_single import single_operation
from fpsim.cuda.triton_wide import operate


@triton.jit
def _element(
    a: tl.tensor, b: tl.tensor, c: tl.tensor, result: tl.tensor, i: tl.tensor, inside: tl.tensor, table: tl.tensor,
    row: tl.tensor, draw: tl.tensor, kind: tl.constexpr, tier: tl.constexpr, mode: tl.constexpr, bits: tl.constexpr,
    alike: tl.constexpr, step_a: tl.constexpr, step_b: tl.constexpr, step_c: tl.constexpr, count: tl.constexpr,
    how: tl.constexpr, way: tl.constexpr, natural: tl.constexpr,
) -> None:  # fmt: skip
    """One correctly rounded operation in the tier that is proven exact, from memory to memory."""
    u = load(a + i * step_a, inside, tier)
    v, w = u, u
    if count > 1:
        v = load(b + i * step_b, inside, tier)
    if count > 2:
        w = load(c + i * step_c, inside, tier)
    if tier == EXACT:
        y = operate(kind, mode, bits, u, v, w, draw, table, 0)
    elif tier == SINGLE:
        y = single_operation(kind, how, way, natural, mode, bits, alike, u, v, w, draw, row)
    else:
        x, infinite = compute(kind, tier, mode, u, v, w)
        y = rounded(mode, bits, alike, x, infinite, row, draw)
    store(result + i, y, inside)


@triton.jit(do_not_specialize=["key0", "key1"])
def array_kernel(
    a: tl.tensor, b: tl.tensor, c: tl.tensor, result: tl.tensor, size: tl.tensor, table: tl.tensor,
    key0: tl.tensor, key1: tl.tensor,
    kind: tl.constexpr, tier: tl.constexpr, mode: tl.constexpr, bits: tl.constexpr, alike: tl.constexpr,
    step_a: tl.constexpr, step_b: tl.constexpr, step_c: tl.constexpr, count: tl.constexpr,
    how: tl.constexpr, way: tl.constexpr, natural: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """result[i] = the operation on a[i step_a], ..., for i < size; ``block`` elements in each program, or counters."""
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    row = format_row(table, 0)  # read before anything is written, so that it stays in registers
    if bits == 0:
        inside = place < size
        draw = place.to(tl.uint32)  # of no consequence
        _element(
            a, b, c, result, place, inside, table, row, draw, kind, tier, mode, bits, alike,
            step_a, step_b, step_c, count, how, way, natural,
        )  # fmt: skip
    else:
        halves: tl.constexpr = 2 if bits <= 16 else 1
        words = philox(place, place >> 32, place & 0, place & 0, key0, key1)
        first = (place >> 6) * (256 * halves) + (place & 63)
        first = tl.multiple_of(tl.max_contiguous(first, 64), 64)  # runs of 64 neighbours from multiples of 64 on
        for half in tl.static_range(halves):
            for j in tl.static_range(4):
                draw = draw_of(words[j], 16 if halves == 2 and half == 0 else 0, 32 - bits)
                i = first + (256 * half + 64 * j)
                _element(
                    a, b, c, result, i, i < size, table, row, draw, kind, tier, mode, bits, alike,
                    step_a, step_b, step_c, count, how, way, natural,
                )  # fmt: skip
