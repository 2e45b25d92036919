"""Other people's arithmetic behind one interface, and comparison of bit patterns.

``MPFR`` computes an operation in every rounding mode from MPFR results alone: with z the result toward zero and a the
result away from zero at p bits (no exponent bound above), and h the result toward zero with n further bits,

    nearest_away:  a if h (n = 1) reaches the midpoint, i.e. h differs from z, else z
    to_odd:        the one of z and a that is an odd multiple of |a - z|
    Stochastic(n): a iff R + 2^n |h - z| / |a - z| >= 2^n

Where parity is that of codes (P3109 with one significand bit), a tie is h = k for k the result away from zero with one
further bit. The overflow rule of formats whose top codes are not IEEE 754's is gfloat's, but for what gfloat lacks:
negative numbers and zeros that a format does not have, and overflow under to_odd.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import gfloat
import gmpy2
import numpy as np
from gfloat.types import Domain, FormatInfo, RoundMode

from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic

DIRECT = {
    "nearest_even": gmpy2.RoundToNearest,
    "toward_zero": gmpy2.RoundToZero,
    "up": gmpy2.RoundUp,
    "down": gmpy2.RoundDown,
}
GFLOAT = {
    "nearest_even": RoundMode.TiesToEven,
    "nearest_away": RoundMode.TiesToAway,
    "toward_zero": RoundMode.TowardZero,
    "up": RoundMode.TowardPositive,
    "down": RoundMode.TowardNegative,
}
MODES: tuple[str, ...] = ("nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd")
ARITY = {"round": 1, "sqrt": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "fma": 3}
_METHOD = {"round": "plus"}


def variants(exponent_bits: int, mantissa_bits: int) -> list[Format]:
    """The format of two widths with every way to spend its top codes."""
    e, m = exponent_bits, mantissa_bits
    return [
        Format(e, m),
        Format(e, m, specials="fn", overflow="nan"),
        Format(e, m, specials="fnuz", overflow="nan"),
        Format(e, m, specials="none", overflow="saturate_all"),
        Format(e, m, specials="p3109_extended"),
        Format(e, m, specials="p3109_finite", overflow="saturate_all"),
    ]


def unsigned_variants(exponent_bits: int, mantissa_bits: int) -> list[Format]:
    """The unsigned format of two widths with every way to spend its top codes."""
    kept = [f for f in variants(exponent_bits, mantissa_bits) if f.specials != "fnuz"]
    return [dataclasses.replace(f, signed=False, bias=None) for f in kept]


def bits(x: Iterable[float]) -> np.ndarray:
    """The binary64 patterns of an array, every NaN as the canonical one."""
    values = np.array(x, dtype=np.float64)
    return np.where(np.isnan(values), np.float64(np.nan), values).view(np.uint64)


def same(a: float, b: float) -> bool:
    return bool(bits([a])[0] == bits([b])[0])


def assert_same(ours: Sequence[float], theirs: Sequence[float], cases: Sequence[object], label: object = "") -> None:
    """Equal to the last bit, sign of zero included."""
    assert len(ours) == len(theirs) == len(cases) > 0
    different = np.flatnonzero(bits(ours) != bits(theirs))
    shown = [f"{cases[i]}: ours {ours[i]!r}, theirs {theirs[i]!r}" for i in different[:5]]
    assert not len(different), f"{label}: {len(different)} of {len(ours)} differ: " + "; ".join(shown)


def interesting(fmt: Format, count: int, seed: int = 0) -> list[float]:
    """Operands for a format too wide to exhaust: edges, specials, values near 1, and random ones of all sizes."""
    rng = np.random.default_rng(seed)
    exponents = rng.integers(fmt.emin - fmt.mantissa_bits, fmt.emax + 1, count)
    significands = rng.integers(1 << fmt.mantissa_bits, 2 << fmt.mantissa_bits, count)
    lost = np.maximum(fmt.emin - exponents, 0)  # bits that a subnormal number does not have
    values = np.minimum(np.ldexp(significands >> lost, exponents + lost - fmt.mantissa_bits), fmt.max)
    tiny, normal = fmt.smallest_subnormal, fmt.smallest_normal
    edges = [0.0, tiny, 3 * tiny, normal - tiny, normal, fmt.max, fmt.max - math.ldexp(fmt.eps, fmt.emax)]
    near_one = [1 + k * fmt.eps for k in range(-3, 4)]
    positive = [*edges, *near_one, math.nan, *[math.inf] * fmt.has_infinity, *map(float, values)]
    return positive + [-x for x in positive]


class MPFR:
    """One format in MPFR 4 (through gmpy2)."""

    def __init__(self, fmt: Format, stochastic_bits: int = 3) -> None:
        self.fmt, self.stochastic_bits = fmt, stochastic_bits
        self.info = gfloat_info(fmt)
        self.saturate = fmt.overflow == "saturate_all"
        # MPFR's exponents are those of significands in [1/2, 1); an ieee format's overflow is MPFR's own.
        ieee = fmt.specials == "ieee" and fmt.overflow == "infinity" and fmt.signed
        self.overflows_itself = ieee
        self.direct = {mode: self._context(r, 0, fmt.emax + 1 if ieee else 5000) for mode, r in DIRECT.items()}
        self.zero = self._context(gmpy2.RoundToZero, 0)
        self.away = self._context(gmpy2.RoundAwayZero, 0)
        self.half = self._context(gmpy2.RoundToZero, 1)
        self.half_away = self._context(gmpy2.RoundAwayZero, 1)
        self.finer = self._context(gmpy2.RoundToZero, stochastic_bits)
        self.by_code = fmt.parity == "code" and fmt.mantissa_bits == 0

    def _context(self, rounding: int, further_bits: int, emax: int = 5000) -> gmpy2.context:
        p = self.fmt.precision + further_bits
        return gmpy2.context(precision=p, emin=self.fmt.emin - p + 2, emax=emax, subnormalize=True, round=rounding)

    @staticmethod
    def operand(x: float) -> gmpy2.mpfr:
        return gmpy2.mpfr(x, 53)

    def __call__(self, kind: str, operands: Sequence[gmpy2.mpfr], mode: Rounding, word: int = 0) -> float:
        method = _METHOD.get(kind, kind)
        if mode in DIRECT and not (mode == "nearest_even" and self.by_code):
            result = getattr(self.direct[mode], method)(*operands)
            return float(result) if self.overflows_itself else self._overflow(result, mode)
        z, a = (getattr(context, method)(*operands) for context in (self.zero, self.away))
        if not gmpy2.is_finite(z) or z == a:
            return self._overflow(z, mode)
        if mode == "nearest_away":
            away = getattr(self.half, method)(*operands) != z
        elif mode == "nearest_even":
            low, high = (getattr(context, method)(*operands) for context in (self.half, self.half_away))
            away = self._is_odd(z, a) if low == high else low != z
        elif mode == "to_odd":
            away = not self._is_odd(z, a)
        else:
            whole = 1 << self.stochastic_bits
            away = int((getattr(self.finer, method)(*operands) - z) / (a - z) * whole) + word >= whole
        return self._overflow(a if away else z, mode)

    def _is_odd(self, z: gmpy2.mpfr, a: gmpy2.mpfr) -> bool:
        if self.by_code and z != 0:
            power = int(gmpy2.get_exp(z)) - 1  # z = 2^power, and the codes of powers of two follow each other
            return (power - self.fmt.emin + self.fmt.has_zero) % 2 == 1
        return int(z / (a - z)) % 2 == 1

    def _overflow(self, result: gmpy2.mpfr, mode: Rounding) -> float:
        if gmpy2.is_nan(result):
            return math.nan  # gfloat raises for formats without a NaN; inside a machine a NaN stays one
        if result == 0 and not self.fmt.has_zero:
            return self.fmt.max * 2.0 ** (self.fmt.emin - self.fmt.emax)
        if result < 0 and not self.fmt.signed:
            clamped = gmpy2.is_finite(result) and (mode in ("toward_zero", "up") or self.fmt.overflow == "saturate")
            smallest = float(not self.fmt.has_zero) * 2.0**self.fmt.emin
            return smallest if clamped or self.saturate else math.nan
        stochastic = isinstance(mode, Stochastic)
        inward = mode == "to_odd" and self.fmt.odd_overflow == "largest"
        towards = "toward_zero" if inward else "nearest_even" if stochastic or mode == "to_odd" else mode
        finite = bool(gmpy2.is_finite(result))
        if finite and abs(result) > self.fmt.max:
            if self.overflows_itself:
                return math.copysign(self.fmt.max if mode == "to_odd" else math.inf, result)
            result = math.copysign(2 * self.fmt.max, result)  # gfloat takes binary64, which may not hold the result
        saturate = self.saturate or (finite and self.fmt.overflow == "saturate")
        rounded = float(gfloat.round_float(self.info, float(result), GFLOAT[towards], sat=saturate))
        if math.isinf(rounded) and finite and self.fmt.overflow == "nan":
            return math.nan  # an ieee format whose overflow is NaN: gfloat has none
        return rounded


def gfloat_info(fmt: Format) -> FormatInfo:
    high_nans = {"ieee": (1 << fmt.mantissa_bits) - 1, "fn": 1, "nan_only": 1}.get(fmt.specials, 0)
    return FormatInfo(
        fmt.name,
        k=fmt.bits,
        precision=fmt.precision,
        bias=fmt.bias,
        is_signed=fmt.signed,
        domain=Domain.Extended if fmt.has_infinity else Domain.Finite,
        has_nz=fmt.has_negative_zero,
        num_high_nans=1 if fmt.specials.startswith("p3109") and not fmt.signed else high_nans,
        has_subnormals=fmt.has_zero,
        is_twos_complement=False,
    )
