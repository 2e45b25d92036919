"""Sums of products on the CPU: the plan of an accumulator, and which path computes it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.accumulator import CORRECTION, DIFFERENCE, MASTER, PRODUCT, SUM, TERM, Accumulator
from fpsim.cpu import accumulate_nearest as fused
from fpsim.cpu import accumulate_strips as strips
from fpsim.cpu import codes, jit, threads
from fpsim.cpu.bits import EXPONENT, MAGNITUDE, ONE, ZERO, pointer, to_bits
from fpsim.cpu.lower import Formats
from fpsim.cpu.tiers import Range
from fpsim.number_format import Format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic, random_bits

Matrix = npt.NDArray[np.float64]

_ORDERS = {
    "sequential": strips.SEQUENTIAL,
    "pairwise": strips.PAIRWISE,
    "blocked": strips.BLOCKED,
    "kahan": strips.KAHAN,
}
# Multiply-adds of a piece of work that a thread takes at a time, some 0.1 to 2 ms; pieces are whole rows, or columns in
# whole strips where there are few rows.
PIECE = 1 << 20
_MANY_ROWS = 16
_WIDTH = 512
_SHORT_BLOCK = 4  # terms: with fewer, adding up the blocks takes longer than the general path
_TILE = 16  # rows and columns of a tile that is transposed in the first-level cache
_FRACTION = np.uint64((1 << 52) - 1)


def contract(
    left: Matrix,
    right: Matrix,
    accumulator: Accumulator,
    key: Key | None,
    element: int,
    steps: tuple[int, int],
    out: Matrix,
) -> None:
    """out[i, j] = sum over k of left[i, k] right[k, j], or of right[k, j] where ``left`` has no columns.

    All are C-contiguous. The random bits of out[i, j] are those of element ``element + i steps[0] + j steps[1]``.
    """
    terms = right.shape[0]
    if terms == 0 or out.size == 0:
        out[:] = 0.0
        return
    a, b = Measured.of(left), Measured.of(right)
    nearest = _nearest(left, right, accumulator, a, b)
    if nearest is None:
        general(left, right, accumulator, key, element, steps, out, a.range, b.range)
        return
    kind, left, plan, integers, floats = nearest
    block = accumulator.block or terms
    for start in range(0, terms, block):
        part = out if accumulator.order == "sequential" else np.empty_like(out)
        part[:] = 0.0
        rows = int(plan[PRODUCT, strips.ROW]), int(plan[SUM, strips.ROW])
        factor = left if block >= terms else np.ascontiguousarray(left[:, start : start + block])
        some = right[start : start + block]
        _in_pieces(functools.partial(fused.accumulate, kind, factor, some, part, integers, floats, *rows), part, some)
        if accumulator.order == "blocked":
            _add_block(out, part, start == 0, accumulator)
    out[np.isnan(out)] = np.nan  # one NaN


def _nearest(left: Matrix, right: Matrix, accumulator: Accumulator, a: Measured, b: Measured) -> Any:
    """(variant, left, plan, integers, floats) where ``accumulate_nearest`` computes the same; None where not."""
    master, rounding = accumulator.master_slot
    if accumulator.order not in ("sequential", "blocked") or a.special or b.special:
        return None
    if not master.ordinary or isinstance(rounding, Stochastic) or (accumulator.block or _SHORT_BLOCK) < _SHORT_BLOCK:
        return None
    if left.shape[1] == 0:
        fmt = accumulator.sum_slot[0]
        if not b.on_grid(fmt):
            return None
        # Numbers of the sum's format are their own products with 1, rounded to it.
        accumulator = dataclasses.replace(accumulator, product=fmt, product_rounding="nearest_even", fma=False)
        left = np.ones((1, right.shape[0]))
        a = Measured.of(left)
    if accumulator.product_slot is None:
        return None
    plan, (integers, floats) = planned(accumulator, True, a.range, b.range)
    for slot in (PRODUCT, SUM):
        if plan[slot, strips.TIER] != codes.PLAIN or plan[slot, strips.MODE] != codes.NEAREST_EVEN:
            return None
    low, slots = a.range.low + b.range.low, (accumulator.product_slot[0], accumulator.sum_slot[0])
    kind = fused.variant(left, right, a.largest, b.largest, low, *slots)
    return None if kind is None else (kind, left, plan, integers.reshape(-1), floats.reshape(-1))


def _add_block(out: Matrix, part: Matrix, first: bool, accumulator: Accumulator) -> None:
    """M = rd(M + S_j), as a sum of two terms: rd(+0 + M) is M again, for M is a number of its format."""
    if first:
        out[:] = 0.0
    pair = np.stack([out.reshape(-1), part.reshape(-1)])
    nothing = np.empty((1, 0))
    sums = [Range.of_format(fmt) for fmt in (accumulator.master_slot[0], accumulator.sum_slot[0])]
    master = Accumulator.uniform(*accumulator.master_slot)
    general(nothing, pair, master, None, 0, (0, 1), out.reshape(1, -1), sums[0], _either(*sums))


def general(
    left: Matrix,
    right: Matrix,
    accumulator: Accumulator,
    key: Key | None,
    element: int,
    steps: tuple[int, int],
    out: Matrix,
    a: Range,
    b: Range,
) -> None:
    """The general path: every order and mode, operands of any range."""
    terms = right.shape[0]
    plan, (integers, floats) = planned(accumulator, left.shape[1] > 0, a, b)
    stack = terms.bit_length() + 1 if accumulator.order == "pairwise" else 0
    drawn = accumulator.drawn_bits(left.shape[1] > 0)
    last = element + (out.shape[0] - 1) * steps[0] + (out.shape[1] - 1) * steps[1]
    if drawn and last >= 1 << 32:
        raise ValueError(f"a result of {last + 1} elements; stochastic roundings have random bits for 2^32")
    groups = 0 if drawn == 0 else 2 if accumulator.order == "kahan" and drawn > 16 else 1
    k0, k1 = (key.k0, key.k1) if key else (0, 0)
    zeros = np.zeros(strips.STRIP, dtype=np.uint64)

    def work(*place: int) -> None:
        registers, x = np.empty((strips.ROWS + stack) * strips.STRIP), np.empty(strips.STRIP)
        words, counters = np.empty(4 * max(groups, 1) * strips.STRIP, dtype=np.uint32), np.empty_like(zeros)
        strips.accumulate(
            registers, x, words, counters, zeros, left, right, out, plan.reshape(-1), integers, floats,
            _ORDERS[accumulator.order], int(accumulator.fma and left.shape[1] > 0), terms, accumulator.block or 1,
            np.uint64(groups), np.uint64(k0), np.uint64(k1), element, *steps, *place,
        )  # fmt: skip

    _in_pieces(work, out, right)


def _in_pieces(work: Callable[..., object], out: Matrix, right: Matrix) -> None:
    """``work(first_row, last_row, first_column, last_column)`` for parts of ``out``, in threads where that pays."""
    rows, columns = out.shape

    def of_rows(start: int, stop: int) -> None:
        work(start, stop, 0, columns)

    def of_columns(start: int, stop: int) -> None:
        work(0, rows, start, stop)

    if rows * right.size < 2 * PIECE:
        of_rows(0, rows)
    elif rows >= _MANY_ROWS:
        threads.in_pieces(of_rows, rows, max(1, PIECE // right.size))
    else:
        width = PIECE // (rows * right.shape[0]) // _WIDTH * _WIDTH
        threads.in_pieces(of_columns, columns, max(_WIDTH, width))


@functools.lru_cache(maxsize=256)  # making it takes longer than a small product
def planned(accumulator: Accumulator, products: bool, a: Range, b: Range) -> Any:
    """The plan and the format tables, for operands of the ranges ``a`` and ``b``, or terms of the range ``b``.

    Whoever asks for the same gets the same arrays, which are not to be written.
    """
    formats = Formats()
    plan = np.zeros((strips.SLOTS, strips.PLAN), dtype=np.int64)
    drawn = accumulator.drawn_bits(products)

    def decide(number: int, kind: str, operands: list[Range], slot: tuple[Any, Rounding]) -> None:
        fmt, mode = slot
        plan[number, : strips.WORD] = codes.KINDS[kind], *formats.decide(kind, operands, fmt, mode)
        plan[number, strips.WORD :] = _place(number, drawn, random_bits(mode))

    sum_slot, master_slot = accumulator.sum_slot, accumulator.master_slot
    running, term = Range.of_format(sum_slot[0]), b
    if products and accumulator.product_slot is not None:
        decide(PRODUCT, "mul", [a, b], accumulator.product_slot)
        term = Range.of_format(accumulator.product_slot[0])
    if products and accumulator.fma:
        decide(SUM, "fma", [a, b, running], sum_slot)
    elif accumulator.order == "pairwise":
        node = _either(running, term)
        decide(SUM, "add", [node, node], sum_slot)
    elif accumulator.order == "kahan":
        decide(TERM, "sub", [term, running], sum_slot)
        for number, kind in ((SUM, "add"), (DIFFERENCE, "sub"), (CORRECTION, "sub")):
            decide(number, kind, [running, running], sum_slot)
    else:
        decide(SUM, "add", [running, term], sum_slot)
    if accumulator.order == "blocked":
        decide(MASTER, "add", [Range.of_format(master_slot[0]), running], master_slot)
    return plan, formats.tables()


def _place(slot: int, drawn: int, bits: int) -> tuple[int, int, int]:
    """Word and shifts of a draw as ``random_bits.program_draw`` numbers slots: (word, left, right)."""
    if drawn <= 16:
        return slot >> 1, 16 if slot & 1 == 0 else 0, 32 - bits
    return slot, 0, 32 - bits


def _either(a: Range, b: Range) -> Range:
    return Range(max(a.precision, b.precision), min(a.low, b.low), max(a.high, b.high), min(a.lsb, b.lsb))


@dataclass(frozen=True)
class Measured:
    """What an array holds: the range and the largest magnitude of its finite numbers, and how many are not finite."""

    range: Range
    largest: float
    special: int

    @classmethod
    def of(cls, values: Matrix) -> Measured:
        low, high, fraction, special = (int(x) for x in _measure(values.reshape(-1)))
        largest = float(np.uint64(high).view(np.float64))
        if high == 0:
            return cls(Range(1, 0, 0, 0), 0.0, special)
        if low < 1 << 52:
            return cls(Range(53, -1074, 1023, -1074), largest, special)
        precision = 1 if fraction == 0 else 53 - ((fraction & -fraction).bit_length() - 1)
        smallest = (low >> 52) - 1023
        # The lowest bit is bounded by the smallest exponent and the longest significand.
        return cls(Range(precision, smallest, (high >> 52) - 1023, smallest - precision + 1), largest, special)

    def on_grid(self, fmt: Format) -> bool:
        """Whether the numbers are known to be numbers of the format."""
        fits = self.range.precision <= fmt.precision and self.range.lsb >= fmt.emin - fmt.mantissa_bits
        return fmt.ordinary and fits and self.special == 0 and self.largest <= fmt.max


def _make(sources: int) -> Any:
    @jit.entry
    def measure(values: Any) -> Any:
        """Bits of the smallest nonzero and largest finite magnitude, all fraction bits, and how many are not finite."""
        x = pointer(values)
        low, high, fraction, special = MAGNITUDE, ZERO, ZERO, 0
        for i in range(np.uint64(len(values))):
            magnitude = to_bits(x[i]) & MAGNITUDE
            special += int(magnitude >= EXPONENT)
            finite = magnitude if magnitude < EXPONENT else ZERO
            low = min(low, (finite - ONE) & MAGNITUDE)  # zero wraps to the top
            high = max(high, finite)
            fraction |= finite & _FRACTION
        return low + ONE, high, fraction, special + sources - sources

    return measure


def matrix(values: npt.NDArray[np.float64]) -> Matrix:
    """C-contiguous; a transposed matrix is copied tile by tile, which is several times faster than row by row."""
    if values.ndim != 2 or values.flags.c_contiguous or not values.flags.f_contiguous:
        return np.ascontiguousarray(values)
    result = np.empty(values.shape)
    _transpose(values.T, result)
    return result


def _make_transpose(sources: int) -> Any:
    @jit.entry
    def transpose(source: Any, target: Any) -> int:
        rows, columns = target.shape
        for top in range(0, rows, _TILE):
            for first in range(0, columns, _TILE):
                for i in range(top, min(rows, top + _TILE)):
                    for j in range(first, min(columns, first + _TILE)):
                        target[i, j] = source[j, i]
        return sources

    return transpose


_measure, _transpose = _make(jit.SOURCES), _make_transpose(jit.SOURCES)
