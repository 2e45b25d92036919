"""Operation and rounding of a strip in one loop: the frequent operations, tiers and modes of the machine.

A kernel reads operand strips at ``a`` and ``b`` of the registers and writes ``n`` rounded results to ``target[d:]``,
which is no part of the operands: where input and output overlap a loop is not vectorised. It returns what tells whether
its results are final,

    peak    the largest bit pattern of the rounded magnitudes. Where it is at most that of the format's largest value,
            nothing overflowed and nothing is infinite or NaN: those have larger patterns.
    least   the smallest of (pattern of |x|) - 1, x the result before rounding; a zero wraps to the top. Where it is not
            below (pattern of 2^emin) - 1 no nonzero x is below 2^emin, so nothing underflowed. Only where it is asked
            for, ZERO otherwise.

Otherwise the caller computes the strip once more with the kernels of ``perform``, which repair and count.

The tier CUT (see operation_elements) stands in for ODD in the modes that only cut: it leaves the same floor, and the same
peak and order against 2^emin, which is a number of 53 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import MAGNITUDE, ONE, SIGN, ZERO, from_bits, to_bits
from fpsim.cpu.format_table import FLOATS, INTEGERS, MAX, NORMAL
from fpsim.cpu.operation_elements import compute
from fpsim.cpu.perform import perform, settled_tier
from fpsim.cpu.rounding_elements import ADDED, draw_of, format_row, magnitude

MODES = (codes.NEAREST_EVEN, codes.TOWARD_ZERO, codes.STOCHASTIC)


@jit.inline
def _loop(
    kind: int, tier: int, mode: int, watched: bool, registers: Any, a: Any, b: Any, flip: Any, target: Any, d: Any,
    n: Any, integers: Any, floats: Any, row: int, words: Any, first: Any, left: Any, right: Any,
) -> Any:  # fmt: skip
    """The loop; kind, tier and mode are constants where it is called. ``flip``: the sign bit makes a sum a - b."""
    numbers = format_row(integers, floats, row)
    peak, least = ZERO, MAGNITUDE
    for i in range(n):
        u = registers[a + i]
        v = u if kind == codes.SQRT else registers[b + i]
        if kind == codes.ADD:
            v = from_bits(to_bits(v) ^ flip)
        x, _ = compute(kind, tier, mode, u, v, v)
        bits = to_bits(x)
        draw = draw_of(words[first + i], left, right) if mode == codes.STOCHASTIC else ZERO
        size = magnitude(mode, bits, numbers, draw)
        peak = max(peak, to_bits(size))
        if watched:
            least = min(least, (bits & MAGNITUDE) - ONE)
        target[d + i] = from_bits(to_bits(size) | (bits & SIGN)) + numbers[ADDED]
    return peak, least


def _of_mode(mode: int, watched: bool) -> Any:
    """The loops of one mode."""
    precise = codes.ODD if mode == codes.NEAREST_EVEN else codes.CUT

    @jit.kernel
    def fused(
        kind: int, tier: int, r: Any, a: Any, b: Any, x: Any, d: Any, n: Any, ints: Any, reals: Any, row: int,
        w: Any, first: Any, left: Any, right: Any,
    ) -> Any:  # fmt: skip
        flip = SIGN if kind == codes.SUB else ZERO
        if tier == codes.PLAIN:
            if kind == codes.MUL:
                return _loop(
                    codes.MUL, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
                )
            if kind == codes.DIV:
                return _loop(
                    codes.DIV, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
                )
            if kind == codes.SQRT:
                return _loop(
                    codes.SQRT, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
                )
            return _loop(
                codes.ADD, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
            )
        if kind == codes.MUL:
            return _loop(
                codes.MUL, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
            )
        if kind == codes.DIV:
            return _loop(
                codes.DIV, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
            )
        if kind == codes.SQRT:
            return _loop(
                codes.SQRT, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
            )
        return _loop(
            codes.ADD, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, w, first, left, right
        )

    return fused


def _make(watched: bool) -> Any:
    nearest, zero, stochastic = (_of_mode(mode, watched) for mode in MODES)

    @jit.kernel
    def perform_fused(
        kind: int, tier: int, mode: int, row: int, registers: Any, x: Any, a: Any, b: Any, c: Any, d: Any, n: Any,
        integers: Any, floats: Any, words: Any, first: Any, left: Any, right: Any,
    ) -> Any:  # fmt: skip
        """As ``perform``, and thirdly whether it is sure that nothing underflowed, overflowed, is infinite or NaN.

        Unless ``watched`` that is of no consequence. After a fused kernel ``x`` does not hold the unrounded strip.
        """
        tier = settled_tier(tier, registers, a, b, c, n)
        frequent = mode == codes.NEAREST_EVEN or mode == codes.TOWARD_ZERO or mode == codes.STOCHASTIC
        if frequent and codes.ADD <= kind <= codes.SQRT and tier != codes.EXACT:
            overwrites = d == a or d == b
            target, to = (x, ZERO) if overwrites else (registers, d)
            if mode == codes.NEAREST_EVEN:
                peak, least = nearest(
                    kind, tier, registers, a, b, target, to, n, integers, floats, row, words, first, left, right
                )
            elif mode == codes.TOWARD_ZERO:
                peak, least = zero(
                    kind, tier, registers, a, b, target, to, n, integers, floats, row, words, first, left, right
                )
            else:
                peak, least = stochastic(
                    kind, tier, registers, a, b, target, to, n, integers, floats, row, words, first, left, right
                )
            if peak <= to_bits(floats[row * FLOATS + MAX]):
                if overwrites:
                    for i in range(n):
                        registers[d + i] = x[i]
                return tier, 0, least >= np.uint64(integers[row * INTEGERS + NORMAL])
        tier, beyond = perform(
            kind, tier, mode, row, registers, x, a, b, c, d, n, integers, floats, words, first, left, right
        )
        return tier, beyond, False

    return perform_fused


perform_fused = _make(False)
perform_watched = _make(True)
