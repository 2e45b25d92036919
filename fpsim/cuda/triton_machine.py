"""The CUDA machine: a program over ``[d, lanes]`` tensors for many steps, printed as one Triton kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fpsim.cpu import codes
from fpsim.cpu.lower import Draws, decisions
from fpsim.cuda.triton_arrays import BINARY32, FLOATING, elementwise, infinities_overflow, low_enough
from fpsim.cuda.triton_cache import kernel_of
from fpsim.cuda.triton_launch import block_length, launch
from fpsim.cuda.triton_print import Line, Text, check_printable, printed
from fpsim.cuda.triton_single_tiers import Single, SingleFormats, singles
from fpsim.cuda.triton_table import table
from fpsim.number_format import Format
from fpsim.precision import Precision, Slot, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic, random_bits
from fpsim.shapes import Sizes

ELEMENTS = 256  # of one thread block of four warps: two a thread leave room for 18 slots in registers
SHORT = (1 << 31) - 1  # places up to here are computed in 32 bits
_STEPS = 4096  # of one launch: the table of their scalars stays small
_STRENGTH = (codes.PLAIN, codes.ODD, codes.GUARDED, codes.EXACT)  # each right wherever one before it is


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
        for start in range(0, steps, _STEPS):
            stop = min(start + _STEPS, steps)
            self.prepared(
                stop - start,
                {name: values[start:stop] for name, values in given.items()},
                {name: values[start:stop] for name, values in records.items()},
            )()
            self.first_step += stop - start
        return records

    def text(self, per_step: Mapping[str, bool], wide: bool, record: Sequence[str]) -> Text:
        """What is printed for these inputs and records; ``wide``: scalars have a value for every lane."""
        read_only = set(self.program.inputs).difference(self.program.state, per_step)  # rounded once, where loaded
        lines = {name: line for name, line in self._lines.items() if name not in read_only}
        draws = self._draws.only({name for name, line in lines.items() if line.bits})
        places = {name: (group, word, left) for name, (group, word, left, _) in draws.columns.items()}
        narrow = [
            name
            for name in self.program.inputs
            if all(BINARY32.holds(slots[name][0]) for slots in self._slots)
            and any(line.single is not None for line in lines.values())
        ]
        return Text(
            self.program, lines, places, draws.groups, self._rows, per_step, wide, tuple(record), frozenset(narrow)
        )

    def prepared(
        self, steps: int, given: Mapping[str, torch.Tensor], records: Mapping[str, torch.Tensor]
    ) -> Callable[[], None]:
        """The launch of the next ``steps`` steps (tensors as in ``run``), with all that the host does for it done."""
        scalars = self._scalars(range(self.first_step, self.first_step + steps))
        shared = {name: values.shape[-1] != self.lanes for name, values in given.items()}
        text = self.text(shared, scalars.shape[-1] > 1, tuple(records))
        inputs = [values.contiguous() for values in given.values()]
        size = self.count * self.lanes_per_block
        block = block_length(ELEMENTS, size, self.device)
        tiles = -(-size // block)
        k0, k1 = (self.key.k0, self.key.k1) if self.key else (0, 0)
        return partial(
            launch, kernel_of(self.program.name, printed(text)), (tiles * self.blocks,),
            self.device,
            *(self._held[name] for name in text.arrays()), *inputs, *records.values(), self._table,
            scalars, self._runs, k0, k1, self.first_step, steps, tiles, size, self.lanes_per_block, self.blocks,
            tiles * block > SHORT, block,
        )  # fmt: skip

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
        """Tier, mode and format of every slot and stored array, over all blocks."""
        formats = [SingleFormats() for _ in self.precisions]
        blocks = [
            decisions(program, slots, scalar_values(program, precision, range(0)), noting)
            for program, precision, slots, noting in zip(
                self.programs, self.precisions, self._slots, formats, strict=True
            )
        ]
        narrow = [
            singles(program, slots, noting)
            for program, slots, noting in zip(self.programs, self._slots, formats, strict=True)
        ]
        rows: dict[tuple[tuple[Format, int], ...], int] = {}
        self._lines = {}
        for name in blocks[0]:
            if blocks[0][name][1] == codes.NONE or self._stored_as_it_is(name):
                continue
            kind = "round" if name in self.program.inputs else self.program.operation(name).kind
            bits = random_bits(self._slots[0][name][1])
            row = tuple((slots[name][0], bits) for slots in self._slots)
            tiers = [
                self._tier(kind, block[name][0], slots[name]) for block, slots in zip(blocks, self._slots, strict=True)
            ]
            alike = all(infinities_overflow(*slots[name]) for slots in self._slots)
            tier, modes = max(tiers, key=_STRENGTH.index), {block[name][1] for block in blocks}
            mode = min(modes)
            # binary64 itself in some blocks only, or a guard that some block's format does not admit
            if len(modes) > 1 or (tier == codes.GUARDED and not all(low_enough(*pair) for pair in row)):
                tier = codes.EXACT
            single: Single | None = narrow[0][name] if len({of_block[name] for of_block in narrow}) == 1 else None
            self._lines[name] = Line(tier, mode, bits, rows.setdefault(row, len(rows)), alike, single)
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

    def _scalars(self, when: range) -> torch.Tensor:
        """float64 ``[blocks, scalars, steps, 1 or lanes_per_block]``."""
        names = [scalar.name for scalar in self.program.scalars]
        made: dict[tuple[int, Precision], dict[str, npt.NDArray[np.float64]]] = {}
        blocks = []
        for program, precision in zip(self.programs, self.precisions, strict=True):
            if (id(program), precision) not in made:
                made[id(program), precision] = scalar_values(program, precision, when)
            blocks.append(made[id(program), precision])
        wide = any(values[name].ndim == 2 for values in blocks for name in names)
        result = np.empty((self.blocks, max(1, len(names)), len(when), self.lanes_per_block if wide else 1))
        for block, values in enumerate(blocks):
            for s, name in enumerate(names):
                column = values[name] if values[name].ndim == 2 else values[name][:, np.newaxis]
                if column.shape[1] == self.lanes:
                    column = column[:, block * self.lanes_per_block : (block + 1) * self.lanes_per_block]
                result[block, s] = column
        return torch.from_numpy(result).to(self.device)

    def _tensor(self, values: Any) -> torch.Tensor:
        tensor = values.detach() if isinstance(values, torch.Tensor) else torch.from_numpy(np.asarray(values))
        return tensor.to(self.device, tensor.dtype if tensor.dtype in FLOATING else torch.float64)
