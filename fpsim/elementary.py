"""Exact results of the elementary functions: the specification, by ball arithmetic (Arb).

A result that is a rational number is recognised by proof and returned as it is. Any other is enclosed in a ball, with
doubled precision until the ball lies strictly between two neighbours of a grid of more than 200 significant bits (Ziv's
strategy); returned is the middle between them, an odd multiple of half the grid's unit. It lies on the same side of
every number that a format of at most 53 bits and 32 random bits compares with as the true result does.

Why the loop ends: the results it is asked for are no numbers of such a grid. For rational x

* e^x, log x, sin x, cos x and rational functions of e^x (expm1, tanh, sigmoid) are transcendental but at the obvious
  points (Lindemann 1882; Niven, Irrational Numbers, theorem 9.11);
* 2^x with x no integer, and log2 x with x no power of two, are irrational (unique factorisation);
* x^y: y = a / 2^b with a odd, x = n 2^e with n odd. For b > 0 the result is rational only if n is a perfect 2^b-th
  power and 2^b divides e; then x is replaced by the root and y by a. For integer y and n = 1 it is a power of two; else
  n^|y| is exact while it is short, has more than 2000 bits otherwise, and 1 / n^|y| is no dyadic number;
* erf x = (2 / sqrt(pi)) times a transcendental number (Siegel 1929, Shidlovskii): that the product is irrational is not
  proven. An x with a dyadic erf x would end the loop with an ArithmeticError, not with a wrong number.

Extremes. Numbers of formats and their thresholds lie between 2^-1110 and 2^1024. A result beyond 2^1100 is represented
by 2^2000 (1 + 2^-200), one below 2^-1200 by 2^-3000 (1 + 2^-200), and one within 2^-150 of 1, but not 1, by 1 -+
2^-300: no threshold lies between it and its representative, so every mode treats the two alike.

References: Ziv, ACM TOMS 17 (1991); Johansson, "Arb", IEEE TC 66 (2017); IEEE 754-2019 section 9.2.1 (special values).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, TypeAlias

from fpsim.exact import NAN, Exact

Ball: TypeAlias = Any  # flint.arb

KINDS = ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow")
GRID = 210  # bits of the grid that a ball must fit into
_FIRST = 256  # bits of the first ball
_LAST = 1 << 22
_SHORT = 4096  # bits up to which an integer power is computed
_FAR = 2000.0  # arguments beyond which an exponential is represented

_STICKY = 1 + Fraction(1, 1 << 200)
HUGE = Exact("finite", _STICKY * (1 << 2000))
TINY = Exact("finite", _STICKY / (1 << 3000))
BELOW_ONE = Exact("finite", 1 - Fraction(1, 1 << 300))
ONE = Exact("finite", Fraction(1))
HALF = Exact("finite", Fraction(1, 2))
ZERO = Exact("finite")
INFINITE = Exact("infinite")

_alone = threading.RLock()


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Balls of ``bits`` bits. Arb's precision is one number for the whole process: one thread at a time.

    Another thread that changed it in the middle would leave balls true, but their last digits to chance.
    """
    from flint import ctx

    with _alone, ctx.workprec(bits):
        yield


def value(kind: str, operands: Sequence[float]) -> Exact:
    """The exact result of an elementary function on binary64 operands, or what stands for it (see above).

    Raises
    ------
    ValueError
        An unknown kind; the message lists the admissible ones.

    Examples
    --------
    >>> value("exp2", (-1.0,)).magnitude, value("pow", (2.25, 1.5)).magnitude
    (Fraction(1, 2), Fraction(27, 8))
    >>> float(value("exp", (1.0,)).magnitude)
    2.718281828459045
    """
    if kind == "pow":
        return _power(*operands)
    if kind not in _FUNCTIONS:
        raise ValueError(f"kind={kind!r}; admissible: {', '.join(KINDS)}")
    (x,) = operands
    return NAN if math.isnan(x) else _FUNCTIONS[kind](x)


def enclosed(ball: Callable[[], Ball]) -> Exact:
    """The representative of an irrational number; ``ball`` encloses it at the working precision of its call."""
    bits = _FIRST
    while bits <= _LAST:
        with working_precision(bits):
            found = _between(ball())
        if found is not None:
            return found
        bits *= 2
    raise ArithmeticError(f"{_LAST} bits do not tell an elementary function from a number of {GRID} bits")


def _between(x: Ball) -> Exact | None:
    """The middle of the two neighbours of the grid that the ball lies strictly between, or None."""
    if not x.is_finite():
        return None
    # Midpoint and radius are dyadic numbers: from here on all is exact.
    (middle, scale), (radius, radius_scale) = ((int(m), int(e)) for m, e in (x.mid().man_exp(), x.rad().man_exp()))
    unit = min(scale, radius_scale)
    size, radius = abs(middle) << (scale - unit), radius << (radius_scale - unit)
    low, high = size - radius, size + radius
    excess = low.bit_length() - GRID
    if low <= 0 or excess <= 0:
        return None
    n = low >> excess
    if n << excess == low or n != high >> excess:
        return None
    exponent = unit + excess - 1
    magnitude = Fraction((2 * n + 1) << max(exponent, 0), 1 << max(-exponent, 0))
    return Exact("finite", magnitude, middle < 0)


def _signed(result: Exact, negative: bool) -> Exact:
    return Exact(result.kind, result.magnitude, negative) if negative else result


def power_of_two(exponent: int) -> Exact:
    if abs(exponent) > _FAR:
        return HUGE if exponent > 0 else TINY
    return Exact("finite", Fraction(2) ** exponent)


def _arb(x: float) -> Ball:
    from flint import arb

    return arb(x)


def _exp(x: float) -> Exact:
    if math.isinf(x):
        return INFINITE if x > 0 else ZERO
    if x == 0:
        return ONE
    if abs(x) > _FAR:
        return HUGE if x > 0 else TINY
    return enclosed(lambda: _arb(x).exp())


def _exp2(x: float) -> Exact:
    if math.isinf(x):
        return INFINITE if x > 0 else ZERO
    if x == math.floor(x):
        return power_of_two(int(x))
    if abs(x) > _FAR:
        return HUGE if x > 0 else TINY
    return enclosed(lambda: _arb(2.0) ** _arb(x))


def _expm1(x: float) -> Exact:
    if math.isinf(x):
        return INFINITE if x > 0 else _signed(ONE, True)
    if x == 0:
        return Exact("finite", negative=math.copysign(1.0, x) < 0)
    if abs(x) > _FAR:
        return HUGE if x > 0 else _signed(BELOW_ONE, True)
    return enclosed(lambda: _arb(x).expm1())


def _log(x: float) -> Exact:
    if x <= 0:
        return _signed(INFINITE, True) if x == 0 else NAN
    if math.isinf(x):
        return INFINITE
    return ZERO if x == 1 else enclosed(lambda: _arb(x).log())


def _log2(x: float) -> Exact:
    if x > 0 and math.isfinite(x) and math.frexp(x)[0] == 0.5:
        exponent = math.frexp(x)[1] - 1
        return Exact("finite", Fraction(abs(exponent)), exponent < 0)
    if x <= 0 or math.isinf(x):
        return _log(x)
    return enclosed(lambda: _arb(x).log() / _arb(2.0).log())


def _log1p(x: float) -> Exact:
    if x <= -1:
        return _signed(INFINITE, True) if x == -1 else NAN
    if math.isinf(x):
        return INFINITE
    if x == 0:
        return Exact("finite", negative=math.copysign(1.0, x) < 0)
    return enclosed(lambda: _arb(x).log1p())


def _sin(x: float) -> Exact:
    if math.isinf(x):
        return NAN
    if x == 0:
        return Exact("finite", negative=math.copysign(1.0, x) < 0)
    return enclosed(lambda: _arb(x).sin())


def _cos(x: float) -> Exact:
    if math.isinf(x):
        return NAN
    return ONE if x == 0 else enclosed(lambda: _arb(x).cos())


def _tanh(x: float) -> Exact:
    """1 - |tanh x| < 2 e^(-2 |x|)."""
    if x == 0:
        return Exact("finite", negative=math.copysign(1.0, x) < 0)
    if abs(x) > _FAR:
        return _signed(ONE if math.isinf(x) else BELOW_ONE, x < 0)
    return enclosed(lambda: _arb(x).tanh())


def _sigmoid(x: float) -> Exact:
    """1 / (1 + e^-x); 1 - sigmoid x < e^-x."""
    if math.isinf(x):
        return ONE if x > 0 else ZERO
    if x == 0:
        return HALF
    if abs(x) > _FAR:
        return BELOW_ONE if x > 0 else TINY
    return enclosed(lambda: 1 / (1 + _arb(-x).exp()))


def _erf(x: float) -> Exact:
    """1 - |erf x| < e^(-x^2)."""
    if x == 0:
        return Exact("finite", negative=math.copysign(1.0, x) < 0)
    if abs(x) > 40:
        return _signed(ONE if math.isinf(x) else BELOW_ONE, x < 0)
    return enclosed(lambda: _arb(x).erf())


_FUNCTIONS: dict[str, Callable[[float], Exact]] = {
    "exp": _exp,
    "exp2": _exp2,
    "expm1": _expm1,
    "log": _log,
    "log2": _log2,
    "log1p": _log1p,
    "sin": _sin,
    "cos": _cos,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
}


def _power(x: float, y: float) -> Exact:
    if y == 0 or x == 1:
        return ONE  # whatever the other is, NaN included
    if math.isnan(x) or math.isnan(y):
        return NAN
    odd = math.isfinite(y) and math.fmod(y, 2.0) in (1.0, -1.0)  # exact; % rounds, and makes 1 of 2^-53 - 1
    negative = odd and math.copysign(1.0, x) < 0
    if x == 0 or math.isinf(x):
        return _signed(INFINITE if (x == 0) == (y < 0) else ZERO, negative)
    if math.isinf(y):
        return ONE if x == -1 else INFINITE if (abs(x) > 1) == (y > 0) else ZERO
    if x < 0 and y != math.floor(y):
        return NAN
    return _signed(_positive_power(abs(x), y), negative)


def _positive_power(x: float, y: float) -> Exact:
    """x^y for finite positive x and finite nonzero y."""
    if x == 1:
        return ONE
    n, e = _odd_part(x)
    denominator = y.as_integer_ratio()[1]
    a = y.as_integer_ratio()[0]
    while denominator > 1:
        root = math.isqrt(n)
        if root * root != n or e % 2:
            return _irrational_power(x, y)
        n, e, denominator = root, e // 2, denominator // 2
    if n == 1:
        return power_of_two(e * a)
    if a < 0 or a * n.bit_length() > _SHORT:
        return _irrational_power(x, y)
    # A power of more bits than _SHORT is no number of the grid; a shorter one is exact, but may be far outside.
    logarithm = a * (e + n.bit_length())
    if logarithm < -_FAR or a * e > _FAR:
        return HUGE if a * e > _FAR else TINY
    return Exact("finite", Fraction(n**a) * Fraction(2) ** (e * a))


def _odd_part(x: float) -> tuple[int, int]:
    """(n, e) with x = n 2^e and n odd."""
    numerator, denominator = x.as_integer_ratio()
    e = (numerator & -numerator).bit_length() - 1
    return numerator >> e, e - (denominator.bit_length() - 1)


def _irrational_power(x: float, y: float) -> Exact:
    """x^y that is no number of the grid. An estimate wrong by a third would still choose rightly."""
    estimate = y * math.log2(x)
    if abs(estimate) > _FAR:
        return HUGE if estimate > 0 else TINY
    return enclosed(lambda: (_arb(y) * _arb(x).log()).exp())
