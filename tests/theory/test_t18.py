"""T18 against runs of Muon and sign descent: its three inequalities step by step, never violated, close in the mean."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from flint import arb
from tiers import slow_but

from experiments import simulate
from experiments.cell import Cell
from experiments.polar import polar
from fpsim.optim import adam, momentum
from fpsim.rounding import Stochastic
from theory.chain import outcomes
from theory.enclosure import ball
from theory.theorems import _dual_norms as norms
from theory.theorems import t18_matrix_sign as t18
from theory.theorems import theorem
from theory.verdict import Verdict, verdict
from theory.window import Window

T18 = theorem("T18")
SETTING: dict[str, Any] = {
    "optimizer": "muon", "problem": "quadratic", "noise": "none", "sigma": 0.0, "batch": 0, "gradient": "rounded",
    "rounding": "stochastic", "random_bits": 16, "exponent_bits": 8, "mantissa_bits": 7, "dimension": 16, "seeds": 16,
    "seed": 0, "steps": 1000, "window": 0.5, "hyperparameters": {"lr": 2.0**-4, "beta1": 0.9},
}  # fmt: skip


def run(**changed: Any) -> Window:
    fields = {**SETTING, **changed}
    fields.setdefault("options", {"rows": 4} if fields["optimizer"] == "muon" else {})
    (window,) = simulate.windows([Cell(**fields)])
    return window


def held(window: Window) -> Verdict:
    return verdict(T18.measured(window), T18.evaluate(window))


@pytest.mark.parametrize("optimizer", ["muon", "signum"])
@pytest.mark.parametrize(
    ("exponent", "mantissa", "rounding", "most"),
    slow_but(
        [(8, 23, "nearest_even", 4), (5, 10, "stochastic", 5), (8, 7, "stochastic", 8), (8, 7, "nearest_even", 18)],
        (5, 10, "stochastic", 5),
        (8, 7, "nearest_even", 18),
    ),
)
def test_never_violated(optimizer: str, exponent: int, mantissa: int, rounding: str, most: float) -> None:
    result = held(run(optimizer=optimizer, exponent_bits=exponent, mantissa_bits=mantissa, rounding=rounding))
    assert result.status == "holds", result.reason
    assert 1 <= result.ratio <= most


@pytest.mark.parametrize("beta1", [0.0, 0.5])
def test_less_momentum_is_closer(beta1: float) -> None:
    result = held(run(mantissa_bits=23, hyperparameters={"lr": 2.0**-4, "beta1": beta1}, steps=2000))
    assert result.status != "violated"
    assert result.ratio <= (1.02 if beta1 == 0 else 2.3)


@pytest.mark.slow
def test_random_formats_problems_and_step_sizes() -> None:
    draw = np.random.default_rng(5)
    ratios = []
    for seed in range(60):
        optimizer = str(draw.choice(["muon", "signum"]))
        rows, columns = int(draw.integers(1, 5)), int(draw.integers(1, 5))
        options = {"rows": rows} if optimizer == "muon" else {}
        setting = {"lr": float(2.0 ** draw.uniform(-9, -1)), "beta1": float(draw.choice([0.0, 0.3, 0.7, 0.9, 0.97]))}
        window = run(
            optimizer=optimizer, dimension=rows * columns, options=options, hyperparameters=setting, seed=seed,
            problem=str(draw.choice(["quadratic", "rational", "dense_quadratic"])), gradient="exact",
            exponent_bits=int(draw.integers(4, 9)), mantissa_bits=int(draw.integers(2, 24)),
            rounding=str(draw.choice(["nearest_even", "stochastic"])), random_bits=int(draw.choice([4, 16])),
            steps=int(draw.choice([64, 400, 1500])), window=float(draw.choice([0.5, 1.0])),
        )  # fmt: skip
        bound = T18.evaluate(window)
        if bound.applicable:
            result = verdict(T18.measured(window), bound)
            assert result.status != "violated", (seed, result)
            ratios.append(result.ratio)
    assert len(ratios) > 25


def _long_run(optimizer: str) -> tuple[Window, dict[str, np.ndarray]]:
    """A run whose steps are all kept: w [T+1, d, S], m, and the true gradients [T, d, S]."""
    from experiments.problems import PROBLEMS
    from experiments.trajectory import Trajectory

    options = {"rows": 3} if optimizer == "muon" else {}
    cell = Cell(**{**SETTING, "optimizer": optimizer, "dimension": 9, "options": options, "seeds": 6, "steps": 300})
    (window,) = simulate.windows([msgspec.structs.replace(cell, window=0.64)])
    problem = PROBLEMS["quadratic"](dimension=9, **options)
    trajectory = Trajectory([cell], problem)
    kept: dict[str, list[np.ndarray]] = {"w": [], "m": []}
    for _ in range(301):
        for name, rows in kept.items():
            rows.append(trajectory.state(name))
        trajectory.advance(1)
    arrays = {
        name: np.array(rows)[window.first_step : window.first_step + window.steps + 1] for name, rows in kept.items()
    }
    arrays["g"] = np.array([problem.gradient(np.ascontiguousarray(w)) for w in arrays["w"][:-1]])
    return window, arrays


def _dual(values: np.ndarray, matrix: bool) -> np.ndarray:
    """[..., 9, S] -> [..., S]."""
    if not matrix:
        return np.abs(values).sum(axis=-2)
    return np.linalg.svd(np.moveaxis(values, -2, -1).reshape(*values.shape[:-2], -1, 3, 3), compute_uv=False).sum(-1)


@pytest.mark.parametrize("optimizer", ["muon", "signum"])
def test_the_three_inequalities(optimizer: str) -> None:
    """With measured x, x0, y, S instead of their bounds, on every seed (to nearest nothing is random but the start)."""
    window, kept = _long_run(optimizer)
    found, matrix = norms.numbers(window), optimizer == "muon"
    b, c, lr = (float(v.mid()) for v in (found.decay, found.injection, found.lr))
    m, g = kept["m"], kept["g"]
    error = m[1:] - b * m[:-1] - c * g
    x, x0, y, size = (_dual(v, matrix).mean() for v in (m[1:], m[:-1], g, error))
    assert x0 <= x + float(found.start.mid()) * (1 + 1e-9)
    assert size <= float((found.p * x0 + found.q * y + found.z).mid())
    e, bend = (float(v.mid()) for v in (found.e, found.bend))
    assert lr / c * (x - b * x0 - size) <= float(found.fall.mid()) + e * y + bend + 1e-9
    drift = _dual(np.diff(g, axis=0), matrix).mean()
    assert drift <= float(found.drift.mid())
    for n in (1, 2, 5, 11):
        k, spread = (float(v.mid()) for v in t18.unrolling(found, n))
        assert y <= k * x + spread + size / c
        # the identity behind it, at every step and place
        total = (1 - b**n) / (1 - b)
        for i in (1, n):
            g_i = g[i - 1 : len(g) - n + i]
            parts = sum(
                b ** (n - j) * (c * g[j - 1 : len(g) - n + j] + error[j - 1 : len(g) - n + j]) for j in range(1, n + 1)
            )
            other = sum(b ** (n - j) * c * (g[j - 1 : len(g) - n + j] - g_i) for j in range(1, n + 1))
            rest = sum(b ** (n - j) * error[j - 1 : len(g) - n + j] for j in range(1, n + 1))
            np.testing.assert_allclose(m[n:] - b**n * m[: len(m) - n], parts, atol=1e-12)
            np.testing.assert_allclose(c * total * g_i, m[n:] - b**n * m[: len(m) - n] - other - rest, atol=1e-12)


def test_descent_in_a_norm() -> None:
    """Quadratic on 3 x 3 matrices: the mean of F after a random step with a known mean, for many steps."""
    draw = np.random.default_rng(3)
    h = draw.uniform(0.1, 1.0, (3, 3))
    from scipy.optimize import linear_sum_assignment

    star = h[linear_sum_assignment(h, maximize=True)].sum()
    for _ in range(200):
        w, scale = draw.standard_normal((3, 3)), 10.0 ** draw.uniform(-3, 1)
        step = scale * polar(draw.standard_normal((1, 9, 1)), (3, 3)).reshape(3, 3)
        err = 0.1 * scale * draw.standard_normal((3, 3))
        gap = scale * draw.uniform(0, 1, (3, 3))
        g, mean = h * w, w - step + err
        after = 0.5 * np.sum(h * mean**2) + 0.5 * np.sum(h * gap**2 / 4)  # two values mean -+ gap/2
        spectral = np.linalg.norm(err, 2)
        bound = 0.5 * np.sum(h * w**2) - np.sum(g * step) + spectral * np.linalg.norm(g, "nuc")
        bound += star / 2 * (scale + spectral) ** 2 + np.sum(h * gap**2) / 8
        assert after <= bound * (1 + 1e-12)


def test_evaluates_its_limit() -> None:
    found = norms.numbers(_window())
    best, _ = t18._best(found)
    assert best is not None
    values = dict(zip(t18._SYMBOLS, (float(v.mid()) for v in found.symbols), strict=False))
    limits = []
    for n in range(1, 20):
        k, spread = (float(v.mid()) for v in t18.unrolling(found, n))
        here = {**values, t18.k: k, t18.D: spread}
        names = {claim.left: claim.right.subs(here) for claim in t18.NAMED}
        if t18.DETERMINANT.subs(names) > 0:
            limits.append(float(t18.STATEMENT.right.subs(names)))
    assert float(best.mid()) == pytest.approx(min(limits), rel=1e-9)


@pytest.mark.parametrize(("beta", "factor", "n"), [(0.0, 0.5, 1), (0.5, 1.167, 2), (0.9, 3.067, 6), (0.99, 9.971, 20)])
def test_the_floor_in_exact_arithmetic(beta: float, factor: float, n: int) -> None:
    """K_beta of the docstring, in units of lr L*: every rounding and boundary term set to 0."""
    zero, one = arb(0), arb(1)
    exact = norms.Numbers(
        lr=one, decay=ball(beta), injection=1 - ball(beta), tau=zero, p=zero, q=zero, z=zero, e=zero, fall=zero,
        bend=arb(0.5), start=zero, drift=one, largest=zero, steps=10**6, tiny="",
    )  # fmt: skip
    best, _ = t18._best(exact)
    assert best is not None
    assert float(best.mid()) == pytest.approx(factor, abs=6e-4)
    k, spread = t18.unrolling(exact, n)
    assert float((k / 2 + spread).mid()) == pytest.approx(factor, abs=6e-4)


def test_wrong_numbers_are_noticed() -> None:
    """A floor a fifth as large would be violated: the measured side decides."""
    window = _window()
    bound = T18.evaluate(window)
    assert verdict(T18.measured(window), dataclasses.replace(bound, upper=bound.upper / 10)).status == "violated"


@functools.cache
def _window() -> Window:
    return run(seeds=8, steps=400)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"noise": "gaussian"}, "no noise"),
        ({"samples": {}}, "the dual norm of the gradient was sampled"),
        ({"shape": None}, "the weights are a matrix"),
        ({"spectral_smoothness": None}, "smoothness in the norm of the step"),
        ({"program": adam}, "the polar factor or the signs of the new m"),
        ({"program": momentum}, "the polar factor or the signs of the new m"),
        ({"overflow": {"w.sub": 1}}, "no overflow"),
        ({"box": 0.01}, "w stays in the box"),
        ({"scalars": {"scalar.lr": 0.0}}, "stored lr = 0"),
        ({"scalars": {"scalar.lr": 0.1}}, "no constant that is known"),
        ({"max_abs": {}, "start": {}}, "w stays in the box"),
    ],
)
def test_missed_hypotheses_are_named(fields: dict[str, Any], reason: str) -> None:
    window = dataclasses.replace(_window(), **{"box": 1e9, **fields})
    bound = T18.evaluate(window)
    assert not bound.applicable
    assert reason in bound.reason
    assert math.isnan(bound.upper)


def test_where_roundings_are_as_long_as_steps() -> None:
    """bfloat16 to nearest at lr = 2^-9: half a gap is twice a step, and the bound says with which numbers it fails."""
    window = run(rounding="nearest_even", hyperparameters={"lr": 2.0**-9, "beta1": 0.9}, steps=600)
    reason = T18.evaluate(window).reason
    assert reason.startswith("kappa > 0 and kappa A > K P for some n")
    assert "kappa = 0.87" in reason
    assert "e/lr = " in reason


def test_variant_b_is_not_covered() -> None:
    window = _window()
    slots = {**window.slots, "w.sub": (window.slots["w"][0], Stochastic(16, "B"))}
    assert "variant A" in T18.evaluate(dataclasses.replace(window, slots=slots)).reason


def test_a_few_random_bits_shake_a_weight_by_more_than_a_step() -> None:
    """R5 with its bias: from w = 3/2 in gaps of 1/8, lr of 1/64 is rounded with 3 bits to a whole gap, P = 1/4."""
    window = run(
        optimizer="signum", mantissa_bits=3, random_bits=3, overrides=(("scalar.*", "binary32", "nearest_even"),),
        hyperparameters={"lr": 0.126 / 8, "beta1": 0.0}, dimension=1, options={"spectrum": "isotropic"}, steps=64,
    )  # fmt: skip
    gap, lr = float(norms.gaps_visited(window)[0].mid()), window.scalars["scalar.lr"]
    law = outcomes(window.program, window.slots, {"w": 12 * gap, "update.scale": lr}, ["w ->"])
    second = sum(float(p) * (w - 12 * gap) ** 2 for (w,), p in law.items())
    assert second > (lr + gap / 8) ** 2 + gap * lr  # what a variance of at most gap |a| would give
    assert float(norms.numbers(window).bend) >= window.smoothness / 2 * second
