"""Spectra and minimisers of the synthetic problems, correctly rounded from their definitions."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import numpy.typing as npt

from experiments.problems.base import checked_real

Array = npt.NDArray[np.float64]

SPECTRA = ("uniform", "geometric", "isotropic")
# Both families lie inside one binade and away from its ends, with alternating signs.
CENTERS = {
    "thirds": (4 / 3, -5 / 3, 5 / 3, -4 / 3),
    "grid": (1.5, -1.5),
}


def spectrum_of(name: str, spectrum: str, dimension: int, smoothness: float, condition: float) -> Array:
    """Eigenvalues [d] from L down to L / condition.

    ``uniform``: equidistant. ``geometric``: constant ratio. ``isotropic``: all L (``condition`` is not used).
    """
    if spectrum not in SPECTRA:
        raise ValueError(f"{name} spectrum={spectrum!r}; admissible: {', '.join(SPECTRA)}")
    top = Fraction(checked_real(f"{name} smoothness", smoothness, 2.0**-100, 2.0**100))
    ratio = 1 / Fraction(checked_real(f"{name} condition", condition, 1.0, 2.0**40))
    last = max(dimension - 1, 1)
    if spectrum == "isotropic":
        values = [float(top)] * dimension
    elif spectrum == "uniform":
        values = [float(top * (1 - (1 - ratio) * Fraction(i, last))) for i in range(dimension)]
    else:
        context = mpmath.MPContext()  # of its own: the precision of the shared one belongs to all threads
        context.prec = 200
        base = context.mpf(ratio.numerator) / ratio.denominator
        values = [float(smoothness * base ** (context.mpf(i) / last)) for i in range(dimension)]
    return np.array(values)


def center_of(name: str, center: str, dimension: int) -> Array:
    """The minimiser [d].

    ``thirds``: 4/3, -5/3, 5/3, -4/3, .. rounded to binary64. A third is 0.010101.. in binary, so the minimiser lies one
    third of the gap from a neighbour in *every* narrow format: no width can hit it, and none is favoured.
    ``grid``: 1.5, -1.5, .., a member of every format with a mantissa bit. There stochastic rounding without gradient
    noise is absorbed: once w = c the gradient is exactly 0 and stays 0, so no floor can be measured.
    ``zero``: the origin, where every grid refines without limit.
    """
    if center == "zero":
        return np.zeros(dimension)
    if center not in CENTERS:
        raise ValueError(f"{name} center={center!r}; admissible: {', '.join(CENTERS)}, zero")
    return np.resize(np.array(CENTERS[center]), dimension)
