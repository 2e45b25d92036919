"""Rounded operations by slot: what a matrix optimizer computes with.

A slot is a name with a format and a rounding mode. The random bits of a stochastic slot are a pure function of
(key, step, slot, n), where n counts how often the step has used the slot: ``key.fold(step).fold(place of the slot among
the method's slots).fold(n)`` is the key of the array function that rounds. What a method draws (``draws``) has its
place after the slots, and n = 0.
"""

from __future__ import annotations

import collections
import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim import arrays, contractions
from fpsim.accumulator import Accumulator
from fpsim.contractions import How
from fpsim.formats import format as named_format
from fpsim.number_format import Format
from fpsim.precision import Slot
from fpsim.program import hint
from fpsim.random_bits import Key, array_draw
from fpsim.rounding import Stochastic
from fpsim.tensor_core import TensorCore

Array: TypeAlias = npt.NDArray[np.float64]
Operand: TypeAlias = Array | float


class Arithmetic:
    """The operations of one step. Arrays are float64, whatever their slot's format.

    Parameters
    ----------
    slots : name -> (Format, rounding), in the order that numbers the random bits
    products : slot of a matrix product -> how its sums are computed; without one, products and a sequential sum in the
        slot's format and mode. What another accumulator returns is rounded once more, to the slot
    scalars : name -> effective value
    key : Key, or None where no mode is stochastic and nothing is drawn
    step : the number of the step, from 0
    draws : names of what the method draws

    Examples
    --------
    >>> ops = Arithmetic({"w.sub": (named_format("bfloat16"), "nearest_even")}, {}, {}, None, 0)
    >>> ops.sub("w.sub", np.array([1.0]), np.array([2.0**-9])).tolist()
    [1.0]
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        products: Mapping[str, Accumulator | TensorCore],
        scalars: Mapping[str, float],
        key: Key | None,
        step: int,
        draws: Iterable[str] = (),
    ) -> None:
        self._slots, self._products, self._scalars, self._step = slots, products, scalars, step
        self._numbers = {name: number for number, name in enumerate((*slots, *map("draw.{}".format, draws)))}
        self._key = None if key is None else key.fold(step)
        self._used: collections.Counter[str] = collections.Counter()

    @property
    def t(self) -> int:
        """The step number of the formulas, from 1."""
        return self._step + 1

    @property
    def used(self) -> frozenset[str]:
        """The slots and scalars that the step has used so far."""
        return frozenset(self._used)

    def scalar(self, name: str) -> float:
        """The effective value of ``scalar.NAME``."""
        self._used[f"scalar.{name}"] += 1
        return self._scalars[f"scalar.{name}"]

    def add(self, slot: str, a: Operand, b: Operand) -> Array:
        return self._apply(slot, arrays.add, a, b)

    def sub(self, slot: str, a: Operand, b: Operand) -> Array:
        return self._apply(slot, arrays.sub, a, b)

    def mul(self, slot: str, a: Operand, b: Operand) -> Array:
        return self._apply(slot, arrays.mul, a, b)

    def div(self, slot: str, a: Operand, b: Operand) -> Array:
        return self._apply(slot, arrays.div, a, b)

    def sqrt(self, slot: str, a: Operand) -> Array:
        return self._apply(slot, arrays.sqrt, a)

    def round(self, slot: str, a: Operand) -> Array:
        """What is stored: an array, or the binary64 result of an opaque operation."""
        return self._apply(slot, arrays.round, a)

    def matmul(self, slot: str, a: Array, b: Array) -> Array:
        """The product of two matrices, or of a matrix and a vector on either side."""
        left, right = np.atleast_2d(a), b if b.ndim == 2 else b[:, np.newaxis]
        result = self._contract(slot, contractions.matmul, left, right)
        return result.reshape((a.shape[:-1]) + (b.shape[1:]))

    def square_sum(self, slot: str, a: Array, axis: int | None = None) -> Array:
        """The sum of squares of all elements in C order, or along an axis of a matrix: sums of products."""
        rows = a.reshape(1, -1) if axis is None else np.moveaxis(a, axis, -1)
        result = self._contract(slot, contractions.matmul, rows[:, np.newaxis, :], rows[:, :, np.newaxis])
        return result.reshape(() if axis is None else len(rows))

    def uniform(self, draw: str, size: int = 1) -> Array:
        """Numbers in (0, 1], multiples of 2^-32, in binary64."""
        words = array_draw(self._draw_key(f"draw.{draw}"), np.arange(size), 32)
        return np.asarray((words.astype(np.float64) + 1.0) * 2.0**-32)

    def normal(self, draw: str, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers in binary64, of two uniform ones each (Box and Muller)."""
        size = math.prod(shape)
        first, second = np.split(self.uniform(draw, 2 * size), 2)
        return np.asarray((np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)).reshape(shape))

    def _apply(self, slot: str, function: Callable[..., Any], *operands: Operand) -> Array:
        fmt, mode = self._slots[slot]
        key = self._draw_key(slot) if isinstance(mode, Stochastic) else None
        self._used[slot] += 1
        return np.asarray(function(*operands, fmt, mode, key), dtype=np.float64)

    def _contract(self, slot: str, function: Callable[..., Any], a: Array, b: Array) -> Array:
        fmt, mode = self._slots[slot]
        how = self._products.get(slot)
        drawn = Accumulator.uniform(fmt, mode) if how is None else how
        random = isinstance(drawn, Accumulator) and drawn.drawn_bits() > 0
        key = self._draw_key(slot) if random else None
        self._used[slot] += 1
        try:
            result = np.asarray(function(a, b, drawn, key=key), dtype=np.float64)
        except ValueError as error:
            raise ValueError(f"slot {slot!r}: {error}") from error
        return result if how is None else self._apply(slot, arrays.round, result)

    def _draw_key(self, slot: str) -> Key:
        if self._key is None:
            raise ValueError(f"key=None: slot {slot!r} draws random bits and needs a Key")
        return self._key.fold(self._numbers[slot]).fold(self._used[slot])


def accumulators(given: Mapping[str, How], products: Sequence[str], name: str) -> dict[str, Accumulator | TensorCore]:
    """The accumulator of every product slot that a pattern names; the last matching one wins.

    Raises
    ------
    TypeError
        No accumulator, tensor core, format or name.
    ValueError
        A pattern that matches no slot of a matrix product of the method ``name``.

    Examples
    --------
    >>> accumulators({"ns.*": "binary32"}, ("ns.gram", "ns.apply"), "muon")["ns.gram"].result.name
    'e8m23'
    """
    chosen: dict[str, Accumulator | TensorCore] = {}
    for pattern, how in given.items():
        matched = fnmatch.filter(products, pattern)
        if not matched:
            raise ValueError(f"accumulator {pattern!r} is no matrix product of {name!r}{hint(pattern, products)}")
        if isinstance(how, (Format, str)):
            how = Accumulator.uniform(named_format(how))
        if not isinstance(how, (Accumulator, TensorCore)):
            raise TypeError(f"accumulator {pattern!r}: {how!r}; admissible: Accumulator, tensor core, Format, name")
        chosen.update(dict.fromkeys(matched, how))
    return chosen
