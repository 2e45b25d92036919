"""T24 against runs at rest: never violated, close to what is measured, and silent where it does not apply."""

from __future__ import annotations

import dataclasses
import functools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiers import slow_but

from experiments import simulate
from experiments.cell import Cell
from fpsim.optim.adam import adam
from fpsim.optim.sgd import momentum
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from fpsim.tracing import slot, step
from theory.rounding_model import gap_toward
from theory.theorems import t24_momentum_rest as t24
from theory.theorems import theorem
from theory.verdict import verdict
from theory.window import Window

T24 = theorem("T24")
SETTING: dict[str, Any] = {
    "problem": "quadratic", "noise": "none", "sigma": 0.0, "batch": 0, "rounding": "nearest_even", "exponent_bits": 8,
    "mantissa_bits": 7, "dimension": 8, "seeds": 16, "seed": 0, "steps": 2000, "window": 0.25, "gradient": "rounded",
    "optimizer": "momentum", "hyperparameters": {"lr": 0.1, "beta1": 0.9},
}  # fmt: skip


def run(**changed: Any) -> Window:
    (window,) = simulate.windows([Cell(**{**SETTING, **changed})])
    return window


@step
def polyak(w: Any, m: Any, g: Any, *, lr: Any = 0.01, beta1: Any = 0.9) -> Any:
    m = slot("buffer", slot("kept", beta1 * m) + g)
    return {"w": slot("w.sub", w - slot("moved", lr * m)), "m": m}


@pytest.mark.parametrize("beta1", slow_but([0.5, 0.9], 0.9))
@pytest.mark.parametrize(
    ("exponent", "mantissa", "problem", "gradient", "most"),
    [
        (8, 7, "quadratic", "rounded", 2.5),
        (8, 7, "dense_quadratic", "exact", 2.0),
        (5, 10, "rational", "exact", 2.0),
        (8, 4, "rational", "rounded", 3.0),
        (4, 3, "quadratic", "rounded", 8.0),
    ],
)
def test_never_violated(exponent: int, mantissa: int, problem: str, gradient: str, most: float, beta1: float) -> None:
    window = run(
        exponent_bits=exponent, mantissa_bits=mantissa, problem=problem, gradient=gradient,
        hyperparameters={"lr": 0.1, "beta1": beta1},
    )  # fmt: skip
    result = verdict(T24.measured(window), T24.evaluate(window))
    assert result.status == "holds", result.reason
    assert 1.0 <= result.ratio <= most
    assert window.halted.all()


@pytest.mark.slow
def test_random_formats_and_step_sizes() -> None:
    draw = np.random.default_rng(7)
    ratios = []
    for seed in range(80):
        setting = {"lr": float(2.0 ** draw.uniform(-7, 0)), "beta1": float(draw.choice([0.3, 0.5, 0.8, 0.9, 0.95]))}
        window = run(
            exponent_bits=int(draw.integers(4, 9)), mantissa_bits=int(draw.integers(2, 12)), seed=seed, seeds=32,
            problem=str(draw.choice(["quadratic", "rational"])), gradient=str(draw.choice(["exact", "rounded"])),
            rounding=str(draw.choice(["nearest_even", "nearest_away"])), hyperparameters=setting, steps=3000,
        )  # fmt: skip
        bound = T24.evaluate(window)
        if bound.applicable:
            result = verdict(T24.measured(window), bound)
            assert result.status == "holds", (seed, result.reason)
            ratios.append(result.ratio)
    assert len(ratios) > 30
    assert np.median(ratios) < 4


def test_momentum_in_another_convention(machine: SimpleNamespace) -> None:
    """m <- beta m + g: the injection is 1, whatever the step's slots are called."""
    draw = np.random.default_rng(1)
    center, w = draw.uniform(1, 3, (4, 1)), draw.uniform(1, 3, (4, 9))
    result = machine.run(
        polyak.bind(lr=0.02, beta1=0.8), Precision.uniform("bfloat16"), {"w": w, "m": np.zeros((4, 9))}, {}, 600,
        every_step=lambda k, state: {"g": state["w"] - center},
    )  # fmt: skip
    window = machine.window(result, end_gradient=result.end["w"] - center)
    assert window.halted.all()
    outcome = verdict(T24.measured(window), T24.evaluate(window))
    assert outcome.status == "holds"
    assert outcome.ratio < 3


def test_evaluates_its_limit(machine: SimpleNamespace) -> None:
    """Four slots of bfloat16, m stored with fewer bits, and a gradient with an error."""
    fmt = "bfloat16"
    precision = Precision.uniform(fmt).replace({"m": "e8m5"})
    error, w = np.array([1e-4, 2e-4]), np.array([[1.5], [3.25]])
    result = machine.run(
        momentum.bind(lr=0.125, beta1=0.75), precision, {"w": w, "m": np.zeros((2, 1))}, {}, 2,
        every_step=lambda k, state: {"g": np.full((2, 1), 1e-6)},
    )  # fmt: skip
    window = machine.window(
        result, gradient_error=error, end_gradient=np.ones((2, 1)), halted=np.ones(1, bool),
        underflow=dict.fromkeys(result.underflow, 0),
    )  # fmt: skip
    low, stored_low, stored_high = 1 / (1 + 2.0**-8), 1 / (1 + 2.0**-6), (1 + 2.0**-5) / (1 + 2.0**-6)
    half = gap_toward(w, -np.ones((2, 1)), window.slots["w"][0])[:, 0] / 2
    # beta1 = 3/4 and lr are powers of two or exact; 3/4 m is rounded, m.add, the storing; g, m.inject (exact: 1/4 g)
    b, c = 0.75 * low**2 * stored_low, 0.25 * low**2 * stored_low
    limits = [
        t24.LIMIT.subs({
            t24._B: b, t24._C: c, t24._h: stored_high, t24._half: half[k], t24._Aa: 0, t24._S: 0, t24._A: 0,
            t24._low: 1, t24._lr: 0.125, t24._E: error[k],
        })
        for k in range(2)
    ]  # fmt: skip
    bound = T24.evaluate(window)
    assert bound.applicable, bound.reason
    assert bound.per_seed is not None
    assert bound.per_seed[0] == pytest.approx(math.sqrt(sum(float(x) ** 2 for x in limits)), rel=1e-12)


def test_it_costs_a_factor_near_one_against_plain_descent() -> None:
    """kappa of bfloat16 at beta1 = 0.9, not 1/(1 - beta1): the bound of T6's half gap over lr, times 1.12 at most."""
    window = run()
    half = gap_toward(window.end["w"], -window.end_gradient, window.slots["w"][0]) / 2
    plain = np.sqrt(np.sum((half / window.scalars["scalar.lr"]) ** 2, axis=0))
    bound = T24.evaluate(window)
    assert bound.per_seed is not None
    assert np.all(bound.per_seed <= 1.12 * plain)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"noise": "gaussian"}, "deterministic"),
        ({"halted": np.zeros(16, dtype=bool)}, "halted: 0 of 16 seeds"),
        ({"overflow": {"w.sub": 2}}, "no overflow or invalid operation: 2 in w.sub"),
        ({"scalars": {"scalar.lr": 0.1}}, "no constant that is known"),
        ({"scalars": {}}, "a constant positive step size"),
        ({"program": adam}, "m is the only other state"),
        ({"exact_constants": ()}, "may cancel"),
    ],
)
def test_missed_hypotheses_are_named(fields: dict[str, Any], reason: str) -> None:
    bound = T24.evaluate(dataclasses.replace(_rested(), **fields))
    assert not bound.applicable
    assert reason in bound.reason
    assert math.isnan(bound.upper)


@functools.cache
def _rested() -> Window:
    return run()


def test_formats_in_which_a_decay_may_not_decay() -> None:
    """e5m2 and beta1 = 0.9: 7/8 of m, rounded twice, may be m itself."""
    window = run(exponent_bits=5, mantissa_bits=2)
    assert T24.evaluate(window).reason.startswith("b h1 <= 1: b h1 = 1.08")


def test_stochastic_weights_do_not_rest() -> None:
    window = _rested()
    slots = {**window.slots, "w.sub": (window.slots["w"][0], Stochastic(16))}
    assert "nearest" in T24.evaluate(dataclasses.replace(window, slots=slots)).reason
