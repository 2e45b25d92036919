"""Operation and rounding of a strip in one loop: the frequent operations, tiers and modes of the machine.

A loop reads operand strips at ``a`` and ``b`` of the registers and writes ``n`` rounded results to ``target[d:]``. That
does not overlap them: where input and output overlap a loop is not vectorised. It returns what tells whether its
results are final. With x the results before rounding,

    peak    is the largest bit pattern of |x|. Where it is at most that of the format's largest value, nothing is
            rounded beyond that value, and nothing is infinite or NaN: those have larger patterns.
    least   is the smallest of (pattern of |x|) - 1; a zero wraps to the top. Where it is not below (pattern of
            2^emin) - 1, no nonzero x is below 2^emin, so nothing underflowed. It is meaningless without ``watched``.

Otherwise ``perform`` computes the strip once more, repairs and counts.

The tier CUT (see operation_elements) stands in for ODD in the modes that only cut. Its x is the exact result cut to 53
bits, so it is below 2^emin where that is, and where it is at most the largest value, that value is what a larger exact
result is cut to as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, jit
from fpsim.cpu.bits import MAGNITUDE, ONE, SIGN, ZERO, from_bits, to_bits
from fpsim.cpu.format_table import ADD, FLOATS, FRACTION, INTEGERS, MAX, NORMAL
from fpsim.cpu.operation_elements import compute
from fpsim.cpu.perform import perform, settled_tier
from fpsim.cpu.rounding_elements import draw_of, fixed_point, format_row, magnitude_within

WIDEST_FIXED = 18  # mantissa bits up to which FIXED is stochastic A
_LOW = np.uint64(0xFFFFFFFF)
_MODES = (codes.NEAREST_EVEN, codes.TOWARD_ZERO, codes.STOCHASTIC, codes.FIXED)


@jit.inline
def _loop(
    kind: int, tier: int, mode: int, watched: bool, registers: Any, a: Any, b: Any, flip: Any, target: Any, d: Any,
    n: Any, integers: Any, floats: Any, row: int, words: Any, first: Any, left: Any, right: Any,
) -> Any:  # fmt: skip
    """The loop; kind, tier and mode are constants where it is called. ``flip``: the sign bit makes a sum a - b."""
    numbers = format_row(integers, floats, row)
    kept = (_LOW >> right) << right
    peak, least = ZERO, MAGNITUDE
    for i in range(n):
        u = registers[a + i]
        v = u if kind == codes.SQRT else registers[b + i]
        if kind == codes.ADD:
            v = from_bits(to_bits(v) ^ flip)
        x, _ = compute(kind, tier, mode, u, v, v)
        bits = to_bits(x)
        size = bits & MAGNITUDE
        peak = max(peak, size)
        if watched:
            least = min(least, size - ONE)
        if mode == codes.FIXED:
            y = fixed_point(bits, numbers, ((words[first + i] << left) & _LOW) & kept)
        else:
            draw = draw_of(words[first + i], left, right) if mode == codes.STOCHASTIC else ZERO
            y = magnitude_within(mode, bits, numbers, draw)
        target[d + i] = from_bits(to_bits(y) | (bits & SIGN))
    return peak, least


@jit.kernel
def _one_zero(x: Any, at: Any, n: Any) -> None:
    """+0 in the place of -0, in formats that have one zero."""
    for i in range(n):
        x[at + i] += 0.0


def _of_mode(mode: int, watched: bool) -> Any:
    """The loops of one mode."""
    precise = codes.ODD if mode == codes.NEAREST_EVEN else codes.CUT

    @jit.kernel
    def fused(
        kind: int, tier: int, r: Any, a: Any, b: Any, x: Any, d: Any, n: Any, ints: Any, reals: Any, row: int,
        words: Any, first: Any, left: Any, right: Any,
    ) -> Any:  # fmt: skip
        flip = SIGN if kind == codes.SUB else ZERO
        if tier == codes.PLAIN:
            if kind == codes.MUL:
                return _loop(
                    codes.MUL, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
                    words, first, left, right,
                )  # fmt: skip
            if kind == codes.DIV:
                return _loop(
                    codes.DIV, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
                    words, first, left, right,
                )  # fmt: skip
            if kind == codes.SQRT:
                return _loop(
                    codes.SQRT, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
                    words, first, left, right,
                )  # fmt: skip
            return _loop(
                codes.ADD, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
                words, first, left, right,
            )  # fmt: skip
        if kind == codes.MUL:
            return _loop(
                codes.MUL, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
                words, first, left, right,
            )  # fmt: skip
        if kind == codes.DIV:
            return _loop(
                codes.DIV, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
                words, first, left, right,
            )  # fmt: skip
        if kind == codes.SQRT:
            return _loop(
                codes.SQRT, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
                words, first, left, right,
            )  # fmt: skip
        return _loop(
            codes.ADD, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row,
            words, first, left, right,
        )  # fmt: skip

    return fused


def _make(watched: bool) -> Any:
    nearest, zero, stochastic, fixed = (_of_mode(mode, watched) for mode in _MODES)

    @jit.kernel
    def perform_fused(
        kind: int, tier: int, mode: int, row: int, registers: Any, x: Any, a: Any, b: Any, c: Any, d: Any, n: Any,
        integers: Any, floats: Any, words: Any, first: Any, left: Any, right: Any,
    ) -> Any:  # fmt: skip
        """As ``perform``, and thirdly whether a fused loop did it, so that ``x`` does not hold the unrounded strip.

        With ``watched`` that says too that nothing underflowed, overflowed, is infinite or NaN.
        """
        tier = settled_tier(tier, registers, a, b, c, n)
        frequent = mode == codes.NEAREST_EVEN or mode == codes.TOWARD_ZERO or mode == codes.STOCHASTIC
        if frequent and codes.ADD <= kind <= codes.SQRT and tier != codes.EXACT:
            overwrites = d in (a, b)
            target, to = (x, ZERO) if overwrites else (registers, d)
            if mode == codes.NEAREST_EVEN:
                peak, least = nearest(
                    kind, tier, registers, a, b, target, to, n, integers, floats, row, words, first, left, right
                )
            elif mode == codes.TOWARD_ZERO:
                peak, least = zero(
                    kind, tier, registers, a, b, target, to, n, integers, floats, row, words, first, left, right
                )
            elif integers[row * INTEGERS + FRACTION] <= WIDEST_FIXED:
                peak, least = fixed(
                    kind, tier, registers, a, b, target, to, n, integers, floats, row, words, first, left, right
                )
            else:
                peak, least = stochastic(
                    kind, tier, registers, a, b, target, to, n, integers, floats, row, words, first, left, right
                )
            clean = not watched or least >= np.uint64(integers[row * INTEGERS + NORMAL])
            if clean and peak <= to_bits(floats[row * FLOATS + MAX]):
                if to_bits(floats[row * FLOATS + ADD]) == ZERO:
                    _one_zero(target, to, n)
                if overwrites:
                    for i in range(n):
                        registers[d + i] = x[i]
                return tier, 0, True
        tier, beyond = perform(
            kind, tier, mode, row, registers, x, a, b, c, d, n, integers, floats, words, first, left, right
        )
        return tier, beyond, False

    return perform_fused


perform_fused = _make(False)
perform_watched = _make(True)
