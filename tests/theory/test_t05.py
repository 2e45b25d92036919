"""T5 against runs of small formats with random and adversarial gradients, in every kind of rounding."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from tiers import slow_but

from fpsim.optim.adam import adam
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.rounding import Stochastic
from theory.theorems import theorem
from theory.verdict import verdict
from theory.window import Window

T5 = theorem("T5")
D, S = 6, 20


def ratios(history: list[dict[str, np.ndarray]]) -> np.ndarray:
    """[S] largest |m|/sqrt(v) over steps and coordinates; 0/0 counts 0."""
    m, v = (np.array([state[name] for state in history]) for name in ("m", "v"))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.abs(m) / np.sqrt(v)
    return np.asarray(np.max(np.where(m == 0, 0.0, found), axis=(0, 1)))


def adam_window(
    machine: SimpleNamespace,
    fmt: str,
    gradients: np.ndarray,
    mode: object = "nearest_even",
    beta1: float = 0.5,
    beta2: float = 0.75,
    **options: object,
) -> Window:
    program = adam.bind(beta1=beta1, beta2=beta2, eps=1e-3)
    zero = np.zeros(gradients.shape[1:])
    result = machine.run(
        program,
        Precision.uniform(fmt, mode, **options),
        {"w": zero, "m": zero, "v": zero},
        {},
        len(gradients),
        every_step=lambda k, state: {"g": gradients[k]},
    )
    return machine.window(result, step_ratio=ratios(result.history), noise="gaussian")


def growing(beta1: float, beta2: float, steps: int, low: float = 1.0) -> np.ndarray:
    """g_{t-j} proportional to (beta1/beta2)^j, ending at 1: attains the bound in exact arithmetic."""
    j = np.arange(steps)[::-1, np.newaxis, np.newaxis]
    return low * (beta1 / beta2) ** j * np.ones((1, D, S))


@pytest.mark.parametrize(
    "mode", slow_but(["nearest_even", "toward_zero", "up", Stochastic(16)], "nearest_even", "up"), ids=str
)
@pytest.mark.parametrize(
    ("fmt", "beta1", "beta2"),
    [
        ("bfloat16", 0.9, 0.99),
        ("bfloat16", 0.5, 0.75),
        ("binary16", 0.5, 0.9),
        ("e8m3", 0.5, 0.75),
        ("e8m2", 0.25, 0.75),
    ],
)
def test_never_violated(fmt: str, beta1: float, beta2: float, mode: object, machine: SimpleNamespace) -> None:
    draw = np.random.default_rng(1)
    steps = 60
    sequences = {
        "normal": draw.normal(size=(steps, D, S)),
        "heavy": draw.standard_t(1.5, size=(steps, D, S)),
        "sparse": draw.normal(size=(steps, D, S)) * (draw.random((steps, D, S)) < 0.1),
        "growing": growing(beta1, beta2, steps // 3),
        "nearly growing": growing(beta1, beta2, steps // 3) * draw.uniform(0.9, 1.1, size=(steps // 3, D, S)),
    }
    for name, gradients in sequences.items():
        window = adam_window(machine, fmt, gradients, mode, beta1, beta2)
        bound = T5.evaluate(window)
        if fmt == "binary16" and any(window.underflow.values()):  # its range is too narrow for some sequences
            assert bound.applicable or "no underflow" in bound.reason
            continue
        assert bound.applicable, (name, bound.reason)
        result = verdict(T5.measured(window), bound)
        assert result.status == "holds", (name, result.reason)


@pytest.mark.parametrize(("fmt", "most"), [("binary32", 1.001), ("e8m10", 1.02), ("bfloat16", 1.08), ("e8m3", 1.9)])
def test_growing_gradients_attain_it(fmt: str, most: float, machine: SimpleNamespace) -> None:
    window = adam_window(machine, fmt, growing(0.5, 0.75, 30))
    bound = T5.evaluate(window)
    assert bound.applicable, bound.reason
    result = verdict(T5.measured(window), bound)
    assert result.status == "holds"
    assert 1 <= result.ratio <= most


def test_exact_constant_as_precision_grows(machine: SimpleNamespace) -> None:
    window = adam_window(machine, "e8m23", growing(0.5, 0.75, 4))
    expected = 0.5 / math.sqrt(0.25 * (1 - 0.25 / 0.75))
    assert T5.evaluate(window).upper == pytest.approx(expected, rel=1e-5)


def test_stored_scalars_decide(machine: SimpleNamespace) -> None:
    """In bfloat16 beta2 = 0.999 is stored as 1 and 1 - beta2 by itself: the constant uses both as stored."""
    window = adam_window(machine, "bfloat16", np.ones((5, D, S)), beta1=0.9, beta2=0.999)
    assert window.scalars["scalar.beta2"] == 1.0
    bound = T5.evaluate(window)
    assert bound.applicable
    b1, c1, c2 = (window.scalars[f"scalar.{name}"] for name in ("beta1", "one_minus_beta1", "one_minus_beta2"))
    assert bound.upper == pytest.approx(c1 / math.sqrt(c2 * (1 - b1**2)), rel=0.1)
    assert verdict(T5.measured(window), bound).status == "holds"


def test_storage_in_narrow_arrays(machine: SimpleNamespace) -> None:
    program = adam.bind(beta1=0.5, beta2=0.75, eps=1e-3)
    zero, gradients = np.zeros((D, S)), growing(0.5, 0.75, 30)
    state = {"w": zero, "m": zero, "v": zero}
    precision = Precision.storage(m="e8m4", v="e8m4", g="e8m4")
    result = machine.run(program, precision, state, {}, 30, every_step=lambda k, now: {"g": gradients[k]})
    window = machine.window(result, step_ratio=ratios(result.history))
    outcome = verdict(T5.measured(window), T5.evaluate(window))
    assert outcome.status == "holds"
    assert outcome.ratio < 1.2


def test_the_start_may_be_any_state_under_the_bound(machine: SimpleNamespace) -> None:
    window = adam_window(machine, "bfloat16", np.ones((5, D, S)))
    inside = {**window.start, "m": np.full((D, S), 0.5), "v": np.full((D, S), 0.5)}
    outside = {**window.start, "m": np.full((D, S), 4.0), "v": np.full((D, S), 0.5)}
    assert T5.evaluate(Window(**{**vars(window), "start": inside})).applicable
    assert "starts under the bound: 120 states" in T5.evaluate(Window(**{**vars(window), "start": outside})).reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"step_ratio": None}, "the ratio was recorded"),
        ({"underflow_in": "v.square"}, "no underflow: 3 in v.square"),
        ({"overflow": {"v.add": 1}}, "1 in v.add"),
        ({"program": sgd}, "stores m and v"),
        ({"scalars": {}}, "constant scalars"),
    ],
)
def test_missed_hypotheses_are_named(fields: dict[str, object], reason: str, machine: SimpleNamespace) -> None:
    window = adam_window(machine, "bfloat16", np.ones((5, D, S)))
    if "underflow_in" in fields:
        fields = {"underflow": {**window.underflow, str(fields["underflow_in"]): 3}}
    bound = T5.evaluate(Window(**{**vars(window), **fields}))
    assert not bound.applicable
    assert reason in bound.reason


def test_the_side_condition_is_needed(machine: SimpleNamespace) -> None:
    """Where B^2 >= b the ratio exceeds anything, given time: the theorem stays silent and says why."""
    largest = []
    for steps in (10, 20, 40):
        window = adam_window(machine, "e8m10", growing(0.75, 0.5, steps, low=1e-6), beta1=0.75, beta2=0.5)
        assert "B^2 < b" in T5.evaluate(window).reason
        largest.append(np.max(T5.measured(window)))
    assert largest[2] > 2 * largest[1] > 4 * largest[0]
