"""T1 on runs of the machine with random and adversarial gradients: never violated, and within a small factor."""

from __future__ import annotations

import itertools

import moment_runs
import numpy as np
import pytest
from flint import arb
from moment_runs import FORMATS, fused, reordered
from sequences import random_gradients
from tiers import slow_but

from fpsim import exact
from fpsim.formats import format
from fpsim.number_format import Format
from fpsim.optim.rmsprop import rmsprop
from fpsim.optim.sgd import sgd
from fpsim.program import Program
from fpsim.rounding import Stochastic
from theory.enclosure import working_precision
from theory.theorems import t01_second_moment as t1
from theory.theorems import theorem
from theory.theorems.t01_second_moment import sandwich
from theory.verdict import Verdict
from theory.window import Window

T1 = theorem("T1")


def window(
    name: str, beta2: float, g: np.ndarray, mode: object = "nearest_even", program: Program = rmsprop, **changes: object
) -> Window:
    return moment_runs.window(program.bind(beta2=beta2), name, g, mode, **changes)


def judged(found: Window) -> Verdict:
    return moment_runs.judged(T1, found)


def test_sums_of_nonnegative_numbers_do_not_fall() -> None:
    fmt = Format(3, 2)
    grid = [k * fmt.smallest_subnormal for k in range(60)]
    grid = sorted({exact.operation("round", (x,), fmt, "nearest_even") for x in grid})
    for x, y in itertools.product(grid, np.linspace(0, 2, 33)):
        assert exact.operation("add", (x, float(y)), fmt, "nearest_even") >= x


@pytest.mark.parametrize(
    "kind", slow_but(["normal", "lognormal", "constant", "falling", "rising"], "normal", "falling")
)
@pytest.mark.parametrize(
    "name", slow_but(["float8_e4m3fn", "binary16", "binary32", "e6m4"], "float8_e4m3fn", "binary32")
)
def test_random_gradients(name: str, kind: str) -> None:
    for beta2 in (0.5, 0.9, 0.99, 0.999):
        judged(window(name, beta2, random_gradients(kind, 60, 2, 2)))


@pytest.mark.parametrize(
    "mode",
    slow_but(["up", "toward_zero", Stochastic(8), Stochastic(16, "B"), "nearest_away", "to_odd"], "up", Stochastic(8)),
    ids=str,
)
def test_other_modes(mode: object) -> None:
    for name, beta2 in (("bfloat16", 0.9), ("float8_e5m2", 0.5), ("binary16", 0.99)):
        judged(window(name, beta2, random_gradients("normal", 80, 3, 2), mode))
        judged(
            window(name, beta2, random_gradients("normal", 80, 3, 2), mode, **{"v.add": ("binary32", "nearest_even")})
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_sharp_on_the_balanced_grid(name: str) -> None:
    ratios = moment_runs.grid_ratios(T1, rmsprop, "beta2", name)
    few = format(name).precision < 8
    assert np.median(ratios["adversarial"]) <= (4 if few else 2.5)
    assert np.median(ratios["random"] + ratios["adversarial"]) <= (4 if few else 3)


def test_sandwich_is_attained_by_adversaries() -> None:
    """bfloat16: the recorded v comes close to both sides of the sandwich."""
    for sign in (1.0, -1.0):
        found = window("bfloat16", 0.9, moment_runs.adversarial(rmsprop.bind(beta2=0.9), "beta2", "bfloat16", sign))
        with working_precision():
            low, high = sandwich(found)
        v = found.history["v"]
        assert all(a <= arb(float(x)) <= b for a, x, b in zip(low.flat, v.flat, high.flat, strict=True))


def test_sandwich_is_the_statement() -> None:
    """One step of the evaluation against the derivations' right sides at both ends of lambda."""
    found = window("bfloat16", 0.9, random_gradients("normal", 3, 1, 1))
    with working_precision():
        low, high = sandwich(found)
    u = 2.0**-8
    l_, h = 1 / (1 + u), (1 + 2 * u) / (1 + u)
    b, c = found.scalars["scalar.beta2"], found.scalars["scalar.one_minus_beta2"]
    for k in range(3):
        q = float(found.history["g"][k, 0, 0]) ** 2
        up = {t1._h: h, t1._D: min(h * b, 1), t1._b: c * h**2, t1._A: 0, t1._q: q, t1._V: float(high[k, 0, 0])}
        down = {
            t1._l: l_,
            t1._D: max(l_ * b, 2 * b - 1),
            t1._b: c * l_**2,
            t1._A: 0,
            t1._q: q,
            t1._V: float(low[k, 0, 0]),
        }
        assert float(high[k + 1, 0, 0]) == pytest.approx(min(float(t1.HIGH.subs({**up, t1._lam: x})) for x in (0, 1)))
        assert float(low[k + 1, 0, 0]) == pytest.approx(max(float(t1.LOW.subs({**down, t1._lam: x})) for x in (0, 1)))


def test_the_sandwich_of_a_frozen_moment_stays_finite() -> None:
    """bfloat16 stores 0.999 as 1: a+ = h^2 would grow for ever; v stays below twice what is added."""
    found = window("bfloat16", 0.999, random_gradients("normal", 400, 2, 1), **{"scalar.beta2": "bfloat16"})
    assert found.scalars["scalar.beta2"] == 1.0
    assert judged(found).ratio < 10


def test_other_programs() -> None:
    """A fused decay, and the same average in another order of operations: no new code."""
    for program in (fused, reordered):
        for name in ("bfloat16", "float8_e5m2", "binary32"):
            assert judged(window(name, 0.9, random_gradients("constant", 80, 3, 2), program=program)).ratio < 30


def test_underflow_is_additive() -> None:
    g = random_gradients("normal", 60, 3, 2) * 2.0**-9
    for name in ("binary16", "float8_e5m2", "float8_e4m3fn"):
        found = window(name, 0.9, g)
        assert any(found.underflow.values())
        judged(found)
    # what is added comes from a finer grid: then the sum itself underflows
    fine = window("float8_e5m2", 0.999, 4 * g, **{"v.square": "binary32", "v.inject": "binary32"})
    assert fine.underflow["v.add"] > 0
    judged(fine)


def test_missed_hypotheses_are_named() -> None:
    found = window("bfloat16", 0.9, random_gradients("normal", 10, 2, 2))
    for fields, reason in (
        ({"history": {}}, "v and g were recorded: history of nothing"),
        ({"program": sgd}, "the optimizer stores v"),
        ({"scalars": {}}, "it changes from step to step"),
        ({"overflow": {"v.add": 1}}, "no overflow"),
        ({"history": {**found.history, "v": found.history["v"] * np.nan}}, "recorded values are finite"),
        ({"history": {**found.history, "v": -found.history["v"]}}, "v >= 0"),
    ):
        bound = T1.evaluate(Window(**{**vars(found), **fields}))
        assert not bound.applicable
        assert reason in bound.reason, bound.reason
        T1.measured(Window(**{**vars(found), **fields}))
