"""The elementary functions on arrays: compiled kernels against MPFR and the specification, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from elementary_cases import to_odd
from kernel_cases import KEY, bits, rare_formats, small_formats
from oracles import bits as patterns

from experiments.selftest.arguments import KINDS, POWERS, UNARY, edges, hard, random_arguments
from fpsim import elementary, elementary_arrays, exact
from fpsim.codes import decode
from fpsim.cpu import elementary_constants, elementary_table, jit
from fpsim.cpu.elementary_circle import sine_pair
from fpsim.cpu.elementary_erf import erf_pair
from fpsim.cpu.elementary_exponential import EXP_ERROR, exp_pair, expm1_pair
from fpsim.cpu.elementary_logarithm import log_pair
from fpsim.cpu.elementary_power import _log_pair as fine_log_pair
from fpsim.formats import format as named
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import CODES, Rounding, Stochastic, random_bits

Floats = npt.NDArray[np.float64]
MODES: list[Rounding] = [*CODES, Stochastic(3), Stochastic(16, "B"), Stochastic(8, "C")]


def assert_to_odd(kind: str, columns: tuple[Floats, ...]) -> None:
    ours = elementary_table.compute(kind, *columns)
    theirs = [to_odd(kind, case) for case in zip(*(column.tolist() for column in columns), strict=True)]
    wrong = np.flatnonzero(patterns(ours) != patterns(theirs))
    shown = [([float(c[i]).hex() for c in columns], float(ours[i]).hex(), theirs[i].hex()) for i in wrong[:3]]
    assert not len(wrong), f"{kind}: {len(wrong)} of {len(ours)} wrong, {shown}"


@pytest.mark.parametrize("kind", KINDS)
def test_random_arguments_to_odd(kind: str) -> None:
    assert_to_odd(kind, random_arguments(kind, 20_000, 1))


@pytest.mark.parametrize("kind", UNARY)
def test_edges_and_hard_cases_to_odd(kind: str) -> None:
    assert_to_odd(kind, (np.array(edges() + hard(kind)),))


def test_hard_powers_to_odd() -> None:
    columns = np.array(POWERS).T
    assert_to_odd("pow", (columns[0].copy(), columns[1].copy()))


@pytest.mark.parametrize("kind", UNARY)
def test_neighbours_of_the_borders_between_recipes(kind: str) -> None:
    """Where a kernel changes its recipe, or a table its row: hundreds of numbers to either side."""
    borders = [2.0**e for e in (-54, -27, -26, -10, -9, -8, -7, 0)] + [
        0.6875,
        1.375,
        20.0,
        38.0,
        6.0,
        620.0,
        707.0,
        709.0,
    ]
    borders += [(j + 0.5) / 128 for j in range(0, 700, 50)] + [(j + 0.5) * math.log(2) / 512 for j in range(0, 600, 60)]
    borders += [(j + 0.5) * math.pi / 512 for j in range(0, 1024, 128)] + [1.0 + j / 512 for j in range(0, 190, 30)]
    centres = bits(borders).astype(np.int64)
    near = (centres[:, None] + np.arange(-40, 41)).reshape(-1).view(np.float64)
    assert_to_odd(kind, (np.concatenate([near, -near]),))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_arguments_to_odd(kind: str) -> None:
    assert_to_odd(kind, random_arguments(kind, 500_000, 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNARY)
@pytest.mark.parametrize("name", ["bfloat16", "binary16"])
def test_every_argument_of_sixteen_bits(name: str, kind: str) -> None:
    assert_to_odd(kind, (decode(np.arange(1 << 16), named(name)),))


def expected(kind: str, columns: tuple[Floats, ...], fmt: str, mode: Rounding) -> list[float]:
    n = random_bits(mode)
    count = len(columns[0])
    words = array_draw(KEY, np.arange(count), n).tolist() if n else [None] * count
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [exact.operation(kind, row, named(fmt), mode, word) for row, word in zip(rows, words, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "binary16", "binary32", "binary64"])
def test_every_mode_equals_the_specification(name: str, kind: str) -> None:
    columns = tuple(
        np.concatenate([x, [0.0, -0.0, math.inf, -math.inf, math.nan]]) for x in random_arguments(kind, 25, 6)
    )
    for mode in MODES:
        got = getattr(elementary_arrays, kind)(
            *columns, name, mode, KEY if random_bits(mode) else None, dtype=np.float64
        )
        wanted = expected(kind, columns, name, mode)
        assert (patterns(got) == patterns(wanted)).all(), (
            mode,
            [float(x) for x in columns[0][patterns(got) != patterns(wanted)]],
        )


@pytest.mark.parametrize("kind", KINDS)
def test_formats_out_of_the_ordinary(kind: str) -> None:
    """Unsigned, saturating, with ties by code, without subnormals or a zero."""
    x = random_arguments(kind, 8, 10)
    columns = tuple(np.concatenate([column, [0.0, -0.0, math.inf, -math.inf, 1e300, -1e300, 1.0]]) for column in x)
    values = [elementary.value(kind, row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    for fmt in [*small_formats(5)[::7], *rare_formats(5)[::9]]:
        for mode in ("nearest_even", "up", "down", "to_odd"):
            got = getattr(elementary_arrays, kind)(*columns, fmt, mode, dtype=np.float64)
            wanted = [exact.round_value(value, fmt, mode) for value in values]
            assert (patterns(got) == patterns(wanted)).all(), (fmt, mode)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_all_of_eight_bits_in_one_call(name: str) -> None:
    x = decode(np.arange(256), named(name))
    for kind in UNARY:
        got = getattr(elementary_arrays, kind)(x, name, "nearest_even")
        assert (patterns(got) == patterns(expected(kind, (x,), name, "nearest_even"))).all(), kind


def test_chunks_and_random_bits() -> None:
    """Element e of a long array is rounded with draw e, whatever the chunk it lies in."""
    x = random_arguments("exp", 70_000, 7)[0]
    mode = Stochastic(16)
    got = elementary_arrays.tanh(x, "bfloat16", mode, KEY)
    where = np.array([0, 511, 512, 32767, 32768, 40000, 65535, 65536, 69999])
    words = array_draw(KEY, where, 16).tolist()
    wanted = [
        exact.operation("tanh", (float(x[i]),), named("bfloat16"), mode, w) for i, w in zip(where, words, strict=True)
    ]
    assert (bits(got[where]) == bits(wanted)).all()


def test_float32_scalars_and_broadcasting() -> None:
    x = np.array([[0.5], [2.0]], dtype=np.float32)
    got = elementary_arrays.pow(x, np.array([2.0, 0.5, -1.0], dtype=np.float32), "bfloat16")
    assert got.dtype == np.float32
    assert got.shape == (2, 3)
    assert got[1].tolist() == [4.0, 1.4140625, 0.5]
    assert float(elementary_arrays.exp(0, "binary16")) == 1.0
    with pytest.raises(ValueError, match="key=None"):
        elementary_arrays.sin(x, "bfloat16", Stochastic(4))
    assert elementary_arrays.sin(x, "bfloat16", Stochastic(4), Key(1)).shape == (2, 1)


def test_few_elements_are_left_to_the_specification() -> None:
    """Ordinary arguments: less than one in 2000, as the error bounds promise."""
    rng = np.random.default_rng(3)
    for kind in KINDS:
        x = rng.standard_normal(100_000) * 3.0
        columns = (np.abs(x), rng.standard_normal(100_000)) if kind == "pow" else (np.abs(x) if "log" in kind else x,)
        table, left = elementary_table.TABLES[kind](), np.empty(100_000, dtype=np.int64)
        count, _ = elementary_table.KERNELS[kind](*columns, table, np.empty(100_000), left)
        assert count <= 50, (kind, count)


# The bounds that the kernels rest on: proven in their docstrings, tried here on random and on extreme arguments.


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jit.kernel(function)


def true(kind: str, *operands: float) -> Fraction:
    result = elementary.value(kind, operands)
    return -result.magnitude if result.negative else result.magnitude


@_compiled
def _exp(x, table):  # type: ignore[no-untyped-def]
    return exp_pair(x, 0.0, table)


@_compiled
def _expm1(x, table):  # type: ignore[no-untyped-def]
    return expm1_pair(x, table)


@_compiled
def _log(x, table):  # type: ignore[no-untyped-def]
    return log_pair(x, 0.0, table)


@_compiled
def _fine_log(x, table):  # type: ignore[no-untyped-def]
    return fine_log_pair(x, table)


@_compiled
def _circle(x, turn, table):  # type: ignore[no-untyped-def]
    return sine_pair(x, turn, table)


@_compiled
def _erf(x, table):  # type: ignore[no-untyped-def]
    return erf_pair(x, table)


def sizes(low: float, high: float, seed: int, count: int = 1500) -> list[float]:
    return np.exp2(np.random.default_rng(seed).uniform(math.log2(low), math.log2(high), count)).tolist()


def test_the_bound_of_exp() -> None:
    table = elementary_constants.exponential()
    for x in [
        *sizes(2.0**-54, 709.0, 1),
        *(-x for x in sizes(2.0**-54, 707.0, 2)),
        *(k * math.log(2) / 1024 for k in range(1, 999, 2)),
    ]:
        h, low, n = _exp(x, table)
        value = true("exp", x)
        assert abs((Fraction(h) + Fraction(low)) * Fraction(2) ** n - value) <= value * Fraction(EXP_ERROR), x
        assert 0.999 < h < 2.002


def test_the_bounds_of_expm1_and_erf() -> None:
    table, of_erf = elementary_constants.exponential(), elementary_constants.error_function()
    around = [(j + half) / 128 for j in range(1, 765, 7) for half in (-0.499, 0.499)]
    for x in [*sizes(2.0**-53, 706.0, 3), *(-x for x in sizes(2.0**-53, 38.0, 4)), math.nextafter(2.0**-7, 0.0)]:
        h, low, error = _expm1(x, table)
        assert abs(Fraction(h) + Fraction(low) - true("expm1", x)) <= Fraction(error) * Fraction(7, 8), x
    for x in [*sizes(2.0**-800, 6.0, 5), *sizes(2.0**-9, 6.0, 6), *around]:
        h, low, error = _erf(x, of_erf)
        assert abs(Fraction(h) + Fraction(low) - true("erf", x)) <= Fraction(error) * Fraction(7, 8), x


def test_the_bounds_of_the_logarithms() -> None:
    table = elementary_constants.logarithm()
    both = elementary_table.power_table()
    near = [1.0 + sign * x for x in sizes(2.0**-50, 2.0**-7, 7, 700) for sign in (1.0, -1.0)]
    for x in [*sizes(2.0**-1020, 2.0**1020, 8), *sizes(0.5, 2.0, 9), *near]:
        value = true("log", x)
        h, low = _log(x, table)
        assert abs(Fraction(h) + Fraction(low) - value) <= abs(value) * Fraction(2.0**-68), x
        h, low = _fine_log(x, both)
        assert abs(Fraction(h) + Fraction(low) - value) <= abs(value) * Fraction(2.0**-78), x


def test_the_bounds_of_sine_and_cosine() -> None:
    table = elementary_constants.circle()
    multiples = [math.nextafter(k * math.pi / 512, 0.0) for k in [*range(1, 1025, 5), 10**6, 10**9]]
    for x in [*sizes(2.0**-27, 2.0**30, 10), *sizes(2.0**-9, 10.0, 11), *multiples, *(-x for x in multiples)]:
        for kind, turn in (("sin", 0), ("cos", 256)):
            h, low, error = _circle(x, turn, table)
            assert abs(Fraction(h) + Fraction(low) - true(kind, x)) <= Fraction(error) * Fraction(7, 8), (kind, x)


def test_tables_are_correctly_rounded_pairs() -> None:
    for table in (elementary_constants.exponential(), elementary_constants.circle()):
        high, low = table[::2], table[1::2]
        assert (high + low == high).all()
    rows = elementary_constants.logarithm().reshape(-1, 3)
    edges_ = (elementary_constants.LOG_FIRST + (np.arange(513) << 43)).view(np.float64)
    r = np.abs(np.stack([edges_[:-1] * rows[:, 0], edges_[1:] * rows[:, 0]]) - 1.0)
    one = rows[:, 0] == 1.0
    assert one.sum() == 2
    assert r[:, one].max() <= 2.0**-9
    assert r[:, ~one].max() <= 2.0**-10
