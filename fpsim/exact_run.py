"""The exact reader: a program run one correctly rounded rational operation at a time; slow, and what machines equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim import events, exact
from fpsim.events import Tally
from fpsim.precision import Precision, Slot, drawn_bits, scalar_values
from fpsim.program import REDUCTIONS, RUNNABLE, Operation, Program
from fpsim.random_bits import Key, program_draw
from fpsim.rounding import Rounding, Stochastic, random_bits
from fpsim.shapes import Sizes, axis_of, broadcast, check_index

Array = npt.NDArray[np.float64]


def run(
    program: Program,
    state: Mapping[str, npt.ArrayLike],
    inputs: Mapping[str, npt.ArrayLike],
    precision: Precision,
    key: Key | None = None,
    *,
    steps: int = 1,
    first_step: int = 0,
    runs: Sequence[int] = (0,),
    record: Sequence[str] = (),
    tally: Tally | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run ``steps`` steps of ``program`` for the given global run numbers.

    Parameters
    ----------
    state : name -> ``[d]`` or ``[d, runs]``; rounded to the format of its slot before the first step
    inputs : name -> ``[d]``, ``[d, runs]`` (constant) or ``[steps, d, runs]`` (one for every step). Here and below [d]
        stands for the shape that the program declares; arrays that all runs share are given without runs
    record : names of arrays and operations whose value after every step is returned
    tally : where events are counted (``fpsim.events``); setting up is not counted

    Returns
    -------
    (state, records) : name -> ``[d, runs]`` and name -> ``[steps, d, runs]``

    Raises
    ------
    ValueError
        An array is missing or too short for ``steps``, a name to record is unknown, a stochastic slot has no key, or an
        operation is of a kind that this reader does not take.

    Notes
    -----
    States and constants are set up with nearest even where their slot's mode is stochastic. In a step, first the
    per-step inputs are rounded, then the operations run, then what is stored is rounded to the format of its array.
    """
    reader = _Reader(program, precision, key, np.asarray(runs, dtype=np.uint64), tally)
    for name in program.inputs:
        if name not in (state if name in program.state else inputs):
            where = "state" if name in program.state else "inputs"
            raise ValueError(f"{where}: array {name!r} of program {program.name!r} is missing")
    known = {*program.inputs, *(o.slot for o in program.operations), *(array for array, _ in program.outputs)}
    for name in record:
        if name not in known:
            raise ValueError(f"record: {name!r} is not in program {program.name!r}; known: {', '.join(sorted(known))}")
    values = {name: reader.set_up(name, state[name]) for name in program.state}
    per_step: dict[str, Array] = {}
    for name in program.inputs:
        if name not in program.state:
            given = np.asarray(inputs[name], dtype=np.float64)
            if given.ndim == len(program.shape(name)) + 2:
                if len(given) < steps:
                    raise ValueError(f"inputs: {name!r} has {len(given)} steps, {steps} are needed")
                reader.sizes.meet(name, program.shape(name), given.shape[1:-1])
                per_step[name] = given
            else:
                values[name] = reader.set_up(name, given)
    scalars = scalar_values(program, precision, range(first_step, first_step + steps))
    records: dict[str, list[Array]] = {name: [] for name in record}
    for offset in range(steps):
        now = dict(values)
        reader.step = first_step + offset
        for name, given in per_step.items():
            now[name] = reader.rounded("round", name, [given[offset]])
        for name, column in scalars.items():
            now[name] = np.asarray(column[offset if len(column) > 1 else 0])
        for operation in program.operations:
            now[operation.slot] = reader.apply(operation, now)
        for array, value in program.outputs:
            stored = now[value]
            new = reader.rounded("round", array, [stored]) if array in reader.slots else stored
            if tally and array in program.state:
                reader.count_frozen(array, value, now, new)
            values[array] = new
        for name, rows in records.items():
            rows.append(values[name] if name in values else now[name])
    final = {name: values[name] for name in program.state}
    shapes = {name: (steps, *reader.sizes.of(program.shape(name)), len(reader.runs)) for name in records}
    return final, {name: np.array(rows).reshape(shapes[name]) for name, rows in records.items()}


class _Reader:
    """Elementwise application of the specification with the right format, mode and random bits."""

    def __init__(
        self,
        program: Program,
        precision: Precision,
        key: Key | None,
        runs: npt.NDArray[np.uint64],
        tally: Tally | None,
    ) -> None:
        self.program, self.tally = program, tally
        self.slots: dict[str, Slot] = precision.resolve(program)
        self.numbers = {name: number for number, name in enumerate(program.slots)}
        self.drawn = drawn_bits(program, self.slots)
        self.key, self.runs, self.step = key, runs, 0
        self.sizes = Sizes()
        for operation in program.operations:
            if operation.kind not in RUNNABLE:
                raise ValueError(
                    f"{operation.slot}: the exact reader does not take operations of kind {operation.kind!r}"
                )
        random = [name for name, (_, mode) in self.slots.items() if isinstance(mode, Stochastic)]
        if random and key is None:
            raise ValueError(f"key=None: slot {random[0]!r} rounds stochastically and needs a Key")

    def set_up(self, name: str, given: npt.ArrayLike) -> Array:
        """A state or constant, rounded once to its format before the first step."""
        array, shape = np.asarray(given, dtype=np.float64), self.program.shape(name)
        if array.ndim == len(shape):
            array = np.repeat(array[..., np.newaxis], len(self.runs), axis=-1)
        self.sizes.meet(name, shape, array.shape[:-1])
        fmt, mode = self.slots[name]
        mode = "nearest_even" if isinstance(mode, Stochastic) else mode
        return _elementwise(lambda x: exact.operation("round", (x,), fmt, mode), array)

    def apply(self, operation: Operation, now: Mapping[str, Array]) -> Array:
        operands, attributes = [now[name] for name in operation.operands], dict(operation.attributes)
        if operation.kind == "sum":
            return self._sum(operation.slot, operands[0], attributes)
        if operation.kind == "expand":
            return np.expand_dims(operands[0], axis_of("", (*operands[0].shape[:-1], 1), attributes["axis"]))
        if operation.kind == "gather":
            return self._gather(operation, operands[0], operands[1], attributes["axis"])
        aligned = self.aligned(operation, now)
        if operation.kind == "dot":
            return self._dot(operation.slot, aligned, attributes["axis"])
        if operation.rounded:
            return self.rounded(operation.kind, operation.slot, aligned)
        exactly: dict[str, Callable[..., float]] = {
            "neg": lambda x: x if math.isnan(x) else -x,  # the one NaN has no sign
            "abs": abs,
            "sign": lambda x: math.copysign(1.0, x) if x > 0.0 or x < 0.0 else x,  # zeros keep their sign, NaN stays
            "max": lambda a, b: _extreme(a, b, 1.0),
            "min": lambda a, b: _extreme(a, b, -1.0),
            "less": lambda a, b: float(a < b),
            "where": lambda c, a, b: b if c == 0.0 else a,
        }
        return _elementwise(exactly[operation.kind], *aligned)

    def aligned(self, operation: Operation, now: Mapping[str, Array]) -> list[Array]:
        """The operands with axes of length 1 in front, so that shapes are aligned at the last axis before the runs."""
        operands = {name: self.program.shape(name) for name in operation.operands}
        shape = (*self.sizes.of(broadcast(operation.slot, operands)), len(self.runs))
        result = []
        for name in operation.operands:
            x = now[name]
            own = 0 if name.startswith("scalar.") else x.ndim - 1  # a scalar is one number, or one for each run
            missing = len(shape) - 1 - own
            result.append(x if name.startswith("scalar.") else x.reshape((1,) * missing + x.shape))
        result[0] = np.broadcast_to(result[0], shape)
        return result

    def rounded(self, kind: str, slot: str, operands: Sequence[Array], elements: Any = None) -> Array:
        """``elements``: the number of each element among those of its run; by default their C order."""
        fmt, mode = self.slots[slot]
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        arrays = [np.broadcast_to(x, shape) for x in operands]
        words = self._words(slot, mode, _numbered(shape[:-1]) if elements is None else elements)
        result = np.empty(shape)
        for index in np.ndindex(*shape):
            word = None if words is None else int(words[index])
            given = [float(x[index]) for x in arrays]
            exactly = exact.value(kind, given)
            result[index] = exact.round_value(exactly, fmt, mode, word)
            if self.tally:
                self.tally.add(slot, events.of(kind, given, exactly, float(result[index]), fmt, mode, word))
        return result

    def count_frozen(self, array: str, value: str, now: Mapping[str, Array], new: Array) -> None:
        """Compare what is stored in a state at the end of a step with what was there, ``now[array]``."""
        assert self.tally is not None
        producer = next((o for o in self.program.operations if o.slot == value), None)
        kind, operands = "round", [now[value]]
        if producer is not None and producer.rounded and producer.kind not in REDUCTIONS:
            kind, operands = producer.kind, self.aligned(producer, now)
        spread = [np.broadcast_to(x, new.shape) for x in operands]
        for index in np.ndindex(*new.shape):
            exactly = exact.value(kind, [float(x[index]) for x in spread])
            if array != value and events.is_frozen(float(now[array][index]), float(new[index]), exactly):
                self.tally.add(array, ["frozen"])

    def _sum(self, slot: str, x: Array, attributes: Mapping[str, Any]) -> Array:
        """The sum as ``tracing.total`` defines it: an addition has the draws of the first term of its right range."""
        whole = attributes.get("axis") is None
        terms = (
            x.reshape(-1, x.shape[-1]) if whole else np.moveaxis(x, axis_of("", x.shape[:-1], attributes["axis"]), 0)
        )
        numbers = _numbered(x.shape[:-1])
        numbers = (
            numbers.reshape(-1) if whole else np.moveaxis(numbers, axis_of("", numbers.shape, attributes["axis"]), 0)
        )

        def join(left: Array, right: Array, first: int) -> Array:
            return self.rounded("add", slot, [left, right], numbers[first : first + 1] if whole else numbers[first])

        def sequential(low: int, high: int) -> Array:
            s = terms[low : low + 1] if whole else terms[low]
            for k in range(low + 1, high):
                s = join(s, terms[k : k + 1] if whole else terms[k], k)
            return s

        def tree(low: int, high: int) -> Array:
            if high - low == 1:
                return sequential(low, high)
            middle = low + (1 << (high - low - 1).bit_length() - 1)
            return join(tree(low, middle), tree(middle, high), middle)

        n, order = len(terms), attributes.get("order", "sequential")
        if order == "pairwise":
            s = tree(0, n)
        else:
            block = attributes["block"] if order == "blocked" else n
            s = sequential(0, min(block, n))
            for low in range(block, n, block):
                s = join(s, sequential(low, min(low + block, n)), low)
        return np.broadcast_to(s[0], x.shape).copy() if whole else s

    def _dot(self, slot: str, factors: Sequence[Array], axis: int) -> Array:
        """The sum of products as ``tracing.total_of_products`` defines it."""
        shape = np.broadcast_shapes(*(x.shape for x in factors))
        axis = axis_of("", shape[:-1], axis)
        a, b = (np.moveaxis(np.broadcast_to(x, shape), axis, 0) for x in factors)
        numbers = np.moveaxis(_numbered(shape[:-1]), axis, 0)
        s: Array = np.zeros(a.shape[1:])
        for k in range(len(a)):
            s = self.rounded("fma", slot, [a[k], b[k], s], numbers[k])
        return s

    def _gather(self, operation: Operation, x: Array, index: Array, axis: int) -> Array:
        axis = axis_of("", x.shape[:-1], axis)
        check_index(operation.slot, operation.operands[1], index, x.shape[axis])
        rows = index.astype(np.int64)
        columns = [np.take(x[..., run], rows[..., run], axis=axis) for run in range(len(self.runs))]
        return np.stack(columns, axis=-1)

    def _words(self, slot: str, mode: Rounding, elements: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32] | None:
        if not isinstance(mode, Stochastic):
            return None
        assert self.key is not None  # checked in __init__
        places = elements[..., np.newaxis]
        words = program_draw(self.key, places, self.step, self.runs, self.numbers[slot], self.drawn)
        return words >> np.uint32(self.drawn - random_bits(mode))


def _numbered(shape: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    """The C-order numbers of the elements of a run's array."""
    return np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)


def _extreme(a: float, b: float, sign: float) -> float:
    """IEEE 754-2019 maximum (sign 1) or minimum (sign -1): NaN propagates, -0 is below +0."""
    if math.isnan(a) or math.isnan(b):
        return math.nan
    if a == b:
        return a if math.copysign(1.0, a) * sign > 0 else b
    return a if (a - b) * sign > 0 else b


def _elementwise(function: Callable[..., float], *arrays: Any) -> Array:
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    spread = [np.broadcast_to(x, shape) for x in arrays]
    result = np.empty(shape)
    for index in np.ndindex(*shape):
        result[index] = function(*(float(x[index]) for x in spread))
    return result
