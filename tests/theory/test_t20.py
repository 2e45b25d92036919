"""T20: every inequality of the proof on measured averages, the two-cycle that attains its factor, and many runs."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sympy as sp
from adam_runs import CASES as EVERY
from adam_runs import check_floor, gradient, loss, train
from flint import arb
from tiers import slow_but

from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.optim import rmsprop
from fpsim.rounding import Rounding, Stochastic
from theory.enclosure import compile_expression
from theory.theorems import _adam_energy as lemmas
from theory.theorems import _adam_numbers as numbers
from theory.theorems import t20_adam_exact as t20
from theory.theorems.t20_adam_exact import THEOREM
from theory.verdict import verdict

_RUNS: dict[str, SimpleNamespace] = {}


@pytest.fixture(params=["stochastic", "nearest", "bent"])
def exact_run(request: Any, machine: Any) -> Any:
    """One run of each kind, made once."""
    if request.param not in _RUNS:
        options: dict[str, Any] = {"seeds": 40, "steps": 600, "d": 2, "lr": 2.0**-5, "store": {"g": BINARY64}}
        kind = (Format(8, 8), "nearest_even") if request.param == "nearest" else (Format(8, 7), Stochastic(16))
        _RUNS[request.param] = train(machine, *kind, bent=request.param == "bent", noise="none", **options)
    return _RUNS[request.param]


def averages(run: SimpleNamespace) -> dict[str, np.ndarray]:
    """[d, S] window averages of what the axioms name; g is the stored gradient."""
    s = numbers.scalars(run.window)
    w, m, v = (np.array([state[name] for state in run.history]) for name in ("w", "m", "v"))
    unit = float(s.lr) * float(numbers.updated(run.window).middle)
    eta = unit / (np.sqrt(v) + float(s.eps))
    grad = np.array([gradient(x, run.h, run.c, run.bent) for x in w[:-1]])
    old, new, g, B, G = m[:-1], m[1:], run.g, float(s.B), float(s.G)
    e, step = new - B * old - G * g, np.diff(w, axis=0)
    k = B / (1 - B)
    np.testing.assert_allclose(
        G / (1 - B) * g * new,
        new**2 + k / 2 * (new**2 - old**2) + k / 2 * (new - old) ** 2 - (1 + k) * e * new,
        atol=1e-12,
    )
    found = {
        "x2": eta[1:] * g**2, "after": eta[1:] * new**2, "before": eta[:-1] * old**2,
        "D1": eta[1:] * (new**2 - old**2), "Y": eta[1:] * (new - old) ** 2, "E_m": eta[1:] * e * new,
        "M": eta[1:] * g * new, "M_d": eta[1:] * grad * new, "gain": -grad * step, "S2": step**2,
        "step2": (eta[1:] * new) ** 2,
    }  # fmt: skip
    return {name: x.mean(axis=0) for name, x in found.items()}


def test_terms_of_the_energy(exact_run: Any) -> None:
    """Each axiom on the averages of both coordinates, up to five standard errors over the seeds."""
    seen = averages(exact_run)
    real = {"real": True}
    for n, row in enumerate(t20.coordinates(exact_run.window)):
        start = float(row[lemmas.start])
        u = math.sqrt(max(seen["after"][n].mean() + start, seen["before"][n].mean()))
        k = float(row[lemmas.k])
        assert seen["step2"][n].mean() <= float(row[lemmas.step]) ** 2
        values = {symbol: float(ball) for symbol, ball in row.items()} | {
            lemmas.u: u, lemmas.x: math.sqrt(seen["x2"][n].mean()),
            lemmas.V: math.sqrt(u * u + k / 2 * seen["Y"][n].mean()),
        }  # fmt: skip
        claims = (
            lemmas.drift, lemmas.rounded, lemmas.computed, lemmas.weight, lemmas.size, lemmas.coordinate,
        )  # fmt: skip
        for claim in claims:
            gap = sp.expand(claim.conclusion.gap.subs(values))
            means = {sp.Symbol(name, **real): seen[name][n] for name in ("D1", "E_m", "M", "M_d", "gain")}
            means[lemmas.S2] = seen["S2"][n]
            constant = float(gap.subs(dict.fromkeys(means, 0)))
            samples = constant + sum(float(gap.coeff(s)) * x for s, x in means.items())
            error = np.std(samples, ddof=1) / math.sqrt(len(samples))
            assert samples.mean() >= -5 * error - 1e-15, (claim.name, n, samples.mean(), error)


def test_sums_of_the_energy(machine: Any) -> None:
    """The scalars of the statement against the sums that they bound; the root against the statement."""
    window = train(machine, Format(8, 8), Stochastic(16), noise="none", steps=200).window
    rows = t20.coordinates(window)
    symbols = list(rows[0])

    def column(expression: Any) -> np.ndarray:
        function = compile_expression(expression, symbols)
        return np.array([float(function([row[s] for s in symbols])) for row in rows])

    k, gamma, e2, f2 = (float(rows[0][x]) for x in (lemmas.k, lemmas.gamma, lemmas.e2, lemmas.f2))
    lost, cross, linear, slope = map(column, (lemmas.LOST, lemmas.CROSS, lemmas.LINEAR, lemmas.GRADIENT))
    generator = np.random.default_rng(2)
    hold, c, d, j = 1 - lost.max(), cross.max(), np.linalg.norm(linear), np.linalg.norm(slope)
    ratio = (math.sqrt(1 + 2 * k) + (1 + k) * e2) / (gamma - (1 + k) * f2)
    top, h, error = (column(x) for x in (lemmas.top, lemmas.h, lemmas.error))
    for V, share, x in np.exp(generator.normal(size=(100, 3, window.dimension))):
        u = V * np.minimum(share, 1.0)
        P, X = np.linalg.norm(V), np.linalg.norm(x)
        assert hold * P**2 <= np.sum(V**2 - lost * u**2) * (1 + 1e-12)
        assert cross @ (x * u) <= c * X * P * (1 + 1e-12)
        assert linear @ u <= d * P * (1 + 1e-12)
        assert slope @ x <= j * X * (1 + 1e-12)
        moved = x * (gamma - (1 + k) * f2) <= (math.sqrt(1 + 2 * k) + (1 + k) * e2) * V
        assert not np.all(moved) or ratio * P * (1 + 1e-12) >= X
        gradients = np.linalg.norm(top * x / h + error)
        assert gradients <= ((top / h).max() * X + np.linalg.norm(error)) * (1 + 1e-12)
    energy = t20._energy(window, rows)
    fallen = float(np.mean(window.loss_start)) / window.steps
    values = {
        lemmas.linear: d, lemmas.j: j, lemmas.ratio: ratio, lemmas.N: hold - c * ratio, lemmas.gamma: gamma,
        lemmas.F: fallen * window.steps, lemmas.T: window.steps, lemmas.c0: column(lemmas.CONSTANT).sum(),
        lemmas.K: (top / h).max(), lemmas.E0: np.linalg.norm(error),
    }  # fmt: skip
    assert float(energy.root) == pytest.approx(float(lemmas.STATEMENT.right.subs(values)), rel=1e-9)
    assert float(energy.G) <= float(energy.root)
    assert isinstance(energy.X, arb)


def test_descent_along_the_momentum(machine: Any) -> None:
    for bent in (False, True):
        run = train(machine, Format(8, 6), "nearest_even", bent=bent, noise="none", steps=200, lr=2.0**-4)
        w = np.array([state["w"] for state in run.history])
        value = np.array([loss(x, run.h, run.c, bent) for x in w])
        step = np.diff(w, axis=0)
        slope = np.array([gradient(x, run.h, run.c, bent) for x in w[:-1]])
        gain = -np.sum(slope * step + run.h * step**2 / 2, axis=1)
        assert np.all(np.sum(gain, axis=0) <= value[0] - value[-1] + 1e-12)


def test_the_two_cycle_attains_the_factor() -> None:
    """m' = -m on a parabola: X^2 = (1+b1)/(1-b1) (L/2) avg (eta m')^2, in exact rationals."""
    b, L, w = sp.Rational(9, 10), sp.Integer(1), sp.Rational(1, 3)
    m = w * L * (1 - b) / (1 + b)  # m' = b m + (1-b) g with m = -m'
    eta = 2 * w / m
    assert sp.simplify(b * -m + (1 - b) * L * w - m) == 0
    assert sp.simplify(eta * (L * w) ** 2 - (1 + b) / (1 - b) * L / 2 * (eta * m) ** 2) == 0


CASES = {**EVERY, "one coordinate": {"d": 1, "seeds": 8}}


@pytest.mark.parametrize("case", slow_but(CASES, "quadratic", "bent", "coupled", "much momentum"))
@pytest.mark.parametrize(
    "rounding", slow_but(["nearest_even", Stochastic(3), Stochastic(16)], "nearest_even", Stochastic(3)), ids=str
)
def test_never_violated(machine: Any, case: str, rounding: Rounding) -> None:
    for mantissa in (3, 12):
        options = {"noise": "none", "steps": 120, "d": 2, "seed": mantissa, **CASES[case]}
        window = train(machine, Format(8, mantissa), rounding, **options).window
        check_floor(THEOREM, window, applies=mantissa == 12)


def test_close_to_where_a_run_settles(machine: Any) -> None:
    window = train(machine, Format(8, 23), "nearest_even", noise="none", steps=2000, lr=2.0**-6).window
    bound = THEOREM.evaluate(window)
    assert 1.0 < verdict(THEOREM.measured(window), bound).ratio < 4.0
    assert bound.note == "from Lemma A alone"


def test_reasons(machine: Any) -> None:
    noisy = train(machine, Format(8, 10), "nearest_even", steps=40).window
    assert THEOREM.evaluate(noisy).reason == "exact gradients: gaussian"
    still = dataclasses.replace(noisy, noise="none")
    assert THEOREM.evaluate(still).applicable
    spoiled = dataclasses.replace(still, underflow={**still.underflow, "m.inject": 3})
    assert THEOREM.evaluate(spoiled).reason == "no underflow: 3 in m.inject"
    assert "operations" in THEOREM.evaluate(dataclasses.replace(still, program=rmsprop)).reason
    coarse = train(machine, Format(8, 1), "nearest_even", noise="none", steps=40, beta2=0.5).window
    assert THEOREM.evaluate(coarse).reason
