"""The matrix Rosenbrock function f(W) = sum_ij 100 (W_{i+1,j} - W_ij^2)^2 + (1 - W_ij)^2.

The Rosenbrock function has several forms in many variables; this matrix form is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import numpy as np

from experiments.problems.base import Array, Problem, checked_integer, checked_real, gamma, outward, quiet, rounded_up
from experiments.problems.linear import column_sums
from fpsim.tracing import gather, slot, step, where

_INDICES = ("upper", "lower", "above", "here")


@step(
    name="rosenbrock",
    shapes={"upper": ("p",), "lower": ("p",), "steepness": ()},
    shared=(*_INDICES, "first", "last", "steepness"),
)
def _gradient(
    w: Any, upper: Any, lower: Any, above: Any, here: Any, first: Any, last: Any, steepness: Any
) -> Any:  # fmt: skip
    """With x = W_i, y = W_{i+1}: t_i = 200 (y - x^2), g_i = t_{i-1} - (2x t_i + 2 (1 - x)).

    ``upper`` and ``lower`` pick x and y, ``above`` and ``here`` t_{i-1} and the rest of row i; what the ``first`` and
    the ``last`` row do not have is 0.
    """
    x, y = slot("x", gather(w, upper)), slot("y", gather(w, lower))
    t = slot("scaled", steepness * slot("residual", y - slot("square", x * x)))
    bent = slot("bent", slot("double", 2 * x) * t)
    pull = slot("pull", bent + slot("straight", 2 * slot("gap", 1 - x)))
    before, own = where(first, 0, gather(t, above)), where(last, 0, gather(pull, here))
    return {"g": slot("difference", before - own)}


def _constants(rows: int, columns: int) -> dict[str, Array]:
    """What the program picks with and selects by, for elements in the order of a rows x columns matrix."""
    d, pairs = rows * columns, (rows - 1) * columns
    element = np.arange(float(d))
    return {
        "upper": element[:pairs],
        "lower": element[columns:],
        "above": np.maximum(element - columns, 0.0),
        "here": np.minimum(element, pairs - 1.0),
        "first": np.where(element < columns, 1.0, 0.0),
        "last": np.where(element >= pairs, 1.0, 0.0),
        "steepness": np.array(200.0),
    }


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Rosenbrock(Problem):
    """See ``rosenbrock``."""

    rows: int

    @quiet
    def gradient(self, w: Array, out: Array | None = None) -> Array:
        """With x = W_i, y = W_{i+1}: t_i = 200 (y - x^2), g_i = t_{i-1} - (2x t_i + 2 (1 - x)); the last is t_{i-1}."""
        out = self._arrays(w, out)
        x = w.reshape(self.rows, -1, w.shape[1])
        g = out.reshape(x.shape)
        upper = x[:-1]
        t = 200.0 * (x[1:] - upper * upper)
        pull = 2.0 * upper * t + 2.0 * (1.0 - upper)
        np.negative(pull[0], out=g[0])
        np.subtract(t[:-1], pull[1:], out=g[1:-1])
        g[-1] = t[-1]
        return out

    def gradient_error(self, w_abs_max: Array) -> Array:
        """At most 6 roundings meet in one term (square, difference, 200, product with 2x, two sums); 8 are claimed.

        They are relative to the sum of the absolute values of all terms, which ``gradient_bound`` is.
        """
        return outward(gamma(8) * self.gradient_bound(w_abs_max))

    def gradient_bound(self, w_abs_max: Array) -> Array:
        x = np.asarray(w_abs_max, dtype=np.float64).reshape(self.rows, -1)
        t = 200.0 * (x[1:] + x[:-1] * x[:-1])
        bound = np.zeros_like(x)
        bound[1:] += t
        bound[:-1] += 2.0 * x[:-1] * t + 2.0 * (1.0 + x[:-1])
        return outward(bound.reshape(self.dimension))

    @quiet
    def loss_gap(self, w: Array) -> Array:
        """With e = w - 1, exact near the minimiser: y - x^2 = e_y - e_x (2 + e_x), harmless where it cancels."""
        e = w.reshape(self.rows, -1, w.shape[1]) - 1.0
        upper = e[:-1]
        residual = e[1:] - upper * (2.0 + upper)
        terms = 100.0 * residual * residual + upper * upper
        return column_sums(terms.reshape(-1, w.shape[1]))


def rosenbrock(dimension: int = 32, *, rows: int = 4, box: float = 1.5) -> Rosenbrock:
    """The matrix Rosenbrock function of a rows x (dimension / rows) matrix, i = 0 .. rows-2; columns are independent.

    F* = 0 at the matrix of ones. For 4 to 7 rows a local minimum with first row near -1 exists too.

    L by Gershgorin, for |W_ij| <= box = B: a row of the Hessian has on its diagonal at most 1200 B^2 + 400 B + 2 (its
    own term) + 200 (as y of the row above), and off it 400 B to the row below and 400 B to the row above:
    L = 1200 B^2 + 1200 B + 202.

    Parameters
    ----------
    dimension : a multiple of rows, rows..2^16; element i * columns + j is W_ij
    rows : 2..64
    box : 1..2^20

    Raises
    ------
    ValueError
        Naming the option, its value and the admissible interval.

    Examples
    --------
    >>> problem = rosenbrock(2, rows=2)
    >>> problem.gradient(np.zeros((2, 1))).ravel(), problem.smoothness
    (array([-2.,  0.]), 4702.0)
    """
    rows = checked_integer("rosenbrock rows", rows, 2, 64)
    d = checked_integer("rosenbrock dimension", dimension, rows, 1 << 16)
    if d % rows:
        raise ValueError(f"rosenbrock dimension={d} is outside the multiples of rows={rows}")
    bound = checked_real("rosenbrock box", box, 1.0, 2.0**20)
    largest = 1200 * Fraction(bound) ** 2 + 1200 * Fraction(bound) + 202
    return Rosenbrock(
        name="rosenbrock",
        dimension=d,
        smoothness=rounded_up(largest),
        minimizer=np.ones(d),
        spectral_smoothness=rounded_up(d * largest),  # every row of a Hessian sums to at most L in modulus
        strong_convexity=0.0,
        box=bound,
        rows=rows,
        shape=(rows, d // rows),
        program=_gradient,
        program_default=False,
        constants=_constants(rows, d // rows),
    )
