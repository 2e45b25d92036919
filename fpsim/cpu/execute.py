"""The vector machine: blocks, strips, steps, operations; one compiled entry, and one that counts events.

Memory is one flat array of registers. The values of array i in block k start at ``(i * blocks + k) * S`` with
S = d * lanes_per_block; behind them lie rows of one strip each for intermediate results and scalars. An operand is
therefore (base, per block, per element): its strip begins at ``base + block * per_block + first * per_element``.
A table of operations is read again for every strip and step; what differs between blocks (tier, format) is in ``plan``.
What the operations with a fused loop (``fused_kernels``) read of both is worked out once for a strip. All others, and
strips with results beyond the largest value, go through ``perform``.

There are two entries, each compiled when it is first called: ``execute``, and ``execute_counting``, which counts
events. The latter has three more strips in ``x`` and at the end of ``registers``, and in its table no operation that is
counted overwrites an operand: they are looked at again when it is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import ZERO, pointer, prefetch, to_bits
from fpsim.cpu.event_kernels import count, frozen, moved
from fpsim.cpu.fused_kernels import fast_kind, fast_mode, perform_fast, perform_watched
from fpsim.cpu.perform import perform
from fpsim.cpu.random_words import fill_words

# Columns of the table of operations. DESTINATION and the operands are three columns each.
KIND, SLOT, DESTINATION, A, B, C, GROUP, WORD, LEFT, RIGHT, WATCH = 0, 1, 2, 5, 8, 11, 14, 15, 16, 17, 18
COLUMNS = 19
# Columns of the plan.
TIER, MODE, ROW = 0, 1, 2
PLAN = 3
# Columns of what is worked out for a strip: see ``_resolve``.
Q_KIND, Q_TIER, Q_MODE, Q_ROW, Q_FLIP, Q_A, Q_B, Q_TO, Q_WORD, Q_LEFT, Q_RIGHT = range(11)
QUICK = 11
# Strips that counting adds to ``x`` and to the registers.
SPARE = 3
# Elements of a strip: with some twenty rows in use, half of a first-level cache.
STRIP = 256
# How much of an operation is looked at: what is rare (all but the other two), whether it is inexact, swamping.
RARE, INEXACT, SWAMPED = 0, 1, 2
_LINE = 8  # numbers in a line of the cache
_SIGN_PLACE = np.uint64(63)
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


@jit.inline
def _fill(registers: Any, at: Any, values: Any, start: Any, width: int, first: int, n: Any, strip: Any) -> None:
    """A row of a scalar: one value for all lanes, kept until it changes, or the values of the lanes of a block."""
    if width > 1:
        for i in range(n):
            registers[at + i] = values[start + np.uint64((first + np.int64(i)) % width)]
    elif to_bits(registers[at]) != to_bits(values[start]):
        value = values[start]
        for i in range(strip):
            registers[at + i] = value


@jit.kernel
def _extremes(registers: Any, low: Any, high: Any, a: Any, n: Any) -> None:
    for i in range(n):
        size = abs(registers[a + i])
        registers[low + i] = size if size < registers[low + i] else registers[low + i]
        registers[high + i] = size if size > registers[high + i] else registers[high + i]


@jit.kernel
def _ahead(registers: Any, arrays: int, apart: int, at: int, n: int, share: int, of: int) -> None:
    """Ask for the part ``share`` of ``of`` of what the next strip reads: n numbers of each array from ``at`` on."""
    piece = (n + of * _LINE - 1) // (of * _LINE) * _LINE
    for array in range(arrays):
        for i in range(share * piece, min((share + 1) * piece, n), _LINE):
            prefetch(registers, np.uint64(array * apart + at + i))


@jit.inline
def _begins(table: Any, o: int, column: int, block: int, first: int) -> Any:
    """Where the strip of an operand, or of the destination, begins."""
    return np.uint64(table[o, column] + block * table[o, column + 1] + first * table[o, column + 2])


@jit.kernel
def _resolve(
    table: Any, plan: Any, block: int, first: int, strip: int, integers: Any, counting: bool, quick: Any
) -> None:  # fmt: skip
    """What the operations that have a fused loop read in every step of a strip; strips come in their order."""
    for o in range(table.shape[0]):
        at = np.uint64(o * QUICK)
        if first > 0:
            for place, column in ((Q_A, A), (Q_B, B), (Q_TO, DESTINATION)):
                quick[at + place] += strip * table[o, column + 2]
            continue
        tier, mode, row = plan[block, o, TIER], plan[block, o, MODE], plan[block, o, ROW]
        kind = fast_kind(table[o, KIND], tier, mode)
        quick[at + Q_KIND] = kind if table[o, WATCH] == RARE or not counting else -1
        quick[at + Q_TIER], quick[at + Q_MODE], quick[at + Q_ROW] = tier, fast_mode(mode, integers, row), row
        quick[at + Q_FLIP] = 1 if table[o, KIND] == codes.SUB else 0
        for place, column in ((Q_A, A), (Q_B, B), (Q_TO, DESTINATION)):
            quick[at + place] = _begins(table, o, column, block, 0)
        quick[at + Q_WORD] = (4 * table[o, GROUP] + table[o, WORD]) * strip
        quick[at + Q_LEFT], quick[at + Q_RIGHT] = table[o, LEFT], table[o, RIGHT]


def _make(sources: int, counting: bool) -> Any:

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
    ) -> int:
        """``steps`` steps of a program from ``first_step`` on.

        registers, x : float64, flat;  words : uint32 [4 * groups * strip]
        table : int64 [operations, COLUMNS];  plan : int64 [blocks, operations, PLAN]
        scalars : float64 [blocks, scalars, steps, 1 or lanes], in rows of one strip from ``scalar_rows`` on
        given : float64, flat: per-step inputs;  records : float64, flat: [record, total, blocks, S]
        events : int64 [blocks, slots, events];  groups : uint64, the counter groups that are drawn from
        elements, runs : uint64 [S] and [blocks * S], the first and the third word of the counters
        offset, total : first step of this call within ``given`` and ``records``, and steps in ``records``
        """
        r, strip_x, drawn = pointer(registers), pointer(x), pointer(words)
        ints, reals, counts = pointer(integers), pointer(floats), pointer(events)
        inputs, recorded = pointer(given), pointer(records)
        size, slots = d * lanes, events.shape[1]
        arrays = scalar_rows // (blocks * size)
        values, many, width = pointer(scalars), scalars.shape[1], scalars.shape[3]
        room = np.empty(table.shape[0] * QUICK, dtype=np.int64)
        quick = pointer(room)
        spare = np.uint64(len(registers) - SPARE * strip)
        # Rows that only counting has and uses.
        strip_z = pointer(x[strip:]) if counting else strip_x
        flags = pointer(x[2 * strip :]) if counting else strip_x
        for block in range(blocks):
            for first in range(0, size, strip):
                n = min(strip, size - first)
                un, stride = np.uint64(n), np.uint64(strip)
                mine, its_elements = pointer(runs[block * size + first :]), pointer(elements[first:])
                _resolve(table, plan, block, first, strip, ints, counting, quick)
                for t in range(steps):
                    for s in range(many):
                        row, start = np.uint64(scalar_rows + s * strip), ((block * many + s) * steps + t) * width
                        _fill(r, row, values, np.uint64(start), width, first, un, stride)
                    step = np.uint64(first_step) + np.uint64(t)
                    for g in range(len(groups)):
                        fill_words(
                            drawn, np.uint64(4 * g) * stride, stride, its_elements, step & _LOW, mine,
                            groups[g] + ((step >> _SHIFT_32) << np.uint64(16)), key0, key1, un,
                        )  # fmt: skip
                    for o in range(table.shape[0]):
                        if t == 0 and first + strip < size:
                            following = block * size + first + strip
                            left_over = min(strip, size - first - strip)
                            _ahead(r, arrays, blocks * size, following, left_over, o, table.shape[0])
                        at = np.uint64(o * QUICK)
                        if quick[at] >= 0:
                            flip = np.uint64(quick[at + Q_FLIP]) << _SIGN_PLACE
                            qa, qb = np.uint64(quick[at + Q_A]), np.uint64(quick[at + Q_B])
                            q_to, q_word = np.uint64(quick[at + Q_TO]), np.uint64(quick[at + Q_WORD])
                            q_left, q_right = np.uint64(quick[at + Q_LEFT]), np.uint64(quick[at + Q_RIGHT])
                            if counting:
                                done = perform_watched(
                                    quick[at], quick[at + Q_TIER], quick[at + Q_MODE], quick[at + Q_ROW], flip,
                                    r, strip_x, qa, qb, q_to, un, ints, reals, drawn, q_word, q_left, q_right,
                                )  # fmt: skip
                            else:
                                done = perform_fast(
                                    quick[at], quick[at + Q_TIER], quick[at + Q_MODE], quick[at + Q_ROW], flip,
                                    r, strip_x, qa, qb, q_to, un, ints, reals, drawn, q_word, q_left, q_right,
                                )  # fmt: skip
                            if done:
                                continue
                        kind = table[o, KIND]
                        a, b = _begins(table, o, A, block, first), _begins(table, o, B, block, first)
                        c, to = _begins(table, o, C, block, first), _begins(table, o, DESTINATION, block, first)
                        if kind == codes.RECORD:
                            place = ((table[o, SLOT] * total + offset + t) * blocks + block) * size + first
                            _copy(r, a, recorded, np.uint64(place), un)
                            continue
                        if kind == codes.EXTREMES:
                            _extremes(r, b, c, a, un)
                            continue
                        if counting and kind == codes.MOVED:
                            back = o - table[o, SLOT]
                            moved(
                                table[back, KIND], r, strip_x, flags, _begins(table, back, A, block, first),
                                _begins(table, back, B, block, first), _begins(table, back, C, block, first),
                                b, a, to, un, ints, reals,
                            )  # fmt: skip
                            continue
                        if counting and kind == codes.FROZEN:
                            frozen(r, a, b, c, un, counts, block * slots + table[o, SLOT])
                            continue
                        if kind == codes.LOAD:
                            columns = table[o, B]
                            begin = table[o, A] + (offset + t) * d * columns
                            begin += block * lanes if columns > lanes else 0
                            _gather(inputs, begin, columns, lanes, first, strip_x, n)
                            a = spare if counting else to
                            b, c = a, a
                            if plan[block, o, TIER] == codes.EXACT:
                                _copy(strip_x, ZERO, r, a, un)
                                kind = codes.ROUND
                        if kind == codes.COPY:
                            _copy(r, a, r, to, un)
                            continue
                        slot = block * slots + table[o, SLOT] if table[o, SLOT] >= 0 else -1
                        tier, mode, row_ = plan[block, o, TIER], plan[block, o, MODE], plan[block, o, ROW]
                        word = np.uint64((4 * table[o, GROUP] + table[o, WORD]) * strip)
                        left, right = np.uint64(table[o, LEFT]), np.uint64(table[o, RIGHT])
                        if kind != codes.SUM:
                            tier, beyond = perform(
                                kind, tier, mode, row_, r, strip_x, a, b, c, to, un,
                                ints, reals, drawn, word, left, right,
                            )  # fmt: skip
                            if counting and slot >= 0:
                                count(
                                    kind, slot, table[o, WATCH] == SWAMPED, tier, beyond, mode, row_,
                                    r, strip_x, strip_z, flags, a, b, c, to, spare, spare + stride, un,
                                    ints, reals, drawn, word, left, right, counts,
                                )  # fmt: skip
                            continue
                        # Sequential from element 0; such programs run in strips of whole arrays.
                        row_length = np.uint64(lanes)
                        result = spare + stride + stride if counting else to
                        for i in range(row_length):
                            registers[to + i] = registers[a + i]
                        for k in range(1, d):
                            term, at_word = a + np.uint64(k) * row_length, word + np.uint64(k) * row_length
                            used, beyond = perform(
                                codes.ADD, tier, mode, row_, r, strip_x, to, term, term, result, row_length,
                                ints, reals, drawn, at_word, left, right,
                            )  # fmt: skip
                            if counting:
                                count(
                                    codes.ADD, slot, table[o, WATCH] == SWAMPED, used, beyond, mode, row_,
                                    r, strip_x, strip_z, flags, to, term, term, result, spare, spare + stride,
                                    row_length, ints, reals, drawn, at_word, left, right, counts,
                                )  # fmt: skip
                                _copy(r, result, r, to, row_length)
                        for k in range(1, d):
                            for i in range(row_length):
                                registers[to + np.uint64(k) * row_length + i] = registers[to + i]
        # Numba frees an array after its last use, and does not know that ``quick`` points into it: this is that use.
        return sources if len(room) > 0 else 0

    return execute


execute = _make(jit.SOURCES, False)
execute_counting = _make(jit.SOURCES, True)
