"""Names and codes of the rounding modes."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import MODES

from fpsim import rounding
from fpsim.rounding import Stochastic


def test_codes_are_frozen() -> None:
    """Compiled kernels and their caches depend on them."""
    assert [rounding.code(mode) for mode in MODES] == [0, 1, 2, 3, 4, 5]
    assert rounding.code("stochastic") == rounding.code(Stochastic(3)) == rounding.STOCHASTIC_CODES["A"] == 6
    assert tuple(rounding.CODES) == MODES


def test_parse() -> None:
    assert rounding.parse("stochastic") == Stochastic(bits=16)
    assert rounding.parse(Stochastic(5)) == Stochastic(5)
    assert [rounding.parse(mode) for mode in MODES] == list(MODES)
    assert [rounding.random_bits(mode) for mode in (*MODES, Stochastic(9))] == [0] * 6 + [9]
    assert [mode for mode in MODES if rounding.is_nearest(mode)] == ["nearest_even", "nearest_away"]
    assert str(Stochastic(7)) == "stochastic7"


@pytest.mark.parametrize("name", ["nearest", "RNE", "", 3, None, ["up"]])
def test_unknown_modes_raise(name: object) -> None:
    with pytest.raises(ValueError, match=r"admissible: nearest_even, .*Stochastic\(bits=1\.\.32\)"):
        rounding.parse(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [0, 33, -1, 2.0, True, "16"])
def test_bad_numbers_of_bits_raise(bits: object) -> None:
    with pytest.raises(ValueError, match=r"is outside 1\.\.32"):
        Stochastic(bits)  # type: ignore[arg-type]


def test_bad_variants_raise() -> None:
    for variant in ("D", ["A"], None):
        with pytest.raises(ValueError, match=r"variant=.*; admissible: 'A', 'B', 'C'"):
            Stochastic(8, variant=variant)  # type: ignore[arg-type]


def test_numpy_integers_count_random_bits() -> None:
    assert repr(Stochastic(np.int64(8))) == repr(Stochastic(8))
