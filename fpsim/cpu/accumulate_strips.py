"""Sums of products on strips of results, in every order, mode and tier: the general path.

A strip is up to 256 neighbouring elements of one row of the result. Step k multiplies one number of the left matrix
with a strip of row k of the right one, and adds; every operation is ``perform`` on strips, so its tier decides how.
What each order does, and where its random bits lie, stands in ``fpsim.accumulator``.

The registers are rows of one strip each in one flat array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.accumulator import CORRECTION, DIFFERENCE, MASTER, PRODUCT, SUM, TERM
from fpsim.cpu import codes, jit
from fpsim.cpu.bits import ZERO, pointer
from fpsim.cpu.perform import perform
from fpsim.cpu.random_words import fill_words

SEQUENTIAL, PAIRWISE, BLOCKED, KAHAN = range(4)
# Columns of the plan, one row for each slot; the last three say where a draw lies among the words of its counter.
KIND, TIER, MODE, ROW, WORD, LEFT, RIGHT = range(7)
PLAN = 7
SLOTS = 5
STRIP = 256
# Rows: a number of the left matrix, a strip of the right one, products, the sum s, M or y, u, c; then a stack of trees.
ROWS = 7
_STRIP = np.uint64(STRIP)
_SHIFT_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@jit.kernel
def _copy(source: Any, a: Any, registers: Any, d: Any, n: Any) -> None:
    for i in range(n):
        registers[d + i] = source[a + i]


@jit.kernel
def _fill(registers: Any, d: Any, value: float, n: Any) -> None:
    for i in range(n):
        registers[d + i] = value


@jit.merge
def _operate(slot: int, machine: Any, a: Any, b: Any, c: Any, d: Any, n: Any) -> None:
    """One rounded operation of a slot on one strip."""
    registers, x, integers, floats, words, plan = machine
    at = slot * PLAN
    perform(
        plan[at + KIND], plan[at + TIER], plan[at + MODE], plan[at + ROW], registers, x, a, b, c, d, n, integers,
        floats, words, np.uint64(plan[at + WORD]) * _STRIP, np.uint64(plan[at + LEFT]), np.uint64(plan[at + RIGHT]),
    )  # fmt: skip


@jit.kernel
def _draw(machine: Any, random: Any, counters: Any, zeros: Any, step: int, n: Any) -> None:
    """The words of one step, four rows for each group of slots."""
    _, _, _, _, words, _ = machine
    groups, key0, key1 = random
    time = np.uint64(step)
    for group in range(groups):
        high = group + ((time >> _SHIFT_32) << np.uint64(16))
        fill_words(words, np.uint64(4) * group * _STRIP, _STRIP, counters, time & _LOW, zeros, high, key0, key1, n)


@jit.merge
def _is_random(plan: Any, slot: int) -> Any:
    mode = plan[slot * PLAN + MODE]
    return codes.STOCHASTIC <= mode <= codes.STOCHASTIC_C


@jit.merge
def _kahan(machine: Any, s: Any, term: Any, n: Any) -> None:
    """One step; behind s lie y, u and c. The row of s holds d for a while."""
    y, u, c = s + _STRIP, s + _STRIP + _STRIP, s + np.uint64(3) * _STRIP
    _operate(TERM, machine, term, c, c, y, n)
    _operate(SUM, machine, s, y, y, u, n)
    _operate(DIFFERENCE, machine, u, s, s, s, n)
    _operate(CORRECTION, machine, s, y, y, c, n)
    _copy(machine[0], u, machine[0], s, n)


@jit.merge
def _join(machine: Any, random: Any, counters: Any, zeros: Any, top: Any, middle: int, n: Any) -> Any:
    """The two trees on top of the stack become one; ``middle`` is the first term of the upper. Returns the new top."""
    below = top - _STRIP
    if _is_random(machine[5], SUM):
        _draw(machine, random, counters, zeros, middle, n)
    _operate(SUM, machine, below, top, top, below, n)
    return below


def _make(sources: int) -> Any:
    @jit.entry
    def accumulate(
        registers: Any,
        x: Any,
        words: Any,
        counters: Any,
        zeros: Any,
        left: Any,
        right: Any,
        out: Any,
        plan: Any,
        integers: Any,
        floats: Any,
        order: int,
        fused: int,
        terms: int,
        block: int,
        groups: Any,
        key0: Any,
        key1: Any,
        element: int,
        row_step: int,
        column_step: int,
        first_row: int,
        last_row: int,
        first_column: int,
        last_column: int,
    ) -> int:
        """out[i, j] = sum over k of left[i, k] * right[k, j], or of right[k, j] where ``left`` has no columns.

        Computed for first_row <= i < last_row and first_column <= j < last_column.
        registers : float64, rows;  x : a strip;  out : [rows, columns];  fused : whether by fma
        words : uint32 [4 * groups * STRIP];  counters, zeros : uint64 [STRIP];  plan : int64 [SLOTS * PLAN]
        element, row_step, column_step : the element number of out[i, j] is element + i row_step + j column_step
        """
        r = pointer(registers)
        machine = (r, pointer(x), pointer(integers), pointer(floats), pointer(words), pointer(plan))
        random = (groups, key0, key1)
        columns = out.shape[1]
        b, results = pointer(right), pointer(out)
        operand, loaded, product = ZERO, _STRIP, _STRIP + _STRIP
        s = product + _STRIP
        total, stack = s + _STRIP, np.uint64(ROWS) * _STRIP
        tree = order == PAIRWISE and terms > 1
        for i in range(first_row, last_row):
            for first in range(first_column, last_column, STRIP):
                n = np.uint64(min(STRIP, last_column - first))
                for j in range(n):
                    counters[j] = np.uint64(element + i * row_step + (first + np.int64(j)) * column_step)
                for row in range(4):
                    _fill(r, s + np.uint64(row) * _STRIP, 0.0, n)
                top = stack - _STRIP
                for k in range(terms):
                    _draw(machine, random, counters, zeros, k, n)
                    term = loaded
                    _copy(b, np.uint64(k * columns + first), r, term, n)
                    if left.shape[1] > 0:
                        _fill(r, operand, left[i, k], n)
                        if fused == 0:
                            _operate(PRODUCT, machine, operand, term, term, product, n)
                            term = product
                    if order == KAHAN:
                        _kahan(machine, s, term, n)
                    elif tree:
                        top += _STRIP
                        _copy(r, term, r, top, n)
                        size = 1  # of the two trees on top, as long as they are equal
                        while (k + 1) & size == 0:
                            top = _join(machine, random, counters, zeros, top, k + 1 - size, n)
                            size += size
                    elif fused != 0:
                        _operate(SUM, machine, operand, term, s, s, n)
                    else:
                        _operate(SUM, machine, s, term, term, s, n)
                    if order == BLOCKED and ((k + 1) % block == 0 or k + 1 == terms):
                        if _is_random(machine[5], MASTER):
                            _draw(machine, random, counters, zeros, k // block, n)
                        _operate(MASTER, machine, total, s, s, total, n)
                        _fill(r, s, 0.0, n)
                size = 0  # of the tree on top: the smallest are joined first
                while tree and top > stack:
                    rest = terms - size
                    size += rest & -rest
                    top = _join(machine, random, counters, zeros, top, terms - size, n)
                result = stack if tree else total if order == BLOCKED else s
                _copy(r, result, results, np.uint64(i * columns + first), n)
        return sources

    return accumulate


accumulate = _make(jit.SOURCES)
