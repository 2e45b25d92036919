"""A format as text: every property with its value, and what its special codes are."""

from __future__ import annotations

from fpsim.number_format import Format

_SPECIALS = {
    "ieee": "infinities and NaNs at the top exponent",
    "fn": "one NaN of either sign, no infinity",
    "fnuz": "one NaN in place of -0, no infinity",
    "none": "none: every code is a number",
    "p3109_extended": "infinities, and one NaN in place of -0",
    "p3109_finite": "one NaN in place of -0, no infinity",
}
_UNSIGNED_SPECIALS = {
    "ieee": "infinity and NaNs at the top exponent",
    "fn": "NaN at the top code, no infinity",
    "none": "none: every code is a number",
    "nan_only": "NaN at the top code, no infinity, no zero",
    "p3109_extended": "NaN at the top code, infinity below it",
    "p3109_finite": "NaN at the top code, no infinity",
}


def table(fmt: Format, name: str | None = None) -> str:
    """Two columns, property and value."""
    rows = [(f"{what}:" if what else "", value) for what, value in properties(fmt, name)]
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:<{width}}  {value}" for what, value in rows)


def properties(fmt: Format, name: str | None = None) -> list[tuple[str, str]]:
    """Every property of a format with its value, in reading order."""
    subnormal = fmt.mantissa_bits > 0 and fmt.subnormals
    facts = [
        ("format", fmt.name if name in (None, fmt.name) else f"{name} ({fmt.name})"),
        ("bits", f"{fmt.bits} = {int(fmt.signed)} sign + {fmt.exponent_bits} exponent + {fmt.mantissa_bits} mantissa"),
        ("precision p", f"{fmt.precision}"),
        ("bias, emin, emax", f"{fmt.bias}, {fmt.emin}, {fmt.emax}"),
        ("max", _exact(fmt.max)),
        ("lowest", _exact(fmt.lowest)),
        ("smallest normal", _exact(fmt.smallest_normal)),
        ("smallest positive", f"{_exact(fmt.smallest_subnormal)} ({'' if subnormal else 'no '}subnormal)"),
        ("eps", _exact(fmt.eps)),
        (
            "spacing",
            f"2^{fmt.emin - fmt.mantissa_bits} in the lowest binade, 2^{fmt.emax - fmt.mantissa_bits} in the top one",
        ),
        ("unit roundoff", f"{_exact(fmt.unit_roundoff('nearest_even'))} to nearest"),
        ("", f"{_exact(fmt.unit_roundoff('toward_zero'))} in every other mode"),
        ("specials", (_SPECIALS if fmt.signed else _UNSIGNED_SPECIALS)[fmt.specials]),
        ("overflow", fmt.overflow),
        ("zero", "+0 and -0" if fmt.has_negative_zero else "one" if fmt.has_zero else "none"),
        ("finite values", f"{fmt.count}{' (+0 and -0 are one value)' if fmt.has_negative_zero else ''}"),
    ]
    if fmt.tiny == "flush":
        facts.append(("tiny", "flush: results below the smallest normal number become zero"))
    if fmt.parity != "significand":
        facts.append(("even and odd", "by code"))
    if fmt.odd_overflow != "largest":
        facts.append(("overflow to odd", "as overflow says"))
    return facts


def _exact(value: float) -> str:
    """The value, and its power of two where it is one."""
    mantissa, exponent = value.hex().split("p")
    text = f"{value:.10g}"
    return f"{text} = 2^{int(exponent)}" if float.fromhex(mantissa) == 1.0 else text
