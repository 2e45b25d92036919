"""A format as numbers that kernels read: one row of integers and one of floats for each (format, random bits)."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fpsim.number_format import Format

# Integer columns. The first five are bit patterns of binary64 exponents, used by the fast rounding kernels.
LOWEST = 0  # exponent field of 2^emin
HIGHEST = 1  # exponent field of 2^emax
MAGIC = 2  # added to an exponent field of x: C = 2^52 quanta
QUANTUM = 3  # subtracted from it: the quantum q
NORMAL = 4  # bits of the smallest normal number, less one
EMIN = 5
FRACTION = 6  # mantissa_bits
BITS = 7  # random bits of a stochastic mode
SUBNORMALS = 8
FLUSH = 9
SIGNED = 10
CODE_PARITY = 11  # 0: parity is the significand's; else the code of a number at 2^E is E - emin plus this, modulo 2
INTEGERS = 12

# Float columns.
MAX = 0  # largest finite value
OVERFLOW = 1  # what a finite value beyond it becomes where IEEE 754 gives an infinity
INFINITE = 2  # what an infinity becomes
ADD = 3  # -0, or +0 in formats with one zero: adding it turns a -0 into +0 and nothing else
SMALLEST_NORMAL = 4
ODD_OVERFLOW = 5  # what a finite value beyond the largest becomes under to_odd
LEAST = 6  # what +0 becomes
MINUS_LEAST = 7  # what -0 becomes
LOWEST_VALUE = 8  # unsigned formats: what a negative number becomes in the modes that point to it
NEGATIVE = 9  # and in the others
MINUS_INFINITE = 10  # what -infinity becomes
FLOATS = 11


def fast(fmt: Format, bits: int = 0) -> bool:
    """Whether the fast rounding kernels can round any binary64 number to ``fmt``.

    They form C = 2^(E + 52 - m), q = 2^(E - m) and q / 2^(bits + 1) for emin <= E <= emax as normal numbers, and
    (x + C) - C is x rounded to a multiple of q while x / q < 2^52, ties to an even multiple.
    """
    return (
        fmt.ordinary
        and fmt.mantissa_bits <= 50
        and fmt.emax + 52 - fmt.mantissa_bits <= 1023
        and fmt.emin - fmt.mantissa_bits - bits - 1 >= -1022
    )


def tables(rows: Sequence[tuple[Format, int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The two tables of a list of (format, random bits)."""
    integers = np.zeros((max(len(rows), 1), INTEGERS), dtype=np.int64)
    floats = np.zeros((max(len(rows), 1), FLOATS), dtype=np.float64)
    for row, (fmt, bits) in enumerate(rows):
        m = fmt.mantissa_bits
        integers[row, LOWEST] = max(fmt.emin + 1023, 0) << 52
        integers[row, HIGHEST] = (fmt.emax + 1023) << 52
        integers[row, MAGIC] = (52 - m) << 52
        integers[row, QUANTUM] = m << 52
        integers[row, NORMAL] = struct.unpack("<q", struct.pack("<d", fmt.smallest_normal))[0] - 1
        integers[row, EMIN] = fmt.emin
        integers[row, FRACTION] = m
        integers[row, BITS] = bits
        integers[row, SUBNORMALS] = fmt.subnormals
        integers[row, FLUSH] = fmt.tiny == "flush"
        integers[row, SIGNED] = fmt.signed
        integers[row, CODE_PARITY] = (1 if fmt.has_zero else 2) if fmt.parity == "code" and m == 0 else 0
        saturates = fmt.overflow in ("saturate", "saturate_all")
        floats[row, MAX] = fmt.max
        floats[row, OVERFLOW] = {"infinity": math.inf, "nan": math.nan}.get(fmt.overflow, fmt.max)
        floats[row, ADD] = -0.0 if fmt.has_negative_zero else 0.0
        floats[row, SMALLEST_NORMAL] = fmt.smallest_normal
        floats[row, ODD_OVERFLOW] = fmt.max if fmt.odd_overflow == "largest" else floats[row, OVERFLOW]
        floats[row, LEAST] = fmt.least
        floats[row, MINUS_LEAST] = -0.0 if fmt.has_negative_zero else fmt.least
        floats[row, LOWEST_VALUE] = fmt.lowest
        floats[row, NEGATIVE] = fmt.lowest if saturates else math.nan
        if fmt.overflow == "saturate_all":
            floats[row, INFINITE], floats[row, MINUS_INFINITE] = fmt.max, fmt.lowest
        else:
            floats[row, INFINITE] = math.inf if fmt.has_infinity else math.nan
            floats[row, MINUS_INFINITE] = -math.inf if fmt.has_infinity and fmt.signed else math.nan
    return integers, floats
