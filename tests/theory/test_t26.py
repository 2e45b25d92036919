"""T26: how far a step to nearest moves, the zone where it does not, and the bound against runs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp
from exact_rmsprop_runs import one_coordinate, train
from study_cells import cell
from tiers import slow_but

from experiments import simulate
from fpsim.exact import Exact, quantum, round_value
from fpsim.number_format import Format
from theory.theorems import _deterministic_rmsprop as numbers
from theory.theorems import _floor_root
from theory.theorems import t26_two_regimes as t26
from theory.verdict import verdict

THEOREM = t26.THEOREM


def grid(fmt: Format) -> list[Fraction]:
    """Every finite value of a small format, in order."""
    found, x = [Fraction(0)], Fraction(fmt.smallest_subnormal if fmt.subnormals else fmt.smallest_normal)
    while x <= Fraction(fmt.max):
        found.append(x)
        x += quantum(x, fmt)
    return sorted({-x for x in found} | set(found))


def nearest(x: Fraction, fmt: Format) -> Fraction:
    return Fraction(round_value(Exact("finite", abs(x), x < 0), fmt, "nearest_even"))


def least_moves(fmt: Format) -> tuple[Fraction, Fraction]:
    """The smallest |s|/|a| of all moves within one binade, and of those that leave it."""
    values = grid(fmt)
    targets = [x + (y - x) * k / 8 for x, y in itertools.pairwise(values) for k in range(8)]
    least = {True: Fraction(9), False: Fraction(9)}
    for target in targets:
        landed = nearest(target, fmt)
        for w in values:
            if landed == w:
                continue
            s, a = abs(landed - w), abs(target - w)
            binades = {max(math.frexp(float(abs(x)))[1] - 1, fmt.emin) for x in (w, landed)}
            least[len(binades) == 1] = min(least[len(binades) == 1], s / a)
            assert s <= 2 * a
    return least[True], least[False]


@pytest.mark.parametrize(
    "fmt", [Format(3, 0, specials="fn", overflow="nan"), Format(3, 1), Format(3, 2)], ids=lambda f: f.name
)
def test_a_step_that_moves(fmt: Format) -> None:
    """|s| >= |a|/2 for every stored w and every a in eighths of the grid's gaps; 2/3 within a binade; both attained."""
    together, apart = least_moves(fmt)
    assert together >= Fraction(2, 3)
    assert Fraction(1, 2) <= apart < Fraction(2, 3)


def test_a_hole_around_zero_lets_a_step_shrink_further() -> None:
    assert min(least_moves(Format(3, 2, subnormals=False))) < Fraction(1, 2)


def test_frozen_zone() -> None:
    """Moved and frozen steps of random rounded sums: the credit of every step, and the zone of the frozen ones."""
    generator = np.random.default_rng(8)
    n, lr, low, high, rho = 40_000, 2.0**-3, 0.8, 1.3, 0.9
    g, below = np.exp(generator.normal(size=(2, n)))
    e, tiny = np.exp(generator.normal(size=(2, n)) - 3)
    y = rho * g - e + generator.exponential(size=n) * generator.integers(0, 2, n)
    a = generator.choice([low, high], n) * lr * y / below + tiny * generator.choice([-1, 1], n)
    gap = 2.0 ** generator.integers(-8, 2, n)
    s = np.rint(a / gap) * gap  # w - s on a uniform grid: one binade
    symbols = (t26.kappa, t26.low, t26.rho, t26.g, t26.D, t26.high, t26.e, t26.tiny, t26.alpha, t26.half)
    values = (2 / 3, low, rho, g, below, high, e, tiny, lr, gap / 2)
    credit, zone = (sp.lambdify(symbols, x)(*values) for x in (t26.CREDIT, t26.ZONE))
    moved = s != 0
    assert moved.any()
    assert not moved.all()
    assert np.all(credit[moved] <= (g * s / lr)[moved] + 1e-9)
    assert np.all(((low * rho * g) ** 2 / below)[~moved] <= zone[~moved] * (1 + 1e-12))


def test_binades() -> None:
    """2/3 only where |w| of every seed stays in one binade; subnormal numbers share the grid of the smallest one."""
    low, high = np.array([[1.0, 2.0], [0.9, 1.0], [0.0, 1.0]]), np.array([[1.9, 3.9], [1.1, 1.5], [1.5, 1.5]])
    window = dataclasses.make_dataclass("W", ["slots", "min_abs", "max_abs"])
    seen = window({"w": (Format(8, 3), "nearest_even")}, {"w": low}, {"w": high})
    assert t26.shares_of_step(seen) == [sp.Rational(2, 3), sp.Rational(1, 2), sp.Rational(1, 2)]


def test_evaluates_its_coefficients(machine: Any) -> None:
    """One coordinate: the smallest root of the three sizes, from the numbers of the route."""
    window = train(machine, Format(8, 6), "nearest_even", steps=60, error=1e-3)
    one = one_coordinate(window)
    bound = THEOREM.evaluate(one)
    assert bound.applicable, bound.reason
    route, lr, gap = numbers.composed(one), one.scalars["scalar.lr"], 2.0**-6
    values = {
        t26.kappa: t26.shares_of_step(one)[0], t26.low: route.low, t26.high: route.high, t26.rho: route.rho,
        t26.L: one.curvature[0], t26.alpha: lr, t26.e: route.error[0], t26.tiny: route.tiny, t26.d0: route.least[0],
        t26.Db: route.most[0], t26.half: gap / 2,
    }  # fmt: skip
    values = {symbol: x if isinstance(x, sp.Basic) else float(x) for symbol, x in values.items()}
    values[t26.Z] = float(t26.ROOT_OF_ZONE.subs(values)) ** 2
    (_, memory), (slope, level) = ([float(x) for x in pair] for pair in numbers.sizes(one, route, 0))
    off = min(gap / 2, memory)
    seen = t26.squared_moves(one)
    assert seen is not None
    roots = []
    for p, q, k1, k0 in (
        (0.0, memory, 2 * off, off**2), (slope, level, gap, gap**2 / 4), (0.0, 0.0, 0.0, seen / one.curvature[0]),
    ):  # fmt: skip
        given = {**values, t26.p: p, t26.q: q, t26.k1: k1, t26.k0: k0}
        square, linear, constant = (float(x.subs(given)) for x in (t26.SQUARE, t26.LINEAR, t26.CONSTANT))
        if square > 0:
            total = constant + one.loss_start.mean() / (lr * one.steps)
            root = {_floor_root.K: values[t26.Db] / square, _floor_root.B: linear / math.sqrt(square)}
            roots.append(float(THEOREM.statement.right.subs({_floor_root.c: total}).subs(root)))
    assert bound.upper == pytest.approx(min(roots), rel=1e-9)


@pytest.mark.parametrize("rounding", slow_but(["nearest_even", "up", "toward_zero"], "nearest_even"))
def test_never_violated(machine: Any, rounding: Any) -> None:
    for mantissa, error, lr in itertools.product((2, 5, 8), (0.0, 1e-3), (2.0**-5, 2.0**-9)):
        window = train(machine, Format(8, mantissa), rounding, error=error, lr=lr, seed=mantissa, steps=150)
        bound = THEOREM.evaluate(window)
        assert bound.applicable or mantissa == 2, bound.reason
        assert verdict(THEOREM.measured(window), bound).status != "violated", (mantissa, error, lr)
        assert "of the run" in bound.note
        unmeasured = THEOREM.evaluate(dataclasses.replace(window, samples={}))
        assert "a priori" in unmeasured.note
        assert unmeasured.upper >= bound.upper


def test_real_runs() -> None:
    """Frozen v (stored beta2 = 1 in bfloat16, 1 - beta2 < u/2): the bound stands near the floor all the same."""
    cells = [
        cell(optimizer="rmsprop", lr=lr, beta2=beta2, steps=1500, mantissa_bits=7)
        for lr, beta2 in itertools.product((2.0**-6, 2.0**-8), (0.9, 0.999))
    ]
    for window in simulate.windows(cells):
        bound = THEOREM.evaluate(window)
        found = verdict(THEOREM.measured(window), bound)
        assert found.status == "holds"
        assert found.ratio < 8
        assert "of the run" in bound.note


def test_reasons(machine: Any) -> None:
    window = train(machine, Format(8, 5), "nearest_even", steps=20)
    assert THEOREM.evaluate(window).applicable
    slots = {**window.slots, "w.sub": (Format(8, 5), "up")}
    hole = dict.fromkeys(window.slots, (Format(8, 5, subnormals=False), "nearest_even"))
    assert "no hole" in THEOREM.evaluate(dataclasses.replace(window, slots=hole)).reason
    assert "w to nearest: w.sub: up" in THEOREM.evaluate(dataclasses.replace(window, slots=slots)).reason
    assert "no noise" in THEOREM.evaluate(dataclasses.replace(window, noise="gaussian")).reason
    without = {name: x for name, x in window.scalars.items() if name != "scalar.eps"}
    assert "scalar.eps" in THEOREM.evaluate(dataclasses.replace(window, scalars=without)).reason
