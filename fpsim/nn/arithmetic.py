"""What computes the rounded operations of a network: the machines, or the specification, one number at a time.

Operands and results are detached tensors of one dtype on one device. A stochastic operation draws the bits of an array
function (``fpsim.random_bits.array_draw``) under the key it is given, a sum those of an accumulator.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from fpsim import arrays, block_arrays, contractions, elementary_arrays, exact, more_arrays
from fpsim.accumulator import Accumulator
from fpsim.exact_accumulate import accumulate
from fpsim.nn.roles import Operand, Slot
from fpsim.number_format import Format
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import random_bits
from fpsim.tensor_core import TensorCore, multiply_accumulate

Tensor: TypeAlias = torch.Tensor

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(module, name)
    for module, names in (
        (arrays, ("round", "add", "sub", "mul", "div", "sqrt")),
        (more_arrays, ("rsqrt",)),
        (elementary_arrays, ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "sin", "cos")),
    )
    for name in names
}


class Fast:
    """The machines: Numba on the CPU, on a card what the array functions use there."""

    def operation(self, kind: str, operands: Sequence[Tensor], slot: Slot, key: Key | None) -> Tensor:
        """One correctly rounded operation, elementwise over operands that broadcast."""
        return _called(lambda *given: FUNCTIONS[kind](*given, *slot, key), operands)

    def matmul(self, a: Tensor, b: Tensor, how: Accumulator | TensorCore, key: Key | None) -> Tensor:
        """``[..., m, k]`` times ``[..., k, n]``, in the accumulator's result format."""
        return _called(lambda x, y: contractions.matmul(x, y, how, None, key), (a, b))

    def sum(self, x: Tensor, axes: tuple[int, ...], how: Accumulator, key: Key | None) -> Tensor:
        """The sum over ``axes``, which stay with length 1."""
        return _called(lambda given: contractions.sum(given, how, None, key, axis=axes, keepdims=True), (x,))

    def operand(self, x: Tensor, to: Operand, axis: int, key: Key | None, scaled: bool) -> tuple[Tensor, int]:
        """What a matrix product reads: rounded to a format, or to a block format along ``axis``; and the number n of
        the power 2^n that it was multiplied by."""
        fmt, mode = to
        if not isinstance(fmt, Format):
            return _called(lambda given: block_arrays.block_round(given, fmt, mode, key, axis=axis), (x,)), 0
        n = _room(x, fmt) if scaled else 0
        return self.operation("round", (x.double() * 2.0**n if n else x,), (fmt, mode), key).to(x), n


class ByDefinition(Fast):
    """``fpsim.exact`` and ``fpsim.exact_accumulate``: rational arithmetic, for small shapes."""

    def operation(self, kind: str, operands: Sequence[Tensor], slot: Slot, key: Key | None) -> Tensor:
        spread = torch.broadcast_tensors(*operands)
        fmt, mode = slot
        bits = random_bits(mode)
        words = array_draw(key, np.arange(spread[0].numel()), bits).tolist() if bits and key is not None else None
        columns = zip(*(x.reshape(-1).double().tolist() for x in spread), strict=True)
        found = [
            exact.operation(kind, numbers, fmt, mode, words[i] if words is not None else None)
            for i, numbers in enumerate(columns)
        ]
        return torch.tensor(found, dtype=torch.float64).to(spread[0]).reshape(spread[0].shape)

    def matmul(self, a: Tensor, b: Tensor, how: Accumulator | TensorCore, key: Key | None) -> Tensor:
        stack = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        shape = (*stack, a.shape[-2], b.shape[-1])
        left, right = a.expand(*stack, *a.shape[-2:]).tolist(), b.expand(*stack, *b.shape[-2:]).mT.tolist()
        result = []
        for element, place in enumerate(itertools.product(*map(range, shape))):
            row, column = left, right
            for i in place[:-2]:
                row, column = row[i], column[i]
            row, column = row[place[-2]], column[place[-1]]
            if isinstance(how, TensorCore):
                result.append(multiply_accumulate(how, row, column))
            else:
                result.append(accumulate(list(zip(row, column, strict=True)), how, key, element))
        return torch.tensor(result, dtype=torch.float64).to(a).reshape(shape)

    def sum(self, x: Tensor, axes: tuple[int, ...], how: Accumulator, key: Key | None) -> Tensor:
        axes = tuple(sorted(axis % x.ndim for axis in axes))
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        lengths = [math.prod(x.shape[axis] for axis in some) for some in (axes, kept)]
        terms = x.permute((*axes, *kept)).reshape(lengths).mT.tolist()
        found = [accumulate([(t,) for t in column], how, key, element) for element, column in enumerate(terms)]
        shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
        return torch.tensor(found, dtype=torch.float64).to(x).reshape(shape)


def _room(x: Tensor, fmt: Format) -> int:
    """The largest n for which the magnitudes of 2^n x, infinities aside, are within the format; 0 where all are 0."""
    size = torch.where(torch.isfinite(x), x.abs(), 0.0)
    largest = float(size.max()) if size.numel() else 0.0
    (most, top), (share, exponent) = math.frexp(fmt.max), math.frexp(largest)
    return top - exponent - (share > most) if largest > 0.0 else 0


def _called(function: Callable[..., Any], tensors: Sequence[Tensor]) -> Tensor:
    """On the CPU through NumPy's views of the tensors, which have no overhead of copies."""
    if any(x.device.type != "cpu" for x in tensors):
        return function(*tensors)
    return torch.from_numpy(np.asarray(function(*(x.numpy() for x in tensors))))
