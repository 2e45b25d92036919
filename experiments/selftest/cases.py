"""Operands of the four operations, roots and fma that random ones miss: ends of formats, and results next to a tie."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fpsim.number_format import Format


def special(fmt: Format) -> list[float]:
    """Zeros, the ends of the format, its middle, infinities, NaN, and neighbours off the grid."""
    near = [fmt.smallest_subnormal, fmt.smallest_normal, 1.0, fmt.max]
    more = [near[1] - near[0], 0.5 * near[0] or near[0], 1.0 + fmt.eps, 1.5, 3.0]
    off = [math.nextafter(x, math.inf) for x in near if x < 1.7e308]
    off += [math.nextafter(x, 0.0) for x in near]
    positive = [0.0, *near, *more, *off, math.inf]
    return [*positive, *(-x for x in positive), math.nan]


def extremes() -> list[float]:
    """Binary64 numbers whose products, quotients and residuals leave the range of binary64."""
    sizes = [2.0**-1074, 3 * 2.0**-1074, 1.5 * 2.0**-1022, 2.0**-970, 1.25 * 2.0**-901, 2.0**-899, 2.0**-600, 2.0**-538]
    sizes += [1 + 2.0**-52, 1.75, 2.0**500, 1.1 * 2.0**512, 2.0**1000, 1.7e308, math.inf, 0.0]
    return [*sizes, *(-x for x in sizes), math.nan]


class Ties:
    """Operands whose exact result is on, or by a tiny amount beside, a number where a rounding to ``fmt`` turns."""

    def __init__(self, fmt: Format, bits: int, generator: np.random.Generator) -> None:
        """``bits``: the turning points are multiples of 2^-bits of a gap, 2^-1 of which is a tie."""
        self.fmt, self.generator = fmt, generator
        self.bits = max(0, min(bits, 52 - fmt.mantissa_bits))

    def of(self, kind: str) -> tuple[float, ...]:
        """Operands of one operation."""
        try:
            found: tuple[float, ...] = _MAKERS[kind](self)
        except (OverflowError, ZeroDivisionError):
            return (1.0,) * OPERANDS[kind]
        return found

    def turn(self, near_one: bool = False) -> float:
        """A number where a rounding turns: a tie, a number of the format, or a stochastic threshold."""
        m, low, high = self.fmt.mantissa_bits, self.fmt.emin, self.fmt.emax
        place = self.generator.integers(5)
        e = int(self.generator.integers(-2, 3))
        if place == 0 and not near_one:
            e = int(self.generator.choice([low - m - 1, low - 1, low, low + 1, high - 1, high]))
        elif place <= 2 and not near_one:
            e = int(self.generator.integers(low - m, high + 1))
        n = int(self.generator.integers(0, 1 << m, endpoint=True)) + (1 << m if e >= low else 0)
        part = int(self.generator.choice([1 << self.bits >> 1, 1 << self.bits >> 1, 0, self._below(1 << self.bits)]))
        x = math.ldexp((n << self.bits) + part, max(e, low) - m - self.bits)
        return x if self.generator.integers(2) else -x

    def short(self) -> float:
        """A number in [1, 2) of few bits, of the format's, or of all."""
        width = int(self.generator.choice([3, self.fmt.mantissa_bits, 52]))
        return 1.0 + math.ldexp(self._below(1 << width), -width)

    def beside(self, x: float) -> float:
        """x or one of its neighbours."""
        way = self.generator.integers(3)
        return x if way == 0 else math.nextafter(x, math.inf if way == 1 else -math.inf)

    def tiny(self, x: float) -> float:
        """Far below the last bit of x in binary64, or just below a gap of the format there."""
        e = math.frexp(x)[1] - 1
        gap = int(self.generator.choice([52 - self.fmt.mantissa_bits, 53, 54, 60, 90, 140, 1100]))
        size = math.ldexp(float(self.generator.choice([1.0, 1.5])), max(e - self.fmt.mantissa_bits - gap, -1074))
        return size if self.generator.integers(2) else -size

    def factors(self) -> tuple[float, float]:
        """Two numbers whose product is c (1 - 2^-2k), c (1 + 2^-k) or near c, where a rounding turns at c."""
        c = self.turn(near_one=True)
        k = 52 - self.fmt.mantissa_bits - self.bits
        if k > 0 and self.generator.integers(2):
            sign = 1.0 if self.generator.integers(2) else -1.0
            return c * (1.0 + sign * math.ldexp(1.0, -k)), 1.0 - sign * math.ldexp(1.0, -k)
        a = self.short()
        return self.beside(c / a), a

    def _below(self, end: int) -> int:
        return int(self.generator.integers(end))


def _round(ties: Ties) -> tuple[float, ...]:
    return (ties.beside(ties.turn()),)


def _add(ties: Ties) -> tuple[float, ...]:
    a = ties.turn()
    b = ties.tiny(a)
    if ties.generator.integers(3) == 0:  # a sum that is exactly, or nearly, where a rounding turns
        b = ties.beside(a * ties.short() * float(ties.generator.choice([1.0, 0.5, 2.0**-9, 2.0**-26])))
        a = a - b
    return (a, b) if ties.generator.integers(2) else (b, a)


def _mul(ties: Ties) -> tuple[float, ...]:
    a, b = ties.factors()
    scale = int(ties.generator.integers(ties.fmt.emin - 2, ties.fmt.emax + 2)) if ties.generator.integers(2) else 0
    left = int(ties.generator.integers(min(scale, 0), max(scale, 0), endpoint=True))
    return math.ldexp(a, left), math.ldexp(b, scale - left)


def _div(ties: Ties) -> tuple[float, ...]:
    c, b = ties.turn(), ties.short()
    return ties.beside(c * b), b


def _sqrt(ties: Ties) -> tuple[float, ...]:
    c = ties.turn()
    return (ties.beside(c * c),)


def _reciprocal(ties: Ties) -> tuple[float, ...]:
    return (ties.beside(1.0 / ties.turn()),)


def _rsqrt(ties: Ties) -> tuple[float, ...]:
    c = ties.turn()
    return (ties.beside(1.0 / (c * c)),)


def _fma(ties: Ties) -> tuple[float, ...]:
    way = ties.generator.integers(4)
    if way == 0:
        a = ties.turn()
        return a, 1.0, ties.tiny(a)
    if way == 1:  # the product is what is tiny
        c = ties.turn()
        a = ties.tiny(c)
        return math.ldexp(a, 30), math.ldexp(ties.short(), -30), c
    a, b = ties.factors()
    if way == 2:
        return a, b, ties.tiny(a * b)
    # Most of the sum cancels, or the product is half a gap of the sum and a little.
    shift = int(ties.generator.integers(-ties.fmt.mantissa_bits - 2, 2))
    return math.ldexp(a, shift), b, ties.turn(near_one=True)


def _rem(ties: Ties) -> tuple[float, ...]:
    y, rest = ties.short(), ties.turn(near_one=True)
    n = int(ties.generator.integers(0, 1 << int(ties.generator.integers(1, 30))))
    if ties.generator.integers(2):
        return ties.beside((n + 0.5) * y), y
    y = y * 8.0
    return ties.beside(n * y + rest), y


_MAKERS: dict[str, Callable[[Ties], tuple[float, ...]]] = {
    "round": _round,
    "add": _add,
    "sub": lambda ties: (lambda a, b: (a, -b))(*_add(ties)),
    "mul": _mul,
    "div": _div,
    "sqrt": _sqrt,
    "fma": _fma,
    "rem": _rem,
    "reciprocal": _reciprocal,
    "rsqrt": _rsqrt,
    "min": _add,
    "max": _add,
    "abs": _round,
    "neg": _round,
}
OPERANDS = {
    **dict.fromkeys(("round", "sqrt", "reciprocal", "rsqrt", "abs", "neg"), 1),
    **dict.fromkeys(("add", "sub", "mul", "div", "rem", "min", "max"), 2),
    "fma": 3,
}
