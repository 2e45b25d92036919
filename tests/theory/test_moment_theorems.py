"""T1-T3, T14-T16, T28 and T29 on windows with holes: each says what is missing, none raises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from history_windows import recorded
from sequences import random_gradients
from tiers import slow_but

from fpsim.formats import format
from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import momentum, sgd
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import Stochastic
from theory.theorems import theorem

THEOREMS = [theorem(name) for name in ("T1", "T2", "T3", "T14", "T15", "T16", "T28", "T29")]
HOLES: list[dict[str, Any]] = [
    *({name: {}} for name in ("scalars", "min_abs", "max_abs", "underflow", "history", "start", "end", "overflow")),
    {"start": {"w": np.full((2, 2), np.nan)}},
    {"history": {"v": np.full((3, 2, 2), np.inf), "g": np.zeros((2, 2, 2))}},
    {"history": {"v": np.zeros((1, 2, 2)), "m": np.zeros((1, 2, 2)), "g": np.zeros((0, 2, 2))}},
    {"scalars": {"scalar.lr": float("nan"), "scalar.beta2": float("inf"), "scalar.one_minus_beta2": -1.0}},
]


@pytest.mark.parametrize("mode", slow_but(["nearest_even", Stochastic(8)], "nearest_even"), ids=str)
@pytest.mark.parametrize("program", slow_but([sgd, momentum, rmsprop, adam], sgd, momentum, adam), ids=lambda p: p.name)
def test_holes_are_named(program: Program, mode: object) -> None:
    start = {name: np.ones((1, 1)) for name in program.state}
    g = random_gradients("constant", 6, 2, 2)
    for precision in (
        Precision.uniform("bfloat16", mode),
        Precision.uniform("bfloat16", mode).replace({"*": format("float8_e4m3fn")}),
        Precision.uniform("binary32", mode).replace({"scalar.*": format("e8m1")}),
    ):
        found = recorded(program, precision, start, g)
        for hole in ({}, *HOLES):
            window = replace(found, **hole)
            for theorem_ in THEOREMS:
                bound = theorem_.evaluate(window)
                assert bound.applicable or bound.reason
                theorem_.measured(window)
