"""Symbolic shapes of the values of a program: how they follow from those of the inputs, and what they are in a run.

A shape is a tuple of dimensions, each a name (``"d"``) or a number. Elementwise operations broadcast like NumPy:
shapes are aligned at their last axes, and a dimension 1 goes with every other. A name stands for one length of at least
1, which the arrays that are given determine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Dimension: TypeAlias = str | int
Shape: TypeAlias = tuple[Dimension, ...]

DEFAULT: Shape = ("d",)
ORDERS = ("sequential", "pairwise", "blocked")


def checked(name: str, shape: Any) -> Shape:
    """The declared shape of an input as a tuple, or an error that names it."""
    if isinstance(shape, (str, int)) or not isinstance(shape, Sequence):
        raise TypeError(f'array {name!r}: shape {shape!r}; admissible: a tuple of names and numbers, such as ("d", 3)')
    for dimension in shape:
        wrong = isinstance(dimension, bool) or not isinstance(dimension, (str, int))
        if wrong or (isinstance(dimension, int) and dimension < 1) or dimension == "":
            raise ValueError(f"array {name!r}: dimension {dimension!r}; admissible: names, and numbers of at least 1")
    return tuple(shape)


def text(shape: Shape) -> str:
    """``[d, n]``"""
    return f"[{', '.join(map(str, shape))}]"


def broadcast(slot: str, shapes: Mapping[str, Shape]) -> Shape:
    """The common shape of the operands of an elementwise operation."""
    length = max((len(shape) for shape in shapes.values()), default=0)
    result: list[Dimension] = []
    for place in range(-length, 0):
        found = {name: shape[place] for name, shape in shapes.items() if len(shape) >= -place and shape[place] != 1}
        if len(set(found.values())) > 1:
            given = ", ".join(f"{name} {text(shape)}" for name, shape in shapes.items())
            raise ValueError(
                f"{slot}: the shapes {given} do not go together: dimensions "
                f"{' and '.join(map(str, dict.fromkeys(found.values())))} meet; admissible: equal ones, and 1"
            )
        result.append(next(iter(found.values()), 1))
    return tuple(result)


def of_operation(kind: str, slot: str, operands: Mapping[str, Shape], attributes: Mapping[str, Any]) -> Shape:
    """The shape of the result of one operation.

    Parameters
    ----------
    operands : name -> shape, in the order of the operation; an operand that occurs twice stands there once
    """
    shapes = list(operands.values())
    if kind == "sum":
        _check_order(slot, attributes)
        if attributes.get("axis") is None:
            return shapes[0]
        axis = axis_of(slot, shapes[0], attributes["axis"])
        return shapes[0][:axis] + shapes[0][axis + 1 :]
    if kind == "dot":
        joined = broadcast(slot, operands)
        axis = axis_of(slot, joined, attributes["axis"])
        return joined[:axis] + joined[axis + 1 :]
    if kind == "expand":
        axis = axis_of(slot, (*shapes[0], 1), attributes["axis"])
        return (*shapes[0][:axis], 1, *shapes[0][axis:])
    if kind == "gather":
        if len(shapes) == 1:
            raise ValueError(f"{slot}: an array is its own index")
        axis = axis_of(slot, shapes[0], attributes["axis"])
        return shapes[0][:axis] + shapes[1] + shapes[0][axis + 1 :]
    return broadcast(slot, operands)


def axis_of(slot: str, shape: Shape, axis: Any) -> int:
    """An axis counted from the first one."""
    if isinstance(axis, bool) or not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
        interval = f"{-len(shape)}..{len(shape) - 1}" if shape else "none: it has no axes"
        raise ValueError(f"{slot}: axis={axis!r} of shape {text(shape)}; admissible: {interval}")
    return axis % len(shape)


def _check_order(slot: str, attributes: Mapping[str, Any]) -> None:
    order, block = attributes.get("order", "sequential"), attributes.get("block")
    if order not in ORDERS:
        raise ValueError(f"{slot}: order={order!r}; admissible: {', '.join(ORDERS)}")
    if order == "blocked":
        if isinstance(block, bool) or not isinstance(block, int) or block < 1:
            raise ValueError(f"{slot}: block={block!r} with order='blocked'; admissible: an integer of at least 1")
    elif block is not None:
        raise ValueError(f"{slot}: block={block!r} with order={order!r}; admissible: None")


def check_index(slot: str, name: str, values: npt.NDArray[np.float64], length: int) -> None:
    """Raise ``ValueError`` unless all are whole numbers of 0 .. length - 1, which a gather may read."""
    wrong = ~((values >= 0) & (values < length) & (values == np.floor(values)))
    if wrong.any():
        raise ValueError(f"{slot}: index {name!r} holds {values[wrong][0]:g}; admissible: integers of 0..{length - 1}")


class Sizes:
    """Lengths of the named dimensions, found array by array."""

    def __init__(self, lengths: Mapping[str, int] | None = None) -> None:
        self._found: dict[str, tuple[int, str]] = {name: (length, "") for name, length in (lengths or {}).items()}

    def meet(self, array: str, shape: Shape, given: tuple[int, ...]) -> None:
        """Take over the lengths of an array, or raise where they contradict what is known."""
        if len(given) != len(shape):
            raise ValueError(f"array {array!r} has shape {given}; admissible: {text(shape)}")
        for dimension, length in zip(shape, given, strict=True):
            wanted, where = (dimension, "") if isinstance(dimension, int) else self._found.get(dimension, (length, ""))
            if length != wanted or length < 1:
                why = f", as in array {where!r}" if where else ""
                least = wanted if wanted >= 1 else "at least 1"
                raise ValueError(
                    f"array {array!r} has shape {given}: dimension {dimension} is {length}; admissible: {least}{why}"
                )
            if isinstance(dimension, str):
                self._found.setdefault(dimension, (length, array))

    def of(self, shape: Shape) -> tuple[int, ...]:
        """A shape in numbers."""
        missing = [name for name in shape if isinstance(name, str) and name not in self._found]
        if missing:
            raise ValueError(f"dimension {missing[0]!r} of shape {text(shape)} is not known from any array")
        return tuple(self._found[x][0] if isinstance(x, str) else x for x in shape)

    def count(self, shape: Shape) -> int:
        """Elements of a shape."""
        return math.prod(self.of(shape))

    def lengths(self) -> dict[str, int]:
        return {name: length for name, (length, _) in self._found.items()}
