"""X2: the sums that its side conditions are for, the formula by hand, and the word 'inferred' wherever it is shown."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
from study_cells import cell

from experiments import simulate
from fpsim.number_format import Format
from theory.theorems import x02_quantized_adam as x02
from theory.theorems.x01_defossez import THEOREM as X1

THEOREM = x02.THEOREM


@pytest.mark.parametrize(("q_m", "q_v"), [(0.0, 0.0), (0.01, 0.01), (0.03, 0.005)])
def test_rounded_states_obey_the_sums(q_m: float, q_v: float) -> None:
    """Relative errors of random sign and of the worst sign: sum M^2/(V + eps), and |M|/sqrt(V)."""
    generator = np.random.default_rng(3)
    first, second, eps = 0.9, 0.99, 1e-3
    a, b = first * (1 + q_m), second * (1 - q_v)
    worst = 0.0
    for kind in range(30):
        growing = kind % 3 == 0
        g = (a / b) ** -np.arange(150.0) if growing else generator.normal(size=300)
        m = v = total = ratio = 0.0
        for x in g:
            sign = 1.0 if growing else generator.choice([-1.0, 1.0])
            stored_m, stored_v = m * (1 + sign * q_m), v * (1 - sign * q_v)
            m, v = first * stored_m + x, second * stored_v + x * x
            total += m * m / (eps + v)
            ratio = max(ratio, abs(m) / math.sqrt(v))
        largest = np.abs(g).max()
        memory = math.log(1 + largest**2 / ((1 - second * (1 + q_v)) * eps)) if second * (1 + q_v) < 1 else math.inf
        assert total <= (memory - len(g) * math.log(b)) / ((1 - a) * (1 - a / b))
        assert ratio <= (1 - a * a / b) ** -0.5 * (1 + 1e-12)
        worst = max(worst, ratio)
    assert worst > 0.99 * (1 - a * a / b) ** -0.5


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_formula_by_hand(optimizer: str) -> None:
    options: dict[str, Any] = {"lr": 2.0**-8, "steps": 600, "noise": "gaussian", "sigma": 0.1}
    (window,) = simulate.windows([cell(optimizer=optimizer, mantissa_bits=9, **options)])
    bound = THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    h = window.hyperparameters
    b1, b2, lr, n, d, L = h.get("beta1", 0.0), h["beta2"], h["lr"], window.steps, window.dimension, window.smoothness
    u = 2.0**-10 / (1 + 2.0**-10)
    q_m = u if optimizer == "adam" else 0.0
    a, b, eps = b1 * (1 + q_m), b2 * (1 - u), h["eps"] ** 2 / (1 - b2)
    R, rho, shorter = (1 + u) * window.max_abs["g"].max() + math.sqrt(eps), a / b, n - b1 / (1 - b1)
    constant = lr * d * R * L * (1 - b1) / ((1 - rho) * (1 - b2))
    constant += 12 * d * R**2 * math.sqrt(1 - b1) / ((1 - rho) ** 1.5 * math.sqrt(1 - b2))
    constant += 2 * lr**2 * d * L**2 * b1 / ((1 - rho) * (1 - b2) ** 1.5)
    logs = math.log(1 + R**2 / ((1 - b) * eps)) - n * math.log(b)
    widest = np.linalg.norm(window.max_abs["w"], axis=0).max()
    spent = d * R * u + d * R * q_m / (1 - b1) + d * R * u / (1 - b2) + math.sqrt(d) * L * u * widest
    square = 2 * R * window.loss_start.mean() / (lr * shorter) + constant * logs / shorter
    square += 2 * R / math.sqrt(1 - b2) * spent
    assert bound.upper**2 == pytest.approx(square, rel=1e-9)
    if optimizer == "adam":
        assert bound.upper > X1.evaluate(window).upper


def test_says_that_it_is_inferred() -> None:
    (window,) = simulate.windows([cell(optimizer="adam", noise="gaussian", sigma=0.1, mantissa_bits=10, steps=200)])
    assert "[inferred]" in THEOREM.evaluate(window).note
    assert "[inferred]" in THEOREM.source
    assert "[inferred]" in str(x02.__doc__)
    assert THEOREM.comparison
    coarse = dataclasses.replace(window, slots={**window.slots, "v": (window.slots["v"][0], "down")})
    assert THEOREM.evaluate(coarse).upper > THEOREM.evaluate(window).upper
    near = {**window.hyperparameters, "beta1": 0.9, "beta2": 0.9005}
    assert THEOREM.evaluate(dataclasses.replace(window, hyperparameters=near)).reason.startswith("a < b")
    rough = {**window.slots, "m": (Format(8, 2), "nearest_even"), "v": (Format(8, 2), "nearest_even")}
    assert THEOREM.evaluate(dataclasses.replace(window, slots=rough)).reason.startswith("a^2 < b")


def test_exponents_of_the_schedule() -> None:
    """lr = T^-1/2, 1 - beta2 = 1/T: Q~ = O(T^-1/2) exactly with the exponents that the summaries state."""
    t = sp.Symbol("T", positive=True)
    schedule = {x02.r2: t ** sp.Rational(-1, 2), x02.R: 1, x02.d: 1, x02.lemmas.L: 1, x02.beta1: sp.Rational(1, 2)}
    stated = {x02.qG: 1 / t, x02.qM: 1 / t, x02.qV: t**-2, x02.qW: t**-2, x02.size: t}
    assert sp.limit((x02.AGGREGATE.subs(schedule).subs(stated)) * sp.sqrt(t), t, sp.oo).is_finite
    for symbol in (x02.qG, x02.qM, x02.qV, x02.qW):
        worse = {**stated, symbol: stated[symbol] * t ** sp.Rational(1, 8)}
        assert sp.limit((x02.AGGREGATE.subs(schedule).subs(worse)) * sp.sqrt(t), t, sp.oo) == sp.oo
