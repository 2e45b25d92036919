"""Operations on float32 arrays in 32-bit lanes: against the specification, at every border of their proofs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernel_cases import BINARY, FUNCTIONS, KEY, bits, exhaust
from tiers import slow_but

from fpsim import arrays, exact
from fpsim.cpu import flat
from fpsim.cpu.flat_single_operations import KINDS, single_kernel
from fpsim.cpu.tiers import Range
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.rounding import CODES, Rounding, Stochastic

BF16 = named("bfloat16")
ANY = Range.of_format(named("e8m23"))  # a float32 number of which nothing is known
FORMATS = [
    BF16,
    named("e8m1"),
    named("e8m10"),
    named("e8m11"),
    named("e8m21"),
    named("e8m22"),
    Format(8, 3, overflow="saturate_all"),
    named("binary16"),
    named("float8_e5m2"),
    named("float8_e4m3fn"),
    named("float8_e4m3fnuz"),
    Format(4, 3, overflow="saturate"),
    Format(7, 21),
    Format(6, 11, overflow="saturate"),
]
# The quick tests compile two kernels an operation and way; the slow ones all of them.
QUICK = [BF16, named("e8m21"), named("float8_e4m3fnuz")]
FEW = {"add": ["nearest_even", "down"], "mul": ["nearest_even", "up"]}
CHECKS = [pytest.param(fmt, False, id=fmt.name) for fmt in QUICK]
CHECKS += [pytest.param(fmt, True, id=f"{fmt.name}-all", marks=pytest.mark.slow) for fmt in FORMATS]
Singles = npt.NDArray[np.float32]
Case = tuple[float, float]


def modes_of(kind: str, every: bool) -> list[Rounding]:
    return [*CODES] if every else [*FEW.get(kind, ["nearest_even"])]


def singles(numbers: Any) -> Singles:
    """Those of the numbers that are float32 numbers."""
    wide = np.array(numbers, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = wide.astype(np.float32)
    return narrow[(narrow == wide) | np.isnan(wide)]


def agree(kind: str, cases: list[Case], fmt: Format, declared: Format | None = None, modes: Any = CODES) -> None:
    """The function on all cases equals the specification, and so does the kernel on each case alone: in an array, one
    case that needs the wide lanes takes its block along. Cases that are no float32 numbers are left out."""
    with np.errstate(over="ignore"):
        cases = [case for case in cases if all(x != x or float(np.float32(x)) == x for x in case)]
    if not cases:
        return
    columns = [np.array(column, dtype=np.float32) for column in zip(*cases, strict=True)]
    columns = columns[:1] if kind == "sqrt" else columns
    results = [exact.value(kind, tuple(float(x) for x in case)) for case in zip(*columns, strict=True)]
    ranges = (Range.of_format(declared) if declared else ANY,) * len(columns)
    for mode in modes:
        expected = np.array([exact.round_value(value, fmt, mode) for value in results])
        got = FUNCTIONS[kind](*columns, fmt, mode, operands=declared)
        assert got.dtype == np.float32
        chosen = flat.plan(kind, ranges, fmt, mode, True)
        alone = np.empty_like(got)
        places = [flat.address(x) for x in (*columns, columns[0], columns[0])[:3]]
        for i in range(len(results)):
            given = [x for place in places for x in (place + 4 * i, 1)]
            chosen.kernel(*given, flat.address(alone) + 4 * i, 0, 1, *chosen.addresses, 0, 0, 0, 0)
        for found in (got, alone):
            wrong = np.flatnonzero(bits(found) != bits(expected))
            assert not len(wrong), (
                f"{kind} {fmt.name} {mode}: {len(wrong)} wrong; {[float(x[wrong[0]]).hex() for x in columns]} "
                f"gave {found[wrong[0]]}, not {expected[wrong[0]]}"
            )


def edges(fmt: Format) -> list[float]:
    """Zeros, the ends of the format and of float32, the thresholds of the kernels, infinities and NaN."""
    powers = [-149, -127, -126, -125, -102, -101, -63, -51, 0, 102, 103, 126, 127]
    positive = [0.0, *(2.0**e for e in powers), fmt.smallest_subnormal, fmt.smallest_normal, fmt.max]
    positive += [1 + 2.0**-23, 1 - 2.0**-24, 2.0**-126 - 2.0**-149, 2.0**128 - 2.0**104, math.inf]
    return [float(x) for x in singles([*positive, *(-x for x in positive), math.nan])]


@pytest.mark.parametrize(("fmt", "every"), CHECKS)
def test_the_ends_of_the_formats(fmt: Format, every: bool) -> None:
    some = list(dict.fromkeys(edges(fmt)))
    pairs = list(itertools.product(some, repeat=2))
    for kind in BINARY:
        agree(kind, pairs[::3], fmt, modes=modes_of(kind, every))
    agree("sqrt", [(x, x) for x in some], fmt, modes=modes_of("sqrt", every))


def midpoints(fmt: Format, generator: Any, count: int = 6) -> list[float]:
    """Numbers and midpoints of a format, between 1/2 and 4."""
    m = fmt.mantissa_bits
    return [math.ldexp(int(n), int(e) - m) for n in generator.integers(2 << m, 4 << m, count) for e in (-2, -1, 0)]


def near_ties(kind: str, fmt: Format, generator: Any) -> list[Case]:
    """Operands of up to 24 bits whose result is next to a number or a midpoint c, as close as may be."""
    found: list[Case] = []
    m = fmt.mantissa_bits
    for c in midpoints(fmt, generator):
        for sign in (1, -1):
            if kind in ("add", "sub"):
                tiny = [2.0**-k for k in (m, m + 1, m + 2, 12, 13, 22, 23, 24, 25, 26, 48, 80, 140)]
                found += [case for t in tiny for case in ((c, sign * t), (sign * t, -c), (-c, sign * t))]
                found += [(c - t, sign * t * (1 + 2.0**-23)) for t in tiny]
            elif kind == "mul":
                # (1 + 2^-j) (1 - 2^-j) = 1 - 2^-2j and (1 + 2^-j) (1 - 2^-j + 2^-2j) = 1 + 2^-3j
                for j in range(max(1, 24 - m - 6), 24 - m):
                    t = 2.0**-j
                    found += [(sign * c * (1 + t), 1 - t), (1 - t + t * t, -sign * c * (1 + t)), (c, sign * (1 + t))]
            elif kind == "div":
                # a = c b or next to it where c b has 24 bits, else the number nearest to it
                for width in (max(1, 22 - m), 24):
                    for b in generator.integers(1, 1 << width, 4):
                        a = np.float32(c * int(b))
                        found += [(sign * float(np.nextafter(a, np.float32(x))), float(b)) for x in (0, 1e9)]
                        found += [(sign * float(a), float(b))] * 2
            else:
                a = np.float32(c * c)
                found += [(float(x), 0.0) for x in (a, np.nextafter(a, np.float32(0)), np.nextafter(a, np.float32(9)))]
    return found


@pytest.mark.parametrize(("fmt", "every"), CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_results_next_to_ties(fmt: Format, every: bool, kind: str) -> None:
    generator = np.random.default_rng(5)
    cases = near_ties(kind, fmt, generator)
    chosen = generator.permutation(len(cases))[:400]
    agree(kind, [cases[i] for i in chosen], fmt, modes=modes_of(kind, every))


def scaled(cases: list[Case], shift_a: int, shift_b: int) -> list[Case]:
    return [(math.ldexp(a, shift_a), math.ldexp(b, shift_b)) for a, b in cases]


@pytest.mark.parametrize(("fmt", "every"), CHECKS)
def test_ties_at_the_thresholds(fmt: Format, every: bool) -> None:
    """Where a residual begins to underflow, where results become subnormal, and where they overflow."""
    generator = np.random.default_rng(6)
    for kind in KINDS:
        for e in (-149, -134, -127, -126, -125, -104, -103, -102, -101, -100, 125, 126, 127):
            shifts = {
                "mul": [(e - e // 2, e // 2)],
                "div": [(e, 0), (e // 2, e // 2 - e), (-101, -101 - e), (-103, 20)],
                "sqrt": [(e - 1, 0), (e, 0)],
            }.get(kind, [(e, e)])
            for a, b in shifts:
                cases = near_ties(kind, fmt, generator)
                cases = scaled([cases[i] for i in generator.permutation(len(cases))[: 60 if every else 20]], a, b)
                agree(kind, cases, fmt, modes=modes_of(kind, every))


@pytest.mark.parametrize(("fmt", "every"), CHECKS)
def test_products_whose_last_bits_underflow(fmt: Format, every: bool) -> None:
    """(1 + 2^-j) (1 - 2^-j) = 1 - 2^-2j, scaled so that 2^-2j passes the smallest float32 number; and products of two
    numbers of 11 bits that are next to a midpoint of subnormal numbers of e8m10."""
    cases = []
    for j, e in itertools.product((20, 22, 23), range(-112, -97)):
        t = 2.0**-j
        cases += [(s * math.ldexp(1 + t, e // 2), math.ldexp(1 - t, e - e // 2)) for s in (1, -1)]
        cases += [(s * math.ldexp(1.5 + 1.5 * t, e // 2), math.ldexp(1 - t, e - e // 2)) for s in (1, -1)]
    agree("mul", cases, fmt, modes=modes_of("mul", every))
    if fmt.exponent_bits == 8:
        narrow = named("e8m10")
        a, b = np.meshgrid(np.arange(1025, 2048, 2), np.arange(1025, 2048, 2))
        rest = (a * b) & 0xFFFF
        close = (rest == 0x8001) | (rest == 0x7FFF) | (rest == 1)
        pairs = [(math.ldexp(int(x), -70), math.ldexp(int(y), -82)) for x, y in zip(a[close], b[close], strict=True)]
        assert len(pairs) > 5
        agree("mul", pairs, narrow, declared=narrow, modes=["nearest_even", "up"])


def test_sums_of_the_largest_numbers() -> None:
    """The intermediate results of TwoSum at the upper end of float32."""
    largest = 2.0**128 - 2.0**104
    units = [k * 2.0**102 for k in (1, 2, 3, 4, 5, 6, 8)]
    near = [s * x for x in (largest, 2.0**127, 2.0**126, 1.5 * 2.0**126) for s in (1, -1)]
    numbers = [float(x) for x in singles([*near, *units, *(x - u for x in near for u in units)])]
    pairs = list(itertools.product(numbers, repeat=2))
    generator = np.random.default_rng(7)
    for fmt in (BF16, named("e8m21")):
        chosen = [pairs[i] for i in generator.permutation(len(pairs))[:500]]
        agree("add", chosen, fmt, modes=FEW["add"])


@pytest.mark.parametrize(("fmt", "every"), CHECKS)
def test_declared_operands(fmt: Format, every: bool) -> None:
    """Numbers of the format itself, many with the same exact result between two of its numbers."""
    generator = np.random.default_rng(8)
    m = fmt.mantissa_bits
    top = min(fmt.emax - 1, 30)
    low = max(fmt.emin, -30)
    integers = generator.integers(1 << m, 2 << m, (2, 150))
    exponents = generator.integers(low, top + 1, (2, 150))
    exponents[1, :75] = np.clip(exponents[0, :75] - generator.integers(0, 2 * m + 5, 75), low, top)
    a, b = np.ldexp(integers.astype(np.float64), exponents - m) * generator.choice([1, -1], (2, 150))
    cases = [(float(x), float(y)) for x, y in zip(a, b, strict=True)]
    for kind in KINDS:
        agree(kind, cases, fmt, declared=fmt, modes=CODES if every else ["nearest_even"])


@pytest.mark.parametrize("precision", slow_but([8, 10, 11, 12, 13], 11, 12))
def test_the_borders_of_plain_operations(precision: int) -> None:
    """Operands of p bits whose exact result is as close to a midpoint of p + 1 bits as can be.

    a/b = c + 1 / (2^(p+1) b) with a 2^(p+1) = c b + 1; a + b with b one unit more or less than half a unit of a; and
    the root of 1 + 2^(1-p), which is 2^(-2p-1) less than 1 + 2^-p.
    """
    p = precision
    fmt = Format(8, p - 1)
    whole = 1 << (p + 1)
    quotients = []
    for c in range((1 << p) + 1, whole, 2):
        for one in (1, -1):
            b = -one * pow(c, -1, whole) % whole
            a = (c * b + one) // whole
            if b < 1 << p and a < 1 << p and len(quotients) < 300:
                quotients += [(float(a), float(b)), (-float(a), math.ldexp(b, 7))]
    assert len(quotients) > 100
    half, unit = 2.0**-p, 2.0 ** (1 - p)
    sums = []
    for a in (1.0, 1 + unit, 1.5, 1.5 + unit, 2 - unit):
        for b in (half * (1 + unit), half * (1 - half), half / 2 * (1 + unit), half / 2 * (1 - half)):
            sums += [(a, b), (a, -b), (-b, a), (b, -a), (-a, -b)]
    for mode in ("nearest_even", "nearest_away"):
        agree("div", quotients, fmt, declared=fmt, modes=[mode])
        agree("add", sums, fmt, declared=fmt, modes=[mode])
        agree("sqrt", [(1 + unit, 0.0), (4 + 4 * unit, 0.0)], fmt, declared=fmt, modes=[mode])


def test_all_pairs_of_a_narrow_format_with_wide_exponents() -> None:
    fmt = named("e8m1")
    near = [-127, -126, -125, -103, -102, -101, -64, -63, -62, -1, 0, 1, 125, 126, 127]
    numbers = [s * n * 2.0 ** (e - 1) for e in near for n in (2, 3) for s in (1, -1)]
    numbers = [float(x) for x in arrays.round(np.array(numbers), fmt)]
    for kind in BINARY:
        agree(kind, list(itertools.product(numbers, repeat=2))[::3], fmt, declared=fmt, modes=["nearest_even"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["e3m2", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "e3m4"])
def test_all_pairs(name: str) -> None:
    exhaust(named(name), np.float32)


def equal_to_wide_lanes(kind: str, a: Singles, b: Singles, fmt: Format, modes: Any, declared: Format | None) -> None:
    columns = [a] if kind == "sqrt" else [a, b]
    wide = [x.astype(np.float64) for x in columns]
    for mode in modes:
        got = FUNCTIONS[kind](*columns, fmt, mode, operands=declared)
        expected = FUNCTIONS[kind](*wide, fmt, mode, operands=declared)
        wrong = np.flatnonzero(bits(got) != bits(expected))
        assert not len(wrong), (kind, fmt.name, mode, a[wrong[0]], b[wrong[0]])


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_a_million_random_cases(fmt: Format) -> None:
    generator = np.random.default_rng(9)
    for low, high in ((-20, 20), (-3, 3), (-75, -40), (-149, 127)):
        sizes = np.exp2(generator.uniform(low, high, (2, 1 << 18))) * generator.choice([1, -1], (2, 1 << 18))
        a, b = sizes.astype(np.float32)
        for kind in KINDS:
            with np.errstate(invalid="ignore"):
                equal_to_wide_lanes(kind, a, b, fmt, CODES, None)
                equal_to_wide_lanes(kind, arrays.round(a, fmt), arrays.round(b, fmt), fmt, CODES, fmt)


@pytest.mark.parametrize("size", [2, 15, 17, 1000, 1023, 1024, 1025, 3100])
def test_lengths_strides_and_overwriting(size: int) -> None:
    a, b = np.exp2(np.random.default_rng(size).uniform(-9, 9, (2, size))).astype(np.float32)
    a[size // 2] = np.inf  # the block that holds it is done again
    for kind, mode in [(k, m) for k in KINDS for m in modes_of(k, False)]:
        function: Any = FUNCTIONS[kind]
        columns = [a] if kind == "sqrt" else [a, b]
        expected = function(*(x.astype(np.float64) for x in columns), BF16, mode)
        for _ in range(2):  # the second call takes the short way
            assert (bits(function(*columns, BF16, mode)) == bits(expected)).all()
        assert (bits(function(*(x[::-1] for x in columns), BF16, mode)) == bits(expected[::-1])).all()
        for overwritten in range(len(columns)):
            given = [x.copy() for x in columns]
            assert function(*given, BF16, mode, out=given[overwritten]) is given[overwritten]
            assert (bits(given[overwritten]) == bits(expected)).all()
        if kind != "sqrt":
            x = a.copy()
            function(x, x, BF16, mode, out=x)
            assert (bits(x) == bits(function(a.astype(np.float64), a.astype(np.float64), BF16, mode))).all()
            third = np.float32(1 / 3)
            for pair in ((a, third), (third, a), (a, b[:1])):
                wide = [np.asarray(x, dtype=np.float64) for x in pair]
                assert (bits(function(*pair, BF16, mode)) == bits(function(*wide, BF16, mode))).all()


def taken(kind: str, operands: Range, fmt: Format, mode: Rounding) -> bool:
    return single_kernel(kind, (operands,) * (1 if kind == "sqrt" else 2), fmt, mode) is not None


def test_what_is_not_proven_keeps_the_wide_lanes() -> None:
    for kind in KINDS:
        assert taken(kind, ANY, named("e8m21"), "nearest_even")
        assert not taken(kind, ANY, named("e8m22"), "nearest_even")
        assert taken(kind, ANY, named("e8m22"), "up")
        assert not taken(kind, ANY, BF16, Stochastic(3))
        assert not taken(kind, Range.of_format(named("e8m24")), BF16, "up")
    assert not taken("fma", ANY, BF16, "nearest_even")
    x = np.ones(3, dtype=np.float32)
    assert (arrays.add(x, x, BF16, Stochastic(3), KEY) == 2.0).all()
