"""The twin machine: a program on torch tensors of any device, one operation of a step after another.

Values of an array are ``[blocks, *shape, lanes]``. All lanes of a block share their formats, all blocks their modes.
It takes what the CPU machine takes, and counts no events. Functions such as exp are computed on the CPU
(``twin_functions``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fpsim.cpu import codes
from fpsim.cpu.lower import Formats, decisions
from fpsim.cuda.twin_functions import function
from fpsim.cuda.twin_magnitudes import Tensor
from fpsim.cuda.twin_operations import choosing, operate, possible
from fpsim.cuda.twin_rounding import Target
from fpsim.cuda.twin_words import program_place, program_words, top_bits
from fpsim.precision import Precision, drawn_bits, scalar_values
from fpsim.program import ELEMENTARY, RUNNABLE, Operation, Program
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic
from fpsim.shapes import Sizes, axis_of, broadcast, check_index

Array = npt.NDArray[np.float64]


class TwinMachine:
    """Runs one program in lockstep for many runs on a device of torch, with the bits of ``fpsim.cpu.machine.Machine``.

    Parameters
    ----------
    program : Program
    precisions : one for each block; rounding modes must agree over blocks
    lanes_per_block : int >= 1; lane l belongs to block ``l // lanes_per_block``
    lengths : lengths of the dimensions by name
    key : Key or None (where nothing rounds stochastically)
    runs : integers ``[blocks * lanes_per_block]``, each run's global number below 2^32
    device : what torch calls a device
    programs : one for each block, where blocks differ in their hyperparameters' values; default: ``program`` for all

    Raises
    ------
    ValueError
        Modes that differ between blocks, a missing key, an operation the machine does not take.
    """

    def __init__(
        self,
        program: Program,
        precisions: Sequence[Precision],
        lanes_per_block: int,
        lengths: Mapping[str, int],
        key: Key | None,
        runs: npt.ArrayLike,
        *,
        device: Any = "cpu",
        programs: Sequence[Program] | None = None,
    ) -> None:
        for operation in program.operations:
            if operation.kind not in RUNNABLE:
                raise ValueError(
                    f"{operation.slot}: the torch machine does not take operations of kind {operation.kind!r}; "
                    f"admissible: {', '.join(sorted(RUNNABLE))}"
                )
        self.program, self.precisions, self.key, self.device = program, tuple(precisions), key, device
        self.blocks, self.lanes_per_block = len(self.precisions), lanes_per_block
        self.lanes = self.blocks * lanes_per_block
        self.programs = tuple(programs or (program,) * self.blocks)
        for other in self.programs:
            if replace(other, hyperparameters=program.hyperparameters) != program:
                raise ValueError(f"programs: {other.name!r} is not {program.name!r} with other hyperparameters")
        if len(self.programs) != self.blocks:
            raise ValueError(f"programs: {len(self.programs)} for {self.blocks} blocks; one for each is needed")
        self.first_step = 0
        self._sizes = Sizes(dict(lengths))
        numbers = np.asarray(runs).astype(np.int64).reshape(self.blocks, lanes_per_block)
        self._runs = torch.from_numpy(numbers).to(device)
        self._slots = [precision.resolve(program) for precision in self.precisions]
        self._check_modes()
        self._numbers = {name: number for number, name in enumerate(program.slots)}
        self._drawn = drawn_bits(program, self._slots[0])
        self._tiers = self._plan()
        # What is rounded to the array's own format already, or kept in an array that has none
        in_format = {o.slot for o in program.operations if o.rounded and o.kind != "sum"}
        self._identities = {
            (array, value)
            for array, value in program.outputs
            if array not in self._slots[0]
            or (value in in_format and all(slots[array][0] == slots[value][0] for slots in self._slots))
        }
        self._values: dict[str, Tensor] = {}
        self._targets: dict[tuple[str, int, Rounding], Target] = {}
        self._words: dict[tuple[int, tuple[int, ...]], tuple[Tensor, ...]] = {}

    def state(self, name: str) -> Array:
        """A copy ``[d, lanes]`` of an array; [d] stands for its shape."""
        own = self._own(name)
        values = self._values[name].expand(self.blocks, *own, self.lanes_per_block)
        return np.ascontiguousarray(values.movedim(0, -2).reshape(*own, self.lanes).cpu().numpy())

    def load(self, state: Mapping[str, npt.ArrayLike], constants: Mapping[str, npt.ArrayLike] | None = None) -> None:
        """Set states and constants, ``[d]`` or ``[d, lanes]``, rounded to their formats, to nearest even where their
        slot rounds stochastically."""
        for name, values in {**state, **(constants or {})}.items():
            array = np.asarray(values, dtype=np.float64)
            self._check_index(name, array)
            mode = self._slots[0][name][1]
            mode = "nearest_even" if isinstance(mode, Stochastic) else mode
            x = self._spread(name, array)
            self._values[name] = operate("round", [x], self._target(name, x.ndim, mode))

    def run(
        self,
        steps: int,
        per_step_inputs: Mapping[str, npt.ArrayLike] | None = None,
        record: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """Run ``steps`` steps.

        Parameters
        ----------
        steps : int >= 0
        per_step_inputs : name -> ``[steps, d, lanes]`` or ``[steps, d, lanes_per_block]`` (shared by all blocks)
        record : names of arrays and operations whose value after each step is returned

        Returns
        -------
        dict : name -> float64 ``[steps, blocks, d, lanes_per_block]``
        """
        given = {name: np.asarray(values, dtype=np.float64) for name, values in (per_step_inputs or {}).items()}
        for name, values in given.items():
            self._check_index(name, values)
        scalars = self._scalars(range(self.first_step, self.first_step + steps))
        shapes = {name: (self.blocks, *self._own(name), self.lanes_per_block) for name in record or ()}
        records = {name: np.empty((steps, *shape)) for name, shape in shapes.items()}
        for offset in range(steps):
            self._words.clear()
            now = dict(self._values)
            for name, values in given.items():
                now[name] = self._rounded("round", name, [self._spread(name, values[offset])])
            for name, columns in scalars.items():
                now[name] = columns[offset % len(columns)]
            for operation in self.program.operations:
                now[operation.slot] = self._apply(operation, now)
            stored = {}
            for array, value in self.program.outputs:
                same = (array, value) in self._identities
                stored[array] = now[value] if same else self._rounded("round", array, [now[value]])
            self._values |= stored
            for name, rows in records.items():
                value = self._values[name] if name in self._values else now[name]
                rows[offset] = value.expand(shapes[name]).cpu().numpy()
            self.first_step += 1
        return records

    # How

    def _own(self, name: str) -> tuple[int, ...]:
        return self._sizes.of(self.program.shape(name))

    def _check_modes(self) -> None:
        first = self._slots[0]
        for block, slots in enumerate(self._slots):
            for name, (_, mode) in slots.items():
                if mode != first[name][1] and not name.startswith("scalar."):
                    raise ValueError(
                        f"slot {name!r}: rounding {mode} in block {block} and {first[name][1]} in block 0; "
                        "all blocks of a machine need the same rounding modes"
                    )
                if isinstance(mode, Stochastic) and self.key is None:
                    raise ValueError(f"key=None: slot {name!r} rounds stochastically and needs a Key")

    def _plan(self) -> dict[str, int]:
        """How each slot computes: a tier that holds in every block."""
        result: dict[str, int] = {}
        kinds = {o.slot: {"sum": "add", "dot": "fma"}.get(o.kind, o.kind) for o in self.program.operations}
        for program, precision, slots in zip(self.programs, self.precisions, self._slots, strict=True):
            constants = scalar_values(program, precision, range(0))  # of no step: a schedule may begin later
            for name, (tier, mode, _) in decisions(program, slots, constants, Formats()).items():
                here = possible(kinds.get(name, "round"), tier, mode == codes.BINARY64)
                result[name] = here if result.get(name, here) == here else codes.EXACT
        return result

    def _target(self, name: str, axes: int, mode: Rounding) -> Target:
        key = name, axes, mode
        if key not in self._targets:
            formats = [slots[name][0] for slots in self._slots]
            self._targets[key] = Target(formats, mode, axes, self.device)
        return self._targets[key]

    def _scalars(self, when: range) -> dict[str, list[Tensor]]:
        """Of each scalar one ``[blocks, 1 or lanes_per_block]`` for each step, or one for all."""
        pairs = zip(self.programs, self.precisions, strict=True)
        tables = [scalar_values(program, precision, when) for program, precision in pairs]
        result = {}
        for scalar in self.program.scalars:
            columns = [self._lanes_of(block, table[scalar.name]) for block, table in enumerate(tables)]
            both = torch.from_numpy(np.stack(np.broadcast_arrays(*columns), axis=1)).to(self.device)
            result[scalar.name] = list(both)
        return result

    def _lanes_of(self, block: int, column: Array) -> Array:
        if column.ndim == 1:
            return column[:, np.newaxis]
        if column.shape[1] == self.lanes:
            return column[:, block * self.lanes_per_block : (block + 1) * self.lanes_per_block]
        return column

    def _apply(self, operation: Operation, now: Mapping[str, Tensor]) -> Tensor:
        operands, attributes = [now[name] for name in operation.operands], dict(operation.attributes)
        if operation.kind == "sum":
            return self._sum(operation.slot, operands[0], attributes)
        if operation.kind == "expand":
            own = operands[0].shape[1:-1]
            return operands[0].unsqueeze(1 + axis_of("", (*own, 1), attributes["axis"]))
        if operation.kind == "gather":
            return self._gather(operands[0], operands[1], attributes["axis"])
        aligned = self._aligned(operation, now)
        if operation.kind == "dot":
            return self._dot(operation.slot, aligned, attributes["axis"])
        if operation.rounded:
            return self._rounded(operation.kind, operation.slot, aligned)
        return choosing(operation.kind, torch.broadcast_tensors(*aligned))

    def _aligned(self, operation: Operation, now: Mapping[str, Tensor]) -> list[Tensor]:
        """The operands with axes of length 1 behind that of the blocks: their shapes are aligned at their last axis."""
        operands = {name: self.program.shape(name) for name in operation.operands}
        shape = (self.blocks, *self._sizes.of(broadcast(operation.slot, operands)), self.lanes_per_block)
        given = [now[name] for name in operation.operands]
        result = [x.reshape(self.blocks, *(1,) * (len(shape) - x.ndim), *x.shape[1:]) for x in given]
        result[0] = result[0].expand(shape)
        return result

    def _rounded(self, kind: str, slot: str, operands: Sequence[Tensor], elements: Tensor | None = None) -> Tensor:
        """``elements``: the number of each element among those of its run; by default their C order."""
        operands = torch.broadcast_tensors(*operands)
        mode = self._slots[0][slot][1]
        target = self._target(slot, operands[0].ndim, mode)
        draw = self._draw(slot, mode, tuple(operands[0].shape), elements) if isinstance(mode, Stochastic) else None
        if kind in ELEMENTARY:
            return function(kind, operands, target, draw)
        tier = self._tiers[slot] if target.fast or target.binary64 else codes.EXACT
        return operate(kind, operands, target, draw, tier)

    def _draw(self, slot: str, mode: Stochastic, shape: tuple[int, ...], elements: Tensor | None) -> Tensor:
        assert self.key is not None  # checked in __init__
        group, word, half = program_place(self._numbers[slot], self._drawn)
        words = self._words.get((group, shape)) if elements is None else None
        if words is None:
            numbers = self._numbered(shape[1:-1]) if elements is None else elements
            runs = self._runs.reshape(self.blocks, *(1,) * numbers.ndim, self.lanes_per_block)
            words = program_words(self.key, numbers[None, ..., None], self.first_step, runs, group)
            if elements is None:
                self._words[group, shape] = words
        return top_bits(words[word], half, self._drawn, mode.bits)

    def _numbered(self, shape: tuple[int, ...]) -> Tensor:
        """The C-order numbers of the elements of a run's array."""
        return torch.arange(math.prod(shape), dtype=torch.int64, device=self.device).reshape(shape)

    def _sum(self, slot: str, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        """The sum as ``tracing.total`` defines it: an addition has the draws of the first term of its right range."""
        whole = attributes.get("axis") is None
        numbers = self._numbered(tuple(x.shape[1:-1]))
        if whole:
            terms, numbers = x.reshape(self.blocks, -1, 1, self.lanes_per_block).movedim(1, 0), numbers.reshape(-1, 1)
        else:
            axis = axis_of("", tuple(x.shape[1:-1]), attributes["axis"])
            terms, numbers = x.movedim(1 + axis, 0), numbers.movedim(axis, 0)

        def sequential(low: int, high: int) -> Tensor:
            s = terms[low]
            for k in range(low + 1, high):
                s = self._rounded("add", slot, [s, terms[k]], numbers[k])
            return s

        def tree(low: int, high: int) -> Tensor:
            if high - low == 1:
                return terms[low]
            middle = low + (1 << (high - low - 1).bit_length() - 1)
            return self._rounded("add", slot, [tree(low, middle), tree(middle, high)], numbers[middle])

        n, order = len(terms), attributes.get("order", "sequential")
        if order == "pairwise":
            s = tree(0, n)
        else:
            block = attributes["block"] if order == "blocked" else n
            s = sequential(0, min(block, n))
            for low in range(block, n, block):
                s = self._rounded("add", slot, [s, sequential(low, min(low + block, n))], numbers[low])
        return s.reshape(self.blocks, *(1,) * (x.ndim - 2), -1).expand(x.shape) if whole else s

    def _dot(self, slot: str, factors: Sequence[Tensor], axis: int) -> Tensor:
        """The sum of products as ``tracing.total_of_products`` defines it."""
        a, b = torch.broadcast_tensors(*factors)
        own = tuple(a.shape[1:-1])
        axis = axis_of("", own, axis)
        numbers, a, b = self._numbered(own).movedim(axis, 0), a.movedim(1 + axis, 0), b.movedim(1 + axis, 0)
        s: Tensor = torch.zeros_like(a[0])
        for k in range(len(a)):
            s = self._rounded("fma", slot, [a[k], b[k], s], numbers[k])
        return s

    def _gather(self, x: Tensor, index: Tensor, axis: int) -> Tensor:
        """The index was checked when it was given."""
        axis = axis_of("", tuple(x.shape[1:-1]), axis)
        rows = index.to(torch.int64)
        picked = [
            torch.stack([self._picked(x[b, ..., run], rows[b, ..., run], axis) for run in range(x.shape[-1])], -1)
            for b in range(self.blocks)
        ]
        return torch.stack(picked)

    @staticmethod
    def _picked(x: Tensor, rows: Tensor, axis: int) -> Tensor:
        flat = x.index_select(axis, rows.reshape(-1))
        return flat.reshape(*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :])

    def _check_index(self, name: str, array: Array) -> None:
        """What gathers read must lie inside what they pick from."""
        for operation in self.program.operations:
            if operation.kind == "gather" and operation.operands[1] == name:
                length = self._own(operation.operands[0])[dict(operation.attributes)["axis"]]
                check_index(operation.slot, name, array, length)

    def _spread(self, name: str, array: Array) -> Tensor:
        """What is given as ``[d]`` or ``[d, lanes]`` as ``[blocks, d, lanes_per_block]``."""
        own = self._own(name)
        x = torch.from_numpy(np.array(array, order="C")).to(self.device)  # what has no axes keeps none
        if array.shape == own:
            return x[None, ..., None].expand(self.blocks, *own, self.lanes_per_block)
        if array.shape == (*own, self.lanes):
            return x.reshape(*own, self.blocks, self.lanes_per_block).movedim(-2, 0)
        if array.shape == (*own, self.lanes_per_block) and name not in self.program.state:
            return x[None].expand(self.blocks, *x.shape)
        raise ValueError(f"array {name!r} has shape {array.shape}; admissible: {own} or {(*own, self.lanes)}")
