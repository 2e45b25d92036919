"""Spectra and minimisers of the synthetic problems, correctly rounded from their definitions."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import numpy.typing as npt

from experiments.problems.base import checked_integer, checked_real, outward

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


def shape_of(name: str, dimension: int, rows: int) -> tuple[int, int] | None:
    """The shape of weights that are a matrix of so many rows; None for ``rows`` = 0, a vector."""
    if not checked_integer(f"{name} rows", rows, 0, dimension):
        return None
    if dimension % rows:
        raise ValueError(f"{name} rows={rows} does not divide the dimension {dimension}")
    return rows, dimension // rows


def separable_spectral(curvature: Array, shape: tuple[int, int] | None) -> float:
    """max of sum_i h_i x_i^2 over |x| <= 1, |.| the spectral norm (the largest modulus of a vector), rounded up.

    Of a vector it is sum_i h_i. Rows and columns of a matrix of norm <= 1 have Euclidean norms <= 1, so the squares of
    its entries are doubly substochastic, and a linear function is largest over such matrices at a partial permutation
    (Birkhoff), which has norm 1 itself: the value is that of the best assignment. The same number bounds
    sum_i h_i |x_i| |y_i| for |x|, |y| <= 1 by Cauchy-Schwarz, hence the gradient's Lipschitz constant into the dual.

    Examples
    --------
    >>> h = np.array([2.0, 1.0, 1.0, 1.0])
    >>> [round(separable_spectral(h, shape), 6) for shape in (None, (2, 2), (1, 4))]
    [5.0, 3.0, 2.0]
    """
    if shape is None:
        return float(outward(np.sum(curvature) * (1.0 + 2.0**-30)))  # of up to 2^16 terms
    from scipy.optimize import linear_sum_assignment  # where needed: it costs a tenth of a second at start-up

    h = curvature.reshape(shape)
    # the search itself rounds: an assignment found is within a few hundred ulps of the best
    return float(outward(np.sum(h[linear_sum_assignment(h, maximize=True)]) * (1.0 + 2.0**-40)))


def dense_spectral(bound: Array, smoothness: float, shape: tuple[int, int] | None) -> float:
    """The same for Hessians with entries of at most ``bound`` [d, d] in modulus and norm at most L, rounded up.

    Of a vector, |x . H y| <= sum_ij |H_ij|; of a matrix, |X|_F^2 <= rank |X|^2 gives min(rows, columns) L.
    """
    if shape is None:
        return float(outward(np.sum(np.abs(bound)) * (1.0 + 2.0**-30)))
    return float(outward(np.array(min(shape) * smoothness)))
