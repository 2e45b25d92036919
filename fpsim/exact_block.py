"""Rounding one block to a block format in rational arithmetic: the specification of ``block_formats``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from fpsim.block_formats import BlockFormat
from fpsim.exact import Exact, floor_log2, round_value
from fpsim.rounding import Rounding

Words = Sequence[int | None]


def round_block(values: Sequence[float], fmt: BlockFormat, rounding: Rounding, words: Words) -> list[float]:
    """One block (at most ``fmt.block`` values, in order), rounded; all NaN where one is no finite number.

    Parameters
    ----------
    values : binary64 numbers
    words : one random integer for each value in a stochastic mode, else None for each

    Returns
    -------
    list of binary64 numbers, one for each value

    Examples
    --------
    >>> from fpsim.block_formats import block_format
    >>> round_block([5.2, 0.4], block_format("mxfp4_e2m1"), "nearest_even", [None, None])
    [6.0, 0.5]
    """
    if not values:
        return []
    if not all(math.isfinite(x) for x in values):
        return [math.nan] * len(values)
    shared = shared_exponent(values, fmt)
    step = fmt.sub_block or len(values)
    results = []
    for start in range(0, len(values), step):
        part = values[start : start + step]
        exponent = shared - (second_exponent(part, shared, fmt) if fmt.sub_block else 0)
        for x, word in zip(part, words[start : start + step], strict=True):
            results.append(_round_element(x, exponent, fmt, rounding, word))
    return results


def shared_exponent(values: Sequence[float], fmt: BlockFormat) -> int:
    """s of finite values."""
    largest = max(abs(x) for x in values)
    if largest == 0.0:
        return -127
    return min(max(floor_log2(Fraction(largest)) - fmt.element.emax, -127), 127)


def second_exponent(values: Sequence[float], shared: int, fmt: BlockFormat) -> int:
    """t of one sub-block of finite values."""
    most = (1 << fmt.sub_bits) - 1
    largest = max(abs(x) for x in values)
    if largest == 0.0:
        return most
    return min(max(shared - (floor_log2(Fraction(largest)) - fmt.element.emax), 0), most)


def _round_element(x: float, exponent: int, fmt: BlockFormat, rounding: Rounding, word: int | None) -> float:
    scale = Fraction(2) ** exponent
    exact = Exact("finite", abs(Fraction(x)) / scale, math.copysign(1.0, x) < 0)
    rounded = round_value(exact, fmt.element, rounding, word)
    if rounded == 0.0:
        return rounded if fmt.has_negative_zero else 0.0
    return float(Fraction(rounded) * scale)
