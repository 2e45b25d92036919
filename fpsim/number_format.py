"""What a number format is: one frozen record, everything else derived from it."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from fpsim.rounding import Rounding, is_nearest, parse

Overflow = Literal["infinity", "saturate", "saturate_all", "nan"]
Specials = Literal["ieee", "fn", "fnuz", "none", "p3109_extended", "p3109_finite"]
Tiny = Literal["round", "flush"]

# Specials whose zero is unsigned: the code of -0 is the format's one NaN.
_ONE_ZERO = ("fnuz", "p3109_extended", "p3109_finite")


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: a finite set of numbers and what happens at its edges.

    A nonzero finite value is ``(-1)^s * n * 2^(E - mantissa_bits)`` with ``emin <= E <= emax`` and an integer
    significand ``n < 2^precision``.

    Parameters
    ----------
    exponent_bits : int in 1..11 (2..11 for ``specials="ieee"``)
    mantissa_bits : int in 0..52 (1..52 for ``specials="ieee"``)
        Stored fraction bits; the precision is one more.
    bias : int, optional
        Exponent bias. Default ``2^(e-1) - 1``; ``2^(e-1)`` for fnuz and P3109 formats.
    subnormals : bool
        ``False``: the set lacks the values in (0, 2^emin) and rounding is to the set without them.
    overflow : what a finite value beyond the largest becomes where IEEE 754 would give an infinity
        ``"infinity"``; ``"saturate"`` (largest finite value; infinite inputs stay infinite, or NaN where there is no
        infinity); ``"saturate_all"`` (infinite inputs too); ``"nan"``.
    specials : which codes are not numbers
        ``"ieee"``: the top exponent holds infinities and NaNs. ``"fn"``: one NaN at the top code of either sign.
        ``"fnuz"``: one NaN in place of -0. ``"none"``: all codes are numbers. ``"p3109_extended"``, ``"p3109_finite"``:
        NaN in place of -0, infinities at the top codes or none.
    signed : bool
        Only ``True`` in this version.
    tiny : ``"round"`` or ``"flush"``
        ``"flush"``: a nonzero rounded result below the smallest normal number becomes zero of its sign.

    Raises
    ------
    TypeError
        A width or the bias is not an integer, or a flag not a bool.
    ValueError
        A field lies outside its interval, or the values do not all fit into binary64 (the carrier of every array).

    Examples
    --------
    >>> half = Format(exponent_bits=5, mantissa_bits=10)
    >>> half.max, half.smallest_subnormal, half.precision
    (65504.0, 5.960464477539063e-08, 11)
    >>> Format(4, 3, specials="fn", overflow="nan").max
    448.0

    References
    ----------
    IEEE 754-2019 section 3; OCP 8-bit Floating Point Specification (OFP8) rev. 1.0; IEEE P3109 interim report.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    subnormals: bool = True
    overflow: Overflow = "infinity"
    specials: Specials = "ieee"
    signed: bool = True
    tiny: Tiny = "round"

    def __post_init__(self) -> None:
        ieee = self.specials == "ieee"
        _check_choice("specials", self.specials, get_args(Specials))
        _check_choice("overflow", self.overflow, get_args(Overflow))
        _check_choice("tiny", self.tiny, get_args(Tiny))
        for name in ("subnormals", "signed"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}={getattr(self, name)!r}; admissible: True, False")
        self._check_integer("exponent_bits", 2 if ieee else 1, 11)
        self._check_integer("mantissa_bits", 1 if ieee else 0, 52)
        if self.exponent_bits + self.mantissa_bits < 2:
            raise ValueError("exponent_bits + mantissa_bits = 1: a format needs at least two magnitude bits")
        if self.bias is None:
            half = 1 << (self.exponent_bits - 1)
            object.__setattr__(self, "bias", half if self.specials in _ONE_ZERO else half - 1)
        self._check_integer("bias", -2000, 2000)
        if not self.signed:
            raise ValueError("signed=False: unsigned formats are not supported in this version; admissible: True")
        if self.overflow == "infinity" and not self.has_infinity:
            raise ValueError(
                f'overflow="infinity": a format with specials="{self.specials}" has no infinity; '
                'admissible: "saturate", "saturate_all", "nan"'
            )
        if self.overflow == "nan" and not self.has_nan:
            raise ValueError(
                'overflow="nan": a format with specials="none" has no NaN; admissible: "saturate", "saturate_all"'
            )
        if self.emax > 1023 or self.emin - self.mantissa_bits < -1074:
            raise ValueError(
                f"bias={self.bias}: the values reach from 2^{self.emin - self.mantissa_bits} to 2^{self.emax}; "
                "binary64, which carries them, holds 2^-1074 to 2^1023"
            )

    def _check_integer(self, name: str, low: int, high: int) -> None:
        """Integers of NumPy are kept as Python's, so that equal formats print and pickle alike."""
        value = getattr(self, name)
        if not hasattr(value, "__index__") or isinstance(value, bool):
            raise TypeError(f"{name}={value!r}: an integer in {low}..{high} is needed")
        if not low <= value <= high:
            raise ValueError(f"{name}={value} is outside {low}..{high}")
        object.__setattr__(self, name, operator.index(value))

    @property
    def precision(self) -> int:
        """Significand bits p, the implicit one included."""
        return self.mantissa_bits + 1

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number."""
        assert self.bias is not None  # set in __post_init__
        return 1 - self.bias

    @cached_property
    def _top(self) -> tuple[int, int]:
        """Exponent and integer significand of the largest finite value, read off its code."""
        reserved = {"ieee": 1 << self.mantissa_bits, "fn": 1, "p3109_extended": 1}.get(self.specials, 0)
        code = (1 << (self.exponent_bits + self.mantissa_bits)) - 1 - reserved
        field, fraction = code >> self.mantissa_bits, code & ((1 << self.mantissa_bits) - 1)
        assert self.bias is not None
        return field - self.bias, fraction | 1 << self.mantissa_bits

    @property
    def emax(self) -> int:
        """Exponent of the largest finite value."""
        return self._top[0]

    @property
    def max(self) -> float:
        """Largest finite value."""
        exponent, significand = self._top
        return math.ldexp(significand, exponent - self.mantissa_bits)

    @property
    def smallest_normal(self) -> float:
        """2^emin."""
        return math.ldexp(1.0, self.emin)

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value of the set: 2^(emin - mantissa_bits), or 2^emin without subnormals."""
        return math.ldexp(1.0, self.emin - (self.mantissa_bits if self.subnormals else 0))

    @property
    def eps(self) -> float:
        """Distance from 1 to the next larger value of the same precision, 2^-mantissa_bits."""
        return math.ldexp(1.0, -self.mantissa_bits)

    def unit_roundoff(self, rounding: Rounding = "nearest_even") -> float:
        """Supremum of the relative rounding error of normal results: 2^-p to nearest, 2^(1-p) in every other mode."""
        return math.ldexp(1.0, -self.precision if is_nearest(parse(rounding)) else 1 - self.precision)

    @property
    def has_infinity(self) -> bool:
        return self.specials in ("ieee", "p3109_extended")

    @property
    def has_nan(self) -> bool:
        return self.specials != "none"

    @property
    def has_negative_zero(self) -> bool:
        return self.specials not in _ONE_ZERO

    @property
    def bits(self) -> int:
        """Width of a code, the sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def name(self) -> str:
        """``eXmY`` for IEEE-like formats, with every other choice appended: equal names mean equal formats."""
        ordinary = self.specials == "ieee" and self.bias == (1 << (self.exponent_bits - 1)) - 1
        parts = [f"e{self.exponent_bits}m{self.mantissa_bits}"]
        if not ordinary:
            parts += [self.specials, f"bias{self.bias}"]
        if self.overflow != "infinity":
            parts.append(self.overflow)
        if not self.subnormals:
            parts.append("nosubnormals")
        if self.tiny == "flush":
            parts.append("flush")
        return "_".join(parts)

    def holds(self, other: Format) -> bool:
        """Whether every finite value of ``other`` is a value of this format."""
        if self == other:
            return True
        if self.subnormals and self.tiny == "round":
            reaches_down = self.emin - self.mantissa_bits <= other.emin - other.mantissa_bits
        else:
            reaches_down = self.smallest_normal <= other.smallest_subnormal
        return self.precision >= other.precision and self.max >= other.max and reaches_down


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}; admissible: {', '.join(choices)}")
