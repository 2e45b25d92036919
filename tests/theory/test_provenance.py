"""Which hypotheses are known before a run and which are checked on its record."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiers import slow_but

from fpsim.optim import STEPS
from fpsim.precision import Precision
from theory.provenance import A_PRIORI, origins
from theory.theorem import Bound, Hypothesis, Theorem
from theory.theorems import theorem, theorems
from theory.window import Window

EXPECTED = {
    "T5": (
        ("the optimizer stores m and v", "constant scalars are known and nonnegative", "B^2 < b and c > 0"),
        ("the ratio was recorded", "no overflow or invalid operation", "the window starts under the bound"),
    ),
    "T6": (
        ("round to nearest in w.sub and w", "deterministic", "a constant positive step size"),
        ("no overflow or invalid operation", "halted"),
    ),
}  # fmt: skip


def window_of(machine: SimpleNamespace, optimizer: str, **fields: Any) -> Window:
    program = STEPS[optimizer]
    state = {name: np.zeros((3, 2)) for name in program.state} | {"w": np.linspace(-1.0, 1.0, 6).reshape(3, 2)}
    result = machine.run(
        program,
        Precision.uniform("bfloat16").replace({"scalar.*": ("binary64", "nearest_even")}),
        state,
        {},
        200,
        every_step=lambda k, values: {"g": values["w"]},
    )
    events = dict.fromkeys(program.slots, 0)
    return machine.window(result, overflow=events, invalid=events, underflow=events, **fields)


@pytest.mark.parametrize(("identifier", "optimizer"), [("T5", "adam"), ("T6", "sgd")])
def test_hypotheses_on_the_record_are_told_from_those_known_before(
    machine: SimpleNamespace, identifier: str, optimizer: str
) -> None:
    window = window_of(machine, optimizer, step_ratio=np.ones(2), halted=np.ones(2, dtype=np.bool_))
    assert theorem(identifier).evaluate(window).applicable
    found = origins(theorem(identifier), window)
    before, recorded = EXPECTED[identifier]
    assert {name: found[name] for name in before} == dict.fromkeys(before, "a priori")
    assert {name: found[name] for name in recorded} == dict.fromkeys(recorded, "record")


@pytest.mark.parametrize("optimizer", slow_but(["sgd", "rmsprop", "adam"], "sgd", "adam"))
def test_every_theorem_has_origins_and_the_window_is_left_as_it_was(machine: SimpleNamespace, optimizer: str) -> None:
    window = window_of(machine, optimizer)
    before = {name: x.copy() for name, x in window.max_abs.items()}
    for each in theorems().values():
        names = [h.name for h in each.evaluate(window).hypotheses]
        assert set(origins(each, window)) == set(names)
    assert all(np.array_equal(before[name], x) for name, x in window.max_abs.items())


def test_a_theorem_that_fails_on_strange_records_is_judged_by_the_others(machine: SimpleNamespace) -> None:
    def evaluate(window: Window) -> Bound:
        if np.isnan(window.end_gradient).any():
            raise ZeroDivisionError
        large = float(np.max(window.max_abs["w"]))
        return Bound("T0", "", (Hypothesis("small", large < 2.0), Hypothesis("long", window.steps > 1)))

    known = theorem("T6")
    made = dataclasses.replace(known, evaluate=evaluate)
    assert isinstance(made, Theorem)
    assert origins(made, window_of(machine, "sgd")) == {"small": "record", "long": "a priori"}


def test_what_is_known_a_priori_is_a_list_of_fields() -> None:
    fields = {f.name for f in dataclasses.fields(Window)}
    assert {"program", "slots", "steps"} <= A_PRIORI & fields
    assert not {"start", "halted", "underflow", "outcome", "history", "samples", "gradient_bound"} & A_PRIORI
