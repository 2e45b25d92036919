"""T29 on runs of the machine beside T3: gradients of both signs, whose moments cancel. The law itself: test_t28."""

from __future__ import annotations

import numpy as np
import pytest
from history_windows import recorded
from sequences import random_gradients
from tiers import slow_but

from fpsim.formats import format
from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import momentum
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from theory.theorems import theorem
from theory.verdict import Verdict, verdict
from theory.window import Window

T29 = theorem("T29")
T3 = theorem("T3")
FORMATS = ["float8_e4m3fn", "float8_e5m2", "binary16", "bfloat16", "tf32", "binary32"]


def window(
    name: str, beta1: float, g: np.ndarray, mode: object = Stochastic(16), program: object = momentum, **changes: object
) -> Window:
    bound = program.bind(beta1=beta1)
    precision = Precision.uniform(name, mode).replace({"scalar.*": ("binary32", "nearest_even"), **changes})
    start = {state: np.ones((1, 1)) if state == "w" else np.zeros((1, 1)) for state in bound.state}
    return recorded(bound, precision, start, g)


def judged(found: Window) -> Verdict:
    bound = T29.evaluate(found)
    assert bound.applicable, bound.reason
    result = verdict(T29.measured(found), bound)
    assert result.status == "holds", result.reason
    assert bound.upper <= T3.evaluate(found).upper * (1 + 1e-12)
    return result


@pytest.mark.parametrize(
    "kind", slow_but(["normal", "lognormal", "constant", "falling", "rising"], "normal", "falling")
)
@pytest.mark.parametrize("name", slow_but([*FORMATS, "e6m4"], "float8_e4m3fn", "bfloat16"))
def test_random_gradients(name: str, kind: str) -> None:
    for beta1 in (0.5, 0.9, 0.99):
        judged(window(name, beta1, random_gradients(kind, 60, 2, 2)))


@pytest.mark.parametrize(
    "mode", slow_but([Stochastic(2), Stochastic(8), Stochastic(4, "B"), Stochastic(16, "C")], Stochastic(2)), ids=str
)
def test_other_modes_and_mixed_slots(mode: Stochastic) -> None:
    for name, beta1 in (("bfloat16", 0.9), ("float8_e5m2", 0.6), ("binary16", 0.95)):
        g = random_gradients("normal", 80, 3, 2)
        judged(window(name, beta1, g, mode))
        judged(window(name, beta1, g, "nearest_even", **{"m.add": (name, mode)}))
        judged(window(name, beta1, g, mode, **{"m.decay": ("e8m12", "down")}))


def test_half_of_what_is_sure_where_memory_is_long() -> None:
    for program in (momentum, adam):
        found = window("bfloat16", 0.98, random_gradients("normal", 256, 2, 2), program=program)
        assert judged(found).ratio <= 8
        assert T29.evaluate(found).upper <= 0.5 * T3.evaluate(found).upper


def test_underflow_is_unbiased_too() -> None:
    for name in ("binary16", "float8_e5m2", "float8_e4m3fn"):
        found = window(name, 0.9, random_gradients("normal", 60, 3, 2) * format(name).smallest_normal * 4)
        assert any(found.underflow.values())
        judged(found)


def test_missed_hypotheses_are_named() -> None:
    found = window("bfloat16", 0.9, random_gradients("normal", 10, 2, 2))
    for fields, reason in (
        ({"history": {}}, "m and g were recorded: history of nothing"),
        ({"program": rmsprop}, "the optimizer stores m"),
        ({"scalars": {}}, "it changes from step to step"),
        ({"slots": {s: (fmt, "to_odd") for s, (fmt, _) in found.slots.items()}}, "is stochastic and not exact"),
        ({"invalid": {"m.add": 1}}, "no overflow"),
    ):
        bound = T29.evaluate(Window(**{**vars(found), **fields}))
        assert not bound.applicable
        assert reason in bound.reason, bound.reason
        T29.measured(Window(**{**vars(found), **fields}))
