"""Rounding of a scratch strip to a format, one kernel for each mode.

With E the exponent of |x| clamped to [emin, emax], q = 2^(E - m) the quantum there and C = 2^52 q, the sum |x| + C lies
where binary64 itself has quantum q; so ``(|x| + C) - C`` is |x| rounded to a multiple of q, ties to even. The other
modes correct that by one quantum. Subnormal numbers and overflow need no branch: the clamp fixes the quantum below
2^emin, and above 2^(emax + 1) any quantum gives a result beyond the largest finite value.

    t       the multiple of q at or below |x|; |x| - t is exact
    away    n + 1 quanta where the mode says so (see fpsim.rounding), n = t / q

A kernel writes registers[d : d + n] and returns (tiny, beyond): how many x are nonzero and below the smallest normal
number, and how many results are beyond the largest finite value, infinities and NaN included. Where ``beyond`` is not
zero the caller repairs infinities and NaN with ``repair``, which keeps both out of the loops here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import EXPONENT, MAGNITUDE, NAN, ONE, SIGN, ZERO, from_bits, to_bits
from fpsim.cpu.format_table import ADD, DRAW, FLOATS, HIGHEST, INTEGERS, LOWEST, MAGIC, MAX, NORMAL, OVERFLOW, QUANTUM
from fpsim.cpu.jit import inline, kernel

_TINIEST = (1 << 52) - 1  # bits of the smallest normal binary64 number, less one


@inline
def _clamped(bits: Any, lowest: Any, highest: Any) -> Any:
    return min(max(bits & EXPONENT, lowest), highest)


@inline
def _signed(y: float, bits: Any, add: float) -> Any:
    return from_bits(to_bits(y) | (bits & SIGN)) + add


@kernel
def nearest_even(x: Any, registers: Any, d: Any, n: Any, integers: Any, floats: Any, row: int) -> Any:
    lowest, highest = np.uint64(integers[row * INTEGERS + LOWEST]), np.uint64(integers[row * INTEGERS + HIGHEST])
    magic, normal = np.uint64(integers[row * INTEGERS + MAGIC]), np.uint64(integers[row * INTEGERS + NORMAL])
    largest, overflow, add = floats[row * FLOATS + MAX], floats[row * FLOATS + OVERFLOW], floats[row * FLOATS + ADD]
    tiny, beyond = 0, 0
    for i in range(n):
        bits = to_bits(x[i])
        size = bits & MAGNITUDE
        c = from_bits(_clamped(bits, lowest, highest) + magic)
        y = (from_bits(size) + c) - c
        tiny += int(size - ONE < normal)
        over = not y <= largest
        beyond += int(over)
        y = overflow if over else y
        registers[d + i] = _signed(y, bits, add)
    return tiny, beyond


@kernel
def nearest_away(x: Any, registers: Any, d: Any, n: Any, integers: Any, floats: Any, row: int) -> Any:
    lowest, highest = np.uint64(integers[row * INTEGERS + LOWEST]), np.uint64(integers[row * INTEGERS + HIGHEST])
    magic, normal = np.uint64(integers[row * INTEGERS + MAGIC]), np.uint64(integers[row * INTEGERS + NORMAL])
    shift = np.uint64(integers[row * INTEGERS + QUANTUM])
    largest, overflow, add = floats[row * FLOATS + MAX], floats[row * FLOATS + OVERFLOW], floats[row * FLOATS + ADD]
    tiny, beyond = 0, 0
    for i in range(n):
        bits = to_bits(x[i])
        size = bits & MAGNITUDE
        exponent = _clamped(bits, lowest, highest)
        c = from_bits(exponent + magic)
        q = from_bits(exponent - shift)
        y = (from_bits(size) + c) - c
        # Only a tie that went down to even differs from nearest even.
        y = y + q if from_bits(size) - y == 0.5 * q else y
        tiny += int(size - ONE < normal)
        over = not y <= largest
        beyond += int(over)
        y = overflow if over else y
        registers[d + i] = _signed(y, bits, add)
    return tiny, beyond


@kernel
def toward_zero(x: Any, registers: Any, d: Any, n: Any, integers: Any, floats: Any, row: int) -> Any:
    lowest, highest = np.uint64(integers[row * INTEGERS + LOWEST]), np.uint64(integers[row * INTEGERS + HIGHEST])
    magic, normal = np.uint64(integers[row * INTEGERS + MAGIC]), np.uint64(integers[row * INTEGERS + NORMAL])
    shift = np.uint64(integers[row * INTEGERS + QUANTUM])
    largest, add = floats[row * FLOATS + MAX], floats[row * FLOATS + ADD]
    tiny, beyond = 0, 0
    for i in range(n):
        bits = to_bits(x[i])
        size = bits & MAGNITUDE
        exponent = _clamped(bits, lowest, highest)
        c = from_bits(exponent + magic)
        y = (from_bits(size) + c) - c
        y = y - from_bits(exponent - shift) if y > from_bits(size) else y
        tiny += int(size - ONE < normal)
        over = not y <= largest
        beyond += int(over)
        y = largest if over else y
        registers[d + i] = _signed(y, bits, add)
    return tiny, beyond


@kernel
def directed(x: Any, registers: Any, d: Any, n: Any, integers: Any, floats: Any, row: int, flip: Any) -> Any:
    """Up, or down with the sign bit in ``flip``."""
    lowest, highest = np.uint64(integers[row * INTEGERS + LOWEST]), np.uint64(integers[row * INTEGERS + HIGHEST])
    magic, normal = np.uint64(integers[row * INTEGERS + MAGIC]), np.uint64(integers[row * INTEGERS + NORMAL])
    shift = np.uint64(integers[row * INTEGERS + QUANTUM])
    largest, overflow, add = floats[row * FLOATS + MAX], floats[row * FLOATS + OVERFLOW], floats[row * FLOATS + ADD]
    tiny, beyond = 0, 0
    for i in range(n):
        bits = to_bits(x[i])
        size = bits & MAGNITUDE
        exponent = _clamped(bits, lowest, highest)
        c = from_bits(exponent + magic)
        q = from_bits(exponent - shift)
        y = (from_bits(size) + c) - c
        away = (bits ^ flip) & SIGN == ZERO
        y = y + q if away and y < from_bits(size) else y
        y = y - q if (not away) and y > from_bits(size) else y
        tiny += int(size - ONE < normal)
        over = not y <= largest
        beyond += int(over)
        limit = overflow if away else largest
        y = limit if over else y
        registers[d + i] = _signed(y, bits, add)
    return tiny, beyond


@kernel
def to_odd(x: Any, registers: Any, d: Any, n: Any, integers: Any, floats: Any, row: int) -> Any:
    lowest, highest = np.uint64(integers[row * INTEGERS + LOWEST]), np.uint64(integers[row * INTEGERS + HIGHEST])
    magic, normal = np.uint64(integers[row * INTEGERS + MAGIC]), np.uint64(integers[row * INTEGERS + NORMAL])
    shift = np.uint64(integers[row * INTEGERS + QUANTUM])
    largest, add = floats[row * FLOATS + MAX], floats[row * FLOATS + ADD]
    tiny, beyond = 0, 0
    for i in range(n):
        bits = to_bits(x[i])
        size = bits & MAGNITUDE
        exponent = _clamped(bits, lowest, highest)
        c = from_bits(exponent + magic)
        q = from_bits(exponent - shift)
        y = (from_bits(size) + c) - c
        t = y - q if y > from_bits(size) else y
        # t + C is exact and its last bit is the parity of t / q.
        even = to_bits(t + c) & ONE == ZERO
        y = t + q if even and t < from_bits(size) else t
        tiny += int(size - ONE < normal)
        over = not y <= largest
        beyond += int(over)
        y = largest if over else y
        registers[d + i] = _signed(y, bits, add)
    return tiny, beyond


@kernel
def stochastic(
    x: Any,
    registers: Any,
    d: Any,
    n: Any,
    integers: Any,
    floats: Any,
    row: int,
    words: Any,
    first: Any,
    left: Any,
    right: Any,
    mode: int,
) -> Any:
    """The draw R is ``(words[first + i] << left mod 2^32) >> right`` with N = 32 - ``right`` bits; T = 2^N - R.

    A   floor(nu 2^N) >= T                    iff  2^(N+1) nu >= 2 T
    B   floor(nu 2^(N+1)) >= 2 T - 1          iff  2^(N+1) nu >= 2 T - 1
    C   rint(nu 2^N) >= T, ties to even       iff  2^(N+1) nu >= 2 T - 1, and not equal where T is odd

    and 2^(N+1) nu = (|x| - t) / h with h = q / 2^(N+1); that quotient is compared without dividing.
    """
    lowest, highest = np.uint64(integers[row * INTEGERS + LOWEST]), np.uint64(integers[row * INTEGERS + HIGHEST])
    magic, normal = np.uint64(integers[row * INTEGERS + MAGIC]), np.uint64(integers[row * INTEGERS + NORMAL])
    shift, draw = np.uint64(integers[row * INTEGERS + QUANTUM]), np.uint64(integers[row * INTEGERS + DRAW])
    largest, overflow, add = floats[row * FLOATS + MAX], floats[row * FLOATS + OVERFLOW], floats[row * FLOATS + ADD]
    low_word = np.uint64(0xFFFFFFFF)
    full = np.int64(1) << (np.int64(32) - np.int64(right))
    less = np.int64(mode != codes.STOCHASTIC)
    strict = np.int64(mode == codes.STOCHASTIC_C)
    tiny, beyond = 0, 0
    for i in range(n):
        bits = to_bits(x[i])
        size = bits & MAGNITUDE
        exponent = _clamped(bits, lowest, highest)
        c = from_bits(exponent + magic)
        q = from_bits(exponent - shift)
        y = (from_bits(size) + c) - c
        t = y - q if y > from_bits(size) else y
        r = np.int64(((np.uint64(words[first + i]) << left) & low_word) >> right)
        whole = full - r
        threshold = np.float64(whole + whole - less) * from_bits(exponent - draw)
        rest = from_bits(size) - t
        y = t + q if rest > threshold or (rest == threshold and (whole & strict) == 0) else t
        tiny += int(size - ONE < normal)
        over = not y <= largest
        beyond += int(over)
        y = overflow if over else y
        registers[d + i] = _signed(y, bits, add)
    return tiny, beyond


@kernel
def binary64(x: Any, registers: Any, d: Any, n: Any) -> Any:
    """No rounding: binary64 to nearest even is what the operation itself did."""
    normal = np.uint64(_TINIEST)
    tiny, beyond = 0, 0
    for i in range(n):
        value = x[i]
        tiny += int((to_bits(value) & MAGNITUDE) - ONE < normal)
        beyond += int(not abs(value) < np.inf)
        registers[d + i] = value
    return tiny, beyond


@kernel
def repair(x: Any, registers: Any, a: Any, b: Any, c: Any, d: Any, n: Any, infinite: float) -> Any:
    """Results of infinite and NaN x: one NaN, and what the format makes of an infinity.

    Operands that an operation does not have repeat one that it has. Returns how many x are infinite or NaN, and how
    many results are NaN although no operand is.
    """
    special, invalid = 0, 0
    for i in range(n):
        value = x[i]
        if value != value:
            special += 1
            registers[d + i] = NAN
        elif abs(value) == np.inf:
            special += 1
            registers[d + i] = NAN if infinite != infinite else (-infinite if value < 0.0 else infinite)
        result = registers[d + i]
        if result != result:
            registers[d + i] = NAN
            u, v, w = registers[a + i], registers[b + i], registers[c + i]
            invalid += int(u == u and v == v and w == w)
    return special, invalid


@kernel
def overflowed(registers: Any, a: Any, b: Any, c: Any, d: Any, n: Any) -> int:
    """How many results are infinite although no operand is."""
    count = 0
    for i in range(n):
        finite = abs(registers[a + i]) < np.inf and abs(registers[b + i]) < np.inf and abs(registers[c + i]) < np.inf
        count += int(finite and abs(registers[d + i]) == np.inf)
    return count
