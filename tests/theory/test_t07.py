"""T7: the two-state chain against the definition of n-bit rounding, and the law against bit-exact runs."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tiers import slow_but

from experiments import simulate
from experiments.registry import problem_of
from experiments.study import Cell
from theory.theorems import t07_stochastic_law as t07
from theory.verdict import verdict
from theory.window import Window

SETTING: dict[str, Any] = {
    "optimizer": "sgd", "problem": "quadratic", "noise": "none", "sigma": 0.0, "batch": 0, "gradient": "exact",
    "rounding": "stochastic", "random_bits": 16, "exponent_bits": 8, "mantissa_bits": 7, "dimension": 8, "seeds": 8,
    "seed": 0, "steps": 4000, "window": 0.75, "hyperparameters": {"lr": 2.0**-4}, "options": {"spectrum": "isotropic"},
}  # fmt: skip
WIDE = (("update.scale", "binary64", "nearest_even"), ("g", "binary64", "nearest_even"))


def window_of(**changed: Any) -> Window:
    """The curvature is 1: the squared gradient is the squared distance."""
    cell = Cell(**{**SETTING, "overrides": WIDE, **changed})
    (window,) = simulate.windows([cell])
    known = {"minimizer": problem_of(cell).center, "samples": {"squared_distance": window.squared_gradient}}
    return dataclasses.replace(window, **known)


def moves(w: Fraction, center: Fraction, rate: Fraction, gap: Fraction, bits: int) -> dict[Fraction, Fraction]:
    """The law of n-bit rounding of w - rate (w - center) on a grid of the given gap, by counting all draws."""
    z = w - rate * (w - center)
    sign = 1 if z >= 0 else -1
    whole, found = abs(z) // gap, {}
    share = (abs(z) - whole * gap) / gap
    for draw in range(2**bits):
        away = (share * 2**bits).__floor__() + draw >= 2**bits
        value = sign * (whole + away) * gap
        found[value] = found.get(value, Fraction(0)) + Fraction(1, 2**bits)
    return found


def test_two_states() -> None:
    """q, p and the average of the theorem against the chain itself, both signs, few bits, exactly."""
    gap = Fraction(1, 8)
    for bits, k, place, rate in itertools.product(
        (1, 3, 5),
        (9, -12),
        (Fraction(1, 3), Fraction(0), Fraction(7, 9)),
        (Fraction(1, 3), Fraction(1, 16), Fraction(1)),
    ):
        a, b = k * gap, (k + 1) * gap
        center = a + place * gap
        (q, q_high), (p, p_high) = t07.probabilities(a, b, center, (rate, rate), Fraction(0), bits)
        assert (q, p) == (q_high, p_high)
        up, down = moves(a, center, rate, gap, bits), moves(b, center, rate, gap, bits)
        assert set(up) | set(down) <= {a, b}
        assert (q, p) == (up.get(b, 0), down.get(a, 0))
        for first in (Fraction(0), Fraction(1)):
            now, total = first, Fraction(0)
            for _ in range(12):
                total += now
                now = now * (1 - p) + (1 - now) * q
            assert float(t07.occupation(first, q, p, 12)) == pytest.approx(float(total / 12), abs=1e-14)
            if q + p > 0:
                r, pi = (1 - q - p) ** 12, q / (q + p)
                assert now == pi + r * (first - pi)


def test_infinitely_many_bits_give_the_rounding_of_the_minimiser() -> None:
    """64 bits: the probability of b is theta, whatever the learning rate."""
    a, b, center = Fraction(5, 4), Fraction(11, 8), Fraction(4, 3)
    for rate in (Fraction(1, 1000), Fraction(1, 3), Fraction(1)):
        (q, _), (p, _) = t07.probabilities(a, b, center, (rate, rate), Fraction(0), 64)
        assert abs(q / (q + p) - Fraction(2, 3)) < Fraction(1, 2**48)


@pytest.mark.parametrize("lr", slow_but([0.9, 2.0**-2, 2.0**-5], 2.0**-2))
@pytest.mark.parametrize(("mantissa", "bits"), [(3, 16), (7, 16), (7, 6), (10, 32)])
def test_law_is_met(lr: float, mantissa: int, bits: int) -> None:
    window = window_of(hyperparameters={"lr": lr}, mantissa_bits=mantissa, random_bits=bits)
    bound = t07.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    assert bound.upper <= bound.lower * (1 + 1e-9)
    judged = verdict(t07.THEOREM.measured(window), bound)
    assert judged.status == "met", judged
    assert 0.9 < judged.ratio < 1.1


def test_every_operation_rounded() -> None:
    """bfloat16 throughout: an enclosure instead of a number, a few per cent wide."""
    for gradient in ("exact", "rounded"):
        window = window_of(overrides=(), gradient=gradient)
        bound = t07.THEOREM.evaluate(window)
        assert bound.applicable, bound.reason
        assert bound.lower < bound.upper < 1.1 * bound.lower
        assert verdict(t07.THEOREM.measured(window), bound).status == "met"


def test_absorbed_where_the_step_is_below_the_last_bit() -> None:
    """lr h theta < 2^-n: never up, and down once in eight steps: the weight ends at a."""
    window = window_of(random_bits=3, hyperparameters={"lr": 2.0**-3}, dimension=1, steps=2000)
    bound = t07.THEOREM.evaluate(window)
    assert bound.applicable, bound.reason
    assert verdict(t07.THEOREM.measured(window), bound).status == "met"
    assert bound.upper == pytest.approx((4 / 3 - 1.328125) ** 2, rel=1e-9)


def test_evaluates_its_statement() -> None:
    window = window_of(dimension=1, seeds=1, mantissa_bits=3)
    bound = t07.THEOREM.evaluate(window)
    center, gap = Fraction(float(window.minimizer[0])), Fraction(1, 8)
    a, rate = Fraction(5, 4), Fraction(1, 16)
    (q, _), (p, _) = t07.probabilities(a, a + gap, center, (rate, rate), Fraction(0), 16)
    values = {t07.q: q, t07.p: p, t07.T: window.steps, t07.Delta: gap, t07.theta: (center - a) / gap}
    values |= {t07.P0: int(window.start["w"][0, 0] != 1.25), t07.r: (1 - q - p) ** window.steps}
    assert bound.upper == pytest.approx(float(t07._LAW.subs(values)), rel=1e-9)


def test_reasons() -> None:
    window = window_of(steps=256)

    def reason(**fields: Any) -> str:
        return t07.THEOREM.evaluate(dataclasses.replace(window, **fields)).reason

    assert reason(samples={}).startswith("squared distances were sampled")
    assert reason(minimizer=None).startswith("a separable quadratic with a known minimiser")
    assert reason(noise="gaussian").startswith("no noise: gaussian")
    assert reason(hessian=np.full(8, 100.0)).startswith("lr h times the factor is at most 1: 6.25")
    assert reason(start={"w": np.full((8, 8), 3.0)}).startswith("w starts at the neighbours of the minimiser: not in")
    assert reason(scalars={}).startswith("a constant positive step size")
    nearest = t07.THEOREM.evaluate(window_of(rounding="nearest_even", steps=64)).reason
    assert nearest.startswith("w.sub rounds stochastically, variant A: nearest_even")
