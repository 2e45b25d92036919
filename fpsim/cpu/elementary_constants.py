"""Tables of the elementary kernels, built on first use from numbers that the specification's loop has enclosed."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.elementary import enclosed, value
from fpsim.exact import Exact

EXP_STEPS = 512  # to a power of two
LOG_STEPS = 512  # to a power of two
LOG_FIRST = 0x3FE6 << 48  # bits of 0.6875: fractions are reduced to [0.6875, 1.375)
CIRCLE = 1024  # steps of pi / 512
ERF_STEPS = 128  # to 1
ERF_END = 6
ERF_ROW = 12

Table = npt.NDArray[np.float64]


def pair(x: Fraction) -> tuple[float, float]:
    """(RN(x), RN(x - RN(x))): |x - h - l| <= 2^-106 |x|, the 2^-210 of the enclosure included."""
    high = float(x)
    return high, float(x - Fraction(high))


def _number(x: Exact) -> Fraction:
    return -x.magnitude if x.negative else x.magnitude


@functools.cache
def exponential() -> Table:
    """2^(j / 512), j = 0..511: pairs."""
    rows = [pair(_number(value("exp2", (j / EXP_STEPS,)))) for j in range(EXP_STEPS)]
    return np.array(rows).reshape(-1)


@functools.cache
def logarithm() -> Table:
    """Rows (c, h, l): c near the reciprocal of the middle of an interval, h + l = -log c.

    Row j belongs to binary64 numbers z with floor((bits(z) - LOG_FIRST) / 2^43) = j: intervals of length 2^-10 below 1,
    and 2^-9 from 1 on. The two intervals beside 1 have c = 1. There |z c - 1| < 2^-9; elsewhere it is at most 2^-10,
    half the length times c (c < 1.46 below 1, c < 1 above).
    """

    def entry(j: int) -> tuple[float, float, float]:
        low, high = np.array([LOG_FIRST + (j << 43), LOG_FIRST + ((j + 1) << 43)], dtype=np.int64).view(np.float64)
        c = 1.0 if 1.0 in (low, high) else 2.0 / (float(low) + float(high))
        h, rest = pair(-_number(value("log", (c,))))
        return c, h, rest

    return np.array([entry(j) for j in range(LOG_STEPS)]).reshape(-1)


@functools.cache
def circle() -> Table:
    """Rows (sine pair, cosine pair) of j pi / 512, j = 0..1023."""
    quarter = CIRCLE // 4
    first = [Fraction(0), *(_number(enclosed(functools.partial(_sine, j))) for j in range(1, quarter)), Fraction(1)]
    half = [*first, *first[-2:0:-1]]
    sines = [pair(x) for x in (*half, *(-x for x in half))]
    return np.array([(*sines[j], *sines[(j + quarter) % CIRCLE]) for j in range(CIRCLE)]).reshape(-1)


def _sine(j: int) -> Any:
    from flint import arb, fmpq

    return arb.sin_pi_fmpq(fmpq(j, CIRCLE // 2))


@functools.cache
def error_function() -> Table:
    """Rows of the Taylor coefficients of erf at x0 = j / 128: a0 and a1 as pairs, a2 .. a8, and an error bound.

    (k + 2)(k + 1) a_(k+2) = -2 x0 (k + 1) a_(k+1) - 2 k a_k, from erf'' = -2 x erf'. The bound is explained in
    ``elementary_erf``.
    """

    def entry(j: int) -> list[float]:
        x0 = Fraction(j, ERF_STEPS)
        factors = [Fraction(0), Fraction(1)]  # a_k = factors[k] a_1 for k > 0
        for k in range(7):
            factors.append(-(2 * x0 * (k + 1) * factors[k + 1] + 2 * k * factors[k]) / ((k + 2) * (k + 1)))
        a1 = _number(enclosed(functools.partial(_slope, j)))
        rest = [float(a1 * factor) for factor in factors[2:]]
        largest = sum(abs(c) * math.ldexp(1.0, -8 * k) for k, c in enumerate(rest, 2))
        return [*pair(_number(value("erf", (j / ERF_STEPS,)))), *pair(a1), *rest, math.ldexp(largest, 16 - 49)]

    return np.array([entry(j) for j in range(ERF_END * ERF_STEPS + 1)]).reshape(-1)


def _slope(j: int) -> Any:
    """erf'(j / 128)."""
    from flint import arb

    x0 = arb(j) / ERF_STEPS
    return 2 * (-x0 * x0).exp() / arb.pi().sqrt()
