"""The vector machine for values of many shapes: blocks, steps, operations on whole arrays.

As ``execute``, without its strips: where values differ in shape, an element is computed from others than its own.
Registers are one flat array. Arrays and intermediate results of n elements are [n, lanes], arrays that all runs share
[n] with the last axis padded to a multiple of 16 by zeros. A line of the table (``whole_codes``) works on all of that.

A function whose result the kernel leaves open (or does not compute at all) stops the machine: ``execute`` returns the
number of the line, the caller completes x, or the result, and calls again where it stopped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, contract, jit
from fpsim.cpu import whole_codes as w
from fpsim.cpu.bits import ONE, ZERO, pointer, to_bits
from fpsim.cpu.event_kernels import EVENTS, INVALID, count, frozen, moved
from fpsim.cpu.execute import _copy, _extremes, _gather
from fpsim.cpu.format_table import BITS, FLOATS, FRACTION, INFINITE, INTEGERS
from fpsim.cpu.perform import perform, round_strip
from fpsim.cpu.random_words import fill_words
from fpsim.cpu.rounding_kernels import repair
from fpsim.cpu.whole_kernels import functions, less, remainders, select, spread

TIER, MODE, ROW = 0, 1, 2
SPARE = 3  # strips that counting adds to ``x`` and to the registers
_SHIFT_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@jit.kernel
def _spread_scalar(registers: Any, at: Any, values: Any, n: Any) -> None:
    """The row of a scalar: one value for all lanes, or the values of the lanes in turn."""
    lanes = len(values)
    if lanes == 1:
        value = values[0]
        for i in range(n):
            registers[at + i] = value
        return
    for i in range(n):
        registers[at + i] = values[np.int64(i) % lanes]


@jit.inline
def _begins(table: Any, o: int, column: int, block: int) -> Any:
    return np.uint64(table[o, column] + block * table[o, column + 1])


@jit.inline
def _zeros(integers: Any, row: int, mode: int) -> Any:
    """The last bits that a number of binary64 has and those that ``mode`` asks for do not."""
    asked = integers[row * INTEGERS + FRACTION] + 1
    if mode <= codes.NEAREST_AWAY:
        asked += 1
    elif mode >= codes.STOCHASTIC:
        asked += integers[row * INTEGERS + BITS] + (0 if mode == codes.STOCHASTIC else 1)
    return (ONE << np.uint64(max(0, 53 - asked))) - ONE


def _make(sources: int, counting: bool) -> Any:
    @jit.entry
    def execute(
        registers: Any,
        x: Any,
        words: Any,
        table: Any,
        details: Any,
        plan: Any,
        integers: Any,
        floats: Any,
        tables: Any,
        scalars: Any,
        scalar_sizes: Any,
        scalar_rows: int,
        scratch: int,
        given: Any,
        records: Any,
        events: Any,
        groups: Any,
        elements: Any,
        runs: Any,
        counters: Any,
        places: Any,
        open_ones: Any,
        key0: Any,
        key1: Any,
        blocks: int,
        lanes: int,
        longest: int,
        first_step: Any,
        offset: int,
        steps: int,
        total: int,
        state: Any,
    ) -> int:
        """``steps`` steps from ``first_step`` on, beginning where ``state`` says. Returns DONE or the number of a line.

        table : int64 [operations, COLUMNS];  details : int64, flat;  plan : int64 [blocks, operations, 3]
        scalars : float64 [blocks, scalars, steps, 1 or lanes]; rows of ``longest`` numbers from ``scalar_rows`` on, of
            which ``scalar_sizes`` are filled
        groups : int64 [groups, 3]: the group, how many counters are drawn, and where its words begin
        elements : uint64 [longest];  runs : uint64 [blocks, lanes];  scratch : where the rows of ``contract`` begin
        counters : uint64 [3 * longest], scratch;  places : int64 and ``open_ones`` int64, scratch
        tables : float64, what the functions read;  the rest as in ``execute.execute``
        """
        r, strip_x, drawn = pointer(registers), pointer(x), pointer(words)
        ints, reals, counts = pointer(integers), pointer(floats), pointer(events)
        inputs, recorded, detail, function_table = pointer(given), pointer(records), pointer(details), pointer(tables)
        at_places, left_open = pointer(places), pointer(open_ones)
        sums, factors = pointer(x[longest:]), pointer(x[longest + contract.WIDTH :])
        # Behind x[longest]: a strip of sums, then one factor for each term; at the end what only counting has.
        slots = events.shape[1]
        width = np.uint64(max(contract.STRIP, (lanes + 7) // 8 * 8))
        spare = np.uint64(len(registers) - SPARE * longest)
        stride = np.uint64(longest)
        strip_z = pointer(x[len(x) - 2 * longest :]) if counting else strip_x
        flags = pointer(x[len(x) - longest :]) if counting else strip_x
        numbers, of_element, strip_runs = counters[:longest], counters[longest : 2 * longest], counters[2 * longest :]
        tile = np.uint64(scratch)
        result = tile + np.uint64(contract.TILE * contract.WIDTH)
        rows = result + width
        rests = spare - np.uint64(longest)
        own_groups = np.empty(2, dtype=np.int64)
        at_block, at_step, at_line, half = state[w.AT_BLOCK], state[w.AT_STEP], state[w.AT_LINE], state[w.HALF]
        for block in range(at_block, blocks):
            for i in range(longest):
                of_element[i] = runs[block, i % lanes]
            for t in range(at_step if block == at_block else 0, steps):
                resumed = block == at_block and t == at_step and (at_line > 0 or half > 0)
                step = np.uint64(first_step) + np.uint64(t)
                if not resumed:
                    for s in range(scalars.shape[1]):
                        row = np.uint64(scalar_rows + s * longest)
                        kept = t > 0 and scalars.shape[3] == 1  # +0 is not -0
                        if not kept or to_bits(scalars[block, s, t, 0]) != to_bits(scalars[block, s, t - 1, 0]):
                            _spread_scalar(r, row, scalars[block, s, t], np.uint64(scalar_sizes[s]))
                    for g in range(len(groups)):
                        n = np.uint64(groups[g, 1])
                        if n > ZERO:
                            fill_words(
                                drawn, np.uint64(groups[g, 2]), n, elements, step & _LOW, of_element,
                                np.uint64(groups[g, 0]) + ((step >> _SHIFT_32) << np.uint64(16)), key0, key1, n,
                            )  # fmt: skip
                for o in range(at_line if resumed else 0, table.shape[0]):
                    kind, un = table[o, w.KIND], np.uint64(table[o, w.SIZE])
                    a, b = _begins(table, o, w.A, block), _begins(table, o, w.B, block)
                    c, to = _begins(table, o, w.C, block), _begins(table, o, w.DESTINATION, block)
                    number = table[o, w.NUMBER]
                    if kind == w.PRODUCT:
                        continue
                    if kind == codes.RECORD:
                        start = number * total + ((offset + t) * blocks + block) * table[o, w.SIZE]
                        _copy(r, a, recorded, np.uint64(start), un)
                        continue
                    if kind == codes.EXTREMES:
                        _extremes(r, b, c, a, un)
                        continue
                    if counting and kind == codes.MOVED:
                        back = o - number
                        moved(
                            table[back, w.KIND], r, strip_x, flags, _begins(table, back, w.A, block),
                            _begins(table, back, w.B, block), _begins(table, back, w.C, block), b, a, to, un, ints,
                            reals,
                        )  # fmt: skip
                        continue
                    slot = block * slots + table[o, w.SLOT] if table[o, w.SLOT] >= 0 else -1
                    if counting and kind == codes.FROZEN:
                        frozen(r, a, b, c, un, counts, slot)
                        continue
                    if kind == w.SPREAD or kind == w.SPREAD_ONCE:
                        if kind == w.SPREAD or t == 0:
                            spread(r, detail, number, block, lanes, to)
                        continue
                    if kind == w.LESS:
                        less(r, a, b, to, un)
                        continue
                    if kind == w.WHERE:
                        select(r, a, b, c, to, un)
                        continue
                    if kind == codes.COPY:
                        _copy(r, a, r, to, un)
                        continue
                    tier, mode, row_ = plan[block, o, TIER], plan[block, o, MODE], plan[block, o, ROW]
                    word = np.uint64(table[o, w.WORD])
                    left, right = np.uint64(table[o, w.LEFT]), np.uint64(table[o, w.RIGHT])
                    if kind == w.REDUCE:
                        p = o - 1  # of the products, if there are any
                        own_groups[0], own_groups[1] = detail[number + w.GROUP_PRODUCT], detail[number + w.GROUP_SUM]
                        product = (
                            codes.MUL, block * slots + table[p, w.SLOT], table[p, w.SWAMPED], plan[block, p, TIER],
                            plan[block, p, MODE], plan[block, p, ROW], np.uint64(table[p, w.WORD]) * width,
                            np.uint64(table[p, w.LEFT]), np.uint64(table[p, w.RIGHT]),
                        )  # fmt: skip
                        adds = codes.FMA if detail[number + w.OPERANDS] == w.FUSED else codes.ADD
                        summed = (adds, slot, table[o, w.SWAMPED], tier, mode, row_, word * width, left, right)
                        own_words = pointer(words[table[o, w.C] :])
                        which = 0
                        if not counting:
                            which = contract.variant(detail, number, product[3], tier, product[4], mode)
                        beyond = 1
                        if which > 0:
                            beyond = contract.lane_by_lane(
                                which, product, summed, r, ints, reals, own_words, detail, number, block, lanes, to,
                                tile, width, at_places, factors, sums, runs[block],
                                own_groups, step, key0, key1,
                            )  # fmt: skip
                        if beyond > 0:
                            machine = (r, strip_x, strip_z, flags, ints, reals, own_words, counts, result, stride)
                            if counting:
                                contract.general_counting(
                                    product, summed, machine, detail, number, block, lanes, to, rows, width, spare,
                                    numbers, strip_runs, runs[block], own_groups, step, key0, key1,
                                )  # fmt: skip
                            else:
                                contract.general(
                                    product, summed, machine, detail, number, block, lanes, to, rows, width, spare,
                                    numbers, strip_runs, runs[block], own_groups, step, key0, key1,
                                )  # fmt: skip
                        continue
                    if kind == codes.LOAD:
                        columns = table[o, w.B]
                        at = table[o, w.A] + (offset + t) * (table[o, w.SIZE] // lanes) * columns
                        at += block * lanes if columns > lanes else 0
                        _gather(inputs, at, columns, lanes, 0, strip_x, table[o, w.SIZE])
                        a = spare if counting else to
                        b, c = a, a
                        if tier == codes.EXACT:
                            _copy(strip_x, ZERO, r, a, un)
                            kind = codes.ROUND
                    if kind >= w.FIRST_FUNCTION:
                        if half == 0:
                            left_out = np.int64(un)
                            if tier == codes.ODD and table[o, w.NUMBER] >= 0:
                                left_out = functions(
                                    kind, r, a, strip_x, function_table, _zeros(ints, row_, mode), left_open, un
                                )
                            if left_out > 0:
                                state[w.AT_BLOCK], state[w.AT_STEP], state[w.AT_LINE] = block, t, o
                                state[w.OPEN] = left_out
                                return o
                        half = 0
                        beyond = round_strip(mode, strip_x, r, to, un, ints, reals, row_, drawn, word, left, right)
                        if beyond > 0:
                            beyond -= repair(strip_x, r, to, un, reals[row_ * FLOATS + INFINITE])
                    elif kind == w.REMAINDER:
                        invalid = remainders(r, a, b, rests, un)
                        kind, a = codes.ROUND, rests
                        b, c = a, a
                        tier, beyond = perform(
                            kind, tier, mode, row_, r, strip_x, a, b, c, to, un, ints, reals, drawn, word, left, right
                        )
                        if counting and slot >= 0:
                            counts[EVENTS * slot + INVALID] += invalid
                    else:
                        tier, beyond = perform(
                            kind, tier, mode, row_, r, strip_x, a, b, c, to, un, ints, reals, drawn, word, left, right
                        )
                    if counting and slot >= 0:
                        count(
                            kind, slot, table[o, w.SWAMPED], tier, beyond, mode, row_, r, strip_x, strip_z, flags,
                            a, b, c, to, spare, spare + stride, un, ints, reals, drawn, word, left, right, counts,
                        )  # fmt: skip
        return w.DONE + sources - sources

    return execute


execute = _make(jit.SOURCES, False)
execute_counting = _make(jit.SOURCES, True)
