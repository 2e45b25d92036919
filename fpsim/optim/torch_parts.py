"""A program with opaque operations, cut at them: machines run what lies between, given functions the cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fpsim import arrays
from fpsim.formats import BINARY64
from fpsim.optim.torch_row import Function
from fpsim.precision import Precision, Slot
from fpsim.program import Operation, Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.shapes import Sizes

Array = npt.NDArray[np.float64]
_WIDE: Slot = (BINARY64, "nearest_even")


def parts_of(program: Program) -> list[tuple[Program, Operation | None]]:
    """Programs of the operations between opaque ones, each with the opaque operation that follows it.

    Examples
    --------
    >>> from fpsim.tracing import opaque, step
    >>> whole = step(lambda w, g: {"w": w - opaque("root", g * g)}, name="whole")
    >>> [(part.inputs, cut and cut.slot) for part, cut in parts_of(whole)]
    [(('g',), 'opaque'), (('w', 'opaque'), None)]
    """
    cuts = [i for i, operation in enumerate(program.operations) if operation.kind == "opaque"]
    numbers = {scalar.name: scalar for scalar in program.scalars}
    parts = []
    for begin, end in zip([0, *(i + 1 for i in cuts)], [*cuts, len(program.operations)], strict=True):
        operations = program.operations[begin:end]
        made = {operation.slot for operation in operations}
        read = dict.fromkeys(name for operation in operations for name in operation.operands)
        inputs = tuple(name for name in read if name not in made and name not in numbers)
        part = replace(
            program,
            inputs=inputs,
            outputs=(),
            scalars=tuple(numbers[name] for name in read if name in numbers),
            operations=operations,
            shapes={name: program.shape(name) for name in inputs},
            shared=(),
        )
        parts.append((part, program.operations[end] if end < len(program.operations) else None))
    return parts


class Parts:
    """Runs such a program as a machine does: its states are filled in, it runs one step, and they are read.

    Parameters
    ----------
    program, slots : Program, and format and rounding mode of each of its slots, none of them stochastic
    lengths : of the dimensions
    functions : of the opaque operations, by name
    make : (Program, Precision, lengths) -> machine

    Raises
    ------
    ValueError
        A function that is not given, or a slot that rounds stochastically.
    """

    def __init__(
        self,
        program: Program,
        slots: Mapping[str, Slot],
        lengths: dict[str, int],
        functions: Mapping[str, Function],
        make: Callable[[Program, Precision, dict[str, int]], Any],
    ) -> None:
        self.program, self.slots, self.functions = program, slots, functions
        for name, (_, mode) in slots.items():
            if isinstance(mode, Stochastic):
                raise ValueError(f"slot {name!r} rounds stochastically; a program with opaque operations cannot")
        sizes = Sizes(lengths)
        self.values: dict[str, Array] = {name: np.empty(sizes.of(program.shape(name))) for name in program.state}
        self.given = torch.empty(sizes.of(program.shape("g")), dtype=torch.float64, device="cpu")
        cut_up = parts_of(program)
        wanted = {value for _, value in program.outputs} | {name for part, _ in cut_up for name in part.inputs}
        wanted |= {cut.operands[0] for _, cut in cut_up if cut is not None}
        order = [scalar.name for scalar in program.scalars]
        self._parts = []
        for part, cut in cut_up:
            if cut is not None and self._function(cut) not in functions:
                raise ValueError(
                    f"{cut.slot}: function {self._function(cut)!r}; known: {', '.join(functions) or 'none'}"
                )
            rules = tuple((name, *slots.get(name, _WIDE)) for name in part.slots)  # what has no slot is exact
            machine = make(part, Precision(_WIDE, rules), lengths) if part.operations else None
            places = [order.index(scalar.name) for scalar in part.scalars]
            made = [operation.slot for operation in part.operations if operation.slot in wanted]
            self._parts.append((machine, part, places, made, cut))

    def begin(self, scalars: Array, key: Key | None, number: int, element: int) -> None:
        for machine, _, places, _, _ in self._parts:
            if machine is not None:
                machine.begin(scalars[places], key, number, element)

    def register(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.values[name])

    def run(self, steps: int, inputs: Mapping[str, Array]) -> None:
        """One step."""
        values = {**self.values, "g": inputs["g"][0, ..., 0]}
        for machine, part, _, made, cut in self._parts:
            if machine is not None:
                given = {name: values[name][np.newaxis, ..., np.newaxis] for name in part.inputs}
                results = machine.run(steps, given, made)
                values |= {name: results[name][0, 0, ..., 0] for name in made}
            if cut is not None:
                fmt, mode = self.slots[cut.slot]
                values[cut.slot] = arrays.round(self.functions[self._function(cut)](values[cut.operands[0]]), fmt, mode)
        for name, value in self.program.outputs:
            fmt, mode = self.slots[name]
            self.values[name][...] = arrays.round(values[value], fmt, mode)

    @staticmethod
    def _function(cut: Operation) -> str:
        return str(dict(cut.attributes).get("function"))
