"""T10: finite windows against the recursion, lattices against enumeration, the law on bit-exact runs of momentum."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_mat
from tiers import slow_but

from experiments import simulate
from experiments.registry import problem_of
from experiments.study import Cell
from theory.theorems import t10_momentum_law as t10
from theory.verdict import verdict
from theory.window import Window

# e2mY is uniform below 2: m keeps one gap through zero; w is near 4/3 and 5/3
SETTING: dict[str, Any] = {
    "optimizer": "momentum", "problem": "quadratic", "noise": "gaussian", "sigma": 0.1, "batch": 0,
    "gradient": "exact", "rounding": "stochastic", "random_bits": 24, "exponent_bits": 8, "mantissa_bits": 7,
    "dimension": 4, "seeds": 16, "seed": 0, "steps": 8000, "window": 0.75,
    "hyperparameters": {"lr": 0.3, "beta1": 0.9}, "options": {"spectrum": "isotropic"},
}  # fmt: skip


def window_of(grid: str = "e2m8", mode: str = "stochastic", **changed: Any) -> Window:
    wide = tuple((s, "binary64", "nearest_even") for s in ("m.decay", "m.inject", "update.scale", "g", "scalar.*"))
    coarse = tuple((s, grid, mode) for s in ("m.add", "m"))
    cell = Cell(**{**SETTING, "overrides": (*wide, *coarse), **changed})
    (window,) = simulate.windows([cell])
    return dataclasses.replace(window, minimizer=problem_of(cell).center)


def test_finite_windows() -> None:
    """The average of the second moments over 1, 7 and 300 steps, from a state, against the recursion itself."""
    for lr, injection, kept, h in ((0.5, 0.1, 0.9, 1.0), (1.0, 1.0, 0.3, 0.7)):
        a = np.array([[1 - lr * injection * h, -lr * kept], [injection * h, kept]])
        noise = 0.3 * np.array([[1.0, 0], [0, 0]]) + 0.2 * np.array([[lr**2, -lr], [-lr, 1.0]])
        start = np.outer([0.5, -0.8], [0.5, -0.8])
        for steps in (1, 7, 300):
            now, total = start.copy(), 0.0
            for _ in range(steps):
                total += h**2 * now[0, 0]
                now = a @ now @ a.T + noise
            values = (arb(lr), arb(injection), arb(kept), arb(h), arb(0.3), arb(0.2))
            found = t10.averaged(*values, arb_mat(start.tolist()), steps)
            assert float(found) == pytest.approx(total / steps, rel=1e-9)


@pytest.mark.parametrize("eta", [0.03, 0.5, 0.37, 1.0])
@pytest.mark.parametrize("mode", ["stochastic", "nearest_even"])
def test_aliases_on_a_lattice(eta: float, mode: str) -> None:
    """E f(1-f) of lr m' for m' a rounded Gaussian on a lattice, enumerated, against 1/6 and the sum over aliases."""
    window = window_of(mode=mode, steps=64)
    r = 0.6
    limit = float(t10._lattice(window, arb(1), arb(r), arb(eta), arb(0)))
    points = np.arange(-30, 31)
    x, h = np.linspace(-8 * r, 8 * r, 20001, retstep=True)
    for mean in (0.0, 0.21, 0.5):
        y = mean + x
        density = np.exp(-((x / r) ** 2) / 2) / (r * math.sqrt(2 * math.pi)) * h
        away = np.abs(points[:, None] - y)
        weight = np.clip(1 - away, 0, 1) if mode == "stochastic" else (away < 0.5)
        law = (weight * density).sum(axis=1)
        f = (points * eta + 0.13) % 1.0
        assert abs(np.sum(law * f * (1 - f)) - 1 / 6) <= limit + 1e-3


@pytest.mark.parametrize("mode", ["stochastic", "nearest_even"])
@pytest.mark.parametrize(
    ("grid", "sigma", "lr"),
    slow_but([("e2m8", 0.1, 0.3), ("e2m6", 0.15, 0.05), ("e2m5", 0.25, 0.11)], ("e2m6", 0.15, 0.05)),
)
def test_law_is_met(mode: str, grid: str, sigma: float, lr: float) -> None:
    """c sigma/Delta_m = 2.6, 0.96, 0.8, incommensurate grids; the rounding of m and w is up to half of the variance."""
    window = window_of(grid, mode, sigma=sigma, hyperparameters={"lr": lr, "beta1": 0.9})
    bound = t10.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    judged = verdict(t10.THEOREM.measured(window), bound)
    assert judged.status == "met", (judged, bound.lower, bound.upper)
    assert judged.ratio < 1.15
    assert bound.upper < 1.25 * bound.lower


def test_evaluates_its_statement() -> None:
    window = window_of(dimension=1, seeds=2, steps=1000)
    bound = t10.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    low, high = (float(x) for x in t10._coordinate(window, 0) or ())
    assert bound.upper == pytest.approx(math.sqrt(high), rel=1e-9)
    assert bound.lower == pytest.approx(math.sqrt(low), rel=1e-9)


def test_reasons() -> None:
    window = window_of(steps=256)

    def reason(**fields: Any) -> str:
        return t10.THEOREM.evaluate(dataclasses.replace(window, **fields)).reason

    assert reason(noise="none").startswith("Gaussian noise: none")
    assert reason(minimizer=None).startswith("a quadratic with a known Hessian and minimiser")
    assert reason(gradient_inside=True).startswith("the gradient is computed beside the machine")
    assert reason(max_abs={**window.max_abs, "m": np.full((4, 16), 7.0)}).startswith("m and w stay on uniform grids: 0")
    assert t10.THEOREM.evaluate(window_of(rounding="nearest_even", steps=64)).reason.startswith("w.sub rounds stoch")
