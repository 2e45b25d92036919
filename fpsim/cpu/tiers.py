"""Which kernels compute an operation exactly: plain, rounded to odd, or integer arithmetic. The proofs stand here.

Notation. p: precision of the result; k: extra bits of a mode (``asked_bits``: 1 to nearest, the random bits of a
stochastic mode, one more in variants B and C, 0 otherwise). A mode asks on which side of, or on, which number of at
most P = p + k bits the exact result lies (midpoints; sub-quanta; grid points). Near and below 2^emin the numbers it
asks for have fewer bits. x = RN53(exact).

ROUND TO ODD at 53 bits answers that if P <= 52 and the residual is exact (Boldo and Melquiond 2008): the odd x lies on
the same side of every number of 52 bits. Below the smallest normal binary64 number only sums occur (``_in_range``), and
those are exact. The residual of + is exact unless a sum overflows. Those of * and / and sqrt are multiples of the unit
2^(lsb sums below), so they are exact, or at least have the right sign, if that unit is at least 2^-1074.

PLAIN, x itself. The lanes have T bits here: 53, or 24 in flat_single_operations.
mul         exact in x if p_a + p_b <= T, in every mode.
add, fma    exact in x if the highest and the lowest possible bit are at most T places apart, in every mode but down
            (whose exact zeros are negative).
add         to nearest, p_a, p_b <= p, 2 p + 2 <= T, operands with no bit below the result's smallest quantum. Let
            |b| <= |a|. If x is inexact, b has a bit below the last of x: e_b <= e_s - T + p_b - 1, e_s the exponent of
            the sum. As e_s <= e_a + 1, |b| < 2^(e_a - p - 1) is less than the last bit of a, so e_s <= e_a; hence
            |b| < 2^(e_a - T + p_b) <= 2^(e_a - p - 2). The error of x is at most 2^(e_a - T) <= 2^(e_a - 2 p - 2).
            Together they are less than 2^(e_a - p - 1), and a, which is on the grid of the result (p_a <= p, and no bit
            below the quantum), is that far from every midpoint. Both round to a.
div         q = a/b, c a number of P bits, c != q: |q - c|/q = |a - c b|/a. a and c b are integers times powers of two;
            their difference is at least one unit of one of them: more than 2^-p_a, or more than 2^-(P + p_b + 1). If
            both are at least 2^-T, which bounds the error of x, then x is on the right side of c and not on c.
sqrt        |s - c|/s = |a - c^2|/(s (s + c)) > 2^-(2P + 2) or 2^-(p_a + 2) likewise.

GUARDED is ODD where the operands of a strip turn out to have exponents in -300..300, and EXACT otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fpsim.cpu.codes import EXACT, GUARDED, ODD, PLAIN
from fpsim.cpu.format_table import fast
from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.rounding import Rounding, asked_bits, is_nearest, random_bits

DOUBLE, SINGLE = 53, 24  # bits of the significand in the lanes

# Bits of 2^-300 and 2^301: what GUARDED compares with. Then 2 * (-300 - 52) >= -1074 and every quotient is normal.
GUARD_LOW = (1023 - 300) << 52
GUARD_HIGH = (1023 + 301) << 52


@dataclass(frozen=True)
class Range:
    """What is known of an operand: its finite values are integers below 2^precision times powers of two.

    ``low`` and ``high`` bound the exponents (floor log2) of the nonzero ones, ``lsb`` is the exponent
    of the lowest possible bit.
    """

    precision: int
    low: int
    high: int
    lsb: int

    @classmethod
    def of_format(cls, fmt: Format) -> Range:
        m = fmt.mantissa_bits
        return cls(fmt.precision, fmt.emin - (m if fmt.subnormals else 0), max(fmt.emax, fmt.emin), fmt.emin - m)

    @classmethod
    def of_values(cls, values: npt.NDArray[np.float64]) -> Range:
        """The range of given scalars; zeros, infinities and NaN are exact in every tier and do not count."""
        nonzero = np.abs(values[np.isfinite(values) & (values != 0.0)])
        if nonzero.size == 0:
            return cls(1, 0, 0, 0)
        fraction, exponent = np.frexp(nonzero)
        integers = np.ldexp(fraction, 53).astype(np.int64)
        zeros = np.log2((integers & -integers).astype(np.float64)).astype(np.int64)
        lsb = int(np.min(exponent - 53 + zeros))
        return cls(int(53 - zeros.min()), int(exponent.min()) - 1, int(exponent.max()) - 1, lsb)


def choose(kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding) -> int:
    """The cheapest proven tier of one rounded operation."""
    bits = random_bits(rounding)
    if not fast(fmt, bits):
        return EXACT
    if kind == "round":
        return PLAIN
    p = [operand.precision for operand in operands]
    if kind == "fma" and p[0] + p[1] > 53:
        return EXACT
    in_range = _in_range(kind, operands)
    asked = fmt.precision + asked_bits(rounding)
    if in_range and plain(kind, operands, fmt, rounding, asked):
        return PLAIN
    if asked > 52:
        return EXACT
    return ODD if in_range else GUARDED


def is_binary64(fmt: Format, rounding: Rounding) -> bool:
    """Whether the operation's own rounding in binary64 is the one that is asked for."""
    return fmt == BINARY64 and rounding == "nearest_even"


def plain(
    kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding, asked: int, width: int = DOUBLE
) -> bool:
    """Whether ``PLAIN`` is proven for operations of ``width`` bits that neither overflow nor become subnormal."""
    p = [operand.precision for operand in operands]
    if kind == "mul":
        return p[0] + p[1] <= width
    if kind == "div":
        return max(p[0], asked + p[1] + 1) <= width
    if kind == "sqrt":
        return max(p[0], 2 * asked) + 2 <= width
    if kind == "fma":
        top = max(operands[0].high + operands[1].high + 1, operands[2].high) + 1
        bottom = min(operands[0].lsb + operands[1].lsb, operands[2].lsb)
        return rounding != "down" and top - bottom + 1 <= width
    bottom = min(operand.lsb for operand in operands)
    exact = max(operand.high for operand in operands) + 1 - bottom + 1 <= width
    on_grid = max(p) <= fmt.precision and 2 * fmt.precision + 2 <= width and bottom >= fmt.emin - fmt.mantissa_bits
    return (is_nearest(rounding) and on_grid) or (rounding != "down" and exact)


def _in_range(kind: str, operands: Sequence[Range]) -> bool:
    """No overflow, normal products, quotients and roots, and residuals in binary64."""
    a, b = operands[0], operands[-1] if kind != "fma" else operands[1]
    if kind in ("add", "sub"):
        return max(a.high, b.high) + 1 <= 1022
    if kind == "mul":
        return a.low + b.low >= -1022 and a.lsb + b.lsb >= -1074 and a.high + b.high + 1 <= 1022
    if kind == "div":
        smallest = a.low - b.high - 1
        return smallest >= -1022 and min(a.lsb, smallest - 52 + b.lsb) >= -1074 and a.high - b.low + 1 <= 1022
    if kind == "sqrt":
        return 2 * (math.floor(a.low / 2) - 52) >= -1074
    product = a.lsb + b.lsb >= -1074 and a.high + b.high + 1 <= 1021
    return product and a.low + b.low >= -1022 and operands[2].high <= 1021
