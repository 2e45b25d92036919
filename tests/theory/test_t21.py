"""T21: every inequality of the proof on measured averages, the bound against many runs, and what it does not cover."""

from __future__ import annotations

import dataclasses
import itertools
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
from fpsim.optim import adam, rmsprop, sgd
from fpsim.precision import Precision
from fpsim.rounding import Rounding, Stochastic
from fpsim.tracing import slot, step
from theory.composition import NoEnclosure
from theory.theorem import Bound
from theory.theorems import _adam_lemmas as lemmas
from theory.theorems import _adam_numbers as numbers
from theory.theorems import _adam_roundings as roundings
from theory.theorems._value_ranges import value_ranges
from theory.theorems.t21_adam import THEOREM, _Floor, _iterate, _Momentum, _Sums
from theory.verdict import verdict


def averages(run: SimpleNamespace) -> dict[str, np.ndarray]:
    """[d, S] window averages of every quantity in the axioms, named as there; states are exact, so is their algebra."""
    window = run.window
    s = {name: float(getattr(numbers.scalars(window), name)) for name in ("B", "G", "kept", "eps", "lr")}
    w, m, v = (np.array([state[name] for state in run.history]) for name in ("w", "m", "v"))
    unit = s["lr"] * float(numbers.updated(window).middle)
    eta = unit / (np.sqrt(v) + s["eps"])
    eta0 = unit / (np.sqrt(s["kept"] * v[:-1]) + s["eps"])
    k = s["B"] / (1 - s["B"])
    z = w - k * eta * m  # z[t] belongs to w[t] and the momentum stored with it
    grad = np.array([gradient(x, run.h, run.c, run.bent) for x in w[:-1]])
    grad_z = np.array([gradient(x, run.h, run.c, run.bent) for x in z[:-1]])
    before, after, g, step_ = m[:-1], m[1:], run.g, np.diff(w, axis=0)
    error = after - s["B"] * before - s["G"] * g
    gamma = s["G"] / (1 - s["B"])
    moved = np.diff(z, axis=0)
    parts = -gamma * eta[1:] * g + k * (eta[:-1] - eta[1:]) * before - (1 + k) * eta[1:] * error
    np.testing.assert_allclose(moved, parts + step_ + eta[1:] * after, atol=1e-12)
    away = step_ + eta[1:] * after
    found = {
        "x2": eta0 * grad**2, "after": eta[1:] * after**2, "before": eta[:-1] * before**2,
        "N1": gamma * grad * eta[1:] * g, "N2": gamma * eta[1:] * g * (grad_z - grad),
        "N3": -k * (eta[:-1] - eta[1:]) * before * grad_z, "N4": (1 + k) * eta[1:] * error * grad_z,
        "N5": -away * grad_z, "moved2": moved**2, "moved": moved, "gain_z": -moved * grad_z, "Mg": eta[1:] * before * g,
        "Mx": eta[1:] * before * (g - grad), "M0": eta[1:] * before * grad, "Ne": eta[1:] * error * grad,
        "Ns": -away * grad, "S2": step_**2, "gain_w": -step_ * grad, "A": (eta[1:] * g) ** 2,
    }  # fmt: skip
    return {name: x.mean(axis=0) for name, x in found.items()}


_RUNS: dict[str, SimpleNamespace] = {}


@pytest.fixture(params=slow_but(["stochastic", "nearest", "minibatch", "bent"], "stochastic"))
def measured_run(request: Any, machine: Any) -> Any:
    """One run of each kind, made once."""
    if request.param not in _RUNS:
        options: dict[str, Any] = {"seeds": 50, "steps": 400, "store": {"g": BINARY64}, "d": 2, "lr": 2.0**-6}
        kinds: dict[str, tuple[Any, ...]] = {
            "nearest": (Format(8, 6), "nearest_even"),
            "minibatch": (Format(8, 7), Stochastic(4)),
        }
        noise = "minibatch" if request.param == "minibatch" else "gaussian"
        made = kinds.get(request.param, (Format(8, 5), Stochastic(16)))
        _RUNS[request.param] = train(machine, *made, bent=request.param == "bent", noise=noise, **options)
    return _RUNS[request.param]


def check(run: SimpleNamespace, claims: dict[str, tuple[Any, tuple[str, ...]]]) -> None:
    """left <= right in the mean over the seeds, up to five standard errors of what was measured."""
    seen = averages(run)
    treatments = (numbers.coordinates(run.window, split=split) for split in (False, True))
    for n, row in itertools.chain.from_iterable(map(enumerate, treatments)):
        x = math.sqrt(seen["x2"][n].mean())
        u = math.sqrt(max(seen["after"][n].mean() + float(row[lemmas.start]), seen["before"][n].mean()))
        values = {symbol: float(ball) for symbol, ball in row.items()} | {lemmas.x: x, lemmas.u: u}
        for name, (claim, measured) in claims.items():
            means = {sp.Symbol(k, **assumed): seen[source][n] for k, assumed, source in measured}
            gap = sp.expand(claim.gap.subs(values))
            constant = float(gap.subs(dict.fromkeys(means, 0)))
            samples = constant + sum(
                (float(gap.coeff(symbol)) * value for symbol, value in means.items()), np.zeros(run.window.seeds)
            )
            error = np.std(samples, ddof=1) / math.sqrt(len(samples))
            assert samples.mean() >= -5 * error - 1e-15, (name, n, samples.mean(), error)


def real(*names: str) -> tuple[Any, ...]:
    return tuple((name, {"real": True}, name) for name in names)


def test_mean_of_the_new_gradient(measured_run: Any) -> None:
    check(measured_run, {"N1": (lemmas.mean_gradient.conclusion, real("N1"))})


def test_terms_of_the_shifted_step(measured_run: Any) -> None:
    """Each of the five parts of dz, its square, and the two roundings along the gradient."""
    square = (("S2", {"nonnegative": True}, "moved2"),)
    check(measured_run, {
        "displaced": (lemmas.displaced.conclusion, real("N2")),
        "moved": (lemmas.moved.conclusion, real("N3")),
        "mean": (lemmas.mean_shift.conclusion, (("S1", {"nonnegative": True}, "moved"),)),
        "stored momentum": (lemmas.stored_momentum.conclusion, real("N4")),
        "stored weight": (lemmas.stored_weight.conclusion, real("N5")),
        "size": (lemmas.shifted_size.conclusion, square),
        "all": (lemmas.shifted_point.statement, (*square, ("gain", {"real": True}, "gain_z"))),
        "rounded momentum": (lemmas.rounded_momentum.conclusion, real("Ne")),
        "rounded weight": (lemmas.rounded_weight.conclusion, real("Ns")),
    })  # fmt: skip


def test_size_of_the_momentum(measured_run: Any) -> None:
    square = (("S2", {"nonnegative": True}, "S2"),)
    check(measured_run, {
        "recursion": (lemmas.recursion.conclusion, real("after", "before", "Mg")),
        "shifted": (lemmas.shifted_average.conclusion, real("before")),
        "correlation": (lemmas.correlation.conclusion, real("Mg")),
        "noise": (lemmas.noise_part.conclusion, real("Mx")),
        "step": (lemmas.step_size.conclusion, square),
        "free": (lemmas.momentum.statement, ()),
        "with loss": (lemmas.momentum_with_loss.statement, (*square, ("gain", {"real": True}, "gain_w"))),
    })  # fmt: skip


def test_lemma_a_bounds_the_new_part(measured_run: Any) -> None:
    seen = averages(measured_run)["A"].mean(axis=1)
    rows = numbers.coordinates(measured_run.window)
    assert np.all(seen <= [float(row[lemmas.sP]) ** 2 for row in rows])


def test_sums_over_coordinates(machine: Any) -> None:
    """The coefficients of Z and S against the sums that they bound, for vectors x, u of all kinds."""
    generator = np.random.default_rng(5)
    for separable in (True, False):
        window = train(machine, Format(8, 7), Stochastic(16), steps=200, separable=separable).window
        sums = _Sums(window, numbers.coordinates(window))
        floor = sums.floor()
        a, weight = ([float(y) for y in v] for v in (sums.square, sums.weight))
        columns = {
            name: np.array([float(y) for y in sums.column(getattr(lemmas, name))])
            for name in ("LINEAR", "DISPLACED", "CROSS", "MOMENTUM2", "MOMENTUM1")
        }
        for x, u in np.exp(2 * generator.normal(size=(200, 2, window.dimension))):
            Z, S = math.sqrt(np.dot(a, x * x)), math.sqrt(np.dot(weight, u * u))
            assert columns["LINEAR"] @ x <= float(floor.B) * Z * (1 + 1e-12)
            cross = columns["CROSS"] @ (x * u)
            if separable:
                cross += columns["DISPLACED"] @ (x * u)
            else:  # norms of vectors
                cross += columns["DISPLACED"][0] * math.sqrt(np.sum(x * x) * np.sum(u * u))
            assert cross <= float(floor.kappa) * Z * S * (1 + 1e-12)
            assert columns["MOMENTUM2"] @ (u * u) <= float(floor.quadratic) * S * S * (1 + 1e-12)
            assert columns["MOMENTUM1"] @ u <= float(floor.linear) * S * (1 + 1e-12)
            grad_squared = np.sum(x * x / np.array([float(row[lemmas.s0]) ** 2 for row in sums.rows]))
            assert grad_squared <= float(floor.K) * Z * Z * (1 + 1e-12)


def test_descent_at_the_shifted_point(machine: Any) -> None:
    """F(z) and F(w) fall by at least what the steps gain, and F(z_first) is bounded from the window."""
    for bent in (False, True):
        run = train(machine, Format(8, 5), Stochastic(16), bent=bent, steps=200, lr=2.0**-4)
        window = run.window
        w, m, v = (np.array([state[name] for state in run.history]) for name in ("w", "m", "v"))
        eta = float(numbers.updated(window).middle) * window.scalars["scalar.lr"] / (np.sqrt(v) + 1e-8)
        k = window.scalars["scalar.beta1"] / (1 - window.scalars["scalar.beta1"])
        for points in (w, w - k * eta * m):
            value = np.array([loss(x, run.h, run.c, bent) for x in points])
            moved = np.diff(points, axis=0)
            slope = np.array([gradient(x, run.h, run.c, bent) for x in points[:-1]])
            gain = -np.sum(slope * moved + run.h * moved**2 / 2, axis=1)
            assert np.all(np.diff(value, axis=0) <= -gain + 1e-12)
            assert np.all(np.sum(gain, axis=0) <= value[0] - value[-1] + 1e-12)
        assert np.mean(value[0]) <= float(numbers.fall_of_shifted(window))


CASES = EVERY | {
    "no sigma": {"declare": False},
    "minibatch": {"noise": "minibatch"},
    "silent": {"noise": "none"},
    "long memory": {"beta2": 0.999},
}


@pytest.mark.parametrize("case", slow_but(CASES, "bent", "minibatch", "coupled", "long memory"))
@pytest.mark.parametrize(
    "rounding", slow_but(["nearest_even", Stochastic(3), Stochastic(16)], "nearest_even", Stochastic(3)), ids=str
)
def test_never_violated(machine: Any, case: str, rounding: Rounding) -> None:
    for mantissa in (2, 10):
        options = {"steps": 100, "d": 2, "seed": mantissa, **CASES[case]}
        window = train(machine, Format(8, mantissa), rounding, **options).window
        check_floor(THEOREM, window, applies=mantissa == 10)


@pytest.mark.parametrize(("mantissa", "most"), slow_but([(7, 3.5), (10, 3.0), (23, 3.0)], (7, 3.5)))
def test_sharp_with_stochastic_rounding(machine: Any, mantissa: int, most: float) -> None:
    window = train(machine, Format(8, mantissa), Stochastic(16), steps=1000).window
    assert 1.0 < verdict(THEOREM.measured(window), THEOREM.evaluate(window)).ratio < most


def test_underflow_is_covered(machine: Any) -> None:
    """binary16: g, m, v and the step underflow in every run with noise; the bound hardly changes."""
    run = train(machine, Format(5, 10), Stochastic(16), eps=1e-3, steps=400)
    assert min(run.window.underflow[s] for s in ("v.inject", "v.square", "m.inject", "update.scale")) > 0
    wide = train(machine, Format(8, 10), Stochastic(16), eps=1e-3, steps=400)
    narrow_bound, wide_bound = (THEOREM.evaluate(x.window) for x in (run, wide))
    assert narrow_bound.applicable, narrow_bound.reason
    assert narrow_bound.upper == pytest.approx(wide_bound.upper, rel=0.15)


def test_evaluates_its_statement(machine: Any) -> None:
    """The two roots against the statements of their derivations, and the descent of the iteration."""
    generator = np.random.default_rng(8)
    for values in generator.uniform(0.1, 2.0, (20, 7)):
        B, kappa, quadratic, linear, constant, K, S = (arb(float(x)) for x in values)
        right = lemmas.floor.statement.right.subs({
            lemmas.B: values[0], lemmas.kappa: values[1], lemmas.K: values[5], lemmas.S: values[6],
            lemmas.C: values[2] * values[6] ** 2 + values[3] * values[6] + values[4],
        })  # fmt: skip
        found = _Floor(B, kappa, quadratic, linear, constant, K)
        assert float(K.sqrt() * found.bound(S)) == pytest.approx(float(right), rel=1e-12)
        c, d, j, f, constant, Z = (arb(float(x)) for x in values[:6])
        right = lemmas.momentum_sum.statement.right.subs({
            lemmas.c: values[0], lemmas.d: values[1], lemmas.Z: values[5],
            lemmas.C: values[2] * values[5] + values[3] * values[5] ** 2 + values[4],
        })  # fmt: skip
        assert float(_Momentum(c, d, j, f, constant).bound(Z)) == pytest.approx(float(right), rel=1e-12)
    window = train(machine, Format(8, 7), Stochastic(16), steps=200).window
    sums = _Sums(window, numbers.coordinates(window))
    Z, K = _iterate(sums)
    assert float(Z) <= float(sums.start())
    assert THEOREM.evaluate(window).upper <= float(K.sqrt() * Z) * (1 + 1e-12)


@pytest.mark.parametrize("rounding", [Stochastic(2), Stochastic(16)], ids=str)
def test_mean_square_error_of_one_rounding(machine: Any, rounding: Stochastic) -> None:
    fmt, draw = Format(8, 3), np.random.default_rng(3)
    x = np.repeat(1 + np.arange(16) / 64, 20_000)
    off = (machine.rounded(x, fmt, rounding, draw) - x).reshape(16, -1)
    assert np.all(np.mean(off**2, axis=1) <= 0.125**2 * (0.25 + 2.0**-rounding.bits) * 1.03)


def test_reasons(machine: Any) -> None:
    """What the theorem does not cover it names."""
    still = train(machine, Format(8, 10), "nearest_even", steps=40).window
    assert THEOREM.evaluate(still).applicable

    def reason(**fields: Any) -> str:
        return bound(**fields).reason

    def bound(**fields: Any) -> Bound:
        return THEOREM.evaluate(dataclasses.replace(still, **fields))

    assert "operations" in reason(program=rmsprop)
    assert "was not recorded" in reason(program=adam)
    assert "beta1 < 1" in reason(scalars={**still.scalars, "scalar.beta1": 1.0})
    assert "1 - beta1 > 0" in reason(scalars={**still.scalars, "scalar.one_minus_beta1": 0.0})
    assert "1 - beta2 > 0" in reason(scalars={**still.scalars, "scalar.one_minus_beta2": 0.0})
    assert "nearest" in reason(slots={**still.slots, "m.add": (Format(8, 10), "up")})
    for variant in "BC":
        mode = (Format(8, 10), Stochastic(16, variant))
        assert f"m.decay: stochastic16{variant}" in reason(slots={**still.slots, "m.decay": mode})
    assert "v > 0" in reason(min_abs={**still.min_abs, "v": np.zeros((4, 6))})
    assert "w and z stay in the box" in reason(box=0.5)
    assert "no underflow" in reason(underflow={**still.underflow, "update.sqrt": 2})
    assert "normal number" in reason(max_abs={**still.max_abs, "g": np.zeros((4, 6))})
    assert "finite" in reason(squared_gradient=np.full((1, 6), np.nan))
    assert "drawn outside" in reason(noise="minibatch", gradient_inside=True)


def test_corrections_that_change(machine: Any) -> None:
    """The stored corrections of a window: their extremes and the largest change from step to step."""
    still = train(machine, Format(8, 10), "nearest_even", steps=20).window
    changing = {"scalar.correction1": np.array([0.5, 0.75, 1.0, 1.0]), "scalar.correction2": np.array([0.25, 0.5, 0.5])}
    window = dataclasses.replace(still, program=adam, changing=changing)
    found = roundings.corrections(window)
    assert [float(x) for x in (*found.c1, *found.c2)] == [0.75, 1.0, 0.5, 0.5]
    assert float(found.fall1) == pytest.approx(2 / 3)
    assert float(found.rise2) == 2.0
    assert [float(x) for x in found.before] == [0.5, 0.25]
    falling = {**changing, "scalar.correction2": np.array([0.5, 0.25, 0.5])}
    assert "do not fall" in THEOREM.evaluate(dataclasses.replace(window, changing=falling)).reason


GRID: dict[str, tuple[int, int, float]] = {"binary32": (8, 23, 4.0), "binary16": (5, 10, 4.0), "bfloat16": (8, 7, 6.0)}


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["quadratic", "rational", "logistic"])
def test_bit_exact_runs(problem: str) -> None:
    """The machine's own Adam, corrections included: no violation, and the medians that stochastic rounding allows."""
    from experiments import simulate
    from experiments.cell import Cell

    names, cells = [], []
    for name, (exponent, mantissa, _) in GRID.items():
        for beta2, lr in itertools.product((0.99, 0.999), (2.0**-6, 2.0**-8, 2.0**-10)):
            names.append(name)
            cells.append(
                Cell(
                    optimizer="adam", problem=problem, noise="gaussian", sigma=0.1, batch=0, rounding="stochastic",
                    exponent_bits=exponent, mantissa_bits=mantissa, dimension=8, seeds=8, seed=3, steps=4000,
                    window=0.5, gradient="exact" if problem == "logistic" else "rounded",
                    hyperparameters={"lr": lr, "beta1": 0.9, "beta2": beta2, "eps": 1e-8 if exponent > 5 else 1e-4},
                )
            )  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in GRID}
    for name, window in zip(names, simulate.windows(cells), strict=True):
        bound = THEOREM.evaluate(window)
        if bound.applicable:
            result = verdict(THEOREM.measured(window), bound)
            assert result.status != "violated"
            found[name].append(result.ratio)
    for name, ratios in found.items():
        assert len(ratios) == 6
        # the coordinates of the logistic problem are coupled: one L for all, and one weight for the momentum
        assert np.median(ratios) <= GRID[name][2] * (2 if problem == "logistic" else 1), (name, ratios)


def test_ranges_of_computed_values(machine: Any) -> None:
    """Every value of a program with a quotient and a square lies in its range, tiny inputs and coarse roundings too."""

    @step(name="bent")
    def program(w: Any, c: Any) -> Any:
        z = slot("z", w - c)
        return {"g": slot("ratio", slot("top", c * z) / slot("below", slot("plus", slot("square", z * z) + 1)))}

    generator = np.random.default_rng(6)
    for fmt, rounding in ((Format(3, 2), "nearest_even"), (Format(4, 5), Stochastic(3))):
        for size in (1e-2, 1.0, 3.0):
            inputs = {name: size * generator.normal(size=(3, 40)) for name in ("w", "c")}
            whole = program >> sgd.bind(lr=0.5)
            result = machine.run(whole, Precision.uniform(fmt, rounding), {"w": inputs["w"]}, {"c": inputs["c"]}, 1)
            sizes = {"w": np.abs(result.start["w"]), "c": np.abs(result.values["c"])}
            window = machine.window(result, max_abs=sizes)
            ranges = value_ranges(window, "g")
            assert {"g", "w", "c"} < set(ranges)
            for name, (low, high) in ((name, x) for name, x in ranges.items() if name in result.values):
                values = np.asarray(result.values[name])
                assert float(low) <= values.min(), name
                assert values.max() <= float(high), name
    with pytest.raises(NoEnclosure, match="was not recorded"):
        value_ranges(dataclasses.replace(window, max_abs={}), "g")
