"""The specification against MPFR: every operation, format family and rounding mode.

MPFR decides the rounding (see ``oracles.MPFR``); for ``ieee`` formats in the four IEEE 754 modes it also decides
overflow, subnormal results, infinities and the signs of zeros. Small formats are exhausted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
from oracles import ARITY, MODES, MPFR, assert_same, interesting, unsigned_variants, variants

from fpsim import exact
from fpsim.codes import decode
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.rounding import Stochastic

BITS = 3
WORDS = (0, 3, 7)
TINY = [f for widths in ((2, 1), (2, 2), (3, 1), (2, 3), (3, 2)) for f in variants(*widths)]
TINY += [named(name) for name in ("p3109_k5p1se", "p3109_k6p1sf", "p3109_k5p4se", "p3109_k6p5sf")]  # m = 0, e = 1
TINY += [
    Format(2, 2, bias=-3),
    Format(3, 1, bias=20),
    Format(3, 2, overflow="nan"),
    Format(2, 2, overflow="saturate_all"),
    Format(4, 0, specials="p3109_extended", bias=8),  # parity of the significand
    Format(3, 1, specials="p3109_extended", odd_overflow="overflow"),
]
UNSIGNED = [*unsigned_variants(2, 2), *unsigned_variants(3, 1), named("p3109_k4p1ue"), named("p3109_k4p4uf")]
UNSIGNED += [
    Format(3, 2, signed=False, overflow="saturate"),
    Format(3, 0, specials="p3109_finite", signed=False, overflow="nan"),
]
UNSIGNED += [
    Format(4, 0, specials="nan_only", signed=False, overflow=overflow, parity=parity)  # type: ignore[arg-type]
    for overflow in ("nan", "saturate", "saturate_all")
    for parity in ("significand", "code")
]
EIGHT = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "p3109_k8p4se"]
WIDE = ["binary16", "bfloat16", "tf32", "e8m10", "e5m7", "e4m20", "binary32", "e11m40", "binary64"]


def check(fmt: Format, kind: str, cases: Iterable[tuple[float, ...]]) -> int:
    """Compare all modes on all cases; the specification rounds every distinct exact result once."""
    mpfr = MPFR(fmt, BITS)
    ways = [(mode, 0) for mode in MODES] + [(Stochastic(BITS), word) for word in WORDS]
    ours, theirs, labels = [], [], []
    rounded: dict[exact.Exact, list[float]] = {}
    known: dict[float, object] = {}
    for operands in cases:
        result = exact.value(kind, operands)
        if result not in rounded:
            rounded[result] = [exact.round_value(result, fmt, mode, word) for mode, word in ways]
        for x in operands:
            if x != 0 and x not in known:  # -0 and 0 are one dictionary key
                known[x] = mpfr.operand(x)
        given = [known[x] if x in known else mpfr.operand(x) for x in operands]
        for (mode, word), value in zip(ways, rounded[result], strict=True):
            ours.append(value)
            theirs.append(mpfr(kind, given, mode, word))
            labels.append((kind, operands, mode, word))
    assert_same(ours, theirs, labels, fmt.name)
    return len(ours)


def all_values(fmt: Format) -> list[float]:
    values = decode(np.arange(1 << fmt.bits), fmt)
    nan = np.isnan(values)
    return [*values[~nan].tolist(), *values[nan][:1].tolist()]


def all_operands(kind: str, values: list[float]) -> Iterable[tuple[float, ...]]:
    """All tuples; of sums and products, whose exact result is shown not to depend on the order, one order."""
    if kind not in ("add", "mul"):
        return itertools.product(values, repeat=ARITY[kind])
    pairs = list(itertools.combinations_with_replacement(values, 2))
    for a, b in pairs:
        assert exact.value(kind, (a, b)) == exact.value(kind, (b, a))
    return pairs


@pytest.mark.parametrize("kind", ["sqrt", "add", "mul", "div"])
@pytest.mark.parametrize("fmt", TINY, ids=lambda f: f.name)
def test_formats_of_at_most_six_bits_exhaustively(fmt: Format, kind: str) -> None:
    check(fmt, kind, all_operands(kind, all_values(fmt)))


@pytest.mark.parametrize("kind", ["sqrt", "add", "sub", "mul", "div"])
@pytest.mark.parametrize("fmt", UNSIGNED, ids=lambda f: f.name)
def test_unsigned_formats_exhaustively(fmt: Format, kind: str) -> None:
    """Operands of both signs: negative results arise everywhere."""
    values = all_values(fmt)
    signed = list(dict.fromkeys([*values, *(-x for x in values if x > 0), *[math.inf, -math.inf]]))
    check(fmt, kind, all_operands(kind, [*signed, 0.0, -0.0] if 0.0 not in signed else [*signed, -0.0]))


@pytest.mark.parametrize("fmt", [f for f in TINY if f.bits < 6], ids=lambda f: f.name)
def test_subtraction_of_formats_of_at_most_five_bits_exhaustively(fmt: Format) -> None:
    check(fmt, "sub", itertools.product(all_values(fmt), repeat=2))


@pytest.mark.parametrize("fmt", variants(2, 1), ids=lambda f: f.name)
def test_fma_of_four_bit_formats_exhaustively(fmt: Format) -> None:
    check(fmt, "fma", itertools.product(all_values(fmt), repeat=3))


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [named("e2m2"), named("e3m1"), named("p3109_k5p3sf")], ids=lambda f: f.name)
def test_fma_of_five_bit_formats_exhaustively(fmt: Format) -> None:
    check(fmt, "fma", itertools.product(all_values(fmt), repeat=3))


@pytest.mark.parametrize("name", EIGHT)
def test_formats_of_eight_bits(name: str) -> None:
    values = all_values(named(name))
    check(named(name), "sqrt", itertools.product(values))
    rng = np.random.default_rng(8)
    for kind in ("add", "mul", "div", "fma"):
        check(named(name), kind, rng.choice(values, (600, ARITY[kind])).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("name", EIGHT)
def test_formats_of_eight_bits_exhaustively(name: str, kind: str) -> None:
    check(named(name), kind, itertools.product(all_values(named(name)), repeat=2))


def wide_cases(fmt: Format, kind: str, count: int) -> list[tuple[float, ...]]:
    """Operands on the result's grid, and binary64 operands off it."""
    rng = np.random.default_rng(fmt.bits)
    on_grid = rng.choice(interesting(fmt, count), (count, ARITY[kind]))
    off_grid = np.ldexp(
        rng.standard_normal(on_grid.shape), rng.integers(fmt.emin // 2 - 2, fmt.emax // 2 + 2, on_grid.shape)
    )
    # Sums that cancel or nearly tie: the second operand is of about the size of half a quantum of the first.
    tie = np.stack([on_grid[:, 0]] * ARITY[kind], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        tie[:, -1] = on_grid[:, 0] * rng.choice([-1.0, 1.0, fmt.eps / 2, fmt.eps / 4, -fmt.eps / 2], count)
    return [tuple(row) for array in (on_grid, off_grid, tie) for row in array.tolist()]


@pytest.mark.parametrize("kind", ARITY)
@pytest.mark.parametrize("name", WIDE)
def test_wide_formats(name: str, kind: str) -> None:
    check(named(name), kind, wide_cases(named(name), kind, 60))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARITY)
@pytest.mark.parametrize("name", WIDE)
def test_wide_formats_many(name: str, kind: str) -> None:
    check(named(name), kind, wide_cases(named(name), kind, 2000))


@pytest.mark.parametrize(
    "name", [*EIGHT, "binary16", "p3109_k5p1se", "float6_e3m2fn", "p3109_k6p3ue", "p3109_k6p1uf", "float8_e8m0fnu"]
)
def test_rounding_at_every_border(name: str) -> None:
    """Every value, every midpoint, and the binary64 numbers beside them, far beyond the largest value."""
    fmt = named(name)
    values = np.unique(np.abs(decode(np.arange(1 << fmt.bits), fmt)))
    values = values[np.isfinite(values)]
    if len(values) > 200:
        values = np.unique(np.concatenate([values[:40], values[:: len(values) // 100], values[-40:]]))
    values = np.append(values, [2 * values[-1] - values[-2], 2 * values[-1], 1e300])
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2])
    points = np.concatenate(
        [points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf), [5e-324, np.inf, np.nan]]
    )
    check(fmt, "round", [(x,) for x in np.concatenate([points, -points]).tolist()])
