"""Runs that the rounding model says nothing about: every theorem tells why it does not apply, and none raises."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import simulate
from experiments.cell import Cell
from fpsim.formats import format
from theory.rounding_model import _check_set
from theory.theorems import theorem, theorems

UNSIGNED = ["float8_e8m0fnu", "p3109_k8p3ue", "p3109_k8p4uf"]


@pytest.mark.parametrize("name", UNSIGNED)
@pytest.mark.parametrize("slots", ["v*", "update.*", "*"])
def test_formats_without_a_sign_or_a_zero(name: str, slots: str) -> None:
    with pytest.raises(ValueError, match="a sign and a zero"):
        _check_set(format(name))
    cell = Cell(
        optimizer="adam", problem="quadratic", noise="none", sigma=0.0, batch=0, rounding="nearest_even",
        exponent_bits=8, mantissa_bits=7, overrides=((slots, name, ""), ("scalar.*", "binary32", "")),
        hyperparameters={"lr": 2.0**-6, "beta1": 0.5, "beta2": 0.75, "eps": 0.125}, dimension=2, seeds=2, seed=1,
        steps=8, window=1.0,
    )  # fmt: skip
    (window,) = simulate.windows([cell])
    for found in theorems().values():
        bound = found.evaluate(window)
        assert bound.reason.startswith("formats with a sign and a zero: ")
        assert f"in {format(name).name}" in bound.reason
        assert np.isnan(bound.upper)


def test_an_unsigned_constant_is_what_is_stored() -> None:
    """A scalar slot rounds once, before the run: its format may have no sign."""
    cell = Cell(
        optimizer="sgd", problem="quadratic", noise="none", sigma=0.0, batch=0, rounding="stochastic", exponent_bits=8,
        mantissa_bits=7, overrides=(("scalar.*", "float8_e8m0fnu", "nearest_even"),), hyperparameters={"lr": 2.0**-4},
        dimension=2, seeds=4, seed=1, steps=64, window=0.5,
    )  # fmt: skip
    (window,) = simulate.windows([cell])
    assert theorem("T8").evaluate(window).applicable
