"""What is kept of a run besides its floor: consecutive steps, other norms, the minimiser and the matrix."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fpsim
from experiments import simulate
from experiments.history import COORDINATES, SEEDS, STEPS
from experiments.problems import PROBLEMS
from experiments.study import Study
from experiments.trajectory import Trajectory


def windows(**fields: Any) -> list[Any]:
    study = Study(
        **{
            "optimizer": "adam",
            "problem": "quadratic",
            "seeds": 3,
            "steps": 160,
            "mantissa": "4,10",
            "rounding": "nearest_even",
        }
        | fields
    )
    return simulate.windows(study.cells())


@pytest.mark.parametrize("gradient", ["rounded", "exact"])
@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
def test_the_history_is_the_run(gradient: str, rounding: str) -> None:
    """Against the states after single steps of a trajectory of its own, which keeps nothing."""
    study = Study(optimizer="adam", problem="quadratic", rounding=rounding, gradient=gradient, seeds=3, steps=160,
                  mantissa="4,10", dimension=6)  # fmt: skip
    cells = study.cells()
    found = simulate.windows(cells)
    run = Trajectory(cells, PROBLEMS["quadratic"](dimension=6))
    run.advance(found[0].history_first)
    picked = [0, 2, 3, 5]
    for k in range(STEPS + 1):
        for block, window in enumerate(found):
            assert window.history_first == window.first_step == 96
            for name in ("w", "m", "v"):
                expected = run.machine.values(name)[block][picked][:, :SEEDS]
                assert np.array_equal(window.history[name][k], expected), (name, k)
        run.advance(1)
    assert found[0].history["w"].shape == (STEPS + 1, COORDINATES, SEEDS)
    assert found[0].history["g"].shape == found[0].history["update.div"].shape == (STEPS, COORDINATES, SEEDS)


def test_the_slots_of_the_history_fit_together() -> None:
    """w.sub is the rounded difference of w before the step and update.scale, and so on."""
    for window in windows(rounding="nearest_even"):
        h, fmt = window.history, window.slots["w.sub"][0]
        assert np.array_equal(h["w"][1:], fpsim.sub(h["w"][:-1], h["update.scale"], fmt, "nearest_even"))
        assert np.array_equal(h["v.square"], fpsim.mul(h["g"], h["g"], fmt, "nearest_even"))
        decay = fpsim.mul(h["v"][:-1], window.scalars["scalar.beta2"], fmt, "nearest_even")
        assert np.array_equal(h["v.decay"], decay)
        assert np.array_equal(h["v"][1:], h["v.add"])
        assert not any(name.startswith("gradient.") for name in h)


def test_keeping_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = windows(rounding="stochastic")
    monkeypatch.setattr(simulate, "STEPS", 1)
    for one, other in zip(plain, windows(rounding="stochastic"), strict=True):
        assert len(other.history["g"]) == 1
        for name in ("end", "squared_gradient", "max_abs", "underflow"):
            assert repr(getattr(one, name)) == repr(getattr(other, name)), name


def test_a_short_window_keeps_what_it_has() -> None:
    for steps, expected in ((1, 1), (3, 3), (40, 40), (100, 64)):
        assert len(windows(steps=steps)[0].history["g"]) == expected


def test_samples_of_other_norms() -> None:
    """Every step of the window is a sample here, so they can be computed again from the history of all coordinates."""
    (window,) = windows(mantissa=10, dimension=4, options={"rows": 2}, steps=128, rounding="nearest_even", seeds=2,
                        optimizer="adam", noise="none")  # fmt: skip
    assert window.shape == (2, 2)
    problem = PROBLEMS["quadratic"](dimension=4, rows=2)
    assert window.minimizer is not None and np.array_equal(window.minimizer, problem.center)
    h = window.history
    for k in range(64):
        g, m = problem.gradient(np.ascontiguousarray(h["w"][k])), h["m"][k + 1]
        for name, x in (("gradient", g), ("m", m)):
            matrices = x.T.reshape(-1, 2, 2)
            assert window.samples[f"l1_{name}"][k] == pytest.approx(np.abs(x).sum(axis=0), rel=1e-14)
            nuclear = [np.linalg.svd(matrix, compute_uv=False).sum() for matrix in matrices]
            assert window.samples[f"nuclear_{name}"][k] == pytest.approx(nuclear, rel=1e-12)
        distance = np.sum((h["w"][k] - problem.center[:, None]) ** 2, axis=0)
        assert window.samples["squared_distance"][k] == pytest.approx(distance, rel=1e-13)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "sequence"])
def test_the_spectral_smoothness_and_the_minimiser_of_a_problem(name: str) -> None:
    """The descent inequality and the dual Lipschitz constant at random pairs; of a matrix in the spectral norm."""
    draw = np.random.default_rng(3)
    for options in ({}, {"rows": 2}):
        if options and name not in ("quadratic", "rational", "dense_quadratic"):
            continue
        problem = PROBLEMS[name](dimension=6, **options) if name != "rosenbrock" else PROBLEMS[name](6, rows=2)
        assert problem.spectral_smoothness is not None
        assert problem.minimizer is not None
        at_best = problem.gradient(np.ascontiguousarray(problem.minimizer[:, None]))
        assert np.abs(at_best).max() <= 1e-12 * problem.smoothness
        x, y = (draw.uniform(-1, 1, (6, 300)) * 10.0 ** draw.uniform(-3, 0, 300) for _ in range(2))
        y += x
        y = np.clip(y, -1.5, 1.5)
        change = problem.gradient(x) - problem.gradient(y)
        size, dual = np.abs(x - y).max(axis=0), np.abs(change).sum(axis=0)
        if problem.shape:
            values = np.linalg.svd((x - y).T.reshape(-1, *problem.shape), compute_uv=False)
            size = values[:, 0]
            dual = np.linalg.svd(change.T.reshape(-1, *problem.shape), compute_uv=False).sum(axis=1)
        assert np.all(dual <= problem.spectral_smoothness * size * (1 + 1e-9))
        gap = problem.loss_gap(y) - problem.loss_gap(x) - np.sum(problem.gradient(x) * (y - x), axis=0)
        scale = 1e-9 * (problem.loss_gap(x) + problem.loss_gap(y))
        assert np.all(gap <= problem.spectral_smoothness * size**2 / 2 + scale)


def test_the_spectral_smoothness_of_a_separable_matrix_is_attained() -> None:
    problem = PROBLEMS["quadratic"](dimension=6, rows=2)
    h = problem.curvature.reshape(2, 3)
    best = max(h[0, i] + h[1, j] for i in range(3) for j in range(3) if i != j)
    assert problem.spectral_smoothness == pytest.approx(best, rel=1e-9)
    assert problem.spectral_smoothness >= best


@pytest.mark.parametrize("rows", [-1, 4, 7, 2.0])
def test_rows_that_make_no_matrix_are_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match="quadratic rows"):
        PROBLEMS["quadratic"](dimension=6, rows=rows)


def test_a_norm_of_what_is_not_finite_is_not_a_number() -> None:
    from experiments.norms import lengths

    x = np.array([[1.0, np.inf], [0.0, 1.0], [0.0, 0.0], [2.0, 1.0]])
    assert lengths((2, 2))["nuclear"](x)[0] == 3.0
    assert np.isnan(lengths((2, 2))["nuclear"](x)[1])
    assert list(lengths(None)) == ["l1"]


def test_windows_of_before_can_still_be_made() -> None:
    """All new fields have a default, so that a window can be replaced field by field."""
    (window,) = windows(mantissa=10)
    assert dataclasses.replace(window, history={}, samples={}).history == {}
