"""Operands whose exact result is next to a place where a rounding turns: what random operands do not find.

A rounding turns at ties, at numbers of the format, and at the threshold of a stochastic mode's own random word. Beside
one of those, closer than binary64 can show, lie results that a kernel gets wrong which trusts binary64 too far. With
integers A, B of so many bits as the operands have, they are constructed: A B = r modulo 2^s is solved by B = r / A, and
c B = a 2^t + d with a small d likewise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic, is_nearest


class Ties:
    """Makes operands for one format and mode. ``word``: the random word of the next ones, if the mode has any.

    own : the formats of the operands
    """

    def __init__(self, fmt: Format, mode: Rounding, own: Sequence[Format], generator: np.random.Generator) -> None:
        self.fmt, self.mode, self.generator = fmt, mode, generator
        self.own = [*own, *own[-1:] * 3]
        self.widths = [one.precision for one in self.own]
        self.word = 0

    def of(self, kind: str) -> tuple[float, ...]:
        """Operands of one operation."""
        try:
            found: tuple[float, ...] = _MAKERS[kind](self)
        except (OverflowError, ZeroDivisionError):
            return (1.0,) * OPERANDS[kind]
        return found

    def part(self) -> tuple[int, int]:
        """(t, s): a rounding turns t 2^-s of a gap above a number."""
        way = self._below(8)
        if way == 0:
            s = 1 + self._below(16)
            return self._below(1 << s), s
        if way == 1:
            return 0, 0
        if not isinstance(self.mode, Stochastic):
            return (1, 1) if is_nearest(self.mode) or way == 2 else (0, 0)
        if self.mode.variant == "A":
            return (1 << self.mode.bits) - self.word, self.mode.bits
        return (2 << self.mode.bits) - 2 * self.word - 1, self.mode.bits + 1

    def turning(self) -> tuple[int, int]:
        """An integer c and s: a rounding turns at c 2^-s gaps, where c 2^-s has ``precision`` bits before its point."""
        t, s = self.part()
        n = (1 << self.fmt.mantissa_bits) + self._below(1 << self.fmt.mantissa_bits)
        return (n << s) + t, s

    def turn(self, near_one: bool = False) -> float:
        """The same as a number, anywhere in the format; in binary64 it may be cut off."""
        m, low, high = self.fmt.mantissa_bits, self.fmt.emin, self.fmt.emax
        place = self._below(5)
        e = int(self.generator.integers(-2, 3))
        if place == 0 and not near_one:
            e = int(self.generator.choice([low - m - 1, low - 1, low, low + 1, high - 1, high]))
        elif place <= 2 and not near_one:
            e = int(self.generator.integers(low - m, high + 1))
        c, s = self.turning()
        if e < low:  # a subnormal number
            c -= 1 << (m + s)
        c = c >> (c.bit_length() - 53) << (c.bit_length() - 53) if c.bit_length() > 53 else c
        return self._signed(math.ldexp(c, max(e, low) - m - s))

    def short(self, width: int) -> float:
        """A number in [1, 2) of a few bits, of the format's, or of all that it may have."""
        bits = int(self.generator.choice([2, min(self.fmt.mantissa_bits, width - 1), width - 1]))
        return 1.0 + math.ldexp(self._below(1 << bits), -bits)

    def beside(self, x: float) -> float:
        """x or one of its neighbours."""
        way = self._below(3)
        return x if way == 0 else math.nextafter(x, math.inf if way == 1 else -math.inf)

    def tiny(self, x: float) -> float:
        """Far below the last bit of x in binary64, or just below a gap of the format there."""
        e = math.frexp(x)[1] - 1
        gap = int(self.generator.choice([52 - self.fmt.mantissa_bits, 53, 54, 60, 90, 140, 1100]))
        size = math.ldexp(float(self.generator.choice([1.0, 1.5])), max(e - self.fmt.mantissa_bits - gap, -1074))
        return self._signed(size)

    def factors(self) -> tuple[float, float]:
        """Two numbers in about [1, 2) whose product is c 2^-s gaps and a little, where a rounding turns."""
        first, second = self.widths[:2]
        t, s = self.part()
        a = self._odd(first)
        for length in (first + second, first + second - 1):
            low = length - self.fmt.precision  # bits of the product below the format's last one
            if low <= s or low > second:
                continue
            rest = (t << (low - s)) + self._delta()
            b = self._filled(pow(a, -1, 1 << low) * rest % (1 << low), low, second)
            if (a * b).bit_length() == length:
                return math.ldexp(a, 1 - first), self._signed(math.ldexp(b, 1 - second))
        c = self.turn(near_one=True)
        k = 52 - self.fmt.mantissa_bits - s
        if k > 0 and self._below(2):  # c (1 +- 2^-k) (1 -+ 2^-k) = c (1 - 2^-2k)
            change = self._signed(math.ldexp(1.0, -k))
            return c * (1.0 + change), 1.0 - change
        x = self.short(first)
        return self.beside(c / x), x

    def quotient(self) -> tuple[float, float]:
        """a and b with a = c b + d: a / b is next to c, where a rounding turns."""
        first, second = self.widths[:2]
        c, _ = self.turning()
        odd = c // (c & -c)
        cut = max(0, odd.bit_length() + second - first)
        b = self._odd(second)
        if 0 < cut <= second:
            b = self._filled(-self._delta() * pow(odd, -1, 1 << cut) % (1 << cut), cut, second)
        a = odd * b
        a = (a >> cut) + (1 if a % (1 << cut) > 1 << cut >> 1 else 0)  # to the nearest: d is what is left
        place = odd.bit_length() - 1 + second - 1 - cut
        return math.ldexp(a, -place), self._signed(math.ldexp(b, 1 - second))

    def square(self) -> float:
        """A number c^2 - d next to the square of c, where a rounding to nearest or to the grid turns."""
        (width, *_), p = self.widths, self.fmt.precision
        length = p + int(is_nearest(self.mode))
        cut = max(2, 2 * length - width)  # (k 2^(cut-1) +- 1)^2 - 1 is a multiple of 2^cut
        if cut > length or isinstance(self.mode, Stochastic):
            c = self.turn(near_one=True)
            return self.beside(c * c)
        k = (1 << (length - cut)) + self._below(1 << (length - cut))
        c = int(k << (cut - 1)) + (1 if self._below(2) else -1)
        return math.ldexp(c * c - 1, -2 * (self._below(2) + length - 1))

    def half_gap(self, x: float, width: int) -> float:
        """Half a gap of the format at x, or a neighbour of it of ``width`` bits."""
        half = math.ldexp(1.0, math.frexp(x)[1] - 2 - self.fmt.mantissa_bits)
        return self._signed(half * (1.0 + int(self.generator.integers(-1, 2)) * math.ldexp(1.0, 1 - width)))

    def carried(self) -> tuple[float, float]:
        """One of the largest numbers of the operands' format and a few of its smallest: their sum has as many bits as
        any sum can have. It is next to a place where a rounding turns, or next to the power of two above."""
        one = self.own[0]
        least = math.ldexp(1.0, one.emin - one.mantissa_bits)
        gap = math.ldexp(1.0, one.emax - one.mantissa_bits)
        if self._below(2):
            c, _ = self.turning()
            return math.ldexp(c, one.emax + 1 - c.bit_length()), self._delta() * least
        j = self._below(4)
        return one.max - j * gap, (j + 1) * gap + self._delta() * least

    def _delta(self) -> int:
        return int(self.generator.choice([-3, -1, 1, 3]))

    def _odd(self, width: int) -> int:
        """An odd integer of exactly so many bits."""
        return 1 << (width - 1) | self._below(1 << (width - 1)) | 1

    def _filled(self, low: int, places: int, width: int) -> int:
        """An integer of ``width`` bits whose last ``places`` are given."""
        return low if places >= width else 1 << (width - 1) | self._below(1 << (width - 1 - places)) << places | low

    def _signed(self, x: float) -> float:
        return x if self._below(2) else -x

    def _below(self, end: int) -> int:
        return int(self.generator.integers(end))


def _round(ties: Ties) -> tuple[float, ...]:
    return (ties.beside(ties.turn()),)


def _add(ties: Ties) -> tuple[float, ...]:
    if ties.own[0].exponent_bits <= 6 and ties.generator.integers(2):
        return ties.carried()
    a = ties.turn()
    b = ties.tiny(a) if ties.generator.integers(2) else ties.half_gap(a, ties.widths[1])
    if ties.generator.integers(4) == 0:  # a sum that is exactly, or nearly, where a rounding turns
        b = ties.beside(a * ties.short(53) * float(ties.generator.choice([1.0, 0.5, 2.0**-9, 2.0**-26])))
        a = a - b
    return (a, b) if ties.generator.integers(2) else (b, a)


def _mul(ties: Ties) -> tuple[float, ...]:
    a, b = ties.factors()
    scale = int(ties.generator.integers(ties.fmt.emin - 2, ties.fmt.emax + 2)) if ties.generator.integers(2) else 0
    left = int(ties.generator.integers(min(scale, 0), max(scale, 0), endpoint=True))
    return math.ldexp(a, left), math.ldexp(b, scale - left)


def _div(ties: Ties) -> tuple[float, ...]:
    first, second = ties.own[:2]
    if first.emax < -900:  # the last bit of the numerator at that of its format, and what is left of it below
        a, b = ties.quotient()
        place = int(ties.generator.integers(second.emin, second.emax + 1))
        return math.ldexp(a, first.emin - 1), math.ldexp(b, place)
    if ties.generator.integers(3):
        a, b = ties.quotient()
        shift = int(ties.generator.integers(ties.fmt.emin - 2, ties.fmt.emax + 2)) if ties.generator.integers(3) else 0
        return math.ldexp(a, shift - shift // 2), math.ldexp(b, -(shift // 2))
    c, b = ties.turn(), ties.short(ties.widths[1])
    return ties.beside(c * b), b


def _sqrt(ties: Ties) -> tuple[float, ...]:
    if ties.generator.integers(2):
        return (math.ldexp(ties.square(), 2 * int(ties.generator.integers(ties.fmt.emin, ties.fmt.emax + 1))),)
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
        return math.ldexp(a, 30), math.ldexp(ties.short(ties.widths[1]), -30), c
    a, b = ties.factors()
    if way == 2:
        return a, b, ties.tiny(a * b) if ties.generator.integers(2) else 0.0
    # Most of the sum cancels, or the product is half a gap of the sum and a little.
    shift = int(ties.generator.integers(-ties.fmt.mantissa_bits - 2, 2))
    return math.ldexp(a, shift), b, ties.turn(near_one=True)


def _rem(ties: Ties) -> tuple[float, ...]:
    y, rest = ties.short(ties.widths[1]), ties.turn(near_one=True)
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
