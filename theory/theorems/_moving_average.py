"""How a program decays a state and adds to it, found from its operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpsim.number_format import Format
from fpsim.program import Operation, Program
from theory.theorem import Hypothesis
from theory.window import FloatArray, Window


@dataclass(frozen=True)
class MovingAverage:
    """state' = fl(fl(scalar * state) + injected): the names of the operations.

    Attributes
    ----------
    state, scalar : the state, and the scalar that decays it
    decay, add : the slots of the product and of the sum
    injected : the name of what is added
    """

    state: str
    scalar: str
    decay: str
    add: str
    injected: str


def moving_average(program: Program, state: str) -> MovingAverage | None:
    """The moving average that a state is, its product and its sum rounded one by one; None if it is anything else.

    Examples
    --------
    >>> from fpsim.optim.rmsprop import rmsprop
    >>> moving_average(rmsprop, "v").injected
    'v.inject'
    """
    operations = {o.slot: o for o in program.operations}
    add = operations.get(dict(program.outputs).get(state, ""))
    if state not in program.state or add is None or add.kind != "add":
        return None
    for name, injected in (add.operands, add.operands[::-1]):
        scalar = _decayed_by(operations.get(name), state)
        if scalar is not None and injected != name:
            return MovingAverage(state, scalar, name, add.slot, injected)
    return None


def _decayed_by(operation: Operation | None, state: str) -> str | None:
    if operation is None or operation.kind != "mul" or state not in operation.operands:
        return None
    other = operation.operands[1 - operation.operands.index(state)]
    return other if other.startswith("scalar.") else None


def same_grid(window: Window, names: tuple[str, ...]) -> Hypothesis:
    """One grid holds the values of all the named slots."""
    formats = [window.slots[name][0] for name in names]
    same = all(x.holds(y) and y.holds(x) for x in formats for y in formats[:1])
    listed = ", ".join(f"{name} in {fmt.name}" for name, fmt in zip(names, formats, strict=True))
    return Hypothesis("one grid holds " + ", ".join(names), same, listed)


def plain_grid(fmt: Format) -> Hypothesis:
    """Subnormal numbers are there and kept, and significands have at least two bits: ties go to even significands."""
    ok = fmt.subnormals and fmt.tiny == "round" and fmt.precision >= 2 and fmt.signed and fmt.has_zero
    return Hypothesis("a grid with subnormal numbers, p >= 2", ok, f"{fmt.name}, p = {fmt.precision}")


def padded(values: FloatArray, seeds: int) -> FloatArray:
    """[S'] -> [S]: what was recorded of the first seeds, NaN for the others."""
    result = np.full(seeds, np.nan)
    result[: len(values)] = values
    return result
