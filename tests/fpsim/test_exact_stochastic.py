"""Stochastic rounding by enumerating all random words: exact counts, no statistics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import gfloat
import numpy as np
import pytest
from gfloat.types import RoundMode
from oracles import gfloat_info

from fpsim import arrays, exact
from fpsim.codes import decode
from fpsim.formats import format as named
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import Stochastic

NAMES = ["float8_e4m3fn", "float8_e4m3fnuz", "p3109_k8p4se", "float4_e2m1fn"]
NAMES += ["p3109_k6p1se", "p3109_k6p3ue", "float8_e8m0fnu"]
# P(away) 2^n as a function of nu 2^n; a Fraction rounds to even.
COUNTS: dict[str, Callable[[Fraction], int]] = {
    "A": math.floor,
    "B": lambda share: math.floor(share + Fraction(1, 2)),
    "C": round,
}
GFLOAT = {"A": RoundMode.StochasticFastest, "B": RoundMode.StochasticFast, "C": RoundMode.Stochastic}


def neighbours(name: str) -> list[tuple[Fraction, Fraction]]:
    values = decode(np.arange(1 << (named(name).bits - named(name).signed)), name)
    finite = [Fraction(x) for x in np.unique(values[np.isfinite(values)]).tolist()]
    pairs = list(itertools.pairwise(finite))
    return pairs[:: max(1, len(pairs) // 4)] + pairs[-1:]


@pytest.mark.parametrize("variant", ["A", "B", "C"])
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_counts_over_all_words(name: str, bits: int, variant: str) -> None:
    """P(away) is exactly the documented one; the result is a neighbour and monotone in the word.

    nu runs over all multiples of 2^-(n+2), where B and C have ties, and points beside them.
    """
    fmt, mode = named(name), Stochastic(bits, variant)
    parts, beside = 4 << bits, Fraction(1, 1 << 80)
    for low, high in neighbours(name):
        for numerator, shift in itertools.product(range(parts), (0, 1, -1)):
            nu = Fraction(numerator, parts) + shift * beside
            if not 0 < nu < 1:
                continue
            value = exact.Exact("finite", low + nu * (high - low), fmt.signed and numerator % 2 == 1)
            results = [abs(exact.round_value(value, fmt, mode, word)) for word in range(1 << bits)]
            assert sorted(results) == results
            assert set(results) <= {float(low), float(high)}
            assert results.count(float(high)) == COUNTS[variant](nu * (1 << bits))


@pytest.mark.parametrize("variant", ["A", "B", "C"])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "p3109_k8p3se", "p3109_k6p1se", "p3109_k6p3ue", "float8_e8m0fnu"])
def test_every_word_against_gfloat(name: str, variant: str) -> None:
    """64 fractions of a gap, all words of 1 to 4 bits: equal results, not only equal counts."""
    fmt = named(name)
    info = gfloat_info(fmt)
    for low, high in neighbours(name)[1::3]:
        for k in range(64):
            x = float(low + (high - low) * k / 64)
            for bits in range(1, 5):
                for word in range(1 << bits):
                    theirs = gfloat.round_float(info, x, GFLOAT[variant], srbits=word, srnumbits=bits)
                    assert exact.operation("round", (x,), fmt, Stochastic(bits, variant), word) == theirs


@pytest.mark.parametrize("variant", ["B", "C"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_kernels_take_the_documented_share(bits: int, variant: str) -> None:
    """Array functions, each element with the word that its index draws: the same results as the specification's."""
    mode, fmt = Stochastic(bits, variant), named("bfloat16")
    nu = np.arange(4 << bits) / (4 << bits)
    for x in (1 + nu * fmt.eps, -8 * (1 + nu * fmt.eps), (1 + nu) * fmt.smallest_subnormal):
        many = np.repeat(x, 64 if bits < 8 else 4)
        words = [int(word) for word in array_draw(Key(4), np.arange(many.size), bits)]
        assert len(set(words)) == 1 << bits or bits == 8
        expected = [exact.operation("round", (float(v),), fmt, mode, w) for v, w in zip(many, words, strict=True)]
        assert arrays.round(many, fmt, mode, Key(4)).tolist() == expected


@pytest.mark.parametrize("bits", [1, 16, 32])
@pytest.mark.parametrize("name", [*NAMES, "p3109_k5p1se"])
def test_values_never_move(name: str, bits: int) -> None:
    fmt, modes = named(name), [Stochastic(bits, variant) for variant in "ABC"]
    for x in decode(np.arange(1 << fmt.bits), fmt).tolist():
        for mode, word in itertools.product(modes, (0, 1, (1 << bits) - 1)):
            result = exact.operation("round", (x,), fmt, mode, word)
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
