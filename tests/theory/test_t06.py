"""T6 against runs of small formats: never violated, close to what is measured, and silent where it does not apply."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from tiers import slow_but

from fpsim.optim.adam import adam
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, slot, step
from theory.theorems import theorem
from theory.theorems.t06_nearest_gd import loss_bound
from theory.verdict import verdict
from theory.window import Window

T6 = theorem("T6")
D, S = 8, 16


@step
def quadratic(w: Value, center: Value, curvature: Value) -> dict[str, Value]:
    return {"g": slot("scale", curvature * slot("difference", w - center))}


@step
def rational(w: Value, center: Value, twice_scale: Value) -> dict[str, Value]:
    z = slot("difference", w - center)
    plus = slot("one_plus", slot("square", z * z) + 1)
    below = slot("denominator", plus * plus)
    return {"g": slot("ratio", slot("numerator", twice_scale * z) / below)}


def slope(gradient: Program, w: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    z = w - center
    return scale * z if gradient is quadratic else scale * z / (1 + z * z) ** 2


def descend(
    machine: SimpleNamespace,
    fmt: str,
    lr: float,
    gradient: Program = quadratic,
    *,
    inside: bool = True,
    steps: int = 0,
    reach: float = 1.0,
    changes: dict[str, object] | None = None,
    seed: int = 0,
) -> Window:
    """GD from random starts, as long as it takes to rest; L = 1, condition number 4.

    Outside: a binary64 gradient with an error. ``reach`` scales the distance of the starts.
    """
    steps = steps or 100 + int(30 / lr)
    draw = np.random.default_rng(seed)
    precision = Precision.uniform(fmt).replace(changes or {})
    program = gradient >> sgd.bind(lr=lr) if inside else sgd.bind(lr=lr)
    center = np.ldexp(np.rint(draw.uniform(2, 8, size=(D, 1))), -2) * np.ones((1, S))
    scale = np.geomspace(1, 0.25, D)[:, np.newaxis] * np.ones((1, S))
    w = center + draw.choice([-1, 1], size=(D, S)) * draw.uniform(0.5, 1, size=(D, S)) * reach
    error = 1e-9

    def handed(k: int, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inside:
            return {}
        # an error that is a function of the point: the run can come to rest
        return {"g": slope(gradient, state["w"], center, scale) + error * np.sin(1e6 * state["w"])}

    constants = dict(zip(("center", gradient.inputs[2]), (center, scale), strict=True)) if inside else {}
    result = machine.run(program, precision, {"w": w}, constants, steps, every_step=handed)
    return machine.window(
        result,
        gradient_inside=inside,
        gradient_error=np.full(D, 0.0 if inside else error),
        end_gradient=slope(gradient, result.end["w"], center, scale),
        strong_convexity=0.25,
        exact_constants=("center",),
    )


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("gradient", [quadratic, rational], ids=lambda g: g.name)
@pytest.mark.parametrize("lr", slow_but([0.5, 0.1, 0.02], 0.1))
@pytest.mark.parametrize("fmt", slow_but(["bfloat16", "binary16", "e8m5", "e8m4", "e4m3", "e5m2"], "bfloat16", "e4m3"))
def test_never_violated(fmt: str, lr: float, gradient: Program, inside: bool, machine: SimpleNamespace) -> None:
    window = descend(machine, fmt, lr, gradient, inside=inside)
    bound = T6.evaluate(window)
    assert bound.applicable, bound.reason
    result = verdict(T6.measured(window), bound)
    assert result.status == "holds", result.reason
    assert np.mean(window.halted) > 0.5
    assert bound.lower <= bound.upper <= bound.lower * (1 + 1e-14)
    if gradient is quadratic:
        assert window.halted.all()
        gap = np.sum(window.end_gradient**2 / np.geomspace(1, 0.25, D)[:, np.newaxis], axis=0) / 2
        assert np.all(gap <= loss_bound(bound, window.strong_convexity))


@pytest.mark.parametrize("fmt", ["binary16", "bfloat16", "e8m5", "e8m4"])
def test_sharp_on_the_quadratic(fmt: str, machine: SimpleNamespace) -> None:
    """Started outside the zone where nothing moves; with four mantissa bits that needs lr L = 0.1."""
    ratios = []
    for lr in (0.1, 0.05) if fmt != "e8m4" else (0.1,):
        for seed in range(2):
            window = descend(machine, fmt, lr, seed=seed, reach=8.0)
            result = verdict(T6.measured(window), T6.evaluate(window))
            assert result.status == "holds"
            ratios.append(result.ratio)
    assert np.median(ratios) <= 1.3
    assert max(ratios) <= 1.5


def test_a_tie_attains_the_bound(machine: SimpleNamespace) -> None:
    """w0 = 1 and center 1 + u/lr rest at a tie: the bound is the gradient up to the factors of three roundings."""
    program, u, lr = quadratic >> sgd.bind(lr=0.125), 2.0**-11, 0.125
    center = np.array([[1 + u / lr]])
    constants = {"center": center, "curvature": np.ones((1, 1))}
    result = machine.run(program, Precision.uniform("binary16"), {"w": np.ones((1, 1))}, constants, 1)
    gradient = result.end["w"] - center
    window = machine.window(result, end_gradient=gradient, exact_constants=("center", "curvature"))
    assert window.halted.all()
    outcome = verdict(T6.measured(window), T6.evaluate(window))
    assert outcome.status == "holds"
    assert outcome.ratio <= (1 + u) ** 3 * (1 + 1e-14)


def test_the_gap_below_a_power_of_two_is_half(machine: SimpleNamespace) -> None:
    """From 1 downwards half the step suffices: there the bound is half of the one upwards."""
    uppers = []
    for center in (1 - 2.0**-9, 1 + 2.0**-9):
        constants = {"center": np.array([[center]]), "curvature": np.ones((1, 1))}
        program = quadratic >> sgd.bind(lr=0.125)
        result = machine.run(program, Precision.uniform("binary16"), {"w": np.ones((1, 1))}, constants, 1)
        gradient = result.end["w"] - center
        window = machine.window(result, end_gradient=gradient, exact_constants=("center", "curvature"))
        assert verdict(T6.measured(window), T6.evaluate(window)).status == "holds"
        uppers.append(T6.evaluate(window).upper)
    assert uppers[1] == pytest.approx(2 * uppers[0])


@pytest.mark.parametrize("arithmetic", ["binary64", "e8m7"])
def test_sum_in_a_finer_format(arithmetic: str, machine: SimpleNamespace) -> None:
    changes: dict[str, object] = {"w.sub": (arithmetic, "nearest_even")}
    ratios = []
    for seed in range(4):
        window = descend(machine, "e8m5", 0.1, changes=changes, seed=seed)
        bound = T6.evaluate(window)
        result = verdict(T6.measured(window), bound)
        assert result.status == "holds", result.reason
        ratios.append(result.ratio)
    assert np.median(ratios) < 1.6


def test_underflow_enters_as_an_absolute_term(machine: SimpleNamespace) -> None:
    """Steps below the smallest normal number of e4m3: the bound still applies and still holds."""
    window = descend(machine, "e4m3", 0.02, rational)
    assert window.underflow["update.scale"] > 0
    bound = T6.evaluate(window)
    assert verdict(T6.measured(window), bound).status == "holds"
    counted_away = T6.evaluate(Window(**{**vars(window), "underflow": dict.fromkeys(window.underflow, 0)}))
    assert counted_away.upper < bound.upper


@pytest.mark.parametrize("center", [0.0, 1.5])
def test_a_cycle_is_not_a_halt(center: float, machine: SimpleNamespace) -> None:
    """At lr L = 2 the run swings between w and 2c - w: back where it was after two steps, and never at rest."""
    constants = {"center": np.full((1, 1), center), "curvature": np.ones((1, 1))}
    precision = Precision.uniform("bfloat16")
    result = machine.run(quadratic >> sgd.bind(lr=2.0), precision, {"w": np.full((1, 1), 0.75)}, constants, 8)
    gradient = result.end["w"] - center
    window = machine.window(
        result, end_gradient=gradient, exact_constants=("center", "curvature"), halted=np.array([True])
    )
    assert "halted: 0 of 1 seeds; stored lr times L = 2, runs need not halt" in T6.evaluate(window).reason


def test_seeds_that_still_move_are_not_covered(machine: SimpleNamespace) -> None:
    window = descend(machine, "bfloat16", 0.1)
    halted = np.arange(S) != 1
    bound = T6.evaluate(Window(**{**vars(window), "halted": halted}))
    assert bound.per_seed is not None
    np.testing.assert_array_equal(np.isnan(bound.per_seed), ~halted)
    assert bound.note == "15 of 16 seeds halted; the others are not covered"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"noise": "gaussian"}, "deterministic"),
        ({"halted": np.zeros(S, dtype=bool)}, "halted: 0 of 16 seeds"),
        ({"overflow": {"w.sub": 2}}, "no overflow or invalid operation: 2 in w.sub"),
        ({"exact_constants": ()}, "may cancel"),
        ({"scalars": {"scalar.lr": 0.0}}, "stored lr = 0"),
    ],
)
def test_missed_hypotheses_are_named(fields: dict[str, object], reason: str, machine: SimpleNamespace) -> None:
    window = Window(**{**vars(descend(machine, "bfloat16", 0.1, steps=300)), **fields})
    bound = T6.evaluate(window)
    assert not bound.applicable
    assert reason in bound.reason
    assert math.isnan(bound.upper)


def test_other_programs_and_roundings_do_not_apply(machine: SimpleNamespace) -> None:
    window = descend(machine, "bfloat16", 0.1, steps=20)
    stochastic = {**window.slots, "w.sub": (window.slots["w"][0], Stochastic(16))}
    assert "nearest" in T6.evaluate(Window(**{**vars(window), "slots": stochastic})).reason
    assert "only state" in T6.evaluate(Window(**{**vars(window), "program": adam})).reason


def test_runs_descend_and_halt_below_the_step_size(machine: SimpleNamespace) -> None:
    """The second derivation: lr L high < 1 means that F never grows and the run halts."""
    for fmt in ("bfloat16", "e4m3"):
        draw = np.random.default_rng(5)
        center, scale = np.full((6, 40), 1.25), np.ones((6, 40))
        start = {"w": draw.uniform(-4, 4, size=(6, 40))}
        constants = {"center": center, "curvature": scale}
        result = machine.run(quadratic >> sgd.bind(lr=0.75), Precision.uniform(fmt), start, constants, 200)
        values = np.array([np.sum((state["w"] - center) ** 2, axis=0) for state in result.history])
        pairs = zip(result.history, result.history[1:], strict=False)
        moved = np.array([np.any(a["w"] != b["w"], axis=0) for a, b in pairs])
        change = np.diff(values, axis=0)
        assert np.all(change <= 0)
        assert np.all(change[moved] < 0)
        assert not moved[-1].any()


def test_descent_lemma() -> None:
    """f(w+s) <= f(w) + f'(w) s + L/2 s^2 for f = w^2/(1+w^2), whose second derivative lies in [-1/2, 2]."""
    draw = np.random.default_rng(3)
    w, s = draw.normal(size=(2, 100_000)) * 10.0 ** draw.uniform(-2, 1, size=(2, 100_000))

    def f(x: np.ndarray) -> np.ndarray:
        return x**2 / (1 + x**2)

    assert np.all(f(w + s) <= f(w) + 2 * w / (1 + w**2) ** 2 * s + s**2 + 1e-13)
    assert not np.all(f(w + s) <= f(w) + 2 * w / (1 + w**2) ** 2 * s + 0.95 * s**2)
