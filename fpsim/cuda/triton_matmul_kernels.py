"""The Triton kernel of a matrix product in which every operation is rounded.

A program computes a tile [R, C] of the result and keeps it in registers: every term loads R numbers of the left matrix
and C of the right one for R C multiply-adds. The tile lies along the columns, so that each thread holds all of its R
rows: its loads of the right matrix are contiguous over the threads, those of the left one the same for a whole warp,
and nothing goes through shared memory. The terms of an element are handled in the order of the accumulator by the one
thread that holds it.

What an operation is compiled to stands in an integer, a ``code``: tier, mode, random bits, whether infinities become
what an overflow becomes, and the three constants of ``triton_single``. Its format is row ``slot`` of the table. The
registers hold binary32 numbers where all operations are done in binary32, else binary64 numbers.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from fpsim.accumulator import CORRECTION, DIFFERENCE, MASTER, PRODUCT, SUM, TERM
from fpsim.cuda.triton_elements import ADD, EXACT, FMA, MUL, SINGLE, SUB, compute, format_row, load, rounded, store
from fpsim.cuda.triton_random import draw_of, philox
from fpsim.cuda.triton_single import single_operation
from fpsim.cuda.triton_wide import operate

SEQUENTIAL, BLOCKED, KAHAN = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
PRODUCTS, FUSED, ALONE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_PRODUCT, _SUM, _MASTER = tl.constexpr(PRODUCT), tl.constexpr(SUM), tl.constexpr(MASTER)
_TERM, _DIFFERENCE, _CORRECTION = tl.constexpr(TERM), tl.constexpr(DIFFERENCE), tl.constexpr(CORRECTION)


@triton.jit
def _words(
    code: tl.constexpr, element: tl.tensor, step: tl.tensor, group: tl.constexpr, key0: tl.tensor, key1: tl.tensor
) -> Any:
    """The words of a group of slots in one step; of no consequence, and free, where no bits are drawn."""
    if ((code >> 16) & 0xFF) == 0:
        nothing = element.to(tl.uint32)
        return nothing, nothing, nothing, nothing
    zero = element & 0
    return philox(element, zero + step, zero, zero + group, key0, key1)


@triton.jit
def _operate(
    kind: tl.constexpr, slot: tl.constexpr, code: tl.constexpr, drawn: tl.constexpr, a: tl.tensor, b: tl.tensor,
    c: tl.tensor, words: tl.tensor, table: tl.tensor, row: tl.tensor,
) -> Any:  # fmt: skip
    """One rounded operation of a slot; ``row``: its format, ``words``: those of its group."""
    tier: tl.constexpr = code & 31
    mode: tl.constexpr = (code >> 8) & 0xFF
    bits: tl.constexpr = (code >> 16) & 0xFF
    alike: tl.constexpr = ((code >> 24) & 1) != 0
    # fpsim.random_bits.program_draw: eight slots share a counter by halves of its words, or four by whole words.
    if drawn <= 16:
        draw = draw_of(words[(slot >> 1) & 3], 16 if (slot & 1) == 0 else 0, (32 - bits) & 31)
    else:
        draw = draw_of(words[slot & 3], 0, (32 - bits) & 31)
    if tier == EXACT:
        return operate(kind, mode, bits, a, b, c, draw, table, slot)
    elif tier == SINGLE:
        how: tl.constexpr = (code >> 25) & 3
        way: tl.constexpr = (code >> 27) & 3
        natural: tl.constexpr = ((code >> 29) & 1) != 0
        return single_operation(kind, how, way, natural, mode, bits, alike, a, b, c, draw, row)
    else:
        x, infinite = compute(kind, tier, mode, a, b, c)
        return rounded(mode, bits, alike, x, infinite, row, draw)


@triton.jit(do_not_specialize=["rows", "columns", "terms", "row_step", "column_step", "block", "key0", "key1"])
def matmul_kernel(
    left: tl.tensor, right: tl.tensor, result: tl.tensor, of_left: tl.tensor, of_right: tl.tensor, rows: tl.tensor,
    columns: tl.tensor, terms: tl.tensor, row_step: tl.tensor, column_step: tl.tensor, block: tl.tensor,
    table: tl.tensor, key0: tl.tensor, key1: tl.tensor,
    order: tl.constexpr, operands: tl.constexpr, product: tl.constexpr, total: tl.constexpr, third: tl.constexpr,
    fourth: tl.constexpr, fifth: tl.constexpr, drawn: tl.constexpr, single: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
) -> None:  # fmt: skip
    """Tiles of result[p] = left[of_left[p]] @ right[of_right[p]], or the sums of the columns of right[of_right[p]].

    left, right : C-contiguous ``[.., rows, terms]`` and ``[.., terms, columns]``
    result : element i, j of pair p is number p rows columns + i row_step + j column_step
    block : terms of a block, or all terms
    product, total, third, fourth, fifth : codes of the slots 0 to 4;  drawn : bits of which draws are the top
    """
    tiles_down, tiles_across = tl.cdiv(rows, R), tl.cdiv(columns, C)
    place = tl.program_id(0)
    down, across = place % tiles_down, (place // tiles_down) % tiles_across
    pair = (place // (tiles_down * tiles_across)).to(tl.int64)
    i = down * R + tl.arange(0, R)[:, None]
    j = across * C + tl.arange(0, C)[None, :]
    number = pair * rows * columns + (i.to(tl.int64) * row_step + j.to(tl.int64) * column_step)
    element = number & 0xFFFFFFFF
    inside_i, inside_j = i < rows, j < columns
    at_left = left + (tl.load(of_left + pair) * rows + i) * terms
    at_right = right + (tl.load(of_right + pair) * terms * columns + j)
    of_product, of_sum = format_row(table, _PRODUCT), format_row(table, _SUM)
    of_master = format_row(table, _MASTER)
    tier: tl.constexpr = SINGLE if single else EXACT
    zero = tl.zeros([R, C], tl.float32 if single else tl.float64)
    whole, s, c = zero, zero, zero
    for k in range(terms):
        y = load(at_right, inside_j, tier)
        at_right += columns
        words = _words(product | total, element, k, 0, key0, key1)
        if operands == ALONE:
            t = tl.broadcast_to(y, [R, C])
        else:
            x, y = tl.broadcast(load(at_left + k, inside_i, tier), y)
            if operands == FUSED:
                s = _operate(FMA, _SUM, total, drawn, x, y, s, words, table, of_sum)
            else:
                t = _operate(MUL, _PRODUCT, product, drawn, x, y, y, words, table, of_product)
        if order == KAHAN:
            y = _operate(SUB, _TERM, third, drawn, t, c, c, words, table, of_sum)
            u = _operate(ADD, _SUM, total, drawn, s, y, y, words, table, of_sum)
            d = _operate(SUB, _DIFFERENCE, fourth, drawn, u, s, s, words, table, of_sum)
            if drawn > 16:
                words = _words(fifth, element, k, 1, key0, key1)
            c = _operate(SUB, _CORRECTION, fifth, drawn, d, y, y, words, table, of_sum)
            s = u
        elif operands != FUSED:
            s = _operate(ADD, _SUM, total, drawn, s, t, t, words, table, of_sum)
        if order == BLOCKED:  # noqa: SIM102 - decided when compiling
            if ((k + 1) % block == 0) | (k + 1 == terms):
                words = _words(third, element, k // block, 0, key0, key1)
                whole = _operate(ADD, _MASTER, third, drawn, whole, s, s, words, table, of_master)
                s = zero
    if order != BLOCKED:
        whole = s
    store(result + number, whole.to(tl.float64), inside_i & inside_j)
