"""The CPU machine for programs whose values have many shapes: sums along an axis, shared matrices, functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim import elementary, events, exact
from fpsim.cpu import codes, contract, whole
from fpsim.cpu import whole_codes as w
from fpsim.cpu.contract_kernels import SIDE
from fpsim.cpu.elementary_constants import exponential
from fpsim.cpu.lower import Draws
from fpsim.cpu.machine import Array, Machine
from fpsim.cpu.tiers import Range
from fpsim.cpu.whole_lower import COMPUTED, Lowering
from fpsim.cpu.whole_table import Line, counters_of, plan_of, table_of
from fpsim.cpu.whole_views import Place, View, c_strides
from fpsim.precision import drawn_bits
from fpsim.random_bits import program_draw
from fpsim.rounding import Stochastic, random_bits


class WholeMachine(Machine):
    """See ``Machine``, which makes one of these where a program needs it."""

    def values(self, name: str) -> Array:
        """A view ``[blocks, *shape, lanes_per_block]`` of an array, or ``[blocks, *shape]`` of one that runs share.

        It is valid until the next ``run``. Constants are not to be written: tiers are chosen by what they were.
        """
        self._array(name)
        base, per_block = self._places[name]
        own, shared = self._own(name), name in self.program.shared
        memory = self._memory(name)
        blocks = self._registers[base : base + self.blocks * per_block].reshape(self.blocks, per_block)
        view = blocks[:, : math.prod(memory)].reshape(self.blocks, *memory)
        return view[..., : own[-1]] if shared and own else view

    def load(self, state: Mapping[str, npt.ArrayLike], constants: Mapping[str, npt.ArrayLike] | None = None) -> None:
        super().load(state, constants)
        # What is constant is known from now on: cheaper tiers are proven for its range.
        self._plan_again()

    def _plan_again(self) -> None:
        self._lowered.clear()
        self._plan_blocks()

    def _own(self, name: str) -> tuple[int, ...]:
        """The lengths of one run's array; its extremes have the same."""
        return self.shape(name.removesuffix(" low").removesuffix(" high"))

    def _memory(self, name: str) -> tuple[int, ...]:
        """The lengths in memory, of one block: with lanes, or with a last axis of whole vectors."""
        own = self._own(name)
        if name not in self.program.shared:
            return (*own, self.lanes_per_block)
        if not own or name in self.program.indices:
            return own
        return (*own[:-1], -(-own[-1] // SIDE) * SIDE)

    def _lay_out(self) -> None:
        program = self.program
        names = [*program.inputs, *(array for array, _ in program.outputs if array not in program.inputs)]
        known = {*names, *(operation.slot for operation in program.operations)}
        for name in self.track:
            if name not in known:
                raise ValueError(f"track {name!r} is neither an array nor an operation of program {program.name!r}")
            names += [f"{name} low", f"{name} high"]
        self._arrays = {name: i for i, name in enumerate(names)}
        self._constants: set[str] = set()
        self._places: dict[str, Place] = {}
        self._views: dict[str, View] = {}
        end = 0
        for name in names:
            memory, has_lanes = self._memory(name), int(name not in program.shared)
            per_block = -(-math.prod(memory) // SIDE) * SIDE
            self._places[name] = (end, per_block)
            self._views[name] = View(end, per_block, c_strides(memory)[: len(self._own(name))], has_lanes)
            end += per_block * self.blocks
        self._held = end
        self._registers = np.zeros(end)
        self._width = max(contract.STRIP, -(-self.lanes_per_block // 8) * 8)

    def _known(self, block: int) -> Mapping[str, Range]:
        return {name: Range.of_values(self.values(name)[block]) for name in self._constants}

    def _table(self, per_step: Mapping[str, tuple[int, int]], record: tuple[str, ...]) -> Any:
        if not self._constants.isdisjoint(per_step):  # given for every step from now on
            self._constants -= set(per_step)
            self._plan_again()
        key = (tuple(per_step.items()), record)
        if key not in self._lowered:
            self._lowered[key] = self._lower(per_step, record)
        return self._lowered[key]

    def _lower(self, per_step: Mapping[str, tuple[int, int]], record: tuple[str, ...]) -> _Tables:
        program, lanes = self.program, self.lanes_per_block
        shapes = {operation.slot: self.shape(operation.slot) for operation in program.operations}
        shapes |= {name: self.shape(name) for name in (*program.inputs, *(array for array, _ in program.outputs))}
        for operation in program.operations:
            if operation.slot in self._draws.columns:  # a sum has draws for each of its terms
                terms = np.broadcast_shapes(*(shapes.get(name, ()) for name in operation.operands))
                if math.prod(terms) > 1 << 32:
                    raise ValueError(f"slot {operation.slot!r} rounds {math.prod(terms)} elements; draws end at 2^32")
        records, base = {}, 0
        for name in record:
            records[name] = base
            base += self.blocks * math.prod(self.shape(name)) * lanes
        longest = 0
        for _ in range(2):  # the second time it is known how long the rows of scalars are
            scalars = {scalar.name: (self._held + i * longest, 0) for i, scalar in enumerate(program.scalars)}
            lowering = Lowering(
                program, shapes, self._views, self._places, scalars, self._same_format, self._draws, lanes,
                self._held + len(scalars) * longest, 0, self.counting,
            )  # fmt: skip
            lines = lowering.lower(per_step, records, self.track)
            longest = self._longest(lines)
        return _Tables(lines, lowering, self, longest, self._decisions)

    def _longest(self, lines: list[Line]) -> int:
        """The longest of what a line works on, in whole vectors; sums work on strips."""
        sizes = [line.size for line in lines if line.kind != w.PRODUCT]
        return -(-max(self._width, contract.WIDTH, *sizes) // 8) * 8

    def _set_up(self, names: tuple[str, ...]) -> None:
        nothing = Lowering(self.program, {}, {}, {}, {}, frozenset(), Draws((), {}), 1, self._held, 0, ())
        lines = []
        for name in names:
            per_block = self._places[name][1]
            lines.append(Line(codes.ROUND, name, -1, per_block, self._places[name], (self._places[name],)))
        if lines:
            tables = _Tables(lines, nothing, self, self._longest(lines), self._set_up_decisions)
            self._execute(tables, np.empty((self.blocks, 0, 1, 1)), np.empty(0), np.empty(0), 0, 1, 1)

    def _execute(
        self, lowered: Any, scalars: Array, given: Array, records: Array, offset: int, steps: int, total: int
    ) -> None:
        tables: _Tables = lowered
        if len(self._registers) < tables.size:
            self._registers = np.concatenate([self._registers, np.zeros(tables.size - len(self._registers))])
        registers = self._registers[: tables.size]
        lanes, longest = self.lanes_per_block, tables.longest
        k0, k1 = (self.key.k0, self.key.k1) if self.key else (0, 0)
        state = np.zeros(w.STATE, dtype=np.int64)
        entry = whole.execute_counting if self.counting else whole.execute
        while True:
            line = entry(
                registers, tables.x, tables.random, tables.table, tables.details, tables.plan, self._integers,
                self._floats, tables.functions, scalars, tables.scalar_sizes, self._held, tables.scratch, given,
                records, self._events, tables.groups, tables.elements, self.runs.reshape(self.blocks, lanes),
                tables.counters, tables.places, tables.open_ones, np.uint64(k0), np.uint64(k1), self.blocks, lanes,
                longest, np.uint64(self.first_step), offset, steps, total, state,
            )  # fmt: skip
            if line == w.DONE:
                return
            self._complete(tables, registers, state)

    def _complete(self, tables: _Tables, registers: Array, state: Any) -> None:
        """Compute what the compiled code has left open of the line that it stopped at."""
        block, line = int(state[w.AT_BLOCK]), tables.lines[int(state[w.AT_LINE])]
        operands = [registers[base + block * more :][: line.size] for base, more in line.operands]
        kind = self.program.operation(line.name).kind
        if tables.plan[block, state[w.AT_LINE], whole.TIER] == codes.EXACT:
            base, more = line.destination
            result = registers[base + block * more :][: line.size]
            self._element_by_element(kind, line, block, self.first_step + int(state[w.AT_STEP]), operands, result)
            state[w.AT_LINE] += 1
            state[w.HALF] = 0
            return
        from fpsim.cpu.elementary_table import compute, to_odd  # on first use: it loads a library of its own

        if state[w.OPEN] == line.size:
            tables.x[: line.size] = compute(kind, *(np.ascontiguousarray(operand) for operand in operands))
        else:
            for i in tables.open_ones[: state[w.OPEN]].tolist():
                tables.x[i] = to_odd(kind, tuple(float(operand[i]) for operand in operands))
        state[w.HALF] = 1

    def _element_by_element(
        self, kind: str, line: Line, block: int, step: int, operands: list[Array], result: Array
    ) -> None:
        """In ball arithmetic, for formats beyond the compiled functions."""
        fmt, mode = self._slots[block][line.name]
        lanes, drawn = self.lanes_per_block, drawn_bits(self.program, self._slots[block])
        words = None
        if isinstance(mode, Stochastic):
            assert self.key is not None  # checked when the machine was made
            element, lane = np.divmod(np.arange(line.size), lanes)
            runs = self.runs.reshape(self.blocks, lanes)[block][lane]
            words = program_draw(self.key, element, step, runs, line.slot, drawn) >> np.uint32(
                drawn - random_bits(mode)
            )
        for i in range(line.size):
            given, word = [float(x[i]) for x in operands], None if words is None else int(words[i])
            exactly = elementary.value(kind, given)
            result[i] = exact.round_value(exactly, fmt, mode, word)
            if self.counting:
                for name in events.of(kind, given, exactly, float(result[i]), fmt, mode, word):
                    self._events[block, line.slot, events.NAMES.index(name)] += 1


class _Tables:
    """What one lowered program is to the compiled code, and its scratch memory."""

    def __init__(
        self, lines: list[Line], lowering: Lowering, machine: WholeMachine, longest: int, decisions: Any
    ) -> None:
        draws, lanes, width = lowering.draws, machine.lanes_per_block, machine._width
        words, end, groups = {}, 8 * width, []  # the first are those of sums
        for group, counters in counters_of(lines, draws).items():
            words[group] = (end, counters)
            groups.append((draws.groups[group], counters, end))
            end += 4 * counters
        rows = contract.ROWS + lowering.terms.bit_length() + 2
        self.lines, self.longest, self.scratch = lines, longest, lowering.end
        self.size = self.scratch + contract.TILE * contract.WIDTH + (1 + rows) * width + (1 + whole.SPARE) * longest
        self.table, self.plan = table_of(lines, draws, words), plan_of(lines, decisions)
        self.details = np.array([*lowering.details, 0], dtype=np.int64)
        self.groups = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self.scalar_sizes = np.array([*lowering.scalar_sizes.values(), 0], dtype=np.int64)
        self.functions = exponential() if any(line.kind in COMPUTED for line in lines) else np.zeros(1)
        self.x = np.zeros(longest + contract.WIDTH + lowering.terms + (2 * longest if machine.counting else 0))
        self.random = np.zeros(end, dtype=np.uint32)
        self.elements = np.repeat(np.arange(-(-longest // lanes), dtype=np.uint64), lanes)[:longest].copy()
        self.counters = np.zeros(3 * longest, dtype=np.uint64)
        self.places = np.zeros(lowering.terms + 1, dtype=np.int64)
        self.open_ones = np.zeros(longest + 1, dtype=np.int64)
