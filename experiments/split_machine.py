"""A program with one opaque operation on the CPU machine: what comes before it, the function in binary64, what follows.

Both parts have the slots of the whole program, so that their random bits are numbered as if it ran in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.polar import polar
from fpsim.cpu.machine import Machine
from fpsim.formats import BINARY64
from fpsim.precision import Precision
from fpsim.program import Operation, Program
from fpsim.random_bits import Key

Array = npt.NDArray[np.float64]

# name -> function of [blocks, rows * columns, lanes] and (rows, columns)
FUNCTIONS: dict[str, Callable[[Array, tuple[int, int]], Array]] = {"polar": polar}


@dataclass(frozen=True)
class Split:
    """A program cut at its opaque operation.

    Attributes
    ----------
    before, after : the parts; ``after`` reads the function's value as the input ``given``, which keeps binary64
    function : its name
    operand : the slot of ``before`` that it is applied to
    """

    before: Program
    after: Program
    function: str
    operand: str
    given: str

    @classmethod
    def of(cls, program: Program) -> Split:
        """Cut a program.

        Raises
        ------
        ValueError
            Not exactly one opaque operation, or the second part reads a result or a changed state of the first.

        Examples
        --------
        >>> from experiments.muon import muon
        >>> split = Split.of(muon)
        >>> split.before.state, split.after.inputs, split.before.slots == muon.slots
        (('w', 'm'), ('w', 'update.polar exact'), True)
        """
        places = [k for k, o in enumerate(program.operations) if o.kind == "opaque"]
        if len(places) != 1:
            raise ValueError(f"program {program.name!r} has {len(places)} opaque operations; admissible: 1")
        (place,) = places
        cut, given = program.operations[place], f"{program.operations[place].slot} exact"
        first = program.operations[:place]
        second = (Operation("round", cut.slot, (given,)), *program.operations[place + 1 :])
        computed = {o.slot for o in first}
        changed = {array for array, value in program.outputs if value in computed}
        for operation in second:
            for name in operation.operands:
                if name in computed | changed:
                    raise ValueError(f"{operation.slot}: reads {name!r}, made before {cut.slot!r}; admissible: states")
        own = {o.slot for o in second}
        kept = tuple((array, array) for array, value in program.outputs if value in own)
        outputs = tuple(pair for pair in program.outputs if pair[1] not in own)
        return cls(
            before=_part(program, first, (*outputs, *kept), program.inputs, program.slots),
            after=_part(
                program, second, tuple(pair for pair in program.outputs if pair[1] in own), (*program.inputs, given),
                (*program.slots, given),
            ),
            function=str(dict(cut.attributes)["function"]),
            operand=cut.operands[0],
            given=given,
        )  # fmt: skip

    def owner(self, name: str) -> Program:
        """The part that makes an operation's result or an array."""
        stored = dict(self.after.outputs)
        return self.after if name in stored or any(o.slot == name for o in self.after.operations) else self.before


def _part(
    program: Program,
    operations: tuple[Operation, ...],
    outputs: tuple[tuple[str, str], ...],
    inputs: tuple[str, ...],
    slots: tuple[str, ...],
) -> Program:
    read = {x for o in operations for x in o.operands} | {x for pair in outputs for x in pair}
    used = tuple(name for name in inputs if name in read)
    return replace(
        program,
        inputs=used,
        outputs=outputs,
        scalars=tuple(scalar for scalar in program.scalars if scalar.name in read),
        operations=operations,
        shapes={name: shape for name, shape in program.shapes.items() if name in used},
        shared=tuple(name for name in program.shared if name in used),
        part_of=slots,
    )


class SplitMachine:
    """Runs a program with an opaque operation; the interface is that of ``Machine``, whose arguments it takes.

    Parameters
    ----------
    shape : (rows, columns) of the weights
    """

    def __init__(
        self,
        shape: tuple[int, int],
        program: Program,
        precisions: Sequence[Precision],
        lanes_per_block: int,
        dimension: Any,
        key: Key | None,
        runs: npt.ArrayLike,
        *,
        track: Sequence[str] = (),
        events: bool | Sequence[str] = False,
        programs: Sequence[Program],
    ) -> None:
        self.split, self.matrix = Split.of(program), shape
        splits = [Split.of(other) for other in programs]
        wide = {self.split.given: (BINARY64, "nearest_even")}
        parts = (
            (self.split.before, [x.before for x in splits], precisions),
            (self.split.after, [x.after for x in splits], [x.replace(wide) for x in precisions]),
        )
        self.before, self.after = self.parts = tuple(
            Machine(
                part, formats, lanes_per_block, dimension, key, runs, programs=versions, events=events,
                track=[name for name in track if self.split.owner(name) is part],
            )
            for part, versions, formats in parts
        )  # fmt: skip
        self.program, self.lanes = program, self.before.lanes

    def _owner(self, name: str) -> Machine:
        return self.after if self.split.owner(name) is self.split.after else self.before

    def values(self, name: str) -> Array:
        return self._owner(name).values(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._owner(name).shape(name)

    def state(self, name: str) -> Array:
        return self._owner(name).state(name)

    def extremes(self) -> dict[str, tuple[Array, Array]]:
        return {**self.before.extremes(), **self.after.extremes()}

    def reset_extremes(self) -> None:
        for part in self.parts:
            part.reset_extremes()

    def events(self) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
        counts = [part.events() for part in self.parts]
        return {name: {k: counts[0][name][k] + counts[1][name][k] for k in counts[0][name]} for name in counts[0]}

    def reset_events(self) -> None:
        for part in self.parts:
            part.reset_events()

    def load(self, state: Mapping[str, npt.ArrayLike], constants: Mapping[str, npt.ArrayLike] | None = None) -> None:
        for part in self.parts:
            own = [{k: x for k, x in given.items() if k in part.program.inputs} for given in (state, constants or {})]
            part.load(*own)

    def run(
        self,
        steps: int,
        per_step_inputs: Mapping[str, npt.ArrayLike] | None = None,
        record: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """See ``Machine.run``."""
        given = {name: np.asarray(x, dtype=np.float64) for name, x in (per_step_inputs or {}).items()}
        early = [name for name in record or () if self._owner(name) is self.before]
        late = [name for name in record or () if name not in early]
        rows: dict[str, list[Array]] = {name: [] for name in record or ()}
        operand, function = self.split.operand, FUNCTIONS[self.split.function]
        for step in range(steps):
            now = {name: x[step : step + 1] for name, x in given.items()}
            first = self.before.run(1, now, [*early, *([] if operand in early else [operand])])
            value = function(first[operand][0], self.matrix)
            of_lanes = np.moveaxis(value, 0, 1).reshape(1, value.shape[1], self.lanes)
            second = self.after.run(1, {self.split.given: of_lanes}, late)
            for array, _ in self.split.after.outputs:  # what the gradient of the next step reads
                if array in self.split.before.inputs:
                    self.before.values(array)[:] = self.after.values(array)
            for name in rows:
                rows[name].append((first if name in early else second)[name])
        return {name: np.concatenate(parts) for name, parts in rows.items()}
