"""The CPU machine: a program over ``[d, lanes]`` arrays for many steps, a format for each block of lanes.

Programs with other shapes, sums along an axis or functions run on ``whole_machine``, which ``Machine`` makes for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.cpu import codes, execute
from fpsim.cpu.lower import Draws, Formats, Lowering, Place, Step, check_runnable, decisions, plan_of, rows_of
from fpsim.cpu.tiers import Range
from fpsim.events import NAMES
from fpsim.precision import Precision, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Stochastic
from fpsim.shapes import Sizes, check_index

Array = npt.NDArray[np.float64]

_LONG = 512  # a block of more elements runs in strips
_SCALAR_STEPS = 256  # steps whose scalars are computed at a time


class Machine:
    """Runs one program in lockstep for many runs. A lane is one run; all lanes of a block share their formats.

    Parameters
    ----------
    program : Program
    precisions : one for each block; rounding modes must agree over blocks
    programs : one for each block, where blocks differ in their hyperparameters' values; default: ``program`` for all
    lanes_per_block : int >= 1; lane l belongs to block ``l // lanes_per_block``
    dimension : int >= 1, elements d of one run's arrays; or the lengths of all dimensions by name
    key : Key or None (where nothing rounds stochastically)
    runs : uint64 ``[blocks * lanes_per_block]``, each run's global number below 2^32: it names the random bits
    track : names of operations and arrays whose smallest and largest magnitudes are kept
    events : count events (``fpsim.events``): all, or those named, of which swamped and frozen cost most. That takes
        another compiled entry, with the same results

    Raises
    ------
    ValueError
        Modes that differ between blocks, a missing key, an operation the machine does not take, an unknown name.

    Notes
    -----
    Results depend on neither the number of blocks, the order of lanes, the chunking of steps, nor the strip length.
    The compiled code releases the interpreter's lock: machines may run in threads, one machine per thread.
    Where [d] stands below, an array of a declared shape has that shape; one that all runs share has no lanes.
    """

    def __new__(cls, program: Program, *_: Any, **__: Any) -> Machine:
        if cls is Machine and isinstance(program, Program) and not program.uniform:
            from fpsim.cpu.whole_machine import WholeMachine  # on first use: it compiles code of its own

            return super().__new__(WholeMachine)
        return super().__new__(cls)

    def __init__(
        self,
        program: Program,
        precisions: Sequence[Precision],
        lanes_per_block: int,
        dimension: int | Mapping[str, int],
        key: Key | None,
        runs: npt.ArrayLike,
        *,
        track: Sequence[str] = (),
        events: bool | Sequence[str] = False,
        programs: Sequence[Program] | None = None,
    ) -> None:
        check_runnable(program)
        if isinstance(events, str):
            raise TypeError(f"events={events!r}: True, False or a list of names is needed")
        self.counting = NAMES if events is True else tuple(events or ())
        for name in self.counting:
            if name not in NAMES:
                raise ValueError(f"events: {name!r}; admissible: True, False, or some of {', '.join(NAMES)}")
        self.program, self.precisions, self.key = program, tuple(precisions), key
        lengths = dict(dimension) if isinstance(dimension, Mapping) else {"d": dimension}
        self.blocks, self.lanes_per_block, self.dimension = len(self.precisions), lanes_per_block, lengths.get("d", 1)
        self.programs = tuple(programs or (program,) * self.blocks)
        self.lanes = self.blocks * lanes_per_block
        self.first_step = 0
        for name, number in (
            ("lanes_per_block", lanes_per_block),
            *(("dimension" if name == "d" else f"dimension {name}", length) for name, length in lengths.items()),
            ("precisions", self.blocks),
        ):
            if number < 1:
                raise ValueError(f"{name}={number}: at least 1 is needed")
        for other in self.programs:
            if replace(other, hyperparameters=program.hyperparameters) != program:
                raise ValueError(f"programs: {other.name!r} is not {program.name!r} with other hyperparameters")
        if len(self.programs) != self.blocks:
            raise ValueError(f"programs: {len(self.programs)} for {self.blocks} blocks; one for each is needed")
        self._sizes = Sizes(lengths)
        self.runs = _run_numbers(runs, self.lanes)
        self.track = tuple(track)
        self._slots = [precision.resolve(program) for precision in self.precisions]
        self._check_modes()
        self._draws = Draws.of(program, self._slots[0])
        self._lay_out()
        self._plan_blocks()
        self._lowered: dict[object, Any] = {}
        self._scalar_chunk: tuple[range, Array] = (range(0), np.empty((self.blocks, 0, 0, 1)))
        self._events = np.zeros((self.blocks, len(program.slots) if self.counting else 0, len(NAMES)), dtype=np.int64)

    # What is inside

    def values(self, name: str) -> Array:
        """A view ``[blocks, d, lanes_per_block]`` of an array as the machine holds it."""
        view: Array = self._view[self._array(name)]
        return view.reshape(self.blocks, self.dimension, self.lanes_per_block)

    def shape(self, name: str) -> tuple[int, ...]:
        """The lengths of an array of one run, or of the result of an operation."""
        return self._sizes.of(self.program.shape(name))

    def state(self, name: str) -> Array:
        """A copy ``[d, lanes]`` of an array."""
        # a copy even where the view is contiguous already: one block, or one element
        return np.array(np.moveaxis(self.values(name), 0, -2), order="C").reshape(*self.shape(name), self.lanes)

    def extremes(self) -> dict[str, tuple[Array, Array]]:
        """Name -> (smallest, largest) magnitude ``[blocks, d, lanes_per_block]`` since ``reset_extremes``.

        Zero counts as a magnitude, NaN does not. States count with their value at the reset too.
        """
        return {name: (self.values(f"{name} low").copy(), self.values(f"{name} high").copy()) for name in self.track}

    def reset_extremes(self) -> None:
        for name in self.track:
            known = name in self.program.state or name in self._constants
            now: Any = np.abs(self.values(name)) if known else np.nan
            now = now[..., np.newaxis] if known and name in self.program.shared else now
            self.values(f"{name} low")[:] = np.where(np.isnan(now), np.inf, now)
            self.values(f"{name} high")[:] = np.where(np.isnan(now), -np.inf, now)

    def events(self) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
        """Slot -> name of the event -> counts ``[blocks]`` since ``reset_events``. Setting up is not counted.

        Raises
        ------
        ValueError
            The machine was not told to count.
        """
        if not self.counting:
            raise ValueError("events were not counted; admissible: a machine made with events=True")
        return {
            slot: {name: self._events[:, number, NAMES.index(name)].copy() for name in self.counting}
            for number, slot in enumerate(self.program.slots)
        }

    def reset_events(self) -> None:
        self._events[:] = 0

    # What it does

    def load(self, state: Mapping[str, npt.ArrayLike], constants: Mapping[str, npt.ArrayLike] | None = None) -> None:
        """Set states ``[d]`` or ``[d, lanes]`` and constants (``[d, lanes_per_block]`` too, shared by all blocks).

        They are rounded to their formats, to nearest even where their slot rounds stochastically. Inputs that are given
        for every step are not loaded.
        """
        given = {**state, **(constants or {})}
        for name, values in given.items():
            if name not in self.program.inputs:
                raise ValueError(f"array {name!r} is not an input of program {self.program.name!r}; "
                                 f"inputs: {', '.join(self.program.inputs)}")  # fmt: skip
            array = np.asarray(values, dtype=np.float64)
            self._check_index(name, array)
            self.values(name)[:] = self._spread(name, array)
        self._constants |= set(constants or {}).difference(self.program.state)
        self._set_up(tuple(given))
        self.reset_extremes()

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
        record = tuple(record or ())
        for name in record:
            if name not in self._decisions[0] and name not in self._arrays:
                raise ValueError(f"record {name!r} is neither an array nor an operation of {self.program.name!r}")
        inputs = {name: self._per_step(name, x, steps) for name, x in (per_step_inputs or {}).items()}
        flat = np.concatenate([x.ravel() for x in inputs.values()]) if len(inputs) > 1 else np.empty(0)
        if len(inputs) == 1:
            flat = next(iter(inputs.values())).reshape(-1)
        bases = np.cumsum([0, *(x.size for x in inputs.values())])
        per_step = {name: (int(base), x.shape[-1]) for (name, x), base in zip(inputs.items(), bases, strict=False)}
        lowered = self._table(per_step, record)
        shapes = [(steps, self.blocks, *self.shape(name), self.lanes_per_block) for name in record]
        ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
        records = np.empty(int(ends[-1]))
        done = 0
        while done < steps:
            when, scalars = self._scalars(self.first_step, steps - done)
            count = min(steps - done, when.stop - self.first_step)
            begin = self.first_step - when.start
            part = scalars[:, :, begin : begin + count]
            self._execute(lowered, np.ascontiguousarray(part), flat, records, done, count, steps)
            done += count
            self.first_step += count
        parts = zip(record, shapes, ends, strict=False)
        return {name: records[begin : begin + math.prod(shape)].reshape(shape) for name, shape, begin in parts}

    # How

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

    def _lay_out(self) -> None:
        program, size = self.program, self.dimension * self.lanes_per_block
        names = [*program.inputs, *(array for array, _ in program.outputs if array not in program.inputs)]
        known = {*names, *(operation.slot for operation in program.operations)}
        for name in self.track:
            if name not in known:
                raise ValueError(f"track {name!r} is neither an array nor an operation of program {program.name!r}")
            names += [f"{name} low", f"{name} high"]
        self._arrays = {name: i for i, name in enumerate(names)}
        self._constants: set[str] = set()
        whole = size <= _LONG or any(operation.kind == "sum" for operation in program.operations)
        pieces = 1 if whole else -(-size // execute.STRIP)
        self._strip = max(8, -(-size // (8 * pieces)) * 8)
        held = len(names) * self.blocks * size
        self._scalar_row = held
        self._first_row = held + len(program.scalars) * self._strip
        rows = len(program.operations) + len(program.outputs)
        spare = 0
        if self.counting:  # two more rows for each output: what was there, and whether that is the exact result
            rows, spare = rows + 2 * len(program.outputs), execute.SPARE
        self._registers = np.zeros(self._first_row + (rows + spare) * self._strip)
        self._view = self._registers[:held].reshape(len(names), self.blocks, size)
        self._x = np.empty((1 + spare) * self._strip)
        self._elements = np.repeat(np.arange(self.dimension, dtype=np.uint64), self.lanes_per_block)
        by_block = self.runs.reshape(self.blocks, 1, self.lanes_per_block)
        self._run_of_element = np.repeat(by_block, self.dimension, axis=1).reshape(-1)
        self._words = np.zeros(4 * max(1, len(self._draws.groups)) * self._strip, dtype=np.uint32)

    def _plan_blocks(self) -> None:
        formats = Formats()
        self._decisions = []
        set_up = []
        for block, (program, precision, slots) in enumerate(
            zip(self.programs, self.precisions, self._slots, strict=True)
        ):
            constants = scalar_values(program, precision, range(0))  # of no step: a schedule may begin later
            self._decisions.append(decisions(program, slots, constants, formats, self._known(block)))
            nearest = {n: (f, "nearest_even" if isinstance(m, Stochastic) else m) for n, (f, m) in slots.items()}
            set_up.append({n: formats.decide("round", (), *nearest[n]) for n in self.program.inputs})
        self._set_up_decisions = set_up
        self._integers, self._floats = formats.tables()
        rounded = {o.slot for o in self.program.operations if o.rounded and o.kind != "sum"}
        self._same_format = frozenset(
            (value, array)
            for array, value in self.program.outputs
            if value in rounded and all(s[value][0] == s[array][0] for s in self._slots if array in s)
        )
        in_format = rounded | set(self.program.inputs)
        self._identities = frozenset(
            o.slot
            for o in self.program.operations
            if o.kind == "round" and o.operands[0] in in_format
            and all(s[o.operands[0]][0] == s[o.slot][0] for s in self._slots)
        )  # fmt: skip

    def _known(self, block: int) -> Mapping[str, Range]:
        """The ranges of arrays whose values are known and do not change."""
        return {}

    def _table(self, per_step: Mapping[str, tuple[int, int]], record: tuple[str, ...]) -> Any:
        """Operations, plan and the groups of counters that are drawn from."""
        key = (tuple(per_step.items()), record)
        if key not in self._lowered:
            scalars = {
                scalar.name: (self._scalar_row + i * self._strip, 0, 0) for i, scalar in enumerate(self.program.scalars)
            }
            places = {name: self._place(name) for name in self._arrays}
            lowering = Lowering(
                self.program, self._same_format, self._identities, places, scalars, self._first_row, self._strip,
                self.counting,
            )  # fmt: skip
            steps = lowering.lower(per_step, record, self.track)
            draws = self._draws.only({step.name for step in steps if step.kind != codes.COPY})
            groups = np.array(draws.groups, dtype=np.uint64)
            self._lowered[key] = rows_of(steps, draws), plan_of(steps, self._decisions), groups
        return self._lowered[key]

    def _set_up(self, names: tuple[str, ...]) -> None:
        places = {name: self._place(name) for name in names}
        steps = [Step(codes.ROUND, name, -1, places[name], (places[name],)) for name in names]
        table, plan = rows_of(steps, Draws((), {})), plan_of(steps, self._set_up_decisions)
        if len(table):
            lowered = table, plan, np.empty(0, dtype=np.uint64)
            self._execute(lowered, np.empty((self.blocks, 0, 1, 1)), np.empty(0), np.empty(0), 0, 1, 1)

    def _execute(
        self, lowered: Any, scalars: Array, given: Array, records: Array, offset: int, steps: int, total: int
    ) -> None:
        table, plan, groups = lowered
        k0, k1 = (self.key.k0, self.key.k1) if self.key else (0, 0)
        entry = execute.execute_counting if self.counting else execute.execute
        entry(
            self._registers, self._x, self._words, table, plan, self._integers, self._floats, scalars,
            self._scalar_row, given, records, self._events, groups, self._elements, self._run_of_element,
            np.uint64(k0), np.uint64(k1), self.blocks, self.dimension, self.lanes_per_block, self._strip,
            np.uint64(self.first_step), offset, steps, total,
        )  # fmt: skip

    def _scalars(self, step: int, wanted: int) -> tuple[range, Array]:
        """The scalars of the chunk of steps that ``step`` lies in: [blocks, scalars, steps, 1 or lanes_per_block]."""
        when, table = self._scalar_chunk
        if step in when:
            return when, table
        start = step // _SCALAR_STEPS * _SCALAR_STEPS
        when = range(start, start + _SCALAR_STEPS)
        try:
            unique = self._scalars_of(when)
        except ValueError:  # a schedule may be undefined in steps that are not run
            when = range(step, min(step + wanted, when.stop))
            unique = self._scalars_of(when)
        blocks = [unique[id(program), p] for program, p in zip(self.programs, self.precisions, strict=True)]
        columns = [[values[scalar.name] for scalar in self.program.scalars] for values in blocks]
        per_run = any(column.ndim == 2 for block in columns for column in block)
        width = self.lanes_per_block if per_run else 1
        table = np.empty((self.blocks, len(self.program.scalars), len(when), width))
        for block, of_block in enumerate(columns):
            for s, column in enumerate(of_block):
                table[block, s] = self._lanes_of(block, column)
        self._scalar_chunk = when, table
        return when, table

    def _scalars_of(self, when: range) -> dict[tuple[int, Precision], dict[str, Array]]:
        unique: dict[tuple[int, Precision], dict[str, Array]] = {}
        for program, precision in zip(self.programs, self.precisions, strict=True):
            if (id(program), precision) not in unique:
                unique[id(program), precision] = scalar_values(program, precision, when)
        return unique

    def _lanes_of(self, block: int, column: Array) -> Array:
        if column.ndim == 1:
            return column[:, np.newaxis]
        if column.shape[1] == self.lanes:
            return column[:, block * self.lanes_per_block : (block + 1) * self.lanes_per_block]
        if column.shape[1] == self.lanes_per_block:
            return column
        raise ValueError(
            f"a per-run hyperparameter has {column.shape[1]} values; "
            f"admissible: {self.lanes} or {self.lanes_per_block}, one for each lane"
        )

    def _per_step(self, name: str, given: npt.ArrayLike, steps: int) -> Array:
        if name not in self.program.inputs or name in self.program.state:
            raise ValueError(f"per-step input {name!r} is not an input of {self.program.name!r} that it only reads")
        array = np.ascontiguousarray(given, dtype=np.float64)
        own = self.shape(name)
        shapes = [(steps, *own, k) for k in (self.lanes, self.lanes_per_block)]
        if array.shape not in shapes or name in self.program.shared:
            admissible = "none, for all runs share it" if name in self.program.shared else f"{shapes[0]} or {shapes[1]}"
            raise ValueError(f"per-step input {name!r} has shape {array.shape}; admissible: {admissible}")
        self._check_index(name, array)
        return array

    def _check_index(self, name: str, array: Array) -> None:
        """What gathers read must lie inside what they pick from."""
        for operation in self.program.operations:
            if operation.kind == "gather" and operation.operands[1] == name:
                source = self.program.shape(operation.operands[0])
                length = self._sizes.of(source)[dict(operation.attributes)["axis"]]
                check_index(operation.slot, name, array, length)

    def _spread(self, name: str, array: Array) -> Array:
        """What is given as ``values`` has it: [blocks, d, lanes_per_block], or [blocks, d] of a shared array."""
        own = self.shape(name)
        if name in self.program.shared:
            if array.shape == own:
                return np.broadcast_to(array, (self.blocks, *own))
            raise ValueError(f"array {name!r} has shape {array.shape}; admissible: {own}, for all runs share it")
        shape = (self.blocks, *own, self.lanes_per_block)
        if array.shape == own:
            return np.broadcast_to(array[np.newaxis, ..., np.newaxis], shape)
        if array.shape == (*own, self.lanes):
            return np.moveaxis(array.reshape(*own, self.blocks, self.lanes_per_block), -2, 0)
        if array.shape == (*own, self.lanes_per_block) and name not in self.program.state:
            return np.broadcast_to(array, shape)
        raise ValueError(f"array {name!r} has shape {array.shape}; admissible: {own} or {(*own, self.lanes)}")

    def _array(self, name: str) -> int:
        if name not in self._arrays:
            raise ValueError(f"array {name!r} is unknown; arrays: {', '.join(self._arrays)}")
        return self._arrays[name]

    def _place(self, name: str) -> Place:
        size = self.dimension * self.lanes_per_block
        return self._arrays[name] * self.blocks * size, size, 1


def _run_numbers(runs: npt.ArrayLike, lanes: int) -> npt.NDArray[np.uint64]:
    numbers = np.asarray(runs)
    if numbers.shape != (lanes,) or numbers.dtype.kind not in "iu":
        raise ValueError(f"runs of shape {numbers.shape} and dtype {numbers.dtype}: {lanes} integers are needed")
    if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= 1 << 32):
        raise ValueError(f"runs={int(numbers.min())}..{int(numbers.max())} are outside 0..2^32-1")
    return numbers.astype(np.uint64)
