"""fpsim.run: dispatch, checks, header."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fpsim.optim.adam import adam
from fpsim.optim.sgd import sgd
from fpsim.precision import Precision
from fpsim.random_bits import Key
from fpsim.run import run

START = {"w": [1.0, 2.0], "m": [0.0, 0.0], "v": [0.0, 0.0]}
GRADIENT = {"g": np.random.default_rng(0).standard_normal((6, 2, 3))}
BF16 = Precision.uniform("bfloat16", "stochastic")


def test_both_devices_give_the_same_bits() -> None:
    results = [
        run(
            adam,
            START,
            GRADIENT,
            BF16,
            Key(1),
            steps=6,
            first_step=2,
            runs=[4, 0, 9],
            record=["w", "update.div"],
            device=device,
            events=device == "cpu",
        )
        for device in ("cpu", "exact")
    ]
    for name in ("w", "m", "v"):
        assert results[0].state[name].shape == (2, 3)
        assert (results[0].state[name] == results[1].state[name]).all()
    for name in ("w", "update.div"):
        assert results[0].records[name].shape == (6, 2, 3)
        assert (results[0].records[name] == results[1].records[name]).all()
    assert results[0].events["update.v_hat"]["inexact"] == 36
    assert results[1].events is None


def test_a_run_can_be_continued() -> None:
    whole = run(adam, START, GRADIENT, BF16, Key(1), steps=6)
    half = run(adam, START, {"g": GRADIENT["g"][:4]}, BF16, Key(1), steps=4)
    rest = run(adam, half.state, {"g": GRADIENT["g"][4:]}, BF16, Key(1), steps=2, first_step=4)
    assert (rest.state["w"] == whole.state["w"]).all()


def test_header_names_what_the_format_does_to_scalars() -> None:
    header = run(adam, START, {"g": [1.0, 1.0]}, Precision.uniform("bfloat16")).header
    assert header.program == "adam"
    assert [r.effective for r in header.scalars if r.name == "scalar.beta2"] == [1.0]
    assert any("scalar.beta2 = 0.999 becomes 1" in warning for warning in header.warnings)


def test_defaults() -> None:
    result = run(sgd, {"w": [1.0]}, {"g": [[0.5, 0.25]]}, Precision.uniform("e8m20"))
    assert result.state["w"].shape == (1, 2)
    assert result.records == {}
    nothing = run(sgd, {"w": [1.1]}, {"g": [1.0]}, Precision.uniform("e5m2"), steps=0)
    assert nothing.state["w"].tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "tpu"}, "device='tpu'; admissible: cpu, exact"),
        ({"steps": -1}, "steps=-1"),
        ({"first_step": 1.5}, "first_step=1.5"),
        ({"runs": [1 << 33]}, "outside 0..2"),
        ({"runs": [0.5]}, "dtype float64"),
        ({"runs": [0, 1]}, r"array 'g' has shape \(6, 2, 3\); admissible: \(6, 2, 2\)"),
        ({"state": {**START, "w": [1.0, float("nan")]}}, r"start state 'w' is NaN at position \(1,\)"),
        ({"state": {"w": [1.0, 2.0]}}, "state: missing 'm'"),
        ({"state": {**START, "q": [1.0]}}, "state: unknown 'q'"),
        ({"inputs": {}}, "inputs: missing 'g'; program 'adam' needs: g"),
        ({"state": {**START, "m": [0.0]}}, r"array 'm' has shape \(1,\)"),
        ({"state": {**START, "m": 0.0}}, "array 'm' has 0 axes"),
        ({"record": ["x"]}, "record 'x'"),
        ({"key": None}, "key=None"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"state": START, "inputs": GRADIENT, "precision": BF16, "key": Key(0), "steps": 6} | changes
    with pytest.raises(ValueError, match=message):
        run(adam, **given)


def test_what_can_be_recorded_is_the_same_on_both_devices() -> None:
    for device in ("cpu", "exact"):
        constant = run(adam, START, {"g": [0.3, 0.3]}, BF16, Key(1), steps=2, record=["g"], device=device)
        assert (constant.records["g"] == 0.30078125).all()
        empty = run(adam, START, {"g": [0.3, 0.3]}, BF16, Key(1), steps=0, record=["w"], device=device)
        assert empty.records["w"].shape == (0, 2, 1)


@pytest.mark.parametrize("device", ["cpu", "exact"])
def test_a_per_run_hyperparameter_makes_as_many_runs(device: str) -> None:
    both = run(adam.bind(lr=[0.1, 0.2]), START, {"g": [0.3, 0.3]}, BF16, Key(1), steps=5, device=device)
    for number, lr in enumerate((0.1, 0.2)):
        one = run(adam.bind(lr=lr), START, {"g": [0.3, 0.3]}, BF16, Key(1), steps=5, runs=[number])
        assert (both.state["w"][:, number] == one.state["w"][:, 0]).all()
    with pytest.raises(ValueError, match="'lr' has 2 values; admissible: 3, one for each run"):
        run(adam.bind(lr=[0.1, 0.2]), START, {"g": [0.3, 0.3]}, BF16, Key(1), runs=[0, 1, 2], device=device)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"key": 3}, TypeError, "key=3: a Key is needed"),
        ({"program": "adam"}, TypeError, "program='adam': a fpsim.Program is needed"),
        ({"precision": "bfloat16"}, TypeError, "precision='bfloat16': a fpsim.Precision is needed"),
        ({"state": [1.0]}, TypeError, "state is a list; a dict"),
        ({"inputs": None}, TypeError, "inputs is a NoneType; a dict"),
        ({"record": "w"}, TypeError, "record='w': a list of names is needed"),
        ({"record": ["w.subb"]}, ValueError, "record 'w.subb' is not in program 'adam'; did you mean w.sub"),
        ({"state": {**START, "w": np.array([1j, 2.0])}}, ValueError, "array 'w' has dtype complex128"),
    ],
)
def test_what_is_no_run_is_named(wrong: dict[str, Any], error: type[Exception], says: str) -> None:
    given = {"program": adam, "state": START, "inputs": {"g": [0.3, 0.3]}, "precision": BF16, "key": Key(1)}
    with pytest.raises(error, match=says):
        run(**{**given, **wrong})


def test_tensors_are_read() -> None:
    torch = pytest.importorskip("torch")
    tensors = {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16), "m": torch.zeros(2, requires_grad=True)}
    from_torch = run(adam, {**START, **tensors}, {"g": [0.3, 0.3]}, BF16, Key(1), steps=3)
    from_numpy = run(adam, START, {"g": [0.3, 0.3]}, BF16, Key(1), steps=3)
    assert (from_torch.state["w"] == from_numpy.state["w"]).all()
