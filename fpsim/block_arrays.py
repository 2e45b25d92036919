"""Arrays in block formats: rounding, codes, values. What a block format is: ``fpsim.block_formats``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim import arrays
from fpsim.block_formats import BlockFormat, block_format
from fpsim.codes import decode, encode, is_torch, on_host
from fpsim.formats import format as named_format
from fpsim.random_bits import Key
from fpsim.rounding import Rounding

Floats = npt.NDArray[np.float64]
Exponents = npt.NDArray[np.int64]

_BIAS = 127  # of E8M0
_NAN = 128  # the exponent that code 255 would have
_TINY = 2.0**-300
_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class BlockCodes:
    """The stored form of an array in a block format.

    Parameters
    ----------
    scales : uint8, E8M0 codes (255: NaN); the shape of the array with its axis divided by ``block``, rounded up
    elements : unsigned integers, element codes; the shape of the array
    shifts : uint8, the second exponents t, axis divided by ``sub_block``; None in a format without a second level

    Examples
    --------
    >>> codes = BlockCodes(np.array([128], np.uint8), np.array([1, 7], np.uint8))
    >>> block_decode(codes, "mxfp4_e2m1")
    array([ 1., 12.])
    """

    scales: npt.NDArray[np.uint8]
    elements: npt.NDArray[Any]
    shifts: npt.NDArray[np.uint8] | None = None


def block_round(
    x: Any, fmt: BlockFormat | str, rounding: Rounding = "nearest_even", key: Key | None = None, *, axis: int = -1
) -> Any:
    """x rounded to a block format: what ``block_decode`` gives back after ``block_encode``.

    Parameters
    ----------
    x : real array or torch tensor of at least one axis; numbers and integers count as float64
    fmt : BlockFormat or its name
    rounding, key : mode of the elements and its key, as in ``fpsim.round``; the random bits of an element are those of
        its C-order index in ``x``
    axis : int
        Blocks lie along it and start at its element 0; the last block may be shorter.

    Returns
    -------
    array of the shape and floating dtype of ``x``; all NaN in a block with a NaN or an infinity

    Raises
    ------
    TypeError
        ``x`` is a masked array.
    ValueError
        ``x`` has no axis or not that one, is not real, holds an integer beyond 2^53, its dtype has fewer significand
        bits than the elements, or a stochastic mode has no key.

    Examples
    --------
    >>> block_round([1.0, 0.4, 5.2, -0.2], "mxfp4_e2m1")
    array([ 1. ,  0.5,  6. , -0. ])
    """
    if is_torch(x):
        return _round_tensor(x, block_format(fmt), rounding, key, axis)
    fmt, given = block_format(fmt), _array(x)
    _check_precision(given.dtype.name, fmt)
    elements, scales, shifts = _scaled(given, fmt, rounding, key, axis)
    with np.errstate(invalid="ignore"):
        return _unscaled(elements, scales, shifts, fmt, axis).astype(given.dtype, copy=False)


def block_encode(
    x: Any, fmt: BlockFormat | str, rounding: Rounding = "nearest_even", key: Key | None = None, *, axis: int = -1
) -> BlockCodes:
    """The codes of x rounded to a block format.

    Parameters
    ----------
    x, fmt, rounding, key, axis : as in ``block_round``, but that a dtype of fewer significand bits than the elements'
        is admissible: the values need not fit into it

    Returns
    -------
    BlockCodes, of NumPy arrays also where ``x`` is a torch tensor

    Raises
    ------
    TypeError
        ``x`` is a masked array.
    ValueError
        ``x`` has no axis or not that one, is not real, holds an integer beyond 2^53, or a stochastic mode has no key.

    Examples
    --------
    >>> codes = block_encode([1.0, 0.4, 5.2, -0.2], "mxfp4_e2m1")
    >>> codes.scales, codes.elements
    (array([127], dtype=uint8), array([2, 1, 7, 8], dtype=uint8))
    """
    fmt = block_format(fmt)
    elements, scales, shifts = _scaled(_array(x), fmt, rounding, key, axis)
    bad = scales == _NAN
    elements[np.isnan(elements)] = 0.0
    codes = encode(elements, fmt.element)
    if fmt.twos_complement:
        whole = np.asarray(np.ldexp(elements, -_unit(fmt)), dtype=np.int64)
        codes = (whole & ((1 << fmt.element.bits) - 1)).astype(codes.dtype)
    if shifts is not None:
        factor = -(-fmt.block // fmt.sub_block)
        shifts[_spread(bad, factor, shifts.shape[axis], axis)] = 0
    return BlockCodes((scales + _BIAS).astype(np.uint8), codes, None if shifts is None else shifts.astype(np.uint8))


def block_decode(codes: BlockCodes, fmt: BlockFormat | str, *, axis: int = -1) -> Floats:
    """The values of codes, as float64, which holds them all exactly.

    Parameters
    ----------
    codes : BlockCodes; scales in 0..255, elements in 0..2^bits-1, shifts in 0..2^sub_bits-1
    fmt : BlockFormat or its name
    axis : int, as it was encoded

    Returns
    -------
    float64 array of the shape of ``codes.elements``; all NaN in a block whose scale is 255

    Raises
    ------
    TypeError
        ``codes`` is no BlockCodes, or what it holds are no integers.
    ValueError
        The shapes of scales, elements and shifts do not belong together, or a code is outside its interval.

    Examples
    --------
    >>> block_decode(block_encode([3.0, 200.0], "mxint8"), "mxint8")
    array([  4., 200.])
    """
    fmt = block_format(fmt)
    if not isinstance(codes, BlockCodes):
        raise TypeError(f"codes: {type(codes).__name__}; admissible: a BlockCodes, such as block_encode gives")
    given = np.asarray(on_host(codes.elements))
    axis = _axis(given, axis)
    _check_codes("scales", codes.scales, given.shape, axis, fmt.block, 255)
    if fmt.sub_block:
        _check_codes("shifts", codes.shifts, given.shape, axis, fmt.sub_block, (1 << fmt.sub_bits) - 1)
    elif codes.shifts is not None:
        raise ValueError("shifts are given; this block format has no second level")
    elements = decode(given, fmt.element)
    if fmt.twos_complement:
        width = fmt.element.bits
        whole = given.astype(np.int64) - ((given >> (width - 1)).astype(np.int64) << width)
        elements = np.ldexp(whole.astype(np.float64), _unit(fmt))
    scales = np.asarray(on_host(codes.scales)).astype(np.int64) - _BIAS
    shifts = None if codes.shifts is None else np.asarray(on_host(codes.shifts)).astype(np.int64)
    return _unscaled(elements, scales, shifts, fmt, axis)


def _round_tensor(x: Any, fmt: BlockFormat, rounding: Rounding, key: Key | None, axis: int) -> Any:
    from fpsim import arrays_torch as torch_arrays

    target, device = torch_arrays.result_dtype([x], None, None), torch_arrays.device_of([x])
    _check_precision(str(target).removeprefix("torch."), fmt)
    if torch_arrays.on_host(device):
        return torch_arrays.to_torch(block_round(on_host(x), fmt, rounding, key, axis=axis), target, [x], None)
    from fpsim.cuda.twin_blocks import block_round as round_there

    return round_there(x, fmt, lambda y: arrays.round(y, fmt.element, rounding, key), _axis(x, axis), target)


def _scaled(
    given: npt.NDArray[Any], fmt: BlockFormat, rounding: Rounding, key: Key | None, axis: int
) -> tuple[Floats, Exponents, Exponents | None]:
    """Rounded elements, shared exponents (128: NaN) and second exponents."""
    axis = _axis(given, axis)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        x = given.astype(np.float64)
    length, element = x.shape[axis], fmt.element
    magnitude = np.abs(x)
    largest, top = _maxima(magnitude, fmt.block, axis)
    scales = np.clip(top - element.emax, -_BIAS, _BIAS)
    shifts = None
    if fmt.sub_block:
        _, sub_top = _maxima(magnitude, fmt.sub_block, axis)
        outer = _spread(scales, fmt.block // fmt.sub_block, sub_top.shape[axis], axis)
        shifts = np.clip(outer - (sub_top - element.emax), 0, (1 << fmt.sub_bits) - 1)
    # The exponents lie in -142..127. Quotients below 2^-300 may be inexact; no mode tells them from +-2^-300, for the
    # smallest element is at least 2^-200 and a decision looks at 33 bits below it, apart from whether the rest is zero.
    with np.errstate(over="ignore", invalid="ignore"):  # only in blocks that become NaN
        quotients = x * _powers(-1, scales, shifts, fmt, length, axis)
    tiny = (np.abs(quotients) < _TINY) & (x != 0.0)
    if tiny.any():
        quotients[tiny] = np.copysign(_TINY, x[tiny])
    bad = ~np.isfinite(largest)
    scales[bad] = _NAN
    elements = np.asarray(arrays.round(quotients, element, rounding, key))
    if bad.any():  # NaN marks the blocks without a value also where the element format has none
        elements[_spread(bad, fmt.block, length, axis)] = np.nan
    return (elements + 0.0 if fmt.twos_complement else elements), scales, shifts


def _unscaled(elements: Floats, scales: Exponents, shifts: Exponents | None, fmt: BlockFormat, axis: int) -> Floats:
    length = elements.shape[axis]
    # Exact: elements and powers are far from the ends of binary64.
    values: Floats = elements * _powers(1, scales, shifts, fmt, length, axis)
    bad = scales == _NAN
    if bad.any():
        values[_spread(bad, fmt.block, length, axis)] = np.nan
    return values


def _powers(sign: int, scales: Exponents, shifts: Exponents | None, fmt: BlockFormat, length: int, axis: int) -> Floats:
    """2^(s - t) of every element, or its inverse."""
    size = fmt.block
    if shifts is not None:
        size = fmt.sub_block
        scales = _spread(scales, fmt.block // size, shifts.shape[axis], axis) - shifts
    return _spread(np.ldexp(1.0, sign * scales), size, length, axis)


def _maxima(magnitude: Floats, size: int, axis: int) -> tuple[Floats, Exponents]:
    """The largest of each run of ``size`` elements and floor(log2) of it, far below every scale where that is 0."""
    length = magnitude.shape[axis]
    if magnitude.size == 0:
        shape = list(magnitude.shape)
        shape[axis] = -(-length // size)
        return np.zeros(shape), np.zeros(shape, dtype=np.int64)
    largest = np.maximum.reduceat(magnitude, np.arange(0, length, size), axis=axis)
    exponents = np.frexp(largest)[1].astype(np.int64) - 1
    return largest, np.where(largest == 0.0, -4096, exponents)


def _unit(fmt: BlockFormat) -> int:
    """The binary exponent of the spacing of fixed-point elements."""
    return fmt.element.emin - fmt.element.mantissa_bits


def _spread(per_block: npt.NDArray[Any], size: int, length: int, axis: int) -> npt.NDArray[Any]:
    """One value a block to one an element."""
    cut = (slice(None),) * (axis % per_block.ndim) + (slice(length),)
    return np.repeat(per_block, size, axis=axis)[cut]


def _array(x: Any) -> npt.NDArray[Any]:
    x = on_host(x)
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("a masked array: there is no rule for its mask; admissible: a plain array, such as x.filled(0)")
    given = np.asarray(x)
    if given.dtype.kind in "iub":
        if given.size and max(abs(int(given.min())), abs(int(given.max()))) > 1 << 53:
            raise ValueError("integers of x reach beyond 2^53; admissible: magnitudes up to 2^53")
        return given.astype(np.float64)
    if given.dtype.name not in _DTYPES:
        raise ValueError(f"x of dtype {given.dtype}; admissible: {', '.join(_DTYPES)}, integers")
    return given


def _axis(given: npt.NDArray[Any], axis: int) -> int:
    if given.ndim == 0:
        raise ValueError("x has no axis; admissible: arrays of at least one axis")
    if not hasattr(axis, "__index__") or isinstance(axis, bool) or not -given.ndim <= axis < given.ndim:
        raise ValueError(f"axis={axis!r} is outside {-given.ndim}..{given.ndim - 1}")
    return axis % given.ndim


def _check_precision(name: str, fmt: BlockFormat) -> None:
    """A dtype as precise as the elements holds every result.

    A result is x itself, or lies on a grid that is coarser than the one x is on, or is the largest element; and none
    is larger than the block's largest input rounded up to the next power of two, that power excluded.
    """
    if name not in _DTYPES:
        raise ValueError(f"x of dtype {name}; admissible: {', '.join(_DTYPES)}, integers")
    if named_format(name).precision < fmt.element.precision:
        raise ValueError(
            f"x of dtype {name} has {named_format(name).precision} significand bits, "
            f"the elements {fmt.element.name} have {fmt.element.precision}; admissible: a wider dtype"
        )


def _check_codes(what: str, given: Any, shape: tuple[int, ...], axis: int, size: int, largest: int) -> None:
    """Scales or shifts: integers in 0..largest, one for each run of ``size`` elements."""
    expected = (*shape[:axis], math.ceil(shape[axis] / size), *shape[axis + 1 :])
    found = np.asarray(on_host(given))
    if given is None or found.shape != expected:
        seen = None if given is None else found.shape
        raise ValueError(f"{what} have shape {seen}; admissible: {expected} for elements {shape}")
    if found.dtype.kind not in "ui" and found.size:
        raise TypeError(f"{what} of dtype {found.dtype}; admissible: integers")
    outside = found[(found < 0) | (found > largest)]
    if outside.size:
        raise ValueError(f"{what} hold {int(outside[0])}; admissible: 0..{largest}")
