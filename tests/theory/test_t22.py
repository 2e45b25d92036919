"""T22: the D-lemma on measured averages, and the bound against many runs."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from adam_runs import check_floor, gradient, train
from tiers import slow_but

from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic
from theory.theorems import _adam_energy as lemmas
from theory.theorems import _adam_numbers as numbers
from theory.theorems import t20_adam_exact as t20
from theory.theorems import t22_adam_moduli as t22
from theory.theorems.t22_adam_moduli import THEOREM
from theory.window import Window


def with_moduli(run: SimpleNamespace) -> Window:
    w = [state["w"] for state in run.history[:-1]]
    moduli = np.array([np.sum(np.abs(gradient(x, run.h, run.c, run.bent)), axis=0) for x in w])
    return dataclasses.replace(run.window, samples={"l1_gradient": moduli})


@pytest.mark.parametrize("rounding", ["nearest_even", Stochastic(16)], ids=str)
def test_terms_of_the_root(machine: Any, rounding: Rounding) -> None:
    """sqrt(v'), its averages and 1/eta against the right sides of the axioms; all hold on average over 40 seeds."""
    run = train(
        machine, Format(8, 9), rounding, noise="none", seeds=40, d=2, steps=600, lr=2.0**-5, store={"g": BINARY64}
    )
    window = with_moduli(run)
    s, (a, wb) = numbers.scalars(window), (float(x) for x in t22.growth(window))
    v, g = np.array([state["v"] for state in run.history]), run.g
    eta = float(s.lr) * float(numbers.updated(window).middle) / (np.sqrt(v[1:]) + float(s.eps))
    S1, before = (np.sum(np.mean(np.sqrt(x), axis=(0, 2))) for x in (v[1:], v[:-1]))
    # any b between the stored injection and the one of the bound is one for which q bounds v'
    q = a * v[:-1] + float(s.injection) * g**2
    Q = np.sum(np.mean(g**2 / np.sqrt(q), axis=(0, 2)))
    first = np.sum(np.sqrt(v[0])) / v.shape[2] / len(g)
    X2 = np.sum(np.mean(eta * g**2, axis=(0, 2)))
    slack = 1 + 1e-3  # of 40 seeds, to nearest 0
    assert math.sqrt(a) * before + wb * Q * slack >= S1
    assert before <= S1 + first
    scale = 1 / (float(s.lr) * float(numbers.updated(window).middle))
    inverse = scale * (1 + float(s.eps) / math.sqrt(window.min_abs["v"].min()))
    assert inverse * X2 * slack >= Q
    D = np.sum(np.mean(1 / eta, axis=(0, 2)))
    for n0, n1 in t22.denominators(window):
        assert float(n0) + float(n1) * X2 * slack >= D
    moduli = np.mean(np.sum(np.abs(g), axis=1))
    assert moduli <= math.sqrt(X2 * D)
    assert float(t20.energy_of(window)[1].X) ** 2 >= X2


def test_evaluates_its_statement(machine: Any) -> None:
    """The D-lemma's alternative and the moduli against the SymPy statements."""
    run = train(machine, Format(8, 12), Stochastic(16), noise="none", steps=200)
    window = with_moduli(run)
    s, (a, wb) = numbers.scalars(window), (float(x) for x in t22.growth(window))
    (most, _), (n0, n1) = t22.denominators(window)
    scale = 1 / (float(s.lr) * float(numbers.updated(window).middle))
    d, eps = window.dimension, float(s.eps)
    first = np.sum(np.sqrt(window.start["v"])) / window.seeds / window.steps
    inverse = scale * (1 + eps / math.sqrt(window.min_abs["v"].min()))
    X = 0.3
    roots = lemmas.second_moment_root.statement.right.subs({
        lemmas.ra: math.sqrt(a), lemmas.free: 1 - math.sqrt(a), lemmas.first: first, lemmas.wb: wb,
        lemmas.inv: inverse, lemmas.X: X,
    })  # fmt: skip
    assert float(n0) + float(n1) * X**2 == pytest.approx(scale * (float(roots) + d * eps), rel=1e-9)
    assert float(most) == pytest.approx(scale * (np.sum(np.sqrt(window.max_abs["v"].max(axis=1))) + d * eps), rel=1e-9)
    energy = t20.energy_of(window)[1]
    values = {lemmas.top: float(energy.top), lemmas.X: float(energy.X)}
    values[lemmas.E0] = sum(float(row[lemmas.error]) for row in energy.rows)
    sides = [
        float(lemmas.moduli.statement.right.subs({**values, lemmas.n0: float(x), lemmas.n1: float(y)}))
        for x, y in t22.denominators(window)
    ]
    assert THEOREM.evaluate(window).upper == pytest.approx(min(sides), rel=1e-9)


@pytest.mark.parametrize("rounding", slow_but(["nearest_even", Stochastic(3), Stochastic(16)], Stochastic(3)), ids=str)
def test_never_violated(machine: Any, rounding: Rounding) -> None:
    for mantissa in (2, 7, 23):
        for beta1, bent in ((0.0, True), (0.9, False), (0.95, True)):
            options = {"noise": "none", "steps": 160, "beta1": beta1, "bent": bent, "seed": mantissa}
            window = with_moduli(train(machine, Format(8, mantissa), rounding, **options))
            check_floor(THEOREM, window, applies=mantissa == 23)


def test_growth_without_rounding(machine: Any) -> None:
    """w b/(1 - sqrt(a)) is near 1 for a long memory; a narrow format to nearest forgets nothing: a >= 1."""
    window = train(machine, Format(8, 23), "nearest_even", noise="none", steps=600).window
    a, wb = (float(x) for x in t22.growth(window))
    assert 1.0 < wb / (1 - math.sqrt(a)) < 1.1
    narrow = train(machine, Format(8, 4), "nearest_even", noise="none", steps=40).window
    assert t22.growth(narrow)[0] > 1
    assert len(t22.denominators(narrow)) == 1


def test_needs_the_moduli(machine: Any) -> None:
    run = train(machine, Format(8, 12), "nearest_even", noise="none", steps=40)
    assert THEOREM.evaluate(run.window).reason == "the sum of moduli was recorded"
    assert np.all(np.isnan(THEOREM.measured(run.window)))
    assert THEOREM.evaluate(with_moduli(run)).applicable
