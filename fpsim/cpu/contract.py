"""Sums along an axis, of numbers or of products, in every order, mode and tier: a REDUCE line of ``whole``.

The operand has three axes, outer o, terms k and inner j; results are [o, j] for every lane. What the orders are, and
which draws an addition has, stands in ``tracing.total``: those of the first term of its right range.

THE GENERAL PATH takes strips of some j for all lanes of a block. Step k fetches the strips of both factors (or of the
terms), and every operation is ``perform`` on strips. Products that enter the sum exactly take this path only.

THE FAST PATH is for sequential sums of products m[k, j] v[k] of which one factor is the same for all j. It goes lane by
lane (``contract_kernels``). Rows of m that lie in memory one number after the other are read where they are; a matrix
that is stored otherwise is copied, some rows at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, jit
from fpsim.cpu import contract_kernels as fast
from fpsim.cpu import whole_codes as w
from fpsim.cpu.event_kernels import count
from fpsim.cpu.perform import perform
from fpsim.cpu.random_words import fill_words
from fpsim.cpu.rounding_elements import format_row
from fpsim.cpu.whole_kernels import fetch, index_of, place_of

STRIP = 256  # elements of a strip of the general path, if that is one j for all lanes
ROWS = 6  # of the general path: two factors, a term, the sum, the sum of blocks, a result while events are counted
WIDTH = 256  # neighbouring j of the fast path
TILE = 32  # rows of a matrix that are copied at a time
_SHIFT_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@jit.kernel
def _draw(
    words: Any, width: Any, groups: Any, counters: Any, runs: Any, by: Any, step: Any, key0: Any, key1: Any, n: Any
) -> None:
    """Move the counters by ``by`` elements and draw the words of their groups: four rows each."""
    for i in range(n):
        counters[i] = (counters[i] + by) & _LOW
    for g in range(2):
        if groups[g] >= 0:
            c3 = np.uint64(groups[g]) + ((step >> _SHIFT_32) << np.uint64(16))
            fill_words(words, np.uint64(4 * g) * width, width, counters, step & _LOW, runs, c3, key0, key1, n)


def _operation(counting: bool) -> Any:
    @jit.merge
    def operate(slot: Any, machine: Any, a: Any, b: Any, c: Any, to: Any, spare: Any, n: Any) -> None:
        """One rounded operation, whose numbers ``slot`` holds, and its events. ``to`` may be an operand."""
        kind, number, swamped, tier, mode, row, word, left, right = slot
        registers, x, z, flags, integers, floats, words, counts, result, stride = machine
        if counting:
            used, beyond = perform(
                kind, tier, mode, row, registers, x, a, b, c, result, n, integers, floats, words, word, left, right
            )
            count(
                kind, number, swamped, used, beyond, mode, row, registers, x, z, flags, a, b, c, result, spare,
                spare + stride, n, integers, floats, words, word, left, right, counts,
            )  # fmt: skip
            for i in range(n):
                registers[to + i] = registers[result + i]
        else:
            perform(kind, tier, mode, row, registers, x, a, b, c, to, n, integers, floats, words, word, left, right)

    return operate


@jit.kernel
def _term(
    registers: Any, details: Any, at: int, block: int, o: int, k: int, j0: int, rows: int, lanes: int, operand: int,
    to: Any,
) -> None:  # fmt: skip
    """The strip of one operand."""
    view = at + w.VIEWS + operand * w.VIEW
    for j in range(j0, j0 + rows):
        fetch(registers, details, view, block, o, k, j, 0, lanes, to + np.uint64((j - j0) * lanes))


def _general(counting: bool) -> Any:
    operate = _operation(counting)

    @jit.kernel
    def general(
        product: Any, total: Any, machine: Any, details: Any, at: int, block: int, lanes: int, to: Any, rows: Any,
        width: Any, spare: Any, counters: Any, runs: Any, of_lanes: Any, groups: Any, step: Any, key0: Any, key1: Any,
    ) -> None:  # fmt: skip
        """All results of a REDUCE line whose details begin ``at``. ``rows``: where scratch rows of ``width`` begin."""
        registers, words = machine[0], machine[6]
        outer, terms, inner = details[at + w.OUTER], details[at + w.TERMS], details[at + w.INNER]
        order, length, operands = details[at + w.ORDER], details[at + w.BLOCK], details[at + w.OPERANDS]
        first, second, term = rows, rows + width, rows + width + width
        s = term + width
        master = s + width
        stack = rows + np.uint64(ROWS) * width
        some = min(inner, max(1, STRIP // lanes))
        draws = groups[0] >= 0 or groups[1] >= 0
        number_o, number_k, number_j = details[at + w.NUMBERS], details[at + w.NUMBERS + 1], details[at + w.NUMBERS + 2]
        if order == w.SEQUENTIAL:
            length = terms
        for o in range(outer):
            for j0 in range(0, inner, some):
                count_j = min(some, inner - j0)
                n = np.uint64(count_j * lanes)
                here = 0  # the term whose draws the counters stand at
                for i in range(n):
                    counters[i] = np.uint64(o * number_o + (j0 + np.int64(i) // lanes) * number_j)
                    runs[i] = of_lanes[np.int64(i) % lanes]
                top = stack - width
                for k in range(terms):
                    if draws:
                        _draw(
                            words, width, groups, counters, runs, np.uint64((k - here) * number_k), step, key0, key1, n
                        )
                        here = k
                    begins = k % length == 0 and order != w.PAIRWISE
                    into = s if begins else term
                    if order == w.PAIRWISE:
                        top += width
                        into = top
                    if operands == w.TERMS_ALONE:
                        _term(registers, details, at, block, o, k, j0, count_j, lanes, 0, into)
                    else:
                        _term(registers, details, at, block, o, k, j0, count_j, lanes, 0, first)
                        _term(registers, details, at, block, o, k, j0, count_j, lanes, 1, second)
                    if operands == w.PRODUCTS:
                        operate(product, machine, first, second, second, into, spare, n)
                    elif operands == w.FUSED:
                        if k == 0:
                            for i in range(n):
                                registers[s + i] = 0.0
                        operate(total, machine, first, second, s, s, spare, n)
                        continue
                    if order == w.PAIRWISE:
                        size = 1
                        while (k + 1) & size == 0:
                            middle = k + 1 - size
                            if draws:
                                by = np.uint64((middle - here) * number_k)
                                _draw(words, width, groups, counters, runs, by, step, key0, key1, n)
                                here = middle
                            top -= width
                            operate(total, machine, top, top + width, top + width, top, spare, n)
                            size += size
                        continue
                    if not begins:
                        operate(total, machine, s, term, term, s, spare, n)
                    if order == w.BLOCKED and ((k + 1) % length == 0 or k + 1 == terms):
                        middle = k - k % length
                        if middle == 0:
                            for i in range(n):
                                registers[master + i] = registers[s + i]
                        else:
                            if draws:
                                by = np.uint64((middle - here) * number_k)
                                _draw(words, width, groups, counters, runs, by, step, key0, key1, n)
                                here = middle
                            operate(total, machine, master, s, s, master, spare, n)
                size = 0  # of the tree on top: the smallest are joined first
                while order == w.PAIRWISE and top > stack:
                    rest = terms - size
                    size += rest & -rest
                    middle = terms - size
                    if draws:
                        by = np.uint64((middle - here) * number_k)
                        _draw(words, width, groups, counters, runs, by, step, key0, key1, n)
                        here = middle
                    top -= width
                    operate(total, machine, top, top + width, top + width, top, spare, n)
                result = stack if order == w.PAIRWISE else master if order == w.BLOCKED else s
                begin = to + np.uint64((o * inner + j0) * lanes)
                for i in range(n):
                    registers[begin + i] = registers[result + i]

    return general


# Not in the closure of an entry: the cache on disk would not know them again in another process.
general, general_counting = _general(False), _general(True)


@jit.kernel
def variant(details: Any, at: int, product_tier: Any, sum_tier: Any, mode: int, sum_mode: int) -> int:
    """Which kernel of the fast path serves: 0 none, 1 and 2 to nearest, 3 toward zero, 4 the stochastic one.

    One factor must be the same for all j; operand 1 is that one (``whole_lower`` puts it there).
    """
    if details[at + w.OPERANDS] != w.PRODUCTS or details[at + w.ORDER] != w.SEQUENTIAL or details[at + w.INNER] < 4:
        return 0
    view = at + w.VIEWS + w.VIEW
    if details[view + w.STRIDES + 2] != 0 or details[view + w.INDEXED] == 2:
        return 0
    if mode != sum_mode or product_tier > codes.ODD or sum_tier > codes.ODD:
        return 0
    if mode == codes.NEAREST_EVEN:
        return 2 if sum_tier == codes.ODD else 1
    return 3 if mode == codes.TOWARD_ZERO else 4 if mode == codes.STOCHASTIC else 0


@jit.inline
def _place_of_lane(
    registers: Any, details: Any, view: int, block: int, o: int, k: int, j: int, lane: int, lanes: int
) -> Any:
    """Where the element of a view is for one lane."""
    at = place_of(details, view, block, o, k, j, 0) + lane * details[view + w.LANES]
    axis = details[view + w.INDEXED]
    if axis >= 0:
        position = o if axis == 0 else k if axis == 1 else j
        place = index_of(registers, details, view, block, position, lanes) + lane * details[view + w.INDEX_LANES]
        at += np.int64(registers[np.uint64(place)]) * details[view + w.INDEX_STRIDE]
    return at


@jit.kernel
def _tile(
    registers: Any, details: Any, view: int, block: int, o: int, k0: int, k1: int, j0: int, some: int, lane: int,
    lanes: int, to: Any, padded: Any,
) -> None:  # fmt: skip
    """Rows k0 .. k1 - 1 and ``some`` columns of a matrix of one lane, row by row, padded with zeros."""
    stride, by_index = details[view + w.STRIDES + 1], details[view + w.INDEXED] == 1
    for j in range(some):
        start = _place_of_lane(registers, details, view, block, o, k0, j0 + j, lane, lanes)
        target = to + np.uint64(j)
        for k in range(k0, k1):
            place = start + (k - k0) * stride
            if by_index:
                place = _place_of_lane(registers, details, view, block, o, k, j0 + j, lane, lanes)
            registers[target] = registers[np.uint64(place)]
            target += padded
    for k in range(k1 - k0):
        for j in range(np.uint64(some), padded):
            registers[to + np.uint64(k) * padded + j] = 0.0


@jit.kernel
def lane_by_lane(
    which: int, product: Any, total: Any, registers: Any, integers: Any, floats: Any, words: Any, details: Any,
    at: int, block: int, lanes: int, to: Any, rows: Any, width: Any, places: Any, factors: Any, sums: Any,
    of_lanes: Any, groups: Any, step: Any, key0: Any, key1: Any,
) -> int:  # fmt: skip
    """The fast path; what it returns is not zero where some result is beyond the largest number or not finite.

    places, factors : int64 and float64 [terms];  sums : float64 [WIDTH];  ``rows``: TILE * WIDTH numbers
    """
    outer, terms, inner = details[at + w.OUTER], details[at + w.TERMS], details[at + w.INNER]
    matrix, vector = at + w.VIEWS, at + w.VIEWS + w.VIEW
    number_o, number_k, number_j = details[at + w.NUMBERS], details[at + w.NUMBERS + 1], details[at + w.NUMBERS + 2]
    direct = (
        details[matrix + w.STRIDES + 2] == 1 and details[matrix + w.INDEXED] != 2 and details[matrix + w.LANES] == 0
    )
    of_product, of_sum = format_row(integers, floats, product[5]), format_row(integers, floats, total[5])
    beyond = 0
    for o in range(outer):
        for lane in range(lanes):
            start = _place_of_lane(registers, details, vector, block, o, 0, 0, lane, lanes)
            for k in range(terms):
                place = start + k * details[vector + w.STRIDES + 1]
                if details[vector + w.INDEXED] == 1:
                    place = _place_of_lane(registers, details, vector, block, o, k, 0, lane, lanes)
                factors[k] = registers[np.uint64(place)]
            for j0 in range(0, inner, WIDTH):
                some = min(WIDTH, inner - j0)
                # Rows in memory are padded with zeros, and so are copies.
                padded = np.uint64((some + fast.SIDE - 1) // fast.SIDE * fast.SIDE)
                for k0 in range(0, terms, TILE):
                    k1 = min(terms, k0 + TILE)
                    if direct:
                        begin = _place_of_lane(registers, details, matrix, block, o, k0, j0, lane, lanes)
                        for k in range(k0, k1):
                            places[k] = begin + (k - k0) * details[matrix + w.STRIDES + 1]
                            if details[matrix + w.INDEXED] == 1:
                                places[k] = _place_of_lane(registers, details, matrix, block, o, k, j0, lane, lanes)
                    else:
                        for k in range(k0, k1):
                            places[k] = np.int64(rows + np.uint64(k - k0) * padded)
                        _tile(registers, details, matrix, block, o, k0, k1, j0, some, lane, lanes, rows, padded)
                    if which == 1:
                        beyond += fast.nearest(registers, places, factors, sums, k0, k1, padded, of_product, of_sum)
                    elif which == 2:
                        beyond += fast.nearest_odd(registers, places, factors, sums, k0, k1, padded, of_product, of_sum)
                    elif which == 3:
                        beyond += fast.toward_zero(registers, places, factors, sums, k0, k1, padded, of_product, of_sum)
                    else:
                        for k in range(k0, k1):
                            first = np.uint64(o * number_o + k * number_k + j0 * number_j)
                            for g in range(2):
                                if groups[g] >= 0:
                                    fast.draw_words(
                                        words, np.uint64(4 * g) * width, width, first, np.uint64(number_j),
                                        step & _LOW, of_lanes[lane],
                                        np.uint64(groups[g]) + ((step >> _SHIFT_32) << np.uint64(16)), key0, key1,
                                        padded,
                                    )  # fmt: skip
                            beyond += fast.random_step(
                                registers, np.uint64(places[k]), factors[k], sums, k == 0, padded, of_product, of_sum,
                                words, product[6], product[7], product[8], total[6], total[7], total[8],
                            )  # fmt: skip
                if beyond > 0:
                    return beyond
                for j in range(some):
                    registers[to + np.uint64((o * inner + j0 + j) * lanes + lane)] = sums[j]
    return beyond
