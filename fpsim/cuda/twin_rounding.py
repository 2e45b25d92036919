"""Rounding of tensors to formats: of any magnitude by integers, of a binary64 number by additions where that is exact.

Both follow the CPU machine, where the proofs stand: ``fpsim.cpu.wide_rounding`` and ``fpsim.cpu.rounding_elements``.
The mode is a constant of the call; the format may differ along the first axis of the tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fpsim.cpu import codes
from fpsim.cpu import format_table as t
from fpsim.cpu.tiers import is_binary64
from fpsim.cuda.twin_magnitudes import LIMB, MAGNITUDE, SIGN, TOP, Magnitude, Tensor, ones, shifted_right
from fpsim.number_format import Format
from fpsim.rounding import Rounding, code, random_bits

_EXPONENT = 0x7FF << 52


class Target:
    """What a rounding reads of formats and mode: numbers as 0-d tensors, or ``[blocks, 1, ..]`` for ``axes`` axes.

    ``fast``: every format can be reached by ``rounded_number``. The rounding modes are those of ``fpsim.rounding``; all
    formats of a target have one mode.
    """

    def __init__(self, formats: Sequence[Format], rounding: Rounding, axes: int, device: Any) -> None:
        self.formats, self.rounding = tuple(formats), rounding
        self.mode, self.bits = code(rounding), random_bits(rounding)
        self.fast = all(t.fast(fmt, self.bits) for fmt in formats)
        integers, floats = t.tables([(fmt, self.bits) for fmt in formats])
        single = all(fmt == formats[0] for fmt in formats)
        shape = () if single else (len(formats), *(1,) * (axes - 1))
        rows = slice(0, 1) if single else slice(None)
        self._integers = torch.from_numpy(integers).to(device)[rows]
        self._floats = torch.from_numpy(floats).to(device)[rows]
        self._shape = shape

    def whole(self, column: int) -> Tensor:
        return self._integers[:, column].reshape(self._shape)

    def real(self, column: int) -> Tensor:
        return self._floats[:, column].reshape(self._shape)

    @property
    def binary64(self) -> bool:
        """Whether binary64's own rounding is asked for."""
        return all(is_binary64(fmt, self.rounding) for fmt in self.formats)


def rounded(x: Magnitude, target: Target, draw: Tensor | None) -> Tensor:
    """A magnitude rounded; a zero becomes the format's zero of its sign. ``draw``: the random integers, if any."""
    emin, mode = target.whole(t.EMIN), target.mode
    e = torch.where(x.high == 0, emin, x.e)
    within = torch.maximum(e, emin) - target.whole(t.FRACTION)
    lowest = torch.where((e < emin) & (target.whole(t.SUBNORMALS) == 0), emin, within)
    k = e - lowest + 1  # bits of the integer significand
    up, down = k.clamp(0, LIMB), (-k).clamp(min=0)
    rest = LIMB - up
    whole = torch.where(k > 0, x.high >> rest, 0)
    shifted_high, shifted_low, dropped = shifted_right(x.high, x.low, down)
    high = torch.where(k > 0, ((x.high & ones(rest)) << up) | (x.low >> rest), shifted_high)
    low = torch.where(k > 0, (x.low & ones(rest)) << up, shifted_low)
    parity = whole
    by_code = target.whole(t.CODE_PARITY)
    parity = torch.where((by_code != 0) & (whole != 0), lowest - emin + by_code, parity)
    away = _moves_away(target, (parity & 1) != 0, high, (low != 0) | x.sticky | dropped, x.negative, draw)
    whole = whole + away.to(torch.int64)
    y = whole.to(torch.float64) * _power_of_two(lowest.clamp(-1074, 1023))
    y = torch.where(e > 1023, torch.inf, y)
    y = torch.where((target.whole(t.FLUSH) != 0) & (y < target.real(t.SMALLEST_NORMAL)), 0.0, y)
    largest = target.real(t.MAX)
    beyond = target.real(t.ODD_OVERFLOW if mode == codes.TO_ODD else t.OVERFLOW)
    if mode == codes.TOWARD_ZERO:
        beyond = largest
    elif mode in (codes.UP, codes.DOWN):
        beyond = torch.where(x.negative == (mode == codes.UP), largest, beyond)
    result = torch.where(y > largest, beyond, y)
    result = torch.where(x.negative, -result, result)
    inward = mode in (codes.TOWARD_ZERO, codes.UP)
    result = torch.where(
        x.negative & (target.whole(t.SIGNED) == 0), target.real(t.LOWEST_VALUE if inward else t.NEGATIVE), result
    )
    zero = torch.where(x.negative, target.real(t.MINUS_LEAST), target.real(t.LEAST))
    return one_nan(torch.where(y == 0.0, zero, result))


def rounded_number(x: Tensor, target: Target, draw: Tensor | None) -> Tensor:
    """A binary64 number, infinity or NaN rounded to formats that are ``fast``: ``fpsim.cpu.rounding_elements``."""
    mode = target.mode
    bits = x.view(torch.int64)
    exponent = torch.minimum(torch.maximum(bits & _EXPONENT, target.whole(t.LOWEST)), target.whole(t.HIGHEST))
    size = x.abs()
    c = (exponent + target.whole(t.MAGIC)).view(torch.float64)
    q = (exponent - target.whole(t.QUANTUM)).view(torch.float64)
    y = (size + c) - c
    if mode == codes.NEAREST_AWAY:
        y = (((bits & MAGNITUDE) | 1).view(torch.float64) + c) - c
    elif mode in (codes.UP, codes.DOWN):
        c = (exponent + target.whole(t.MAGIC) + (1 << 51)).view(torch.float64)
        y = (x + c) - c
        y = (torch.where(y < x, y + q, y) if mode == codes.UP else torch.where(y > x, y - q, y)).abs()
    elif mode != codes.NEAREST_EVEN:
        below = torch.where(y > size, y - q, y)
        y = torch.where(_from_below(target, size, below, c, q, draw), below + q, below)
    largest, over = target.real(t.MAX), target.real(t.ODD_OVERFLOW if mode == codes.TO_ODD else t.OVERFLOW)
    if mode == codes.TOWARD_ZERO:
        over = largest
    elif mode in (codes.UP, codes.DOWN):
        over = torch.where((bits < 0) == (mode == codes.UP), largest, over)
    y = torch.where(x.isinf(), target.real(t.INFINITE), torch.where(y <= largest, y, over))
    signed = (y.view(torch.int64) | (bits & SIGN)).view(torch.float64) + target.real(t.ADD)
    return torch.where(x.isnan() | signed.isnan(), torch.nan, signed)


def _from_below(target: Target, size: Tensor, below: Tensor, c: Tensor, q: Tensor, draw: Tensor | None) -> Tensor:
    """Whether the multiple of q above ``below`` is taken; the left and right sides of the comparisons are exact."""
    mode, bits = target.mode, target.bits
    if mode == codes.TO_ODD:  # below + c is exact, and its last bit is the parity of below / q
        return (((below + c).view(torch.int64) & 1) == 0) & (below < size)
    if draw is None:  # toward zero
        return torch.zeros_like(size) != 0.0
    w = ((draw << (52 - bits)) | (1023 << 52)).view(torch.float64)
    rest = size - below
    if mode == codes.STOCHASTIC:
        return rest >= (2.0 - w) * q
    bound = ((2.0 - 0.5 ** (bits + 1)) - w) * q
    if mode == codes.STOCHASTIC_B:
        return rest >= bound
    return (rest > bound) | ((rest == bound) & ((draw & 1) == 0))


def _moves_away(
    target: Target, odd: Tensor, high: Tensor, rest: Tensor, negative: Tensor, draw: Tensor | None
) -> Tensor:
    """Whether the mode takes n + 1, for the fraction nu with the first limb ``high`` and more behind it or not."""
    mode, bits = target.mode, target.bits
    if mode == codes.NEAREST_EVEN:
        return (high > TOP) | ((high == TOP) & (rest | odd))
    if mode == codes.NEAREST_AWAY:
        return high >= TOP
    if draw is not None and mode == codes.STOCHASTIC:
        return (high >> (LIMB - bits)) + draw >= 1 << bits
    if draw is not None and mode == codes.STOCHASTIC_B:
        return (high >> (LIMB - 1 - bits)) + draw + draw + 1 >= 1 << (bits + 1)
    if draw is not None:
        kept, over = high >> (LIMB - bits), (high & ((1 << (LIMB - bits)) - 1)) << bits
        up = (over > TOP) | ((over == TOP) & (rest | ((kept & 1) != 0)))
        return kept + draw + up.to(torch.int64) >= 1 << bits
    inexact = (high != 0) | rest
    if mode == codes.TO_ODD:
        return inexact & ~odd
    if mode == codes.UP:
        return inexact & ~negative
    if mode == codes.DOWN:
        return inexact & negative
    return torch.zeros_like(inexact)


def infinite(negative: Tensor, target: Target) -> Tensor:
    """What an infinity becomes."""
    return one_nan(torch.where(negative, target.real(t.MINUS_INFINITE), target.real(t.INFINITE)))


def one_nan(x: Tensor) -> Tensor:
    """The one NaN for every NaN."""
    return torch.where(x.isnan(), torch.nan, x)


def _power_of_two(e: Tensor) -> Tensor:
    """2^e for -1074 <= e <= 1023."""
    normal = (e + 1023) << 52
    return torch.where(e >= -1022, normal, torch.ones_like(e) << (e + 1074).clamp(0, 62)).view(torch.float64)
