"""T3 on runs of the machine with random and adversarial gradients: never violated, and within a small factor."""

from __future__ import annotations

import itertools

import moment_runs
import numpy as np
import pytest
from moment_runs import FORMATS
from sequences import random_gradients
from tiers import slow_but

from fpsim.formats import format
from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import momentum
from fpsim.program import Program
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, fma, slot, step
from theory.enclosure import working_precision
from theory.theorems import _running_error as running
from theory.theorems import theorem
from theory.theorems.t03_first_moment import CLOSED
from theory.verdict import Verdict
from theory.window import Window

T3 = theorem("T3")


def window(
    name: str,
    beta1: float,
    g: np.ndarray,
    mode: object = "nearest_even",
    program: Program = momentum,
    **changes: object,
) -> Window:
    return moment_runs.window(program.bind(beta1=beta1), name, g, mode, **changes)


def judged(found: Window) -> Verdict:
    return moment_runs.judged(T3, found)


@pytest.mark.parametrize(
    "kind", slow_but(["normal", "lognormal", "constant", "falling", "rising"], "normal", "falling")
)
@pytest.mark.parametrize(
    "name", slow_but(["float8_e4m3fn", "binary16", "binary32", "e6m4"], "float8_e4m3fn", "binary32")
)
def test_random_gradients(name: str, kind: str) -> None:
    for beta1 in (0.5, 0.9, 0.99):
        judged(window(name, beta1, random_gradients(kind, 60, 2, 2)))


@pytest.mark.parametrize(
    "mode", ["up", "toward_zero", Stochastic(8), Stochastic(16, "B"), "nearest_away", "to_odd"], ids=str
)
def test_other_modes_and_mixed_formats(mode: object) -> None:
    for name, beta1 in (("bfloat16", 0.9), ("float8_e5m2", 0.5), ("binary16", 0.95)):
        g = random_gradients("normal", 80, 3, 2)
        judged(window(name, beta1, g, mode))
        judged(window(name, beta1, g, mode, **{"m.add": ("binary32", "nearest_even")}))
        judged(window(name, beta1, g, mode, **{"m.decay": ("e8m12", "nearest_even")}))


@pytest.mark.parametrize("name", slow_but(FORMATS, "bfloat16"))
def test_sharp_on_the_balanced_grid(name: str) -> None:
    ratios = moment_runs.grid_ratios(T3, momentum, "beta1", name)
    assert np.median(ratios["random"] + ratios["adversarial"]) <= 3


def test_never_above_the_closed_form() -> None:
    """The running error against S - R: h^2 c/(1 - B h^2) - 1 of R at most, for constant signs too."""
    for name in ("bfloat16", "binary16", "tf32"):
        found = window(name, 0.9, np.abs(random_gradients("constant", 200, 3, 2)))
        u = 2.0 ** -format(name).precision
        h = ((1 + 2 * u) / (1 + u)) ** 2
        b, c = found.scalars["scalar.beta1"], found.scalars["scalar.one_minus_beta1"]
        closed = h * c / (1 - b * h) / (c / (1 - b)) - 1
        assert T3.evaluate(found).upper <= closed * (1 + 3 * u)
    assert CLOSED.statement.relation == "<="


def test_one_step_is_the_statement() -> None:
    found = window("bfloat16", 0.9, random_gradients("normal", 4, 1, 1))
    with working_precision():
        error = running.along(found, "m", 1).error
    u = 2.0**-8
    h = (1 + 2 * u) / (1 + u)
    b, c = found.scalars["scalar.beta1"], found.scalars["scalar.one_minus_beta1"]
    for k in range(4):
        m, after = (abs(float(found.history["m"][n, 0, 0])) for n in (k, k + 1))
        g = abs(float(found.history["g"][k, 0, 0]))
        values = {running._B: b, running._c: c, running._ix: h - 1, running._iq: h - 1, running._o: u, running._A: 0,
                  running._x: m, running._x_next: after, running._q: g, running._Y: c * h * g}  # fmt: skip
        values[running._e] = float(error[k, 0, 0])
        sides = [
            float(running.RUNNING_ERROR.subs({**values, running._mu: mu, running._nu: nu}))
            for mu, nu in itertools.product((0, 1), repeat=2)
        ]
        assert float(error[k + 1, 0, 0]) == pytest.approx(min(sides))


def test_other_programs() -> None:
    """Adam, and a fused momentum: no new code."""

    @step
    def fused(m: Value, g: Value, *, beta1: float = 0.9) -> dict[str, Value]:
        return {"m": slot("sum", fma(m, beta1, slot("inject", (1 - beta1) * g)))}

    for program in (fused, adam):
        for name in ("bfloat16", "float8_e5m2", "binary32"):
            assert judged(window(name, 0.8, random_gradients("normal", 80, 3, 2), program=program)).ratio < 12


def test_underflow_is_additive() -> None:
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
        ({"invalid": {"m.add": 1}}, "no overflow"),
    ):
        bound = T3.evaluate(Window(**{**vars(found), **fields}))
        assert not bound.applicable
        assert reason in bound.reason, bound.reason
        T3.measured(Window(**{**vars(found), **fields}))


@pytest.mark.parametrize("beta1", [-0.5, 1.25])
def test_negative_coefficients_are_refused(beta1: float) -> None:
    """B or c below 0: e' = B e + .. is no bound then."""
    bound = T3.evaluate(window("bfloat16", beta1, random_gradients("normal", 20, 2, 2)))
    assert bound.reason.startswith("m is a sum of rounded multiples of m and g: ")
    assert "not a nonnegative multiple of m or g" in bound.reason
