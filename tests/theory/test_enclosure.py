"""Ball arithmetic on SymPy expressions: ends are outward, undefined is not a number, the quadratic's root is above."""

from __future__ import annotations

import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import pytest
import sympy as sp

from theory.enclosure import ball, enclose, ends, evaluate, largest_root

x, y = sp.symbols("x y", positive=True)


def test_a_third_lies_strictly_between_the_ends() -> None:
    low, high = enclose(x / 3, {x: 1})
    assert Fraction(low) < Fraction(1, 3) < Fraction(high)
    assert high == math.nextafter(low, 1.0)


@hypothesis.given(st.fractions(min_value=0, max_value=1000), st.integers(1, 40))
@hypothesis.settings(derandomize=True, max_examples=200, deadline=None)
def test_rational_functions_are_enclosed(a: Fraction, n: int) -> None:
    exact = (a + Fraction(1, n)) ** 3 / (1 + a * a) - a
    low, high = enclose((x + y) ** 3 / (1 + x**2) - x, {x: a, y: Fraction(1, n)})
    assert Fraction(low) <= exact <= Fraction(high)
    assert math.nextafter(low, math.inf) >= high or low == high or exact != 0


def test_roots_exponentials_and_extremes() -> None:
    low, high = enclose(sp.sqrt(x) + sp.exp(-x) + sp.log(y) + sp.Max(x, y) - sp.Min(x, y) + sp.Abs(-x), {x: 2, y: 5})
    exact = math.sqrt(2) + math.exp(-2) + math.log(5) + 5
    assert low <= exact <= high or abs(low - exact) < 1e-14
    assert high - low < 1e-14


def test_infinite_inputs_and_ends() -> None:
    assert ends(ball(math.inf))[1] == math.inf
    assert enclose(1 / x, {x: 0}) == (-math.inf, math.inf)


def test_a_float_inside_a_formula_is_refused() -> None:
    with pytest.raises(ValueError, match="decimal float"):
        evaluate(x * sp.Float(0.1), {x: 1})


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match="no value for symbol y"):
        evaluate(x + y, {x: 1})


@hypothesis.given(*(st.fractions(min_value=Fraction(1, 100), max_value=100),) * 3)
@hypothesis.settings(derandomize=True, max_examples=200, deadline=None)
def test_largest_root_solves_the_inequality(a: Fraction, b: Fraction, c: Fraction) -> None:
    low, high = (Fraction(end) for end in ends(largest_root(a, b, c)))
    assert a * low**2 <= b * low + c
    assert a * high**2 >= b * high + c


def test_largest_root_needs_a_leading_coefficient() -> None:
    with pytest.raises(ValueError, match="not certainly positive"):
        largest_root(0, 1, 1)
    with pytest.raises(ValueError, match=r"admissible: \[0, inf\)"):
        largest_root(1, 1, -1)
    assert ends(largest_root(1, 0, 0)) == (0.0, 0.0)
