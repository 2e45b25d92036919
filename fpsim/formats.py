"""Named formats and families.

``eXmY`` is always IEEE-like. ``p3109_k{width}p{precision}se``, ``...sf``, ``...ue`` and ``...uf`` are the IEEE P3109
formats, signed or unsigned, with extended (infinities) or finite domain. Overflow: to infinity (SatNone) in extended
ones, to the largest finite value in finite ones. The table below holds the rest.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from fpsim.number_format import Format

NAMED: dict[str, Format] = {
    "binary16": Format(5, 10),
    "binary32": Format(8, 23),
    "binary64": Format(11, 52),
    "bfloat16": Format(8, 7),
    "tf32": Format(8, 10),
    # OCP OFP8: e4m3 has one NaN a sign and no infinity; e5m2 is IEEE-like.
    "float8_e4m3fn": Format(4, 3, specials="fn", overflow="nan"),
    "float8_e5m2": Format(5, 2),
    "float8_e4m3fnuz": Format(4, 3, specials="fnuz", overflow="nan"),
    "float8_e5m2fnuz": Format(5, 2, specials="fnuz", overflow="nan"),
    "float8_e4m3b11fnuz": Format(4, 3, bias=11, specials="fnuz", overflow="nan"),
    "float8_e3m4": Format(3, 4),
    # OCP MX element formats: every code is a number, and everything too large saturates.
    "float6_e2m3fn": Format(2, 3, specials="none", overflow="saturate_all"),
    "float6_e3m2fn": Format(3, 2, specials="none", overflow="saturate_all"),
    "float4_e2m1fn": Format(2, 1, specials="none", overflow="saturate_all"),
    # The scale of OCP MX blocks.
    "float8_e8m0fnu": Format(8, 0, specials="nan_only", signed=False, overflow="nan"),
}
ALIASES = {"float16": "binary16", "float32": "binary32", "float64": "binary64"}
BINARY64 = NAMED["binary64"]

_IEEE_LIKE = re.compile(r"e([0-9]+)m([0-9]+)")
_P3109 = re.compile(r"p3109_k([0-9]+)p([0-9]+)([su])([ef])")


def format(name: str | Format) -> Format:
    """The format of a name.

    Parameters
    ----------
    name : str or Format
        A named format, ``eXmY`` (IEEE-like), ``p3109_k8p4se``; a ``Format`` is returned as it is.

    Raises
    ------
    TypeError
        ``name`` is neither a string nor a Format.
    ValueError
        An unknown name, with the closest known ones; or widths outside the intervals of ``Format``.

    Examples
    --------
    >>> format("bfloat16") == format("e8m7")
    True
    >>> format("p3109_k8p4se").max
    224.0
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise TypeError(f"format {name!r}: a name or a Format is needed")
    known = NAMED.get(ALIASES.get(name, name))
    if known is not None:
        return known
    if match := _IEEE_LIKE.fullmatch(name):
        return _made(name, int(match[1]), int(match[2]))
    if match := _P3109.fullmatch(name):
        return _p3109(name, int(match[1]), int(match[2]), signed=match[3] == "s", extended=match[4] == "e")
    close = difflib.get_close_matches(name, [*NAMED, *ALIASES], n=3)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    known_names = f"{', '.join(NAMED)}, eXmY, p3109_kKpPse (or sf, ue, uf)"
    raise ValueError(f"format {name!r} is unknown; {hint}known: {known_names}")


def _p3109(name: str, width: int, precision: int, *, signed: bool, extended: bool) -> Format:
    if not 3 <= width <= 15 or not 1 <= precision <= width - signed:
        most = "width-1" if signed else "width"
        raise ValueError(f"format {name!r}: P3109 needs a width in 3..15 and a precision in 1..{most}")
    return _made(
        name,
        width - signed - precision + 1,
        precision - 1,
        specials="p3109_extended" if extended else "p3109_finite",
        overflow="infinity" if extended else "saturate_all",
        signed=signed,
        parity="code" if precision == 1 else "significand",
        odd_overflow="overflow" if extended and signed else "largest",
    )


def _made(name: str, exponent_bits: int, mantissa_bits: int, **more: Any) -> Format:
    try:
        return Format(exponent_bits, mantissa_bits, **more)
    except ValueError as error:
        raise ValueError(f"format {name!r}: {error}") from None
