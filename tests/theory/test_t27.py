"""T27: bounded second moments, rates by limits, the number against the statement, slopes of bit-exact runs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
from exact_rmsprop_runs import one_coordinate
from rmsprop_runs import CASES, train
from study_cells import cell
from tiers import slow_but

from experiments import simulate
from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic
from theory.theorems import _floor_root
from theory.theorems import _rates as rates
from theory.theorems import _rmsprop_lemmas as lemmas
from theory.theorems import t27_precision_exponents as t27
from theory.theorems.t12_rmsprop import _signal
from theory.verdict import verdict

THEOREM = t27.THEOREM


def test_second_moment_of_an_adversary_stays_below_its_ceiling() -> None:
    """v' = (1 + q_V)(B v + c R^2) in every step: the ceiling is its fixed point, finite while q_V < c."""
    for c, part in ((0.1, 0.5), (0.01, 0.9), (0.01, 0.0)):
        rounding, kept, largest, v = part * c, 1 - c, 2.0, 0.0
        ceiling = (1 + rounding) * c * largest**2 / (1 - (1 + rounding) * kept)
        for _ in range(20_000):
            v = (1 + rounding) * (kept * v + c * largest**2)
            assert v <= ceiling * (1 + 1e-12)
        assert v >= 0.99 * ceiling
        assert ceiling <= (1 + rounding) * largest**2 / (1 - part) * (1 + 1e-12)


def test_rates_are_limits() -> None:
    """sqrt(T) times every term of the squared norm has a limit in regime A; divided by ln T too in regime B."""
    x, a, b, kappa = sp.symbols("x a b kappa", positive=True)
    top, first, eps = sp.symbols("V v_0 epsilon", positive=True)
    chi = 0
    for c, rise, allowed in (
        (b * x**2, sp.log(top / first) * x**4, sp.Integer(1)),
        (b * x**4, sp.log((top + b * x**4 * eps) / (b * x**4 * eps)) * x**4, sp.log(1 / x)),
    ):
        exact = lemmas.SHARE.subs({lemmas.zeta: -sp.log(1 - kappa * c), lemmas.chi: chi, lemmas.B: 1 - c}) / c
        share = exact.subs(lemmas.rise, rise)
        bound = rates.AVERAGE.subs({rates.kappa: kappa, rates.chi: chi}).subs({rates.c: c, rates.rise: rise})
        half = {kappa: sp.Rational(1, 2), b: 2, top: 3, first: 1, eps: 1}
        limits = [sp.limit((y / allowed).subs(half), x, 0, "+") for y in (share, bound)]
        assert all(y.is_finite and y > 0 for y in limits)
        assert limits[0] <= limits[1]
    # lr MA L/2 sqrt(T), (omega/lr)^2 sqrt(T) and F/(lr T) sqrt(T)
    for term in (a * x**2, (a * x**3 / (a * x**2)) ** 2, x**4 / (a * x**2)):
        assert sp.limit(term / x**2, x, 0, "+").is_finite


@pytest.mark.parametrize("rounding", ["nearest_even", Stochastic(8)], ids=str)
def test_evaluates_its_statement(machine: Any, rounding: Rounding) -> None:
    """Minibatch noise, one coordinate: the finite-T formula of the docstring in floating point."""
    options: dict[str, Any] = {"problem": None, "noise": "minibatch", "steps": 200, "beta2": 0.9}
    window = one_coordinate(train(machine, Format(8, 9), rounding, **options))
    bound = THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    scalars = {name: window.scalars[f"scalar.{name}"] for name in ("beta2", "one_minus_beta2", "lr", "eps")}
    kept, c, lr, eps = scalars.values()
    u = 2.0**-10
    nearest = rounding == "nearest_even"
    low, high = (1 / (1 + u), (1 + 2 * u) / (1 + u)) if nearest else (1 / (1 + 2 * u), 1 + 2 * u)
    # square, injection and sum: three roundings; root, sum, quotient: three more, since lr is a power of two
    v_low, v_high = low**3, high**3
    step_low, step_high = low * low / (v_high**0.5 * high**2), high * high / (v_low**0.5 * low**2)
    largest = window.max_abs["g"].max() / low
    top = max(v_high * c * (largest * high) ** 2 / (1 - v_high * kept), window.start["v"].max())
    rise = np.mean(np.log(top / window.start["v"])) / window.steps
    share = (-math.log(v_low) - math.log(kept) + rise) / (1 + 2 * math.log(low))
    least, most = (math.sqrt(y) + eps for y in (kept * window.min_abs["v"].min(), top))
    error = window.gradient_error[0] + 2.0**-53 * largest
    drift = min(window.gradient_bound[0] + error, largest)
    gap, second = 2.0**-9, share / c
    step = lr * step_high * math.sqrt(second)
    roots = []
    for weight in (0.0,) if nearest else (0.0, 0.5, 1.0):
        bias = 0 if nearest else 2.0**-8
        off = gap / 2 if nearest else bias * gap
        size = step**2 + (2 * bias + weight) * gap * step
        size += (bias**2 + weight * bias + (1 - weight) / 4) * gap**2
        values = {
            lemmas.middle: (step_high + step_low) / 2, lemmas.half: (step_high - step_low) / 2, lemmas.tau: 1,
            lemmas.rho: float(_signal(window).low), lemmas.e: error / math.sqrt(least), lemmas.A: second,
            lemmas.Db: most, lemmas.omega: off, lemmas.alpha: lr, lemmas.L: window.curvature[0],
            lemmas.V: largest * (drift + error) * share / least, lemmas.Q: (step + off) ** 2 if nearest else size,
        }  # fmt: skip
        square, linear, constant = (
            float(x.subs(values)) for x in (lemmas.SQUARE, lemmas.LINEAR, lemmas.CONSTANT)
        )  # fmt: skip
        total = constant + window.loss_start.mean() / (lr * window.steps)
        root = {_floor_root.K: most / square, _floor_root.B: linear / math.sqrt(square), _floor_root.c: total}
        roots.append(float(THEOREM.statement.right.subs(root)))
    assert bound.upper == pytest.approx(min(roots), rel=1e-9)


@pytest.mark.parametrize("case", slow_but(CASES, *list(CASES)[::3]))
@pytest.mark.parametrize("rounding", ["nearest_even", Stochastic(8)], ids=str)
def test_never_violated(machine: Any, case: str, rounding: Rounding) -> None:
    for mantissa in (4, 10):
        window = train(machine, Format(8, mantissa), rounding, steps=160, seed=mantissa, **CASES[case])
        bound = THEOREM.evaluate(window)
        assert bound.applicable or mantissa == 4 or "q_V" in bound.reason, bound.reason
        assert verdict(THEOREM.measured(window), bound).status != "violated"


def test_reasons(machine: Any) -> None:
    window = train(machine, Format(8, 10), "nearest_even", steps=20, beta2=0.9)
    assert THEOREM.evaluate(window).applicable
    narrow = train(machine, Format(8, 3), "nearest_even", steps=20, beta2=0.9)
    assert "(1 + q_V) beta2 < 1: q_V = 0.187, 1 - beta2 = 0.102" in THEOREM.evaluate(narrow).reason
    still = {**window.min_abs, "v": np.zeros((8, 6))}
    assert "v > 0 on the window" in THEOREM.evaluate(dataclasses.replace(window, min_abs=still)).reason
    without = {name: x for name, x in window.scalars.items() if name != "scalar.beta2"}
    assert "no positive constant scalar.beta2" in THEOREM.evaluate(dataclasses.replace(window, scalars=without)).reason
    assert "noise" in THEOREM.evaluate(dataclasses.replace(window, noise="adversarial")).reason
    biased = {**window.slots, "noise": (Format(8, 10), "up")}
    unknown = {name: x for name, x in window.hyperparameters.items() if name != "sigma"}
    changed = dataclasses.replace(window, slots=biased, hyperparameters=unknown)
    assert "noise: up" in THEOREM.evaluate(changed).reason


@pytest.mark.slow
def test_precision_that_grows_as_prescribed_keeps_the_rate() -> None:
    """T = 2^12..2^16, lr = T^-1/2/4, 1 - beta2 = 2 T^-1/2: the slope of G is -1/4 within 0.02.

    p_V = log2(T)/2 + 2 and p_U = log2(T)/4 + 2 to nearest, p_W = log2(T)/2 + 1 stochastic; p_W = 6: a floor.
    """

    def settled(exponent: int, bits_w: int) -> tuple[float, float]:
        horizon = 2**exponent
        bits_v, bits_u = exponent // 2 + 2, round(exponent / 4) + 2
        narrow = {"v.*": bits_v, "v": bits_v, "update.*": bits_u, "g": bits_u}
        overrides = tuple((slot, f"e8m{bits - 1}", "") for slot, bits in narrow.items())
        overrides += tuple((slot, f"e8m{bits_w - 1}", "stochastic") for slot in ("w.sub", "w"))
        (window,) = simulate.windows([
            cell(
                optimizer="rmsprop", noise="gaussian", sigma=0.25, gradient="exact", mantissa_bits=23, seeds=8,
                overrides=overrides, lr=horizon**-0.5 / 4, beta2=1 - 2 * horizon**-0.5, eps=1e-2, steps=horizon,
            )
        ])  # fmt: skip
        bound = THEOREM.evaluate(window)
        samples = THEOREM.measured(window)
        assert verdict(samples, bound).status == "holds"
        return math.log2(np.mean(samples)) / 2, math.log2(bound.upper)

    exponents = range(12, 17, 2)
    grown = np.array([settled(k, k // 2 + 1) for k in exponents])
    slope, slope_of_bound = np.polyfit(exponents, grown, 1)[0]
    assert abs(slope + 0.25) < 0.02
    assert slope_of_bound < -0.25
    fixed = np.array([settled(k, 6) for k in exponents])
    assert abs(np.polyfit(exponents, fixed, 1)[0][0]) < 0.02
