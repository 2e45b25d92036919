"""Every optimizer and every wrapper in a study: it runs and is judged, or is refused with the reason."""

from __future__ import annotations

import math
from typing import Any

import pytest

from experiments import simulate
from experiments.hunt import draw, hunt
from experiments.problems import PROBLEMS
from experiments.study import Study, StudyError
from fpsim.optim import STEPS, clip_by_norm, error_feedback, kahan
from theory.theorems import theorems

MODES = "nearest_even,stochastic"
SMALL = {"problem": "quadratic", "mantissa": 7, "rounding": MODES, "seeds": 2, "steps": 80, "dimension": 3}
RUNNABLE = [*draw.optimizers()]


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_study_runs_it_and_the_theory_has_an_answer(name: str) -> None:
    rows = Study(optimizer=name, **SMALL).run(engine="serial").to_dicts()
    assert len(rows) == 2
    for row in rows:
        assert row["verdict"] in ("holds", "undecided", "not applicable")
        assert row["reason"] or row["verdict"] == "holds"


@pytest.mark.parametrize("name", RUNNABLE)
def test_no_theorem_raises(name: str) -> None:
    study = SMALL | {"rounding": "stochastic", "noise": "gaussian", "sigma": 0.1, "gradient": "rounded"}
    cells = Study(optimizer=name, **study).cells()
    (window,) = simulate.windows(cells)
    for theorem in theorems().values():
        bound = theorem.evaluate(window)
        assert bound.applicable or (bound.reason and math.isnan(bound.upper)), theorem.identifier


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_hunt_finds_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "optimizers", lambda: {name: 1.0})
    assert hunt(500, 11, seeds=16).violations == []


def test_every_optimizer_has_a_setting_for_every_problem() -> None:
    cells = Study(optimizer=tuple(STEPS), problem=tuple(PROBLEMS), mantissa=7, rounding="up").cells()
    assert {(cell.optimizer, cell.problem) for cell in cells} == {(name, x) for name in STEPS for x in PROBLEMS}
    for cell in cells:
        assert cell.hyperparameters.keys() == STEPS[cell.optimizer].hyperparameters.keys()
        lr = math.frexp(float(cell.hyperparameters["lr"]))[0]
        assert lr == 0.5 or cell.optimizer not in RUNNABLE


def test_weights_that_are_a_matrix_are_refused() -> None:
    study = Study(optimizer="adafactor", **SMALL)
    with pytest.raises(
        StudyError, match=r"optimizer: 'adafactor' stores w\[n, k\]; a study's weights are a vector w\[d\]"
    ):
        study.check(study.cells())


@pytest.mark.parametrize(
    "program",
    [kahan(STEPS["adam"]), error_feedback(STEPS["sgd"]), clip_by_norm(0.5) >> STEPS["rmsprop"],
     kahan(clip_by_norm(0.5) >> STEPS["nadam"])],
    ids=lambda program: program.name,
)  # fmt: skip
def test_wrapped_steps_are_steps_of_ones_own(program: Any, tmp_path: Any) -> None:
    study = Study(optimizer=[program], **SMALL | {"problem": "quadratic,logistic", "dimension": None})
    table = study.run(tmp_path, engine="serial")
    assert set(table["optimizer"]) == {program.name}
    assert "not finite" not in set(table["outcome"])
    assert study.run(tmp_path, engine="serial").equals(table)  # nothing is computed again
