"""Bit patterns: every code there and back, and against the tables of gfloat, ml_dtypes, NumPy and torch."""

from __future__ import annotations

import math
from typing import Any

import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from oracles import bits, gfloat_info, unsigned_variants, variants

from fpsim.codes import decode, encode
from fpsim.formats import NAMED
from fpsim.formats import format as named
from fpsim.number_format import Format

SMALL = [named(name) for name in NAMED if named(name).bits <= 8]
SMALL += [f for e in range(1, 8) for m in range(7) if 3 <= 1 + e + m <= 8 and e > 1 and m > 0 for f in variants(e, m)]
SMALL += [named(f"p3109_k{k}p{p}s{domain}") for k in range(3, 9) for p in range(1, k) for domain in "ef"]
SMALL += [named(f"p3109_k{k}p{p}u{domain}") for k in range(3, 9) for p in range(1, k + 1) for domain in "ef"]
SMALL += [f for e, m in ((2, 1), (3, 2), (5, 3), (4, 4)) for f in unsigned_variants(e, m)]
SMALL += [Format(e, 0, specials="nan_only", overflow="nan", signed=False) for e in (2, 5)]
SMALL += [Format(4, 3, subnormals=False), Format(3, 2, bias=-20), Format(2, 1, bias=-1000), Format(2, 3, bias=1000)]
ML_DTYPES = {
    **{name: name for name in NAMED if hasattr(ml_dtypes, name)},
    "e4m3": "float8_e4m3",
    "bfloat16": "bfloat16",
}
TORCH = ["float8_e8m0fnu", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "bfloat16"]
WIDE = ["binary32", "binary64", "tf32", "e11m40", "e10m45", "e9m13", "e11m1", "e2m52"]


def all_codes(fmt: Format) -> np.ndarray:
    return np.arange(1 << fmt.bits, dtype=np.min_scalar_type((1 << fmt.bits) - 1))


# gfloat's formats without subnormals have other codes than ours.
@pytest.mark.parametrize("fmt", [f for f in SMALL if f.subnormals], ids=lambda f: f.name)
def test_every_small_code_against_gfloat(fmt: Format) -> None:
    theirs = [float(gfloat.decode_float(gfloat_info(fmt), code).fval) for code in range(1 << fmt.bits)]
    assert bits(decode(all_codes(fmt), fmt)).tolist() == bits(theirs).tolist()


@pytest.mark.parametrize(("name", "theirs"), ML_DTYPES.items())
def test_every_code_against_ml_dtypes(name: str, theirs: str) -> None:
    codes = all_codes(named(name))
    with np.errstate(invalid="ignore"):  # signalling NaNs
        table = codes.view(getattr(ml_dtypes, theirs)).astype(np.float64)
    values = decode(codes, name)
    assert bits(values).tolist() == bits(table).tolist()
    finite = ~np.isnan(values)
    assert encode(table[finite], name).tolist() == codes[finite].tolist()
    assert encode(codes.view(getattr(ml_dtypes, theirs)), name)[finite].tolist() == codes[finite].tolist()


def test_our_quiet_nan_is_that_of_ml_dtypes() -> None:
    for name, theirs in ML_DTYPES.items():
        if named(name).has_nan:
            nan = np.array([np.nan], np.float32).astype(getattr(ml_dtypes, theirs))
            assert encode([np.nan], name).tolist() == nan.view(encode(1.0, name).dtype).tolist()


@pytest.mark.parametrize("name", TORCH)
def test_every_code_against_torch(name: str) -> None:
    codes = all_codes(named(name))
    signed = torch.from_numpy(codes.view(np.int8 if codes.dtype == np.uint8 else np.int16))
    assert bits(decode(codes, name)).tolist() == bits(signed.view(getattr(torch, name)).double().numpy()).tolist()


@pytest.mark.parametrize(
    ("name", "dtype"), [("binary16", np.float16), ("binary32", np.float32), ("binary64", np.float64)]
)
def test_ieee_formats_against_numpy(name: str, dtype: type) -> None:
    fmt = named(name)
    rng = np.random.default_rng(1)
    codes = rng.integers(0, (1 << fmt.bits) - 1, 20_000, dtype=np.uint64, endpoint=True)
    codes = all_codes(fmt) if fmt.bits == 16 else codes.astype(np.min_scalar_type((1 << fmt.bits) - 1))
    values = decode(codes, fmt)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        theirs = codes.view(dtype).astype(np.float64)
    assert bits(values).tolist() == bits(theirs).tolist()
    number = ~np.isnan(values)
    assert encode(values[number], fmt).tolist() == codes[number].tolist()
    assert encode([math.nan], fmt).view(dtype).view(codes.dtype)[0] == np.array([math.nan], dtype).view(codes.dtype)[0]


@pytest.mark.parametrize("fmt", [*SMALL, *map(named, WIDE), named("binary16")], ids=lambda f: f.name)
def test_all_codes_go_there_and_back(fmt: Format) -> None:
    if fmt.bits <= 16:
        codes = all_codes(fmt)
    else:
        rng = np.random.default_rng(2)
        codes = rng.integers(0, (1 << fmt.bits) - 1, 20_000, dtype=np.uint64, endpoint=True)
        codes = np.concatenate([codes, codes % np.uint64(1 << fmt.mantissa_bits)])  # subnormal numbers too
    values = decode(codes, fmt)
    back = encode(values, fmt)
    assert back.dtype == next(np.dtype(f"u{size}") for size in (1, 2, 4, 8) if 8 * size >= fmt.bits)
    kept = ~np.isnan(values)
    if not fmt.subnormals:
        kept &= (values != 0) | (codes & ((1 << (fmt.bits - fmt.signed)) - 1) == 0)
    assert back[kept].tolist() == codes[kept].tolist()
    if fmt.bits <= 8:
        numbers = decode(codes[kept & np.isfinite(values)], fmt).tolist()
        assert (min(numbers), max(numbers)) == (fmt.lowest, fmt.max)
        assert min(x for x in numbers if x > 0) == fmt.smallest_subnormal
        assert (sum(np.isinf(values)) > 0) == fmt.has_infinity
        assert (sum(np.isnan(values)) > 0) == fmt.has_nan
        assert any(x == 0 and math.copysign(1, x) < 0 for x in numbers) == fmt.has_negative_zero


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("binary16", 0x7E00),
        ("e2m1", 0x7),
        ("float8_e4m3fn", 0x7F),
        ("float8_e4m3fnuz", 0x80),
        ("p3109_k8p4se", 0x80),
        ("p3109_k6p3sf", 0x20),
        ("p3109_k6p3uf", 0x3F),
        ("p3109_k8p4ue", 0xFF),
        ("float8_e8m0fnu", 0xFF),
        (Format(3, 2, signed=False), 0x1E),
        (Format(3, 2, specials="fn", overflow="nan", signed=False), 0x1F),
    ],
)
def test_the_canonical_quiet_nan(name: str | Format, code: int) -> None:
    assert encode([math.nan, -math.nan], name).tolist() == [code, code]
    assert np.signbit(decode([code], name)).tolist() == [False]


def test_patterns_of_missing_subnormals_are_zeros() -> None:
    fmt = Format(4, 3, subnormals=False)
    assert bits(decode([0x01, 0x07, 0x81, 0x08], fmt)).tolist() == bits([0.0, 0.0, -0.0, 2.0**-6]).tolist()
    with pytest.raises(ValueError, match="is not a value"):
        encode(2.0**-7, fmt)


@pytest.mark.parametrize("specials", ["fnuz", "p3109_extended", "p3109_finite"])
def test_patterns_of_missing_subnormals_are_the_one_zero(specials: Any) -> None:
    fmt = Format(2, 2, specials=specials, overflow="saturate", subnormals=False)
    values = decode(all_codes(fmt), fmt)
    assert bits(values[[0, 1, 3, 17, 19]]).tolist() == [0] * 5
    assert np.isnan(values[16])
    assert bits(decode(encode(values, fmt), fmt)).tolist() == bits(values).tolist()


def test_negative_zero_becomes_the_one_zero() -> None:
    assert encode([-0.0, 0.0], "float8_e4m3fnuz").tolist() == [0, 0]
    assert encode([-0.0, 0.0], "float8_e4m3fn").tolist() == [0x80, 0]


def test_shapes_and_dtypes() -> None:
    assert decode(0x3C00, "binary16").shape == ()
    assert float(decode(0x3C00, "binary16")) == 1.0
    assert int(encode(1.0, "binary16")) == 0x3C00
    assert encode(np.ones((2, 3), np.float16), "binary16").shape == (2, 3)
    assert encode([], "e5m2").shape == decode(np.array([], np.uint8), "e5m2").shape == (0,)
    assert encode([1, -3], "e5m2").tolist() == encode([1.0, -3.0], "e5m2").tolist()
    assert decode(np.array([0x3C], np.int8), "float8_e5m2").tolist() == [1.0]
    transposed = np.arange(12, dtype=np.uint8).reshape(3, 4).T
    assert encode(decode(transposed, "e4m3"), "e4m3").tolist() == transposed.tolist()


@pytest.mark.parametrize(
    ("x", "name", "message"),
    [
        ([1.0, 0.1], "bfloat16", r"x=0\.1 at index 1 is not a value of e8m7"),
        ([[1.0, 2.0], [math.nan, 1.0]], "float4_e2m1fn", r"x=nan at index \(1, 0\) .*no NaN"),
        ([math.inf], "float8_e4m3fn", r"x=inf at index 0 .*largest 448\.0, no infinity"),
        ([-math.inf], "p3109_k8p3sf", "x=-inf at index 0"),
        ([449.0], "float8_e4m3fn", r"x=449\.0"),
        ([480.0], "float8_e4m3fn", r"x=480\.0"),
        ([1e300], "binary32", r"x=1e\+300"),
        ([2.0**-25], "binary16", "x=2.98"),
        ([5e-324], "e2m1", "x=5e-324"),
        (5e-324, Format(2, 1, bias=-1000), "x=5e-324"),
        ([2**53 + 2], "binary64", "integers beyond"),
        ([1.0, -1.0], "p3109_k6p3uf", r"x=-1\.0 at index 1"),
        ([-0.5, -math.inf], "p3109_k6p3ue", r"x=-0\.5 at index 0"),
        ([-math.inf], "p3109_k6p3ue", "x=-inf at index 0"),
        ([1.0, 0.0], "float8_e8m0fnu", r"x=0\.0 at index 1"),
        ([-0.0], "float8_e8m0fnu", r"x=-0\.0 at index 0"),
        ([3.0], "float8_e8m0fnu", r"x=3\.0 at index 0"),
        ([2.0**-128], "float8_e8m0fnu", "x=2.9"),
    ],
)
def test_what_is_no_value_raises(x: object, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(x, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codes", "message"), [([3, 256], "code 256 at index 1"), ([-1], "code -1 at index 0 is outside 0..255")]
)
def test_codes_outside_raise(codes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(codes, "float8_e5m2")


def test_what_is_no_number_raises() -> None:
    with pytest.raises(TypeError, match="integers in"):
        decode([1.0], "e5m2")
    for x in (["a"], [1j], [None]):
        with pytest.raises(TypeError, match="real numbers"):
            encode(x, "e5m2")  # type: ignore[arg-type]


def test_empty_lists_and_wide_floats() -> None:
    assert decode([], "bfloat16").shape == encode([], "bfloat16").shape == (0,)
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match="at most 64 bits"):
            encode(np.ones(1, dtype=np.longdouble), "binary64")


@pytest.mark.parametrize("x", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
def test_integers_that_binary64_cannot_hold_raise(x: int) -> None:
    """2^53 + 1 becomes 2^53 in binary64: compared after that, it would pass."""
    with pytest.raises(ValueError, match=r"integers beyond 2\^53"):
        encode([0, x], "binary64")
