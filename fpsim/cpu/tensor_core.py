"""The model of ``fpsim.tensor_core`` on strips of results.

A step needs two looks at its products: the first finds the largest exponent E, the second cuts every term to a multiple
of 2^(E - F), F fraction bits. All of it is exact in binary64 and 64-bit integers: operands have at most 11 bits, their
products lie in 2^-266..2^256; terms times 2^(F - E) are below 2^(F + 2) <= 2^27, their integer parts add up to less
than 2^33, and E is in -133..257.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.cpu import codes, jit, threads
from fpsim.cpu.accumulate import PIECE
from fpsim.cpu.bits import EXPONENT, ZERO, from_bits, pointer, to_bits
from fpsim.cpu.format_table import tables
from fpsim.cpu.jit import inline, kernel
from fpsim.cpu.rounding_elements import element, format_row, special
from fpsim.number_format import Format
from fpsim.tensor_core import TensorCore, multiply_accumulate

Matrix = npt.NDArray[np.float64]

_STRIP = 256
_NEVER = -(1 << 20)  # the exponent of a zero, which no term undercuts
_HALF_ORDER = np.array([k for pair in ((0, 1), (2, 3)) for k in range(32) if k % 4 in pair])


def contract(left: Matrix, right: Matrix, core: TensorCore, out: Matrix) -> None:
    """out = left @ right as the instructions compute it; all C-contiguous, operands in their format."""
    rows, terms = left.shape
    whole = -(-terms // core.terms) * core.terms
    a, b = np.zeros((rows, whole)), np.zeros((whole, right.shape[1]))
    a[:, :terms], b[:terms] = left, right
    if core.halves:
        order = (np.arange(0, whole, 32)[:, np.newaxis] + _HALF_ORDER).reshape(-1)
        a, b = np.ascontiguousarray(a[:, order]), b[order]
    integers, floats = tables([(core.output, 0)])
    step = 16 if core.halves else core.terms
    numbers = integers.reshape(-1), floats.reshape(-1)
    of_a, of_b = (_exponents(x, fmt) for x, fmt in zip((a, b), core.operands, strict=True))

    def work(i: int, j: int) -> None:
        multiply(
            a[i:j], b, of_a[i:j], of_b, out[i:j], step, int(core.halves), core.fraction, core.floor, core.result.emin,
            int(core.rounding == "nearest_even"), *numbers, np.empty(3 * _STRIP), np.empty(2 * _STRIP, dtype=np.int64),
        )  # fmt: skip

    if rows * b.size < 2 * PIECE:
        work(0, rows)
    else:
        threads.in_pieces(work, rows, max(1, PIECE // b.size))
    finite = np.isfinite(left).all(axis=1, keepdims=True) & np.isfinite(right).all(axis=0)
    nan = np.isnan(left).any(axis=1, keepdims=True) | np.isnan(right).any(axis=0)
    out[nan] = np.nan  # a NaN in any step stays; infinities depend on what the steps before came to
    for i, j in np.argwhere(~(finite | nan)):
        out[i, j] = multiply_accumulate(core, left[i].tolist(), right[:, j].tolist())


def _exponents(x: Matrix, fmt: Format) -> npt.NDArray[np.int64]:
    finite = np.where(np.isfinite(x), x, 0.0)
    return np.where(finite == 0.0, _NEVER, np.maximum(np.frexp(finite)[1] - 1, fmt.emin)).astype(np.int64)


_even, _zero = element(codes.NEAREST_EVEN), element(codes.TOWARD_ZERO)


@inline
def _power(e: Any) -> Any:
    return from_bits(np.uint64(e + 1023) << np.uint64(52))


@kernel
def _largest(value: int, exponents: Any, at: Any, top: Any, n: Any) -> None:
    for j in range(n):
        top[j] = max(top[j], value + exponents[at + j])


@kernel
def _add(value: float, right: Any, at: Any, scale: Any, total: Any, n: Any) -> None:
    for j in range(n):
        total[j] += np.int64(value * right[at + j] * scale[j])


@kernel
def _begin(c: Any, top: Any, floor: int, emin: int, n: Any) -> None:
    """The exponents of C."""
    for j in range(n):
        e = max(np.int64((to_bits(c[j]) & EXPONENT) >> np.uint64(52)) - 1023, emin)
        top[j] = max(e if c[j] != 0.0 else floor, floor)


@kernel
def _start(c: Any, top: Any, scale: Any, total: Any, fraction: int, n: Any) -> None:
    for j in range(n):
        scale[j] = _power(fraction - top[j])
        total[j] = np.int64(c[j] * scale[j])


@kernel
def _finish(c: Any, top: Any, total: Any, fraction: int, even: int, row: Any, n: Any) -> None:
    for j in range(n):
        x = np.float64(total[j]) * _power(top[j] - fraction)
        y, over = _even(x, row, ZERO) if even != 0 else _zero(x, row, ZERO)
        beyond = -np.inf if x < 0.0 else np.inf
        y = beyond if over else y
        c[j] = c[j] if abs(c[j]) == np.inf else y


@kernel
def _add_last(c: Any, part: Any, row: Any, n: Any) -> None:
    for j in range(n):
        x = part[j] + c[j]
        y, _ = _even(x, row, ZERO)
        c[j] = special(x, y, np.inf)


def _make(sources: int) -> Any:
    @jit.entry
    def multiply(
        left: Any,
        right: Any,
        left_exponents: Any,
        right_exponents: Any,
        out: Any,
        step: int,
        halves: int,
        fraction: int,
        floor: int,
        emin: int,
        even: int,
        integers: Any,
        floats: Any,
        reals: Any,
        wholes: Any,
    ) -> int:
        """``step`` terms at a time; with ``halves`` two steps from 0, then C is added.

        reals, wholes : three rows of float64 and two of int64, of a strip each
        """
        rows, terms = left.shape
        columns = right.shape[1]
        r, er = pointer(right), pointer(right_exponents)
        row = format_row(pointer(integers), pointer(floats), 0)
        c, part, scale = pointer(reals), pointer(reals[_STRIP:]), pointer(reals[2 * _STRIP :])
        top, total = pointer(wholes), pointer(wholes[_STRIP:])
        for i in range(rows):
            for first in range(0, columns, _STRIP):
                n = np.uint64(min(_STRIP, columns - first))
                for j in range(n):
                    c[j] = 0.0
                    part[j] = 0.0
                for begins in range(0, terms, step):
                    summed = part if halves != 0 else c
                    _begin(summed, top, floor, emin, n)
                    for k in range(begins, begins + step):
                        _largest(left_exponents[i, k], er, np.uint64(k * columns + first), top, n)
                    _start(summed, top, scale, total, fraction, n)
                    for k in range(begins, begins + step):
                        _add(left[i, k], r, np.uint64(k * columns + first), scale, total, n)
                    _finish(summed, top, total, fraction, even, row, n)
                    if halves != 0 and begins // step % 2 == 1:
                        _add_last(c, part, row, n)
                        for j in range(n):
                            part[j] = 0.0
                for j in range(n):
                    out[i, first + np.int64(j)] = c[j]
        return sources

    return multiply


multiply = _make(jit.SOURCES)
