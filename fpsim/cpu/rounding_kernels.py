"""Rounding of a scratch strip to a format, one kernel for each mode (see rounding_elements).

A kernel writes registers[d : d + n] and returns how many results are beyond the largest finite value, infinities and
NaN included. Where that is not zero the caller repairs infinities and NaN with ``repair``, which keeps both out of the
loops here. The draw of a stochastic mode is ``(words[first + i] << left mod 2^32) >> right``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.cpu import codes
from fpsim.cpu.bits import NAN, ZERO
from fpsim.cpu.jit import kernel
from fpsim.cpu.rounding_elements import draw_of, format_row, rounded


def _strip(mode: int) -> Any:
    @kernel
    def strip(x: Any, registers: Any, d: Any, n: Any, integers: Any, floats: Any, row: int) -> int:
        numbers = format_row(integers, floats, row)
        beyond = 0
        for i in range(n):
            y, over = rounded(mode, x[i], numbers, ZERO)
            beyond += int(over)
            registers[d + i] = y
        return beyond

    return strip


def _random_strip(mode: int) -> Any:
    @kernel
    def strip(
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
    ) -> int:
        numbers = format_row(integers, floats, row)
        beyond = 0
        for i in range(n):
            y, over = rounded(mode, x[i], numbers, draw_of(words[first + i], left, right))
            beyond += int(over)
            registers[d + i] = y
        return beyond

    return strip


nearest_even = _strip(codes.NEAREST_EVEN)
nearest_away = _strip(codes.NEAREST_AWAY)
toward_zero = _strip(codes.TOWARD_ZERO)
up = _strip(codes.UP)
down = _strip(codes.DOWN)
to_odd = _strip(codes.TO_ODD)
stochastic = _random_strip(codes.STOCHASTIC)
stochastic_b = _random_strip(codes.STOCHASTIC_B)
stochastic_c = _random_strip(codes.STOCHASTIC_C)


@kernel
def binary64(x: Any, registers: Any, d: Any, n: Any) -> int:
    """No rounding: binary64 to nearest even is what the operation itself did."""
    beyond = 0
    for i in range(n):
        value = x[i]
        beyond += int(not abs(value) < np.inf)
        registers[d + i] = value
    return beyond


@kernel
def repair(x: Any, registers: Any, d: Any, n: Any, infinite: float) -> int:
    """Results of infinite and NaN x, and one NaN for all. Returns how many x are infinite or NaN."""
    special = 0
    for i in range(n):
        value = x[i]
        if value != value:
            special += 1
            registers[d + i] = NAN
        elif abs(value) == np.inf:
            special += 1
            registers[d + i] = NAN if infinite != infinite else (-infinite if value < 0.0 else infinite)
        if registers[d + i] != registers[d + i]:
            registers[d + i] = NAN
    return special
