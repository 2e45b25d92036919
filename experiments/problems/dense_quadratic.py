"""The dense quadratic f(w) = 1/2 (w - c)^T H (w - c): a chosen spectrum in a rotated basis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import numpy as np
import numpy.typing as npt

from experiments.problems.base import Array, Problem, checked_integer, gamma, outward, quiet
from experiments.problems.linear import column_sums, multiply
from experiments.problems.spectra import center_of, dense_spectral, shape_of, spectrum_of
from experiments.recipes import UNIT
from experiments.streams import ROTATION
from fpsim.random_bits import Key, philox4x32
from fpsim.tracing import column, slot, step, total

_REFLECTIONS = 3


@step(name="dense_quadratic", shapes={"hessian": ("d", "d")}, shared=("center", "hessian"))
def _gradient(w: Any, center: Any, hessian: Any) -> Any:
    """g_i = sum over j = 0, 1, .. of H_ij (w_j - c_j), from the left. H_ij is read as H_ji, which it equals."""
    z = slot("difference", w - center)
    return {"g": slot("sum", total(slot("product", hessian * column(z)), axis=0))}


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class DenseQuadratic(Problem):
    """See ``dense_quadratic``."""

    hessian: Array
    center: Array

    @quiet
    def gradient(self, w: Array, out: Array | None = None) -> Array:
        """z = w - c, then (H z)_i summed over j = 0, 1, .. from the left."""
        out = self._arrays(w, out)
        multiply(self.hessian, w - self.center[:, None], out)
        return out

    def gradient_error(self, w_abs_max: Array) -> Array:
        return outward(gamma(self.dimension + 1) * self.gradient_bound(w_abs_max))

    def gradient_bound(self, w_abs_max: Array) -> Array:
        return outward(np.abs(self.hessian) @ (w_abs_max + np.abs(self.center)))

    @quiet
    def loss_gap(self, w: Array) -> Array:
        """1/2 z^T (H z); its relative error is below about condition * d * u."""
        z = w - self.center[:, None]
        product = np.empty_like(z)
        multiply(self.hessian, z, product)
        return 0.5 * column_sums(z * product)


def dense_quadratic(
    dimension: int = 32,
    *,
    spectrum: str = "uniform",
    condition: float = 10.0,
    smoothness: float = 1.0,
    center: str = "thirds",
    rotation: int = 0,
    rows: int = 0,
) -> DenseQuadratic:
    """The diagonal quadratic's spectrum, rotated by three Householder reflections.

    H is Q diag(h) Q^T computed exactly and rounded entry by entry to binary64; that binary64 matrix *is* the problem.
    Rounding moves no eigenvalue by more than ||dH||_F <= u ||H||_F <= u sqrt(d) L, and L and mu allow for it.

    Parameters
    ----------
    dimension : 1..512
    spectrum, condition, smoothness, center : as for ``quadratic``
    rotation : 0..2^64-1, the seed of the reflections
    rows : of the matrix that the weights are; 0: they are a vector

    Raises
    ------
    ValueError
        Naming the option, its value and the admissible interval.

    Examples
    --------
    >>> problem = dense_quadratic(4)
    >>> bool((problem.hessian == problem.hessian.T).all()), problem.separable
    (True, False)
    """
    d = checked_integer("dense_quadratic dimension", dimension, 1, 512)
    h = spectrum_of("dense_quadratic", spectrum, d, smoothness, condition)
    moved = math.sqrt(d) * float(h.max()) * UNIT * (1.0 + 2.0**-40)
    hessian = _rotated(h, Key(rotation).fold(ROTATION))
    c = center_of("dense_quadratic", center, d)
    shape, largest = shape_of("dense_quadratic", d, rows), math.nextafter(float(h.max()) + moved, math.inf)
    return DenseQuadratic(
        name="dense_quadratic",
        dimension=d,
        smoothness=largest,
        strong_convexity=max(0.0, math.nextafter(float(h.min()) - moved, 0.0)),
        hessian=hessian,
        hessian_diagonal=np.diag(hessian).copy(),
        center=c,
        minimizer=c,
        shape=shape,
        spectral_smoothness=dense_spectral(hessian, largest, shape),
        program=_gradient,
        program_default=False,
        constants={"center": c, "hessian": hessian},
    )


def _rotated(h: Array, key: Key) -> Array:
    """Q diag(h) Q^T in integers, then one rounding an entry.

    Q = P_1 P_2 P_3, P = I - 2 v v^T / s, s = v^T v, with the entries of v drawn from +-1 .. +-8. In integers,
    s^2 P A P = s^2 A - 2 s (v a^T + a v^T) + 4 b v v^T with a = A v, b = v^T a.
    """
    d = len(h)
    exact = [Fraction(value) for value in h.tolist()]
    denominator = math.lcm(*(value.denominator for value in exact))
    matrix: npt.NDArray[np.object_] = np.full((d, d), 0, dtype=object)
    matrix[np.arange(d), np.arange(d)] = [int(value * denominator) for value in exact]
    for reflection in range(_REFLECTIONS):
        word = philox4x32(np.arange(d), 0, 0, reflection, key)[0]
        size, sign = (word >> 29).astype(int) + 1, np.where(word & 1, -1, 1)
        v = (size * sign).astype(object)
        s, a = v @ v, matrix @ v
        matrix = s * s * matrix - 2 * s * (np.outer(v, a) + np.outer(a, v)) + 4 * (v @ a) * np.outer(v, v)
        denominator *= s * s
    # int / int is correctly rounded in Python
    return np.array([[entry / denominator for entry in row] for row in matrix.tolist()])
