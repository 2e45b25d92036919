"""Formats without a sign or a zero, and those whose parity is of codes, as slots of a program."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from fpsim import arrays, decode, encode, exact, exact_run, run
from fpsim.formats import format as named
from fpsim.optim.adam import adam
from fpsim.optim.rmsprop import rmsprop
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import CODES, Stochastic

KEY = Key(6)


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)


def check(program: Program, precision: Precision, names: tuple[str, ...]) -> dict[str, npt.NDArray[np.float64]]:
    generator = np.random.default_rng(3)
    start = {name: np.full((3, 2), 0.25) for name in names}
    given = {"g": generator.standard_normal((6, 3, 2))}
    expected, _ = exact_run.run(program, start, given, precision, KEY, steps=6, runs=range(2))
    got = run(program, start, given, precision, KEY, steps=6, runs=range(2)).state
    for name in names:
        assert (bits(got[name]) == bits(expected[name])).all(), name
    return expected


@pytest.mark.parametrize("name", ["p3109_k8p3uf", "p3109_k8p3ue", "p3109_k8p1uf", "float8_e8m0fnu"])
@pytest.mark.parametrize("mode", ["nearest_even", "to_odd", "down", Stochastic(8, "B")], ids=str)
def test_a_second_moment_without_a_sign(name: str, mode: str | Stochastic) -> None:
    """The slots that compute and hold v are never negative: unsigned formats spend no bit on it."""
    precision = Precision.uniform("bfloat16", mode).replace({"v*": (name, mode)})
    state = check(rmsprop.bind(eps=1e-3), precision, ("w", "v"))
    assert (state["v"] >= named(name).lowest).all()
    assert np.isfinite(state["w"]).all()


@pytest.mark.parametrize("name", ["p3109_k8p1se", "p3109_k8p4se", "p3109_k8p4ue", "float8_e8m0fnu"])
@pytest.mark.parametrize("mode", [*CODES, Stochastic(5, "C")], ids=str)
def test_adam_with_every_operation_in_a_rare_format(name: str, mode: str | Stochastic) -> None:
    """Unsigned formats make NaN of the first negative gradient, in the machine as in the specification."""
    check(adam, Precision.uniform(name, mode), ("w", "m", "v"))


@pytest.mark.parametrize("name", ["p3109_k6p1se", "p3109_k6p3ue", "p3109_k6p1uf", "float8_e8m0fnu"])
def test_values_of_a_format_are_fixed_points(name: str) -> None:
    fmt = named(name)
    values = decode(np.arange(1 << fmt.bits), fmt)
    for mode in [*CODES, *(Stochastic(3, variant) for variant in "ABC")]:
        rounded = arrays.round(values, fmt, mode, KEY)
        assert (bits(rounded) == bits(values)).all()
        assert encode(rounded, fmt).tolist() == encode(values, fmt).tolist()


def test_declared_operands_of_unsigned_formats_are_checked() -> None:
    fmt = named("p3109_k8p4ue")
    assert arrays.add([1.0, 2.5], [3.0, 0.0], fmt, operands=fmt).tolist() == [4.0, 2.5]
    for bad in (-1.0, 0.3):
        with pytest.raises(ValueError, match=f"operand 0 holds {bad}"):
            arrays.add([1.0, bad], [3.0, 0.0], fmt, operands=fmt)
    with pytest.raises(ValueError, match=r"operand 1 holds 0\.0"):
        arrays.mul([1.0], [0.0], "bfloat16", operands=(None, "float8_e8m0fnu"))


def test_scalars_obey_the_rules_of_the_format() -> None:
    """beta2 = 0.9, 1 - beta2 and eps in a format without a zero, and in one whose ties go by code."""
    for name, mode in itertools.product(("float8_e8m0fnu", "p3109_k8p1se", "p3109_k8p4ue"), ("nearest_even", "up")):
        precision = Precision.uniform("binary64").replace({"scalar.*": (name, mode)})
        check(rmsprop.bind(eps=0.0), precision, ("w", "v"))
    one_and_a_half = exact.operation("round", (0.75,), named("p3109_k8p1se"), "nearest_even")
    assert one_and_a_half in (0.5, 1.0)
    assert math.isnan(exact.operation("round", (-0.75,), named("p3109_k8p1ue"), "nearest_even"))
