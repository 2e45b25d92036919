"""The gradients of problems as programs: their operations, shapes and slots, beside the gradient itself."""

from __future__ import annotations

import numpy as np
import pytest
from exact_problems import KEY, points

import fpsim
from experiments.problems import PROBLEMS
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from fpsim.tracing import step


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
