"""Every problem keeps the laws of ``Problem``; the reference is F itself in 60 digits, and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from exact_problems import KEY, MP, exact_gradient, exact_hessian, exact_loss, minimiser, points

from experiments.problems import PROBLEMS
from fpsim.random_bits import Key

# name, options: the default of every problem, and the variants that take other branches
CASES = [
    ("quadratic", {}),
    ("quadratic", {"dimension": 5, "spectrum": "geometric", "condition": 1000.0, "smoothness": 3.0, "center": "grid"}),
    ("quadratic", {"dimension": 3, "spectrum": "isotropic", "center": "zero"}),
    ("dense_quadratic", {}),
    ("dense_quadratic", {"dimension": 7, "spectrum": "geometric", "condition": 100.0, "center": "grid", "rotation": 3}),
    ("rational", {}),
    ("rational", {"dimension": 6, "spectrum": "isotropic", "center": "zero"}),
    ("rosenbrock", {"dimension": 12}),
    ("rosenbrock", {"dimension": 6, "rows": 2, "box": 1.25}),
    ("logistic", {"dimension": 6}),
    ("logistic", {"dimension": 3, "regularization": 0.01}),
]
IDS = [f"{name}-{len(options)}{options.get('dimension', '')}" for name, options in CASES]
PROBLEM_LIST = [PROBLEMS[name](**options) for name, options in CASES]
every = pytest.mark.parametrize("problem", PROBLEM_LIST, ids=IDS)


@every
def test_the_gradient_errs_by_less_than_its_bound(problem):
    w = points(problem, 6)
    for column, got in zip(w.T, problem.gradient(w).T, strict=True):
        error, bound = problem.gradient_error(np.abs(column)), problem.gradient_bound(np.abs(column))
        for i, exact in enumerate(exact_gradient(problem, column)):
            assert abs(MP.mpf(got[i]) - exact) <= MP.mpf(error[i]) + MP.mpf(10) ** -22
            assert abs(exact) <= bound[i]
        assert (error <= 1e-11 * (1.0 + bound)).all()  # and the bound is worth having


# by differences a Hessian takes d^2 evaluations of F, so the smaller variants only
@pytest.mark.parametrize(
    "problem", [p for p in PROBLEM_LIST if p.dimension <= 12], ids=lambda p: f"{p.name}-{p.dimension}"
)
def test_the_hessian_lies_between_mu_and_l(problem):
    tightest = 0.0
    for column in points(problem, 4, seed=1).T:
        hessian = exact_hessian(problem, column)
        eigenvalues = np.linalg.eigvalsh(hessian)
        slack = 1e-9 * problem.smoothness  # of the differences, not of the claim
        assert np.abs(eigenvalues).max() <= problem.smoothness + slack
        assert eigenvalues.min() >= problem.strong_convexity - slack or problem.strong_convexity == 0.0
        tightest = max(tightest, np.abs(eigenvalues).max() / problem.smoothness)
        if problem.separable:
            assert np.abs(hessian - np.diag(np.diag(hessian))).max() <= slack
            assert (np.abs(np.diag(hessian)) <= problem.curvature + slack).all()
    assert tightest >= (0.05 if problem.name == "rosenbrock" else 0.2)


@every
def test_the_loss_gap_is_accurate_however_small(problem):
    """Gaps from about 1e-20 to 1, approached from random directions and from the flattest one."""
    rng, goal = np.random.default_rng(2), minimiser(problem)
    least = exact_loss(problem, goal)
    near = np.array([float(x) for x in goal])
    w = np.stack([near + 10.0**-k * rng.normal(size=len(near)) for k in range(10)], axis=1)
    if problem.name == "dense_quadratic":
        w[:, 1] = near + 1e-6 * np.linalg.eigh(problem.hessian)[1][:, 0]
    gaps = problem.loss_gap(w)
    for column, got in zip(w.T, gaps, strict=True):
        exact = exact_loss(problem, [MP.mpf(x) for x in column.tolist()]) - least
        assert abs(MP.mpf(got) - exact) <= 1e-12 * exact
    assert gaps.min() < 1e-14
    assert problem.loss_gap(near[:, None])[0] <= 1e-30


@every
def test_the_minimum_is_enclosed(problem):
    least = exact_loss(problem, minimiser(problem))
    assert MP.mpf(problem.minimum) <= least
    assert least - MP.mpf(problem.minimum) <= 1e-15


@every
def test_columns_do_not_depend_on_each_other(problem):
    w = points(problem, 70, seed=3)
    gradient, gap = problem.gradient(w), problem.loss_gap(w)
    order = np.random.default_rng(4).permutation(70)
    shuffled = np.ascontiguousarray(w[:, order])
    assert np.array_equal(problem.gradient(shuffled), gradient[:, order])
    assert np.array_equal(problem.loss_gap(shuffled), gap[order])
    for i in (0, 13, 69):
        one = np.ascontiguousarray(w[:, i : i + 1])
        assert np.array_equal(problem.gradient(one)[:, 0], gradient[:, i])
        assert problem.loss_gap(one)[0] == gap[i]
    out = np.empty_like(w)
    assert problem.gradient(w, out=out) is out
    assert np.array_equal(out, gradient)


@every
def test_start_points_are_a_function_of_the_run(problem):
    starts = problem.start(KEY, np.arange(9, dtype=np.uint64))
    assert starts.shape == (problem.dimension, 9)
    assert np.array_equal(problem.start(KEY, [7, 2]), starts[:, [7, 2]])
    assert not np.array_equal(problem.start(Key(12), range(9)), starts)
    assert 0.0 < np.abs(starts).min() <= np.abs(starts).max() < problem.start_scale
    assert problem.gradient(starts).shape == starts.shape


@pytest.mark.parametrize("name", ["quadratic", "rational"])
def test_start_points_scale_with_their_option(name):
    near, far = (PROBLEMS[name](dimension=3, start=scale).start(KEY, range(5)) for scale in (0.125, 2.0))
    assert np.array_equal(far, 16 * near)
    with pytest.raises(ValueError, match=rf"{name} start=0\.0 is outside"):
        PROBLEMS[name](dimension=3, start=0.0)


@every
def test_a_diverged_run_gives_no_warning_and_no_number(problem):
    w = np.full((problem.dimension, 3), np.inf)
    w[:, 1], w[:, 2] = np.nan, 1e300
    assert not np.isfinite(problem.loss_gap(w)[:2]).any()
    assert not np.isfinite(problem.gradient(w)[:, 1]).any()


def test_spectra():
    for name in ("quadratic", "rational", "dense_quadratic"):
        for spectrum, middle in (("uniform", 0.55), ("geometric", 0.1**0.5), ("isotropic", 1.0)):
            problem = PROBLEMS[name](dimension=3, spectrum=spectrum, condition=10.0)
            h = problem.curvature if problem.separable else np.linalg.eigvalsh(problem.hessian)[::-1]
            assert h == pytest.approx([1.0, middle, 1.0 if spectrum == "isotropic" else 0.1], rel=1e-14)


def test_centers_lie_where_they_are_said_to_lie():
    grid, thirds = PROBLEMS["quadratic"](center="grid").center, PROBLEMS["quadratic"]().center
    assert set(np.abs(grid)) == {1.5}
    for m in range(1, 24):
        place = np.abs(thirds) * 2.0**m % 1.0
        assert ((np.abs(place - 1 / 3) < 1e-8) | (np.abs(place - 2 / 3) < 1e-8)).all()


def test_the_dense_hessian_is_a_full_rotation():
    hessian = PROBLEMS["dense_quadratic"](dimension=32).hessian
    assert np.array_equal(hessian, hessian.T)
    assert (np.abs(hessian[~np.eye(32, dtype=bool)]) > 1e-9).mean() > 0.95
    other = PROBLEMS["dense_quadratic"](dimension=32, rotation=1).hessian
    assert not np.array_equal(hessian, other)


def test_rosenbrock_reaches_a_fair_part_of_its_l():
    """At the corner of the box where the Gershgorin row is largest."""
    problem = PROBLEMS["rosenbrock"](dimension=3, rows=3)
    corner = np.array([1.5, 1.5, -1.5])
    assert np.abs(np.linalg.eigvalsh(exact_hessian(problem, corner))).max() >= 0.7 * problem.smoothness


# --- frozen bits and refusals --------------------------------------------------------------------------------------


def test_golden_bits():
    """Frozen: a change here changes trajectories."""
    found = {}
    for name, factory in PROBLEMS.items():
        problem = factory()
        start = problem.start(KEY, range(5))
        gradient = problem.gradient(start)
        if name == "logistic":
            gradient = np.concatenate([gradient, problem.minibatch_gradient(start, 1, range(5), KEY)])
        found[name] = hashlib.sha256(start.tobytes() + gradient.tobytes()).hexdigest()[:16]
    assert found == GOLDEN


GOLDEN = {
    "quadratic": "bc30e77b05b7d595",
    "dense_quadratic": "38655880f06ececd",
    "rational": "f11320e0c5d57d74",
    "rosenbrock": "43a6f41682b52f8e",
    "logistic": "bea0a9d06be91b5f",
    "sequence": "9db5b4cee8490f92",
}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("quadratic", {"dimension": 0}, r"quadratic dimension=0 is outside 1\.\.65536"),
        ("quadratic", {"dimension": 2.5}, r"dimension=2\.5"),
        ("quadratic", {"spectrum": "flat"}, "spectrum='flat'; admissible: uniform, geometric, isotropic"),
        ("quadratic", {"condition": 0.5}, r"condition=0\.5 is outside \[1, "),
        ("quadratic", {"condition": "10,100"}, r"condition='10,100' is outside \[1, "),
        ("quadratic", {"smoothness": float("nan")}, "smoothness=nan"),
        ("rational", {"center": "left"}, "center='left'; admissible: thirds, grid, zero"),
        ("dense_quadratic", {"dimension": 1000}, r"outside 1\.\.512"),
        ("dense_quadratic", {"rotation": -1}, "-1"),
        ("rosenbrock", {"dimension": 10}, "dimension=10 is outside the multiples of rows=4"),
        ("rosenbrock", {"rows": 1}, r"rows=1 is outside 2\.\.64"),
        ("rosenbrock", {"box": 0.5}, r"box=0\.5 is outside \[1, "),
        ("logistic", {"dimension": 31}, r"dimension=31 is outside 1\.\.30"),
        ("logistic", {"regularization": 0.0}, r"regularization=0\.0 is outside \[1e-06, "),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        PROBLEMS[name](**options)


def test_bad_arrays_are_refused():
    problem = PROBLEMS["quadratic"](4)
    w = np.zeros((4, 3))
    for bad in (np.zeros((3, 4)), np.zeros(4), np.zeros((4, 3), dtype=np.float32), np.zeros((3, 4)).T):
        with pytest.raises(ValueError, match=r"C-contiguous float64\[4, n\]"):
            problem.gradient(bad)
    for bad in (np.zeros((4, 2)), w):
        with pytest.raises(ValueError, match="does not overlap w"):
            problem.gradient(w, out=bad)
    with pytest.raises(ValueError, match=r"noise='minibatch': 'quadratic' has no data .* none, gaussian"):
        problem.minibatch_gradient(w, 0, range(3), KEY)
    with pytest.raises(ValueError, match=r"batch=0 is outside 1\.\.569"):
        PROBLEMS["logistic"]().minibatch_gradient(np.zeros((30, 1)), 0, [0], KEY, batch=0)
