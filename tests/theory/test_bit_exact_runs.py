"""The theorems on bit-exact runs of the machine, where a window, a sample or a measured constant could mislead them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from study_cells import cell

from experiments import rows, simulate
from experiments.floors import is_stationary
from experiments.problems import PROBLEMS
from experiments.study import Cell
from experiments.trajectory import Trajectory
from experiments.windows import Record
from fpsim.random_bits import Key, philox4x32


def trajectory(*cells: Cell) -> Trajectory:
    return Trajectory(cells, PROBLEMS[cells[0].problem](dimension=cells[0].dimension))


@pytest.mark.parametrize(("blocks", "dimension"), [(1, 1), (1, 8), (3, 1), (3, 8)])
def test_a_state_taken_before_a_step_does_not_change_with_it(blocks: int, dimension: int) -> None:
    """With one block or one element the machine's layout is that of the copy: it must be a copy all the same."""
    run = trajectory(*(cell(mantissa_bits=9 + k, dimension=dimension) for k in range(blocks)))
    before = run.state("w")
    kept = before.copy()
    run.advance(5)
    assert np.array_equal(before, kept)
    assert not np.array_equal(run.state("w"), kept)


@pytest.mark.parametrize("dimension", [1, 8])
def test_one_width_alone_gives_the_rows_of_a_scan(dimension: int) -> None:
    for optimizer, rounding in itertools.product(("sgd", "adam"), ("nearest_even", "stochastic")):
        cells = [
            cell(optimizer=optimizer, rounding=rounding, mantissa_bits=m, dimension=dimension, steps=64)
            for m in (3, 10)
        ]
        together = simulate.run_batch(cells)
        for row, alone in zip(together, (simulate.run_batch([c])[0] for c in cells), strict=True):
            assert {k: v for k, v in row.items() if k != "seconds"} == {
                k: v for k, v in alone.items() if k != "seconds"
            }


def test_a_run_that_still_moves_has_not_halted() -> None:
    (row,) = simulate.run_batch([cell(dimension=1, mantissa_bits=23, steps=64)])
    assert row["verdict"] == "not applicable"
    assert row["reason"].startswith("halted: 0 of 4 seeds")
    assert row["frozen_share"] == 0.0


def test_adam_is_not_at_rest_while_its_bias_corrections_change() -> None:
    """From a state of zeros w, m, v repeat themselves for ever: at rest once the corrections have settled."""
    small = cell(optimizer="adam", mantissa_bits=3, beta1=0.5, beta2=0.5)
    for steps, expected in ((1, False), (64, True)):
        run = trajectory(small)
        run.advance(steps)
        assert simulate._settled(run).tolist() == [expected]
    assert simulate._settled(trajectory(cell())).tolist() == [True]


def test_every_seed_is_sampled_at_steps_of_its_own() -> None:
    """Uniform and independent over strata and seeds: else a window that falls is misjudged by all seeds alike."""
    stride, strata, seeds = 7, 400, 8
    offsets = np.array([simulate.random_offsets(cell(seeds=seeds), k, stride) for k in range(strata)])
    counts = np.array([np.bincount(offsets[:, s], minlength=stride) for s in range(seeds)])
    assert offsets.min() == 0
    assert offsets.max() == stride - 1
    assert np.all(np.abs(counts - strata / stride) < 4.5 * np.sqrt(strata / stride))
    same = np.mean(offsets[:, :1] == offsets[:, 1:])
    assert abs(same - 1 / stride) < 0.03
    fewer = simulate.random_offsets(cell(seeds=3), 5, stride)
    assert np.array_equal(fewer, offsets[5, :3])  # a seed's steps do not depend on how many seeds there are
    key = Key(0).fold(simulate.SAMPLING)
    assert offsets[5, 2] == int(philox4x32(5, 0, 2, 0, key)[0]) % stride


@pytest.mark.parametrize(
    "changed",
    [
        {"dimension": 64, "mantissa_bits": 23, "random_bits": 32, "lr": 1.9, "steps": 1000, "seeds": 16},
        {"dimension": 8, "mantissa_bits": 12, "random_bits": 2, "lr": 2.0**-6, "steps": 9000},
        {"problem": "logistic", "dimension": 1, "mantissa_bits": 23, "lr": 0.475, "steps": 600, "seeds": 16},
    ],
)
def test_a_window_that_is_not_stationary(changed: dict[str, Any]) -> None:
    """Windows whose first steps carry the average: sampled at the same steps in all seeds they were 'violated'."""
    for seed in range(3):
        (row,) = simulate.run_batch([cell(rounding="stochastic", window=1.0, seed=seed, **changed)])
        assert row["verdict"] in ("holds", "undecided"), row["reason"]


def test_sampled_averages_match_the_average_over_all_steps() -> None:
    """The interval over seeds holds the mean over seeds of the exact averages, in a window that falls steeply."""
    steps = cell(rounding="stochastic", window=1.0, mantissa_bits=10, steps=1280, seeds=16, lr=0.125)
    (row,) = simulate.run_batch([steps])
    run, problem = trajectory(steps), PROBLEMS["quadratic"](dimension=8)
    squares = []
    for _ in range(1280):
        squares.append(np.sum(problem.gradient(run.state("w")) ** 2, axis=0))
        run.advance(1)
    exact = float(np.sqrt(np.mean(squares)))
    assert row["rms_gradient_low999"] <= exact <= row["rms_gradient_high999"]


@pytest.mark.parametrize("mantissa", [1, 3])
def test_weights_that_hardly_ever_move(mantissa: int) -> None:
    """T8 where a weight moves once in thousands of steps: the fall that few seeds show is no bound of its mean."""
    for seed in range(12):
        slow = {"rounding": "stochastic", "lr": 2.0**-16, "steps": 200, "seed": seed, "mantissa_bits": mantissa}
        (row,) = simulate.run_batch([cell(**slow)])
        assert row["verdict"] == "holds", row["reason"]


def test_second_moments_that_hardly_ever_grow() -> None:
    """T12 with stored beta2 = 1 and v that rises once in hundreds of steps."""
    for seed in range(6):
        slow = {"optimizer": "rmsprop", "rounding": "stochastic", "lr": 2.0**-3, "beta2": 0.9999, "steps": 200}
        rows = simulate.run_batch([cell(**slow, seed=seed, mantissa_bits=m) for m in (2, 3, 5, 7)])
        assert all("scalar.beta2 = 0.9999 becomes 1" in row["warnings"] for row in rows)
        assert {row["verdict"] for row in rows} == {"holds"}, [row["reason"] for row in rows]
    stuck = {"optimizer": "rmsprop", "rounding": "stochastic", "random_bits": 32, "dimension": 3, "mantissa_bits": 6}
    stuck |= {"seeds": 16, "seed": 93129092, "steps": 600, "lr": 0.1, "beta2": 0.9999, "eps": 0.0, "window": 0.9}
    (row,) = simulate.run_batch([cell(**stuck)])
    assert row["verdict"] == "holds", row["reason"]


def test_second_moments_that_fall_nearly_as_fast_as_the_decay() -> None:
    """T12 in a transient: the share is what is left of -ln B T once the fall of ln v is taken off."""
    falling = {"optimizer": "rmsprop", "rounding": "stochastic", "random_bits": 32, "dimension": 2, "mantissa_bits": 6}
    falling |= {"steps": 90, "lr": 0.1, "window": 1.0}
    for seed in (1055583965, 0, 1):
        (row,) = simulate.run_batch([cell(**falling, seed=seed)])
        assert row["verdict"] == "holds", row["reason"]
    (alone,) = simulate.run_batch([cell(**falling, seeds=1)])
    assert alone["verdict"] == "undecided"
    assert np.isfinite(alone["bound"])


def test_ratios_of_adam_before_the_window_count_only_where_nothing_underflowed() -> None:
    small = {"optimizer": "adam", "exponent_bits": 8, "steps": 640}
    run = trajectory(cell(mantissa_bits=7, **small), cell(mantissa_bits=7, **small | {"exponent_bits": 4}))
    record = Record()
    run.advance(20)
    simulate._note_ratio(run, [run.cell] * 2, record)
    before = np.array(record.step_ratio)
    simulate._forget_spoiled(run, record)
    assert record.step_ratio is not None
    assert np.array_equal(record.step_ratio[0], before[0])
    assert np.all(record.step_ratio[1] == 0.0)


def test_runs_that_blow_up_warn_about_nothing() -> None:
    """Infinite weights in the window: an outcome, not a floating-point warning (which fails this test)."""
    for changed in (
        {"optimizer": "adam", "problem": "dense_quadratic", "rounding": "down", "mantissa_bits": 1, "beta2": 0.5},
        {"optimizer": "rmsprop", "problem": "rosenbrock", "rounding": "stochastic", "random_bits": 4, "lr": 8e-5},
        {"optimizer": "sgd", "problem": "rosenbrock", "lr": 0.1},
    ):
        rows = simulate.run_batch(
            [cell(**{"exponent_bits": 4, "steps": 600, "beta1": 0.0, "mantissa_bits": 3} | changed)]
        )
        assert rows[0]["verdict"] in ("holds", "undecided", "not applicable")


def test_underflow_of_the_gradient_leaves_a_bound() -> None:
    """T6 needs the sizes of the problem's constants and of the values on the way; the machine keeps them."""
    rows = [
        row
        for problem in ("quadratic", "rational")
        for row in simulate.run_batch(
            [cell(problem=problem, exponent_bits=4, mantissa_bits=m, steps=800) for m in (4, 6)]
        )
    ]
    assert {row["verdict"] for row in rows} == {"holds"}, [row["reason"] for row in rows]


def test_one_seed_alone_is_stationary_only_within_the_drift() -> None:
    falling = np.geomspace(1.0, 1e-3, 64)[:, None]
    assert not is_stationary(falling)
    assert is_stationary(np.full((64, 1), 0.3))


def test_divisions_by_zero_are_among_the_invalid_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """m / sqrt(v) with eps = 0 where v underflows to 0: m/0 as well as 0/0 spoils a window."""
    cut, windows = rows.window_of, []

    def kept(given: Cell, index: int, watched: Any, *more: Any) -> Any:
        windows.append((cut(given, index, watched, *more), watched.events["update.div"]))
        return windows[-1][0]

    monkeypatch.setattr(rows, "window_of", kept)
    simulate.run_batch([cell(optimizer="adam", eps=0.0, exponent_bits=4, mantissa_bits=2, steps=64)])
    ((window, counts),) = windows
    assert counts["divide_by_zero"][0] > 0
    assert window.invalid["update.div"] == counts["invalid"][0] + counts["divide_by_zero"][0]
