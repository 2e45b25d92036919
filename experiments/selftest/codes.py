"""Bit patterns: ``decode`` gives the number that a code's fields say, and ``encode`` gives the code back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

import fpsim
from experiments.selftest.formats import drawn_format
from experiments.selftest.outcome import Mismatch, Outcome, error_of, literal
from fpsim.number_format import Format


def check(generator: np.random.Generator, count: int, formats: Sequence[str]) -> Outcome:
    """``count // 2`` codes, decoded and encoded again."""
    fmt = drawn_format(generator, formats)
    total, m = 1 << fmt.bits, fmt.mantissa_bits
    codes = [int(code) for code in generator.integers(0, total, count // 2, dtype=np.uint64)]
    ends = [0, 1, (1 << m) - 1, 1 << m, fmt.largest_code, fmt.largest_code + 1, total - 1]
    ends += [total // 2 + code for code in ends]
    codes[: len(ends)] = [code % total for code in ends][: len(codes)]
    numbers = [value_of(code, fmt) for code in codes]
    outcome = Outcome()

    def describe(what: str, given: str, got: str, expected: str) -> Mismatch:
        return Mismatch(
            "codes", (given,), fmt.name, "", None, got, expected, f"fpsim.{what}([{given}], {literal(fmt)})"
        )

    try:
        decoded = fpsim.decode(np.array(codes, dtype=np.uint64), fmt)
        encoded = [int(code) for code in fpsim.encode(np.array(numbers), fmt)]
    except Exception as error:
        outcome.failed(2 * len(codes), describe("decode", hex(codes[0]), error_of(error), ""))
        return outcome
    outcome.compare(
        decoded, numbers, lambda i: describe("decode", hex(codes[i]), float(decoded[i]).hex(), numbers[i].hex())
    )
    # A NaN has many codes, and so has a zero where the subnormal numbers are missing: any that is read back will do.
    alone = [not math.isnan(x) and (x != 0.0 or fmt.subnormals) for x in numbers]
    read = [float(code) if one else value_of(code, fmt) for code, one in zip(encoded, alone, strict=True)]
    wanted = [float(code) if one else x for code, one, x in zip(codes, alone, numbers, strict=True)]
    outcome.compare(
        read,
        wanted,
        lambda i: describe("encode", f"float.fromhex({numbers[i].hex()!r})", hex(encoded[i]), hex(codes[i])),
    )
    return outcome


def value_of(code: int, fmt: Format) -> float:
    """The formulas of ``fpsim.codes`` in rational arithmetic.

    Examples
    --------
    >>> value_of(0x7E, fpsim.format("float8_e4m3fn"))
    448.0
    """
    m, width = fmt.mantissa_bits, fmt.exponent_bits + fmt.mantissa_bits
    negative, magnitude = divmod(code, 1 << width)
    field, fraction = divmod(magnitude, 1 << m)
    if negative and magnitude == 0 and not fmt.has_negative_zero:
        return math.nan
    if magnitude > fmt.largest_code:
        infinite = fmt.has_infinity and magnitude == fmt.largest_code + 1
        return (-math.inf if negative else math.inf) if infinite else math.nan
    assert fmt.bias is not None
    if field == 0 and fmt.has_zero:
        size = Fraction(fraction if fmt.subnormals else 0) * Fraction(2) ** (fmt.emin - m)
    else:
        size = Fraction((1 << m) + fraction) * Fraction(2) ** (field - fmt.bias - m)
    if size == 0:
        return -0.0 if negative and fmt.has_negative_zero else 0.0
    return -float(size) if negative else float(size)
