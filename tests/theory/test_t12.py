"""T12: the lemmas against the definitions, the bound against many runs, and every step of the proof against change."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from rmsprop_runs import CASES, silent, train
from study_cells import cell
from tiers import slow_but

from experiments import simulate
from fpsim.number_format import Format
from fpsim.optim import rmsprop
from fpsim.precision import Precision
from fpsim.rounding import Rounding, Stochastic
from theory.theorem import Bound
from theory.theorems import _rmsprop_numbers as numbers
from theory.theorems.t12_rmsprop import THEOREM
from theory.verdict import verdict
from theory.window import Window


def outcomes(x: float, fmt: Format, rounding: Rounding) -> list[tuple[float, float]]:
    """The law of one rounding of x > 0: [(value, probability)]."""
    quantum = 2.0 ** (math.floor(math.log2(x)) - fmt.mantissa_bits)
    low = math.floor(x / quantum) * quantum
    if isinstance(rounding, Stochastic):
        up = math.floor((x - low) / quantum * 2**rounding.bits) / 2**rounding.bits
    else:
        up = 1.0 if x - low > quantum / 2 else 0.0
    return [(value, q) for value, q in ((low, 1 - up), (low + quantum, up)) if q > 0]


def expectation(values: list[tuple[float, float]], then: Any) -> list[tuple[float, float]]:
    """The law after one more rounded operation."""
    return [(y, p * q) for x, p in values for y, q in then(x)]


def rounded_step(
    y: float, v: float, eps: float, fmt: Format, rounding: Rounding, scalars: tuple[float, float, float]
) -> list[tuple[float, float]]:
    """The law of the step a: nine roundings, every outcome."""
    kept, injection, lr = scalars

    def fl(x: float) -> list[tuple[float, float]]:
        return outcomes(x, fmt, rounding)

    def given(g: float) -> list[tuple[float, float]]:
        fresh = expectation(fl(g * g), lambda square: fl(injection * square))
        moment = expectation([(a + b, p * q) for a, p in fl(kept * v) for b, q in fresh], fl)
        below = expectation(expectation(moment, lambda x: fl(math.sqrt(x))), lambda root: fl(root + eps))
        return expectation(expectation(below, lambda x: fl(g / x)), lambda x: fl(lr * x))

    return expectation(fl(y), given)


@pytest.mark.parametrize("rounding", ["nearest_even", Stochastic(2), Stochastic(16)], ids=str)
@pytest.mark.parametrize("mantissa", [2, 4])
def test_mean_of_the_rounded_step(machine: Any, rounding: Rounding, mantissa: int) -> None:
    """E[a | y, v] and E[a^2 | y, v] by enumerating what all nine roundings of the step can give."""
    fmt = Format(8, mantissa)
    window = train(machine, fmt, rounding, steps=4, problem=None, seeds=1, d=1)
    factors = numbers.step_factors(window)
    kept, injection, lr = (window.scalars[f"scalar.{s}"] for s in ("beta2", "one_minus_beta2", "lr"))
    generator = np.random.default_rng(11)
    for _ in range(60):
        (v, _), *_ = outcomes(float(np.exp(generator.normal())), fmt, "nearest_even")
        y = float(np.exp(generator.normal()) * math.sqrt(v) * generator.choice([0.3, 1.0, 5.0]))
        eps = float(generator.choice([0.0, 0.25, 1.0]))
        law = rounded_step(y, v, eps, fmt, rounding, (kept, injection, lr))
        mean, square = (sum(p * a**power for a, p in law) for power in (1, 2))
        exact = lr * y / (math.sqrt(kept * v + injection * y * y) + eps)
        assert float(factors.low) * (1 - 1e-12) <= mean / exact <= float(factors.high) * (1 + 1e-12)
        assert square / exact**2 <= float(factors.second) * (1 + 1e-12)


@pytest.mark.parametrize("rounding", ["nearest_even", Stochastic(16)], ids=str)
def test_second_moment_loses_little(machine: Any, rounding: Rounding) -> None:
    """Lemma A against the measured average of c y^2/(B v + c y^2)."""
    for mantissa, beta2 in itertools.product((2, 4, 7), (0.9, 0.99)):
        fmt, (d, seeds, steps) = Format(8, mantissa), (2, 40, 400)
        generator = np.random.default_rng(mantissa)
        noise = generator.normal(size=(steps, d, seeds))
        result = machine.run(
            rmsprop.bind(beta2=beta2), Precision.uniform(fmt, rounding),
            {"w": np.ones((d, seeds)), "v": np.ones((d, seeds))}, {}, steps,
            every_step=lambda k, state, noise=noise: {"g": noise[k]},
        )  # fmt: skip
        window = machine.window(result, optimizer="rmsprop", noise="minibatch")
        kept, injection = result.scalars["scalar.beta2"], result.scalars["scalar.one_minus_beta2"]
        before = np.array([state["v"] for state in result.history[:-1]])
        share = injection * noise**2 / (kept * before + injection * noise**2)
        average, extreme = numbers.shares(window)
        seen = share.mean(axis=(0, 2))
        assert np.all(seen <= [float(x) for x in average])
        assert np.all(share.max(axis=(0, 2)) <= [float(x) for x in extreme])
        if mantissa == 7:
            assert np.all([float(x) for x in average] < 2.0 * seen)


def test_slope_of_the_mean_step() -> None:
    """grad E phi(grad + noise) >= (1-P)^(3/2) grad^2/D0, P at E noise^2 + grad^2/3, for symmetric two-point laws."""
    generator = np.random.default_rng(9)
    kept_v, c, grad, noise = np.exp(generator.normal(size=(4, 20_000)))
    eps = generator.choice([0.0, 0.1, 1.0], 20_000)

    def phi(y: np.ndarray) -> np.ndarray:
        return y / (np.sqrt(kept_v + c * y * y) + eps)

    mean = grad * (phi(grad + noise) + phi(grad - noise)) / 2
    square = c * (noise**2 + grad**2 / 3)
    least = (kept_v / (kept_v + square)) ** 1.5 * grad**2 / (np.sqrt(kept_v) + eps)
    assert np.all(mean >= least * (1 - 1e-12))
    small = (noise < 0.1 * np.sqrt(kept_v / c)) & (grad < 0.1 * np.sqrt(kept_v / c)) & (eps == 0)
    assert np.all(mean[small] <= 1.03 * least[small])


@pytest.mark.parametrize("case", slow_but(CASES, "quadratic", "rational", "minibatch", "silent", "long memory"))
@pytest.mark.parametrize("rounding", slow_but(["nearest_even", Stochastic(3), Stochastic(16)], "nearest_even"), ids=str)
def test_never_violated(machine: Any, case: str, rounding: Rounding) -> None:
    for mantissa in (1, 4, 7):
        window = train(machine, Format(8, mantissa), rounding, steps=300, seed=mantissa, **CASES[case])
        bound = THEOREM.evaluate(window)
        if bound.applicable:
            assert verdict(THEOREM.measured(window), bound).status != "violated"
        else:
            assert mantissa < 7, bound.reason


@pytest.mark.parametrize("mantissa", slow_but([7, 10, 23], 7))
def test_sharp_with_stochastic_rounding(machine: Any, mantissa: int) -> None:
    window = train(machine, Format(8, mantissa), Stochastic(16), steps=1600)
    assert 1.0 < verdict(THEOREM.measured(window), THEOREM.evaluate(window)).ratio < 2.0


@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
@pytest.mark.parametrize("problem", ["quadratic", "rational"])
def test_covers_underflow(problem: str, rounding: str) -> None:
    """binary16: squares of small gradients, their injections and noise near 0 are subnormal; the bound stays near."""
    wide, narrow = (
        cell(
            optimizer="rmsprop", problem=problem, rounding=rounding, exponent_bits=exponent, mantissa_bits=10,
            noise="gaussian", sigma=0.1, lr=2.0**-6, beta2=0.99, eps=2.0**-10, steps=1500,
        )
        for exponent in (8, 5)
    )  # fmt: skip
    (first,), (second,) = simulate.windows([wide]), simulate.windows([narrow])
    assert second.underflow["v.inject"] > 0
    found = verdict(THEOREM.measured(second), THEOREM.evaluate(second))
    assert found.status == "holds"
    assert found.ratio < 1.2 * verdict(THEOREM.measured(first), THEOREM.evaluate(first)).ratio


def test_reasons(machine: Any) -> None:
    """What the theorem does not cover it names."""

    def bound(fmt: Format, rounding: Rounding = "nearest_even", **options: Any) -> Bound:
        return THEOREM.evaluate(train(machine, fmt, rounding, steps=20, **options))

    wide = Format(8, 10)
    assert bound(wide).applicable
    assert bound(Format(8, 3), beta2=0.999).applicable  # stored beta2 = 1: v only grows, and the theorem allows it
    narrow = train(machine, Format(5, 10), "nearest_even", steps=20, eps=1e-3, problem=None)
    low = {**narrow.min_abs, "v": np.full((8, 6), 2.0**-24)}
    happened = {**narrow.underflow, "v.decay": 5, "v.inject": 5, "v.add": 5}
    assert "v underflows by up to" in THEOREM.evaluate(changed(narrow, min_abs=low, underflow=happened)).reason
    assert "nearest" in bound(wide, "up").reason
    for variant in "BC":
        assert "stochastic, variant A: v.decay: stochastic16" + variant in bound(wide, Stochastic(16, variant)).reason
    still = train(machine, wide, "nearest_even", steps=20)
    nothing = {**still.scalars, "scalar.one_minus_beta2": 0.0}
    assert "1 - beta2 > 0" in THEOREM.evaluate(changed(still, scalars=nothing)).reason
    start = {**still.start, "v": np.zeros((8, 6))}
    least = {**still.min_abs, "v": np.zeros((8, 6))}
    assert "v > 0" in THEOREM.evaluate(changed(still, start=start, min_abs=least)).reason
    assert "box" in THEOREM.evaluate(changed(still, box=0.5)).reason
    assert "finite" in THEOREM.evaluate(changed(still, squared_gradient=np.full((1, 6), np.nan))).reason
    assert "operations" in THEOREM.evaluate(changed(still, program=silent)).reason


def changed(window: Window, **fields: Any) -> Window:
    return dataclasses.replace(window, **fields)
