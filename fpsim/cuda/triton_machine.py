"""The CUDA machine: a program for many steps, printed as one Triton kernel for all blocks that have the same tiers.

Where every array has one shape, a thread has an element and keeps its state in registers from step to step; other
programs run in stages (``triton_print_stages``), a few lanes with all their elements in a thread block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fpsim.cpu import codes
from fpsim.cpu.lower import Draws, decisions
from fpsim.cuda.triton_arrays import BINARY32, FLOATING, elementwise, infinities_overflow, low_enough
from fpsim.cuda.triton_cache import kernel_of
from fpsim.cuda.triton_launch import Abreast, block_length, launch
from fpsim.cuda.triton_print import Line, Text, check_printable, is_elementwise, printed
from fpsim.cuda.triton_print_stages import Staged
from fpsim.cuda.triton_single_tiers import SingleFormats, singles
from fpsim.cuda.triton_table import table
from fpsim.number_format import Format
from fpsim.precision import Precision, Slot, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic, random_bits
from fpsim.shapes import Sizes, check_index

ELEMENTS = 256  # of one thread block of four warps: two a thread leave room for 18 slots in registers
SHORT = (1 << 31) - 1  # places up to here are computed in 32 bits
_FEW = 1 << 18  # elements: with fewer, one a thread in single warps keeps more of a card's 528 schedulers busy
_SCHEDULERS = 528  # of a card of 132 multiprocessors
_COLUMNS, _THREADS = 32, 512  # the most lanes and threads of a thread block that works in stages
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
    """Runs one program in lockstep for many runs, as ``fpsim.cpu.machine.Machine`` does, to the same bits.

    Parameters
    ----------
    program, precisions, lanes_per_block, dimension, key, runs, programs : as there
    device : where the tensors are: a CUDA device, or ``"cpu"`` in Triton's interpreter
    dtype : ``torch.float64``, or ``torch.float32`` where it holds every array's format: half the memory traffic

    Raises
    ------
    ValueError
        Modes that differ between blocks, a missing key, a kind of operation that is not printed, a dtype too narrow.
    """

    tracked: tuple[str, ...] | None = None  # see Text

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
        self._sizes = Sizes(dict(dimension) if isinstance(dimension, Mapping) else {"d": dimension})
        self._elementwise = is_elementwise(program)
        values = (*program.inputs, *(operation.slot for operation in program.operations))
        self.count = max(self._sizes.count(program.shape(name)) for name in values)  # of the longest array
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
            name: torch.zeros((*self.shape(name), self._width(name)), dtype=dtype, device=self.device)
            for name in (*program.inputs, *written)
        }
        self._kernels: dict[Any, tuple[Any, Staged | None, tuple[str, ...]]] = {}
        self._scratch: dict[int, torch.Tensor] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """The lengths of an array of one run, or of the result of an operation."""
        return self._sizes.of(self.program.shape(name))

    def _width(self, name: str) -> int:
        """What an array has for every element: one number for every lane, or for every block where runs share it."""
        return self.blocks if name in self.program.shared else self.lanes

    def state(self, name: str) -> torch.Tensor:
        """A copy ``[*shape, lanes]`` of an array."""
        return self._held[name].clone()

    def load(self, state: Mapping[str, Any], constants: Mapping[str, Any] | None = None) -> None:
        """Set states and constants, ``[*shape]`` or ``[*shape, lanes]``, arrays or tensors; shared ones ``[*shape]``.

        They are rounded to their formats, to nearest even where their slot rounds stochastically.
        """
        for name, given in {**state, **(constants or {})}.items():
            values, own = self._tensor(given), self.shape(name)
            shared = name in self.program.shared
            width = 1 if shared else self.lanes_per_block
            if values.shape == own:
                values = values.unsqueeze(-1).expand(*own, self.blocks * width)
            elif shared or values.shape != (*own, self.lanes):
                admissible = f"{own}, for all runs share it" if shared else f"{own} or {(*own, self.lanes)}"
                raise ValueError(f"array {name!r} has shape {tuple(values.shape)}; admissible: {admissible}")
            self._check_index(name, values)
            for block in range(self.blocks):
                part = slice(block * width, (block + 1) * width)
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
            shapes = [(steps, *self.shape(name), k) for k in (self.lanes, self.lanes_per_block)]
            if tuple(values.shape) not in shapes or name in self.program.shared:
                raise ValueError(
                    f"per-step input {name!r} has shape {tuple(values.shape)}; admissible: {shapes[0]} or {shapes[1]}, "
                    "and none of an array that all runs share"
                )
            self._check_index(name, values)
        records = {
            name: torch.empty((steps, *self.shape(name), self.lanes), dtype=torch.float64, device=self.device)
            for name in record
        }
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
        narrow = [
            name
            for name in self.program.inputs
            if all(BINARY32.holds(slots[name][0]) for slots in self._slots)
            and any(line.single is not None for line in lines.values())
        ]
        return Text(
            self.program, lines, places, draws.groups, self._rows, per_step, wide, tuple(record),
            len(self.groups) > 1, self.tracked, frozenset(narrow),
        )  # fmt: skip

    def prepared(
        self, steps: int, given: Mapping[str, torch.Tensor], records: Mapping[str, torch.Tensor]
    ) -> Callable[[], None]:
        """The launch of the next ``steps`` steps (tensors as in ``run``), with all that the host does for it done."""
        constants, scalars = self._scalars(range(self.first_step, self.first_step + steps))
        shared = {name: values.shape[-1] != self.lanes for name, values in given.items()}
        wide = constants.shape[-1] > 1, scalars.shape[-1] > 1
        inputs = [values.contiguous() for values in given.values()]
        k0, k1 = (self.key.k0, self.key.k1) if self.key else (0, 0)
        calls = []
        for number, group in enumerate(self.groups):
            kernel, staged, arrays = self._kernel(shared, wide, tuple(records), number)
            pointers = (*(self._held[name] for name in arrays), *inputs, *records.values(), *self._watching())
            tables = (self._table, constants, scalars, self._runs, group.members, k0, k1, self.first_step, steps)
            if staged is None:
                size = self.count * self.lanes_per_block
                few = steps > 1 and self.count * self.lanes <= _FEW
                block, warps = block_length(32 if few else ELEMENTS, size, self.device), 1 if few else 4
                tiles = -(-size // block)
                places: tuple[Any, ...] = (tiles, size, self.lanes_per_block, self.blocks, tiles * block > SHORT, block)
            else:
                columns, block = self._shares(staged)
                tiles, warps = -(-self.lanes_per_block // columns), max(1, block // 32)
                pointers = (*pointers, self._memory(number, staged, tiles * len(group.blocks) * columns))
                lengths = (self._sizes.of((name,))[0] for name in staged.dimensions)
                places = (tiles, self.lanes_per_block, self.blocks, *lengths, columns, block)
            grid = (tiles * len(group.blocks),)
            calls.append(partial(launch, kernel, grid, self.device, *pointers, *tables, *places, warps=warps))
        return partial(self._abreast, calls)

    def _kernel(
        self, shared: Mapping[str, bool], wide: tuple[bool, bool], record: tuple[str, ...], group: int
    ) -> tuple[Any, Staged | None, tuple[str, ...]]:
        """The function, how it works in stages, if it does, and the arrays that it takes."""
        key = tuple(shared.items()), wide, record, group
        if key not in self._kernels:
            text = self.text(shared, wide, record, group)
            staged = None if self._elementwise else Staged(text)
            source = printed(text) if staged is None else staged.printed()
            self._kernels[key] = kernel_of(self.program.name, source), staged, text.arrays()
        return self._kernels[key]

    def _watching(self) -> tuple[torch.Tensor, ...]:
        """What a kernel that keeps extremes writes them to."""
        return ()

    def _shares(self, staged: Staged) -> tuple[int, int]:
        """The lanes of one thread block, few enough that every scheduler of a card gets one; and its threads."""
        most = 1 << (self.lanes_per_block - 1).bit_length()
        wanted = 1 << max(0, (self.lanes // _SCHEDULERS).bit_length() - 1)
        columns = most if self.device.type != "cuda" else min(most, wanted, _COLUMNS)
        longest = max(self._sizes.count(stage.shape) for stage in staged.stages) * columns
        threads = min(_THREADS, max(32, 1 << (longest - 1).bit_length()))  # one element each: see Staged.printed
        return columns, block_length(threads, longest, self.device)

    def _memory(self, group: int, staged: Staged, lanes: int) -> torch.Tensor:
        """The memory of a kernel's thread blocks."""
        numbers = sum(self._sizes.count(shape) for shape in staged.kept)
        if numbers * lanes > SHORT:
            raise ValueError(
                f"dimension: {numbers} numbers for each of {lanes} runs lie in memory between the stages of a step; "
                f"admissible: {SHORT} in all"
            )
        if group not in self._scratch or self._scratch[group].numel() < numbers * lanes:
            self._scratch[group] = torch.empty(max(1, numbers * lanes), dtype=torch.float64, device=self.device)
        return self._scratch[group]

    def _check_index(self, name: str, values: torch.Tensor) -> None:
        """What gathers read must lie inside what they pick from."""
        for operation in self.program.operations:
            if operation.kind == "gather" and operation.operands[1] == name:
                length = self.shape(operation.operands[0])[dict(operation.attributes)["axis"]]
                check_index(operation.slot, name, values.cpu().double().numpy(), length)

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
        in_registers = self._elementwise and self.tracked is None  # sums and what is noted are of binary64
        for block, (program, precision, slots) in enumerate(
            zip(self.programs, self.precisions, self._slots, strict=True)
        ):
            scalars = scalar_values(program, precision, range(0))  # of no step: a schedule may begin later
            noting, lines = SingleFormats(), {}
            decided = decisions(program, slots, scalars, noting)
            narrow = singles(program, slots, noting) if in_registers else {}
            for name, (tier, mode, _) in decided.items():
                if mode == codes.NONE or self._stored_as_it_is(name) or self._is_identity(name):
                    continue
                kind = "round" if name in self.program.inputs else self.program.operation(name).kind
                bits = random_bits(slots[name][1])
                row = rows.setdefault(tuple((of_block[name][0], bits) for of_block in self._slots), len(rows))
                tier, alike = self._tier(kind, tier, slots[name]), infinities_overflow(*slots[name])
                lines[name] = Line(tier, mode, bits, row, alike, narrow.get(name))
            found.setdefault(tuple(lines.values()), []).append(block)
            names = tuple(lines)  # the same in every block
        self.groups = [Group(dict(zip(names, lines, strict=True)), blocks, torch.tensor(blocks).to(self.device))
                       for lines, blocks in found.items()]  # fmt: skip
        self._rows = len(rows)
        self._table = table([row[block] for block in range(self.blocks) for row in rows], self.device)
        self._draws = Draws.of(self.program, self._slots[0])

    def _tier(self, kind: str, tier: int, slot: Slot) -> int:
        unguarded = kind in ("fma", "dot") or not low_enough(slot[0], random_bits(slot[1]))
        return codes.EXACT if tier == codes.GUARDED and unguarded else tier

    def _stored_as_it_is(self, name: str) -> bool:
        """Whether a state is not stored, or only values that its format holds already."""
        if name not in self.program.state:
            return False
        value = dict(self.program.outputs)[name]
        if value == name:
            return True
        return self._in_format(value) and all(slots[value][0] == slots[name][0] for slots in self._slots)

    def _in_format(self, slot: str) -> bool:
        """Whether it is rounded whatever its length: one term is its own sum."""
        return any(o.slot == slot and o.rounded and o.kind != "sum" for o in self.program.operations)

    def _is_identity(self, slot: str) -> bool:
        """Whether an operation rounds what its format holds already."""
        if slot in self.program.inputs or self.program.operation(slot).kind != "round":
            return False
        (operand,) = self.program.operation(slot).operands
        known = operand in self.program.inputs or self._in_format(operand)
        return known and all(slots[operand][0] == slots[slot][0] for slots in self._slots)

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
