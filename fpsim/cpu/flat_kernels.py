"""The array functions' kernels: load, compute, round, store in one loop; one compilation for each
(operation, tier, mode, dtype), made when it is first needed and kept on disk.

All arguments are integers, so there is one signature. An operand begins at an address and advances by ``step`` blocks:
1, or 0 for a scalar, of which the caller provides a block of copies. Results that overwrite an operand go through a
block on the stack: where input and output overlap a loop is not vectorised.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import NAN, SIGN, ZERO, from_bits, to_bits
from fpsim.cpu.flat_memory import float64_at, floats_at, int64_at, put, stack, uint32_at
from fpsim.cpu.operation_elements import compute
from fpsim.cpu.random_words import fill_halves_of_blocks, fill_words_of_blocks
from fpsim.cpu.rounding_elements import (
    ADDED,
    INFINITY,
    LARGEST,
    draw_of,
    fixed_point,
    format_row,
    magnitude_within,
    rounded,
    special,
)
from fpsim.cpu.wide import operate

BLOCK = 1024  # elements of a block on the stack
_LOG_WORDS, _LOG_HALVES = np.uint64(8), np.uint64(9)  # elements that share the words of 64 counters
_MASK_WORDS, _MASK_HALVES = np.uint64(255), np.uint64(511)

double_room = stack(types.float64, BLOCK)
single_room = stack(types.float32, BLOCK)
word_room = stack(types.uint32, BLOCK)


@jit.inline
def _overflowed(x: float, result: float) -> float:
    """The result of an x beyond binary64 or NaN: an overflow has been rounded rightly, and there is one NaN."""
    return NAN if x != x or result != result else result


@jit.inline
def draws(words: Any, bits: int, first: int, count: Any, k0: Any, k1: Any) -> None:
    """The draws of a block of at most 1024 elements, in the upper bits of words."""
    if bits > 16:
        fill_words_of_blocks(words, np.uint64(first) >> _LOG_WORDS, (count + _MASK_WORDS) >> _LOG_WORDS, k0, k1)
    elif bits > 0:
        fill_halves_of_blocks(words, np.uint64(first) >> _LOG_HALVES, (count + _MASK_HALVES) >> _LOG_HALVES, k0, k1)


@cache
def flat(kind: int, tier: int, mode: int, single: bool) -> Any:
    """The kernel of an operation; ``single``: all arrays are float32 and not float64.

    The closure holds numbers only: they are part of the key of the cache on disk.
    """
    sources = jit.SOURCES
    width = 4 if single else 8
    arity = {codes.FMA: 3, codes.ROUND: 1, codes.SQRT: 1}.get(kind, 2)
    fixed = mode == codes.FIXED
    mode = codes.STOCHASTIC if fixed else mode
    random = codes.STOCHASTIC <= mode <= codes.STOCHASTIC_C

    @jit.entry
    def kernel(
        a: int, step_a: int, b: int, step_b: int, c: int, step_c: int, out: int, aliased: int, n: int,
        integers: int, floats: int, key0: int, key1: int, first: int, bits: int,
    ) -> int:  # fmt: skip
        """Elements first .. first + n - 1 of an array function; ``first`` is a multiple of 512.

        integers, floats : addresses of the format's row;  key0, key1 : the key;  bits : random bits
        """
        row = format_row(int64_at(integers), float64_at(floats), 0)
        infinity, top = row[INFINITY], to_bits(row[LARGEST])
        words = uint32_at(word_room())
        room = single_room() if single else double_room()
        none, right = ZERO, np.uint64(32 - bits)
        kept = np.uint32((0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF)
        one_zero = to_bits(row[ADDED]) == ZERO
        for start in range(0, n, BLOCK):
            count = np.uint64(min(BLOCK, n - start))
            offset = start * width
            u, v = floats_at(a + offset * step_a, width), floats_at(b + offset * step_b, width)
            w, target = floats_at(c + offset * step_c, width), floats_at(room if aliased else out + offset, width)
            if random:
                draws(words, bits, first + start, count, np.uint64(key0), np.uint64(key1))
            peak = ZERO
            for i in range(count):
                x = np.float64(u[i])
                y = np.float64(v[i]) if arity > 1 else x
                z = np.float64(w[i]) if arity > 2 else x
                value, _ = compute(kind, tier, mode, x, y, z)
                size = abs(value)
                peak = max(peak, to_bits(size))
                if fixed:
                    size = fixed_point(to_bits(value), row, words[i] & kept)
                elif mode != codes.BINARY64:
                    draw = draw_of(words[i], none, right) if random else ZERO
                    size = magnitude_within(mode, to_bits(value), row, draw)
                put(target, i, from_bits(to_bits(size) | (to_bits(value) & SIGN)))
            if one_zero:
                for i in range(count):
                    put(target, i, np.float64(target[i]) + row[ADDED])
            # What is not beyond the largest value is not rounded beyond it. Infinities and NaN have the larger bits.
            if peak > top:
                for i in range(count):
                    x = np.float64(u[i])
                    y = np.float64(v[i]) if arity > 1 else x
                    z = np.float64(w[i]) if arity > 2 else x
                    value, infinite = compute(kind, tier, mode, x, y, z)
                    draw = draw_of(words[i], none, right) if random else ZERO
                    result = value
                    if mode != codes.BINARY64:
                        result, _ = rounded(mode, value, row, draw)
                    put(target, i, special(value, result, infinity) if infinite else _overflowed(value, result))
            if aliased:
                to = floats_at(out + offset, width)
                for i in range(count):
                    to[i] = target[i]
        return sources

    return kernel


def _exact(single: bool) -> Any:
    sources = jit.SOURCES
    width = 4 if single else 8

    @jit.entry
    def kernel(
        kind: int, mode: int, a: int, step_a: int, b: int, step_b: int, c: int, step_c: int, out: int, n: int,
        integers: int, floats: int, key0: int, key1: int, first: int, bits: int,
    ) -> int:  # fmt: skip
        """The same in integer arithmetic, for every operation, format and mode; arguments as above."""
        ints, reals = int64_at(integers), float64_at(floats)
        words = uint32_at(word_room())
        right = np.uint64(32 - bits)
        for start in range(0, n, BLOCK):
            count = np.uint64(min(BLOCK, n - start))
            offset = start * width
            u, v = floats_at(a + offset * step_a, width), floats_at(b + offset * step_b, width)
            w, target = floats_at(c + offset * step_c, width), floats_at(out + offset, width)
            draws(words, bits, first + start, count, np.uint64(key0), np.uint64(key1))
            for i in range(count):
                draw = np.uint64(words[i]) >> right if bits > 0 else ZERO
                x, y, z = np.float64(u[i]), np.float64(v[i]), np.float64(w[i])
                put(target, i, operate(kind, x, y, z, mode, draw, ints, reals, 0)[0])
        return sources

    return kernel


@cache
def flat_exact(single: bool) -> Any:
    """The kernel of integer arithmetic: kind and mode first, then the arguments of ``flat`` but ``aliased``."""
    return _exact(single)


def _all_on_grid(width: int) -> Any:
    @jit.kernel
    def all_on_grid(a: Any, n: Any, integers: Any, floats: Any) -> Any:
        """Whether n numbers of this width are finite and numbers of a format of ``format_table.fast``."""
        row = format_row(int64_at(integers), float64_at(floats), 0)
        top = to_bits(row[LARGEST])
        x = floats_at(a, width)
        moved, peak = ZERO, ZERO
        for i in range(np.uint64(n)):
            size = to_bits(abs(np.float64(x[i])))
            moved = moved | (to_bits(magnitude_within(codes.NEAREST_EVEN, size, row, ZERO)) ^ size)
            peak = max(peak, size)
        return moved == ZERO and peak <= top

    return all_on_grid


singles_on_grid, doubles_on_grid = _all_on_grid(4), _all_on_grid(8)


def _on_grid() -> Any:
    sources = jit.SOURCES

    @jit.entry
    def kernel(a: int, n: int, integers: int, floats: int) -> bool:
        """``doubles_on_grid``, for Python."""
        return doubles_on_grid(a, n, integers, floats) and sources >= 0

    return kernel


on_grid = _on_grid()
