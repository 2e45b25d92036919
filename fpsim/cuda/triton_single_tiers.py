"""Which operations are computed in binary32 registers, where the card is at least twice as fast: the proofs stand here.

Notation as in ``fpsim.cpu.tiers``, with v the exact result, q the quantum of the format there, q0 = 2^(emin - m) the
smallest one, and N' the bits that a stochastic mode asks for below q: N in variant A, N + 1 in B. Subnormal numbers are
not flushed, so the numbers of the card are multiples of 2^-149, without a bound below. What is rounded twice:

DIRECTED. The card rounds toward zero, up or down to 24 bits, then the format's rounding does the same: every number of
the format is one of the card, so the second rounding sees v on the side of it where v is. Signs of zeros and overflows
are those of IEEE 754 both times. Stochastic modes A and B cut v off after N' bits below q: toward zero, with
P = p + N' <= 24 and q0 2^-N' >= 2^-149, the card keeps all of these. An overflow there is only seen as the largest
binary32 number. Operands of at most 11 bits have no sum, product or quotient in [2^128 - 2^104, 2^128): products have
22 bits; a quotient is at most 2^128 (1 - 2^-11); with |b| <= |a| and 2^128 - a = g, a multiple of the last bit of a,
g - b > 0 is at least the last bit of a number of 11 bits as large as g >= 2^117, hence 2^106. So the number stands for
an overflow. It is beyond the largest value anyway of formats with emax < 127.

ODD. The card rounds up and down; of two neighbours one has an odd last bit, and is v to odd. Two zeros are an exact
zero sum, and +0 is taken; an overflow becomes the largest number, which is odd, not infinity. Exact for P <= 23 and, as
the numbers asked for have to be even, q0 2^(p - P) >= 2^-148.

NEAREST. x = RN24(v) where ``tiers.plain`` says so for T = 24 and normal x; roots below. An x that is subnormal:
add         is exact.
mul         is exact if |v| >= 2^(p_a + p_b - 150). Less than that, and both v and x become 0, if this is less than
            q0 / 2; or is q0 / 2 and ties go to even.
div         c, an odd multiple k of h = q0 / 2, is away from v by a nonzero integer times the last bit of a or of c b,
            over b: at least v 2^-p_a or h 2^-p_b. Both are more than 2^-150, the error of x, if h is at least
            2^(max(p_a, p_b) - 149): v is near c, hence more than h / 2.
fma         is not rounded twice in this tier, but where it is exact.
Roots are normal. With s in [2^e, 2^(e+1)) and c of P bits in that binade or its end, a and c^2 are multiples of
u = min(2^(2e - 2P + 2), 2^(2e - p_a + 1)), so |s - c| = |a - c^2| / (s + c) > u / 2^(e+2) unless s = c. That is
no less than the error of x, 2^(e - 24), if 2 P <= 24 and p_a + 1 <= 24. An infinite x is v beyond 2^128 - 2^103, which
every format of at most 23 bits rounds beyond its largest value.

ITSELF. The format is binary32, and the card's rounding the one that is asked for.

An infinity that only an overflow has made must not be taken for one: ``_tells_apart``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fpsim.cpu.format_table import fast
from fpsim.cpu.lower import Decision, Formats
from fpsim.cpu.tiers import SINGLE, Range, plain
from fpsim.formats import format
from fpsim.number_format import Format
from fpsim.precision import Slot
from fpsim.program import Program
from fpsim.rounding import Rounding, Stochastic, asked_bits, is_nearest, random_bits

BINARY32 = format("binary32")
LINEAR, MAGIC, ITSELF = range(3)  # how a binary32 number is rounded to the format, see triton_single
SINGLE_TIER = 16  # beside the tiers of fpsim.cpu.codes: computed in binary32
NEAREST, DIRECTED, ODD = range(3)  # how an operation is rounded to binary32
_KINDS = ("round", "add", "sub", "mul", "div", "sqrt", "fma")
_WAY, _HOW = ("LINEAR", "MAGIC", "ITSELF"), ("NEAREST", "DIRECTED", "ODD")  # their names in printed kernels
_FEW = 11


@dataclass(frozen=True)
class Single:
    """How a slot is computed in binary32.

    way, how : the constants above
    natural : whether the format ends where binary32 does, so that a carry of its last number makes the infinity
    """

    way: int
    how: int
    natural: bool

    def __str__(self) -> str:
        """As the arguments of ``triton_single.single_operation``."""
        return f"{_HOW[self.how]}, {_WAY[self.way]}, {self.natural}"


class SingleFormats(Formats):
    """``Formats`` that also notes, for every slot in the order in which it is asked, how binary32 computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Single | None] = []

    def decide(self, kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding) -> Decision:
        """Tier, mode and format row of one rounded operation."""
        self.found.append(single(kind, operands, fmt, rounding) if operands else None)
        return super().decide(kind, operands, fmt, rounding)


def singles(program: Program, slots: Mapping[str, Slot], noted: SingleFormats) -> dict[str, Single | None]:
    """How binary32 computes every rounded operation and every stored array, after ``decisions`` has asked ``noted``.

    An array is stored so where the value comes from a rounded operation whose format binary32 holds.
    """
    rounded = [operation.slot for operation in program.operations if operation.rounded]
    found = dict(zip((*rounded, *program.inputs), noted.found, strict=True))
    for array, value in program.outputs:
        if array in found and value in rounded:
            found[array] = single("round", [Range.of_format(slots[value][0])], *slots[array])
    return found


def single(kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding) -> Single | None:
    """How an operation on operands in these ranges is computed in binary32; None where that is not proven.

    Examples
    --------
    >>> from fpsim import format
    >>> from fpsim.cpu.tiers import Range
    >>> bfloat16 = format("bfloat16")
    >>> single("mul", [Range.of_format(bfloat16)] * 2, bfloat16, "nearest_even")
    Single(way=0, how=0, natural=True)
    >>> single("mul", [Range.of_format(format("binary64"))] * 2, bfloat16, "nearest_even") is None
    True
    """
    if kind not in _KINDS or not all(in_binary32(operand) for operand in operands):
        return None
    way = _way(kind, fmt, rounding)
    if way is None:
        return None
    how = NEAREST if kind == "round" else _how(kind, operands, fmt, rounding)
    if how is None or (kind != "round" and not _tells_apart(kind, operands, fmt, rounding)):
        return None
    return Single(way, how, _natural(fmt))


def in_binary32(operand: Range) -> bool:
    """Whether all numbers of a range are binary32 numbers."""
    return operand.precision <= SINGLE and operand.high <= 127 and operand.lsb >= -149


def _way(kind: str, fmt: Format, rounding: Rounding) -> int | None:
    """Which of the roundings of ``triton_single`` takes every binary32 number to the format."""
    if fmt == BINARY32:
        admitted = rounding in ("nearest_even", "toward_zero", "up", "down")
        return ITSELF if admitted and (kind != "round" or rounding == "nearest_even") else None
    m = fmt.mantissa_bits
    if not fast(fmt, random_bits(rounding)) or not BINARY32.holds(fmt):
        return None
    if fmt.emin == -126 and 1 <= m <= 22:
        return LINEAR
    if m > 21 or fmt.emin - m < -126 or fmt.emax + 24 - m > 127:
        return None
    if isinstance(rounding, Stochastic) and (rounding.variant == "C" or fmt.precision + asked_bits(rounding) > 23):
        return None
    return MAGIC


def _natural(fmt: Format) -> bool:
    ends = fmt.emax == 127 and fmt.max == 2.0**127 * (2.0 - fmt.eps)
    return bool(
        ends and fmt.overflow == "infinity" and fmt.has_infinity and fmt.has_negative_zero
        and fmt.odd_overflow == "largest"
    )  # fmt: skip


def _how(kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding) -> int | None:
    least, asked = fmt.emin - fmt.mantissa_bits, asked_bits(rounding)
    if rounding in ("toward_zero", "up", "down") or (fmt == BINARY32 and rounding == "nearest_even"):
        return NEAREST if rounding == "nearest_even" else DIRECTED
    if isinstance(rounding, Stochastic) and rounding.variant != "C":
        kept = fmt.precision + asked <= SINGLE and least - asked >= -149
        few = fmt.emax < 127 or (kind != "fma" and max(operand.precision for operand in operands) <= _FEW)
        return DIRECTED if kept and few else None
    if is_nearest(rounding) and _nearest(kind, operands, fmt, rounding, fmt.precision + asked):
        return NEAREST
    return ODD if fmt.precision + asked <= SINGLE - 1 and least - asked >= -148 else None


def _nearest(kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding, asked: int) -> bool:
    p = [operand.precision for operand in operands]
    if kind == "sqrt":
        return max(p[0] + 1, 2 * asked) <= SINGLE
    if not plain(kind, operands, fmt, rounding, asked, SINGLE):
        return False
    least, bottom = fmt.emin - fmt.mantissa_bits, operands[0].lsb + operands[-1].lsb
    if kind == "mul":
        ties = 0 if rounding == "nearest_even" else 1
        return bottom >= -149 or p[0] + p[1] - 150 <= least - 1 - ties
    if kind == "div":
        return least - 1 >= max(p) - 149
    return kind != "fma" or (operands[0].lsb + operands[1].lsb >= -149 and operands[2].lsb >= -149)


def _tells_apart(kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding) -> bool:
    """Whether the card does not overflow, or makes of an overflow what the format makes of infinities."""
    a, b = operands[0], operands[-1 if kind != "fma" else 1]
    highest = {
        "add": max(a.high, b.high) + 1, "sub": max(a.high, b.high) + 1, "mul": a.high + b.high + 1,
        "div": a.high - b.low + 1, "sqrt": 0, "fma": max(a.high + b.high + 1, operands[-1].high) + 1,
    }[kind]  # fmt: skip
    same = fmt.overflow == "saturate_all" or fmt.overflow == ("infinity" if fmt.has_infinity else "nan")
    return highest <= 127 or same or rounding == "toward_zero"
