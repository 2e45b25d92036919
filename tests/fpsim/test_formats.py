"""Names of formats."""

from __future__ import annotations

import gfloat
import pytest
from gfloat.formats import format_info_p3109
from gfloat.types import Domain, Signedness

from fpsim.formats import ALIASES, NAMED
from fpsim.formats import format as named
from fpsim.number_format import Format


def test_names() -> None:
    assert named("e8m23") == named("binary32") == named("float32") == Format(8, 23)
    assert named("e4m3").max == 240.0
    assert named("float8_e4m3fn").max == 448.0
    assert named(Format(3, 3)) == Format(3, 3)
    for alias, name in ALIASES.items():
        assert named(alias) == NAMED[name]


P3109 = [(k, p) for k in range(3, 13) for p in range(1, k + 1)]


@pytest.mark.parametrize("domain", ["e", "f"])
@pytest.mark.parametrize("sign", ["s", "u"])
@pytest.mark.parametrize(("width", "precision"), P3109)
def test_p3109_families_against_gfloat(width: int, precision: int, sign: str, domain: str) -> None:
    name = f"p3109_k{width}p{precision}{sign}{domain}"
    if precision > width - (sign == "s") or width - precision + (sign == "u") > 11:
        with pytest.raises(ValueError, match=rf"'{name}': (.*precision in 1\.\.width|exponent_bits=12 is outside)"):
            named(name)
        return
    fmt = named(name)
    signedness = Signedness.Signed if sign == "s" else Signedness.Unsigned
    info = format_info_p3109(width, precision, signedness, Domain.Extended if domain == "e" else Domain.Finite)
    assert (fmt.bits, fmt.precision, fmt.bias, fmt.signed) == (info.k, info.precision, info.bias, info.is_signed)
    assert fmt.has_infinity == (info.num_posinfs == 1)
    assert fmt.max == gfloat.decode_float(info, info.code_of_max).fval
    assert fmt.lowest == gfloat.decode_float(info, info.code_of_min).fval
    assert fmt.largest_code == info.code_of_max
    assert fmt.smallest_subnormal == gfloat.decode_float(info, 1).fval
    assert fmt.parity == ("code" if precision == 1 else "significand")
    assert fmt.odd_overflow == ("overflow" if sign + domain == "se" else "largest")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bfloat61", "format 'bfloat61' is unknown; did you mean bfloat16"),
        ("qqqqqq", r"format 'qqqqqq' is unknown; known: binary16.*eXmY"),
        ("e4m60", r"mantissa_bits=60 is outside 1\.\.52"),
        ("e12m3", r"exponent_bits=12 is outside 2\.\.11"),
        ("e1m3", r"format 'e1m3': exponent_bits=1 is outside 2\.\.11"),
        ("p3109_k15p3se", r"format 'p3109_k15p3se': exponent_bits=12 is outside 1\.\.11"),
        ("e\N{ARABIC-INDIC DIGIT THREE}m2", "is unknown"),
        ("p3109_k8p8se", r"width in 3\.\.15 and a precision in 1\.\.width-1"),
        ("p3109_k16p4se", r"width in 3\.\.15"),
        ("p3109_k8p9ue", r"width in 3\.\.15 and a precision in 1\.\.width$"),
        ("p3109_k8p4us", r"is unknown; .*p3109_kKpPse \(or sf, ue, uf\)"),
        ("float8_e8m0", "did you mean float8_e8m0fnu"),
        ("E4M3", "is unknown"),
        ("", "is unknown"),
    ],
)
def test_unknown_names_raise(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named(name)


def test_names_are_strings() -> None:
    with pytest.raises(TypeError, match="format 8: a name or a Format is needed"):
        named(8)  # type: ignore[arg-type]
