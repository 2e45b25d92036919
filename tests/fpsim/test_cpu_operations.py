"""Every kernel against the specification, bit for bit, through the array functions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from kernel_cases import BINARY, KEY, MODES, bits, compare, exhaust, values_of
from tiers import slow_but

from experiments.selftest.cases import special
from fpsim import arrays, exact
from fpsim.cpu import codes
from fpsim.cpu.lower import Formats
from fpsim.cpu.tiers import Range, choose
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.random_bits import array_draw
from fpsim.rounding import Rounding, Stochastic, code

TINY = [
    named("e3m2"),
    named("float4_e2m1fn"),
    Format(2, 2, specials="fnuz", overflow="nan"),
    Format(3, 1, specials="p3109_extended", overflow="saturate"),
    Format(2, 2, subnormals=False, overflow="saturate"),
    Format(3, 1, tiny="flush", overflow="saturate_all"),
    Format(3, 0, specials="fn", overflow="nan"),
]


# Every operation, tier and mode is a kernel of its own: the fast tests leave out modes that differ only in the
# rounding, which test_flat_kernels tries in all of them; the slow test below takes all.
FEW: list[Rounding] = ["nearest_even", "down", "to_odd", Stochastic(16)]


@pytest.mark.parametrize("fmt", TINY, ids=lambda f: f.name)
@pytest.mark.parametrize("declare", [True, False])
def test_all_pairs_of_tiny_formats(fmt: Format, declare: bool) -> None:
    values = values_of(fmt)
    modes = FEW if declare else ["nearest_even", "down", Stochastic(3)]
    pairs = list(itertools.product(values, values))
    for kind in BINARY:
        compare(kind, pairs, fmt, modes, fmt if declare else None)
    compare("sqrt", [(x,) for x in values], fmt, modes, fmt if declare else None)


@pytest.mark.parametrize(
    "name",
    slow_but(["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "p3109_k8p4se"], "float8_e4m3fn"),
)
def test_all_pairs_of_eight_bit_formats(name: str) -> None:
    exhaust(named(name))


@pytest.mark.parametrize(
    "fmt", [named("float4_e2m1fn"), Format(2, 1), Format(2, 1, specials="fn", overflow="nan")], ids=str
)
def test_all_triples_of_the_smallest_formats(fmt: Format) -> None:
    compare(
        "fma", list(itertools.product(values_of(fmt), repeat=3)), fmt, ["nearest_even", "down", "to_odd", Stochastic(4)]
    )


SPECIAL = [
    "bfloat16", "binary16", "float8_e4m3fn", "float8_e5m2fnuz", "e8m10", "e8m23", "e8m24", "e9m30", "e10m50", "e8m50",
    "e11m51", "binary64", "p3109_k8p4sf",
]  # fmt: skip


@pytest.mark.parametrize("name", slow_but(SPECIAL, *SPECIAL[::3]))
def test_the_special_grid(name: str) -> None:
    fmt = named(name)
    values = special(fmt)
    pairs = list(itertools.product(values, values))
    for kind in BINARY:
        compare(kind, pairs, fmt, FEW)
    compare("round", [(x,) for x in values], fmt)
    compare("sqrt", [(x,) for x in values], fmt, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("declare", [True, False])
def test_the_special_grid_in_every_mode(name: str, declare: bool) -> None:
    fmt = named(name)
    values = special(fmt)
    values = sorted({float(arrays.round(x, fmt)) for x in values if not math.isnan(x)}) if declare else values
    pairs = list(itertools.product(values, values))
    for kind in BINARY:
        compare(kind, pairs, fmt, MODES, fmt if declare else None)
    compare("sqrt", [(x,) for x in values], fmt, MODES, fmt if declare else None)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "e10m50", "binary64"])
def test_fma_on_the_special_grid(name: str) -> None:
    fmt = named(name)
    values = [x for i, x in enumerate(special(fmt)) if i % 3 == 0 or not math.isfinite(x) or x == 0.0]
    compare("fma", list(itertools.product(values, repeat=3)), fmt, ["nearest_even", "down", Stochastic(8)])


@pytest.mark.parametrize(
    "fmt",
    [Format(8, 7, overflow=o, subnormals=s, tiny=t)  # type: ignore[arg-type]
     for o in ("saturate", "saturate_all", "nan") for s in (True, False) for t in ("round", "flush")],
    ids=lambda f: f.name,
)  # fmt: skip
def test_edges_of_a_format(fmt: Format) -> None:
    q, top = fmt.smallest_normal, fmt.max
    scale = [0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 0.999, 1.0, 1.001, 1.0039]
    values = [s * q for s in scale] + [top, top * (1 + 2.0**-9), top * (1 + 2.0**-8), top * 1.01, top * 4, math.inf]
    compare("round", [(s * x,) for x in values for s in (1.0, -1.0)], fmt)
    compare("mul", [(a, b) for a in values[1:10] for b in (1.0, 0.7, -0.5)], fmt, FEW)
    compare("add", [(a, b) for a in values for b in (q, -q, top, -top)], fmt, FEW)


def near_ties(fmt: Format, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Sums a + b where a is on or half way between numbers of the format and b far below the last bit of a + b in
    binary64, so that a sum in binary64 forgets b."""
    cases = []
    m = fmt.mantissa_bits
    for _ in range(60):
        e = int(generator.integers(max(fmt.emin, -200), min(fmt.emax, 200) + 1))
        n = int(generator.integers(1 << m, 2 << m))
        for quarter in (0, 1, 2, 3):
            if m > 50:
                quarter = 0
            a = math.ldexp(4 * n + quarter, e - m - 2)
            for gap in (52 - m, 53, 54, 60, 90, 140):
                b = math.ldexp(float(generator.choice([1.0, 1.5, -1.0, -1.25])), max(e - m - gap, -1074))
                cases.append((a, b))
    return cases


@pytest.mark.parametrize("m", [1, 7, 10, 22, 23, 24, 25, 34, 35, 36, 47, 48, 49, 50, 51, 52])
def test_near_ties_of_sums(m: int) -> None:
    fmt = Format(8 if m < 52 else 11, m)
    cases = near_ties(fmt, np.random.default_rng(m))
    modes: list[Rounding] = [
        "nearest_even",
        "down",
        "to_odd",
        Stochastic(16),
        Stochastic(min(32, max(1, 51 - m))),
    ]
    compare("add", cases[:600], fmt, modes[: 5 if m < 51 else 4])
    compare("fma", [(a, 1.0, b) for a, b in cases[:150]], fmt, ["nearest_even", "toward_zero", Stochastic(2)])


@pytest.mark.parametrize("m", slow_but([4, 7, 9, 10, 16, 17, 22, 23, 24, 25, 26, 40, 50, 52], 7, 10, 23, 24, 25, 52))
def test_near_ties_of_products_quotients_and_roots(m: int) -> None:
    """b is a number of the format or a midpoint, moved by less than binary64 shows."""
    fmt = Format(11 if m == 52 else 9, m)
    generator = np.random.default_rng(100 + m)
    pairs, roots = [], []
    for _ in range(120):
        a = math.ldexp(int(generator.integers(1 << m, 2 << m)), -m)
        c = math.ldexp(int(generator.integers(2 << m, 4 << m)), -m - 1)
        for nudge in (0.0, 2.0**-52, -(2.0**-52)):
            pairs.append((c * a * (1.0 + nudge), a))  # quotients near c
            pairs.append((c * (1.0 + nudge) / a, a))  # products near c
            roots.append((c * c * (1.0 + nudge),))
        pairs.append((a, math.ldexp(int(generator.integers(1 << m, 2 << m)), -m)))
        roots.append((a,))
    modes: list[Rounding] = ["nearest_even", "down", "to_odd", Stochastic(16), Stochastic(5)]
    compare("div", pairs, fmt, modes)
    compare("mul", pairs, fmt, modes)
    compare("sqrt", roots, fmt, modes)
    grid = [(arrays.round(a, fmt), arrays.round(b, fmt)) for a, b in pairs[::7]]
    for kind in BINARY:
        compare(kind, grid, fmt, modes, fmt)


@pytest.mark.parametrize("m", [7, 22, 23, 30, 40, 50, 52])
def test_fma_of_products_with_106_bits(m: int) -> None:
    """Products next to a tie: half a quantum times 1 - 2^-104, or times 1 + 2^-105, where the last bit decides."""
    fmt, u = Format(11, m), 2.0**-52
    long, longer = math.ldexp(0x19B8D7C084EE43, -52), math.ldexp(0x13E7B517484E6B, -53)
    assert Fraction(long) * Fraction(longer) == 1 + Fraction(1, 1 << 105)
    cases = []
    for n in (1 << m, (1 << m) + 1, (2 << m) - 1):
        for scale in (1.0, 0.5, 0.25, 2.0**-12, 2.0**-40, 2.0**-75):
            for a, b in ((1 + u, 1 - u), (1 - u / 2, 1 - u / 2), (1 + u, 1 + u), (-1 - u, 1 - u), (long, longer)):
                c = math.ldexp(n, -m)
                cases.append((a * scale * 2.0**-m, b, c))
                cases.append((a * scale * 2.0**-m, b, -c))
    compare("fma", cases, fmt)


@pytest.mark.parametrize(
    ("m", "total"), [(m, total) for m in (20, 35, 40, 46, 50) for total in (50, 51, 52, 53) if 1 <= total - m <= 32]
)
def test_stochastic_thresholds(m: int, total: int) -> None:
    """Sums that miss the threshold of their own draw by less than binary64 shows, where m + bits is 50..53."""
    n = total - m
    fmt = Format(8, m)
    cases = []
    for i, word in enumerate(array_draw(KEY, np.arange(400), n)):
        threshold = ((1 << m) + i % 7) * (1 << n) + (1 << n) - int(word)
        cases.append(
            (math.ldexp(threshold, -m - n) if threshold < 1 << 53 else 1.0, (1.0, -1.0, 0.0)[i % 3] * 2.0**-90)
        )
    compare("add", cases, fmt, [Stochastic(n)])


def test_the_example_that_binary64_gets_wrong() -> None:
    fmt = named("bfloat16")
    assert (1 + 2.0**-8) + 2.0**-80 == 1 + 2.0**-8
    assert arrays.add(1 + 2.0**-8, 2.0**-80, fmt) == 1.0078125
    assert arrays.add(2.0**-25, 2.0**-100, named("binary16")) == 2.0**-24  # a tie of subnormals


@pytest.mark.parametrize("name", ["bfloat16", "e4m3", "e5m34", "e11m52", "e8m10"])
def test_random_operands(name: str) -> None:
    fmt = named(name)
    generator = np.random.default_rng(5)
    wide = generator.integers(0, 1 << 64, size=(400, 3), dtype=np.uint64).view(np.float64)
    tame = generator.standard_normal((400, 3)) * 2.0 ** generator.integers(-20, 20, size=(400, 3))
    for kind in (*BINARY, "fma", "round", "sqrt"):
        count = {"fma": 3, "round": 1, "sqrt": 1}.get(kind, 2)
        rows = np.concatenate([wide, tame])[:, :count]
        compare(kind, [tuple(float(x) for x in row) for row in rows], fmt, FEW)


@pytest.mark.parametrize("fmt", [named("e4m3"), Format(4, 3, subnormals=False), named("e8m23")], ids=lambda f: f.name)
@pytest.mark.parametrize("variant", ["A", "B", "C"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_every_random_word(fmt: Format, n: int, variant: str) -> None:
    """All 2^n draws of the fast and of the exact kernel, for fractions around every threshold."""
    from fpsim.cpu import rounding_kernels
    from fpsim.cpu.wide import operate

    q = fmt.smallest_normal * fmt.eps
    fractions = [k / 2**n + d for k in range(2**n + 1) for d in (0.0, 2.0**-20, -(2.0**-20))]
    places = [1.0, 1.0 + 3 * fmt.eps, fmt.smallest_normal, 0.0, 3 * q, fmt.max]
    x = np.array([p + f * (fmt.eps * 2.0 ** math.floor(math.log2(p)) if p >= fmt.smallest_normal else q)
                  for p in places for f in fractions])  # fmt: skip
    formats = Formats()
    strip = {"A": "stochastic", "B": "stochastic_b", "C": "stochastic_c"}[variant]
    mode = Stochastic(n, variant)
    row = formats.row(fmt, mode)
    integers, floats = (table.reshape(-1) for table in formats.tables())
    for word in range(2**n):
        expected = [exact.operation("round", (float(v),), fmt, mode, word) for v in x]
        slow = [operate(codes.ROUND, v, v, v, code(mode), np.uint64(word), integers, floats, row)[0] for v in x]
        assert (bits(slow) == bits(expected)).all()
        if fmt.subnormals:
            result = np.empty(len(x))
            words = np.full(len(x), word << (32 - n), dtype=np.uint32)
            zero, size = np.uint64(0), np.uint64(len(x))
            kernel = getattr(rounding_kernels, strip)
            kernel(x, result, zero, size, integers, floats, row, words, zero, zero, np.uint64(32 - n))
            assert (bits(result) == bits(expected)).all()


def test_shifting_a_wide_number() -> None:
    from fpsim.cpu.wide_rounding import shifted_right

    generator = np.random.default_rng(8)
    for places in range(135):
        for high, low in (*generator.integers(0, 1 << 64, size=(3, 2), dtype=np.uint64), (1 << 63, 0), (0, 1), (1, 0)):
            whole = int(high) << 64 | int(low)
            h, t, dropped = shifted_right(np.uint64(high), np.uint64(low), places)
            assert int(h) << 64 | int(t) == whole >> places
            assert dropped == (whole >> places << places != whole)


def test_tiers() -> None:
    b16, wide = named("bfloat16"), named("binary64")
    grid, all64 = Range.of_format(b16), Range.of_format(wide)
    assert choose("add", [grid, grid], b16, "nearest_even") == codes.PLAIN
    assert choose("add", [grid, grid], b16, "up") == codes.ODD
    assert choose("div", [grid, grid], b16, Stochastic(16)) == codes.PLAIN
    assert choose("div", [grid, grid], b16, Stochastic(32)) == codes.PLAIN
    assert choose("div", [Range.of_format(named("e8m20"))] * 2, named("e8m20"), Stochastic(16)) == codes.ODD
    assert choose("mul", [grid, grid], b16, "to_odd") == codes.PLAIN
    assert choose("add", [all64, all64], b16, "nearest_even") == codes.GUARDED
    assert choose("add", [Range.of_format(named("e8m10"))] * 2, b16, "nearest_even") == codes.ODD
    assert choose("fma", [all64] * 3, b16, "nearest_even") == codes.EXACT
    assert choose("add", [grid, grid], Format(8, 7, subnormals=False), "nearest_even") == codes.EXACT
    assert choose("sqrt", [Range.of_format(named("e8m40"))], named("e8m40"), Stochastic(16)) == codes.EXACT
    four = Range.of_format(named("float8_e4m3fn"))
    assert choose("add", [four, four], named("float8_e4m3fn"), Stochastic(8)) == codes.PLAIN
    assert choose("add", [four, four], named("float8_e4m3fn"), "down") == codes.ODD
    one = Range.of_values(np.array([1.0, 0.5, 0.0, math.inf]))
    assert (one.precision, one.low, one.high, one.lsb) == (1, -1, 0, -1)
    assert Range.of_values(np.array([5e-324, 3.0])) == Range(2, -1074, 1, -1074)
