"""T9: the scalar recursion by simulation, the dither law on bit-exact runs, both sides."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from tiers import slow_but

from experiments import simulate
from experiments.registry import problem_of
from experiments.study import Cell
from theory.theorems import _dither
from theory.theorems import t09_dither_law as t09
from theory.verdict import verdict
from theory.window import Window

SETTING: dict[str, Any] = {
    "optimizer": "sgd", "problem": "quadratic", "noise": "gaussian", "sigma": 0.1, "batch": 0, "gradient": "exact",
    "rounding": "nearest_even", "random_bits": 16, "exponent_bits": 8, "mantissa_bits": 7, "dimension": 8, "seeds": 16,
    "seed": 0, "steps": 8000, "window": 0.75, "hyperparameters": {"lr": 0.06},
}  # fmt: skip
WIDE = (("update.scale", "binary64", "nearest_even"), ("g", "binary64", "nearest_even"))


def window_of(**changed: Any) -> Window:
    cell = Cell(**{**SETTING, "overrides": WIDE, "options": {"spectrum": "isotropic"}, **changed})
    (window,) = simulate.windows([cell])
    return dataclasses.replace(window, minimizer=problem_of(cell).center)


def test_recursion() -> None:
    """y' = k y + d + bias: the averages' formula exactly in the second moments, and Minkowski with the worst bias."""
    k, steps, start, q = 0.9, 37, 1.7, 0.3
    second, total = start**2, 0.0
    for _ in range(steps):
        total += second
        second = k * k * second + q
    values = {t09.k: k, t09.kT: k ** (2 * steps), t09.T: steps, t09.z0: start, t09.q: q}
    assert total / steps == pytest.approx(float(t09.variance(t09.q).subs(values)), rel=1e-12)
    limit = q / (1 - k * k)
    assert second == pytest.approx(limit + k ** (2 * steps) * (start**2 - limit))
    pushed = sum(0.05 * k**j for j in range(steps))
    assert pushed <= 0.05 / (1 - k)


@pytest.mark.parametrize("r", slow_but([0.5, 0.8, 2.0], 0.8))
@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
def test_law_is_met(rounding: str, r: float) -> None:
    """bfloat16 weights, lr h = 0.06: both sides, and within five per cent of each other from r = 0.8 on."""
    window = window_of(rounding=rounding, sigma=r * 2.0**-7 / 0.06)
    bound = t09.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    judged = verdict(t09.THEOREM.measured(window), bound)
    assert judged.status == "met", judged
    assert judged.ratio < (1.25 if r == 0.5 else 1.05)
    assert bound.upper < bound.lower * (1.5 if r == 0.5 else 1.05)


@pytest.mark.parametrize("mantissa", slow_but([7, 10], 7))
@pytest.mark.parametrize("gradient", ["exact", "rounded"])
def test_rounded_steps_widen_the_law(mantissa: int, gradient: str) -> None:
    """Every operation rounded, lr a power of two and the grids commensurate: the law is met, and wide."""
    window = window_of(
        mantissa_bits=mantissa, sigma=0.7 * 2.0 ** (4 - mantissa), hyperparameters={"lr": 2.0**-4}, overrides=(),
        gradient=gradient,
    )  # fmt: skip
    bound = t09.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    assert verdict(t09.THEOREM.measured(window), bound).status == "met"


def test_rounding_to_nearest_has_half_the_variance_of_stochastic_rounding() -> None:
    """r = 1/2: without noise the two limits differ by the root of (1/4 + 1/12)/(1/4 + 1/6); measured and proven."""
    found = []
    for rounding in ("nearest_even", "stochastic"):
        window = window_of(rounding=rounding, sigma=0.6 * 2.0**-7 / 0.06)
        bound = t09.THEOREM.evaluate(window)
        found.append((bound.lower + bound.upper) / 2)
    assert found[0] / found[1] == pytest.approx(math.sqrt((0.36 + 1 / 12) / (0.36 + 1 / 6)), rel=0.02)


def test_evaluates_its_statement() -> None:
    window = window_of(dimension=1, seeds=1, sigma=0.2, steps=2000)
    bound = t09.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    gap, lr = _dither.uniform_gap(window, "w", 0), window.scalars["scalar.lr"]
    error = _dither.step_error(window)
    assert gap is not None
    x = _dither.dithered(window, gap, gap * (0.2 * lr / 2.0**-7), error.eps0[0], error.eta)
    assert x is not None
    values = {t09.k: 1 - lr, t09.kT: (1 - lr) ** (2 * window.steps), t09.T: window.steps, t09.b: float(x.bias[0])}
    values |= {t09.z0: abs(window.start["w"][0, 0] - 4 / 3)}
    values |= {t09.q1: (0.2 * lr) ** 2 + float(x.high) + 2 * float(x.cross[0])}
    above = t09.variance(t09.q1).subs(values)
    assert bound.upper == pytest.approx(float(t09.law.statement.right.subs(t09.U1, above).subs(values)), rel=1e-6)
    values |= {t09.q0: (0.2 * lr) ** 2 + float(x.low) - 2 * float(x.cross[0]) - float(x.bias[0]) ** 2}
    below = math.sqrt(float(t09.variance(t09.q0).subs(values))) - float(x.bias[0]) / lr
    assert bound.lower == pytest.approx(below, rel=1e-6)


def test_reasons() -> None:
    window = window_of(steps=2000)

    def reason(**fields: Any) -> str:
        return t09.THEOREM.evaluate(dataclasses.replace(window, **fields)).reason

    assert reason() == ""
    assert reason(minimizer=None).startswith("a separable quadratic with a known minimiser")
    assert reason(noise="none").startswith("Gaussian noise: none")
    assert reason(hessian=np.full(8, 100.0)).startswith("lr h < 2: lr h = 6")
    assert reason(min_abs={"w": np.full((8, 16), 0.9)}).startswith("every coordinate stays inside one binade: 0 of 8")
    assert reason(scalars={}).startswith("a constant positive step size")
