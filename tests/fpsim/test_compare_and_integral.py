"""Comparison, and rounding to the integers of a format: specification and array functions."""

from __future__ import annotations

import math
import operator
from fractions import Fraction

import gmpy2
import numpy as np
import pytest
import torch
from kernel_cases import KEY, bits
from oracles import assert_same

from experiments.selftest.cases import special
from fpsim import exact, exact_operations, more_arrays
from fpsim.cpu.format_table import fast
from fpsim.formats import BINARY64
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.random_bits import array_draw
from fpsim.rounding import CODES, Rounding, Stochastic, random_bits

MODES: list[Rounding] = [*CODES, Stochastic(3), Stochastic(5, "B"), Stochastic(4, "C"), Stochastic(32)]
FEW: list[Rounding] = ["nearest_even", "down", Stochastic(5, "B")]  # where each mode is one more kernel to compile


def test_exactly_one_relation_holds() -> None:
    values = special(named("e5m2"))
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    got = more_arrays.compare(a, b)
    assert got.dtype == np.float64
    holds = {-1.0: operator.lt, 0.0: operator.eq, 1.0: operator.gt}
    for u, v, relation in zip(a, b, got, strict=True):
        assert [key for key, test in holds.items() if test(u, v)] == ([] if relation != relation else [relation])
        assert bits(relation) == bits(exact_operations.compare(float(u), float(v)))
        if u == u and v == v and math.isfinite(u) and math.isfinite(v):
            assert relation == (Fraction(u) > Fraction(v)) - (Fraction(u) < Fraction(v))


def test_comparisons_across_dtypes_are_exact() -> None:
    compare = more_arrays.compare
    tenth = np.array([0.1], dtype=np.float32)
    assert compare(tenth, np.array([0.1]))[0] == 1.0  # NumPy would agree, and say equal if 0.1 were a Python number
    assert compare(tenth, 0.1)[0] == 1.0
    assert compare(np.int64(2**53), np.float32(2.0**53)) == 0.0
    assert compare(np.int64(2**53 - 1), np.float32(2.0**53)) == -1.0
    with pytest.raises(ValueError, match=r"reaches 9007199254740993; admissible: magnitudes up to 2\^53"):
        compare(np.int64(2**53 + 1), 1.0)
    with pytest.raises(ValueError, match="admissible: float16"):
        compare(np.array([1j]), 1.0)
    with pytest.raises(ValueError, match="broadcast"):
        compare(np.zeros(3), np.zeros(2))
    mixed = compare(torch.tensor([1.0, float("nan"), -3.0], dtype=torch.bfloat16), np.array([0.5, 0.0, -2.0]))
    assert isinstance(mixed, torch.Tensor) and mixed.dtype == torch.float64
    assert (bits(mixed.numpy()) == bits([1.0, np.nan, -1.0])).all()
    assert compare(np.zeros((2, 1)), np.ones(3)).shape == (2, 3)
    assert compare(np.zeros(0), 1.0).shape == (0,)


INTEGRAL = [
    named("e3m2"),
    named("float4_e2m1fn"),
    Format(2, 2, specials="fnuz", overflow="nan"),
    Format(3, 1, specials="p3109_extended", overflow="saturate"),
    Format(2, 2, subnormals=False, overflow="saturate"),
    Format(3, 1, tiny="flush", overflow="saturate_all"),
    Format(3, 0, specials="fn", overflow="nan"),
    named("float8_e4m3fn"),
    named("bfloat16"),
    named("binary16"),
    named("e8m23"),
    BINARY64,
    Format(3, 4, bias=-1, subnormals=False),  # 4 is the smallest normal number
    Format(3, 4, bias=-1, tiny="flush"),
    Format(2, 2, bias=-5),  # all numbers are integers
    Format(2, 3, bias=9),  # none but zero is
    Format(3, 6, bias=5, specials="none", overflow="saturate"),
]


def integral_cases(fmt: Format) -> list[float]:
    """Halves, quarters and their neighbours around all that matters."""
    generator = np.random.default_rng(14)
    top = min(2.0 ** (fmt.mantissa_bits + 2), 1e6)
    random = generator.uniform(-1, 1, 60) * top
    halves = np.concatenate([np.arange(-6, 6.25, 0.25), np.floor(random), np.floor(random) + 0.5, random])
    values = [*halves, 0.5 * fmt.max, *special(fmt), 2.0**fmt.mantissa_bits - 0.5, 2.0**fmt.mantissa_bits + 0.5]
    values += [math.nextafter(v, s * math.inf) for v in halves[::3] for s in (-1.0, 1.0)]
    return list(map(float, values))


@pytest.mark.parametrize("fmt", INTEGRAL, ids=lambda f: f.name)
def test_rounding_to_an_integer_of_the_format(fmt: Format) -> None:
    cases = integral_cases(fmt)
    for mode in MODES if fast(fmt, 32) else FEW:
        n = random_bits(mode)
        words = [int(r) for r in array_draw(KEY, np.arange(len(cases)), n)] if n else [None] * len(cases)
        got = more_arrays.round_to_integral(np.array(cases), fmt, mode, KEY if n else None)
        spec = [exact_operations.round_to_integral(x, fmt, mode, w) for x, w in zip(cases, words, strict=True)]
        assert_same(got, spec, cases, mode)
        # The definition once more: quantum max(1, spacing).
        expected = [clamped(x, fmt, mode, w) for x, w in zip(cases, words, strict=True)]
        assert_same(spec, expected, cases, mode)


def clamped(x: float, fmt: Format, mode: Rounding, word: int | None) -> float:
    """The specification's own rounding with its quantum held at 1 or more."""
    spacing = exact.quantum
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "quantum", lambda magnitude, fmt: max(Fraction(1), spacing(magnitude, fmt)))
        return exact.operation("round", (x,), fmt, mode, word)


def test_rounding_to_an_integer_is_mpfrs() -> None:
    """In a format that has all the integers in question."""
    generator = np.random.default_rng(15)
    cases = [
        *np.arange(-8, 8.125, 0.125),
        *(generator.standard_normal(2000) * 2.0 ** generator.integers(-60, 60, 2000)),
    ]
    cases += [math.nextafter(k + 0.5, s * math.inf) for k in range(-5, 5) for s in (-1.0, 1.0)]
    cases = [*map(float, cases), -0.0, 2.0**52 - 0.5, 2.0**52 + 1, math.inf, -math.inf]
    for mode, theirs in (
        ("nearest_even", gmpy2.rint),
        ("nearest_away", gmpy2.rint_round),
        ("toward_zero", gmpy2.rint_trunc),
        ("up", gmpy2.rint_ceil),
        ("down", gmpy2.rint_floor),
    ):
        expected = [float(theirs(gmpy2.mpfr(x, 53))) for x in cases]
        assert_same(more_arrays.round_to_integral(cases, "binary64", mode), expected, cases, mode)
    assert_same(more_arrays.round_to_integral(cases, "binary64"), np.rint(cases), cases)


def test_rounding_to_an_integer_keeps_dtype_and_sign() -> None:
    x = np.array([-0.4, 2.5, 70000.0, np.nan], dtype=np.float32)
    got = more_arrays.round_to_integral(x, "binary16")
    assert got.dtype == np.float32 and (bits(got) == bits([-0.0, 2.0, np.inf, np.nan])).all()
    tensor = more_arrays.round_to_integral(torch.tensor([-0.4, 2.5], dtype=torch.bfloat16), "bfloat16", "up")
    assert tensor.dtype == torch.bfloat16 and tensor.tolist() == [-0.0, 3.0]
    assert more_arrays.round_to_integral(np.float64(7), "float4_e2m1fn") == 6.0  # the format saturates
    assert more_arrays.round_to_integral(0.3, "e3m2", "up") == 1.0
    out = np.empty(2)
    assert more_arrays.round_to_integral([0.75, 1e9], "binary16", "toward_zero", out=out) is out
    assert out.tolist() == [0.0, 65504.0]
    with pytest.raises(ValueError, match="needs a Key"):
        more_arrays.round_to_integral([0.5], "binary16", "stochastic")
    with pytest.raises(ValueError, match="cannot hold the format"):
        more_arrays.round_to_integral(np.zeros(2, dtype=np.float16), "bfloat16")
    with pytest.raises(ValueError, match="out has shape"):
        more_arrays.round_to_integral([0.5], "binary16", out=np.empty(3))
