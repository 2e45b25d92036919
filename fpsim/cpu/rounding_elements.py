"""Rounding of one binary64 number to a format, inlined into every kernel that rounds.

The mode is a constant where it is called, so that no branch on it is left in a loop.

With E the exponent of |x| clamped to [emin, emax], q = 2^(E - m) the quantum there and C = 2^52 q, the sum |x| + C lies
where binary64 itself has quantum q; so ``(|x| + C) - C`` is |x| rounded to a multiple of q, ties to even. The other
modes correct that by one quantum. Subnormal numbers and overflow need no branch: the clamp fixes the quantum below
2^emin, and above 2^(emax + 1) any quantum gives a result beyond the largest finite value.

    t       the multiple of q at or below |x|; |x| - t is exact
    away    n + 1 quanta where the mode says so (see fpsim.rounding), n = t / q

Nearest away is nearest even of |x| with the last of its 64 bits set. That bit is worth less than q / 2, as m <= 50, and
is not set in a tie, an odd multiple of q / 2: so a tie moves up and nothing else crosses one. (For binary64's subnormal
|x| the whole of |x| stays below 2^-1022, and so below q / 2, which is a normal number.)

Stochastic modes compare nu with the N-bit draw R, given as the fraction bits of w = 1 + R / 2^N. With T = 2^N - R:

    A   floor(nu 2^N) >= T                    iff  nu >= 2 - w
    B   floor(nu 2^(N+1)) >= 2 T - 1          iff  nu >= 2 - 2^-(N+1) - w
    C   rint(nu 2^N) >= T, ties to even       iff  the same, and not equal where T (hence R) is odd

The left side times q is |x| - t, the right side times q is exact: it has at most N + 1 bits.

FIXED is A for m <= 18 (``fixed_point``). With u = q / 2^32 and c = 2^52 u the sum |x| + c is c plus the multiple of u
nearest to |x|; where that is beyond |x|, the one below it is one unit less in the bits of the sum, which are those of c
plus floor(|x| / u). Its last 32 bits are floor(2^32 times the fraction of |x| / q); with R 2^(32 - N) added they carry
iff floor(nu 2^N) + R >= 2^N. The bits above them are then the number of quanta. As |x| / u < 2^(m + 33) <= 2^51, no
carry reaches the exponent. |x| is at most the largest value, and c is a normal number, 2^32 times less than C above.

The directed modes round x with its sign: with C = 1.5 * 2^52 q the sum x + C lies where binary64 has quantum q for
either sign, as |x| < 2^(m + 1) q and m <= 50. An |x| of 2^(emax + 1) or more keeps a magnitude beyond the largest
value, because rounding is monotone and one quantum less than 2^(emax + 1) is undone only for what lies beyond it.

The formats are those of ``format_table.fast``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import EXPONENT, MAGNITUDE, NAN, ONE, SIGN, ZERO, from_bits, to_bits
from fpsim.cpu.format_table import (
    ADD,
    BITS,
    FLOATS,
    HIGHEST,
    INFINITE,
    INTEGERS,
    LOWEST,
    MAGIC,
    MAX,
    ODD_OVERFLOW,
    OVERFLOW,
    QUANTUM,
)
from fpsim.cpu.jit import inline

_LOW = np.uint64(0xFFFFFFFF)
_FRACTION_BITS = np.uint64(52)
_HALF = np.uint64(1 << 51)
_WORD_PLACES = np.uint64(32 << 52)  # in an exponent field
_QUANTA = np.uint64(0xFFFFFFFF00000000)
_ONE_BITS = np.uint64(1023 << 52)


@inline
def format_row(integers: Any, floats: Any, row: int) -> Any:
    """What a rounding reads of its format.

    (lowest, highest, magic, shift, largest, overflow, infinite, add, to-odd overflow, 2 less half a
    draw's unit, last bit of a draw)
    """
    i, f = row * INTEGERS, row * FLOATS
    bits = integers[i + BITS]
    return (
        np.uint64(integers[i + LOWEST]), np.uint64(integers[i + HIGHEST]), np.uint64(integers[i + MAGIC]),
        np.uint64(integers[i + QUANTUM]),
        floats[f + MAX], floats[f + OVERFLOW], floats[f + INFINITE], floats[f + ADD],
        floats[f + ODD_OVERFLOW],
        2.0 - from_bits(np.uint64(1022 - bits) << _FRACTION_BITS), ONE << np.uint64(52 - bits),
    )  # fmt: skip


LARGEST, OVERFLOWS, INFINITY, ADDED, ODD_OVERFLOWS, TWO, LAST = range(4, 11)  # places in a format_row


@inline
def draw_of(word: Any, left: Any, right: Any) -> Any:
    """The draw R = ``(word << left mod 2^32) >> right`` of 32 - ``right`` bits, as the fraction bits of 1 + R / 2^N."""
    return ((((np.uint64(word) << left) & _LOW) >> right) << right) << np.uint64(20)


@inline
def magnitude(mode: int, bits: Any, row: Any, draw: Any) -> Any:
    """The magnitude that ``mode`` makes of the number with these bits, before it is compared with the largest value."""
    return _magnitude(mode, bits, min(max(bits & EXPONENT, row[0]), row[1]), row, draw)


@inline
def magnitude_within(mode: int, bits: Any, row: Any, draw: Any) -> Any:
    """The same for numbers of at most the largest value, which need no upper clamp; anything for others."""
    return _magnitude(mode, bits, max(bits & EXPONENT, row[0]), row, draw)


@inline
def _magnitude(mode: int, bits: Any, exponent: Any, row: Any, draw: Any) -> Any:
    magic, shift = row[2:4]
    size = from_bits(bits & MAGNITUDE)
    c = from_bits(exponent + magic)
    q = from_bits(exponent - shift)
    y = (size + c) - c
    if mode == codes.NEAREST_AWAY:
        y = (from_bits((bits & MAGNITUDE) | ONE) + c) - c
    elif mode == codes.TOWARD_ZERO:
        y = y - q if y > size else y
    elif mode == codes.UP:
        x, c = from_bits(bits), from_bits(exponent + magic + _HALF)
        y = (x + c) - c
        y = abs(y + q if y < x else y)
    elif mode == codes.DOWN:
        x, c = from_bits(bits), from_bits(exponent + magic + _HALF)
        y = (x + c) - c
        y = abs(y - q if y > x else y)
    elif mode == codes.TO_ODD:
        t = y - q if y > size else y
        # t + C is exact and its last bit is the parity of t / q.
        y = t + q if (to_bits(t + c) & ONE) == ZERO and t < size else t
    elif mode >= codes.STOCHASTIC:
        t = y - q if y > size else y
        rest, w = size - t, from_bits(_ONE_BITS | draw)
        if mode == codes.STOCHASTIC:
            y = t + q if rest >= (2.0 - w) * q else t
        elif mode == codes.STOCHASTIC_B:
            y = t + q if rest >= (row[TWO] - w) * q else t
        else:
            bound = (row[TWO] - w) * q
            y = t + q if rest > bound or (rest == bound and (draw & row[LAST]) == ZERO) else t
    return y


@inline
def fixed_point(bits: Any, row: Any, word: Any) -> Any:
    """``magnitude_within`` in the mode FIXED; ``word`` is R 2^(32 - N)."""
    size = from_bits(bits & MAGNITUDE)
    c = from_bits(max(bits & EXPONENT, row[0]) + (row[2] - _WORD_PLACES))
    total = size + c
    below = to_bits(total) - (ONE if total - c > size else ZERO)
    return from_bits((below + np.uint64(word)) & _QUANTA) - c


@inline
def rounded(mode: int, x: float, row: Any, draw: Any) -> Any:
    """x rounded: (result, whether it is beyond the largest finite value).

    Infinite and NaN x count as beyond, and their results are not yet right: see ``special``.
    """
    bits = to_bits(x)
    y = magnitude(mode, bits, row, draw)
    limit = row[OVERFLOWS]
    if mode == codes.TOWARD_ZERO:
        limit = row[LARGEST]
    elif mode == codes.TO_ODD:
        limit = row[ODD_OVERFLOWS]
    elif mode in (codes.UP, codes.DOWN):
        limit = limit if ((bits & SIGN) == ZERO) == (mode == codes.UP) else row[LARGEST]
    over = not y <= row[LARGEST]
    y = limit if over else y
    return from_bits(to_bits(y) | (bits & SIGN)) + row[ADDED], over


def element(mode: int) -> Any:
    """``rounded`` in one mode."""

    @inline
    def rounded_so(x: float, row: Any, draw: Any) -> Any:
        return rounded(mode, x, row, draw)

    return rounded_so


@inline
def special(x: float, result: float, infinite: float) -> float:
    """The result of an infinite or NaN x, and the one NaN for every NaN; any other result as it is."""
    result = from_bits(to_bits(infinite) | (to_bits(x) & SIGN)) if abs(x) == np.inf else result
    return NAN if result != result or x != x else result
