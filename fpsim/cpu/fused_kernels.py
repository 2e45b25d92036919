"""Operation and rounding of a strip in one loop: the frequent operations, tiers and modes of the machine.

A loop reads operand strips at ``a`` and ``b`` of the registers and writes ``n`` rounded results to ``target[d:]``. That
does not overlap them: where input and output overlap a loop is not vectorised. It returns what tells whether its
results are final. With x the results before rounding,

    peak    is the largest bit pattern of |x|. Where it is at most that of the format's largest value, nothing is
            rounded beyond that value, and nothing is infinite or NaN: those have larger patterns.
    least   is the smallest of (pattern of |x|) - 1; a zero wraps to the top. Where it is not below (pattern of
            2^emin) - 1, no nonzero x is below 2^emin, so nothing underflowed. It is meaningless without ``watched``.

Otherwise ``perform`` computes the strip once more, repairs and counts. Such strips are rare.

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
from fpsim.cpu.perform import settled_tier
from fpsim.cpu.rounding_elements import draw_of, fixed_point, format_row, magnitude_within

WIDEST_FIXED = 18  # mantissa bits up to which FIXED is stochastic A
_LOW = np.uint64(0xFFFFFFFF)


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


@jit.inline
def _of_kind(
    kind: int, tier: int, mode: int, watched: bool, r: Any, a: Any, b: Any, flip: Any, x: Any, d: Any, n: Any,
    ints: Any, reals: Any, row: int, words: Any, first: Any, left: Any, right: Any,
) -> Any:  # fmt: skip
    if kind == codes.MUL:
        return _loop(
            codes.MUL, tier, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, words, first, left, right
        )  # fmt: skip
    if kind == codes.ADD:
        return _loop(
            codes.ADD, tier, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, words, first, left, right
        )  # fmt: skip
    if kind == codes.DIV:
        return _loop(
            codes.DIV, tier, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, words, first, left, right
        )  # fmt: skip
    return _loop(
        codes.SQRT, tier, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, words, first, left, right
    )  # fmt: skip


@jit.inline
def _of_tier(
    kind: int, tier: int, mode: int, watched: bool, r: Any, a: Any, b: Any, flip: Any, x: Any, d: Any, n: Any,
    ints: Any, reals: Any, row: int, words: Any, first: Any, left: Any, right: Any,
) -> Any:  # fmt: skip
    if tier == codes.PLAIN:
        return _of_kind(
            kind, codes.PLAIN, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, words, first, left, right
        )  # fmt: skip
    precise = codes.ODD if mode == codes.NEAREST_EVEN else codes.CUT
    return _of_kind(
        kind, precise, mode, watched, r, a, b, flip, x, d, n, ints, reals, row, words, first, left, right
    )  # fmt: skip


@jit.kernel
def _one_zero(x: Any, at: Any, n: Any) -> None:
    """+0 in the place of -0, in formats that have one zero."""
    for i in range(n):
        x[at + i] += 0.0


@jit.kernel
def fast_kind(kind: int, tier: int, mode: int) -> int:
    """The kind as a fused loop knows it, or -1 where there is none."""
    known = mode == codes.NEAREST_EVEN or mode == codes.TOWARD_ZERO or mode == codes.STOCHASTIC
    if not known or tier == codes.EXACT or not codes.ADD <= kind <= codes.SQRT:
        return -1
    return codes.ADD if kind == codes.SUB else kind


@jit.kernel
def fast_mode(mode: int, integers: Any, row: int) -> int:
    """FIXED where that is the mode."""
    narrow = integers[row * INTEGERS + FRACTION] <= WIDEST_FIXED
    return codes.FIXED if mode == codes.STOCHASTIC and narrow else mode


def _make(watched: bool) -> Any:
    @jit.kernel
    def fused(
        kind: int, tier: int, mode: int, r: Any, a: Any, b: Any, flip: Any, x: Any, d: Any, n: Any, ints: Any,
        reals: Any, row: int, words: Any, first: Any, left: Any, right: Any,
    ) -> Any:  # fmt: skip
        if mode == codes.NEAREST_EVEN:
            return _of_tier(
                kind, tier, codes.NEAREST_EVEN, watched, r, a, b, flip, x, d, n, ints, reals, row,
                words, first, left, right,
            )  # fmt: skip
        if mode == codes.FIXED:
            return _of_tier(
                kind, tier, codes.FIXED, watched, r, a, b, flip, x, d, n, ints, reals, row,
                words, first, left, right,
            )  # fmt: skip
        if mode == codes.TOWARD_ZERO:
            return _of_tier(
                kind, tier, codes.TOWARD_ZERO, watched, r, a, b, flip, x, d, n, ints, reals, row,
                words, first, left, right,
            )  # fmt: skip
        return _of_tier(
            kind, tier, codes.STOCHASTIC, watched, r, a, b, flip, x, d, n, ints, reals, row,
            words, first, left, right,
        )  # fmt: skip

    @jit.inline
    def perform_fast(
        kind: int, tier: int, mode: int, row: int, flip: Any, registers: Any, x: Any, a: Any, b: Any, d: Any, n: Any,
        integers: Any, floats: Any, words: Any, first: Any, left: Any, right: Any,
    ) -> bool:  # fmt: skip
        """One operation on one strip, or False where that needs ``perform``; kind and mode as above.

        After True nothing overflowed and nothing is infinite or NaN; with ``watched``, nothing underflowed either.
        """
        if tier == codes.GUARDED and settled_tier(tier, registers, a, b, b, n) == codes.EXACT:
            return False
        overwrites = d in (a, b)
        target, to = (x, ZERO) if overwrites else (registers, d)
        peak, least = fused(
            kind, tier, mode, registers, a, b, flip, target, to, n, integers, floats, row, words, first, left, right
        )
        if watched and least < np.uint64(integers[row * INTEGERS + NORMAL]):
            return False
        if peak > to_bits(floats[row * FLOATS + MAX]):
            return False
        if to_bits(floats[row * FLOATS + ADD]) == ZERO:
            _one_zero(target, to, n)
        if overwrites:
            for i in range(n):
                registers[d + i] = x[i]
        return True

    return perform_fast


perform_fast = _make(False)
perform_watched = _make(True)
