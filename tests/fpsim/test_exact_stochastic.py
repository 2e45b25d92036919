"""Stochastic rounding by enumerating all random words: exact counts, no statistics."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from fpsim import exact
from fpsim.codes import decode
from fpsim.formats import format as named
from fpsim.rounding import Stochastic

NAMES = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "p3109_k8p4se", "float4_e2m1fn", "e2m1"]


def neighbours(name: str) -> list[tuple[Fraction, Fraction]]:
    values = decode(np.arange(1 << (named(name).bits - 1)), name)
    finite = [Fraction(x) for x in np.unique(values[np.isfinite(values)]).tolist()]
    pairs = list(itertools.pairwise(finite))
    return pairs[:: max(1, len(pairs) // 12)] + pairs[-1:]


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_counts_over_all_words(name: str, bits: int) -> None:
    """P(away) = floor(nu 2^n) / 2^n exactly; the result is a neighbour and monotone in the word."""
    fmt, mode = named(name), Stochastic(bits)
    for low, high in neighbours(name):
        for numerator in range(1, 64):
            nu = Fraction(numerator, 64) + (Fraction(1, 1 << 80) if numerator % 3 == 0 else 0)
            if nu >= 1:
                continue
            for negative in (False, True):
                value = exact.Exact("finite", low + nu * (high - low), negative)
                results = [abs(exact.round_value(value, fmt, mode, word)) for word in range(1 << bits)]
                assert sorted(results) == results
                assert set(results) <= {float(low), float(high)}
                assert results.count(float(high)) == math.floor(nu * (1 << bits))


@pytest.mark.parametrize("bits", [1, 16, 32])
@pytest.mark.parametrize("name", [*NAMES, "p3109_k5p1se"])
def test_values_never_move(name: str, bits: int) -> None:
    fmt = named(name)
    for x in decode(np.arange(1 << fmt.bits), fmt).tolist():
        for word in (0, 1, (1 << bits) - 1):
            result = exact.operation("round", (x,), fmt, Stochastic(bits), word)
            assert (
                math.isnan(result) if math.isnan(x) else (result, math.copysign(1, result)) == (x, math.copysign(1, x))
            )


def test_many_bits() -> None:
    """With 32 bits the fraction below 2^-32 is cut off, not rounded."""
    fmt = named("bfloat16")
    just_one = exact.Exact("finite", 1 + Fraction(1, 1 << 39))  # nu = 2^-32: one word of 2^32
    assert exact.round_value(just_one, fmt, Stochastic(32), (1 << 32) - 1) == 1 + fmt.eps
    assert exact.round_value(just_one, fmt, Stochastic(32), (1 << 32) - 2) == 1.0
    less = exact.Exact("finite", 1 + Fraction((1 << 20) - 1, 1 << 59))
    assert exact.round_value(less, fmt, Stochastic(32), (1 << 32) - 1) == 1.0


def test_overflow_is_decided_after_rounding() -> None:
    fmt = named("float8_e4m3fn")  # 448, and 480 would follow
    results = [exact.operation("round", (464.0,), fmt, Stochastic(2), word) for word in range(4)]
    assert results[:2] == [448.0, 448.0]
    assert all(math.isnan(x) for x in results[2:])
    assert exact.operation("round", (455.9,), fmt, Stochastic(2), 3) == 448.0  # nu < 1/4


@pytest.mark.parametrize("word", [None, -1, 16])
def test_a_word_outside_its_interval_raises(word: int | None) -> None:
    with pytest.raises(ValueError, match=r"is outside 0\.\.2\^4-1"):
        exact.operation("round", (1.1,), named("e4m3"), Stochastic(4), word)
