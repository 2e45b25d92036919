"""The vector machine: blocks, strips, steps, operations; one compiled entry for programs and array functions.

Memory is one flat array of registers. The values of array i in block k start at ``(i * blocks + k) * S`` with
S = d * lanes_per_block; behind them lie rows of one strip each for intermediate results and scalars. An operand is
therefore (base, per block, per element): its strip begins at ``base + block * per_block + first * per_element``.
A table of operations is read again for every strip and step; what differs between blocks (tier, format) is in ``plan``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import ZERO, pointer
from fpsim.cpu.perform import perform
from fpsim.cpu.random_words import fill_words

# Columns of the table of operations. DESTINATION and the operands are three columns each.
KIND, SLOT, DESTINATION, A, B, C, GROUP, WORD, LEFT, RIGHT = 0, 1, 2, 5, 8, 11, 14, 15, 16, 17
COLUMNS = 18
# Columns of the plan.
TIER, MODE, ROW = 0, 1, 2
PLAN = 3
# Elements of a strip: with some twenty rows in use, half of a first-level cache.
STRIP = 256
_SHIFT_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@jit.kernel
def _copy(source: Any, a: Any, target: Any, to: Any, n: Any) -> None:
    """A strip. An assignment of slices would look for overlaps and copy twice."""
    for i in range(n):
        target[to + i] = source[a + i]


@jit.kernel
def _gather(given: Any, at: int, columns: int, lanes: int, first: int, x: Any, n: int) -> None:
    """x = elements first .. first + n - 1 of the block [d, lanes] of a [d, columns] array that begins at ``at``."""
    if columns == lanes:
        _copy(given, np.uint64(at + first), x, ZERO, np.uint64(n))
        return
    place, lane = at + first // lanes * columns, first % lanes
    for i in range(n):
        x[i] = given[place + lane]
        lane += 1
        if lane == lanes:
            lane = 0
            place += columns


@jit.kernel
def _fill(registers: Any, at: Any, values: Any, first: int, n: Any) -> None:
    """A row of a scalar: one value for all lanes, or the values of the lanes of a block."""
    if len(values) == 1:
        value = values[0]
        for i in range(n):
            registers[at + i] = value
        return
    for i in range(n):
        registers[at + i] = values[(first + np.int64(i)) % len(values)]


@jit.kernel
def _extremes(registers: Any, low: Any, high: Any, a: Any, n: Any) -> None:
    for i in range(n):
        size = abs(registers[a + i])
        registers[low + i] = size if size < registers[low + i] else registers[low + i]
        registers[high + i] = size if size > registers[high + i] else registers[high + i]


def _make(sources: int) -> Any:
    @jit.entry
    def execute(
        registers: Any,
        x: Any,
        words: Any,
        table: Any,
        plan: Any,
        integers: Any,
        floats: Any,
        scalars: Any,
        scalar_rows: int,
        given: Any,
        records: Any,
        events: Any,
        groups: Any,
        elements: Any,
        runs: Any,
        key0: Any,
        key1: Any,
        blocks: int,
        d: int,
        lanes: int,
        strip: int,
        first_step: Any,
        offset: int,
        steps: int,
        total: int,
        array_index: int,
    ) -> int:
        """``steps`` steps of a program from ``first_step`` on, or with ``array_index`` >= 0 one array function.

        registers, x : float64, flat;  words : uint32 [4 * groups * strip]
        table : int64 [operations, COLUMNS];  plan : int64 [blocks, operations, PLAN]
        scalars : float64 [blocks, scalars, steps, 1 or lanes], in rows of one strip from ``scalar_rows`` on
        given : float64, flat: per-step inputs;  records : float64, flat: [record, total, blocks, S]
        events : int64 [blocks, slots, 3];  groups : uint64, the counter groups that are drawn from
        elements, runs : uint64 [S] and [blocks * S], the first and the third word of the counters; with an array
            function room for the counters of a strip
        offset, total : first step of this call within ``given`` and ``records``, and steps in ``records``
        """
        r, strip_x, drawn = pointer(registers), pointer(x), pointer(words)
        ints, reals, counts = pointer(integers), pointer(floats), pointer(events)
        inputs, recorded = pointer(given), pointer(records)
        size, slots = d * lanes, events.shape[1]
        for block in range(blocks):
            for first in range(0, size, strip):
                n = min(strip, size - first)
                un, stride = np.uint64(n), np.uint64(strip)
                mine = runs[block * size + first :]
                for t in range(steps):
                    for s in range(scalars.shape[1]):
                        row = np.uint64(scalar_rows + s * strip)
                        if t == 0 or scalars.shape[3] > 1 or scalars[block, s, t, 0] != scalars[block, s, t - 1, 0]:
                            _fill(r, row, scalars[block, s, t], first, un)
                    step = np.uint64(first_step) + np.uint64(t)
                    half = ZERO
                    if array_index >= 0:
                        half = _array_words(drawn, elements, runs, array_index + first, groups, key0, key1)
                    else:
                        for g in range(len(groups)):
                            fill_words(
                                drawn, np.uint64(4 * g) * stride, stride, elements[first:], step & _LOW, mine,
                                groups[g] + ((step >> _SHIFT_32) << np.uint64(16)), key0, key1, un,
                            )  # fmt: skip
                    for o in range(table.shape[0]):
                        kind = table[o, KIND]
                        a = np.uint64(table[o, A] + block * table[o, A + 1] + first * table[o, A + 2])
                        b = np.uint64(table[o, B] + block * table[o, B + 1] + first * table[o, B + 2])
                        c = np.uint64(table[o, C] + block * table[o, C + 1] + first * table[o, C + 2])
                        to = np.uint64(
                            table[o, DESTINATION]
                            + block * table[o, DESTINATION + 1]
                            + first * table[o, DESTINATION + 2]
                        )
                        if kind == codes.RECORD:
                            start = ((table[o, SLOT] * total + offset + t) * blocks + block) * size + first
                            _copy(r, a, recorded, np.uint64(start), un)
                            continue
                        if kind == codes.EXTREMES:
                            _extremes(r, b, c, a, un)
                            continue
                        if kind == codes.LOAD:
                            columns = table[o, B]
                            at = table[o, A] + (offset + t) * d * columns + (block * lanes if columns > lanes else 0)
                            _gather(inputs, at, columns, lanes, first, strip_x, n)
                            a, b, c = to, to, to
                            if plan[block, o, TIER] == codes.EXACT:
                                _copy(strip_x, ZERO, r, to, un)
                                kind = codes.ROUND
                        if kind == codes.COPY:
                            _copy(r, a, r, to, un)
                            continue
                        slot = block * slots + table[o, SLOT] if table[o, SLOT] >= 0 else -1
                        tier, mode, row_ = plan[block, o, TIER], plan[block, o, MODE], plan[block, o, ROW]
                        word = np.uint64((4 * table[o, GROUP] + table[o, WORD]) * strip)
                        left, right = np.uint64(table[o, LEFT]) ^ half, np.uint64(table[o, RIGHT])
                        if kind != codes.SUM:
                            perform(
                                kind, slot, tier, mode, row_, r, strip_x, a, b, c, to, un,
                                ints, reals, drawn, word, left, right, counts,
                            )  # fmt: skip
                            continue
                        # Sequential from element 0; such programs run in strips of whole arrays.
                        row_length = np.uint64(lanes)
                        for i in range(row_length):
                            registers[to + i] = registers[a + i]
                        for k in range(1, d):
                            term = a + np.uint64(k) * row_length
                            perform(
                                codes.ADD, slot, tier, mode, row_, r, strip_x, to, term, term, to, row_length,
                                ints, reals, drawn, word + np.uint64(k) * row_length, left, right, counts,
                            )  # fmt: skip
                        for k in range(1, d):
                            for i in range(row_length):
                                registers[to + np.uint64(k) * row_length + i] = registers[to + i]
        return sources

    return execute


@jit.kernel
def _array_words(words: Any, counters: Any, zeros: Any, index: int, groups: Any, key0: Any, key1: Any) -> Any:
    """Words of the strip of 256 that starts at the C-order index ``index``; 16 if its draws are in the upper half.

    Element e has the counter ``(e >> 8) * 64 + (e & 63)`` and the word ``(e >> 6) & 3``, so 64 counters fill a strip in
    order. ``groups`` holds log2 of the block: 8, or 9 for draws of at most 16 bits, whose blocks use each word twice.
    """
    if len(groups) == 0:
        return ZERO
    block = np.uint64(index) >> groups[0]
    half = (np.uint64(index) >> np.uint64(8)) & np.uint64(1) if groups[0] > np.uint64(8) else ZERO
    count = np.uint64(64)
    start = block * count
    for i in range(64):
        counters[i] = (start & _LOW) + np.uint64(i)
        zeros[i] = ZERO
    fill_words(words, ZERO, count, counters, start >> _SHIFT_32, zeros, ZERO, key0, key1, count)
    return np.uint64(16) * half


execute = _make(jit.SOURCES)
