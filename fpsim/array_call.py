"""What all array functions share: shapes, dtypes, declared operands, tiers, random bits, chunks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim.codes import is_torch
from fpsim.cpu import flat, flat_again
from fpsim.cpu.tiers import Range
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key, check_key
from fpsim.rounding import Rounding, Stochastic, parse

_is_torch = is_torch
Operands: TypeAlias = Format | str | Sequence[Format | str | None] | None

_DTYPES = {"float16": "binary16", "bfloat16": "bfloat16", "float32": "binary32", "float64": "binary64"}


def apply(
    kind: str,
    inputs: Sequence[Any],
    fmt: Format | str,
    rounding: Rounding,
    key: Key | None,
    operands: Operands,
    check: bool,
    out: Any,
    dtype: Any,
) -> Any:
    if dtype is None and (key is None or type(key) is Key):
        done = flat_again.again(kind, inputs, fmt, rounding, key, operands, check, out)
        if done is not None:
            return done
    named = (fmt, rounding, operands)
    fmt, rounding = named_format(fmt), parse(rounding)
    check_key(key)
    if isinstance(rounding, Stochastic) and key is None:
        raise ValueError(f"key=None: rounding {rounding} needs a Key")
    if "torch" in sys.modules and any(_is_torch(x) for x in (*inputs, out)):
        return _apply_torch(kind, inputs, fmt, rounding, key, operands, check, out, dtype)
    arrays = [np.asarray(x) for x in inputs]
    names = [_dtype_name(x, array) for x, array in zip(inputs, arrays, strict=True)]
    shapes = [array.shape for array in arrays]
    # NumPy broadcasts at most 32 axes, but has arrays of 64.
    shape = shapes[0] if shapes.count(shapes[0]) == len(shapes) else np.broadcast_shapes(*shapes)
    target = _target(names, fmt, out, dtype)
    if out is not None:
        _check_out(out, shape, [array for array in arrays if array.shape != () or array is out])
    declared = _declared(operands, len(arrays))
    if check:
        _check_declared(arrays, declared)
    direct = out is not None and out.flags.carray
    result = out if direct else np.empty(shape, dtype=target)
    # The values of a scalar may prove a cheaper tier; finding them out costs more than a short array.
    scalars = result.size >= flat.SCALARS
    given = zip(arrays, names, declared, strict=True)
    ranges = tuple(_range(*one, scalars) for one in given) if kind in flat.RANGED else ()
    flat.perform(kind, arrays, ranges, fmt, rounding, key, shape, result)
    if (
        dtype is None
        and type(result) is np.ndarray
        and (operands is None or isinstance(operands, (Format, str, tuple)))
    ):
        flat_again.remember(kind, inputs, named, fmt, rounding, ranges, declared, result)
    if out is None:
        return result[()]
    if not direct:
        out[...] = result
    return out


def _values(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """As float64, exactly."""
    if array.dtype == np.float64:
        return array
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return array.astype(np.float64, copy=False)


def _dtype_name(given: Any, array: npt.NDArray[Any]) -> str:
    """The name of the floating dtype that an operand counts as."""
    if type(given) is float:
        return "float64"
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError("a masked array: there is no rule for its mask; admissible: a plain array, such as x.filled(0)")
    name = _name_of(array.dtype)
    if name in _DTYPES and not isinstance(given, (bool, int)):
        return name
    if array.dtype.kind in "iub" and array.size:
        largest = abs(given) if isinstance(given, int) else max(abs(int(array.min())), abs(int(array.max())))
        if array.dtype.itemsize == 8 and largest > 1 << 53:
            raise ValueError(f"an integer operand reaches {largest}; admissible: magnitudes up to 2^53")
    elif array.dtype.kind not in "iubf" or array.dtype.itemsize > 8:
        raise ValueError(f"operand of dtype {array.dtype}; admissible: {', '.join(_DTYPES)}, integers")
    return "float64"


@lru_cache(maxsize=64)
def _name_of(dtype: np.dtype[Any]) -> str:
    return dtype.name


def _target(names: Sequence[str], fmt: Format, out: Any, dtype: Any) -> Any:
    if out is not None:
        if not isinstance(out, np.ndarray):
            raise ValueError(f"out is a {type(out).__name__}; admissible: an array")
        if dtype is not None and _dtype(dtype) != out.dtype:
            raise ValueError(f"dtype={_dtype(dtype)} and out of dtype {out.dtype} differ")
        dtype = out.dtype
    explicit = dtype is not None
    target = _dtype(dtype) if explicit else _common(*names)
    check_holds(_name_of(target), fmt, explicit)
    return target


@lru_cache(maxsize=256)
def _common(*names: str) -> Any:
    return np.result_type(*names)


def _dtype(given: Any) -> Any:
    try:
        return np.dtype(given)
    except TypeError as error:  # "bfloat16" among them, until ml_dtypes is imported
        raise ValueError(f"dtype={given!r} is no dtype that NumPy knows; admissible: {', '.join(_DTYPES)}") from error


def check_holds(name: str, fmt: Format, explicit: bool) -> None:
    """Raise ``ValueError`` unless the floating dtype holds every value of the format."""
    if name not in _DTYPES:
        raise ValueError(f"dtype={name}; admissible: {', '.join(_DTYPES)}")
    if not _holds(name, fmt):
        wider = [d for d in _DTYPES if named_format(_DTYPES[d]).holds(fmt)]
        what = f"dtype={name}" if explicit else f"the inputs' common dtype {name}"
        raise ValueError(f"{what} cannot hold the format {fmt.name}; admissible: dtype={' or '.join(wider)}")


@lru_cache(maxsize=1024)
def _holds(name: str, fmt: Format) -> bool:
    return named_format(_DTYPES[name]).holds(fmt)


def _check_out(out: npt.NDArray[Any], shape: tuple[int, ...], arrays: Sequence[npt.NDArray[Any]]) -> None:
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; admissible: {shape}, the shape of the result")
    if not out.flags.writeable:
        raise ValueError("out is read-only; admissible: an array that can be written")
    for i, array in enumerate(arrays):
        here, there = array.__array_interface__["data"][0], out.__array_interface__["data"][0]
        same = here == there and array.strides == out.strides and array.shape == shape and array.dtype == out.dtype
        if not same and np.shares_memory(array, out):
            raise ValueError(f"out overlaps operand {i} in part; admissible: that operand itself, or memory of its own")


def _declared(operands: Operands, count: int) -> list[Format | None]:
    if operands is None or isinstance(operands, (Format, str)):
        return [None if operands is None else named_format(operands)] * count
    if not isinstance(operands, Sequence):
        raise TypeError(f"operands={operands!r}: a format, or one for each of the {count} operands is needed")
    if len(operands) != count:
        raise ValueError(f"operands names {len(operands)} formats; the operation has {count} operands")
    return [None if declared is None else named_format(declared) for declared in operands]


def _range(array: npt.NDArray[Any], name: str, declared: Format | None, scalars: bool) -> Range:
    if scalars and array.size == 1:
        return Range.of_values(_values(array).reshape(1))
    return _range_of(declared or named_format(_DTYPES[name]))


_range_of = lru_cache(maxsize=1024)(Range.of_format)


def _check_declared(arrays: Sequence[npt.NDArray[Any]], declared: Sequence[Format | None]) -> None:
    for i, (array, fmt) in enumerate(zip(arrays, declared, strict=True)):
        wrong = None if fmt is None else flat.off_grid(array, fmt)
        if wrong is not None and fmt is not None:
            raise ValueError(f"operand {i} holds {wrong!r}, which is not a number of its declared format {fmt.name}")


def _apply_torch(
    kind: str,
    inputs: Sequence[Any],
    fmt: Format,
    rounding: Rounding,
    key: Key | None,
    operands: Operands,
    check: bool,
    out: Any,
    dtype: Any,
) -> Any:
    from fpsim.arrays_torch import device_of, on_host, result_dtype, to_host, to_torch

    target = result_dtype(inputs, out, dtype)
    check_holds(str(target).removeprefix("torch."), fmt, out is not None or dtype is not None)
    device = device_of((*inputs, out))
    if not on_host(device):
        from fpsim.cuda import dispatch

        if dispatch.takes(kind, fmt, rounding):
            declared = _declared(operands, len(inputs))
            return dispatch.apply(kind, inputs, fmt, rounding, key, declared, check, device, target, out)
    # Also what is not computed elsewhere: functions, to the same bits.
    result = apply(kind, [to_host(x) for x in inputs], fmt, rounding, key, operands, check, None, np.float64)
    return to_torch(result, target, inputs, out, device)
