"""Remainder, reciprocals, extremes and signs: specification, kernels and array functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import gmpy2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import z3
from kernel_cases import KEY, bits, values_of
from oracles import assert_same

from experiments.selftest.cases import special
from fpsim import exact, exact_operations, more_arrays
from fpsim.cpu.format_table import fast
from fpsim.cpu.prepared import PREPARED, preparation
from fpsim.cpu.prepared_kernels import _far_remainder, _odd_inverse_root
from fpsim.formats import BINARY64
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.random_bits import array_draw
from fpsim.rounding import CODES, Rounding, Stochastic, random_bits

Case = tuple[float, ...]
MODES: list[Rounding] = [*CODES, Stochastic(3), Stochastic(5, "B"), Stochastic(4, "C"), Stochastic(32)]
FEW: list[Rounding] = ["nearest_even", "down", Stochastic(5, "B")]  # where each mode is one more kernel to compile
TINY = [
    named("e3m2"),
    named("float4_e2m1fn"),
    Format(2, 2, specials="fnuz", overflow="nan"),
    Format(3, 1, specials="p3109_extended", overflow="saturate"),
    Format(2, 2, subnormals=False, overflow="saturate"),
    Format(3, 1, tiny="flush", overflow="saturate_all"),
    Format(3, 0, specials="fn", overflow="nan"),
]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rem": more_arrays.rem,
    "reciprocal": more_arrays.reciprocal,
    "rsqrt": more_arrays.rsqrt,
    "min": more_arrays.minimum,
    "max": more_arrays.maximum,
    "abs": more_arrays.absolute,
    "neg": more_arrays.negative,
}
ARITY = {"rem": 2, "reciprocal": 1, "rsqrt": 1, "min": 2, "max": 2, "abs": 1, "neg": 1}


def computed(kind: str, cases: Sequence[Case]) -> npt.NDArray[np.float64]:
    return PREPARED[kind].compute(*(np.array(column) for column in zip(*cases, strict=True)))


def check_computed(kind: str, cases: Sequence[Case]) -> None:
    """What is computed before the rounding is exact, or rounded to odd."""
    results = [PREPARED[kind].value(case) for case in cases]
    mode = "toward_zero" if PREPARED[kind].exact else "to_odd"
    expected = [exact.round_value(result, BINARY64, mode) for result in results]
    assert_same(computed(kind, cases), expected, cases, kind)
    if PREPARED[kind].exact:
        sizes = [(abs(y), result.magnitude) for y, result in zip(expected, results, strict=True) if math.isfinite(y)]
        assert all(Fraction(size) == magnitude for size, magnitude in sizes)


def modes_of(fmt: Format) -> list[Rounding]:
    return MODES if fast(fmt, 32) else FEW


def check(kind: str, cases: Sequence[Case], fmt: Format, declared: Format | None = None) -> None:
    """The array function equals the specification in every mode; the exact result is computed once."""
    modes = FEW[:2] if kind == "reciprocal" else modes_of(fmt)  # the modes of divisions have tests of their own
    columns = [np.array(column) for column in zip(*cases, strict=True)]
    results = [exact.value(kind, case) for case in cases]
    for mode in modes:
        n = random_bits(mode)
        words = [int(r) for r in array_draw(KEY, np.arange(len(cases)), n)] if n else [None] * len(cases)
        expected = [exact.round_value(result, fmt, mode, word) for result, word in zip(results, words, strict=True)]
        got = FUNCTIONS[kind](*columns, fmt, mode, KEY if n else None, operands=declared, dtype=np.float64)
        assert (bits(got) == bits(expected)).all(), (kind, fmt.name, mode)


def wild(count: int, arity: int, seed: int) -> list[Case]:
    """Bit patterns: every exponent, subnormal numbers, infinities and NaN."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 1 << 64, size=(count, arity), dtype=np.uint64)
    patterns[::7] &= np.uint64((1 << 63) | ((1 << 53) - 1))  # subnormal, or just above
    return [tuple(map(float, row)) for row in patterns.view(np.float64)]


def near_ties(count: int, seed: int) -> list[Case]:
    """x = y (n + t), where t is 1/2 or 0 and sometimes next to it, for quotients n of all sizes."""
    generator = np.random.default_rng(seed)
    cases = []
    for _ in range(count):
        y = math.ldexp(int(generator.integers(1, 1 << generator.integers(1, 40))), int(generator.integers(-1074, 900)))
        n = int(generator.integers(0, 1 << generator.integers(1, 53)))
        x = y * n + generator.choice([0.0, 0.5]) * y
        x = float(generator.choice([x, math.nextafter(x, 0.0), math.nextafter(x, math.inf)]))
        cases.append((math.copysign(x, generator.standard_normal()), math.copysign(y, generator.standard_normal())))
    return cases


def long_quotients(count: int, seed: int) -> list[Case]:
    """Quotients about as long as a significand."""
    generator = np.random.default_rng(seed)
    y = generator.uniform(1.0, 2.0, count)
    return [(float(v * q), float(v)) for v, q in zip(y, np.exp2(generator.uniform(47, 60, count)), strict=True)]


def remainder(x: float, y: float) -> float:
    try:
        return math.remainder(x, y)
    except ValueError:  # the C function gives NaN
        return math.nan


# The specification


def test_remainders_are_those_of_two_libraries() -> None:
    context = gmpy2.context(precision=53, emin=-1073, emax=1024, subnormalize=True)
    cases = [*wild(3000, 2, 1), *near_ties(3000, 2), *itertools.product(special(named("e5m2")), repeat=2)]
    ours = [exact.operation("rem", case, BINARY64, "to_odd") for case in cases]
    assert_same(ours, [remainder(*case) for case in cases], cases)
    # MPFR divides by a power of two of at most 2^60 in reasonable time.
    fair = [i for i, (x, y) in enumerate(cases) if not (abs(x) > 2.0**60 * abs(y) > 0.0)]
    theirs = [float(context.remainder(gmpy2.mpfr(cases[i][0], 53), gmpy2.mpfr(cases[i][1], 53))) for i in fair]
    assert_same([ours[i] for i in fair], theirs, [cases[i] for i in fair])


def test_every_remainder_of_a_tiny_format_is_z3s() -> None:
    fmt, sort = named("e3m2"), z3.FPSort(3, 3)
    # Z3 gives a zero dividend the sign that IEEE 754 does not.
    cases = [(x, y) for x, y in itertools.product(values_of(fmt), repeat=2) if x != 0.0]
    numbers = {x: z3.FPVal(x, sort) for x in values_of(fmt) if x == x}
    theirs = []
    for x, y in cases:
        if x != x or y != y:
            theirs.append(math.nan)
            continue
        result = z3.simplify(z3.fpRem(numbers[x], numbers[y]))
        pattern = z3.simplify(z3.fpToIEEEBV(result))
        theirs.append(math.nan if z3.is_true(z3.simplify(z3.fpIsNaN(result))) else decoded(pattern.as_long(), fmt))
    assert_same([exact.operation("rem", case, fmt, "nearest_even") for case in cases], theirs, cases)


def decoded(code: int, fmt: Format) -> float:
    from fpsim.codes import decode

    return float(decode(np.array([code], dtype=np.uint8), fmt)[0])


@pytest.mark.parametrize("precision", [5, 24, 53])
def test_reciprocal_roots_are_mpfrs(precision: int) -> None:
    cases = [(abs(x),) for (x,) in wild(1500, 1, 3)] + [(x,) for x in special(named("e8m7")) if x > 0]
    fmt = Format(11, precision - 1)
    for mode, theirs in (
        ("nearest_even", gmpy2.RoundToNearest),
        ("toward_zero", gmpy2.RoundToZero),
        ("up", gmpy2.RoundUp),
        ("down", gmpy2.RoundDown),
    ):
        context = gmpy2.context(precision=precision, round=theirs)
        expected = [float(context.rec_sqrt(gmpy2.mpfr(x, 53))) for (x,) in cases]
        assert_same([exact.operation("rsqrt", case, fmt, mode) for case in cases], expected, cases)
    assert math.isnan(exact.operation("rsqrt", (-1.0,), fmt, "up"))
    assert_same([exact.operation("rsqrt", (x,), fmt, "up") for x in (-0.0, 0.0)], [-math.inf, math.inf], [-0.0, 0.0])


def test_extremes_are_numpys_and_torchs() -> None:
    cases = [case for case in wild(2000, 2, 4) if case != (0.0, 0.0)]
    a, b = (np.array(column) for column in zip(*cases, strict=True))
    for kind, theirs, again in (("min", np.minimum, torch.minimum), ("max", np.maximum, torch.maximum)):
        ours = [exact.operation(kind, case, BINARY64, "up") for case in cases]
        assert_same(ours, theirs(a, b), cases)
        assert_same(ours, again(torch.from_numpy(a), torch.from_numpy(b)).numpy(), cases)
    signs = list(itertools.product([0.0, -0.0], repeat=2))
    assert_same([exact.operation("min", case, BINARY64, "up") for case in signs], [0.0, -0.0, -0.0, -0.0], signs)
    assert_same([exact.operation("max", case, BINARY64, "down") for case in signs], [0.0, 0.0, 0.0, -0.0], signs)


def test_kinds_and_their_names() -> None:
    assert set(exact_operations.KINDS) == set(FUNCTIONS)
    assert set(PREPARED) == set(FUNCTIONS) - {"reciprocal"}  # which is a division
    for kind in PREPARED:
        assert preparation(kind).arity == ARITY[kind]
        assert exact.value(kind, (math.nan, 1.0)[: ARITY[kind]]) == exact.NAN
    for ask in (exact_operations.value, exact.value):
        with pytest.raises(ValueError, match=r"kind='hypot'; admissible: .*rem"):
            ask("hypot", (1.0, 1.0))
    with pytest.raises(ValueError, match="kind='hypot'; admissible: rem"):
        preparation("hypot")


# The kernels


@pytest.mark.parametrize("kind", list(PREPARED))
def test_what_is_computed_is_exact_or_odd(kind: str) -> None:
    arity = ARITY[kind]
    grid = sorted({*special(named("e5m2")), *special(BINARY64), *special(named("e8m23"))})[:: 1 if arity == 1 else 3]
    check_computed(kind, list(itertools.product([*grid, -0.0, math.inf, -math.inf, math.nan], repeat=arity)))
    check_computed(kind, wild(2000, arity, 5))
    if kind == "rem":
        check_computed(kind, near_ties(1500, 6))
    if arity == 2:
        check_computed(kind, list(itertools.product(values_of(named("e3m2")), repeat=2)))


def test_many_remainders_are_those_of_the_c_library() -> None:
    cases = [*wild(20_000, 2, 7), *near_ties(4000, 8), *long_quotients(4000, 16)]
    expected = [remainder(*case) for case in cases]
    assert_same(computed("rem", cases), expected, cases)
    sample = range(0, len(cases), 5)  # digit by digit also where one multiplication would do
    wide = [i for i in sample if abs(cases[i][0]) >= abs(cases[i][1])]
    assert_same([_far_remainder(*cases[i]) for i in wide], [expected[i] for i in wide], [cases[i] for i in wide])


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_every_remainder_of_an_eight_bit_format(name: str) -> None:
    cases = list(itertools.product(values_of(named(name)), repeat=2))
    assert_same(computed("rem", cases), [remainder(*case) for case in cases], cases)


def test_the_reciprocal_root_of_every_half() -> None:
    check_computed("rsqrt", [(x,) for x in values_of(named("binary16"))])


def roots(count: int, seed: int) -> list[Case]:
    """Numbers near 1 / c^2 for c of 53 bits or fewer, and near powers of two, in all binades."""
    generator = np.random.default_rng(seed)
    cases = []
    for _ in range(count):
        c = Fraction(int(generator.integers(1 << 52, 1 << 53)) >> int(generator.integers(0, 53)))
        x = float(Fraction(1, 4) ** int(generator.integers(-250, 250)) / (c * c))
        cases += [(x,), (math.nextafter(x, 0.0),), (math.nextafter(x, 1.0),)]
    powers = [math.ldexp(1.0, e) for e in range(-1074, 1024, 13)]
    return cases + [(y,) for x in powers for y in (x, math.nextafter(x, math.inf), math.nextafter(x, 0.0))]


def test_reciprocal_roots_next_to_numbers_of_the_grid() -> None:
    cases = [case for case in roots(600, 9) if case[0] > 0.0]
    check_computed("rsqrt", cases)
    # In integers also where the residual decides.
    assert_same([_odd_inverse_root(*case) for case in cases], computed("rsqrt", cases), cases)


@pytest.mark.parametrize("name", ["bfloat16", "e10m35", "e11m50", "float8_e4m3fnuz", "e5m47"])
def test_odd_reciprocal_roots_are_enough(name: str) -> None:
    """Every mode rounds the odd 53 bits to what it makes of the exact result, thresholds of random words included."""
    fmt = named(name)
    cases = [case for case in [*roots(15, 10), *wild(60, 1, 11)] if case[0] == case[0]]
    odd = computed("rsqrt", cases)
    modes: list[Rounding] = [*CODES]
    modes += [Stochastic(n, v) for n in (1, 4, 16, 32) for v in "ABC" if fmt.precision + n + (v != "A") <= 52]
    for (x,), y in zip(cases, odd, strict=True):
        result, near = exact.value("rsqrt", (x,)), exact.value("round", (float(y),))
        for mode in modes:
            n = random_bits(mode)
            for word in {0, (1 << n) - 1, (1 << n) * 5 // 7} if n else [None]:
                assert bits(exact.round_value(result, fmt, mode, word)) == bits(
                    exact.round_value(near, fmt, mode, word)
                ), (x, mode, word)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_million_of_each(seed: int) -> None:
    rows = wild(250_000, 2, 100 + seed)
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    with np.errstate(all="ignore"):
        y = np.where(np.arange(len(y)) % 2 == 0, y, x * np.exp2(np.random.default_rng(seed).uniform(-52, 2, len(y))))
    assert_same(PREPARED["rem"].compute(x, y), [remainder(*case) for case in zip(x, y, strict=True)], x)
    context = gmpy2.context(precision=53, round=gmpy2.RoundToZero)
    positive = [float(v) for v in np.abs(x) if v == v]
    expected = np.array([float(context.rec_sqrt(gmpy2.mpfr(v, 53))) for v in positive])
    finite = (expected > 0.0) & (expected < math.inf)
    inexact = finite & (np.frexp(positive)[0] != 0.5)  # of 53 bits only powers of 4 have an exact one
    inexact |= finite & (np.frexp(positive)[1] % 2 == 0)
    odd = np.where(inexact, expected.view(np.uint64) | np.uint64(1), expected.view(np.uint64)).view(np.float64)
    assert_same(PREPARED["rsqrt"].compute(np.array(positive)), odd, positive)


# The array functions


@pytest.mark.parametrize("fmt", TINY, ids=lambda f: f.name)
def test_all_pairs_of_tiny_formats(fmt: Format) -> None:
    values = values_of(fmt)
    for kind, arity in ARITY.items():
        cases = list(itertools.product(values, repeat=arity))
        check(kind, cases, fmt)
        if kind == "reciprocal":
            check(kind, cases, fmt, fmt)


@pytest.mark.parametrize("name", ["bfloat16", "binary16", "float8_e4m3fn", "e8m24", "e11m50", "e11m51", "binary64"])
def test_the_special_grid(name: str) -> None:
    fmt = named(name)
    for kind, arity in ARITY.items():
        cases = list(itertools.product(special(fmt), repeat=arity))
        check(kind, cases[:: 1 if arity == 1 else 5], fmt)


@pytest.mark.parametrize("name", ["bfloat16", "e4m3", "e10m35"])
def test_random_operands(name: str) -> None:
    generator = np.random.default_rng(12)
    tame = np.abs(generator.standard_normal((150, 2))) * 2.0 ** generator.integers(-20, 20, size=(150, 2))
    rows = [*wild(150, 2, 13), *(tuple(map(float, row)) for row in tame)]
    for kind, arity in ARITY.items():
        check(kind, [row[:arity] for row in rows], named(name))


def test_dtypes_and_tensors() -> None:
    single = np.array([3.0, 0.25, 7.0], dtype=np.float32)
    for kind, function in FUNCTIONS.items():
        inputs = (single, single[::-1])[: ARITY[kind]]
        result = function(*inputs, "bfloat16")
        expected = [exact.operation(kind, tuple(map(float, case)), named("bfloat16"), "nearest_even") for case in
                    zip(*inputs, strict=True)]  # fmt: skip
        assert result.dtype == np.float32 and (bits(result) == bits(expected)).all()
        half = function(*(torch.tensor(x.tolist(), dtype=torch.bfloat16) for x in inputs), "bfloat16")
        assert half.dtype == torch.bfloat16 and (bits(half.double().numpy()) == bits(expected)).all()
        whole = function(*(np.array([3, 1, 7]) for _ in inputs), "bfloat16")
        assert whole.dtype == np.float64
        out = single.copy()
        assert function(*(out, single[::-1])[: ARITY[kind]], "bfloat16", out=out) is out
        assert (bits(out) == bits(expected)).all()


def test_declared_operands_of_a_reciprocal() -> None:
    x = np.array([1.5, 3.0, -0.0])
    assert (bits(more_arrays.reciprocal(x, "e4m3", operands="e4m3")) == bits([0.6875, 0.34375, -np.inf])).all()
    assert (bits(more_arrays.reciprocal(x, "e4m3", operands=["e4m3"])) == bits([0.6875, 0.34375, -np.inf])).all()
    with pytest.raises(ValueError, match="which is not a number of its declared format e4m3"):
        more_arrays.reciprocal(x + 2.0**-40, "e4m3", operands="e4m3")


def test_the_operand_of_a_reciprocal_is_operand_0() -> None:
    for given in (0.1, np.array([0.5, 0.1])):
        with pytest.raises(ValueError, match=r"operand 0 holds 0\.1, which is not"):
            more_arrays.reciprocal(given, "bfloat16", operands="bfloat16")
    with pytest.raises(ValueError, match="operands names 2 formats; the operation has 1 operands"):
        more_arrays.reciprocal(0.5, "bfloat16", operands=("bfloat16", "bfloat16"))
    with pytest.raises(TypeError, match="operands=3: a format"):
        more_arrays.reciprocal(0.5, "bfloat16", operands=3)  # type: ignore[arg-type]
    assert more_arrays.reciprocal(0.5, "bfloat16", operands=("bfloat16",)) == 2.0
    assert more_arrays.reciprocal(0.1, "bfloat16", operands="bfloat16", check=False) > 9.9
