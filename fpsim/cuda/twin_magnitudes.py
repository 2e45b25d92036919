"""Exact magnitudes of two 62-bit limbs in int64 tensors: what an operation makes before it is rounded.

torch has neither unsigned 64-bit arithmetic on every device nor a fused multiply-add, and its square root of binary64
on a CPU is MKL's, which is not always the nearest number. So the twin computes with integers: every limb is below
2^62, no sum or shift of limbs leaves int64, and the result is the same on every device.

A nonzero magnitude is ``(high 2^62 + low + theta) 2^(e - 123)`` with bit 61 of ``high`` set, 0 <= theta < 1, and
``sticky`` telling whether theta is nonzero. A rounding to p <= 53 bits with up to 32 random bits looks at the top 87
bits and asks of the rest only whether it is zero, so 124 bits and a sticky bit decide it.

* product: at most 106 bits, exact.
* total: the smaller summand is shifted right. Bits drop into ``sticky`` only where it lies 18 or more binary places
  lower (a product has 106 bits); then at most two leading bits cancel, and 122 remain.
* quotient: 91 bits and whether the remainder is zero.
* root: 93 bits and whether the remainder is zero.
* inverse root: 53 bits and whether there are more, for roundings that look at no more bits than these.
* remainder: exact; its divisor's quotient is worked out ten bits at a time, as often as the widest pair needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = Any  # torch.Tensor; torch has no types here, as it need not be installed

LIMB = 62
TOP = 1 << (LIMB - 1)
MASK = (1 << LIMB) - 1
MAGNITUDE = (1 << 63) - 1
SIGN = -(1 << 63)  # of an int64


@dataclass(frozen=True)
class Magnitude:
    """Limbs, sticky bit, exponent of the top bit, sign; ``high`` is 0 for an exact zero alone."""

    high: Tensor
    low: Tensor
    sticky: Tensor
    e: Tensor
    negative: Tensor


def choose(condition: Tensor, a: Magnitude, b: Magnitude) -> Magnitude:
    """a where the condition holds, else b."""
    pairs = ((a.high, b.high), (a.low, b.low), (a.sticky, b.sticky), (a.e, b.e), (a.negative, b.negative))
    return Magnitude(*(torch.where(condition, x, y) for x, y in pairs))


def ones(k: Tensor) -> Tensor:
    """2^k - 1 for 0 <= k <= 62."""
    return (torch.ones_like(k) << k) - 1


def highest_bit(x: Tensor) -> Tensor:
    """floor(log2(x)) of 1 <= x < 2^62.

    The conversion to binary64 rounds, but with the bit below the highest cleared not up to the next power of two.
    """
    return ((x & ~(x >> 1)).to(torch.float64).view(torch.int64) >> 52) - 1023


def parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """A nonzero finite binary64 number as (53-bit significand with its top bit set, exponent of that bit)."""
    bits = x.view(torch.int64) & MAGNITUDE
    field, fraction = bits >> 52, bits & ((1 << 52) - 1)
    top = highest_bit(fraction.clamp(min=1))
    normal = field > 0
    significand = torch.where(normal, fraction | (1 << 52), fraction << (52 - top))
    return significand, torch.where(normal, field - 1023, top - 1074)


def of_number(x: Tensor) -> Magnitude:
    """A nonzero finite binary64 number."""
    significand, e = parts(x)
    zero = torch.zeros_like(e)
    return Magnitude(significand << 9, zero, zero != 0, e, x.view(torch.int64) < 0)


def normalised(high: Tensor, low: Tensor, sticky: Tensor, e: Tensor, negative: Tensor) -> Magnitude:
    """Shifted left until bit 61 of ``high`` is set; zero stays zero."""
    empty = high == 0
    high, low, e = torch.where(empty, low, high), torch.where(empty, 0, low), torch.where(empty, e - LIMB, e)
    k = (LIMB - 1) - highest_bit(high.clamp(min=1))
    high = (high << k) | (low >> (LIMB - k))
    return Magnitude(high, (low & ones(LIMB - k)) << k, sticky, e - k, negative)


def shifted_right(high: Tensor, low: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(high, low) shifted right by ``places`` >= 0, and whether a set bit dropped out."""
    far = places >= LIMB
    k = torch.where(far, places - LIMB, places).clamp(max=LIMB)
    kept, rest = high >> k, high & ones(k)
    near_low = (low >> k) | (rest << (LIMB - k))
    dropped = torch.where(far, (rest != 0) | (low != 0), (low & ones(k)) != 0)
    return torch.where(far, 0, kept), torch.where(far, kept, near_low), dropped


def total(a: Magnitude, b: Magnitude) -> Magnitude:
    """The sum of two exact nonzero magnitudes with their signs."""
    swap = (b.e > a.e) | ((b.e == a.e) & ((b.high > a.high) | ((b.high == a.high) & (b.low > a.low))))
    a, b = choose(swap, b, a), choose(swap, a, b)
    high, low, sticky = shifted_right(b.high, b.low, a.e - b.e)
    # Of the same sign: the carries go up, and one place is made where the top limb has overflowed.
    sum_low = a.low + low
    sum_high = a.high + high + (sum_low >> LIMB)
    sum_low = sum_low & MASK
    over = sum_high >> LIMB
    lost = (over != 0) & ((sum_low & 1) != 0)
    up_low = torch.where(over != 0, (sum_low >> 1) | ((sum_high & 1) << (LIMB - 1)), sum_low)
    # Of unlike sign: what dropped belongs to what is subtracted, so one unit less and a positive rest.
    less_low = a.low - low - sticky.to(torch.int64)
    less_high = a.high - high + (less_low >> LIMB)  # an arithmetic shift: -1 where a unit is borrowed
    less = normalised(less_high, less_low & MASK, sticky, a.e, a.negative)
    more = Magnitude(sum_high >> over, up_low, sticky | lost, a.e + over, a.negative)
    return choose(a.negative == b.negative, more, less)


def product(a: Tensor, b: Tensor) -> Magnitude:
    """a times b, exactly; nonzero finite numbers."""
    (m, e), (n, f) = parts(a), parts(b)
    m1, m0, n1, n0 = m >> 26, m & ((1 << 26) - 1), n >> 26, n & ((1 << 26) - 1)
    middle = m1 * n0 + m0 * n1
    low = m0 * n0 + ((middle & ((1 << 26) - 1)) << 26)
    high = m1 * n1 + (middle >> 26) + (low >> 52)
    low = low & ((1 << 52) - 1)  # the product is high 2^52 + low, of 105 or 106 bits
    negative = (a.view(torch.int64) ^ b.view(torch.int64)) < 0
    return normalised(
        (high << 8) | (low >> 44), (low & ((1 << 44) - 1)) << 18, torch.zeros_like(negative), e + f + 1, negative
    )


def quotient(a: Tensor, b: Tensor) -> Magnitude:
    """a / b; nonzero finite numbers."""
    (m, e), (n, f) = parts(a), parts(b)
    high = torch.div(m, n, rounding_mode="floor")
    rest = m - high * n
    for _ in range(6):  # rest < 2^53, so ten more bits at a time
        high, rest = _digit(high, rest, n)
    low = torch.zeros_like(high)
    for _ in range(3):
        low, rest = _digit(low, rest, n)
    # high has 61 bits and low 30: the quotient is (high 2^30 + low) 2^(e - f - 90).
    negative = (a.view(torch.int64) ^ b.view(torch.int64)) < 0
    return normalised(high, low << 32, rest != 0, e - f + 1, negative)


def _digit(quotient_so_far: Tensor, rest: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    rest = rest << 10
    digit = torch.div(rest, divisor, rounding_mode="floor")
    return (quotient_so_far << 10) | digit, rest - digit * divisor


def root(a: Tensor) -> Magnitude:
    """The square root of a positive finite number.

    With a = M 2^s, s even, R = floor(sqrt(M 2^52)) has 53 bits. torch's root of M is a guess of it, two units off at
    most; the rest M 2^52 - R^2 is small, so it is known from its last 60 bits, and corrects R. Forty more bits T of
    the root solve 2 R T 2^40 + T^2 <= rest 2^80: the quotient of rest 2^40 by 2 R, or one less.
    """
    m, e = parts(a)
    odd = e & 1
    radicand = m << odd
    r = (torch.sqrt(radicand.to(torch.float64)) * float(1 << 26)).to(torch.int64).clamp(1 << 52, (1 << 53) - 1)
    r1, r0 = r >> 27, r & ((1 << 27) - 1)
    square = ((r1 * r1 & 63) << 54) + (((2 * r1 * r0) & ((1 << 33) - 1)) << 27) + r0 * r0
    rest = ((((radicand & 255) << 52) - square + (1 << 59)) & ((1 << 60) - 1)) - (1 << 59)
    for _ in range(2):
        low = rest < 0
        rest, r = torch.where(low, rest + 2 * r - 1, rest), r - low.to(torch.int64)
    for _ in range(2):
        high = rest > 2 * r
        rest, r = torch.where(high, rest - 2 * r - 1, rest), r + high.to(torch.int64)
    tail, left = torch.zeros_like(r), rest
    for _ in range(5):  # left < 2^54, so eight more bits at a time
        left = left << 8
        digit = torch.div(left, 2 * r, rounding_mode="floor")
        tail, left = (tail << 8) + digit, left - digit * 2 * r
    t1, t0 = tail >> 20, tail & ((1 << 20) - 1)
    square_low = ((2 * t1 * t0) << 20) + t0 * t0
    needed = t1 * t1 + ((square_low + ((1 << 40) - 1)) >> 40)  # tail^2 / 2^40, rounded up
    tail = tail - (left < needed).to(torch.int64)
    low = (tail & ((1 << 31) - 1)) << 31
    # An irrational root has a rest; a rational one is R.
    return Magnitude((r << 9) | (tail >> 31), low, rest != 0, (e - odd) >> 1, torch.zeros_like(low) != 0)


def inverse_root(a: Tensor) -> Magnitude:
    """1 / sqrt(a) of a positive finite number, of which 53 bits and the sticky bit are known: ``low`` is 0.

    With a = R 2^s, s even, 2^52 <= R < 2^54, Q = floor(sqrt(2^158 / R)) has 53 bits unless R is 2^52. A guess of it by
    torch is four units off at most: the root by 1.5 units of its last place, the quotient by half a unit. Near it
    |R Q^2 - 2^158| < 2^112, so the lowest 120 bits of R Q^2 tell its sign. It is 0 for no other R than 2^52.
    """
    m, e = parts(a)
    odd = e & 1
    radicand = m << odd
    scale = torch.full_like(a, float(1 << 79))
    q = (scale / torch.sqrt(radicand.to(torch.float64))).to(torch.int64).clamp(1 << 52, (1 << 53) - 1)
    for _ in range(4):
        q = q - _beyond(radicand, q)
    for _ in range(4):
        q = q + 1 - _beyond(radicand, q + 1)
    one = radicand == 1 << 52
    q = torch.where(one, 1 << 52, q)
    zero = torch.zeros_like(q)
    return Magnitude(q << 9, zero, ~one, one.to(torch.int64) - 1 - ((e - odd) >> 1), zero != 0)


def _beyond(r: Tensor, q: Tensor) -> Tensor:
    """1 where r q^2 > 2^158, else 0, if they are less than 2^119 apart: by bit 119, from digits of 30 bits."""
    low = (1 << 30) - 1
    r0, r1, q0, q1 = r & low, r >> 30, q & low, q >> 30
    s0, s1, s2 = q0 * q0, 2 * q0 * q1, q1 * q1
    s1 = s1 + (s0 >> 30)
    s2 = s2 + (s1 >> 30)
    s0, s1, s2, s3 = s0 & low, s1 & low, s2 & low, s2 >> 30
    t1 = s0 * r1 + s1 * r0 + ((s0 * r0) >> 30)
    t2 = s1 * r1 + s2 * r0 + (t1 >> 30)
    t3 = s2 * r1 + s3 * r0 + (t2 >> 30)
    return 1 - ((t3 >> 29) & 1)


def remainder(a: Tensor, b: Tensor) -> Magnitude:
    """a - b n, n the integer nearest to a / b, the even one of two; nonzero finite numbers. Zero has the sign of a."""
    (m, e), (n, f) = parts(a), parts(b)
    gap = e - f
    near = gap >= 0
    digit = torch.div(m, n, rounding_mode="floor")
    rest, parity, left = torch.where(near, m - digit * n, m), torch.where(near, digit & 1, 0), gap.clamp(min=0)
    for _ in range(-(-int(left.max()) // 10) if left.numel() else 0):
        k = left.clamp(max=10)
        wide = rest << k
        digit = torch.div(wide, n, rounding_mode="floor")
        more = k > 0
        rest, parity = torch.where(more, wide - digit * n, rest), torch.where(more, digit & 1, parity)
        left = left - k
    # In the unit of the last place of b, or of a where that is half of it.
    divisor = torch.where(gap == -1, 2 * n, n)
    beyond = (gap >= -1) & ((2 * rest > divisor) | ((2 * rest == divisor) & (parity == 1)))
    rest = torch.where(beyond, divisor - rest, rest)
    negative = (a.view(torch.int64) < 0) ^ (beyond & (rest != 0))
    zero = torch.zeros_like(rest)
    return normalised(rest << 8, zero, zero != 0, torch.minimum(e, torch.where(near, f, e)) + 1, negative)
