"""Every problem keeps the laws of ``Problem``; the reference is F itself in 40 digits, and nothing else."""

from __future__ import annotations

import functools
import hashlib
import itertools

import mpmath
import numpy as np
import pytest

import fpsim
from experiments import recipes, streams
from experiments.problems import PROBLEMS
from experiments.problems.base import Problem
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.tracing import step

MP = mpmath.MPContext()
MP.dps = 60
KEY = Key(11)

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


@pytest.mark.parametrize("name", ["quadratic", "rational"])
def test_the_program_in_binary64_is_the_gradient(name):
    """Bit for bit, operation by operation."""
    problem = PROBLEMS[name](dimension=16, condition=7.0)
    w = points(problem, 50)
    values = {"w": w, "scalar.one": 1.0} | {key: x[:, None] for key, x in problem.constants.items()}
    assert set(values) == {*problem.program.inputs, *(scalar.name for scalar in problem.program.scalars), "scalar.one"}
    run = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
    for operation in problem.program.operations:
        values[operation.slot] = run[operation.kind](*(values[name] for name in operation.operands))
    assert np.array_equal(values[dict(problem.program.outputs)["g"]], problem.gradient(w))


@pytest.mark.parametrize(
    "options",
    [
        ("dense_quadratic", {"dimension": 9}),
        ("rosenbrock", {"dimension": 12}),
        ("rosenbrock", {"dimension": 6, "rows": 2}),
        ("logistic", {"dimension": 4}),
    ],
)
def test_programs_with_shapes_in_binary64_are_the_gradient(options):
    """Operation by operation; but for the logistic one, whose own sigmoid is not correctly rounded."""
    problem = PROBLEMS[options[0]](**options[1])
    w, plain = points(problem, 7), PROBLEMS["quadratic"](dimension=problem.dimension)
    store = step(lambda w, g: {"w": g}, name="store")
    program = problem.program >> store
    got = fpsim.run(program, {"w": w}, problem.constants, Precision.uniform("binary64"), runs=np.arange(7)).state["w"]
    expected = problem.gradient(w)
    if problem.name == "logistic":
        assert np.abs(got - expected).max() <= problem.gradient_error(np.abs(w).max(axis=1)).max()
    else:
        assert np.array_equal(got, expected)
    assert not problem.program_default
    assert plain.program_default


@pytest.mark.parametrize("name", ["dense_quadratic", "rosenbrock", "logistic", "minibatch"])
@pytest.mark.parametrize("mode", ["nearest_even", Stochastic(16)], ids=str)
def test_rounded_gradients_on_the_machine_are_those_of_the_exact_reader(name, mode):
    problem = PROBLEMS["logistic" if name == "minibatch" else name](dimension=4)
    program, constants, given = problem.program, problem.constants, {}
    runs = np.array([3, 1])
    if name == "minibatch":
        program, constants = problem.minibatch_program(5)
        given = {"index": problem.minibatch_indices(range(2, 4), runs, KEY, 5)}
    elif name == "logistic":  # some of the rows: the exact reader takes its time
        constants = {**constants, "rows": problem.rows[:40], "columns": problem.columns[:, :40].copy()}
    joined = program >> STEPS["sgd"].bind(lr=0.25)
    binary64 = dict.fromkeys((*constants, *given), ("binary64", "nearest_even"))
    precision = Precision.uniform("bfloat16", mode).replace(binary64)
    start = problem.start(KEY, runs)
    last = [
        fpsim.run(joined, {"w": start}, {**constants, **given}, precision, KEY, steps=2, first_step=2, runs=runs,
                  device=device).state["w"]
        for device in ("cpu", "exact")
    ]  # fmt: skip
    assert np.array_equal(last[0], last[1])
    assert not np.array_equal(last[0], start)


def test_minibatch_programs_take_the_samples_of_the_minibatch_gradient():
    problem, runs = PROBLEMS["logistic"](dimension=5), np.array([4, 0, 9])
    program, constants = problem.minibatch_program(6)
    w = np.ascontiguousarray(points(problem, 3))
    given = {"index": problem.minibatch_indices(range(7, 8), runs, KEY, 6), **constants}
    store = step(lambda w, g: {"w": g}, name="store")
    got = fpsim.run(program >> store, {"w": w}, given, Precision.uniform("binary64"), runs=runs).state["w"]
    expected = problem.minibatch_gradient(w, 7, runs, KEY, 6)
    assert np.abs(got - expected).max() <= problem.gradient_error(np.abs(w).max(axis=1)).max()
    with pytest.raises(ValueError, match="'quadratic' has no data"):
        PROBLEMS["quadratic"]().minibatch_program()
    with pytest.raises(ValueError, match="'quadratic' has no data"):
        PROBLEMS["quadratic"]().minibatch_indices(range(1), runs, KEY)


def test_slots_have_the_names_that_the_theorems_use():
    assert PROBLEMS["quadratic"]().program.slots == ("difference", "scale", "w", "center", "curvature")
    rational = ("difference", "square", "one_plus", "denominator", "numerator", "ratio")
    assert PROBLEMS["rational"]().program.slots == (*rational, "w", "center", "twice_scale", "scalar.one")


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


# --- logistic regression -------------------------------------------------------------------------------------------


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
