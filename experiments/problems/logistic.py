"""L2-regularised logistic regression on the breast-cancer data that scikit-learn ships.

F(w) = 1/n sum_i log(1 + exp(a_i . w)) + lambda/2 ||w||^2, a_i = -y_i x_i, y_i = +-1, x_i standardised; no intercept.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, final

import mpmath
import numpy as np
import numpy.typing as npt

from experiments import recipes, streams
from experiments.jit import kernel
from experiments.problems.base import Array, Problem, checked_integer, checked_real, gamma, outward, quiet, rounded_up
from experiments.problems.linear import column_sums, multiply
from experiments.problems.spectra import dense_spectral
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.tracing import column, gather, sigmoid, slot, step, total

FEATURES = 30
# Lanes at a time in the loss gap, so that its temporaries stay small.
_GAP_STRIP = 16
# Gauss-Legendre on (0, 1) with 8 nodes: x and weight times (1 - x), for the integral form of Taylor's remainder.
_POINTS = (0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363)
_WEIGHTS = (0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763)
_NODES = tuple(
    ((1.0 + sign * point) / 2.0, weight / 2.0 * (1.0 - sign * point) / 2.0)
    for point, weight in zip(_POINTS, _WEIGHTS, strict=True)
    for sign in (-1.0, 1.0)
)


def _mean(w: Any, weighted: Any, count: Any, regularization: Any) -> Any:
    """lambda w + (sum_i a_i p_i from the left) / n, with the terms a_i p_i."""
    mean = slot("mean", slot("data", total(slot("data.product", weighted), axis=0)) / count)
    return {"g": slot("sum", mean + slot("decay", regularization * w))}


@step(
    name="logistic",
    shapes={"rows": ("n", "d"), "columns": ("d", "n"), "count": (), "regularization": ()},
    shared=("rows", "columns", "count", "regularization"),
)
def _gradient(w: Any, rows: Any, columns: Any, count: Any, regularization: Any) -> Any:
    """m_i = a_i . w from the left, p_i = sigmoid(m_i), lambda w + (sum_i a_i p_i from the left) / n."""
    margins = slot("margin", total(slot("margin.product", columns * column(w)), axis=0))
    return _mean(w, rows * column(slot("slope", sigmoid(margins))), count, regularization)


@step(
    name="logistic minibatch",
    shapes={"rows": ("n", "d"), "index": ("b",), "count": (), "regularization": ()},
    shared=("rows", "count", "regularization"),
)
def _minibatch(w: Any, rows: Any, index: Any, count: Any, regularization: Any) -> Any:
    """The same operations on the rows that ``index`` picks, in its order; ``count`` is how many they are."""
    picked = slot("picked", gather(rows, index))
    margins = slot("margin", total(slot("margin.product", picked * w), axis=1))
    return _mean(w, picked * column(slot("slope", sigmoid(margins))), count, regularization)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Logistic(Problem):
    """See ``logistic``.

    Attributes
    ----------
    rows : [n, d], the a_i
    regularization : lambda
    optimum, optimum_low : [d], the minimiser as an unevaluated sum of two binary64 numbers
    certificate : F(optimum) - F* <= certificate, that is ||grad||^2 / (2 mu), rounded up
    """

    rows: Array
    columns: Array
    regularization: float
    optimum: Array
    optimum_low: Array
    optimum_margins: Array
    certificate: float

    @quiet
    def gradient(self, w: Array, out: Array | None = None) -> Array:
        """m_i = a_i . w from the left; p_i = sigmoid(m_i); lambda w + (sum_i a_i p_i from the left) / n."""
        out = self._arrays(w, out)
        margins, slopes = _scratch(len(self.rows), w.shape[1])
        multiply(self.rows, w, margins)
        multiply(self.columns, recipes.sigmoid(margins, out=slopes), out)
        out /= float(len(self.rows))
        out += self.regularization * w
        return out

    @quiet
    def minibatch_gradient(
        self, w: Array, step: int, runs: npt.ArrayLike, key: Key, batch: int = 16, out: Array | None = None
    ) -> Array:
        """The same operations on ``batch`` rows, in the order drawn (``experiments.streams.indices``)."""
        out = self._arrays(w, out)
        drawn = self._drawn(step, runs, key, batch)
        margins = np.empty(drawn.shape)
        _batch_margins(self.rows, w, drawn, margins)
        _batch_sums(self.rows, drawn, recipes.sigmoid(margins), out)
        out /= float(batch)
        out += self.regularization * w
        return out

    def minibatch_program(self, batch: int = 16) -> tuple[Program, Mapping[str, Array]]:
        constants = {name: self.constants[name] for name in ("rows", "regularization")}
        return _minibatch, constants | {"count": np.array(float(checked_integer("batch", batch, 1, len(self.rows))))}

    def minibatch_indices(self, steps: range, runs: npt.ArrayLike, key: Key, batch: int = 16) -> Array:
        return np.array([self._drawn(step, runs, key, batch) for step in steps], dtype=np.float64)

    def _drawn(self, step: int, runs: npt.ArrayLike, key: Key, batch: int) -> npt.NDArray[np.int64]:
        """[batch, len(runs)]"""
        shape = checked_integer("batch", batch, 1, len(self.rows)), len(np.asarray(runs))
        drawn = np.empty(shape, dtype=np.int64)
        streams.indices(streams.folded(key, streams.MINIBATCH), step, runs, len(self.rows), drawn)
        return drawn

    def gradient_error(self, w_abs_max: Array) -> Array:
        """Margin, sigmoid, sum, regulariser: every error bounded in absolute value.

        The margin errs by gamma(d) |a_i| . |w|; the sigmoid passes on a quarter and adds its own error. The sum over n
        or fewer rows, the division and the last addition add gamma(n + 3). The mean over rows is bounded by the worst
        row, so that every minibatch is covered.
        """
        size = np.abs(self.rows)
        sigmoid_error = 0.25 * gamma(self.dimension) * (size @ w_abs_max) + recipes.SIGMOID_ERROR + recipes.SIGMOID_TINY
        data = np.max(size * sigmoid_error[:, None], axis=0) + gamma(len(size) + 3) * np.max(size, axis=0)
        return outward(data * (1.0 + 2.0**-40) + gamma(2) * self.regularization * w_abs_max)

    def gradient_bound(self, w_abs_max: Array) -> Array:
        """lambda |w| + mean |a|: a sigmoid lies in (0, 1). This is for the full gradient, not for a minibatch."""
        return outward(self.regularization * w_abs_max + np.mean(np.abs(self.rows), axis=0))

    @quiet
    def loss_gap(self, w: Array) -> Array:
        """Mean Bregman divergence of log(1 + e^m) from the optimum's margins, plus lambda/2 ||w - w*||^2.

        The linear term is grad F(w*) . (w - w*) = 0 up to the certificate. A small divergence is the integral of
        (1 - x) t^2 sigmoid'(m + x t) over x in (0, 1), all of whose terms are positive.
        """
        strips = range(0, w.shape[1], _GAP_STRIP)
        return np.concatenate([self._gap(np.ascontiguousarray(w[:, at : at + _GAP_STRIP])) for at in strips])

    def _gap(self, w: Array) -> Array:
        shift = (w - self.optimum[:, None]) - self.optimum_low[:, None]
        t = np.empty((len(self.rows), w.shape[1]))
        multiply(self.rows, shift, t)
        # The divergence is even under (m, t) -> (-m, -t); with m <= 0 softplus(m) has full relative accuracy.
        t *= np.where(self.optimum_margins > 0.0, -1.0, 1.0)[:, None]
        m = -np.abs(self.optimum_margins)[:, None]
        near, clipped = np.zeros_like(t), np.clip(t, -1.0, 1.0)
        for node, weight in _NODES:
            s = recipes.sigmoid(m + node * clipped)
            near += weight * (s * (1.0 - s))
        far = recipes.softplus(m + t) - recipes.softplus(m) - recipes.sigmoid(m) * t
        divergence = np.where(np.abs(t) <= 1.0, near * t * t, far)
        return column_sums(divergence) / len(t) + 0.5 * self.regularization * column_sums(shift * shift)


_local = threading.local()


def _scratch(samples: int, lanes: int) -> tuple[Array, Array]:
    """Two arrays [samples, lanes], kept for each thread: fresh memory would cost more than the arithmetic."""
    kept: tuple[Array, Array] | None = getattr(_local, "arrays", None)
    if kept is None or kept[0].shape != (samples, lanes):
        kept = (np.empty((samples, lanes)), np.empty((samples, lanes)))
        _local.arrays = kept
    return kept


@functools.lru_cache(maxsize=8)
def logistic(dimension: int = FEATURES, *, regularization: float = 0.1) -> Logistic:
    """Logistic regression on the first ``dimension`` features (569 samples).

    L = lambda + lambda_max(A^T A / n) / 4 with a proven bound of the eigenvalue; mu = lambda.

    Parameters
    ----------
    dimension : 1..30
    regularization : lambda, 1e-6..1e6

    Raises
    ------
    ValueError
        Naming the option, its value and the admissible interval.

    Examples
    --------
    >>> problem = logistic()
    >>> round(problem.smoothness, 2), problem.strong_convexity
    (3.42, 0.1)
    """
    d = checked_integer("logistic dimension", dimension, 1, FEATURES)
    strength = checked_real("logistic regularization", regularization, 1e-6, 1e6)
    rows = np.ascontiguousarray(_data()[:, :d])
    point = _minimise(rows, strength)
    high = np.array([float(x) for x in point.minimiser])
    columns = np.ascontiguousarray(rows.T)
    largest = rounded_up(Fraction(strength) + Fraction(_largest_eigenvalue(rows)) / 4)
    dominating = np.abs(0.25 * _fsum_products(columns, columns) / len(rows)) + strength * np.eye(d)
    return Logistic(
        name="logistic",
        dimension=d,
        smoothness=largest,
        strong_convexity=strength,
        # A^T A / 4n + lambda I dominates every Hessian: sigmoid' <= 1/4.
        hessian_diagonal=outward(strength + 0.25 * np.mean(rows * rows, axis=0)),
        # Hessians are positive semidefinite, so their norm from the max norm to its dual is monotone
        spectral_smoothness=dense_spectral(dominating, largest, None),
        minimizer=high,
        minimum=math.nextafter(point.value, -math.inf),
        rows=rows,
        columns=columns,
        regularization=strength,
        optimum=high,
        optimum_low=np.array([float(x - hi) for x, hi in zip(point.minimiser, high.tolist(), strict=True)]),
        optimum_margins=point.margins,
        certificate=point.certificate,
        program=_gradient,
        program_default=False,
        constants={
            "rows": rows,
            "columns": columns,
            "count": np.array(float(len(rows))),
            "regularization": np.array(strength),
        },
    )


@functools.lru_cache(maxsize=1)
def _data() -> Array:
    """The a_i [569, 30]. Means and variances are exactly rounded sums, so the matrix has the same bits everywhere.

    The file is read where scikit-learn installed it; importing scikit-learn would take longer than the whole problem.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the logistic problem reads its data from scikit-learn, which is not installed")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "breast_cancer.csv"
    with path.open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    table = np.array(lines, dtype=np.float64)
    labels = np.where(table[:, -1] == 1.0, 1.0, -1.0)
    features = []
    for feature in table[:, :-1].T:
        centred = feature - math.fsum(feature) / len(feature)
        features.append(centred / math.sqrt(math.fsum(centred * centred) / len(feature)))
    return -labels[:, None] * np.stack(features, axis=1)


def _largest_eigenvalue(a: Array) -> float:
    """An upper bound of lambda_max(G), G = A^T A / n, from the trace of a power of it, sharp to d^(1/16) at worst.

    Entries are exactly rounded sums of rounded products: each of G errs by at most 4u sqrt(G_jj G_kk), altogether
    ||E||_F <= 4u tr G. With M = G scaled to a Frobenius norm <= 1, three squarings leave ||E_8||_F <= 16u on M^8
    (2.1u, then 2 * 2.1u + 2.2u, then 2 * 6.5u + 2.2u), and lambda_max(M)^8 <= ||M^8||_F.
    """
    n = len(a)
    gram = _fsum_products(a.T, a.T) / n
    trace = math.fsum(np.diag(gram))
    scale = 2.0 ** math.ceil(math.log2(trace) + 0.01)
    power = gram / scale
    for _ in range(3):
        power = _fsum_products(power, power)
    eighth = math.sqrt(math.fsum((power * power).ravel())) * (1.0 + 2.0**-50) + 16 * recipes.UNIT
    root = math.sqrt(math.sqrt(math.sqrt(eighth)))
    return (scale * root + 4 * recipes.UNIT * trace) * (1.0 + 2.0**-48)


def _fsum_products(x: Array, y: Array) -> Array:
    """x y^T with exactly rounded sums of rounded products."""
    return np.array([[math.fsum(row * other) for other in y] for row in x])


@dataclass(frozen=True)
class _Optimum:
    minimiser: list[mpmath.mpf]
    margins: Array
    value: float
    certificate: float


def _minimise(rows: Array, strength: float) -> _Optimum:
    """Newton's method: in binary64 to full accuracy, then in 50 digits with the binary64 Hessian."""
    n, d = rows.shape
    w = np.zeros(d)
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-(rows @ w)))
        hessian = (rows.T * (p * (1.0 - p))) @ rows / n + strength * np.eye(d)
        newton = np.linalg.solve(hessian, rows.T @ p / n + strength * w)
        w = w - newton
        if np.abs(newton).max() < 1e-13:
            break
    mp = mpmath.MPContext()  # of its own: the precision of the shared one belongs to all threads
    mp.dps = 50
    data = [[mp.mpf(x) for x in row] for row in rows.tolist()]
    transposed = list(zip(*data, strict=True))
    point, factor = [mp.mpf(x) for x in w.tolist()], mp.mpf(strength)
    for _ in range(10):
        margins = [mp.fdot(row, point) for row in data]
        slopes = [1 / (1 + mp.exp(-m)) for m in margins]
        slope = [mp.fdot(c, slopes) / n + factor * x for c, x in zip(transposed, point, strict=True)]
        norm = mp.sqrt(mp.fdot(slope, slope))
        if norm < mp.mpf(10) ** -40:
            break
        size = max(abs(x) for x in slope)
        newton = np.linalg.solve(hessian, np.array([float(x / size) for x in slope]))
        point = [x - size * mp.mpf(s) for x, s in zip(point, newton.tolist(), strict=True)]
    value = mp.fsum(mp.log1p(mp.exp(m)) for m in margins) / n + factor / 2 * mp.fdot(point, point)
    certificate = norm**2 / (2 * factor) + mp.mpf(10) ** -45
    at_optimum = np.array([float(m) for m in margins])
    return _Optimum(point, at_optimum, float(value - certificate), float(certificate * 2))


@kernel
def _batch_margins(rows: Array, w: Array, drawn: npt.NDArray[np.int64], out: Array) -> None:
    """out[j, l] = rows[drawn[j, l]] . w[:, l], added from the left."""
    column = np.empty(w.shape[0])
    for lane in range(w.shape[1]):
        for i in range(w.shape[0]):
            column[i] = w[i, lane]
        for j in range(drawn.shape[0]):
            sample = drawn[j, lane]
            total = 0.0
            for i in range(w.shape[0]):
                total += rows[sample, i] * column[i]
            out[j, lane] = total


@kernel
def _batch_sums(rows: Array, drawn: npt.NDArray[np.int64], weights: Array, out: Array) -> None:
    """out[i, l] = sum over j of rows[drawn[j, l], i] * weights[j, l], added from the left."""
    total = np.empty(rows.shape[1])
    for lane in range(out.shape[1]):
        total[:] = 0.0
        for j in range(drawn.shape[0]):
            sample, weight = drawn[j, lane], weights[j, lane]
            for i in range(total.shape[0]):
                total[i] += rows[sample, i] * weight
        for i in range(total.shape[0]):
            out[i, lane] = total[i]
