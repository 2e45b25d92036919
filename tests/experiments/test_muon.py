"""Muon: the polar factor against the singular value decomposition, and runs against the exact reader, bit for bit."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from experiments.cell import Cell
from experiments.fields import StudyError
from experiments.muon import muon
from experiments.polar import polar
from experiments.problems import PROBLEMS
from experiments.split_machine import Split
from experiments.study import Study
from experiments.trajectory import Trajectory, check_cell, matrix_of
from fpsim import exact_run
from fpsim.formats import BINARY64
from fpsim.precision import Precision
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic

SHAPES = [(1, 1), (4, 4), (6, 4), (3, 8), (1, 5), (16, 16)]
SETTING: dict[str, Any] = {
    "optimizer": "muon", "problem": "quadratic", "options": {"rows": 2}, "noise": "none", "sigma": 0.0, "batch": 0,
    "gradient": "rounded", "rounding": "stochastic", "random_bits": 16, "exponent_bits": 8, "mantissa_bits": 7,
    "hyperparameters": {"lr": 0.05, "beta1": 0.8}, "dimension": 6, "seeds": 2, "seed": 3, "steps": 12, "window": 0.5,
}  # fmt: skip


def factors(matrices: np.ndarray) -> np.ndarray:
    """Of [n, rows, columns]."""
    n, *shape = matrices.shape
    values = np.ascontiguousarray(matrices.reshape(n, -1).T)[np.newaxis]
    return polar(values, (shape[0], shape[1]))[0].T.reshape(matrices.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_polar_factor_is_that_of_the_decomposition(shape: tuple[int, int]) -> None:
    matrices = np.random.default_rng(0).standard_normal((50, *shape))
    u, _, v = np.linalg.svd(matrices, full_matrices=False)
    np.testing.assert_allclose(factors(matrices), u @ v, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["graded", "repeated", "low rank", "tiny", "huge"])
def test_norm_and_inner_product_of_hard_matrices(kind: str, shape: tuple[int, int]) -> None:
    """|O|_2 <= 1 and <M, O> = |M|_* up to 1e-14, also where M has not full rank."""
    draw = np.random.default_rng(1)
    rank = min(shape)
    u, _, v = np.linalg.svd(draw.standard_normal((40, *shape)), full_matrices=False)
    values = {
        "graded": np.ldexp(1.0, -10 * np.arange(rank)), "repeated": np.ones(rank),
        "low rank": (np.arange(rank) < (rank + 1) // 2).astype(float), "tiny": 1e-310 * np.ones(rank),
        "huge": 1e300 * np.arange(1, rank + 1),
    }[kind]  # fmt: skip
    matrices = (u * values) @ v
    matrices[0] = 0.0
    result = factors(matrices)
    assert np.linalg.norm(result, 2, axis=(1, 2)).max() <= 1 + 1e-14
    scale = np.maximum(np.abs(matrices).max(axis=(1, 2), keepdims=True), 5e-324)
    scaled = matrices / scale
    nuclear = np.linalg.svd(scaled, compute_uv=False).sum(axis=1)
    assert np.all(np.sum(scaled * result, axis=(1, 2)) >= nuclear * (1 - 1e-14))
    assert not result[0].any()


def test_columns_that_are_nearly_too_short_to_count() -> None:
    """The squared ratio of two columns' sizes may overflow; a rotation is needed all the same."""
    short, shift = 2.0**-479.9, 2.0**-513.1
    (found,) = factors(np.array([[[1.0, shift], [0.0, short]]]))
    assert np.linalg.norm(found, 2) <= 1 + 1e-14


def test_matrices_that_are_not_finite_give_nan() -> None:
    matrices = np.ones((3, 2, 2))
    matrices[1, 0, 1], matrices[2, 1, 1] = np.nan, -np.inf
    assert np.isnan(factors(matrices)).all(axis=(1, 2)).tolist() == [False, True, True]
    with pytest.raises(ValueError, match=r"\[blocks, 3 \* 2, lanes\] is needed"):
        polar(np.ones((1, 4, 1)), (3, 2))


def test_golden_bits() -> None:
    """The recipe is part of a trajectory: its bits are the same on every machine."""
    x = np.ldexp(np.sin(np.arange(240.0)).round(6).reshape(2, 12, 10), 3)
    digest = hashlib.blake2b(polar(x, (4, 3)).astype("<f8").tobytes(), digest_size=8).hexdigest()
    assert digest == "c915ee52d87940eb"


def slow_run(cell: Cell, steps: int) -> dict[str, np.ndarray]:
    """Both parts on the exact reader, one step after the other."""
    problem = PROBLEMS[cell.problem](dimension=cell.dimension, **cell.options)
    run = Trajectory([cell], problem)
    split, (precision,) = Split.of(run.programs[0]), run.precisions
    assert problem.shape is not None
    runs, state = run.runs.tolist(), {name: run.state(name) for name in ("w", "m")}
    after = precision.replace({split.given: (BINARY64, "nearest_even")})
    for t in range(steps):
        inputs = dict(run.constants) if run.inside else {"g": problem.gradient(state["w"])[np.newaxis]}
        common: dict[str, Any] = {"first_step": t, "runs": runs}
        first, records = exact_run.run(
            split.before, state, inputs, precision, Key(cell.seed), record=[split.operand], **common
        )
        direction = polar(records[split.operand], problem.shape)
        second, _ = exact_run.run(
            split.after, {"w": state["w"]}, {split.given: direction}, after, Key(cell.seed), **common
        )
        state = {"w": second["w"], "m": first["m"]}
    return state


@pytest.mark.parametrize("gradient", ["rounded", "exact"])
@pytest.mark.parametrize(
    ("rounding", "slots", "bits"),
    [("nearest_even", (), 0), ("stochastic", (), 16), ("nearest_even", ("m.add", "update.polar", "update.scale"), 24)],
)
def test_a_run_equals_the_exact_reader(rounding: str, slots: tuple[str, ...], bits: int, gradient: str) -> None:
    overrides = tuple((slot, "", "stochastic") for slot in slots)
    cell = Cell(**{**SETTING, "rounding": rounding, "overrides": overrides, "random_bits": bits, "gradient": gradient})
    run = Trajectory([cell], PROBLEMS["quadratic"](dimension=6, rows=2))
    run.advance(cell.steps)
    expected = slow_run(cell, cell.steps)
    for name in ("w", "m"):
        np.testing.assert_array_equal(run.state(name), expected[name])


def test_parts_have_the_slots_of_the_whole() -> None:
    split = Split.of(muon)
    assert split.before.slots == muon.slots
    assert split.after.slots[: len(muon.slots)] == muon.slots
    for mode in ("nearest_even", Stochastic(16)):
        whole = Precision.uniform("bfloat16", mode)
        assert whole.resolve(split.before) == whole.resolve(muon)


def test_results_depend_neither_on_blocks_nor_on_the_chunking_of_steps() -> None:
    cells = [Cell(**{**SETTING, "mantissa_bits": m}) for m in (4, 7, 10)]
    problem = PROBLEMS["quadratic"](dimension=6, rows=2)
    together, alone = Trajectory(cells, problem), Trajectory(cells[1:2], problem)
    together.advance(9)
    for part in (1, 5, 3):
        alone.advance(part)
    np.testing.assert_array_equal(together.state("w")[:, 2:4], alone.state("w"))


def test_a_study_gives_muon_a_matrix() -> None:
    study = Study(optimizer="muon,sgd", problem="quadratic", rounding="up", mantissa=7, seeds=1, steps=10)
    assert [cell.options for cell in study.cells()] == [{"rows": 4}, {}]
    assert matrix_of(Cell(**{**SETTING, "options": {"rows": 3}}), PROBLEMS["rosenbrock"](6, rows=3)) == (3, 2)
    with pytest.raises(StudyError, match="muon needs weights that are a matrix"):
        check_cell(Cell(**{**SETTING, "options": {}}))
