"""T4 against bit-exact runs: the update given the moments, for shipped optimizers and one of one's own."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sympy as sp
from tiers import slow_but

import fpsim
from experiments import simulate
from experiments.study import Cell
from fpsim.optim import adam, rmsprop
from fpsim.optim.sgd import momentum, sgd
from fpsim.precision import Precision, scalar_values
from fpsim.program import Program
from fpsim.rounding import Stochastic
from fpsim.tracing import Value, absolute, maximum, slot, sqrt, step
from theory.enclosure import ball
from theory.theorems import t04_update, theorem
from theory.verdict import Verdict, verdict
from theory.window import Window

T4 = theorem("T4")
D, S = 5, 2


def window_of(
    machine: SimpleNamespace, program: Program, precision: Precision, gradients: np.ndarray, first: int = 0
) -> Window:
    """The window of steps first .. of a run of the machine, all of them recorded; gradients [steps, D, S]."""
    zero = {name: np.zeros((D, S)) for name in program.state}
    names = [o.slot for o in program.operations]
    steps = len(gradients)
    before = fpsim.run(program, zero, {"g": gradients[:first]}, precision, fpsim.Key(1), steps=first, device="exact")
    result = fpsim.run(
        program, before.state, {"g": gradients[first:]}, precision, fpsim.Key(1), steps=steps - first,
        first_step=first, record=[*names, *program.state, "g"], events=True, device="exact",
    )  # fmt: skip
    toy = machine.run(
        program, Precision.uniform("bfloat16"), zero, {}, 1, every_step=lambda k, state: {"g": gradients[0]}
    )
    history = {name: result.records[name] for name in (*names, "g")}
    history |= {name: np.concatenate([before.state[name][None], result.records[name]]) for name in program.state}
    counts = result.events.counts
    scalars = scalar_values(program, precision, range(max(first - 1, 0), steps))
    varying = [scalar.name for scalar in program.scalars if program.varies(scalar)]
    lead = 1 if first == 0 else 0
    return dataclasses.replace(
        machine.window(toy),
        slots=precision.resolve(program),
        scalars={name: float(x.flat[0]) for name, x in scalars.items() if name not in varying},
        changing={name: np.concatenate([scalars[name][:lead], scalars[name]]) for name in varying},
        history=history,
        history_first=first,
        first_step=first,
        steps=steps - first,
        start=before.state,
        end=result.state,
        underflow={s: counts[s]["underflow"] for s in counts},
        overflow={s: counts[s]["overflow"] for s in counts},
        invalid={s: counts[s]["invalid"] + counts[s]["divide_by_zero"] for s in counts},
    )


def judged(window: Window) -> Verdict:
    return verdict(T4.measured(window), T4.evaluate(window))


def gradients(seed: int, steps: int = 12) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.asarray(draw.normal(size=(steps, D, S)) * 2.0 ** draw.uniform(-2, 2, (1, D, S)))


@step
def own(w: Value, m: Value, a: Value, g: Value, *, lr: Any = 0.03, b: Any = 0.8, c: Any = 0.9) -> dict[str, Value]:
    """AdaMax with a floor inside a root: the update has a maximum, a square and one rounding more."""
    m = slot("mom.add", slot("mom.keep", b * m) + slot("mom.new", (1 - b) * g))
    a = slot("a.max", maximum(slot("a.keep", c * a), absolute(g)))
    below = slot("root", sqrt(slot("floor", slot("square", a * a) + c)))
    return {"w": slot("put", w - slot("s", lr * slot("q", m / below))), "m": m, "a": a}


MODES = ["nearest_even", "toward_zero", "up", "to_odd", Stochastic(6), Stochastic(3, "B")]
PROGRAMS = {
    "adam": adam.bind(lr=0.03, beta1=0.8, beta2=0.9, eps=0.01),
    "rmsprop": rmsprop.bind(lr=0.03, beta2=0.9, eps=0.01),
    "momentum": momentum.bind(lr=0.03, beta1=0.8),
    "own": own,
}


@pytest.mark.parametrize("mode", slow_but(MODES, "up", Stochastic(6)), ids=str)
@pytest.mark.parametrize("name", slow_but(PROGRAMS, "adam", "own"))
def test_never_violated(name: str, mode: object, machine: SimpleNamespace) -> None:
    for seed, fmt in enumerate(("bfloat16", "e5m2", "e8m3") if mode == MODES[0] else ("e8m6", "e5m2")):
        window = window_of(machine, PROGRAMS[name], Precision.uniform(fmt, mode), gradients(seed))
        result = judged(window)
        assert result.status == "holds", (fmt, result.reason)
        assert fmt != "bfloat16" or result.ratio < 3


def test_formats_and_modes_may_differ_slot_by_slot(machine: SimpleNamespace) -> None:
    mixed = Precision.uniform("bfloat16").replace(
        {"update.*": ("e8m5", "up"), "update.sqrt": ("binary32", "down"), "v*": "binary32", "m": "e8m12"}
    )
    stored = Precision.storage(w="bfloat16", m="e8m4", v="bfloat16", g="e8m4")
    for precision, most in ((mixed, 3), (stored, 4)):
        result = judged(window_of(machine, PROGRAMS["adam"], precision, gradients(5)))
        assert result.status == "holds", result.reason
        assert 1 <= result.ratio < most


def test_the_constant_of_adam(machine: SimpleNamespace) -> None:
    """h^3/l^(5/2) - 1 while the corrections change; h^2... without their two divisions once they are 1."""
    u = Fraction(1, 256)
    low, high = 1 / (1 + u), (1 + 2 * u) / (1 + u)
    window = window_of(machine, PROGRAMS["adam"], Precision.uniform("bfloat16"), gradients(1))
    bound = T4.evaluate(window)
    assert (Fraction(bound.lower) + 1) ** 2 <= high**6 / low**5 <= (Fraction(bound.upper) + 1) ** 2
    late = window_of(machine, PROGRAMS["adam"], Precision.uniform("bfloat16"), gradients(2, 90), first=80)
    assert np.all(late.changing["scalar.correction2"] == 1.0)
    bound = T4.evaluate(late)
    assert bound.applicable
    assert Fraction(bound.lower) <= high**2 / low**2 - 1 <= Fraction(bound.upper)
    assert judged(late).status == "holds"


def test_it_evaluates_its_statement(machine: SimpleNamespace) -> None:
    window = window_of(machine, PROGRAMS["rmsprop"], Precision.uniform("e8m4", "up"), gradients(3))
    bound = T4.evaluate(window)
    low, high = 1 / (1 + 2 * 2.0**-5), 1 + 2 * 2.0**-5
    q = max(high**2 - 1, 1 - low**2 / high**2)  # root and sum are >= 0: rounding up makes them no smaller
    right = t04_update.STATEMENT.right.subs({t04_update._q: q})
    assert bound.upper**2 == pytest.approx(float(right), rel=1e-14)
    assert bound.per_seed is not None
    assert np.all(bound.per_seed == bound.upper)
    # what is measured is the left side, here by hand in rationals for one seed
    lr, eps = (ball(window.scalars[f"scalar.{name}"]) for name in ("lr", "eps"))
    worst = 0.0
    for t in range(window.steps):
        for k in range(D):
            g, v, a = (ball(window.history[name][t, k, 0]) for name in ("g", "v.add", "update.scale"))
            exact = lr * g / (v.sqrt() + eps)
            left = t04_update.STATEMENT.left.subs({t04_update._x: sp.Float(str(float(exact)), 30)})
            assert left.free_symbols == {t04_update._y}
            worst = max(worst, abs(float(a / exact) - 1))
    assert T4.measured(window)[0] == pytest.approx(worst, rel=1e-12)


def test_an_epsilon_that_is_swamped_costs_nothing(machine: SimpleNamespace) -> None:
    """r + eps = r: three roundings are left, and 1/(1 + eps/r) is known."""
    program = rmsprop.bind(lr=0.03, beta2=0.9, eps=1e-6)
    window = window_of(machine, program, Precision.uniform("bfloat16"), gradients(10))
    root, total = window.history["update.sqrt"], window.history["update.eps"]
    assert np.array_equal(root, total)
    u, share = Fraction(1, 256), Fraction(window.scalars["scalar.eps"]) / Fraction(float(np.min(root)))
    low, high = 1 / (1 + u), (1 + 2 * u) / (1 + u)
    bound = T4.evaluate(window)
    assert Fraction(bound.lower) <= high**2 / low * (1 + share) - 1 <= Fraction(bound.upper)
    assert 1 <= judged(window).ratio < 2.5
    total = total.copy()
    total[0, 0, 0] *= 1.0078125
    moved = dataclasses.replace(window, history={**window.history, "update.eps": total})
    assert T4.evaluate(moved).upper > bound.upper


def test_underflow_is_left_out_entry_by_entry(machine: SimpleNamespace) -> None:
    """In e4m3 some steps are subnormal: they can be wrong by more than q, and the others are still bounded."""
    program = PROGRAMS["rmsprop"]
    window = window_of(machine, program, Precision.uniform("e4m3"), gradients(4, 30) / 4)
    assert window.underflow["update.scale"] > 0
    bound = T4.evaluate(window)
    assert bound.applicable, bound.reason
    detail = next(h.detail for h in bound.hypotheses if "without underflow" in h.name)
    assert f"{window.underflow['update.scale']} in update.scale" in detail
    assert judged(window).status == "holds"
    wrong = dataclasses.replace(window, underflow=dict.fromkeys(window.underflow, 0))
    assert judged(wrong).status == "violated"


def test_a_wrong_step_is_found(machine: SimpleNamespace) -> None:
    window = window_of(machine, PROGRAMS["adam"], Precision.uniform("bfloat16"), gradients(6))
    spoiled = {k: x.copy() for k, x in window.history.items()}
    spoiled["update.scale"][3, 2, 1] *= 1.05
    result = judged(dataclasses.replace(window, history=spoiled))
    assert result.status == "violated"
    assert "seed 1" in result.reason
    spoiled["m.add"][3, 2, 1] = 0.0
    assert judged(dataclasses.replace(window, history=spoiled)).status == "violated"  # nothing becomes something


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"program": sgd}, "the optimizer stores w and moments"),
        ({"history": {}}, "recorded: update.scale"),
        ({"changing": {}}, "recorded: scalar.correction1"),
        ({"start": {}}, "second moments start nonnegative: the start of v is not known"),
        ({"overflow": {"v.add": 2}}, "2 in v.add"),
        ({"scalars": {}}, "recorded: "),
    ],
)
def test_missed_hypotheses_are_named(fields: dict[str, Any], reason: str, machine: SimpleNamespace) -> None:
    window = window_of(machine, PROGRAMS["adam"], Precision.uniform("bfloat16"), gradients(7))
    changed = dataclasses.replace(window, **fields)
    bound = T4.evaluate(changed)
    assert not bound.applicable
    assert reason in bound.reason
    assert verdict(T4.measured(changed), bound).status == "not applicable"


def test_strange_windows_do_not_raise(machine: SimpleNamespace) -> None:
    window = window_of(machine, PROGRAMS["adam"], Precision.uniform("bfloat16"), gradients(8))
    nothing = {name: np.zeros((0, D, S)) for name in window.history} | {k: np.zeros((1, D, S)) for k in "wmv"}
    nans = {name: np.full_like(x, math.nan) for name, x in window.history.items()}
    spare = {"underflow": {}, "overflow": {}, "invalid": {}}
    for history in (nothing, nans):
        for fields in ({}, spare, {"changing": {k: x[:1] for k, x in window.changing.items()}}):
            changed = dataclasses.replace(window, history=history, **fields)
            bound = T4.evaluate(changed)
            assert verdict(T4.measured(changed), bound).status in ("holds", "not applicable", "undecided")


def test_nesterov_has_no_constant(machine: SimpleNamespace) -> None:
    @step
    def nesterov(w: Value, m: Value, g: Value, *, lr: Any = 0.1, b: Any = 0.9) -> dict[str, Value]:
        m = slot("m.add", slot("m.keep", b * m) + g)
        return {"w": slot("w.sub", w - slot("s", lr * slot("ahead", g + slot("look", b * m)))), "m": m}

    bound = T4.evaluate(window_of(machine, nesterov, Precision.uniform("bfloat16"), gradients(9)))
    assert "may cancel" in bound.reason


SETTING: dict[str, Any] = {
    "problem": "quadratic", "noise": "gaussian", "sigma": 0.5, "batch": 0, "random_bits": 16, "dimension": 8,
    "seeds": 2, "seed": 0, "steps": 200, "window": 0.5, "gradient": "rounded",
}  # fmt: skip


def cells(optimizer: str, rounding: str, exponent: int, widths: tuple[int, ...], **changed: Any) -> list[Cell]:
    values = {"lr": 0.013, "beta1": 0.9, "beta2": 0.99, "eps": 1e-4}
    names = {"adam": ("lr", "beta1", "beta2", "eps"), "rmsprop": ("lr", "beta2", "eps")}[optimizer]
    fields = {**SETTING, "optimizer": optimizer, "rounding": rounding, "exponent_bits": exponent, **changed}
    return [Cell(mantissa_bits=m, hyperparameters={k: values[k] for k in names}, **fields) for m in widths]


def test_windows_of_studies() -> None:
    ratios = []
    for rounding in ("nearest_even", "stochastic"):
        for window in simulate.windows(cells("adam", rounding, 8, (3, 7, 10, 23))):
            result = judged(window)
            assert result.status == "holds", result.reason
            ratios.append(result.ratio)
    assert float(np.median(ratios)) <= 3


@pytest.mark.slow
def test_many_windows_of_studies() -> None:
    held, widths = 0, (2, 3, 5, 7, 10, 16)
    for seed in range(3):
        for optimizer in ("adam", "rmsprop"):
            for rounding in ("nearest_even", "stochastic", "toward_zero", "up", "down", "to_odd"):
                for window in simulate.windows(cells(optimizer, rounding, 5 + seed % 4, widths, seed=seed)):
                    result = judged(window)
                    assert result.status in ("holds", "not applicable"), result.reason
                    held += result.status == "holds"
    assert held > 150


def test_a_schedule_that_turns_negative_is_refused(machine: SimpleNamespace) -> None:
    """sqrt(v) + eps may cancel where eps < 0: no relative error follows."""
    draw = np.random.default_rng(3)
    program = rmsprop.bind(lr=0.01, beta2=0.75, eps="-0.5/t")
    gradients = draw.normal(size=(12, D, S))
    window = window_of(machine, program, Precision.uniform("bfloat16"), gradients)
    assert "scalar.eps: it changes from step to step, and is -0.5 in one" in T4.evaluate(window).reason
    assert np.all(np.isnan(T4.measured(window)))
