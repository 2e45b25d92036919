"""The hunt draws from everywhere, finds planted errors, and finds none in the theorems."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiers import slow_but

from experiments.cli import main
from experiments.hunt import hunt, run
from experiments.hunt.draw import BLOCKS, batch, optimizers
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


def planted(limit: float, *, per_seed: bool) -> Theorem:
    """'Every seed's number is at most limit', or their mean; the numbers are standard normal with the cell's bits."""

    def numbers(window: Window) -> np.ndarray:
        words = np.ascontiguousarray(window.start["w"][0]).view(np.uint64)
        return np.random.default_rng(words).normal(size=window.seeds)

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
        "optimizer": set(optimizers()), "problem": set(PROBLEMS), "noise": {"none", "gaussian", "minibatch"},
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


def test_steps_without_a_theorem_of_their_own_are_drawn_less_often() -> None:
    shares = optimizers()
    assert {name for name, share in shares.items() if share == 1.0} == {"sgd", "momentum", "signum", "rmsprop", "adam"}
    assert shares.keys() < STEPS.keys() and "adafactor" not in shares  # whose weights are a matrix


def test_every_batch_can_run() -> None:
    refused = []
    for number in range(300):
        try:
            check_cell(batch(1, number, 1)[0])
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) < 15, refused[:3]


@pytest.mark.parametrize(("limit", "per_seed"), slow_but([(1.0, True), (-2.0, False)], (1.0, True)))
def test_a_wrong_theorem_is_caught(limit: float, per_seed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    report = with_theorem(monkeypatch, per_seed=per_seed, limit=limit)
    assert report.runs == 600
    assert len(report.violations) >= 25
    assert {trouble.kind for trouble in report.troubles} == {"violated"}
    *_, last = lines(report)
    assert last == f"600 runs of 30 cells, 1 theorems: 30 verdicts, {len(report.violations)} VIOLATED"
    text = "\n".join(lines(report))
    assert "VIOLATED T0" in text
    assert json.loads(json.dumps(report.record()))["violations"] == len(report.violations)
    window = run.again(report.troubles[0].cell)
    assert window.seeds == 20
    assert run.held(planted(limit, per_seed=per_seed), window).status == "violated"


@pytest.mark.slow
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
    assert report.total("T0").cells == {"raised": 6}
    assert (report.total("T0").runs, report.total("T0").applicable) == (0, 0)
    assert lines(report)
    assert "RuntimeWarning" in report.troubles[0].reason


def test_a_line_adds_up() -> None:
    line = Line()
    for status, ratio in (("holds", 2.0), ("holds", 4.0), ("holds", np.inf), ("not applicable", np.nan)):
        line.add(Finding("T0", "bfloat16", status, ratio, 10, 0.0, "why" if status == "not applicable" else ""))
    assert line.record() == {
        "runs": 30, "applicable": 3, "cells": {"holds": 3, "not applicable": 1}, "ratio_median": 3.0,
        "ratio_smallest": 2.0, "ratio_worst": 4.0, "measured_zero": 1, "missed": {"why": 1},
    }  # fmt: skip


@pytest.mark.slow
def test_processes_find_the_same() -> None:
    alone, several = hunt(48, 2, seeds=2), hunt(48, 2, seeds=2, workers=2)
    for report in (alone, several):
        report.seconds.clear()
        for line in report.lines.values():
            line.ratios.sort()
    assert msgspec.json.encode(alone.record(), order="sorted") == msgspec.json.encode(several.record(), order="sorted")


def test_batches_of_which_nothing_can_run_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def few(seed: int, number: int, seeds: int, names: None) -> run.Part:
        drawn.append(number)
        return run.Part(number, runs=0 if number == 1 else seeds * BLOCKS)

    monkeypatch.setattr(run, "check", few)
    assert hunt(36, 3, seeds=2).runs == 36
    assert drawn == [0, 1, 2, 3]
    monkeypatch.setattr(run, "check", lambda seed, number, seeds, names: run.Part(number))
    with pytest.raises(RuntimeError, match=r"no draw of batches 0\.\.2 could run"):
        hunt(36, 3, seeds=2)


def test_a_batch_of_which_nothing_can_run_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(cell: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr(run, "check_cell", refuses)
    part = run.check(0, 0, 1)
    assert (part.runs, part.cells, part.refused) == (0, 0, ["ValueError: no"] * run.ATTEMPTS)


def test_theorems_can_be_chosen() -> None:
    report = hunt(12, 3, seeds=2, names=["T3", "T5"])
    assert {name for name, _ in report.lines} == {"T3", "T5"}
    assert report.total("T3").cells.total() == report.cells == 6


def command(*words: str) -> int:
    return main(["verify", "--random", *words, "--processes", "1"])


def test_the_command_prints_a_table_and_writes_a_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "SEEDS", 2)
    monkeypatch.setitem(run.hunt.__kwdefaults__, "seeds", 2)
    file = tmp_path / "hunt.json"
    assert command("12", "--seed", "5", "--theorem", "T3,T5", "--json", str(file)) == 0
    printed = capsys.readouterr().out
    assert "12 runs of 6 cells, 2 theorems: " in printed and ", none violated\n" in printed
    assert max(len(line) for line in printed.splitlines() if "seed 5" not in line) <= 120
    record = json.loads(file.read_text())
    assert (record["runs"], record["asked"], record["seed"], record["selection"]) == (12, 12, 5, ["T3", "T5"])
    assert record["finished"] and record["violations"] == 0 and record["date"] and record["versions"]["numpy"]
    assert sum(found["applicable"] for found in record["theorems"]["T3"].values()) > 0


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (OSError("disk\nfull"), 1)])
def test_what_was_found_is_told_when_the_command_stops(
    stop: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stops(runs: int, seed: int, report: Report, *given: Any, **rest: Any) -> None:
        hunt(12, seed, report, seeds=2, names=["T5"])
        raise stop

    monkeypatch.setattr("experiments.hunt.hunt", stops)
    file = tmp_path / "hunt.json"
    assert command("1e3", "--json", str(file)) == code
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "; 12 runs were done, 0 violations" in printed.err
    assert "12 runs of 6 cells, 1 theorems: " in printed.out
    assert json.loads(file.read_text())["finished"] is False


def test_a_violation_fails_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "theorems", lambda: {"T0": planted(-2.0, per_seed=False)})
    monkeypatch.setattr(run, "MORE", 1)
    assert command("1") == 1
    assert "VIOLATED T0, batch 0: " in capsys.readouterr().out


@pytest.mark.slow
def test_ten_thousand_runs_and_no_violation() -> None:
    report = hunt(10_000, 20, seeds=48)
    assert report.runs >= 10_000
    assert not report.violations, "\n".join(lines(report))
    spoken = {name for (name, _), line in report.lines.items() if line.runs}
    assert len(spoken) >= 6, spoken
