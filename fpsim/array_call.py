"""What all array functions share: shapes, dtypes, declared operands, tiers, random bits, chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim.cpu import codes, execute
from fpsim.cpu.lower import Draws, Formats, Place, Step, plan_of, rows_of
from fpsim.cpu.tiers import Range
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.random_bits import Key, check_key
from fpsim.rounding import Rounding, Stochastic, parse, random_bits

Operands: TypeAlias = Format | str | Sequence[Format | str | None] | None

_CHUNK = 1 << 15  # elements; a multiple of the 512 that share random words
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
    fmt, rounding = named_format(fmt), parse(rounding)
    check_key(key)
    if isinstance(rounding, Stochastic) and key is None:
        raise ValueError(f"key=None: rounding {rounding} needs a Key")
    if any(_is_torch(x) for x in (*inputs, out)):
        return _apply_torch(kind, inputs, fmt, rounding, key, operands, check, out, dtype)
    arrays = [np.asarray(x) for x in inputs]
    names = [_dtype_name(x, array) for x, array in zip(inputs, arrays, strict=True)]
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    target = _target(names, fmt, out, dtype)
    if out is not None:
        _check_out(out, shape, [array for array in arrays if array.shape != () or array is out])
    declared = _declared(operands, len(arrays))
    ranges = [_range(*given) for given in zip(arrays, names, declared, strict=True)]
    if check:
        _check_declared(arrays, declared)
    direct = out is not None and out.flags.c_contiguous
    result = out if direct else np.empty(shape, dtype=target)
    _in_chunks(kind, arrays, ranges, fmt, rounding, key, shape, result.reshape(-1))
    if out is None:
        return result[()]
    if not direct:
        out[...] = result
    return out


def _in_chunks(
    kind: str,
    arrays: Sequence[npt.NDArray[Any]],
    ranges: Sequence[Range],
    fmt: Format,
    rounding: Rounding,
    key: Key | None,
    shape: tuple[int, ...],
    result: npt.NDArray[Any],
) -> None:
    """The machine with a program of one operation, over chunks that stay in the second-level cache.

    A float64 result is written, and a float64 operand of ``round`` read, strip by strip; other operands and results
    pass through registers of a whole chunk, which converts their dtype.
    """
    length = min(_CHUNK, -(-result.size // execute.STRIP) * execute.STRIP)
    registers = np.empty(4 * length)
    flat: list[npt.NDArray[Any] | None] = []
    places: list[Place] = []
    for i, array in enumerate(arrays):
        alone = array.size == 1
        places.append((i * length, 0, 0 if alone else 1))
        flat.append(None if alone else np.ascontiguousarray(np.broadcast_to(array, shape)).reshape(-1))
        if alone:
            registers[i * length : i * length + execute.STRIP] = _values(array).reshape(())
    bits = random_bits(rounding)
    draws = Draws((9 if bits <= 16 else 8,) if bits else (), {"": (0, 0, 16 if bits <= 16 else 0, 32 - bits)})
    load = kind == "round" and flat[0] is not None and flat[0].dtype == np.float64
    store = result.dtype == np.float64
    destination: Place = (3 * length, 0, 0 if store else 1)
    where = ((0, 0, 0), (1, 0, 0)) if load else tuple(places)
    steps = [Step(codes.LOAD if load else codes.KINDS[kind], "", -1, destination, where)]
    if store:
        steps.append(Step(codes.RECORD, "", 0, (0, 0, 0), (destination,)))
    formats = Formats()
    table, plan = rows_of(steps, draws), plan_of(steps, [{"": formats.decide(kind, ranges, fmt, rounding)}])
    integers, floats = formats.tables()
    k0, k1 = (key.k0, key.k1) if key else (0, 0)
    x, words = np.empty(execute.STRIP), np.empty(execute.STRIP, dtype=np.uint32)
    groups = np.array(draws.groups, dtype=np.uint64)
    counters, zeros = np.zeros(execute.STRIP, dtype=np.uint64), np.zeros(execute.STRIP, dtype=np.uint64)
    nothing, events = np.empty(0), np.zeros((1, 0, 3), dtype=np.int64)
    for start in range(0, result.size, _CHUNK):
        n = min(_CHUNK, result.size - start)
        part = result[start : start + n]
        for i, values in enumerate(flat):
            if values is not None and not load:
                registers[i * length : i * length + n] = _values(values[start : start + n])
        given = flat[0][start : start + n] if load and flat[0] is not None else nothing
        execute.execute(
            registers, x, words, table, plan, integers, floats, np.empty((1, 0, 1, 1)), 0, given,
            part if store else nothing, events, groups, counters, zeros, np.uint64(k0), np.uint64(k1), 1, n, 1,
            execute.STRIP, np.uint64(0), 0, 1, 1, start,
        )  # fmt: skip
        if not store:
            part[:] = registers[3 * length : 3 * length + n]


def _values(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """As float64, exactly."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return array.astype(np.float64, copy=False)


def _dtype_name(given: Any, array: npt.NDArray[Any]) -> str:
    if array.dtype.name in _DTYPES and not isinstance(given, (bool, int, float)):
        return array.dtype.name
    if array.dtype.kind in "iub" and array.size:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if array.dtype.itemsize == 8 and largest > 1 << 53:
            raise ValueError(f"an integer operand reaches {largest}; admissible: magnitudes up to 2^53")
    elif array.dtype.kind not in "iubf" or array.dtype.itemsize > 8:
        raise ValueError(f"operand of dtype {array.dtype}; admissible: {', '.join(_DTYPES)}, integers")
    return "float64"


def _target(names: Sequence[str], fmt: Format, out: Any, dtype: Any) -> Any:
    if out is not None:
        if not isinstance(out, np.ndarray):
            raise ValueError(f"out is a {type(out).__name__}; admissible: an array")
        if dtype is not None and _dtype(dtype) != out.dtype:
            raise ValueError(f"dtype={_dtype(dtype)} and out of dtype {out.dtype} differ")
        dtype = out.dtype
    explicit = dtype is not None
    target = _dtype(dtype) if explicit else np.result_type(*names)
    check_holds(target.name, fmt, explicit)
    return target


def _dtype(given: Any) -> Any:
    try:
        return np.dtype(given)
    except TypeError as error:  # "bfloat16" among them, until ml_dtypes is imported
        raise ValueError(f"dtype={given!r} is no dtype that NumPy knows; admissible: {', '.join(_DTYPES)}") from error


def check_holds(name: str, fmt: Format, explicit: bool) -> None:
    """Raise ``ValueError`` unless the floating dtype holds every value of the format."""
    if name not in _DTYPES:
        raise ValueError(f"dtype={name}; admissible: {', '.join(_DTYPES)}")
    if not named_format(_DTYPES[name]).holds(fmt):
        wider = [d for d in _DTYPES if named_format(_DTYPES[d]).holds(fmt)]
        what = f"dtype={name}" if explicit else f"the inputs' common dtype {name}"
        raise ValueError(f"{what} cannot hold the format {fmt.name}; admissible: dtype={' or '.join(wider)}")


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


def _range(array: npt.NDArray[Any], name: str, declared: Format | None) -> Range:
    if array.size == 1:
        return Range.of_values(_values(array).reshape(1))
    return Range.of_format(declared or named_format(_DTYPES[name]))


def _check_declared(arrays: Sequence[npt.NDArray[Any]], declared: Sequence[Format | None]) -> None:
    for i, (array, fmt) in enumerate(zip(arrays, declared, strict=True)):
        if fmt is None:
            continue
        values = np.atleast_1d(_values(array))
        rounded = np.empty(values.shape)
        wide = Range.of_format(named_format("binary64"))
        _in_chunks("round", [values], [wide], fmt, "nearest_even", None, values.shape, rounded.reshape(-1))
        off = (rounded != values) & np.isfinite(values)  # infinities and NaN are exact in every kernel
        if off.any():
            raise ValueError(
                f"operand {i} holds {float(values[off][0])!r}, which is not a number of its declared format {fmt.name}"
            )


def _is_torch(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch"


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
    from fpsim.arrays_torch import from_torch, result_dtype, to_torch

    target = result_dtype(inputs, out, dtype)
    check_holds(str(target).removeprefix("torch."), fmt, out is not None or dtype is not None)
    result = apply(kind, [from_torch(x) for x in inputs], fmt, rounding, key, operands, check, None, np.float64)
    return to_torch(result, target, inputs, out)
