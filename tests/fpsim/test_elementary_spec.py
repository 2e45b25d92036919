"""The exact results of the elementary functions, rounded in every mode, against MPFR."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest
from elementary_cases import to_odd, wide_sigmoid
from oracles import MODES, MPFR, assert_same, interesting, same

from experiments.selftest.arguments import KINDS, POWERS, UNARY, edges, hard, random_arguments
from fpsim import elementary, exact
from fpsim.codes import decode
from fpsim.formats import BINARY64
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic

BITS = 3
WAYS: list[tuple[Rounding, int]] = [(mode, 0) for mode in MODES] + [(Stochastic(BITS), word) for word in (0, 3, 6, 7)]
EIGHT = ["float8_e4m3fn", "float8_e5m2"]
WIDE = ["bfloat16", "binary16", "binary32", "binary64"]
FURTHEST = 2700.0  # exponentials beyond are beyond every format, and MPFR's exponents here end at 5000


def clamped(kind: str, operands: tuple[float, ...]) -> tuple[float, ...]:
    """An argument with the same roundings whose result MPFR can hold; a power is left out instead."""
    if kind in ("exp", "exp2", "expm1") and math.isfinite(operands[0]):
        return (min(max(operands[0], -FURTHEST), FURTHEST),)
    return operands


def within_reach(operands: tuple[float, ...]) -> bool:
    x, y = operands
    ordinary = x != 0 and math.isfinite(x) and math.isfinite(y)
    return not ordinary or abs(y * math.log2(abs(x))) < 4000


def check(fmt: Format, kind: str, cases: Iterable[tuple[float, ...]]) -> None:
    mpfr = MPFR(fmt, BITS)
    ours, theirs, labels = [], [], []
    for operands in cases:
        if kind == "pow" and not within_reach(operands):
            continue
        result = elementary.value(kind, operands)
        given = [mpfr.operand(x) for x in clamped(kind, operands)]
        for mode, word in WAYS:
            ours.append(exact.round_value(result, fmt, mode, word))
            theirs.append(mpfr(kind, given, mode, word))
            labels.append((kind, operands, mode, word))
    assert_same(ours, theirs, labels, fmt.name)


def all_values(fmt: Format) -> list[float]:
    values = decode(np.arange(1 << fmt.bits), fmt)
    return [*values[~np.isnan(values)].tolist(), math.nan]


@pytest.mark.parametrize("kind", [kind for kind in UNARY if kind != "sigmoid"])
@pytest.mark.parametrize("name", EIGHT)
def test_every_argument_of_eight_bits(name: str, kind: str) -> None:
    check(named(name), kind, itertools.product(all_values(named(name))))


@pytest.mark.parametrize("name", EIGHT)
def test_powers_of_eight_bits(name: str) -> None:
    rng = np.random.default_rng(8)
    check(named(name), "pow", [tuple(row) for row in rng.choice(all_values(named(name)), (1000, 2)).tolist()])


@pytest.mark.slow
@pytest.mark.parametrize("name", EIGHT)
def test_all_powers_of_eight_bits(name: str) -> None:
    check(named(name), "pow", list(itertools.product(all_values(named(name)), repeat=2))[::7])


@pytest.mark.parametrize("kind", [kind for kind in UNARY if kind != "sigmoid"])
@pytest.mark.parametrize("name", WIDE)
def test_wide_formats(name: str, kind: str) -> None:
    cases = [*interesting(named(name), 10, 3), *random_arguments(kind, 20, 4)[0].tolist()]
    check(named(name), kind, itertools.product(cases))


@pytest.mark.parametrize("name", WIDE)
def test_powers_of_wide_formats(name: str) -> None:
    x, y = random_arguments("pow", 150, 5)
    check(named(name), "pow", [*POWERS, *zip(x.tolist(), y.tolist(), strict=True)])


@pytest.mark.parametrize("name", [*EIGHT, *WIDE])
def test_sigmoid(name: str) -> None:
    """MPFR's value at 400 bits, moved by 2^-390 to either side, has one rounding: ours."""
    fmt = named(name)
    cases = all_values(fmt) if fmt.bits == 8 else interesting(fmt, 60, 3)
    for x in cases:
        if not 2.0**-150 < abs(x) < 100:
            continue
        near = Fraction(*map(int, wide_sigmoid(x).as_integer_ratio()))
        ends = [exact.Exact("finite", near * (1 + sign * Fraction(1, 1 << 390))) for sign in (-1, 1)]
        for mode, word in WAYS:
            low, high = (exact.round_value(end, fmt, mode, word) for end in ends)
            assert low == high == exact.operation("sigmoid", (x,), fmt, mode, word), (x, mode, word)


@pytest.mark.parametrize("kind", UNARY)
def test_edges_and_hard_cases_to_odd(kind: str) -> None:
    for x in edges() + hard(kind):
        ours = exact.operation(kind, (x,), BINARY64, "to_odd")
        assert same(ours, to_odd(kind, (x,))), (kind, x, ours)


def test_powers_to_odd() -> None:
    for operands in POWERS:
        ours = exact.operation("pow", operands, BINARY64, "to_odd")
        assert same(ours, to_odd("pow", operands)), (operands, ours)


@pytest.mark.parametrize(
    ("kind", "operands", "magnitude"),
    [
        ("exp", (0.0,), 1),
        ("exp2", (-1074.0,), Fraction(1, 1 << 1074)),
        ("log2", (2.0**-1074,), 1074),
        ("sigmoid", (0.0,), Fraction(1, 2)),
        ("cos", (-0.0,), 1),
        ("pow", (2.25, 2.5), Fraction(243, 32)),
        ("pow", (3.0, 40.0), 3**40),
        ("pow", (2.0**-1074, 2.0**-1), Fraction(1, 1 << 537)),
        ("pow", (1.0 + 2.0**-52, 3.0), (1 + Fraction(1, 1 << 52)) ** 3),
    ],
)
def test_rational_results_are_exact(kind: str, operands: tuple[float, ...], magnitude: Fraction) -> None:
    assert elementary.value(kind, operands).magnitude == magnitude


@pytest.mark.parametrize("kind", KINDS)
def test_irrational_results_have_more_than_200_bits_and_are_odd(kind: str) -> None:
    operands = (0.3, 0.7)[: 2 if kind == "pow" else 1]
    numerator = elementary.value(kind, operands).magnitude.numerator
    assert numerator.bit_length() > 200
    assert numerator % 2 == 1


def test_what_stands_for_extremes() -> None:
    assert elementary.value("exp", (1e300,)) == elementary.value("pow", (2.0, 1e300)) == elementary.HUGE
    assert elementary.value("sigmoid", (-1e300,)) == elementary.value("exp2", (-1e300,)) == elementary.TINY
    assert elementary.value("tanh", (-1e300,)) == exact.Exact("finite", elementary.BELOW_ONE.magnitude, True)
    assert elementary.value("pow", (-3.0, 1e15 + 1)) == exact.Exact("finite", elementary.HUGE.magnitude, True)


@pytest.mark.parametrize("y", [1.0, 3.0, 2.0**53 - 1, 2.0, 2.0**53, 1 - 2.0**-53, 1 + 2.0**-52, 0.5, 1e300])
def test_only_an_odd_power_of_a_negative_zero_or_infinity_is_negative(y: float) -> None:
    """1 - 2^-53 is not odd, though -y % 2 is 1 in floating point."""
    odd = y in (1.0, 3.0, 2.0**53 - 1)
    for x, power, kind in (
        (-0.0, -y, "infinite"),
        (-math.inf, y, "infinite"),
        (-0.0, y, "finite"),
        (-math.inf, -y, "finite"),
    ):
        assert elementary.value("pow", (x, power)) == exact.Exact(kind, negative=odd)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"gamma.*admissible: exp"):
        elementary.value("gamma", (1.0,))


def test_threads_do_not_disturb_one_another() -> None:
    arguments = [*random_arguments("exp", 60, 9)[0].tolist(), 1e-200, 2.0**-700]
    expected = [elementary.value("log1p", (abs(x),)) for x in arguments]
    found: list[list[exact.Exact]] = []
    threads = [
        threading.Thread(target=lambda: found.append([elementary.value("log1p", (abs(x),)) for x in arguments]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3
