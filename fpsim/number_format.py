"""What a number format is: one frozen record, everything else derived from it."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from fpsim.rounding import Rounding, is_nearest, parse

Overflow = Literal["infinity", "saturate", "saturate_all", "nan"]
Specials = Literal["ieee", "fn", "fnuz", "none", "nan_only", "p3109_extended", "p3109_finite"]
Tiny = Literal["round", "flush"]
Parity = Literal["significand", "code"]
OddOverflow = Literal["largest", "overflow"]

# Specials whose zero is unsigned: the code of -0 is the format's one NaN.
_ONE_ZERO = ("fnuz", "p3109_extended", "p3109_finite")


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: a finite set of numbers and what happens at its edges.

    A nonzero finite value is ``(-1)^s * n * 2^(E - mantissa_bits)`` with ``emin <= E <= emax`` and an integer
    significand ``n < 2^precision``.

    An unsigned format has no sign bit and no negative number. A result is rounded as if there were a sign; -0 then
    becomes 0, and a negative number becomes ``lowest`` (0) under ``toward_zero`` and ``up``, which point to it, and if
    ``overflow`` saturates, else NaN. So does -infinity, but it becomes ``lowest`` under ``"saturate_all"`` only.

    A format without a zero (``specials="nan_only"``) has the smallest value, 2^emin, in its place: what would be
    rounded to 0, and 0 itself, become 2^emin.

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
        NaN in place of -0, infinities at the top codes or none; unsigned: NaN at the top code, infinity below it.
        ``"nan_only"``: unsigned without a zero and without mantissa bits, every code a power of two but the top one,
        which is NaN.
    signed : bool
        ``False``: no sign bit. Not with ``"fnuz"``, whose NaN has none; always with ``"nan_only"``.
    tiny : ``"round"`` or ``"flush"``
        ``"flush"``: a nonzero rounded result below the smallest normal number becomes zero of its sign.
    parity : ``"significand"`` or ``"code"``
        What is even, or odd, under ``nearest_even`` and ``to_odd``. They differ without mantissa bits only, where
        integer significands are 0, 1 and 2: a tie between two nonzero numbers then goes away from zero (MPFR,
        ml_dtypes), or to the number whose code is even, every second one (P3109, gfloat).
    odd_overflow : ``"largest"`` or ``"overflow"``
        What a finite value beyond the largest becomes under ``to_odd``: the largest finite value (SoftFloat), or what
        ``overflow`` says (P3109 in signed extended formats, whose infinity has an odd code).

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
    IEEE 754-2019 section 3; OCP 8-bit Floating Point Specification (OFP8) rev. 1.0; OCP Microscaling Formats (MX) 1.0
    section 5.4 (E8M0); IEEE P3109 interim report 4.0, sections 4.7.4 and 4.7.5.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    subnormals: bool = True
    overflow: Overflow = "infinity"
    specials: Specials = "ieee"
    signed: bool = True
    tiny: Tiny = "round"
    parity: Parity = "significand"
    odd_overflow: OddOverflow = "largest"

    def __post_init__(self) -> None:
        self._check_choice("specials", get_args(Specials))
        self._check_choice("overflow", get_args(Overflow))
        self._check_choice("tiny", get_args(Tiny))
        self._check_choice("parity", get_args(Parity))
        self._check_choice("odd_overflow", get_args(OddOverflow))
        ieee = self.specials == "ieee"
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
        if not self.signed and self.specials == "fnuz":
            raise ValueError('signed=False: specials="fnuz" puts its NaN in place of -0; admissible: "fn"')
        if not self.has_zero:
            self._check_zeroless()
        if self.overflow == "infinity" and not self.has_infinity:
            raise ValueError(
                f'overflow="infinity": a format with specials="{self.specials}" has no infinity; '
                'admissible: "saturate", "saturate_all", "nan"'
            )
        if self.overflow == "nan" and not self.has_nan:
            raise ValueError(
                'overflow="nan": a format with specials="none" has no NaN; admissible: "saturate", "saturate_all"'
            )
        if self.largest_code < 1 << self.mantissa_bits:
            raise ValueError(
                f"exponent_bits={self.exponent_bits}, mantissa_bits={self.mantissa_bits}: unsigned with "
                f'specials="{self.specials}" no code is left for a normal number; one more bit is needed'
            )
        if self.emax > 1023 or self.emin - self.mantissa_bits < -1074:
            raise ValueError(
                f"bias={self.bias}: the values reach from 2^{self.emin - self.mantissa_bits} to 2^{self.emax}; "
                "binary64, which carries them, holds 2^-1074 to 2^1023"
            )

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        """Strings and integers of NumPy are kept as Python's, so that equal formats print and pickle alike."""
        value = getattr(self, name)
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name}={value!r}; admissible: {', '.join(choices)}")
        object.__setattr__(self, name, str(value))

    def _check_integer(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        try:
            number = operator.index(value)
        except TypeError:
            number = None
        if number is None or isinstance(value, bool):
            raise TypeError(f"{name}={value!r}: an integer in {low}..{high} is needed")
        if not low <= number <= high:
            raise ValueError(f"{name}={number} is outside {low}..{high}")
        object.__setattr__(self, name, number)

    def _check_zeroless(self) -> None:
        wrong = {"signed": self.signed, "mantissa_bits": self.mantissa_bits, "tiny": self.tiny}
        right = {"signed": False, "mantissa_bits": 0, "tiny": "round"}
        for name, value in wrong.items():
            if value != right[name]:
                raise ValueError(f'{name}={value!r} with specials="nan_only"; admissible: {right[name]!r}')

    @property
    def precision(self) -> int:
        """Significand bits p, the implicit one included."""
        return self.mantissa_bits + 1

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number: that of exponent field 1, or 0 in a format without a zero."""
        assert self.bias is not None  # set in __post_init__
        return int(self.has_zero) - self.bias

    @cached_property
    def largest_code(self) -> int:
        """Code of the largest finite value."""
        single = {"fn": 1, "nan_only": 1, "p3109_extended": 1 + (not self.signed), "p3109_finite": int(not self.signed)}
        reserved = 1 << self.mantissa_bits if self.specials == "ieee" else single.get(self.specials, 0)
        return (1 << (self.exponent_bits + self.mantissa_bits)) - 1 - reserved

    @cached_property
    def _top(self) -> tuple[int, int]:
        """Exponent and integer significand of the largest finite value, read off its code."""
        field, fraction = self.largest_code >> self.mantissa_bits, self.largest_code & ((1 << self.mantissa_bits) - 1)
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
    def lowest(self) -> float:
        """Smallest finite value: -max, or unsigned 0, or 2^emin without a zero."""
        return -self.max if self.signed else self.least

    @property
    def least(self) -> float:
        """What +0 becomes: 0, or the smallest value, 2^emin, of a format without a zero."""
        return 0.0 if self.has_zero else self.smallest_normal

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
    def has_zero(self) -> bool:
        return self.specials != "nan_only"

    @property
    def has_infinity(self) -> bool:
        """+infinity; signed formats have both."""
        return self.specials in ("ieee", "p3109_extended")

    @property
    def has_nan(self) -> bool:
        return self.specials != "none"

    @property
    def has_negative_zero(self) -> bool:
        return self.signed and self.specials not in _ONE_ZERO

    @property
    def ordinary(self) -> bool:
        """Whether rounding is to multiples of the quantum and no rule of unsigned formats, missing values or codes."""
        plain = self.subnormals and self.tiny == "round" and self.signed
        return plain and (self.mantissa_bits > 0 or self.parity == "significand")

    @property
    def bits(self) -> int:
        """Width of a code, the sign included."""
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def name(self) -> str:
        """``eXmY`` for IEEE-like formats, with every other choice appended: equal names mean equal formats."""
        ieee_like = self.specials == "ieee" and self.bias == (1 << (self.exponent_bits - 1)) - 1
        parts = [f"e{self.exponent_bits}m{self.mantissa_bits}"]
        if not ieee_like:
            parts += [self.specials, f"bias{self.bias}"]
        choices = {
            self.overflow: self.overflow != "infinity",
            "unsigned": not self.signed,
            "nosubnormals": not self.subnormals,
            "flush": self.tiny == "flush",
            "codeparity": self.parity == "code",
            "oddoverflow": self.odd_overflow == "overflow",
        }
        return "_".join(parts + [name for name, chosen in choices.items() if chosen])

    @property
    def count(self) -> int:
        """How many different real numbers results can be: +0 and -0 are one, and a format that flushes gives no
        subnormal number, though its codes hold them."""
        below = 1 << self.mantissa_bits  # codes of zero and the subnormal numbers
        normal = self.largest_code + 1 - (below if self.has_zero else 0)
        positive = normal + (below - 1 if self.subnormals and self.tiny == "round" else 0)
        return (2 * positive if self.signed else positive) + self.has_zero

    def holds(self, other: Format) -> bool:
        """Whether rounding to this format keeps every finite value of ``other``, where ``other`` is not this format.

        A format that flushes keeps no subnormal number, though ``other`` may hold them as codes.
        """
        if self == other:
            return True
        if (other.signed and not self.signed) or (other.has_zero and not self.has_zero):
            return False
        if self.subnormals and self.tiny == "round":
            lost = other.mantissa_bits if other.subnormals else other._used_precision - 1
            reaches_down = self.emin - self.mantissa_bits <= other.emin - lost
        else:
            reaches_down = self.smallest_normal <= other.smallest_subnormal
        return self.precision >= other._used_precision and self.max >= other.max and reaches_down

    @property
    def _used_precision(self) -> int:
        """Bits of the longest odd significand: less than p where the only normal number is 2^emin."""
        if self.max > self.smallest_normal or self.mantissa_bits == 0:
            return self.precision
        return self.mantissa_bits if self.subnormals else 1

    def __str__(self) -> str:
        """What ``print`` shows: the table. In a sentence, use ``fmt.name``."""
        return self.table()

    def table(self, name: str | None = None) -> str:
        """The format as a table: codes, range, spacing and special values.

        Parameters
        ----------
        name : str, optional
            What to call it; default: ``self.name``.

        Examples
        --------
        >>> print(Format(2, 1, specials="none", overflow="saturate_all").table("float4_e2m1fn"))
        format:             float4_e2m1fn (e2m1_none_bias1_saturate_all)
        bits:               4 = 1 sign + 2 exponent + 1 mantissa
        precision p:        2
        bias, emin, emax:   1, 0, 2
        max:                6
        lowest:             -6
        smallest normal:    1 = 2^0
        smallest positive:  0.5 = 2^-1 (subnormal)
        eps:                0.5 = 2^-1
        spacing:            2^-1 in the lowest binade, 2^1 in the top one
        unit roundoff:      0.25 = 2^-2 to nearest
                            0.5 = 2^-1 in every other mode
        specials:           none: every code is a number
        overflow:           saturate_all
        zero:               +0 and -0
        finite values:      15 (+0 and -0 are one value)
        """
        from fpsim.format_text import table

        return table(self, name)
