"""Arguments of elementary functions that are hard to round, and MPFR's results rounded to odd at 53 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import gmpy2
import numpy as np

KINDS = ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow")
UNARY = KINDS[:-1]
INFINITE, NAN = math.inf, math.nan

_ZERO = gmpy2.context(precision=53, emin=-1073, emax=1024, subnormalize=True, round=gmpy2.RoundToZero)
_WIDE = gmpy2.context(precision=400, emin=-(1 << 40), emax=1 << 40, round=gmpy2.RoundToNearest)


def wide_sigmoid(x: float) -> gmpy2.mpfr:
    """1 / (1 + e^-x) within 2^-390 of its size. Not for |x| < 2^-300, where 1 + e^-x may round to 2."""
    return _WIDE.div(1, _WIDE.add(1, _WIDE.exp(_WIDE.minus(gmpy2.mpfr(x, 53)))))


def to_odd(kind: str, operands: Sequence[float]) -> float:
    """MPFR's result toward zero, moved to odd where MPFR says that it is inexact."""
    if kind == "sigmoid":
        (x,) = operands
        if abs(x) < 2.0**-300:
            return 0.5 if x == 0 else math.nextafter(0.5, math.copysign(INFINITE, x))
        if 200 < abs(x) < INFINITE and not -700 < x < 0:
            return math.nextafter(1.0, 0.0) if x > 0 else to_odd("exp", (x,))  # e^x (1 - e^x), and e^x < 2^-1000
        result = _ZERO.plus(wide_sigmoid(x))
    else:
        result = getattr(_ZERO, kind)(*(gmpy2.mpfr(x, 53) for x in operands))
    z = float(result)
    if math.isfinite(z) and result.rc != 0 and not np.float64(z).view(np.uint64) & np.uint64(1):
        return math.nextafter(z, math.copysign(INFINITE, z))
    return z
