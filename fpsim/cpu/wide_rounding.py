"""Rounding of a 128-bit magnitude with a sticky bit, right for every format and mode.

A nonzero magnitude is ``(high * 2^64 + low + theta) * 2^(e - 127)`` with bit 63 of ``high`` set, 0 <= theta < 1, and
``sticky`` telling whether theta is nonzero. A rounding to p <= 53 bits with up to 32 random bits looks at the top 87
bits and asks of the rest only whether it is zero, so 128 bits and a sticky bit decide it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import NAN, ONE, ZERO, from_bits, leading_zeros
from fpsim.cpu.format_table import (
    BITS,
    CODE_PARITY,
    EMIN,
    FLOATS,
    FLUSH,
    FRACTION,
    INFINITE,
    INTEGERS,
    LEAST,
    LOWEST_VALUE,
    MAX,
    MINUS_INFINITE,
    MINUS_LEAST,
    NEGATIVE,
    ODD_OVERFLOW,
    OVERFLOW,
    SIGNED,
    SMALLEST_NORMAL,
    SUBNORMALS,
)
from fpsim.cpu.jit import kernel

TOP = np.uint64(1 << 63)


@kernel
def normalised(high: Any, low: Any, sticky: bool, e: int) -> Any:
    """Shift a nonzero magnitude left until bit 63 of ``high`` is set; ``e`` is the exponent of that bit."""
    if high == ZERO:
        high, low, e = low, ZERO, e - 64
    k = leading_zeros(high)
    if k > 0:
        high = (high << np.uint64(k)) | (low >> np.uint64(64 - k))
        low = low << np.uint64(k)
    return high, low, sticky, e - k


@kernel
def shifted_right(high: Any, low: Any, places: int) -> Any:
    """(high, low) >> places, and whether a set bit dropped out."""
    if places == 0:
        return high, low, False
    if places >= 128:
        return ZERO, ZERO, (high | low) != ZERO
    if places >= 64:
        k = np.uint64(places - 64)
        dropped = low != ZERO
        if k > ZERO:
            dropped = dropped or (high << np.uint64(64) - k) != ZERO
        return ZERO, high >> k, dropped
    k = np.uint64(places)
    rest = np.uint64(64) - k
    return high >> k, (low >> k) | (high << rest), (low << rest) != ZERO


@kernel
def moves_away(mode: int, odd: bool, high: Any, low: Any, sticky: bool, negative: bool, bits: int, draw: Any) -> Any:
    """Whether ``mode`` takes n + 1, for the fraction nu = (high 2^64 + low + theta) / 2^128 and the parity of n."""
    rest = low != ZERO or sticky
    if mode == codes.NEAREST_EVEN:
        return high > TOP or (high == TOP and (rest or odd))
    if mode == codes.NEAREST_AWAY:
        return high >= TOP
    if mode == codes.STOCHASTIC:
        return (high >> np.uint64(64 - bits)) + draw >= ONE << np.uint64(bits)
    if mode == codes.STOCHASTIC_B:
        return (high >> np.uint64(63 - bits)) + draw + draw + ONE >= ONE << np.uint64(bits + 1)
    if mode == codes.STOCHASTIC_C:
        kept, over = high >> np.uint64(64 - bits), high << np.uint64(bits)
        up = over > TOP or (over == TOP and (rest or (kept & ONE) != ZERO))
        return kept + draw + (ONE if up else ZERO) >= ONE << np.uint64(bits)
    inexact = high != ZERO or rest
    if mode == codes.TO_ODD:
        return inexact and not odd
    if mode == codes.UP:
        return inexact and not negative
    if mode == codes.DOWN:
        return inexact and negative
    return False


@kernel
def zero(negative: bool, floats: Any, row: int) -> Any:
    """What a zero of this sign becomes in the format of ``row``."""
    return floats[row * FLOATS + (MINUS_LEAST if negative else LEAST)]


@kernel
def infinite(negative: bool, floats: Any, row: int) -> Any:
    """What an infinity becomes."""
    y = floats[row * FLOATS + (MINUS_INFINITE if negative else INFINITE)]
    return NAN if y != y else y


@kernel
def rounded(
    high: Any,
    low: Any,
    sticky: bool,
    e: int,
    negative: bool,
    mode: int,
    draw: Any,
    integers: Any,
    floats: Any,
    row: int,
) -> Any:
    """A nonzero magnitude rounded to the format of ``row``: (result, tiny, overflowed)."""
    emin = integers[row * INTEGERS + EMIN]
    lowest = (
        emin
        if e < emin and integers[row * INTEGERS + SUBNORMALS] == 0
        else max(e, emin) - integers[row * INTEGERS + FRACTION]
    )
    k = e - lowest + 1  # bits of the integer significand
    whole = ZERO
    if k > 0:
        whole = high >> np.uint64(64 - k)
        high, low = (high << np.uint64(k)) | (low >> np.uint64(64 - k)), low << np.uint64(k)
    elif k < 0:
        high, low, dropped = shifted_right(high, low, -k)
        sticky = sticky or dropped
    parity = whole
    if integers[row * INTEGERS + CODE_PARITY] != 0 and whole != ZERO:
        parity = np.uint64(lowest - emin + integers[row * INTEGERS + CODE_PARITY])
    if moves_away(mode, (parity & ONE) != ZERO, high, low, sticky, negative, integers[row * INTEGERS + BITS], draw):
        whole = whole + ONE
    if e > 1023:
        y = np.inf
    elif lowest >= -1022:
        y = np.float64(whole) * from_bits(np.uint64(lowest + 1023) << np.uint64(52))
    else:
        y = np.float64(whole) * from_bits(ONE << np.uint64(lowest + 1074))
    if integers[row * INTEGERS + FLUSH] != 0 and y < floats[row * FLOATS + SMALLEST_NORMAL]:
        y = 0.0
    if y == 0.0:
        return zero(negative, floats, row), e < emin, False
    if negative and integers[row * INTEGERS + SIGNED] == 0:
        inward = mode in (codes.TOWARD_ZERO, codes.UP)
        return floats[row * FLOATS + (LOWEST_VALUE if inward else NEGATIVE)], e < emin, False
    overflowed = y > floats[row * FLOATS + MAX]
    if overflowed:
        if mode == codes.TOWARD_ZERO or mode == (codes.UP if negative else codes.DOWN):
            y = floats[row * FLOATS + MAX]
        else:
            y = floats[row * FLOATS + (ODD_OVERFLOW if mode == codes.TO_ODD else OVERFLOW)]
    return -y if negative else y, e < emin, overflowed
