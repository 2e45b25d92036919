"""T23: Lyapunov sums and gains against direct summation; the bound on bit-exact runs of momentum."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from flint import arb
from tiers import slow_but

from experiments import simulate
from experiments.registry import problem_of
from experiments.study import Cell
from theory.theorems import _momentum_moments as lemmas
from theory.theorems import t23_momentum_quadratic as t23
from theory.verdict import verdict
from theory.window import Window

SETTING: dict[str, Any] = {
    "optimizer": "momentum", "problem": "quadratic", "noise": "gaussian", "sigma": 0.05, "batch": 0,
    "gradient": "exact", "rounding": "stochastic", "random_bits": 16, "exponent_bits": 8, "mantissa_bits": 7,
    "dimension": 8, "seeds": 8, "seed": 0, "steps": 2000, "window": 0.5,
    "hyperparameters": {"lr": 2.0**-4, "beta1": 0.9},
}  # fmt: skip
STABLE = [
    (0.5, 0.1, 0.9, 1.0),
    (1.0, 1.0, 0.3, 2.0),
    (0.1, 0.5, 0.5, 0.7),
    (0.03, 0.01, 0.99, 0.2),
    (1.9, 1.0, 0.0, 1.0),
]


def window_of(**changed: Any) -> Window:
    cell = Cell(**{**SETTING, **changed})
    (window,) = simulate.windows([cell])
    return dataclasses.replace(window, minimizer=problem_of(cell).center)


def matrix(step: float, injection: float, kept: float, curvature: float) -> np.ndarray:
    return np.array([[1 - step * injection * curvature, -step * kept], [injection * curvature, kept]])


@pytest.mark.parametrize("system", STABLE)
def test_lyapunov_sums(system: tuple[float, ...]) -> None:
    """Each coefficient against sum_k of A^k V (A^k)', V the covariance of (e_w - alpha e_m, e_m)."""
    step, injection, kept, curvature = system
    a, found = matrix(*system), lemmas.responses(*(arb(x) for x in system))
    sources = [
        np.array([[1.0, 0], [0, 0]]),
        np.array([[step**2, -step], [-step, 1]]),
        np.array([[-2 * step, 1], [1, 0]]),
    ]
    for k, source in enumerate(sources):
        total, term = np.zeros((2, 2)), source
        for _ in range(20000):
            total += term
            term = a @ term @ a.T
        (x, c), (_, y) = total
        change = np.array([injection * curvature, -(1 - kept)])
        for row, value in (
            (found.gradient, curvature**2 * x),
            (found.momentum, y),
            (found.change, change @ total @ change),
        ):
            assert float(row[k]) == pytest.approx(value, rel=1e-8, abs=1e-12)
        assert math.isfinite(c)


@pytest.mark.parametrize("system", STABLE)
def test_gains(system: tuple[float, ...]) -> None:
    """At least the l1 norm of the impulse response's rms effect (errors of constant size), at most 5 times as large."""
    step, _, _, curvature = system
    a = matrix(*system)
    slowest = float(np.max(np.abs(np.linalg.eigvals(a))))
    gains = lemmas.bounded_gains(*(arb(x) for x in system), arb(1 - (1 - slowest**2) / 2))
    assert gains is not None
    for k, source in enumerate((np.array([1.0, 0.0]), np.array([-step, 1.0]))):
        state, total = source, np.zeros(2)
        for _ in range(20000):
            total += np.abs(state)
            state = a @ state
        for j, limit in enumerate((curvature * total[0], total[1])):
            assert limit <= float(gains[j][k]) * (1 + 1e-9)
            assert float(gains[j][k]) <= 5 * limit
    assert lemmas.bounded_gains(*(arb(x) for x in system), arb(slowest**2 / 2)) is None or slowest == 0


@pytest.mark.parametrize("mantissa", slow_but([2, 7, 10], 7))
@pytest.mark.parametrize("problem", ["quadratic", "dense_quadratic"])
def test_never_violated(mantissa: int, problem: str) -> None:
    for beta1, sigma in ((0.0, 0.0), (0.5, 0.05), (0.9, 0.0), (0.8, 0.3)):
        known = {"hyperparameters": {"lr": 2.0**-4, "beta1": beta1}, "noise": "gaussian" if sigma else "none"}
        window = window_of(problem=problem, mantissa_bits=mantissa, sigma=sigma, **known)
        bound = t23.THEOREM.evaluate(window)
        assert bound.applicable, bound.reason
        assert verdict(t23.THEOREM.measured(window), bound).status != "violated"


@pytest.mark.parametrize(("options", "most"), [({"spectrum": "isotropic"}, 2.0), ({}, 2.0)])
@pytest.mark.parametrize("gradient", slow_but(["exact", "rounded"], "rounded"))
def test_sharp(options: dict[str, Any], most: float, gradient: str) -> None:
    """bfloat16, every operation stochastic: within a factor two, also with condition number 10."""
    for beta1 in (0.5, 0.9):
        known = {"hyperparameters": {"lr": 2.0**-4, "beta1": beta1}, "options": options, "gradient": gradient}
        window = window_of(**known)
        bound = t23.THEOREM.evaluate(window)
        assert bound.applicable, bound.reason
        judged = verdict(t23.THEOREM.measured(window), bound)
        assert judged.status != "violated"
        assert judged.ratio < most


def test_evaluates_its_statement() -> None:
    """Without the small-step lemma, one coordinate, binary64 but for w: the statement from its symbols."""
    wide = tuple((s, "binary64", "nearest_even") for s in ("m.decay", "m.inject", "m.add", "m", "update.scale", "g"))
    window = window_of(dimension=1, overrides=wide, hyperparameters={"lr": 1.5, "beta1": 0.5}, seeds=4)
    bound = t23.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    ((_, curvature),) = t23._units(window)
    lr, injection, kept = t23.scalars(window)
    found, gains = lemmas.responses(lr, injection, kept, curvature), t23._gains(window, curvature)
    assert gains is not None
    gap = 2.0**-7
    values = {
        t23.g_w: float(found.gradient[0]), t23.g_m: float(found.gradient[1]), t23.Q_w: gap**2 / 4,
        t23.Q_m: 0.25 * 0.05**2, t23.F: float(t23._starting_shares(window, [0], found)[0]), t23.h_w: float(gains[0][0]),
        t23.h_m: float(gains[0][1]), t23.b_w: gap * 2.0**-16, t23.b_m: 0, t23.rho: 0,
    }  # fmt: skip
    assert bound.upper == pytest.approx(float(t23.BOUND.subs(values)), rel=1e-6)


def test_reasons() -> None:
    window = window_of(steps=64)

    def reason(**fields: Any) -> str:
        return t23.THEOREM.evaluate(dataclasses.replace(window, **fields)).reason

    assert reason() == ""
    assert reason(minimizer=None).startswith(
        "a quadratic with a known Hessian and minimiser: Hessian True, minimiser F"
    )
    assert reason(smoothness=1e3).startswith("lr c L < 2 (1 + B): lr c L = ")
    assert reason(scalars={}).startswith("constant lr > 0 and c > 0")
    assert reason(noise="minibatch").startswith("Gaussian noise or none: minibatch")
    assert reason(max_abs={}).startswith("a quadratic with a known Hessian and minimiser")
    (plain,) = simulate.windows([Cell(**{**SETTING, "optimizer": "sgd", "hyperparameters": {"lr": 0.1}, "steps": 64})])
    assert t23.THEOREM.evaluate(plain).reason.startswith("the operations are those of momentum: m.decay")
