"""The diagonal quadratic f(w) = 1/2 sum_i h_i (w_i - c_i)^2, whose gradient is a program of two operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from experiments.problems.base import Array, Problem, checked_integer, checked_real, gamma, outward, quiet
from experiments.problems.linear import column_sums
from experiments.problems.spectra import center_of, separable_spectral, shape_of, spectrum_of
from fpsim.tracing import slot, step


@step(name="quadratic")
def _gradient(w: Any, center: Any, curvature: Any) -> Any:
    """g = h (w - c)."""
    return {"g": slot("scale", curvature * slot("difference", w - center))}


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Quadratic(Problem):
    """See ``quadratic``."""

    curvature: Array
    center: Array

    @quiet
    def gradient(self, w: Array, out: Array | None = None) -> Array:
        """h_i * (w_i - c_i): one subtraction, one product."""
        out = self._arrays(w, out)
        np.subtract(w, self.center[:, None], out=out)
        np.multiply(self.curvature[:, None], out, out=out)
        return out

    def gradient_error(self, w_abs_max: Array) -> Array:
        return outward(gamma(2) * self.curvature * (w_abs_max + np.abs(self.center)))

    def gradient_bound(self, w_abs_max: Array) -> Array:
        return outward(self.curvature * (w_abs_max + np.abs(self.center)))

    @quiet
    def loss_gap(self, w: Array) -> Array:
        """1/2 sum h z^2; z = w - c is exact where it is small (Sterbenz)."""
        z = w - self.center[:, None]
        return 0.5 * column_sums(self.curvature[:, None] * z * z)


def quadratic(
    dimension: int = 32,
    *,
    spectrum: str = "uniform",
    condition: float = 10.0,
    smoothness: float = 1.0,
    center: str = "thirds",
    rows: int = 0,
    start: float = 0.125,
    size: float = 1.0,
) -> Quadratic:
    """The diagonal quadratic.

    Parameters
    ----------
    dimension : 1..2^16
    spectrum : ``uniform``, ``geometric`` or ``isotropic``; h_0 = smoothness, h_{d-1} = smoothness / condition
    center : ``thirds``, ``grid`` or ``zero`` (see ``experiments.problems.spectra.center_of``)
    rows : of the matrix that the weights are; 0: they are a vector
    start : weights start uniform in (-start size, start size)
    size : 2^-60..2^60, multiplies minimiser and start points: how large the weights are

    Raises
    ------
    ValueError
        Naming the option, its value and the admissible interval.

    Examples
    --------
    >>> problem = quadratic(2, condition=4.0, center="grid")
    >>> problem.gradient(np.array([[2.0], [0.0]])).ravel()
    array([0.5  , 0.375])
    """
    d = checked_integer("quadratic dimension", dimension, 1, 1 << 16)
    h = spectrum_of("quadratic", spectrum, d, smoothness, condition)
    scale = checked_real("quadratic size", size, 2.0**-60, 2.0**60)
    c = scale * center_of("quadratic", center, d)
    shape = shape_of("quadratic", d, rows)
    return Quadratic(
        name="quadratic",
        dimension=d,
        smoothness=float(h.max()),
        strong_convexity=float(h.min()),
        separable=True,
        curvature=h,
        hessian=h,
        center=c,
        minimizer=c,
        shape=shape,
        spectral_smoothness=separable_spectral(h, shape),
        start_scale=checked_real("quadratic start", start, 2.0**-100, 2.0**100) * scale,
        program=_gradient,
        constants={"center": c, "curvature": h},
    )
