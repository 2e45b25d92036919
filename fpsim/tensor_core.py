"""A model of the matrix instructions of the H100 and the H200: how many bits survive, and where they are cut.

One step takes ``terms`` products and the running result C:

1. Products are exact and not normalised: the exponent of a_k b_k is e_a + e_b, with e = max(floor(log2 |x|), emin) of
   an operand. C counts with its own exponent. Zeros take no part. E is the largest exponent, at least ``floor``.
2. Every term is cut toward zero to a multiple of 2^(E - ``fraction``); their sum is exact.
3. It is rounded once: ``toward_zero`` or ``nearest_even`` to ``output``.

Longer sums run step after step from C = +0; terms that are missing in the last step are zeros.

=======================  =============  =====  ========  ==========================================================
operands -> result       instruction    terms  fraction  output
=======================  =============  =====  ========  ==========================================================
binary16 -> binary32     HMMA, wgmma    16     25        toward zero, 23 fraction bits
binary16 -> binary16     HMMA, wgmma    16     25        to nearest even (23 to 25 could not be told apart)
bfloat16 -> binary32     HMMA, wgmma    16     25        toward zero, 23 fraction bits
tf32     -> binary32     HMMA, wgmma    8      25        toward zero, 23 fraction bits
float8   -> binary32     wgmma          32     13        toward zero, 13 fraction bits, in binary32
float8   -> binary16     mma.sync       16+16  25        to nearest even after each half, C added last in binary16
=======================  =============  =====  ========  ==========================================================

float8 stands for float8_e4m3fn and float8_e5m2, or one of each: that such a mixed product is computed like the others
is an assumption, for no published vector shows it. In the last row the halves of 32 products are those with k mod 4 in
{0, 1}, then in {2, 3}; the second half takes the result of the first as its C, and the C of the instruction is added at
the end, rounded to binary16. That row is a fit to published vectors and stands in no publication.

Not settled by published measurements, and chosen here:

* ``floor``: the exponent of a zero C. ``zero_c="exponent"`` counts it as 2^-126 (MMA-Sim); ``"dropped"`` leaves it out
  and floors at -133, or -21 for binary16 results (Khattak and Mikaitis). They differ for sums below 2^-126 (2^-21).
* A result beyond the largest finite value is an infinity in both roundings; an exact zero is +0.
* Infinities and NaN follow IEEE 754.

References: Xie et al., MMA-Sim (arXiv:2511.10909); Khattak and Mikaitis (arXiv:2512.07004), whose published vectors
the rows reproduce.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from fpsim import exact
from fpsim.formats import NAMED
from fpsim.formats import format as named_format
from fpsim.number_format import Format

DEVICES = ("h100", "h200")
OPERANDS = ("binary16", "bfloat16", "tf32", "float8_e4m3fn", "float8_e5m2")
_E8M13 = Format(8, 13)
_HALVES = tuple(tuple(k for k in range(32) if k % 4 in pair) for pair in ((0, 1), (2, 3)))


@dataclass(frozen=True)
class TensorCore:
    """What one matrix instruction does; the module's docstring explains the fields.

    Made by ``tensor_core``, whose rows are the measured ones.
    """

    operand: Format
    terms: int
    fraction: int
    output: Format
    rounding: Literal["toward_zero", "nearest_even"]
    floor: int
    halves: bool = False
    right: Format | None = None

    @property
    def operands(self) -> tuple[Format, Format]:
        """The formats of the first and of the second operand."""
        return self.operand, self.right or self.operand

    @property
    def swapped(self) -> TensorCore:
        """The instruction with its operands exchanged: products commute."""
        return replace(self, operand=self.operands[1], right=self.right and self.operand)

    @property
    def result(self) -> Format:
        """The format of the result's register."""
        return NAMED["binary32"] if self.output == _E8M13 else self.output


def tensor_core(
    device: str, operand: str, output: str = "binary32", zero_c: str = "exponent", right: str | None = None
) -> TensorCore:
    """The model of one device, operand and result format.

    Parameters
    ----------
    device : "h100" or "h200"; no difference between them is known
    operand : "binary16", "bfloat16", "tf32", "float8_e4m3fn" or "float8_e5m2"
    output : "binary32", or "binary16" for binary16 and float8 operands
    zero_c : "exponent" or "dropped"
    right : the second operand's format, where it is the other float8 format; default ``operand``

    Raises
    ------
    ValueError
        A name that is not listed, or a pair that no instruction has.

    Examples
    --------
    >>> core = tensor_core("h100", "bfloat16")
    >>> core.terms, core.fraction
    (16, 25)
    >>> multiply_accumulate(core, [1.0, 2.0**-13], [1.0, 2.0**-13])  # 2^-26 is cut off
    1.0
    """
    fmt = named_format(operand)
    rows = {named_format(name): name for name in OPERANDS}
    for what, given, known in (("device", device, DEVICES), ("zero_c", zero_c, ("exponent", "dropped"))):
        if given not in known:
            raise ValueError(f"{what}={given!r}; admissible: {', '.join(known)}")
    if fmt not in rows:
        raise ValueError(f"operand={operand!r}; admissible: {', '.join(OPERANDS)}")
    result, name = named_format(output), rows[fmt]
    half = result == NAMED["binary16"]
    if not half and result != NAMED["binary32"]:
        raise ValueError(f"output={output!r}; admissible: binary32, binary16")
    if half and name in ("bfloat16", "tf32"):
        raise ValueError(f"output={output!r} with operand {name!r}; admissible: binary32")
    other = fmt if right is None else named_format(right)
    if other != fmt and not all(rows.get(one, "").startswith("float8") for one in (fmt, other)):
        raise ValueError(f"right={right!r} with operand {name!r}; admissible: {name}, or two float8 formats")
    second = None if other == fmt else other
    floor = -126 if zero_c == "exponent" else -21 if half else -133
    if not name.startswith("float8"):
        terms = 8 if name == "tf32" else 16
        return TensorCore(fmt, terms, 25, result, "nearest_even" if half else "toward_zero", floor)
    if half:
        return TensorCore(fmt, 32, 25, result, "nearest_even", floor, halves=True, right=second)
    return TensorCore(fmt, 32, 13, _E8M13, "toward_zero", floor, right=second)


def multiply_accumulate(core: TensorCore, a: Sequence[float], b: Sequence[float], c: float = 0.0) -> float:
    """The specification: sum of a_k b_k plus c in rational arithmetic, step after step.

    ``a`` and ``b`` hold numbers of the operands' formats, ``c`` one of the result's.

    Raises
    ------
    ValueError
        ``a`` and ``b`` differ in length.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} terms and b {len(b)}; admissible: equally many")
    for start in range(0, len(a), core.terms):
        pairs = list(zip(a[start : start + core.terms], b[start : start + core.terms], strict=True))
        if not core.halves:
            c = _step(core, pairs, c)
            continue
        total = 0.0
        for half in _HALVES:
            total = _step(core, [pairs[k] for k in half if k < len(pairs)], total)
        c = exact.operation("add", (total, c), core.output, "nearest_even")
    return c


def _step(core: TensorCore, pairs: Sequence[tuple[float, float]], c: float) -> float:
    products = [exact.value("mul", pair) for pair in pairs]
    infinite = {p.negative for p in products if p.kind == "infinite"} | ({c < 0} if math.isinf(c) else set())
    if math.isnan(c) or any(p.kind == "nan" for p in products) or len(infinite) == 2:
        return math.nan
    if infinite:
        return -math.inf if True in infinite else math.inf
    left, right = core.operands
    terms = [(Fraction(x) * Fraction(y), _exponent(x, left) + _exponent(y, right)) for x, y in pairs]
    terms.append((Fraction(c), _exponent(c, core.result)))
    top = max([core.floor, *(e for value, e in terms if value)])
    unit = Fraction(2) ** (top - core.fraction)
    total = sum(math.trunc(value / unit) for value, _ in terms) * unit
    return _rounded(core, total)


def _exponent(x: float, fmt: Format) -> int:
    return max(exact.floor_log2(abs(Fraction(x))), fmt.emin) if x else fmt.emin


def _rounded(core: TensorCore, total: Fraction) -> float:
    if total == 0:
        return 0.0
    q = exact.quantum(abs(total), core.output)
    n = math.trunc(total / q) if core.rounding == "toward_zero" else round(total / q)  # ties to even
    result = n * q
    if abs(result) > Fraction(core.output.max):
        return math.inf if total > 0 else -math.inf
    return math.copysign(float(result), total)
