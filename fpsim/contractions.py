"""Sums and products of matrices in which every operation is rounded.

Common to all functions here:

accumulator : Accumulator, which says what is rounded to which format and in what order (see ``fpsim.accumulator``);
    the model of a tensor core from ``Accumulator.tensor_core``; or a Format or its name, for products and a sequential
    sum in that format
rounding : the mode, with a Format or a name only; default "nearest_even"
key : Key, needed where a mode is stochastic
out : array for the result;  dtype : floating dtype of the result

The result has the inputs' common floating dtype (Python numbers and integer arrays count as float64), which must hold
the accumulator's format. Torch tensors in give a torch tensor out, detached and on their device. On a card one Triton
kernel computes it; pairwise sums, tensor cores, and all where Triton is missing, plain torch operations, more slowly.
Results depend neither on strides, dtypes and the order in memory nor on the device or the number of threads. An empty
sum is +0.

Raises ``ValueError`` where the dtype cannot hold the format (pass ``dtype=``), a stochastic mode has no key, shapes do
not fit, or an operand of a tensor core is not in its format.
"""

from __future__ import annotations

import functools
import importlib
import math
import operator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim import array_call
from fpsim.accumulator import Accumulator
from fpsim.number_format import Format
from fpsim.random_bits import Key, check_key
from fpsim.rounding import Rounding, Stochastic, parse
from fpsim.tensor_core import TensorCore

How: TypeAlias = Accumulator | TensorCore | Format | str
Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = npt.NDArray[Any]


def sum(
    x: Any,
    accumulator: How,
    rounding: Rounding | None = None,
    key: Key | None = None,
    *,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """The sum of x over ``axis``, every addition rounded.

    Parameters
    ----------
    x : array, real
    accumulator, rounding, key, out, dtype : as in ``help(fpsim.contractions)``; products and fma do not matter here
    axis : int, tuple of ints, or None for all axes; over several axes the terms come in C order
    keepdims : bool, whether the axes stay in the result, with length 1

    Returns
    -------
    array of the shape of x without the axes, or with axes of length 1; or a scalar

    Raises
    ------
    ValueError
        The dtype cannot hold the format, a stochastic mode has no key, ``out`` does not fit, a tensor core is given.

    Examples
    --------
    >>> import numpy as np
    >>> float(sum(np.ones(1000), "bfloat16"))  # 256 + 1 rounds to 256
    256.0
    >>> float(sum(np.ones(1000), Accumulator("bfloat16", "bfloat16", order="pairwise")))
    1000.0
    """
    how = _how(accumulator, rounding, key, products=False)
    if isinstance(how, TensorCore):
        raise ValueError(
            "accumulator is a tensor core, which multiplies; admissible for sum: Accumulator, Format, name"
        )

    def compute(arrays: list[Any]) -> Any:
        x = arrays[0]
        axes = _axes(axis, x.ndim)
        kept = [i for i in range(x.ndim) if i not in axes]
        shape = tuple(x.shape[i] for i in kept)
        widened = tuple(1 if i in axes else length for i, length in enumerate(x.shape))
        ordered = x.transpose(*axes, *kept) if isinstance(x, np.ndarray) else x.permute((*axes, *kept))
        terms = ordered.reshape(math.prod(x.shape[i] for i in axes), math.prod(shape))
        return _total(terms, how, key).reshape(widened if keepdims else shape)

    return _called([x], compute, how, out, dtype)


def dot(
    a: Any,
    b: Any,
    accumulator: How,
    rounding: Rounding | None = None,
    key: Key | None = None,
    *,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """The dot product of two vectors.

    Parameters
    ----------
    a, b : arrays of one dimension and equal length, real
    accumulator, rounding, key, out, dtype : as in ``help(fpsim.contractions)``

    Returns
    -------
    scalar

    Raises
    ------
    ValueError
        Lengths differ, the dtype cannot hold the format, a stochastic mode has no key.

    Examples
    --------
    >>> float(dot([1.0, 3.0], [1.0, 2.0**-9], "bfloat16"))
    1.0078125
    >>> float(dot([1.0, 1.0078125], [-1.015625, 1.0078125], Accumulator(None, "bfloat16", fma=True)))
    6.103515625e-05
    """
    return _multiplied([a, b], ("a", "b"), (1, 1), accumulator, rounding, key, out, dtype)


def matvec(
    a: Any,
    x: Any,
    accumulator: How,
    rounding: Rounding | None = None,
    key: Key | None = None,
    *,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """The product of a matrix and a vector.

    Parameters
    ----------
    a : array ``[..., rows, n]``;  x : array ``[n]``, real
    accumulator, rounding, key, out, dtype : as in ``help(fpsim.contractions)``

    Returns
    -------
    array ``[..., rows]``

    Raises
    ------
    ValueError
        Shapes do not fit, the dtype cannot hold the format, a stochastic mode has no key.

    Examples
    --------
    >>> matvec([[1.0, 0.0], [0.1, 0.2]], [1.0, 1.0], "bfloat16").tolist()
    [1.0, 0.30078125]
    """
    return _multiplied([a, x], ("a", "x"), (2, 1), accumulator, rounding, key, out, dtype)


def matmul(
    a: Any,
    b: Any,
    accumulator: How,
    rounding: Rounding | None = None,
    key: Key | None = None,
    *,
    out: Any = None,
    dtype: Any = None,
) -> Any:
    """The product of two matrices, or of stacks of matrices whose leading dimensions broadcast.

    Parameters
    ----------
    a : array ``[..., rows, n]``;  b : array ``[..., n, columns]``, real
    accumulator, rounding, key, out, dtype : as in ``help(fpsim.contractions)``

    Returns
    -------
    array ``[..., rows, columns]``

    Raises
    ------
    ValueError
        Shapes do not fit, the dtype cannot hold the format, a stochastic mode has no key.

    Examples
    --------
    >>> matmul([[1.0, 2.0**-8]], [[1.0], [1.0]], "bfloat16", "up").tolist()
    [[1.0078125]]
    >>> matmul([[1.0, 2.0**-8]], [[1.0], [1.0]], Accumulator("bfloat16", "binary32")).tolist()
    [[1.00390625]]
    """
    return _multiplied([a, b], ("a", "b"), (2, 2), accumulator, rounding, key, out, dtype)


def _multiplied(
    inputs: list[Any],
    names: tuple[str, str],
    dimensions: tuple[int, int],
    accumulator: How,
    rounding: Rounding | None,
    key: Key | None,
    out: Any,
    dtype: Any,
) -> Any:
    how = _how(accumulator, rounding, key, products=True)

    def compute(arrays: list[Any]) -> Any:
        a, b = arrays
        for array, name, least in zip(arrays, names, dimensions, strict=True):
            if array.ndim < least or (least == 1 and array.ndim > 1):
                admissible = "1 dimension" if least == 1 else "2 or more dimensions"
                raise ValueError(f"{name} has shape {tuple(array.shape)}; admissible: {admissible}")
        a = a[np.newaxis] if dimensions[0] == 1 else a
        b = b[:, np.newaxis] if dimensions[1] == 1 else b
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(
                f"{names[0]} of shape {tuple(arrays[0].shape)} and {names[1]} of shape {tuple(arrays[1].shape)} do not "
                f"fit: {a.shape[-1]} and {b.shape[-2]} terms"
            )
        _check_stacks(arrays, names, a.shape[:-2], b.shape[:-2])
        if isinstance(how, TensorCore):
            _check_operands(arrays, names, how.operands)
        result = _product(a, b, how, key)
        result = result[..., 0] if dimensions[1] == 1 else result
        return result[0] if dimensions[0] == 1 else result

    return _called(inputs, compute, how, out, dtype)


def _total(terms: Any, how: Accumulator, key: Key | None) -> Any:
    """The sums of the columns of an array, or of a tensor where it lies."""
    if not isinstance(terms, np.ndarray):
        from fpsim.cuda.twin_contract_dispatch import total

        return total(terms, how, key)
    from fpsim.cpu import accumulate

    result = np.empty((1, terms.shape[1]))
    accumulate.contract(np.empty((1, 0)), _matrix(terms), how, key, 0, (0, 1), result)
    return result


def _product(a: Any, b: Any, how: Accumulator | TensorCore, key: Key | None) -> Any:
    """The stacked product, one pair of matrices at a time; the rows of a stack times one matrix are one product."""
    if not isinstance(a, np.ndarray):
        from fpsim.cuda.twin_contract_dispatch import product

        return product(a, b, how, key)
    rows, columns = a.shape[-2], b.shape[-1]
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = np.empty((*stack, rows, columns))
    if math.prod(b.shape[:-2]) == 1:
        _one_product(
            a.reshape(math.prod(a.shape[:-1]), a.shape[-1]),
            b.reshape(b.shape[-2:]),
            how,
            key,
            0,
            result.reshape(math.prod(result.shape[:-1]), columns),
        )
        return result
    a, b = np.broadcast_to(a, (*stack, *a.shape[-2:])), np.broadcast_to(b, (*stack, *b.shape[-2:]))
    for number, index in enumerate(np.ndindex(stack)):
        _one_product(a[index], b[index], how, key, number * rows * columns, result[index])
    return result


def _one_product(
    a: Array, b: Array, how: Accumulator | TensorCore, key: Key | None, element: int, result: npt.NDArray[np.float64]
) -> None:
    """A tall result is computed as its transpose: products commute, and the kernels run along rows."""
    from fpsim.cpu import accumulate, tensor_core

    rows, columns = result.shape
    flat = np.empty((columns, rows)) if columns < min(rows, 64) else None
    left, right = (_matrix(a), _matrix(b)) if flat is None else (_matrix(b.T), _matrix(a.T))
    target = result if flat is None else flat
    if isinstance(how, TensorCore):
        tensor_core.contract(left, right, how if flat is None else how.swapped, target)
    else:
        accumulate.contract(left, right, how, key, element, (columns, 1) if flat is None else (1, columns), target)
    if flat is not None:
        result[:] = flat.T


def _called(inputs: list[Any], compute: Any, how: Accumulator | TensorCore, out: Any, dtype: Any) -> Any:
    """``compute`` with the rules of array functions for dtypes and ``out``."""
    fmt = how.result
    if any(array_call._is_torch(x) for x in (*inputs, out)):
        from fpsim import arrays_torch
        from fpsim.arrays_torch import device_of, from_torch, result_dtype, to_torch

        target = result_dtype(inputs, out, dtype)
        array_call.check_holds(str(target).removeprefix("torch."), fmt, out is not None or dtype is not None)
        device = device_of((*inputs, out))
        if not arrays_torch.on_host(device):
            from fpsim.cuda.twin_contract_dispatch import operand

            tensors = [operand(x if array_call._is_torch(x) else _checked(x), device) for x in inputs]
            return to_torch(compute(tensors), target, inputs, out)
        return to_torch(compute([_checked(from_torch(x)) for x in inputs]), target, inputs, out)
    arrays = [np.asarray(x) for x in inputs]
    names = [array_call._dtype_name(x, array) for x, array in zip(inputs, arrays, strict=True)]
    target = array_call._target(names, fmt, out, dtype)
    result = compute(arrays)
    if out is None:
        return result.astype(target, copy=False)[()]
    array_call._check_out(out, result.shape, [])
    out[...] = result
    return out


def _checked(x: Any) -> Array:
    array = np.asarray(x)
    array_call._dtype_name(x, array)  # refuses what has no exact float64
    return array


def _how(accumulator: How, rounding: Rounding | None, key: Key | None, products: bool) -> Accumulator | TensorCore:
    check_key(key)
    if isinstance(accumulator, (Format, str)):
        how = _uniform(accumulator, "nearest_even" if rounding is None else parse(rounding))
    elif not isinstance(accumulator, (Accumulator, TensorCore)):
        raise TypeError(f"accumulator={accumulator!r}; admissible: Accumulator, tensor core, Format, name of a format")
    elif rounding is not None:
        raise ValueError(f"rounding={rounding!r} beside an accumulator, which has its own; admissible: None")
    elif isinstance(accumulator, TensorCore):
        return accumulator
    else:
        how = accumulator
    for name, mode in how.roundings(products).items():
        if isinstance(mode, Stochastic) and key is None:
            raise ValueError(f"key=None: {name} {mode} needs a Key")
    return how


@functools.lru_cache(maxsize=256)
def _uniform(fmt: Format | str, rounding: Rounding) -> Accumulator:
    return Accumulator.uniform(fmt, rounding)


def _axes(axis: Any, dimensions: int) -> list[int]:
    if axis is None:
        return list(range(dimensions))
    given = axis if isinstance(axis, tuple) else (axis,)
    axes = []
    for one in given:
        try:
            number = operator.index(one)
        except TypeError as error:
            raise TypeError(f"axis={axis!r}; admissible: an integer, a tuple of integers, None") from error
        if not -dimensions <= number < dimensions:
            admissible = f"{-dimensions}..{dimensions - 1}" if dimensions else "None"
            raise ValueError(f"axis={axis} for an array of {dimensions} dimensions; admissible: {admissible}")
        axes.append(number % dimensions)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis={axis} names an axis twice")
    return sorted(axes)


def _matrix(x: Array) -> npt.NDArray[np.float64]:
    from fpsim.cpu import accumulate

    return accumulate.matrix(array_call._values(x))


def _check_stacks(arrays: list[Any], names: tuple[str, str], first: Shape, second: Shape) -> None:
    try:
        np.broadcast_shapes(first, second)
    except ValueError as error:
        raise ValueError(
            f"{names[0]} of shape {tuple(arrays[0].shape)} and {names[1]} of shape {tuple(arrays[1].shape)} do not "
            f"fit: the leading dimensions {tuple(first)} and {tuple(second)} do not broadcast"
        ) from error


def _check_operands(arrays: list[Any], names: tuple[str, str], formats: tuple[Format, Format]) -> None:
    for array, name, fmt in zip(arrays, names, formats, strict=True):
        room = "cpu.flat" if isinstance(array, np.ndarray) else "cuda.twin_contract_core"
        wrong = importlib.import_module(f"fpsim.{room}").off_grid(array, fmt)
        if wrong is not None:
            raise ValueError(f"{name} holds {wrong!r}; admissible: numbers of the tensor core's format {fmt.name}")
        if not fmt.has_infinity and (abs(array) == math.inf).any():
            raise ValueError(f"{name} holds an infinity, which its format {fmt.name} does not have")
