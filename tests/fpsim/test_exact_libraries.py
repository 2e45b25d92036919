"""The specification against gfloat, ml_dtypes, NumPy and torch, with every known disagreement.

=====================================  ==================================  ==========================================
case                                   they                                we, and why
=====================================  ==================================  ==========================================
float64 -> bfloat16, float8            ml_dtypes, torch: through float32,  one rounding; used as oracles from float32
                                       two roundings                       input only
float64 -> binary16                    torch: through float32              one rounding (as NumPy)
overflow of float8_e4m3fn              torch 2.13: largest finite value,   both are policies of a Format: "nan" (the
                                       for infinities too; torch 2.11 and  named format) and "saturate_all"
                                       ml_dtypes: NaN
NaN -> a format without NaN            ml_dtypes: zero of the other sign;  a NaN stays one inside the machine;
                                       gfloat: ValueError                  ``encode`` raises ValueError
just below a tie, nearest away         gfloat: up, as it adds 1/2 in       the nearer value
                                       binary64
tie between two values, p = 1          gfloat, P3109: parity of the code,  the field ``parity``: "code" in the named
                                       alternating with the exponent;      P3109 formats, else "significand"
                                       MPFR, ml_dtypes, torch: away
overflow in finite P3109 formats       gfloat: NaN                         largest finite value (P3109 v4.0, SatNone)
overflow to odd                        SoftFloat: largest finite value;    the field ``odd_overflow``; gfloat has no
                                       P3109: infinity, signed extended    such mode
0 -> e8m0, which has no zero           ml_dtypes: NaN; gfloat: 0;          smallest value, 2^-127: what is rounded to 0
                                       torch: smallest value               goes there, and 0 with it
-1 -> e8m0, which has no sign          torch: 1; gfloat: -1                NaN (as ml_dtypes)
-2^-140 -> e8m0                        ml_dtypes: NaN                      smallest value: rounded first (as torch)
1.2 * 2^-127 -> e8m0                   ml_dtypes, torch: 2^-126            2^-127, the nearer one
1.5 * 2^-127 -> e8m0, below 2^-127     gfloat: no value of the format      as above
-1 -> an unsigned format               gfloat: -1, no value of it          NaN; 0 toward zero and up and if saturating
                                                                           (P3109 section 4.7.5)
code of the quiet NaN of float8_e5m2   torch: 0x7f                         0x7e, top fraction bit only (as ml_dtypes)
sign of a NaN                          ml_dtypes, torch: kept              one NaN, sign 0
=====================================  ==================================  ==========================================

Each row is asserted below, so that a library that changes is noticed.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat.types import RoundMode
from oracles import GFLOAT, MODES, assert_same, bits, gfloat_info, interesting, unsigned_variants, variants

from fpsim import exact
from fpsim.codes import decode, encode
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.rounding import Stochastic

ML_DTYPES = {
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float8_e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "float8_e3m4": ml_dtypes.float8_e3m4,
    "e4m3": ml_dtypes.float8_e4m3,
    "float6_e2m3fn": ml_dtypes.float6_e2m3fn,
    "float6_e3m2fn": ml_dtypes.float6_e3m2fn,
    "float4_e2m1fn": ml_dtypes.float4_e2m1fn,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
}
TORCH = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "bfloat16": torch.bfloat16,
    "float8_e8m0fnu": torch.float8_e8m0fnu,
    "binary16": torch.float16,
}
SATURATING = Format(4, 3, specials="fn", overflow="saturate_all")
# What torch calls float8_e4m3fn: NaN from overflow in 2.11, which saturates in 2.13.
TORCH_SATURATES = torch.tensor(1e9).to(torch.float8_e4m3fn).item() == 448.0
TORCH_FORMATS = {name: named(name) for name in TORCH} | ({"float8_e4m3fn": SATURATING} if TORCH_SATURATES else {})


def borders(fmt: Format, dtype: Any, limit: int = 300) -> np.ndarray:
    """Values of the format, midpoints, the neighbours of both in ``dtype``, and numbers of all sizes."""
    half = 1 << (fmt.bits - fmt.signed)
    values = np.unique(decode(np.arange(0, half, max(1, half // limit)), fmt))
    values = values[np.isfinite(values)]
    step = math.ldexp(fmt.eps, fmt.emax)
    values = np.append(values, [fmt.max - step, fmt.max, fmt.max + step / 2, fmt.max + step])
    halves = values + np.ldexp(1.0, np.maximum(np.frexp(values)[1] - 1, fmt.emin) - fmt.mantissa_bits - 1)
    with np.errstate(over="ignore"):
        points = np.concatenate([values, halves]).astype(dtype)
        inf = dtype(np.inf)
        points = np.concatenate([points, np.nextafter(points, inf), np.nextafter(points, -inf)])
    rng = np.random.default_rng(fmt.bits)
    spread = rng.standard_normal(500) * np.exp2(rng.uniform(fmt.emin - fmt.mantissa_bits - 2, fmt.emax + 2, 500))
    with np.errstate(over="ignore", invalid="ignore"):
        points = np.concatenate([points, spread.astype(dtype), np.array([1e30, 1e-30, np.inf, np.nan], dtype)])
    if fmt.signed:
        return np.concatenate([points, -points])
    # See the table for what is left out: negative numbers, and in e8m0 what lies beside the smallest value.
    positive = points[~(points <= 0)]
    least = fmt.smallest_normal
    return (
        positive if fmt.has_zero else positive[~(positive < least) & ~((positive > least) & (positive < 1.5 * least))]
    )


def rounded(points: np.ndarray, fmt: Format, mode: Any = "nearest_even", word: int = 0) -> list[float]:
    return [exact.operation("round", (float(x),), fmt, mode, word) for x in points]


@pytest.mark.parametrize("name", ML_DTYPES)
def test_ml_dtypes_from_float32(name: str) -> None:
    points = borders(named(name), np.float32)
    if not named(name).has_nan:
        points = points[~np.isnan(points)]
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = points.astype(ML_DTYPES[name]).astype(np.float64)
    assert_same(rounded(points, named(name)), theirs.tolist(), points.tolist(), name)


@pytest.mark.parametrize("name", TORCH)
def test_torch_from_float32(name: str) -> None:
    points = borders(TORCH_FORMATS[name], np.float32)
    theirs = torch.from_numpy(points).to(TORCH[name]).to(torch.float64)
    assert_same(rounded(points, TORCH_FORMATS[name]), theirs.tolist(), points.tolist(), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_every_bfloat16_and_binary16_value(name: str) -> None:
    fmt = named(name)
    for wide in ("bfloat16", "binary16"):
        points = decode(np.arange(1 << 16), wide).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            theirs = points.astype(ML_DTYPES[name]).astype(np.float64)
        assert_same(rounded(points, fmt), theirs.tolist(), points.tolist(), name)


@pytest.mark.parametrize(("name", "dtype"), [("binary16", np.float16), ("binary32", np.float32)])
def test_numpy_conversion_from_float64(name: str, dtype: Any) -> None:
    points = borders(named(name), np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        theirs = points.astype(dtype).astype(np.float64)
    assert_same(rounded(points, named(name)), theirs.tolist(), points.tolist(), name)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "sqrt"])
@pytest.mark.parametrize(
    ("name", "dtype"), [("binary16", np.float16), ("binary32", np.float32), ("binary64", np.float64)]
)
def test_numpy_arithmetic(name: str, dtype: Any, kind: str) -> None:
    fmt = named(name)
    rng = np.random.default_rng(5)
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "sqrt": np.sqrt}[kind]
    operands = rng.choice(interesting(fmt, 300), (function.nin, 1500)).astype(dtype)
    with np.errstate(all="ignore"):
        theirs = function(*operands).astype(np.float64).tolist()
    cases = [tuple(float(x) for x in column) for column in operands.T]
    assert_same([exact.operation(kind, case, fmt, "nearest_even") for case in cases], theirs, cases, name)


GFLOAT_FORMATS = [f for widths in ((2, 1), (3, 2), (4, 3), (5, 2)) for f in variants(*widths)] + [
    named(name) for name in ("bfloat16", "binary16", "binary32", "e8m10", "p3109_k8p7se", "p3109_k8p3sf")
]
GFLOAT_FORMATS += [f for widths in ((2, 1), (4, 3)) for f in unsigned_variants(*widths)]
GFLOAT_FORMATS += [named(f"p3109_k{k}p{p}{s}") for k, p in ((8, 1), (6, 2)) for s in ("se", "sf", "ue", "uf")]
GFLOAT_FORMATS += [named("p3109_k8p8ue"), dataclasses.replace(named("float8_e8m0fnu"), parity="code")]


@pytest.mark.parametrize("fmt", GFLOAT_FORMATS, ids=lambda f: f.name)
def test_gfloat_rounding(fmt: Format) -> None:
    points = borders(fmt, np.float64, 100)
    if not fmt.has_nan:
        points = points[~np.isnan(points)]
    info, saturate = gfloat_info(fmt), fmt.overflow == "saturate_all"
    with np.errstate(over="ignore"):
        narrow = np.isnan(points) | (points == points.astype(np.float32))
    for mode, theirs in GFLOAT.items():
        # nearest_away: without the points just below a tie, see the table
        given = points[narrow] if mode == "nearest_away" and fmt.precision < 24 else points
        expected = [float(gfloat.round_float(info, float(x), theirs, sat=saturate)) for x in given]
        assert_same(rounded(given, fmt, mode), expected, given.tolist(), mode)


@pytest.mark.parametrize("count", [1, 3, 8, 16])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "p3109_k8p4se", "bfloat16"])
def test_gfloat_stochastic_fastest_is_variant_a(name: str, count: int) -> None:
    fmt = named(name)
    points = borders(fmt, np.float64, 40)[::3]
    for word in sorted({0, 1, (1 << count) // 2, (1 << count) - 1}):
        expected = [
            float(
                gfloat.round_float(
                    gfloat_info(fmt), float(x), RoundMode.StochasticFastest, srbits=word, srnumbits=count
                )
            )
            for x in points
        ]
        assert_same(rounded(points, fmt, Stochastic(count), word), expected, points.tolist(), (count, word))


# The table of disagreements, row by row.


@pytest.mark.parametrize(
    ("name", "x", "ours"),
    [
        ("bfloat16", 1 + 2**-8 + 2**-40, 1 + 2**-7),
        ("float8_e4m3fn", 1 + 2**-4 + 2**-40, 1 + 2**-3),
        ("float8_e5m2", 1 + 2**-3 + 2**-40, 1 + 2**-2),
    ],
)
def test_libraries_round_float64_twice(name: str, x: float, ours: float) -> None:
    assert exact.operation("round", (x,), named(name), "nearest_even") == ours
    assert float(np.array(x).astype(ML_DTYPES[name])) == 1.0
    assert torch.tensor(x, dtype=torch.float64).to(TORCH[name]).item() == 1.0


def test_torch_rounds_float64_to_binary16_twice() -> None:
    x = 1 + 2**-11 + 2**-40
    assert exact.operation("round", (x,), named("binary16"), "nearest_even") == float(np.float16(x)) == 1 + 2**-10
    assert torch.tensor(x, dtype=torch.float64).to(torch.float16).item() == 1.0


@pytest.mark.parametrize("x", [465.0, 1e9, math.inf])
def test_overflow_of_e4m3fn_is_a_policy(x: float) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        assert math.isnan(float(np.float32(x).astype(ml_dtypes.float8_e4m3fn)))
    assert math.isnan(exact.operation("round", (x,), named("float8_e4m3fn"), "nearest_even"))
    theirs = torch.tensor(x).to(torch.float8_e4m3fn).to(torch.float32).item()
    assert theirs == 448.0 if TORCH_SATURATES else math.isnan(theirs)
    assert {"2.11": False, "2.13": True}.get(torch.__version__[:4]) in (None, TORCH_SATURATES)
    assert exact.operation("round", (x,), SATURATING, "nearest_even") == 448.0
    finite_only = Format(4, 3, specials="fn", overflow="saturate")
    ours = exact.operation("round", (x,), finite_only, "nearest_even")
    assert math.isnan(ours) if math.isinf(x) else ours == 448.0


@pytest.mark.parametrize("name", ["float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"])
def test_nan_into_a_format_without_nan(name: str) -> None:
    with np.errstate(invalid="ignore"):
        theirs = float(np.float32(np.nan).astype(ML_DTYPES[name]))
    assert theirs == 0.0
    assert math.copysign(1.0, theirs) == -1.0
    assert math.isnan(exact.operation("round", (math.nan,), named(name), "nearest_even"))
    with pytest.raises(ValueError, match="nan at index 0"):
        encode([math.nan], named(name))
    with pytest.raises(ValueError, match="No NaN in format"):
        gfloat.round_float(gfloat_info(named(name)), math.nan)


def test_gfloat_rounds_away_just_below_a_tie() -> None:
    x = math.nextafter(0.25, 0.0)  # half of the smallest value of e2m1 is 1/4
    fmt = named("e2m1")
    assert gfloat.round_float(gfloat_info(fmt), x, RoundMode.TiesToAway) == 0.5
    assert exact.operation("round", (x,), fmt, "nearest_away") == 0.0


def test_ties_of_one_bit_significands() -> None:
    fmt = named("p3109_k6p1se")
    info = gfloat_info(fmt)
    powers = [2.0**k for k in range(-4, 4)]
    theirs = [gfloat.round_float(info, 1.5 * x) / x for x in powers]
    assert theirs in ([1, 2] * 4, [2, 1] * 4)
    assert [exact.operation("round", (1.5 * x,), fmt, "nearest_even") / x for x in powers] == theirs
    by_significand = dataclasses.replace(fmt, parity="significand")
    assert [exact.operation("round", (1.5 * x,), by_significand, "nearest_even") / x for x in powers] == [2] * 8
    for e8m0 in (ml_dtypes.float8_e8m0fnu, None):
        given = np.array([1.5 * x for x in powers], np.float32)
        there = (
            given.astype(e8m0).astype(float)
            if e8m0
            else torch.from_numpy(given).to(torch.float8_e8m0fnu).double().numpy()
        )
        assert (there / powers).tolist() == [2] * 8
    below = fmt.smallest_subnormal / 2  # the tie with zero goes to zero
    assert exact.operation("round", (below,), fmt, "nearest_even") == gfloat.round_float(info, below) == 0.0


@pytest.mark.parametrize(
    ("x", "ours", "in_ml_dtypes", "in_torch", "in_gfloat"),
    [
        (0.0, 2.0**-127, math.nan, 2.0**-127, 0.0),
        (-0.0, 2.0**-127, math.nan, 2.0**-127, 0.0),
        (-1.0, math.nan, math.nan, 1.0, -1.0),
        (-(2.0**-140), 2.0**-127, math.nan, 2.0**-127, -(2.0**-140)),
        (2.0**-140, 2.0**-127, 2.0**-127, 2.0**-127, 2.0**-140),
        (1.25 * 2.0**-127, 2.0**-127, 2.0**-126, 2.0**-126, 2.0**-127),
        (1.5 * 2.0**-127, 2.0**-126, 2.0**-126, 2.0**-126, 2.0**-127),
        (1.5 * 2.0**127, math.nan, math.nan, math.nan, 2.0**127),
        (math.inf, math.nan, math.nan, math.nan, math.nan),
    ],
)
def test_the_edges_of_e8m0(x: float, ours: float, in_ml_dtypes: float, in_torch: float, in_gfloat: float) -> None:
    fmt = named("float8_e8m0fnu")
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = [
            float(np.float32(x).astype(ml_dtypes.float8_e8m0fnu)),
            torch.tensor(x).to(torch.float8_e8m0fnu).double().item(),
            float(gfloat.round_float(gfloat_info(fmt), x)),
        ]
    assert (
        bits([exact.operation("round", (x,), fmt, "nearest_even"), *theirs]).tolist()
        == bits([ours, in_ml_dtypes, in_torch, in_gfloat]).tolist()
    )


def test_negative_numbers_and_unsigned_formats() -> None:
    fmt = named("p3109_k6p3ue")
    assert gfloat.round_float(gfloat_info(fmt), -1.0) == -1.0
    assert math.isnan(exact.operation("round", (-1.0,), fmt, "nearest_even"))
    with pytest.raises(ValueError, match=r"-1\.0 at index 0"):
        encode([-1.0], fmt)


def test_overflow_of_finite_p3109_formats() -> None:
    fmt = named("p3109_k8p3sf")
    assert math.isnan(gfloat.round_float(gfloat_info(fmt), 1e9))
    assert all(exact.operation("round", (1e9,), fmt, mode) == fmt.max for mode in MODES)


def test_the_quiet_nan_pattern() -> None:
    nan = torch.tensor([math.nan, -math.nan])
    assert nan.to(torch.float8_e5m2).view(torch.uint8).tolist() == [0x7F, 0xFF]
    assert np.array([math.nan, -math.nan], np.float32).astype(ml_dtypes.float8_e5m2).view(np.uint8).tolist() == [
        0x7E,
        0xFE,
    ]
    assert encode([math.nan, -math.nan], "float8_e5m2").tolist() == [0x7E, 0x7E]
