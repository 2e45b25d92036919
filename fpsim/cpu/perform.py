"""One operation on one strip: compute in the tier that is proven exact, round to the format."""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes, jit
from fpsim.cpu import operation_kernels as operations
from fpsim.cpu import rounding_kernels as roundings
from fpsim.cpu.bits import MAGNITUDE, SIGN, ZERO
from fpsim.cpu.format_table import FLOATS, INFINITE
from fpsim.cpu.tiers import GUARD_HIGH, GUARD_LOW
from fpsim.cpu.wide import operate

_LOW = np.uint64(0xFFFFFFFF)


@jit.inline
def draw(mode: int, words: Any, at: Any, left: Any, right: Any) -> Any:
    """The random integer of a stochastic mode, 0 in the others."""
    if codes.STOCHASTIC <= mode <= codes.STOCHASTIC_C:
        return ((np.uint64(words[at]) << left) & _LOW) >> right
    return ZERO


@jit.merge
def _compute(kind: int, tier: int, mode: int, registers: Any, x: Any, a: Any, b: Any, c: Any, n: Any) -> None:
    """The unrounded strip."""
    flip = SIGN if mode == codes.DOWN else ZERO
    flip_b = SIGN if kind == codes.SUB else ZERO
    if kind in (codes.ADD, codes.SUB):
        if tier == codes.PLAIN:
            operations.add_plain(registers, x, a, b, n, flip_b)
        else:
            operations.add_odd(registers, x, a, b, n, flip_b, flip)
    elif kind == codes.MUL:
        if tier == codes.PLAIN:
            operations.multiply_plain(registers, x, a, b, n)
        else:
            operations.multiply_odd(registers, x, a, b, n)
    elif kind == codes.DIV:
        if tier == codes.PLAIN:
            operations.divide_plain(registers, x, a, b, n)
        else:
            operations.divide_odd(registers, x, a, b, n)
    elif kind == codes.SQRT:
        if tier == codes.PLAIN:
            operations.root_plain(registers, x, a, n)
        else:
            operations.root_odd(registers, x, a, n)
    elif kind == codes.FMA:
        if tier == codes.PLAIN:
            operations.fused_plain(registers, x, a, b, c, n)
        else:
            operations.fused_odd(registers, x, a, b, c, n, flip)
    elif kind in (codes.MAX, codes.MIN):
        operations.extreme(registers, x, a, b, n, SIGN if kind == codes.MIN else ZERO)
    elif kind == codes.SIGN:
        operations.sign(registers, x, a, n)
    else:
        keep = MAGNITUDE if kind == codes.ABS else MAGNITUDE | SIGN
        operations.move(registers, x, a, n, keep, SIGN if kind == codes.NEG else ZERO)


@jit.merge
def round_strip(
    mode: int,
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
) -> Any:
    if mode == codes.NEAREST_EVEN:
        return roundings.nearest_even(x, registers, d, n, integers, floats, row)
    if mode == codes.STOCHASTIC:
        return roundings.stochastic(x, registers, d, n, integers, floats, row, words, first, left, right)
    if mode == codes.STOCHASTIC_B:
        return roundings.stochastic_b(x, registers, d, n, integers, floats, row, words, first, left, right)
    if mode == codes.STOCHASTIC_C:
        return roundings.stochastic_c(x, registers, d, n, integers, floats, row, words, first, left, right)
    if mode == codes.NEAREST_AWAY:
        return roundings.nearest_away(x, registers, d, n, integers, floats, row)
    if mode == codes.TOWARD_ZERO:
        return roundings.toward_zero(x, registers, d, n, integers, floats, row)
    if mode == codes.TO_ODD:
        return roundings.to_odd(x, registers, d, n, integers, floats, row)
    if mode == codes.UP:
        return roundings.up(x, registers, d, n, integers, floats, row)
    if mode == codes.DOWN:
        return roundings.down(x, registers, d, n, integers, floats, row)
    return roundings.binary64(x, registers, d, n)


@jit.merge
def _exact(
    kind: int,
    mode: int,
    registers: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    n: Any,
    integers: Any,
    floats: Any,
    row: int,
    words: Any,
    first: Any,
    left: Any,
    right: Any,
) -> Any:
    beyond = 0
    for i in range(n):
        u, v, w = registers[a + i], registers[b + i], registers[c + i]
        y, _, above = operate(kind, u, v, w, mode, draw(mode, words, first + i, left, right), integers, floats, row)
        beyond += int(above)
        registers[d + i] = y
    return beyond


@jit.merge
def settled_tier(tier: int, registers: Any, a: Any, b: Any, c: Any, n: Any) -> Any:
    """GUARDED decided for the operands of a strip; the other tiers as they are."""
    if tier != codes.GUARDED:
        return tier
    low, high = operations.widest(registers, a, n)
    if b != a:
        low_b, high_b = operations.widest(registers, b, n)
        low, high = min(low, low_b), max(high, high_b)
    if c != a and c != b:
        low_c, high_c = operations.widest(registers, c, n)
        low, high = min(low, low_c), max(high, high_c)
    safe = low >= np.uint64(GUARD_LOW) and high < np.uint64(GUARD_HIGH)
    return codes.ODD if safe else codes.EXACT


@jit.kernel
def perform(
    kind: int,
    tier: int,
    mode: int,
    row: int,
    registers: Any,
    x: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    n: Any,
    integers: Any,
    floats: Any,
    words: Any,
    first: Any,
    left: Any,
    right: Any,
) -> Any:
    """One operation on one strip: (the tier that computed it, how many finite results were beyond the largest value).

    A load has put its strip into ``x`` already. In mode BINARY64 nothing counts as beyond.
    """
    tier = settled_tier(tier, registers, a, b, c, n)
    if tier == codes.EXACT:
        return tier, _exact(kind, mode, registers, a, b, c, d, n, integers, floats, row, words, first, left, right)
    if kind != codes.LOAD:
        _compute(kind, tier, mode, registers, x, a, b, c, n)
    beyond = round_strip(mode, x, registers, d, n, integers, floats, row, words, first, left, right)
    if beyond > 0:
        beyond -= roundings.repair(x, registers, d, n, floats[row * FLOATS + INFINITE])
    return tier, beyond
