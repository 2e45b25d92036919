"""Properties of formats against tables, brute force over their values, and the errors of bad ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import ml_dtypes
import numpy as np
import pytest
from oracles import unsigned_variants, variants

from fpsim.codes import decode
from fpsim.formats import NAMED
from fpsim.formats import format as named
from fpsim.number_format import Format
from fpsim.rounding import Stochastic

# p, emin, max, smallest normal, smallest subnormal (OCP OFP8 and MX specifications, IEEE 754, ml_dtypes)
TABLE = {
    "binary32": (24, -126, (2 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-149),
    "tf32": (11, -126, (2 - 2.0**-10) * 2.0**127, 2.0**-126, 2.0**-136),
    "bfloat16": (8, -126, (2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133),
    "binary16": (11, -14, 65504.0, 2.0**-14, 2.0**-24),
    "float8_e5m2": (3, -14, 57344.0, 2.0**-14, 2.0**-16),
    "float8_e5m2fnuz": (3, -15, 57344.0, 2.0**-15, 2.0**-17),
    "float8_e4m3fn": (4, -6, 448.0, 2.0**-6, 2.0**-9),
    "e4m3": (4, -6, 240.0, 2.0**-6, 2.0**-9),
    "float8_e4m3fnuz": (4, -7, 240.0, 2.0**-7, 2.0**-10),
    "float8_e4m3b11fnuz": (4, -10, 30.0, 2.0**-10, 2.0**-13),
    "float8_e3m4": (5, -2, 15.5, 2.0**-2, 2.0**-6),
    "float6_e3m2fn": (3, -2, 28.0, 0.25, 2.0**-4),
    "float6_e2m3fn": (4, 0, 7.5, 1.0, 0.125),
    "float4_e2m1fn": (2, 0, 6.0, 1.0, 0.5),
    "p3109_k8p4se": (4, -7, 224.0, 2.0**-7, 2.0**-10),
    "p3109_k8p3se": (3, -15, 49152.0, 2.0**-15, 2.0**-17),
    "float8_e8m0fnu": (1, -127, 2.0**127, 2.0**-127, 2.0**-127),
    "p3109_k8p1ue": (1, -127, 2.0**125, 2.0**-127, 2.0**-127),
    "p3109_k8p4uf": (4, -15, 57344.0, 2.0**-15, 2.0**-18),
}


@pytest.mark.parametrize("name", TABLE)
def test_published_numbers(name: str) -> None:
    fmt = named(name)
    assert (fmt.precision, fmt.emin, fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == TABLE[name]
    assert fmt.eps == 2.0 ** (1 - fmt.precision)
    assert fmt.emax == math.floor(math.log2(fmt.max))


@pytest.mark.parametrize("name", [name for name in NAMED if hasattr(ml_dtypes, name)])
def test_finfo_of_ml_dtypes(name: str) -> None:
    info, fmt = ml_dtypes.finfo(getattr(ml_dtypes, name)), named(name)
    ours = (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal, fmt.eps, fmt.bits, fmt.mantissa_bits)
    smallest = info.smallest_subnormal if fmt.has_zero else info.tiny  # ml_dtypes calls 0 a subnormal of e8m0
    theirs = (info.max, info.smallest_normal, smallest, info.eps, info.bits, info.nmant)
    assert tuple(map(float, theirs)) == tuple(map(float, ours))


@pytest.mark.parametrize(
    ("name", "dtype"), [("binary16", np.float16), ("binary32", np.float32), ("binary64", np.float64)]
)
def test_finfo_of_numpy(name: str, dtype: type) -> None:
    info, fmt = np.finfo(dtype), named(name)
    theirs = (info.max, info.smallest_normal, info.smallest_subnormal, info.eps)
    assert tuple(map(float, theirs)) == (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal, fmt.eps)


def test_unit_roundoff() -> None:
    fmt = named("bfloat16")
    for mode in ("nearest_even", "nearest_away"):
        assert fmt.unit_roundoff(mode) == 2.0**-8
    for mode in ("toward_zero", "up", "down", "to_odd", "stochastic", Stochastic(4)):
        assert fmt.unit_roundoff(mode) == 2.0**-7
    with pytest.raises(ValueError, match="rounding='nearest'"):
        fmt.unit_roundoff("nearest")


def test_a_format_is_a_value() -> None:
    assert Format(8, 7) == named("bfloat16") == named("e8m7")
    assert hash(Format(8, 7)) == hash(Format(8, 7, bias=127))
    assert Format(8, 7) != Format(8, 7, tiny="flush")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Format(8, 7).bias = 3  # type: ignore[misc]
    assert dataclasses.replace(Format(5, 2), mantissa_bits=3) == Format(5, 3)


def test_equal_names_mean_equal_formats() -> None:
    known: dict[str, Format] = {}
    choices = itertools.product(
        (3, 4),
        (0, 2),
        (None, 3, 8),
        (True, False),
        ("infinity", "saturate", "saturate_all", "nan"),
        ("ieee", "fn", "fnuz", "none", "nan_only", "p3109_extended", "p3109_finite"),
        (True, False),
        ("round", "flush"),
        ("significand", "code"),
        ("largest", "overflow"),
    )
    for e, m, bias, subnormals, overflow, specials, signed, tiny, parity, odd in choices:
        try:
            fmt = Format(e, m, bias, subnormals, overflow, specials, signed, tiny, parity, odd)  # type: ignore[arg-type]
        except ValueError as error:
            assert re.search("overflow=|mantissa_bits=0|fnuz|nan_only", str(error))  # noqa: PT017
            continue
        assert known.setdefault(fmt.name, fmt) == fmt
    assert len(known) > 1000


def test_default_bias() -> None:
    assert [Format(5, 2).bias, Format(5, 2, specials="fn", overflow="nan").bias] == [15, 15]
    assert Format(5, 2, specials="fnuz", overflow="nan").bias == 16
    assert Format(5, 2, specials="p3109_extended").bias == 16
    assert Format(5, 2, specials="p3109_finite", overflow="nan", signed=False).bias == 16
    assert Format(8, 0, specials="nan_only", overflow="nan", signed=False).bias == 127


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exponent_bits": 1}, r"exponent_bits=1 is outside 2\.\.11"),
        ({"exponent_bits": 12}, r"exponent_bits=12 is outside 2\.\.11"),
        ({"exponent_bits": 0, "specials": "none", "overflow": "saturate"}, r"exponent_bits=0 is outside 1\.\.11"),
        ({"mantissa_bits": 60}, r"mantissa_bits=60 is outside 1\.\.52"),
        ({"mantissa_bits": 0}, r"mantissa_bits=0 is outside 1\.\.52"),
        ({"mantissa_bits": -1, "specials": "fnuz", "overflow": "nan"}, r"mantissa_bits=-1 is outside 0\.\.52"),
        (
            {"exponent_bits": 1, "mantissa_bits": 0, "specials": "none", "overflow": "saturate"},
            "at least two magnitude bits",
        ),
        ({"bias": 3000}, r"bias=3000 is outside -2000\.\.2000"),
        ({"bias": 1100}, "the values reach from 2"),
        ({"bias": -1020}, "the values reach from 2"),
        ({"exponent_bits": 11, "specials": "fn", "overflow": "nan"}, "binary64, which carries them"),
        ({"overflow": "wrap"}, "overflow='wrap'; admissible: infinity, saturate, saturate_all, nan"),
        ({"specials": "ocp"}, "specials='ocp'; admissible: ieee, fn"),
        ({"tiny": "zero"}, "tiny='zero'; admissible: round, flush"),
        ({"specials": "fn"}, "has no infinity"),
        ({"specials": "none", "overflow": "nan"}, "has no NaN"),
        ({"signed": False, "specials": "fnuz", "overflow": "nan"}, 'signed=False: specials="fnuz" .* admissible: "fn"'),
        ({"specials": "nan_only", "overflow": "nan"}, 'signed=True with specials="nan_only"; admissible: False'),
        (
            {"specials": "nan_only", "overflow": "nan", "signed": False},
            'mantissa_bits=3 with specials="nan_only"; admissible: 0',
        ),
        (
            {"specials": "nan_only", "overflow": "nan", "signed": False, "mantissa_bits": 0, "tiny": "flush"},
            "tiny='flush' with",
        ),
        ({"specials": "nan_only", "signed": False, "mantissa_bits": 0}, "has no infinity"),
        (
            {"exponent_bits": 1, "mantissa_bits": 1, "specials": "p3109_extended", "signed": False},
            "no code is left for a normal number",
        ),
        ({"parity": "odd"}, "parity='odd'; admissible: significand, code"),
        ({"odd_overflow": "infinity"}, "odd_overflow='infinity'; admissible: largest, overflow"),
        ({"overflow": ["nan"]}, r"overflow=\['nan'\]; admissible: infinity"),
        ({"overflow": np.array(["nan", "saturate"])}, r"overflow=array\(.*; admissible: infinity"),
    ],
)
def test_bad_formats_raise(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Format(**{"exponent_bits": 4, "mantissa_bits": 3, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [3.0, True, "3", None, np.array([3, 4]), [3]], ids=repr)
def test_widths_are_integers(value: object) -> None:
    with pytest.raises(TypeError, match="an integer in"):
        Format(5, value)  # type: ignore[arg-type]


def finite_values(fmt: Format) -> set[float]:
    values = decode(np.arange(1 << fmt.bits), fmt)
    return set(values[np.isfinite(values)].tolist())


def test_holds_against_the_sets_of_values() -> None:
    formats = [f for widths in ((2, 1), (2, 2), (3, 1), (3, 2), (2, 3), (4, 1)) for f in variants(*widths)]
    formats += [dataclasses.replace(f, subnormals=False) for f in formats]
    formats += [Format(3, 2, bias=5), Format(3, 2, bias=1), named("p3109_k6p1se"), named("p3109_k5p4sf")]
    formats += [f for widths in ((2, 2), (2, 1), (3, 2)) for f in unsigned_variants(*widths)]
    formats += [named(f"p3109_k{k}p{p}u{d}") for k, p in ((3, 1), (3, 3), (5, 2)) for d in "ef"]
    formats += [
        Format(1, 1, specials="fn", overflow="nan", subnormals=s) for s in (True, False)
    ]  # 2^emin is the largest
    formats += [Format(e, 0, specials="nan_only", overflow="nan", signed=False) for e in (2, 3)]
    values = {fmt: finite_values(fmt) for fmt in formats}
    held = 0
    for wide, narrow in itertools.product(formats, repeat=2):
        assert wide.holds(narrow) == (values[narrow] <= values[wide]), (wide.name, narrow.name)
        held += wide.holds(narrow)
    assert held > len(formats)


def test_binary64_holds_everything() -> None:
    for name in NAMED:
        assert named("binary64").holds(named(name))
    assert not named("binary32").holds(named("binary64"))
    assert not named("bfloat16").holds(named("binary16"))


def test_numpy_integers_and_strings_are_python_ones_and_flags_are_bools() -> None:
    made = Format(np.int64(8), np.uint8(7), bias=np.int32(127), overflow=np.str_("saturate"))
    assert repr(made) == repr(Format(8, 7, overflow="saturate"))
    for name in ("subnormals", "signed"):
        with pytest.raises(TypeError, match=f"{name}='no'; admissible: True, False"):
            Format(8, 7, **{name: "no"})


def test_counts_and_ends_are_those_of_the_codes() -> None:
    formats = [f for widths in ((2, 1), (3, 2), (2, 3)) for f in (*variants(*widths), *unsigned_variants(*widths))]
    formats += [dataclasses.replace(f, subnormals=False) for f in formats]
    formats += [named(name) for name in NAMED if named(name).bits <= 16]
    formats += [named(f"p3109_k6p{p}{domain}") for p in range(1, 6) for domain in ("se", "sf", "ue", "uf")]
    for fmt in formats:
        values = finite_values(fmt)
        assert fmt.count == len(values)
        assert (fmt.lowest, fmt.max) == (min(values), max(values))
        assert fmt.max >= fmt.smallest_normal
        assert fmt.smallest_subnormal == min(x for x in values if x > 0)
        assert fmt.has_zero == (0.0 in values)
        assert fmt.least == min(x for x in values if x >= 0)
        assert float(decode(fmt.largest_code, fmt)) == fmt.max


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "float8_e8m0fnu",
            [
                "bits:               8 = 0 sign + 8 exponent + 0 mantissa",
                "zero:               none",
                "finite values:      255",
            ],
        ),
        ("p3109_k8p3ue", ["lowest:             0", "specials:           NaN at the top code, infinity below it"]),
        ("p3109_k6p1se", ["even and odd:       by code", "overflow to odd:    as overflow says"]),
        ("float8_e4m3fn", ["max:                448", "zero:               +0 and -0", "overflow:           nan"]),
    ],
)
def test_a_format_prints_as_a_table(name: str, lines: list[str]) -> None:
    table = named(name).table(name)
    assert table.startswith(f"format:             {name} (")
    assert [line for line in lines if line not in table.split("\n")] == []
    assert named(name).table().startswith(f"format:             {named(name).name}\n")
    assert max(map(len, table.split("\n"))) <= 100


def test_flushing_is_told() -> None:
    """Codes hold the subnormal numbers, results are none of them."""
    fmt = Format(3, 2, tiny="flush")
    assert "tiny:               flush: results below the smallest normal number become zero" in fmt.table().split("\n")
    assert fmt.count == len({x for x in finite_values(fmt) if x == 0.0 or abs(x) >= fmt.smallest_normal})
    assert not fmt.holds(Format(3, 2))
    assert fmt.holds(Format(3, 2, subnormals=False))
    assert Format(3, 2).holds(fmt)
    assert not Format(3, 2, subnormals=False).holds(fmt)


def test_every_format_prints() -> None:
    for e, m in ((2, 1), (4, 3), (11, 52)):
        for fmt in (*variants(e, m), *unsigned_variants(e, m)) if e < 11 else (Format(11, 52),):
            assert fmt.table().count("\n") >= 15
            assert str(fmt) == fmt.table()
