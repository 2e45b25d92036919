"""Block formats: elements of a small format that share a power of two.

A block holds ``block`` consecutive elements along one axis, the last block what is left. With M its largest magnitude
and ``emax`` the exponent of the element format's largest value,

    s = floor(log2 M) - emax, clamped to -127..127        shared exponent, stored as E8M0: code s + 127
    t = min(s - (floor(log2 M_sub) - emax), 2^k - 1)      second level: each sub-block is scaled down by 2^t, k bits
    element = round(x / 2^(s - t))                        in the element format, saturating

An all-zero block has s = -127, an all-zero sub-block the largest t. A block with a NaN or an infinity has the NaN scale
(code 255) and element codes 0: all its elements are NaN, for the standard leaves infinite inputs open. An element that
would round to beyond the largest value becomes the largest value; the scale is never raised for it. For MX4, MX6 and
MX9 the paper gives widths, block sizes and the two levels; what happens at the ends is as in the standard's formats.

References: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3 (elements), 5.4 (E8M0) and 6.3 (conversion);
Rouhani et al., "With Shared Microexponents, A Little Shifting Goes a Long Way", ISCA 2023 (MX4, MX6, MX9).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from fpsim.formats import format as named_format
from fpsim.number_format import Format


@dataclass(frozen=True)
class BlockFormat:
    """Elements of one format, blocks of them with a shared power of two.

    Parameters
    ----------
    element : Format or its name
        Its overflow must be ``saturate`` or ``saturate_all``. Fixed point with m magnitude bits is
        ``Format(1, m - 1, bias=1, specials="none", overflow="saturate_all")``: n * 2^(1-m) for n < 2^m.
    block : int in 1..2^20
        Elements that share one E8M0 scale.
    sub_block : int, a divisor of ``block``, or 0
        Elements that share a second exponent; 0: there is none.
    sub_bits : int in 1..4 with a sub_block, else 0
        Width of the second exponent.
    twos_complement : bool
        Codes of fixed-point elements (one exponent bit, no specials, all subnormals) are two's complement in place of
        sign and magnitude; there is then no -0. The most negative code is decoded and never made: the range of encoded
        values is symmetric.

    Raises
    ------
    ValueError
        A field lies outside its interval.

    Examples
    --------
    >>> block_format("mxfp4_e2m1").bits_per_element, block_format("mx6").bits_per_element
    (4.25, 6.0)
    """

    element: Format
    block: int = 32
    sub_block: int = 0
    sub_bits: int = 0
    twos_complement: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "element", named_format(self.element))
        element = self.element
        if element.overflow not in ("saturate", "saturate_all"):
            raise ValueError(
                f"element {element.name} has overflow={element.overflow!r}; "
                "admissible in a block: saturate, saturate_all"
            )
        if not element.signed:
            raise ValueError(f"element {element.name} has signed=False; admissible: True")
        if element.emax > 200 or element.emin - element.mantissa_bits < -200:
            # So that every element times every scale, and every quotient that matters, is a normal binary64 number.
            raise ValueError(f"element {element.name} reaches beyond 2^-200..2^200; admissible: narrower formats")
        for name, low, high in (("block", 1, 1 << 20), ("sub_block", 0, self.block), ("sub_bits", 0, 4)):
            value = getattr(self, name)
            if not hasattr(value, "__index__") or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name}={value!r}: an integer in {low}..{high} is needed")
            object.__setattr__(self, name, int(value))
        if self.sub_block and self.block % self.sub_block:
            raise ValueError(f"sub_block={self.sub_block} does not divide block={self.block}")
        if bool(self.sub_block) != bool(self.sub_bits):
            raise ValueError(f"sub_block={self.sub_block} and sub_bits={self.sub_bits}: both are zero or neither is")
        fixed = element.exponent_bits == 1 and element.specials == "none"
        if self.twos_complement and not (fixed and element.subnormals and element.tiny == "round"):
            raise ValueError(f"twos_complement=True: element {element.name} is not fixed point")

    @property
    def bits_per_element(self) -> float:
        """Storage, the shared exponents included."""
        return self.element.bits + 8 / self.block + (self.sub_bits / self.sub_block if self.sub_block else 0.0)

    @property
    def scale(self) -> Format:
        """The format of the shared power of two: E8M0, in every block format here."""
        return named_format("float8_e8m0fnu")

    @property
    def has_negative_zero(self) -> bool:
        return self.element.has_negative_zero and not self.twos_complement


def _saturating(name: str) -> Format:
    return replace(named_format(name), overflow="saturate_all")


def _fixed(magnitude_bits: int) -> Format:
    return Format(1, magnitude_bits - 1, bias=1, specials="none", overflow="saturate_all")


NAMED: dict[str, BlockFormat] = {
    "mxfp8_e4m3": BlockFormat(_saturating("float8_e4m3fn")),
    "mxfp8_e5m2": BlockFormat(_saturating("float8_e5m2")),
    "mxfp6_e3m2": BlockFormat(named_format("float6_e3m2fn")),
    "mxfp6_e2m3": BlockFormat(named_format("float6_e2m3fn")),
    "mxfp4_e2m1": BlockFormat(named_format("float4_e2m1fn")),
    "mxint8": BlockFormat(_fixed(7), twos_complement=True),
    "mx4": BlockFormat(_fixed(2), block=16, sub_block=2, sub_bits=1),
    "mx6": BlockFormat(_fixed(4), block=16, sub_block=2, sub_bits=1),
    "mx9": BlockFormat(_fixed(7), block=16, sub_block=2, sub_bits=1),
}


def block_format(name: str | BlockFormat) -> BlockFormat:
    """The block format of a name; a ``BlockFormat`` is returned as it is.

    Parameters
    ----------
    name : BlockFormat or the name of one of the standard's (``mx...``) or the paper's (mx4, mx6, mx9)

    Returns
    -------
    BlockFormat

    Raises
    ------
    TypeError
        ``name`` is neither a string nor a BlockFormat.
    ValueError
        An unknown name, with the closest known ones.

    Examples
    --------
    >>> block_format("mxfp8_e4m3").block
    32
    """
    if isinstance(name, BlockFormat):
        return name
    if not isinstance(name, str):
        raise TypeError(f"block format {name!r}: a name or a BlockFormat is needed")
    if name in NAMED:
        return NAMED[name]
    close = difflib.get_close_matches(name, NAMED, n=3)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise ValueError(f"block format {name!r} is unknown; {hint}known: {', '.join(NAMED)}")
