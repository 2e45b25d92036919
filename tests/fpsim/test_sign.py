"""The sign of a value as an operation, and sign descent with momentum, which is made of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fpsim
from fpsim.optim import signum
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import Stochastic
from fpsim.tracing import less, sign, slot, step, where

VALUES = [0.0, -0.0, 2.5, -2.5, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1e308]
SIGNS = [0.0, -0.0, 1.0, -1.0, 1.0, -1.0, math.nan, 1.0, -1.0, 1.0]


@step
def elementwise(w: Any, a: Any) -> Any:
    return {"w": slot("kept", sign(a) * 1)}


@step
def selected(w: Any, a: Any) -> Any:
    """Has a comparison, so the machine for programs with shapes runs it."""
    return {"w": slot("kept", where(less(a, 0), sign(a), sign(a)) * 1)}


@pytest.mark.parametrize("program", [elementwise, selected], ids=lambda p: p.name)
@pytest.mark.parametrize("device", ["exact", "cpu"])
def test_zeros_keep_their_sign_and_nan_stays(program: Program, device: str) -> None:
    state, given = {"w": np.zeros(len(VALUES))}, {"a": np.array(VALUES)}
    result = fpsim.run(program, state, given, Precision.uniform("binary64"), device=device)
    np.testing.assert_array_equal(result.state["w"].ravel(), SIGNS)
    np.testing.assert_array_equal(np.signbit(result.state["w"].ravel()), np.signbit(SIGNS))


@pytest.mark.parametrize("mode", ["nearest_even", "down", Stochastic(16)], ids=str)
@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn", "e11m52"])
def test_signum_on_the_machine_equals_the_exact_reader(fmt: str, mode: Any) -> None:
    draw = np.random.default_rng(1)
    d, runs, steps = 9, 3, 20
    state = {"w": draw.standard_normal((d, runs)), "m": np.zeros((d, runs))}
    given = {"g": draw.standard_normal((steps, d, runs))}
    program, precision, key = signum.bind(lr=0.03, beta1=0.7), Precision.uniform(fmt, mode), fpsim.Key(4)
    both = [
        fpsim.run(program, state, given, precision, key, steps=steps, runs=[3, 5, 9], device=device, record=["w", "m"])
        for device in ("exact", "cpu")
    ]
    for name in ("w", "m"):
        np.testing.assert_array_equal(both[0].records[name], both[1].records[name])


def test_signum_in_binary64_is_its_definition() -> None:
    draw = np.random.default_rng(2)
    gradients = draw.standard_normal((30, 5, 1))
    result = fpsim.run(
        signum.bind(lr=0.25, beta1=0.5), {"w": np.ones(5), "m": np.zeros(5)}, {"g": gradients},
        Precision.uniform("binary64"), steps=30,
    )  # fmt: skip
    w, m = np.ones(5), np.zeros(5)
    for g in gradients[:, :, 0]:
        m = 0.5 * m + 0.5 * g
        w = w - 0.25 * np.sign(m)
    np.testing.assert_array_equal(result.state["w"].ravel(), w)
