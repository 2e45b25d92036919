"""The problems of the studies in 60 digits: F as its documentation writes it, its derivatives, and points to try."""

from __future__ import annotations

import functools
import itertools

import mpmath
import numpy as np

from experiments.problems.base import Problem
from fpsim.random_bits import Key

MP = mpmath.MPContext()
MP.dps = 60
KEY = Key(11)


def exact_loss(problem: Problem, w: list) -> mpmath.mpf:
    """F(w) as the documentation of the problem writes it."""
    if problem.name in ("quadratic", "rational", "dense_quadratic"):
        z = [x - MP.mpf(c) for x, c in zip(w, problem.center.tolist(), strict=True)]
    if problem.name == "quadratic":
        return MP.fsum(h * x * x for h, x in zip(problem.curvature.tolist(), z, strict=True)) / 2
    if problem.name == "rational":
        return MP.fsum(
            h / 2 * x**2 / (1 + x**2) for h, x in zip(map(MP.mpf, problem.curvature.tolist()), z, strict=True)
        )
    if problem.name == "dense_quadratic":
        return MP.fdot(z, [MP.fdot(map(MP.mpf, row), z) for row in problem.hessian.tolist()]) / 2
    if problem.name == "rosenbrock":
        columns = problem.dimension // problem.rows
        pairs = [(w[i], w[i + columns]) for i in range(problem.dimension - columns)]
        return MP.fsum(100 * (y - x * x) ** 2 + (1 - x) ** 2 for x, y in pairs)
    margins = [MP.fdot(row, w) for row in exact_rows(problem)]
    mean = MP.fsum(MP.log1p(MP.exp(m)) for m in margins) / len(margins)
    return mean + MP.mpf(problem.regularization) / 2 * MP.fdot(w, w)


@functools.lru_cache
def exact_rows(problem: Problem) -> list:
    return [[MP.mpf(x) for x in row] for row in problem.rows.tolist()]


def exact_gradient(problem: Problem, w: np.ndarray) -> list:
    """Central differences of F in 60 digits: error about 1e-26."""
    point, step = [MP.mpf(x) for x in w.tolist()], MP.mpf(10) ** -14

    def moved(i: int, by: mpmath.mpf) -> mpmath.mpf:
        return exact_loss(problem, [x + by if j == i else x for j, x in enumerate(point)])

    return [(moved(i, step) - moved(i, -step)) / (2 * step) for i in range(problem.dimension)]


def exact_hessian(problem: Problem, w: np.ndarray) -> np.ndarray:
    """Second differences of F: error about 1e-13."""
    point, step, d = [MP.mpf(x) for x in w.tolist()], MP.mpf(10) ** -14, problem.dimension

    def moved(*which: int) -> mpmath.mpf:
        return exact_loss(problem, [x + step * which.count(j) for j, x in enumerate(point)])

    base, first = moved(), [moved(i) for i in range(d)]
    hessian = np.zeros((d, d))
    for i, j in itertools.combinations_with_replacement(range(d), 2):
        hessian[i, j] = hessian[j, i] = float((moved(i, j) - first[i] - first[j] + base) / step**2)
    return hessian


def minimiser(problem: Problem) -> list:
    if problem.name == "rosenbrock":
        return [MP.mpf(1)] * problem.dimension
    if problem.name == "logistic":
        pairs = zip(problem.optimum.tolist(), problem.optimum_low.tolist(), strict=True)
        return [MP.mpf(high) + MP.mpf(low) for high, low in pairs]
    return [MP.mpf(c) for c in problem.center.tolist()]


def points(problem: Problem, count: int, seed: int = 0) -> np.ndarray:
    """Points in the box, some of them close to the minimiser."""
    rng = np.random.default_rng(seed)
    radius = problem.box or 2.0
    w = rng.uniform(-radius, radius, (problem.dimension, count))
    goal = np.array([float(x) for x in minimiser(problem)])
    w[:, ::3] = goal[:, None] + w[:, ::3] * 10.0 ** rng.uniform(-9, -1, w[:, ::3].shape[1])
    return np.ascontiguousarray(np.clip(w, -radius, radius))
