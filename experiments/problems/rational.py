"""The rational non-convex function f(w) = sum_i a_i z_i^2 / (1 + z_i^2), z = w - c; its gradient is a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from experiments.problems.base import Array, Problem, checked_integer, checked_real, gamma, outward, quiet
from experiments.problems.linear import column_sums
from experiments.problems.spectra import center_of, separable_spectral, shape_of, spectrum_of
from fpsim.tracing import slot, step

# max over z of z / (1 + z^2)^2, attained at z^2 = 1/3: 3 sqrt(3) / 16 = 0.32475952..
_STEEPEST = 0.3247596


@step(name="rational")
def _gradient(w: Any, center: Any, twice_scale: Any) -> Any:
    """g = 2 a z / (1 + z^2)^2, z = w - c."""
    z = slot("difference", w - center)
    one_plus = slot("one_plus", slot("square", z * z) + 1)
    denominator = slot("denominator", one_plus * one_plus)
    return {"g": slot("ratio", slot("numerator", twice_scale * z) / denominator)}


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Rational(Problem):
    """See ``rational``."""

    curvature: Array
    center: Array

    @quiet
    def gradient(self, w: Array, out: Array | None = None) -> Array:
        """The operations of the program, in its order."""
        out = self._arrays(w, out)
        z = np.subtract(w, self.center[:, None], out=out)
        denominator = z * z
        denominator += 1.0
        denominator *= denominator
        np.multiply(self.curvature[:, None], z, out=out)
        np.divide(out, denominator, out=out)
        return out

    def gradient_error(self, w_abs_max: Array) -> Array:
        """10u of the gradient to first order; gamma(16) is claimed.

        z errs by u and enters with the factor |1 - 4 z^2 / (1 + z^2)| <= 3: 3u. The square is off by u, 1 + z^2 by 2u,
        its square by 5u; product and quotient add 2u.
        """
        return outward(gamma(16) * self.gradient_bound(w_abs_max))

    def gradient_bound(self, w_abs_max: Array) -> Array:
        z = w_abs_max + np.abs(self.center)
        return outward(self.curvature * np.minimum(z, _STEEPEST))

    @quiet
    def loss_gap(self, w: Array) -> Array:
        """f itself: F* = 0, and every term is positive."""
        z = w - self.center[:, None]
        square = z * z
        terms = square / (1.0 + square)
        return column_sums(0.5 * self.curvature[:, None] * terms)


def rational(
    dimension: int = 32,
    *,
    spectrum: str = "uniform",
    condition: float = 10.0,
    smoothness: float = 1.0,
    center: str = "thirds",
    rows: int = 0,
    start: float = 0.125,
) -> Rational:
    """The rational function; 2 a_i is the curvature at the minimiser and the largest |f''| anywhere.

    Parameters
    ----------
    dimension : 1..2^16
    spectrum : of the curvatures 2 a_i: ``uniform``, ``geometric`` or ``isotropic``
    center : ``thirds``, ``grid`` or ``zero``. The textbook function is ``zero``. A study shifts it, because a
        floating-point grid refines without limit at the origin: every method then creeps on through smaller and smaller
        numbers, and there is no floor to measure.
    rows : of the matrix that the weights are; 0: they are a vector
    start : weights start uniform in (-start, start)

    Raises
    ------
    ValueError
        Naming the option, its value and the admissible interval.

    Examples
    --------
    >>> problem = rational(1, center="zero")
    >>> float(problem.gradient(np.array([[1.0]]))[0, 0]), float(problem.loss_gap(np.array([[1.0]]))[0])
    (0.25, 0.25)
    """
    d = checked_integer("rational dimension", dimension, 1, 1 << 16)
    h = spectrum_of("rational", spectrum, d, smoothness, condition)
    c = center_of("rational", center, d)
    shape = shape_of("rational", d, rows)
    return Rational(
        name="rational",
        dimension=d,
        smoothness=float(h.max()),
        strong_convexity=0.0,
        separable=True,
        curvature=h,
        center=c,
        minimizer=c,
        shape=shape,
        spectral_smoothness=separable_spectral(h, shape),
        start_scale=checked_real("rational start", start, 2.0**-100, 2.0**100),
        program=_gradient,
        constants={"center": c, "twice_scale": h},
    )
