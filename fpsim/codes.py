"""Bit patterns: ``decode`` reads them, ``encode`` writes them.

A code has the sign in its top bit (unsigned formats have none), then the exponent field, then the fraction:

    code = s << (e + m)  |  field << m  |  fraction
    field = 0:  value = (-1)^s * fraction * 2^(emin - m)          zero and the subnormal numbers
    field > 0:  value = (-1)^s * (2^m + fraction) * 2^(field - bias - m)

Which codes are infinities and NaNs is the format's ``specials``. In a format without a zero (``nan_only``) the second
line holds for field = 0 too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.formats import format as named_format
from fpsim.number_format import Format

Codes = npt.NDArray[Any]  # of uint8, uint16, uint32 or uint64: the narrowest that holds the format


def decode(codes: npt.ArrayLike, fmt: Format | str) -> npt.NDArray[np.float64]:
    """The values of bit patterns.

    Parameters
    ----------
    codes : integer array or torch tensor of any shape, each in 0..2^bits-1
    fmt : Format or its name

    Returns
    -------
    float64 NumPy array of the same shape. Every NaN pattern gives the one quiet NaN. In a format without subnormals the
    patterns of subnormal numbers stand for no value of their own and give zero, of their sign where zero has one.

    Raises
    ------
    TypeError
        ``codes`` are not integers.
    ValueError
        A code is outside 0..2^bits-1; the message names the first one and its index.

    Examples
    --------
    >>> decode([0x00, 0x38, 0x7E, 0x7F, 0x80], "float8_e4m3fn")
    array([  0.,   1., 448.,  nan,  -0.])
    """
    fmt = named_format(fmt)
    given = np.asarray(on_host(codes))
    if given.size == 0 and given.dtype.kind == "f":
        given = given.astype(np.uint8)  # an empty list
    if given.dtype.kind not in "ui":
        raise TypeError(f"codes of dtype {given.dtype}: integers in 0..{(1 << fmt.bits) - 1} are needed")
    outside = given < 0
    if fmt.bits < 8 * given.dtype.itemsize - (given.dtype.kind == "i"):
        outside |= given > (1 << fmt.bits) - 1
    if np.any(outside):
        where = _first(outside)
        raise ValueError(f"code {int(given[where])} at index {_shown(where)} is outside 0..{(1 << fmt.bits) - 1}")
    code = given.astype(np.uint64)
    width = fmt.exponent_bits + fmt.mantissa_bits
    magnitude = code & np.uint64((1 << width) - 1)
    negative = (code >> np.uint64(width)).astype(bool)  # never in unsigned formats, whose codes are that short
    field = (magnitude >> np.uint64(fmt.mantissa_bits)).astype(np.int64)
    fraction = (magnitude & np.uint64((1 << fmt.mantissa_bits) - 1)).astype(np.float64)
    first = int(fmt.has_zero)  # exponent field of the smallest normal number
    significand = np.where(field >= first, fraction + 2.0**fmt.mantissa_bits, fraction if fmt.subnormals else 0.0)
    values = np.zeros(given.shape)
    number = magnitude <= _largest(fmt)  # above lie infinities and NaNs, whose field ldexp may not reach
    exponent = np.maximum(field, first) - first + fmt.emin - fmt.mantissa_bits
    np.ldexp(significand, exponent, out=values, where=number)
    if fmt.has_infinity:
        values[magnitude == _infinity(fmt)] = np.inf
    values = np.where(negative, -values, values)
    if not fmt.has_negative_zero:
        values += 0.0  # the patterns of negative subnormal numbers, where the set lacks those
    values[_is_nan(magnitude, negative, fmt)] = np.nan
    return values


def encode(x: npt.ArrayLike, fmt: Format | str) -> Codes:
    """The bit patterns of values; the inverse of ``decode``.

    Parameters
    ----------
    x : real array or torch tensor of any shape whose elements are values of the format. NaN gives the format's
        canonical quiet NaN (sign 0 and the top fraction bit alone, ``fn``: the top positive code, fnuz and signed
        P3109: the code of -0, unsigned: the top code). -0 becomes 0 where the format has one zero only.
    fmt : Format or its name

    Returns
    -------
    NumPy array of the narrowest of uint8, uint16, uint32, uint64 that holds a code

    Raises
    ------
    TypeError
        ``x`` is not real.
    ValueError
        An element is not a value of the format; the message names the first one and its index. Round first.

    Examples
    --------
    >>> encode([1.0, -448.0, float("nan")], "float8_e4m3fn")
    array([ 56, 254, 127], dtype=uint8)
    """
    fmt = named_format(fmt)
    values = _as_binary64(np.asarray(on_host(x)))
    magnitude = np.abs(values)
    nan, infinite = np.isnan(values), np.isinf(values)
    exponent = np.maximum(np.frexp(magnitude)[1] - 1, fmt.emin)
    # What is no value of the format gets some code here, and is found below because it decodes to something else.
    inside = magnitude <= fmt.max
    significand = np.zeros(values.shape)
    np.ldexp(magnitude, fmt.mantissa_bits - exponent, out=significand, where=inside)
    field = np.where(significand >= 2.0**fmt.mantissa_bits, exponent - fmt.emin, 0).astype(np.uint64)
    # The implicit bit of the significand adds one to the field, which counts from 0 where there is no zero.
    code = np.asarray((field << np.uint64(fmt.mantissa_bits)) + significand.astype(np.uint64))
    if not fmt.has_zero:
        code -= (code > 0).astype(np.uint64)
    code[infinite] = _infinity(fmt) if fmt.has_infinity else 0
    sign = np.signbit(values) & (fmt.has_negative_zero | (magnitude > 0))
    if fmt.signed:
        code |= sign.astype(np.uint64) << np.uint64(fmt.bits - 1)
    code[nan] = _quiet_nan(fmt) if fmt.has_nan else 0
    wrong = ~((decode(code, fmt) == values) | (nan & fmt.has_nan))
    if np.any(wrong):
        where = _first(wrong)
        raise ValueError(
            f"x={float(values[where])!r} at index {_shown(where)} is not a value of {fmt.name} "
            f"(largest {fmt.max!r}, {'' if fmt.has_infinity else 'no '}infinity, {'' if fmt.has_nan else 'no '}NaN); "
            "round it first"
        )
    return code.astype(np.min_scalar_type((1 << fmt.bits) - 1))


def is_torch(x: Any) -> bool:
    """Whether x comes from torch, which need not be installed."""
    return type(x).__module__.partition(".")[0] == "torch"


def on_host(x: Any) -> Any:
    """A torch tensor of any device as a NumPy array; anything else as it is."""
    if not is_torch(x):
        return x
    from fpsim.arrays_torch import to_host

    return to_host(x)


def _largest(fmt: Format) -> np.uint64:
    """Magnitude code of the largest finite value."""
    return np.uint64(fmt.largest_code)


def _infinity(fmt: Format) -> np.uint64:
    return np.uint64(fmt.largest_code + 1)


def _nan_is_negative_zero(fmt: Format) -> bool:
    return fmt.signed and not fmt.has_negative_zero


def _quiet_nan(fmt: Format) -> np.uint64:
    if fmt.specials == "ieee":
        return np.uint64(int(_infinity(fmt)) | 1 << (fmt.mantissa_bits - 1))
    if _nan_is_negative_zero(fmt):
        return np.uint64(1 << (fmt.bits - 1))
    return np.uint64((1 << (fmt.exponent_bits + fmt.mantissa_bits)) - 1)


def _is_nan(magnitude: npt.NDArray[np.uint64], negative: npt.NDArray[np.bool_], fmt: Format) -> npt.NDArray[np.bool_]:
    if _nan_is_negative_zero(fmt):
        return np.asarray(negative & (magnitude == 0))
    return np.asarray(magnitude > (_infinity(fmt) if fmt.has_infinity else _largest(fmt)))


def _as_binary64(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if x.dtype.kind in "OSUcMm" or x.dtype.itemsize > 8:
        raise TypeError(f"x of dtype {x.dtype}: real numbers of at most 64 bits are needed")
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = x.astype(np.float64)
    beyond = (x > 2**53) | (x < -(2**53)) if x.dtype.kind in "ui" and x.dtype.itemsize == 8 else np.zeros(x.shape, bool)
    if np.any(beyond):
        where = _first(beyond)
        raise ValueError(f"x={int(x[where])} at index {_shown(where)}: integers beyond 2^53 may not fit into float64")
    return values


def _first(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _shown(where: tuple[int, ...]) -> str:
    return str(where[0] if len(where) == 1 else where)
