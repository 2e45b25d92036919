"""The hunt draws from everywhere, finds planted errors, and finds none in the theorems."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from experiments.hunt import hunt, run
from experiments.hunt.draw import BLOCKS, batch
from experiments.hunt.printing import lines
from experiments.hunt.tally import Finding, Line, Report
from experiments.problems import PROBLEMS
from experiments.problems.sequence import KINDS
from experiments.study import kin
from experiments.trajectory import check_cell
from fpsim.optim import STEPS
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems import theorem
from theory.window import Window


def planted(limit: float, *, per_seed: bool, factor: float = 1.0) -> Theorem:
    """'Every seed's number is at most limit', or their mean; the numbers are standard normal with the cell's bits."""

    def numbers(window: Window) -> np.ndarray:
        words = np.ascontiguousarray(window.start["w"][0]).view(np.uint64)
        return factor * np.random.default_rng(words).normal(size=window.seeds)

    def evaluate(window: Window) -> Bound:
        each = np.full(window.seeds, limit) if per_seed else None
        return Bound("T0", "numbers", (Hypothesis("always", True),), limit, limit, per_seed=each)

    return replace(theorem("T6"), identifier="T0", evaluate=evaluate, measured=numbers)


def with_theorem(monkeypatch: pytest.MonkeyPatch, *, per_seed: bool, limit: float) -> Report:
    monkeypatch.setattr(run, "theorems", lambda: {"T0": planted(limit, per_seed=per_seed)})
    return hunt(600, 5, seeds=20)


def test_a_batch_is_a_function_of_two_numbers() -> None:
    assert batch(3, 7, 4) == batch(3, 7, 4)
    assert batch(3, 8, 4) != batch(3, 7, 4) != batch(4, 7, 4)


def test_draws_cover_formats_modes_optimizers_problems_and_sequences() -> None:
    cells = [cell for number in range(400) for cell in batch(0, number, 2)]
    for number in range(400):
        assert len({kin(cell) for cell in cells[number * BLOCKS : (number + 1) * BLOCKS]}) == 1
    seen: dict[str, set[Any]] = {
        "optimizer": set(STEPS), "problem": set(PROBLEMS), "noise": {"none", "gaussian", "minibatch"},
        "gradient": {"exact", "rounded"}, "random_bits": {0, 2, 4, 8, 16, 32},
        "rounding": {"nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd", "stochastic"},
    }  # fmt: skip
    for name, expected in seen.items():
        assert {getattr(cell, name) for cell in cells} == expected
    assert {cell.options["kind"] for cell in cells if cell.problem == "sequence"} == set(KINDS)
    widths = {(cell.exponent_bits, cell.mantissa_bits) for cell in cells}
    assert widths > {(4, 3), (5, 2), (5, 10), (8, 7), (8, 10), (8, 23)}
    assert len(widths) > 50
    assert any(fmt == "float8_e4m3fn" for cell in cells for _, fmt, _ in cell.overrides)
    assert any(isinstance(cell.hyperparameters["lr"], str) for cell in cells)


def test_every_batch_can_run() -> None:
    refused = []
    for number in range(300):
        try:
            check_cell(batch(1, number, 1)[0])
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) < 15, refused[:3]


@pytest.mark.parametrize(("limit", "per_seed"), [(1.0, True), (-2.0, False)])
def test_a_wrong_theorem_is_caught(limit: float, per_seed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    report = with_theorem(monkeypatch, per_seed=per_seed, limit=limit)
    assert report.runs == 600
    assert len(report.violations) >= 25
    assert {trouble.kind for trouble in report.troubles} == {"violated"}
    text = "\n".join(lines(report))
    assert "VIOLATED T0" in text
    assert json.loads(json.dumps(report.record()))["violations"] == len(report.violations)
    window = run.again(report.troubles[0].cell)
    assert window.seeds == 20
    assert run.held(planted(limit, per_seed=per_seed), window).status == "violated"


def test_an_interval_that_misses_by_chance_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the first 20 seeds is pushed over the limit, that of the 16-fold is not."""
    monkeypatch.setattr(run, "theorems", lambda: {"T0": planted(0.0, per_seed=False)})
    exact = planted(0.0, per_seed=False)
    pushed = lambda window: exact.measured(window) + (5.0 if window.seeds == 20 else -5.0)  # noqa: E731
    monkeypatch.setattr(run, "theorems", lambda: {"T0": replace(exact, measured=pushed)})
    report = hunt(240, 5, seeds=20)
    assert {trouble.kind for trouble in report.troubles} == {"chance"}
    assert not report.violations
    assert all(line.cells["violated"] == 0 for line in report.lines.values())


def test_an_evaluation_that_raises_or_warns_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(window: Window) -> Bound:
        np.log(-np.ones(2))
        raise AssertionError("not reached")

    monkeypatch.setattr(run, "theorems", lambda: {"T0": replace(theorem("T6"), evaluate=raises)})
    report = hunt(12, 5, seeds=2)
    assert [trouble.kind for trouble in report.violations] == ["raised"] * 6
    assert "RuntimeWarning" in report.troubles[0].reason


def test_a_line_adds_up() -> None:
    line = Line()
    for status, ratio in (("holds", 2.0), ("holds", 4.0), ("holds", np.inf), ("not applicable", np.nan)):
        line.add(Finding("T0", "bfloat16", status, ratio, 10, 0.0, "why" if status == "not applicable" else ""))
    assert line.record() == {
        "runs": 30, "cells": {"holds": 3, "not applicable": 1}, "ratio_median": 3.0, "ratio_smallest": 2.0,
        "ratio_worst": 4.0, "measured_zero": 1, "missed": {"why": 1},
    }  # fmt: skip


@pytest.mark.slow
def test_processes_find_the_same() -> None:
    alone, several = hunt(48, 2, seeds=2), hunt(48, 2, seeds=2, workers=2)
    for report in (alone, several):
        report.seconds.clear()
        for line in report.lines.values():
            line.ratios.sort()
    assert msgspec.json.encode(alone.record(), order="sorted") == msgspec.json.encode(several.record(), order="sorted")


@pytest.mark.slow
def test_ten_thousand_runs_and_no_violation() -> None:
    report = hunt(10_000, 20, seeds=48)
    assert report.runs >= 10_000
    assert not report.violations, "\n".join(lines(report))
    spoken = {name for (name, _), line in report.lines.items() if line.runs}
    assert len(spoken) >= 6, spoken
