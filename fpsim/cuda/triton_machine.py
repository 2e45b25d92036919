"""The CUDA machine: a program over ``[d, lanes]`` tensors for many steps, printed as one Triton kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fpsim.cpu import codes
from fpsim.cpu.lower import Draws, Formats, decisions
from fpsim.cuda.triton_arrays import BINARY32, FLOATING, elementwise, infinities_overflow, low_enough
from fpsim.cuda.triton_cache import kernel_of
from fpsim.cuda.triton_launch import Abreast, block_length, launch
from fpsim.cuda.triton_print import Line, Text, check_printable, printed
from fpsim.cuda.triton_table import table
from fpsim.number_format import Format
from fpsim.precision import Precision, Slot, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic, random_bits
from fpsim.shapes import Sizes

ELEMENTS = 256  # of one thread block of four warps: two a thread leave room for 18 slots in registers
SHORT = (1 << 31) - 1  # places up to here are computed in 32 bits
_FEW = 1 << 18  # elements: with fewer, one a thread in single warps keeps more of a card's 528 schedulers busy
_SCALARS = 1 << 23  # numbers, 64 MiB: no launch has so many steps that the table of their scalars has more


@dataclass(frozen=True)
class Group:
    """Blocks of a machine whose slots have the same modes and tiers: one kernel.

    lines : slot -> how it is rounded;  blocks : their numbers;  members : these on the device, int64
    """

    lines: Mapping[str, Line]
    blocks: Sequence[int]
    members: torch.Tensor


class TritonMachine:
    """Runs one elementwise program in lockstep for many runs, as ``fpsim.cpu.machine.Machine`` does, to the same bits.

    Parameters
    ----------
    program, precisions, lanes_per_block, dimension, key, runs, programs : as there
    device : where the tensors are: a CUDA device, or ``"cpu"`` in Triton's interpreter
    dtype : ``torch.float64``, or ``torch.float32`` where it holds every array's format: half the memory traffic

    Raises
    ------
    ValueError
        Modes that differ between blocks, a missing key, a slot that is not elementwise, a dtype that is too narrow.
    """

    def __init__(
        self,
        program: Program,
        precisions: Sequence[Precision],
        lanes_per_block: int,
        dimension: int | Mapping[str, int],
        key: Key | None,
        runs: npt.ArrayLike,
        *,
        programs: Sequence[Program] | None = None,
        device: Any = "cuda",
        dtype: Any = torch.float64,
    ) -> None:
        check_printable(program)
        self.program, self.precisions, self.key = program, tuple(precisions), key
        self.programs = tuple(programs or (program,) * len(self.precisions))
        self.blocks, self.lanes_per_block = len(self.precisions), lanes_per_block
        self.lanes = self.blocks * lanes_per_block
        self.device, self.dtype, self.first_step = torch.device(device), dtype, 0
        self._abreast = Abreast(self.device)
        lengths = dict(dimension) if isinstance(dimension, Mapping) else {"d": dimension}
        self.shape = Sizes(lengths).of(program.shape(program.inputs[0]))
        self.count = math.prod(self.shape)
        if self.count > 1 << 32:
            raise ValueError(f"dimension: arrays of {self.count} elements; random bits are numbered to 2^32")
        for other in self.programs:
            if replace(other, hyperparameters=program.hyperparameters) != program:
                raise ValueError(f"programs: {other.name!r} is not {program.name!r} with other hyperparameters")
        numbers = np.asarray(runs).astype(np.int64)
        if numbers.shape != (self.lanes,):
            raise ValueError(f"runs of shape {numbers.shape}; admissible: ({self.lanes},)")
        self._runs = torch.from_numpy(numbers).to(self.device)
        self._slots = [precision.resolve(program) for precision in self.precisions]
        self._check_slots()
        self._plan()
        written = [array for array, _ in program.outputs if array not in program.inputs]
        self._held = {
            name: torch.zeros((*self.shape, self.lanes), dtype=dtype, device=self.device)
            for name in (*program.inputs, *written)
        }

    def state(self, name: str) -> torch.Tensor:
        """A copy ``[*shape, lanes]`` of an array."""
        return self._held[name].clone()

    def load(self, state: Mapping[str, Any], constants: Mapping[str, Any] | None = None) -> None:
        """Set states and constants, ``[*shape]`` or ``[*shape, lanes]``, arrays or tensors.

        They are rounded to their formats, to nearest even where their slot rounds stochastically.
        """
        for name, given in {**state, **(constants or {})}.items():
            values = self._tensor(given)
            if values.shape == self.shape:
                values = values.unsqueeze(-1)
            elif values.shape != (*self.shape, self.lanes):
                raise ValueError(
                    f"array {name!r} has shape {tuple(values.shape)}; "
                    f"admissible: {self.shape} or {(*self.shape, self.lanes)}"
                )
            values = values.expand(*self.shape, self.lanes)
            for block in range(self.blocks):
                part = slice(block * self.lanes_per_block, (block + 1) * self.lanes_per_block)
                fmt, mode = self._slots[block][name]
                mode = "nearest_even" if isinstance(mode, Stochastic) else mode
                self._held[name][..., part] = elementwise("round", [values[..., part]], fmt, mode)

    def run(
        self, steps: int, per_step_inputs: Mapping[str, Any] | None = None, record: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Run ``steps`` steps.

        Parameters
        ----------
        steps : int >= 0
        per_step_inputs : name -> ``[steps, *shape, lanes]`` or ``[steps, *shape, lanes_per_block]`` (for all blocks)
        record : names of arrays and operations whose value after each step is returned

        Returns
        -------
        dict : name -> float64 ``[steps, *shape, lanes]``
        """
        record = tuple(record or ())
        given = {name: self._tensor(values) for name, values in (per_step_inputs or {}).items()}
        for name, values in given.items():
            shapes = [(steps, *self.shape, k) for k in (self.lanes, self.lanes_per_block)]
            if tuple(values.shape) not in shapes:
                raise ValueError(
                    f"per-step input {name!r} has shape {tuple(values.shape)}; admissible: {shapes[0]} or {shapes[1]}"
                )
        shape = (steps, *self.shape, self.lanes)
        records = {name: torch.empty(shape, dtype=torch.float64, device=self.device) for name in record}
        at_once = self._at_once()
        for start in range(0, steps, at_once):
            stop = min(start + at_once, steps)
            self.prepared(
                stop - start,
                {name: values[start:stop] for name, values in given.items()},
                {name: values[start:stop] for name, values in records.items()},
            )()
            self.first_step += stop - start
        return records

    def text(
        self, per_step: Mapping[str, bool], wide: tuple[bool, bool], record: Sequence[str], group: int = 0
    ) -> Text:
        """What is printed for these inputs and records, for a group of blocks; ``wide`` as in ``Text``."""
        read_only = set(self.program.inputs).difference(self.program.state, per_step)  # rounded once, where loaded
        lines = {name: line for name, line in self.groups[group].lines.items() if name not in read_only}
        draws = self._draws.only({name for name, line in lines.items() if line.bits})
        places = {name: (group, word, left) for name, (group, word, left, _) in draws.columns.items()}
        return Text(
            self.program, lines, places, draws.groups, self._rows, per_step, wide, tuple(record),
            len(self.groups) > 1,
        )  # fmt: skip

    def prepared(
        self, steps: int, given: Mapping[str, torch.Tensor], records: Mapping[str, torch.Tensor]
    ) -> Callable[[], None]:
        """The launch of the next ``steps`` steps (tensors as in ``run``), with all that the host does for it done."""
        constants, scalars = self._scalars(range(self.first_step, self.first_step + steps))
        shared = {name: values.shape[-1] != self.lanes for name, values in given.items()}
        wide = constants.shape[-1] > 1, scalars.shape[-1] > 1
        inputs = [values.contiguous() for values in given.values()]
        size = self.count * self.lanes_per_block
        few = steps > 1 and self.count * self.lanes <= _FEW
        block, warps = block_length(32 if few else ELEMENTS, size, self.device), 1 if few else 4
        tiles = -(-size // block)
        k0, k1 = (self.key.k0, self.key.k1) if self.key else (0, 0)
        calls = []
        for number, group in enumerate(self.groups):
            text = self.text(shared, wide, tuple(records), number)
            calls.append(partial(
                launch, kernel_of(self.program.name, printed(text)), (tiles * len(group.blocks),), self.device,
                *(self._held[name] for name in text.arrays()), *inputs, *records.values(), self._table,
                constants, scalars, self._runs, group.members, k0, k1, self.first_step, steps, tiles, size,
                self.lanes_per_block, self.blocks, tiles * block > SHORT, block, warps=warps,
            ))  # fmt: skip
        return partial(self._abreast, calls)

    def _check_slots(self) -> None:
        for block, slots in enumerate(self._slots):
            for name, (fmt, mode) in slots.items():
                if name.startswith("scalar."):
                    continue
                if mode != self._slots[0][name][1]:
                    raise ValueError(
                        f"slot {name!r}: rounding {mode} in block {block} and {self._slots[0][name][1]} in block 0; "
                        "all blocks of a machine need the same rounding modes"
                    )
                if isinstance(mode, Stochastic) and self.key is None:
                    raise ValueError(f"key=None: slot {name!r} rounds stochastically and needs a Key")
                if name in self.program.inputs and self.dtype == torch.float32 and not BINARY32.holds(fmt):
                    raise ValueError(f"array {name!r}: torch.float32 cannot hold {fmt.name}; admissible: torch.float64")
        if self.dtype not in FLOATING:
            raise ValueError(f"dtype={self.dtype}; admissible: torch.float64, torch.float32")

    def _plan(self) -> None:
        """Tier, mode and format of every slot and stored array; blocks that have them alike are a group."""
        rows: dict[tuple[tuple[Format, int], ...], int] = {}
        found: dict[tuple[Line, ...], list[int]] = {}
        for block, (program, precision, slots) in enumerate(
            zip(self.programs, self.precisions, self._slots, strict=True)
        ):
            scalars = scalar_values(program, precision, range(0))  # of no step: a schedule may begin later
            lines = {}
            for name, (tier, mode, _) in decisions(program, slots, scalars, Formats()).items():
                if mode == codes.NONE or self._stored_as_it_is(name):
                    continue
                kind = "round" if name in self.program.inputs else self.program.operation(name).kind
                bits = random_bits(slots[name][1])
                row = rows.setdefault(tuple((of_block[name][0], bits) for of_block in self._slots), len(rows))
                lines[name] = Line(self._tier(kind, tier, slots[name]), mode, bits, row, infinities_overflow(*slots[name]))
            found.setdefault(tuple(lines.values()), []).append(block)
            names = tuple(lines)  # the same in every block
        self.groups = [Group(dict(zip(names, lines, strict=True)), blocks, torch.tensor(blocks).to(self.device))
                       for lines, blocks in found.items()]  # fmt: skip
        self._rows = len(rows)
        self._table = table([row[block] for block in range(self.blocks) for row in rows], self.device)
        self._draws = Draws.of(self.program, self._slots[0])

    def _tier(self, kind: str, tier: int, slot: Slot) -> int:
        guarded = tier == codes.GUARDED
        return codes.EXACT if guarded and (kind == "fma" or not low_enough(slot[0], random_bits(slot[1]))) else tier

    def _stored_as_it_is(self, name: str) -> bool:
        """Whether a state is not stored, or only values that its format holds already."""
        if name not in self.program.state:
            return False
        value = dict(self.program.outputs)[name]
        if value == name:
            return True
        rounds = any(o.slot == value and o.rounded for o in self.program.operations)
        return rounds and all(slots[value][0] == slots[name][0] for slots in self._slots)

    def _scalars(self, when: range) -> tuple[torch.Tensor, torch.Tensor]:
        """float64 ``[blocks, constants, 1, 1 or lanes_per_block]`` and ``[blocks, changing ones, steps, likewise]``."""
        made: dict[tuple[int, Precision], dict[str, npt.NDArray[np.float64]]] = {}
        for program, precision in zip(self.programs, self.precisions, strict=True):
            if (id(program), precision) not in made:
                made[id(program), precision] = scalar_values(program, precision, when)
        blocks = [made[id(program), p] for program, p in zip(self.programs, self.precisions, strict=True)]
        tables = []
        for changing in (False, True):
            names = [scalar.name for scalar in self.program.scalars if self.program.varies(scalar) == changing]
            wide = any(values[name].ndim == 2 for values in blocks for name in names)
            steps, lanes = len(when) if changing else 1, self.lanes_per_block if wide else 1
            result = np.empty((self.blocks, max(1, len(names)), steps, lanes))
            for block, values in enumerate(blocks):
                for s, name in enumerate(names):
                    column = values[name] if values[name].ndim == 2 else values[name][:, np.newaxis]
                    if column.shape[1] == self.lanes:
                        column = column[:, block * self.lanes_per_block : (block + 1) * self.lanes_per_block]
                    result[block, s] = column
            tables.append(torch.from_numpy(result).to(self.device))
        return tables[0], tables[1]

    def _at_once(self) -> int:
        """Steps of one launch."""
        changing = sum(self.program.varies(scalar) for scalar in self.program.scalars)
        per_run = any(isinstance(value, tuple) for value in self.program.hyperparameters.values())
        return max(1, _SCALARS // (self.blocks * max(1, changing) * (self.lanes_per_block if per_run else 1)))

    def _tensor(self, values: Any) -> torch.Tensor:
        tensor = values.detach() if isinstance(values, torch.Tensor) else torch.from_numpy(np.asarray(values))
        return tensor.to(self.device, tensor.dtype if tensor.dtype in FLOATING else torch.float64)
