"""T10: finite windows against the recursion, lattices against enumeration, the law on bit-exact runs of momentum."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
from flint import arb, arb_mat
from tiers import slow_but

from experiments import simulate
from experiments.registry import problem_of
from experiments.study import Cell
from theory.theorems import _momentum_moments as momentum
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
    """One coordinate: the docstring's terms in floating point, in the statements of both derivations.

    The ends of the window, D, are what the recursion over its steps adds to the stationary law. What binary64 rounds in
    the other slots is below the tolerance.
    """
    window = window_of(dimension=1, seeds=2, steps=1000)
    bound = t10.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    h, sigma = float(window.hessian[0]), 0.1
    lr, kept, c = (window.scalars[f"scalar.{name}"] for name in ("lr", "beta1", "one_minus_beta1"))
    gap_w, gap_m, bits = 2.0**-7, 2.0**-8, 2.0**-24
    noise = c * sigma
    r, coupled = noise / gap_m, 2.0**-25 * noise  # the noise is Gaussian up to a coupling
    size = noise * math.sqrt(2 / math.pi)
    damped = math.exp(-2 * math.pi**2 * r**2)
    around = (gap_m / math.pi) ** 2 * damped / (1 - damped**3)
    around += bits * gap_m**2 + gap_m * (1 + 2 * bits) * coupled + 4 * coupled**2
    cross, bias_m = (bits * gap_m + coupled) * size, bits * gap_m + coupled
    eta, moved = lr * gap_m / gap_w, 2 * (2 * bits + coupled / gap_m)
    lattice = 1 / (math.pi**2 * t10.FREQUENCIES)
    for j in range(1, t10.FREQUENCIES + 1):
        away = j * eta - np.arange(round(j * eta) - 8, round(j * eta) + 9)
        lattice += (
            min(1.0, np.sum(np.exp(-2 * (math.pi * r * away) ** 2) * np.sinc(away) ** 2) + moved) / (math.pi * j) ** 2
        )
    spread, bias_w = (lattice + bits) * gap_w**2, bits * gap_w
    (w_w, w_m), _ = t10._gains(*(arb(x) for x in (lr, c, kept, h))) or ()
    pushed = float(w_w) * bias_w + float(w_m) * bias_m

    z, m = window.start["w"][0] - window.minimizer[0], window.start["m"][0]
    start = np.array([[z @ z, z @ m], [z @ m, m @ m]]) / 2
    a = np.array([[1 - lr * c * h, -lr * kept], [c * h, kept]])
    symbols = {momentum.alpha: lr, momentum.c: c, momentum.lam: h, momentum.B: kept}
    g_w, g_m = (float(found.subs(symbols)) for found in momentum.GRADIENT[:2])

    def ends_of_window(q_w: float, q_m: float) -> float:
        now, total = start.copy(), 0.0
        for _ in range(window.steps):
            total += h**2 * now[0, 0]
            now = a @ now @ a.T + q_w * np.diag([1.0, 0.0]) + q_m * np.array([[lr**2, -lr], [-lr, 1.0]])
        return total / window.steps - g_w * q_w - g_m * q_m

    above = {"q_w": gap_w**2 / 6 + spread, "q_m": noise**2 + gap_m**2 / 6 + around + 2 * cross}
    below = {
        "q_w": gap_w**2 / 6 - spread - bias_w**2,
        "q_m": noise**2 + gap_m**2 / 6 - around - 2 * cross - bias_m**2,
    }

    def numbers(q_w: float, q_m: float) -> dict[sp.Symbol, float]:
        names = (t10.g_w, t10.g_m, t10.q_w, t10.q_m, t10.D, t10.gain)
        return dict(zip(names, (g_w, g_m, q_w, q_m, ends_of_window(q_w, q_m), pushed), strict=True))

    upper = t10.law.statement.right.subs(t10.V, t10.SOURCES).subs(numbers(**above))
    assert bound.upper == pytest.approx(float(upper), rel=1e-8)
    least = sp.solve(sp.Eq(t10.lower.statement.left, t10.lower.statement.right), t10.G)
    lower = max(float(root.subs(numbers(**below))) for root in least)
    assert bound.lower == pytest.approx(lower, rel=1e-8)


def test_reasons() -> None:
    window = window_of(steps=256)

    def reason(**fields: Any) -> str:
        return t10.THEOREM.evaluate(dataclasses.replace(window, **fields)).reason

    assert reason(noise="none").startswith("Gaussian noise: none")
    assert reason(minimizer=None).startswith("a quadratic with a known Hessian and minimiser")
    assert reason(gradient_inside=True).startswith("the gradient is computed beside the machine")
    assert reason(max_abs={**window.max_abs, "m": np.full((4, 16), 7.0)}).startswith("m and w stay on uniform grids: 0")
    assert t10.THEOREM.evaluate(window_of(rounding="nearest_even", steps=64)).reason.startswith("w.sub rounds stoch")
