"""Logistic regression: its data, its optimum, and the gradients of minibatches."""

from __future__ import annotations

import numpy as np
import pytest
from exact_problems import KEY, MP, exact_loss, exact_rows, minimiser, points

from experiments import recipes, streams
from experiments.problems import PROBLEMS


def test_the_data_is_that_of_scikit_learn():
    from sklearn.datasets import load_breast_cancer

    features, target = load_breast_cancer(return_X_y=True)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = -np.where(target == 1, 1.0, -1.0)[:, None] * standardised
    assert PROBLEMS["logistic"]().rows == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_full_logistic_problem():
    """All 30 features: certificate of the optimum, L against the Hessian at 0 (where it is largest), gradient error."""
    problem = PROBLEMS["logistic"]()
    optimum = minimiser(problem)
    rows, factor = exact_rows(problem), MP.mpf(problem.regularization)

    def gradient(w):
        slopes = [1 / (1 + MP.exp(-MP.fdot(row, w))) for row in rows]
        return [MP.fdot(c, slopes) / len(rows) + factor * x for c, x in zip(zip(*rows, strict=True), w, strict=True)]

    slope = gradient(optimum)
    # the optimum as two binary64 numbers: its last bit is 1e-33, so is its gradient
    assert MP.fdot(slope, slope) / (2 * factor) <= 1e-60
    assert problem.certificate <= 1e-40
    least = exact_loss(problem, optimum)
    assert 0 <= least - MP.mpf(problem.minimum) <= 1e-15
    largest = 0.25 * np.linalg.eigvalsh(problem.rows.T @ problem.rows / len(rows)).max() + problem.regularization
    assert 1.0 - 1e-12 <= problem.smoothness / largest <= 1.0 + 1e-6
    for column in points(problem, 3).T:
        got, exact = problem.gradient(np.ascontiguousarray(column[:, None]))[:, 0], gradient(column.tolist())
        error = problem.gradient_error(np.abs(column))
        assert all(abs(MP.mpf(g) - e) <= b for g, e, b in zip(got.tolist(), exact, error.tolist(), strict=True))


def test_minibatches_are_means_over_the_rows_drawn():
    problem = PROBLEMS["logistic"]()
    w, runs, step = points(problem, 20), np.arange(100, 120, dtype=np.uint64), 77
    got = problem.minibatch_gradient(w, step, runs, KEY)
    drawn = np.empty((16, 20), dtype=np.int64)
    streams.indices(KEY.fold(streams.MINIBATCH), step, runs, 569, drawn)
    for lane in range(20):
        rows, total = problem.rows[drawn[:, lane]], np.zeros(30)
        margins = np.zeros(16)
        for i in range(30):
            margins += rows[:, i] * w[i, lane]
        for row, slope in zip(rows, recipes.sigmoid(margins), strict=True):
            total += row * slope
        assert np.array_equal(got[:, lane], total / 16.0 + 0.1 * w[:, lane])
    order = np.random.default_rng(5).permutation(20)
    assert np.array_equal(
        problem.minibatch_gradient(np.ascontiguousarray(w[:, order]), step, runs[order], KEY), got[:, order]
    )
    assert not np.array_equal(problem.minibatch_gradient(w, step + 1, runs, KEY), got)


def test_minibatch_gradients_err_by_less_than_the_bound():
    problem = PROBLEMS["logistic"]()
    w, runs = points(problem, 4), np.arange(4)
    got = problem.minibatch_gradient(w, 3, runs, KEY)
    drawn = np.empty((16, 4), dtype=np.int64)
    streams.indices(KEY.fold(streams.MINIBATCH), 3, runs, 569, drawn)
    rows = exact_rows(problem)
    for lane in range(4):
        point = w[:, lane].tolist()
        slopes = [1 / (1 + MP.exp(-MP.fdot(rows[i], point))) for i in drawn[:, lane]]
        error = problem.gradient_error(np.abs(w[:, lane]))
        for j, x in enumerate(point):
            mean = MP.fsum(rows[i][j] * s for i, s in zip(drawn[:, lane], slopes, strict=True)) / 16
            exact = mean + MP.mpf(problem.regularization) * MP.mpf(x)
            assert abs(MP.mpf(got[j, lane]) - exact) <= error[j]


def test_minibatch_gradients_average_to_the_gradient():
    problem = PROBLEMS["logistic"]()
    w = np.tile(points(problem, 1), (1, 4000))
    sample = problem.minibatch_gradient(w, 0, np.arange(4000), KEY)
    spread = sample.std(axis=1) / np.sqrt(4000)
    assert (np.abs(sample.mean(axis=1) - problem.gradient(w[:, :1].copy())[:, 0]) < 4.5 * spread).all()
