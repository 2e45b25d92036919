"""List the named number formats, or print the properties of one: a name of the list, eXmY (IEEE-like,
X exponent and Y mantissa bits) or p3109_kKpPse / p3109_kKpPsf."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.cli import UsageError

if TYPE_CHECKING:
    from fpsim.number_format import Format

_SPECIALS = {
    "ieee": "infinities and NaNs at the top exponent",
    "fn": "one NaN of either sign, no infinity",
    "fnuz": "one NaN in place of -0, no infinity",
    "none": "none: every code is a number",
    "p3109_extended": "infinities, and one NaN in place of -0",
    "p3109_finite": "one NaN in place of -0, no infinity",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a format; without it, all named formats are listed")


def run(args: argparse.Namespace) -> int:
    from fpsim import formats

    if args.name is None:
        head = ("name", "bits", "e", "m", "max", "smallest normal", "smallest", "eps")
        rows = [(name, *_summary(fmt)) for name, fmt in formats.NAMED.items()]
        print("\n".join(align([head, *rows])))
        print("\nalso: eXmY (IEEE-like, e.g. e8m10), p3109_k{width}p{precision}se and ...sf (e.g. p3109_k8p4se)")
        return 0
    try:
        fmt = formats.format(args.name)
    except (ValueError, TypeError) as error:
        raise UsageError(f"fpsim formats: error: {error}") from error
    print("\n".join(align([(f"{name}:" if name else "", value) for name, value in properties(args.name, fmt)], left=2)))
    return 0


def properties(name: str, fmt: Format) -> list[tuple[str, str]]:
    """Every property of a format with its value, in reading order."""
    facts = [
        ("format", name if name == fmt.name else f"{name} ({fmt.name})"),
        ("bits", f"{fmt.bits} = 1 sign + {fmt.exponent_bits} exponent + {fmt.mantissa_bits} mantissa"),
        ("precision p", f"{fmt.precision}"),
        ("bias, emin, emax", f"{fmt.bias}, {fmt.emin}, {fmt.emax}"),
        ("max", _exact(fmt.max)),
        ("smallest normal", _exact(fmt.smallest_normal)),
        ("smallest positive", f"{_exact(fmt.smallest_subnormal)} ({'' if fmt.subnormals else 'no '}subnormal)"),
        ("eps", _exact(fmt.eps)),
        ("unit roundoff", f"{_exact(fmt.unit_roundoff('nearest_even'))} to nearest"),
        ("", f"{_exact(fmt.unit_roundoff('toward_zero'))} in every other mode"),
        ("specials", _SPECIALS[fmt.specials]),
        ("overflow", fmt.overflow),
        ("negative zero", "yes" if fmt.has_negative_zero else "no"),
        ("finite values", f"{count_values(fmt)} (+0 and -0 are one value)"),
    ]
    return facts


def count_values(fmt: Format) -> int:
    """How many different real numbers the format holds."""
    normal, fraction = fmt.smallest_normal, 1 << fmt.mantissa_bits
    subnormal = fraction - 1 if fmt.subnormals and fmt.tiny == "round" else 0
    if fmt.max < normal:  # subnormals only
        return 2 * int(fmt.max / fmt.smallest_subnormal) + 1
    top_binade = int((math.ldexp(fmt.max, -fmt.emax) - 1.0) * fraction) + 1
    return 2 * (subnormal + (fmt.emax - fmt.emin) * fraction + top_binade) + 1


def align(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines with columns two spaces apart: the first ``left`` columns to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _summary(fmt: Format) -> tuple[str, ...]:
    sizes = (str(fmt.bits), str(fmt.exponent_bits), str(fmt.mantissa_bits))
    return (*sizes, *(f"{v:.6g}" for v in (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal, fmt.eps)))


def _exact(value: float) -> str:
    """The value, and its power of two where it is one."""
    mantissa, exponent = value.hex().split("p")
    text = f"{value:.10g}"
    return f"{text} = 2^{int(exponent)}" if float.fromhex(mantissa) == 1.0 else text
