"""Records of windows: every field comes back to the last bit, and what is damaged or foreign is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from fpsim.optim import STEPS
from fpsim.precision import Precision
from theory.record import RecordError, as_json, fingerprint, from_data, pack, unpack
from theory.theorems import theorems
from theory.window import Window


def window_of(machine: SimpleNamespace, optimizer: str = "adam", **fields: Any) -> Window:
    program = STEPS[optimizer]
    state = {name: np.zeros((3, 2)) for name in program.state} | {"w": np.linspace(-1.0, 1.0, 6).reshape(3, 2)}
    draw = np.random.default_rng(1)
    steps = {"every_step": lambda k, values: {"g": values["w"] + draw.normal(size=(3, 2))}}
    result = machine.run(program, Precision.uniform("bfloat16", "stochastic"), state, {}, 20, **steps)
    return machine.window(result, **fields)


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, signs of zeros and NaNs included."""
    if isinstance(a, np.ndarray):
        alike = isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
        return alike and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


def fields_of(window: Window) -> dict[str, Any]:
    plain = {f.name: getattr(window, f.name) for f in dataclasses.fields(window)}
    plain["hyperparameters"] = dict(plain["hyperparameters"])
    return {name: value for name, value in plain.items() if name not in ("program", "slots")}


STRANGE: list[dict[str, Any]] = [
    {},
    {"smoothness": math.inf, "strong_convexity": -0.0, "box": math.nan, "outcome": 'a "name"'},
    {"loss_start": np.array([math.nan, -0.0]), "loss_end": np.array([-math.inf, 5e-324]), "stationary": True},
    {"curvature": np.ones(3), "exact_constants": ("a", "b"), "shape": (3, 1), "minimizer": np.arange(3.0)},
    {"history": {"v": np.random.default_rng(0).normal(size=(5, 2, 1))}, "history_first": 7, "step_ratio": np.ones(2)},
    {"squared_gradient": np.zeros((0, 2)), "halted": np.array([True, False]), "overflow": {}, "invalid": {"g": 2**40}},
    {"end_gradient": np.arange(12.0).reshape(4, 3).T[:, ::2], "spectral_smoothness": np.float64(0.1)},
]


@pytest.mark.parametrize("fields", STRANGE, ids=lambda fields: "-".join(fields) or "plain")
def test_every_field_comes_back_to_the_last_bit(machine: SimpleNamespace, fields: dict[str, Any]) -> None:
    window = window_of(machine, **fields)
    packed = unpack(pack(window), window.program, window.slots)
    through_json = from_data(json.loads(json.dumps(as_json(window), allow_nan=False)), window.program, window.slots)
    for again in (packed, through_json):
        found, expected = fields_of(again), fields_of(window)
        assert list(found) == list(expected)
        for name, value in expected.items():
            plain = value.item() if isinstance(value, np.generic) else value
            assert same(found[name], plain), name
        assert pack(again) == pack(window)


def test_theorems_say_the_same_of_a_window_and_of_its_record(machine: SimpleNamespace) -> None:
    for optimizer in ("sgd", "rmsprop", "adam"):
        window = window_of(machine, optimizer)
        again = unpack(pack(window), window.program, window.slots)
        for theorem in theorems().values():
            assert repr(theorem.evaluate(again)) == repr(theorem.evaluate(window))


def test_schedules_are_those_of_the_program(machine: SimpleNamespace) -> None:
    program = STEPS["sgd"].bind(lr="0.1/sqrt(t)")
    window = window_of(machine, "sgd", program=program, hyperparameters=dict(program.hyperparameters))
    again = unpack(pack(window), program, window.slots)
    assert again.hyperparameters == program.hyperparameters
    data = as_json(window)
    data["window"]["hyperparameters"]["lr"] = {"$declared": "t"}
    with pytest.raises(RecordError, match="lr is declared as"):
        from_data(data, program, window.slots)


def test_what_a_window_does_not_hold_is_refused(machine: SimpleNamespace) -> None:
    for strange in ({"box": 1j}, {"curvature": np.zeros(3, np.float32)}, {"samples": {"a": {1, 2}}}):
        with pytest.raises(TypeError):
            pack(window_of(machine, **strange))


def test_what_narrow_formats_leave_takes_little_space(machine: SimpleNamespace) -> None:
    window = window_of(machine, start={"w": np.ldexp(np.random.default_rng(0).integers(128, 256, (32, 8)), -9)})
    whole = 8 * 32 * 8
    assert len(pack(window)) - len(pack(dataclasses.replace(window, start={}))) < whole / 4


def test_another_program_or_format_is_refused(machine: SimpleNamespace) -> None:
    window = window_of(machine)
    packed, slots = pack(window), dict(window.slots)
    others = [
        (window.program.bind(beta2=0.5), slots),
        (window.program, slots | {"v": slots["w"], "w": (slots["w"][0], "nearest_even")}),
        (window.program, {name: Precision.uniform("bfloat16").resolve(window.program)[name] for name in slots}),
        (STEPS["rmsprop"], Precision.uniform("bfloat16", "stochastic").resolve(STEPS["rmsprop"])),
    ]
    for program, other in others:
        assert fingerprint(program, other) != fingerprint(window.program, slots)
        with pytest.raises(RecordError, match="another program or of other formats"):
            unpack(packed, program, other)


def test_damage_is_one_line(machine: SimpleNamespace) -> None:
    window = window_of(machine)
    program, slots, packed = window.program, window.slots, pack(window)
    plain = as_json(window)
    fields = plain["window"]
    damaged: list[Any] = [
        None,
        {"window": 1},
        plain | {"record": 2},
        plain | {"window": {}},
        plain | {"window": fields | {"surprise": 1}},
        plain | {"window": fields | {"halted": {"$array": ["b1", [2], "????"]}}},
        plain | {"window": fields | {"halted": {"$array": ["f4", [2], ""]}}},
        plain | {"window": fields | {"halted": {"$array": ["b1", [3], fields["halted"]["$array"][2]]}}},
        plain | {"window": fields | {"box": {"$float": "one"}}},
        plain | {"window": fields | {"hyperparameters": {"x": {"$declared": "t"}}}},
    ]
    for data in damaged:
        with pytest.raises(RecordError) as error:
            from_data(data, program, slots)
        assert "\n" not in str(error.value)
    for data in (
        b"",
        b"no",
        packed[:-1],
        packed + b"x",
        zlib.compress(b"\xc1"),
        zlib.compress(msgspec.msgpack.encode(1)),
    ):
        with pytest.raises(RecordError):
            unpack(data, program, slots)
