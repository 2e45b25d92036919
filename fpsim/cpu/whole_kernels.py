"""Kernels for lines that move or select numbers, and for the functions that the machine computes itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import elementary_exponential as exponential
from fpsim.cpu import whole_codes as w
from fpsim.cpu.bits import NAN, ONE, ZERO, to_bits
from fpsim.cpu.elementary_double import LARGEST, SMALLEST
from fpsim.cpu.jit import inline, kernel
from fpsim.cpu.prepared_kernels import _far_remainder, _near_remainder

_SEAM = 2.0**50


@inline
def place_of(details: Any, view: int, block: int, i0: int, i1: int, i2: int, i3: int) -> Any:
    """Where the element of a view is, without its lane and without what an index picks."""
    return (
        details[view + w.BASE] + block * details[view + w.PER_BLOCK]
        + i0 * details[view + w.STRIDES] + i1 * details[view + w.STRIDES + 1]
        + i2 * details[view + w.STRIDES + 2] + i3 * details[view + w.STRIDES + 3]
    )  # fmt: skip


@inline
def index_of(registers: Any, details: Any, view: int, block: int, position: int, lanes: int) -> Any:
    """Where the index of a position on the indexed axis is, for lane 0."""
    step = lanes if details[view + w.INDEX_LANES] != 0 else 1
    return details[view + w.INDEX] + block * details[view + w.INDEX_BLOCK] + position * step


@kernel
def fetch(
    registers: Any, details: Any, view: int, block: int, i0: int, i1: int, i2: int, i3: int, lanes: int, to: Any
) -> None:
    """The element of a view for all lanes, to ``to`` and behind it."""
    at = place_of(details, view, block, i0, i1, i2, i3)
    own = details[view + w.LANES]
    axis = details[view + w.INDEXED]
    if axis >= 0:
        position = i0 if axis == 0 else i1 if axis == 1 else i2 if axis == 2 else i3
        picks = index_of(registers, details, view, block, position, lanes)
        per_lane, stride = details[view + w.INDEX_LANES], details[view + w.INDEX_STRIDE]
        for lane in range(lanes):
            picked = np.int64(registers[np.uint64(picks + lane * per_lane)])
            registers[to + np.uint64(lane)] = registers[np.uint64(at + picked * stride + lane * own)]
    elif own != 0:
        start = np.uint64(at)
        for lane in range(np.uint64(lanes)):
            registers[to + lane] = registers[start + lane]
    else:
        value = registers[np.uint64(at)]
        for lane in range(np.uint64(lanes)):
            registers[to + lane] = value


@kernel
def _pick_rows(registers: Any, details: Any, at: int, block: int, lanes: int, to: Any) -> None:
    """``spread`` where all lanes pick the same along the last axis, each from its own array."""
    view = at + w.AXES
    for i0 in range(details[at]):
        for i1 in range(details[at + 1]):
            for i2 in range(details[at + 2]):
                start = place_of(details, view, block, i0, i1, i2, 0)
                picks = index_of(registers, details, view, block, 0, lanes)
                for i3 in range(details[at + 3]):
                    source = start + np.int64(registers[np.uint64(picks + i3)]) * details[view + w.INDEX_STRIDE]
                    for lane in range(np.uint64(lanes)):
                        registers[to + lane] = registers[np.uint64(source) + lane]
                    to += np.uint64(lanes)


@kernel
def spread(registers: Any, details: Any, at: int, block: int, lanes: int, to: Any) -> None:
    """A view written out: what is broadcast, shared by the lanes, or picked by an index."""
    view = at + w.AXES
    if details[view + w.INDEXED] == w.AXES - 1 and details[view + w.INDEX_LANES] == 0 and details[view + w.LANES] != 0:
        _pick_rows(registers, details, at, block, lanes, to)
        return
    for i0 in range(details[at]):
        for i1 in range(details[at + 1]):
            for i2 in range(details[at + 2]):
                for i3 in range(details[at + 3]):
                    fetch(registers, details, view, block, i0, i1, i2, i3, lanes, to)
                    to += np.uint64(lanes)


@kernel
def less(registers: Any, a: Any, b: Any, to: Any, n: Any) -> None:
    for i in range(n):
        registers[to + i] = 1.0 if registers[a + i] < registers[b + i] else 0.0


@kernel
def select(registers: Any, condition: Any, a: Any, b: Any, to: Any, n: Any) -> None:
    for i in range(n):
        registers[to + i] = registers[b + i] if registers[condition + i] == 0.0 else registers[a + i]


@kernel
def remainders(registers: Any, a: Any, b: Any, to: Any, n: Any) -> int:
    """a rem b, which is exact. Returns how many results are NaN although no operand is."""
    invalid = 0
    for i in range(n):
        x, y = registers[a + i], registers[b + i]
        q = x / y
        near = (abs(q) < _SEAM) & (abs(y) < np.inf)
        rest = _near_remainder(x, y, q) if near else _far_remainder(x, y)
        invalid += int(rest != rest and x == x and y == y)
        registers[to + i] = NAN if rest != rest else rest
    return invalid


@inline
def _decided(y: float, known: bool, zeros: Any) -> Any:
    """Whether rounding may take y for the exact result although ``settle`` did not decide which odd number that is.

    ``zeros`` is a mask of the last bits that numbers of the asked precision do not have, at least two. Where an element
    is not known, y is the number h or a neighbour of it, and the exact result is within 2^-60 of its size of h: between
    the neighbours of y but for that. If neither y nor its neighbours have these bits zero, none of them, and no number
    that is asked for, is as near as the exact result, and both are on the same side of each.
    """
    bits = to_bits(y)
    size = abs(y)
    inside = (size > 2.0 * SMALLEST) & (size < 0.5 * LARGEST)
    apart = ((bits & zeros) != ZERO) & (((bits - ONE) & zeros) != ZERO) & (((bits + ONE) & zeros) != ZERO)
    return known | (inside & apart)


@kernel
def functions(kind: int, registers: Any, a: Any, x: Any, table: Any, zeros: Any, open_ones: Any, n: Any) -> int:
    """exp, tanh or sigmoid to odd, in ``x``; returns how many elements are left open, whose numbers are listed.

    The errors of these kernels, relative to the result, are below 2^-62 (``elementary_exponential``).
    """
    count = 0
    for i in range(np.int64(n)):
        u = registers[a + np.uint64(i)]
        if kind == w.SIGMOID:
            y, known = exponential.sigmoid(u, table)
        elif kind == w.TANH:
            y, known = exponential.tanh(u, table)
        else:
            y, known = exponential.exp(u, table)
        x[i] = y
        open_ones[count] = i
        count += 0 if _decided(y, known, zeros) else 1
    return count
