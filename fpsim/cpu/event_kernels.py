"""Events of one operation on one strip, counted after it while its operands are still there (``fpsim.events``).

The operand strips are at ``a``, ``b``, ``c``, the rounded results at ``d``, and ``x`` holds what was rounded. A double
v is the exact result only if x = v: that follows from how each tier makes x, and ``moved`` rests on it.

INEXACT. Tiers PLAIN and ODD (see tiers.py): iff d != x, for finite x. ODD: x is exact, or has 53 bits and is odd, and
then the exact result has more than 53 bits and d, which has fewer, is not x. PLAIN: x is exact for round, mul, fma and
the sums that are proven to be; for div and sqrt, x is not a number of the result's precision unless it is exact. The
sums to nearest whose x may be rounded are settled by TwoSum: inexact iff its residual is not zero or d != x. BINARY64
(d = x): iff the residual of the operation is not zero. Where no bound excludes that the residual itself is rounded to
zero or overflows, and for fma, the integer kernel decides: a double v is the exact result iff rounding that to binary64
both down and up gives v. Tier EXACT asks that of every element. The bounds:

    add   |a|, |b| < 2^1022: no step of TwoSum overflows
    mul   2^-968 <= |a b|: the residual is a multiple of 2^(e_a + e_b - 104), e_a + e_b >= -969, and so a double
    div   2^-968 <= |a|, 2^-1000 <= |q|: a - q b is a multiple of 2^(e_q + e_b - 104), e_q + e_b >= e_a - 1
    sqrt  2^-968 <= a: as div, with both factors s

TINY, below the smallest normal number 2^emin. PLAIN and ODD: iff 0 < |x| < 2^emin. ODD keeps the side of every number
of 53 bits, and never makes a zero of what is none; the same follows for PLAIN div and sqrt as above; and a sum of
multiples of the smallest quantum, below 2^emin, has at most p bits, so its x is exact. BINARY64: sums and roots are
never tiny and inexact; mul and div within the bounds above are not tiny; the rest is settled by the integer kernel.

SWAMPED. The operands of a sum are rounded as the sum was, with its random bits. Operands that lie on the grid and
within the normal range are not changed by that, so a strip of them is not rounded again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import EXPONENT, MAGNITUDE, ONE, SIGN, ZERO, fma, from_bits, to_bits
from fpsim.cpu.format_table import FLOATS, FRACTION, INTEGERS, MAX, NORMAL, SIGNED, SMALLEST_NORMAL
from fpsim.cpu.jit import inline, kernel
from fpsim.cpu.perform import draw, round_strip
from fpsim.cpu.wide import operate
from fpsim.events import NAMES

INEXACT, UNDERFLOW, OVERFLOW, INVALID, DIVIDE_BY_ZERO, SWAMPED, FROZEN = range(7)
EVENTS = len(NAMES)
_BINARY64_ROW = 0
_LOW_HALF = (1 << 32) - 1
_LARGE, _SMALL, _SMALL_QUOTIENT = 2.0**1022, 2.0**-968, 2.0**-1000


@kernel
def _enclosed(kind: int, u: float, v: float, w: float, integers: Any, floats: Any) -> Any:
    """The exact result rounded to binary64 down and up."""
    low, _, _ = operate(kind, u, v, w, codes.DOWN, ZERO, integers, floats, _BINARY64_ROW)
    high, _, _ = operate(kind, u, v, w, codes.UP, ZERO, integers, floats, _BINARY64_ROW)
    return low, high


@inline
def _two_sum(u: float, v: float) -> float:
    """The residual of u + v."""
    s = u + v
    t = s - u
    return (u - (s - t)) + (v - t)


@inline
def _special(kind: int, at: Any, u: float, v: float, w: float, exact: float, y: float, counts: Any) -> None:
    """An exact result that is infinite or NaN; operands that an operation does not have repeat its first one."""
    if u != u or v != v or w != w:
        return
    if exact != exact:
        counts[at + INVALID] += 1
    elif abs(u) < np.inf and abs(v) < np.inf and abs(w) < np.inf:
        counts[at + DIVIDE_BY_ZERO] += 1
    elif y != y:
        counts[at + INVALID] += 1


@kernel
def _exactly(
    kind: int,
    at: Any,
    u: float,
    v: float,
    w: float,
    y: float,
    integers: Any,
    floats: Any,
    row: int,
    binary64: bool,
    counts: Any,
) -> Any:
    """All but swamped of one element, by the integer kernel; overflow in mode BINARY64 only.

    Returns the exact result rounded down to binary64, and whether y is inexact.
    """
    low, high = _enclosed(kind, u, v, w, integers, floats)
    if low != low or (low == high and abs(low) == np.inf):
        _special(kind, at, u, v, w, low, y, counts)
        return low, False
    if low == y and high == y:
        return low, False
    normal = floats[row * FLOATS + SMALLEST_NORMAL]
    tiny = low < normal and high > -normal and not (low == 0.0 and high == 0.0)
    counts[at + INEXACT] += 1
    counts[at + UNDERFLOW] += int(tiny)
    counts[at + OVERFLOW] += int(binary64 and abs(y) == np.inf)
    counts[at + INVALID] += int(low < 0.0 and integers[row * INTEGERS + SIGNED] == 0)
    return low, True


@inline
def _flags(x: float, differs: bool, normal: Any) -> Any:
    """Inexact, tiny as well (times 2^32), and finite."""
    size = to_bits(x) & MAGNITUDE
    ordinary = np.int64(size < EXPONENT)
    flag = np.int64(differs) & ordinary
    return flag, (flag & np.int64(size - ONE < normal)) << 32, ordinary


@kernel
def _compared(
    kind: int,
    residuals: bool,
    at: Any,
    registers: Any,
    x: Any,
    flags: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    n: Any,
    normal: Any,
    counts: Any,
) -> None:
    """Inexact, underflow and what is not finite, of tiers PLAIN and ODD."""
    flip = SIGN if kind == codes.SUB else ZERO
    both, finite = 0, 0  # inexact in the low half, underflow in the high one
    if residuals:
        for i in range(n):
            rest = _two_sum(registers[a + i], from_bits(to_bits(registers[b + i]) ^ flip))
            flag, tiny, ordinary = _flags(x[i], registers[d + i] != x[i] or rest != 0.0, normal)
            flags[i] = np.float64(flag)
            both += flag + tiny
            finite += ordinary
    else:
        for i in range(n):
            flag, tiny, ordinary = _flags(x[i], registers[d + i] != x[i], normal)
            flags[i] = np.float64(flag)
            both += flag + tiny
            finite += ordinary
    counts[at + INEXACT] += both & _LOW_HALF
    counts[at + UNDERFLOW] += both >> 32
    if finite == np.int64(n):
        return
    for i in range(n):
        if not abs(x[i]) < np.inf:
            if kind in (codes.ROUND, codes.LOAD):
                _special(kind, at, x[i], x[i], x[i], x[i], registers[d + i], counts)
            else:
                u, v, w = registers[a + i], registers[b + i], registers[c + i]
                _special(kind, at, u, v, w, x[i], registers[d + i], counts)


@kernel
def _residual(kind: int, u: float, v: float, y: float) -> Any:
    """Of one finite result in binary64: (whether it is decided, whether it is inexact)."""
    if kind in (codes.ROUND, codes.LOAD):
        return True, False
    if kind in (codes.ADD, codes.SUB):
        return abs(u) < _LARGE and abs(v) < _LARGE, _two_sum(u, -v if kind == codes.SUB else v) != 0.0
    if kind == codes.MUL:
        return u == 0.0 or v == 0.0 or abs(y) >= _SMALL, fma(u, v, -y) != 0.0
    if kind == codes.DIV:
        large = abs(u) >= _SMALL and abs(y) >= _SMALL_QUOTIENT
        return u == 0.0 or large, u != 0.0 and fma(-y, v, u) != 0.0  # 0 / inf is 0
    return u == 0.0 or u >= _SMALL, fma(-y, y, u) != 0.0


@kernel
def _in_binary64(
    kind: int,
    at: Any,
    registers: Any,
    x: Any,
    flags: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    n: Any,
    integers: Any,
    floats: Any,
    counts: Any,
) -> None:
    """All but swamped, in mode BINARY64."""
    for i in range(n):
        y, decided, inexact = x[i], kind in (codes.ROUND, codes.LOAD), False
        if not decided:
            u, v, w = registers[a + i], registers[b + i], registers[c + i]
            if abs(y) < np.inf and kind != codes.FMA:
                decided, inexact = _residual(kind, u, v, y)
                counts[at + INEXACT] += int(decided and inexact)
            if not decided:
                x[i], inexact = _exactly(kind, at, u, v, w, y, integers, floats, _BINARY64_ROW, True, counts)
        flags[i] = 1.0 if inexact else 0.0


@kernel
def _off_grid(registers: Any, a: Any, n: Any, mask: Any, normal: Any, largest: Any) -> int:
    """How many finite numbers may be changed by rounding: not on the grid, not zero and not in the normal range."""
    count = 0
    for i in range(n):
        bits = to_bits(registers[a + i])
        size = bits & MAGNITUDE
        normal_number = (size - ONE) - normal < EXPONENT  # false below, where it wraps, zero included
        on = (normal_number & (size <= largest) & ((bits & mask) == ZERO)) | (size == ZERO) | (size >= EXPONENT)
        count += int(not on)
    return count


@kernel
def _swamped(registers: Any, a: Any, b: Any, ra: Any, rb: Any, d: Any, n: Any, flip: Any) -> int:
    """How many sums equal the rounding of one operand, at ``ra`` and ``rb``, while the other is not zero."""
    count = 0
    for i in range(n):
        u, v, y = registers[a + i], registers[b + i], registers[d + i]
        alone = (y == registers[ra + i] and v != 0.0) or (
            y == from_bits(to_bits(registers[rb + i]) ^ flip) and u != 0.0
        )
        count += int(alone and abs(u) < np.inf and abs(v) < np.inf)
    return count


@kernel
def count(
    kind: int,
    slot: int,
    swamped: int,
    tier: int,
    beyond: int,
    mode: int,
    row: int,
    registers: Any,
    x: Any,
    z: Any,
    flags: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    ra: Any,
    rb: Any,
    n: Any,
    integers: Any,
    floats: Any,
    words: Any,
    first: Any,
    left: Any,
    right: Any,
    counts: Any,
) -> None:
    """Add the events of one strip to ``counts``; ``beyond`` is what ``perform`` returned.

    Leaves in ``flags`` which results are inexact. ``z`` and the rows ``ra`` and ``rb`` are scratch.
    """
    at = EVENTS * slot
    counts[at + OVERFLOW] += beyond
    if tier == codes.EXACT:
        for i in range(n):
            u, v, w = registers[a + i], registers[b + i], registers[c + i]
            x[i], inexact = _exactly(kind, at, u, v, w, registers[d + i], integers, floats, row, False, counts)
            flags[i] = 1.0 if inexact else 0.0
    elif mode == codes.BINARY64:
        _in_binary64(kind, at, registers, x, flags, a, b, c, d, n, integers, floats, counts)
    else:
        normal = np.uint64(integers[row * INTEGERS + NORMAL])
        residuals = tier == codes.PLAIN and kind in (codes.ADD, codes.SUB)
        _compared(kind, residuals, at, registers, x, flags, a, b, c, d, n, normal, counts)
    if swamped == 0 or kind not in (codes.ADD, codes.SUB):
        return
    flip = SIGN if kind == codes.SUB else ZERO
    if mode == codes.BINARY64:
        counts[at + SWAMPED] += _swamped(registers, a, b, a, b, d, n, flip)
        return
    if tier == codes.EXACT:
        for i in range(n):
            u, v = registers[a + i], from_bits(to_bits(registers[b + i]) ^ flip)
            random = draw(mode, words, first + i, left, right)
            registers[ra + i], _, _ = operate(codes.ROUND, u, u, u, mode, random, integers, floats, row)
            registers[rb + i], _, _ = operate(codes.ROUND, v, v, v, mode, random, integers, floats, row)
        counts[at + SWAMPED] += _swamped(registers, a, b, ra, rb, d, n, ZERO)
        return
    largest = to_bits(floats[row * FLOATS + MAX])
    mask = (ONE << np.uint64(52 - integers[row * INTEGERS + FRACTION])) - ONE
    normal = np.uint64(integers[row * INTEGERS + NORMAL])
    if _off_grid(registers, a, n, mask, normal, largest) + _off_grid(registers, b, n, mask, normal, largest) == 0:
        counts[at + SWAMPED] += _swamped(registers, a, b, a, b, d, n, flip)
        return
    for side in range(2):
        source, target, turn = (a, ra, ZERO) if side == 0 else (b, rb, flip)
        for i in range(n):
            z[i] = from_bits(to_bits(registers[source + i]) ^ turn)
        round_strip(mode, z, registers, target, n, integers, floats, row, words, first, left, right)
    counts[at + SWAMPED] += _swamped(registers, a, b, ra, rb, d, n, ZERO)


@kernel
def moved(
    kind: int,
    registers: Any,
    x: Any,
    flags: Any,
    a: Any,
    b: Any,
    c: Any,
    value: Any,
    old: Any,
    to: Any,
    n: Any,
    integers: Any,
    floats: Any,
) -> None:
    """1 where the exact result of the operation that ``count`` has just seen is not the number at ``old``, else 0.

    Where the result is exact, x is that result. With kind MOVED the result is simply the number at ``value``.
    """
    for i in range(n):
        before, y = registers[old + i], registers[value + i]
        if kind == codes.MOVED:
            differs = y != before
        else:
            differs = x[i] != before
            if not differs and flags[i] != 0.0:
                differs = y == before
                if not differs:
                    u, v, w = registers[a + i], registers[b + i], registers[c + i]
                    low, high = _enclosed(kind, u, v, w, integers, floats)
                    differs = low != before or high != before
        registers[to + i] = 1.0 if differs else 0.0


@kernel
def frozen(registers: Any, new: Any, old: Any, moves: Any, n: Any, counts: Any, slot: int) -> None:
    """Count the stored numbers that are the old ones although the exact result, by ``moves``, is another."""
    total = 0
    for i in range(n):
        total += int(registers[new + i] == registers[old + i] and registers[moves + i] != 0.0)
    counts[EVENTS * slot + FROZEN] += total
