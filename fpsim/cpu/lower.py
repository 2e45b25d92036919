"""A program and its formats, lowered to the tables that the machine reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fpsim.cpu import codes, execute
from fpsim.cpu.format_table import fast, tables
from fpsim.cpu.tiers import Range, choose, is_binary64
from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.precision import drawn_bits
from fpsim.program import ELEMENTARY, RUNNABLE, Operation, Program
from fpsim.rounding import Rounding, Stochastic, asked_bits, code, random_bits

Slots = Mapping[str, tuple[Format, Rounding]]
Place = tuple[int, int, int]
Decision = tuple[int, int, int]  # tier, mode, row of the format table


class Formats:
    """The rows of the format table, filled as they are asked for. Row 0 is binary64, which the kernels rely on."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Format, int], int] = {(BINARY64, 0): 0}

    def row(self, fmt: Format, rounding: Rounding) -> int:
        return self._rows.setdefault((fmt, random_bits(rounding)), len(self._rows))

    def decide(self, kind: str, operands: Sequence[Range], fmt: Format, rounding: Rounding) -> Decision:
        """Tier, mode and format row of one rounded operation."""
        if kind in ELEMENTARY:
            decided = fast(fmt, random_bits(rounding)) and fmt.precision + asked_bits(rounding) <= 52
            return codes.ODD if decided else codes.EXACT, code(rounding), self.row(fmt, rounding)
        if is_binary64(fmt, rounding):
            return codes.PLAIN, codes.BINARY64, 0
        return choose(kind, operands, fmt, rounding), code(rounding), self.row(fmt, rounding)

    def tables(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        return tables(list(self._rows))


@dataclass(frozen=True)
class Draws:
    """Where the random bits of each stochastic slot lie: groups of counters, and four columns of the table."""

    groups: tuple[int, ...]
    columns: Mapping[str, tuple[int, int, int, int]]

    @classmethod
    def of(cls, program: Program, slots: Slots) -> Draws:
        """As ``fpsim.random_bits.program_draw`` numbers them, for draws of ``precision.drawn_bits``."""
        halves = 2 if drawn_bits(program, slots) <= 16 else 1
        places: dict[str, tuple[int, int, int, int]] = {}
        groups: list[int] = []
        drawn = [operation.slot for operation in program.operations if operation.rounded] + list(program.inputs)
        for number, name in enumerate(program.slots):
            mode = slots[name][1]
            if not isinstance(mode, Stochastic) or name not in drawn:
                continue
            group, position = divmod(number, 4 * halves)
            word, half = divmod(position, halves)
            if group not in groups:
                groups.append(group)
            left = 16 if halves == 2 and half == 0 else 0
            places[name] = (groups.index(group), word, left, 32 - mode.bits)
        return cls(tuple(groups), places)

    def only(self, names: set[str]) -> Draws:
        """Without the groups that only other slots draw from."""
        used = sorted({place[0] for name, place in self.columns.items() if name in names})
        columns = {
            name: (used.index(group), word, left, right)
            for name, (group, word, left, right) in self.columns.items()
            if group in used
        }
        return Draws(tuple(self.groups[group] for group in used), columns)


def decisions(
    program: Program,
    slots: Slots,
    scalars: Mapping[str, npt.NDArray[np.float64]],
    formats: Formats,
    known: Mapping[str, Range] | None = None,
) -> dict[str, Decision]:
    """Tier, mode and format of every operation and of storing every array, for the formats of one block.

    A constant scalar is known, a scalar that changes with the step counts as any number of its format. ``known``: the
    ranges of inputs that are constant, where they are known.
    """
    ranges = {name: Range.of_format(slots[name][0]) for name in program.inputs} | dict(known or {})
    for scalar in program.scalars:
        fmt = slots[scalar.name][0]
        ranges[scalar.name] = Range.of_format(fmt) if program.varies(scalar) else Range.of_values(scalars[scalar.name])
    result: dict[str, Decision] = {}
    for operation in program.operations:
        operands = [ranges[name] for name in operation.operands]
        if not operation.rounded:
            result[operation.slot] = (codes.PLAIN, codes.NONE, 0)
            ranges[operation.slot] = _unrounded(operation.kind, operands)
            continue
        fmt, mode = slots[operation.slot]
        ranges[operation.slot] = Range.of_format(fmt)
        kind = operation.kind
        if kind == "sum":
            partial = _union([*operands, Range.of_format(fmt)])
            kind, operands, ranges[operation.slot] = "add", [partial, partial], partial
        elif kind == "dot":
            kind, operands = "fma", [*operands, Range.of_format(fmt)]
        elif kind == "rem":  # computed exactly, then rounded
            kind = "round"
        result[operation.slot] = formats.decide(kind, operands, fmt, mode)
    for name in program.inputs:
        fmt, mode = slots[name]
        result[name] = formats.decide("round", (), fmt, mode)
    return result


def _unrounded(kind: str, operands: Sequence[Range]) -> Range:
    """What an exact operation can return: one of its operands, or of those it selects from, but for signs."""
    if kind in ("less", "sign"):  # 0, 1 and -1
        return Range(1, 0, 0, 0)
    return _union(operands[1:] if kind == "where" else operands[:1] if kind == "gather" else operands)


def _union(ranges: Sequence[Range]) -> Range:
    low, high, lsb = min(r.low for r in ranges), max(r.high for r in ranges), min(r.lsb for r in ranges)
    return Range(max(r.precision for r in ranges), low, high, lsb)


@dataclass(frozen=True)
class Step:
    """One line of the table before it is numbers: ``name`` finds its decision and its draws.

    ``slot`` is -1 where nothing is counted. RECORD and MOVED have numbers of their own there. ``watch``: how much of it
    is looked at (see execute).
    """

    kind: int
    name: str
    slot: int
    destination: Place
    operands: tuple[Place, ...]
    watch: int = execute.RARE


def rows_of(steps: Sequence[Step], draws: Draws) -> npt.NDArray[np.int64]:
    """The table of operations."""
    table = np.zeros((len(steps), execute.COLUMNS), dtype=np.int64)
    for row, step in zip(table, steps, strict=True):
        row[execute.KIND], row[execute.SLOT] = step.kind, step.slot
        # Operands that an operation lacks repeat its first one.
        a, b, c = (*step.operands, *(step.operands[:1] * 3))[:3]
        for column, place in ((execute.DESTINATION, step.destination), (execute.A, a), (execute.B, b), (execute.C, c)):
            row[column : column + 3] = place
        row[execute.WATCH] = step.watch
        row[execute.GROUP : execute.RIGHT + 1] = draws.columns.get(step.name, (0, 0, 0, 0))
    return table


def plan_of(steps: Sequence[Step], blocks: Sequence[Mapping[str, Decision]]) -> npt.NDArray[np.int64]:
    """The plan: [blocks, operations, (tier, mode, format row)]."""
    nothing = (codes.PLAIN, codes.NONE, 0)
    rows = [[block.get(step.name, nothing) for step in steps] for block in blocks]
    return np.array(rows, dtype=np.int64).reshape(len(blocks), len(steps), execute.PLAN)


class Lowering:
    """Places values in registers: arrays for good, intermediate results from their operation to their last use.

    Parameters
    ----------
    same_format : pairs (value, array) for which storing is the identity in every block
    identities : slots of ``round`` operations whose operand is in their format already, in every block
    place_of_array : array name -> place;  first_row, strip : where rows of intermediate results begin, and their length
    scalar_places : scalar name -> place
    counting : the events to count; if any, no operation overwrites an array
    """

    def __init__(
        self,
        program: Program,
        same_format: frozenset[tuple[str, str]],
        identities: frozenset[str],
        place_of_array: Mapping[str, Place],
        scalar_places: Mapping[str, Place],
        first_row: int,
        strip: int,
        counting: Sequence[str] = (),
    ) -> None:
        self.program, self.same_format, self.counting = program, same_format, counting
        self._identities = identities
        self.places: dict[str, Place] = {**place_of_array, **scalar_places}
        self.arrays = place_of_array
        self._watch = execute.RARE
        if "inexact" in counting or "frozen" in counting:
            self._watch = execute.INEXACT
        if "swamped" in counting:
            self._watch = execute.SWAMPED
        self.numbers = {name: number for number, name in enumerate(program.slots)}
        self.first_row, self.strip, self.rows = first_row, strip, 0
        self._free: list[Place] = []

    def lower(self, per_step: Mapping[str, tuple[int, int]], record: Sequence[str], track: Sequence[str]) -> list[Step]:
        """The table of one step. ``per_step``: input name -> (base, columns) in the flat array of given inputs."""
        aliases = self._without_identities(record)
        program = self.program
        steps = [
            Step(codes.LOAD, name, self.numbers[name], self.places[name], ((base, 0, 0), (columns, 0, 0)))
            for name, (base, columns) in per_step.items()
        ]
        last_use = self._last_uses(record)
        direct = {} if self.counting else self._stored_directly()
        moved: dict[str, Place] = {}
        steps += [self._extremes(name) for name in per_step if name in track]
        for index, operation in enumerate(program.operations):
            operands = tuple(self.places[name] for name in operation.operands)
            if operation.slot in aliases:
                self.places[operation.slot] = operands[0]
                if operation.slot in track:
                    steps.append(self._extremes(operation.slot))
                self._release(operation.operands, last_use, index)
                continue
            destination = self.arrays[direct[operation.slot]] if operation.slot in direct else self._row()
            self.places[operation.slot] = destination
            slot = self.numbers.get(operation.slot, -1)
            steps.append(Step(codes.KINDS[operation.kind], operation.slot, slot, destination, operands, self._watch))
            if "frozen" in self.counting and operation.rounded and operation.kind != "sum":
                watched = [name for name, value in self._replaced() if value == operation.slot]
                moved |= {name: self._row() for name in watched}
                steps += [self._moved(name, back, moved[name]) for back, name in enumerate(watched, start=1)]
            if operation.slot in track:
                steps.append(self._extremes(operation.slot))
            self._release((*operation.operands, operation.slot), last_use, index)
        steps += self._stores_watched(moved) if "frozen" in self.counting else self._stores(direct)
        steps += [self._extremes(name) for name, _ in program.outputs if name in track]
        here = {**self.places, **self.arrays}
        steps += [Step(codes.RECORD, "", r, (0, 0, 0), (here[name],)) for r, name in enumerate(record)]
        return steps

    def _without_identities(self, record: Sequence[str]) -> dict[str, str]:
        """Let readers of a value that is rounded to its own format read the value itself: slot -> value.

        Such a rounding changes nothing, whatever the mode, and has no events. What is recorded is kept, because the
        value may be overwritten before the end of the step; so is everything where frozen numbers are counted.
        """
        aliases: dict[str, str] = {}
        if self._watch != execute.RARE:
            return aliases
        operations = []
        for operation in self.program.operations:
            operands = tuple(aliases.get(name, name) for name in operation.operands)
            operations.append(replace(operation, operands=operands))
            if operation.slot in self._identities and operation.slot not in record:
                aliases[operation.slot] = operands[0]
        outputs = tuple((array, aliases.get(value, value)) for array, value in self.program.outputs)
        self.same_format |= {(aliases.get(value, value), array) for value, array in self.same_format}
        self.program = replace(self.program, operations=tuple(operations), outputs=outputs)
        return aliases

    def _release(self, names: Sequence[str], last_use: Mapping[str, int], index: int) -> None:
        """Give back the rows of values that are not used after the operation ``index``."""
        for name in dict.fromkeys(names):
            if last_use.get(name, index) <= index and self._is_row(name):
                self._free.append(self.places[name])

    def _stores(self, direct: Mapping[str, str]) -> list[Step]:
        fetch, store = [], []
        written = {array for array, _ in self.program.outputs}
        for array, value in self.program.outputs:
            if direct.get(value) == array or array == value:
                continue
            source = self.places[value]
            if value in written:  # another store may come before this one
                source = self._row()
                fetch.append(Step(codes.COPY, "", -1, source, (self.places[value],)))
            identity = (value, array) in self.same_format or array not in self.numbers
            kind = codes.COPY if identity else codes.ROUND
            store.append(Step(kind, array, self.numbers.get(array, -1), self.arrays[array], (source,)))
        return fetch + store

    def _replaced(self) -> list[tuple[str, str]]:
        """States and the values that replace them."""
        return [(array, value) for array, value in self.program.outputs if array in self.numbers and array != value]

    def _moved(self, array: str, back: int, row: Place) -> Step:
        """Whether the exact result, of the operation ``back`` lines above or that value itself, is not the old one."""
        value = self.places[dict(self.program.outputs)[array]]
        return Step(codes.MOVED, "", back, row, (self.arrays[array], value))

    def _stores_watched(self, moved: Mapping[str, Place]) -> list[Step]:
        """The stores, between keeping what was there and comparing with it."""
        before, after = [], []
        for array, _ in self._replaced():
            row, old = moved.get(array) or self._row(), self._row()
            if array not in moved:
                before.append(self._moved(array, 0, row))
            before.append(Step(codes.COPY, "", -1, old, (self.arrays[array],)))
            after.append(Step(codes.FROZEN, "", self.numbers[array], (0, 0, 0), (self.arrays[array], old, row)))
        return before + self._stores({}) + after

    def _stored_directly(self) -> dict[str, str]:
        """Operations that write their array themselves: same format, and nobody reads the old array from there on."""
        operations = self.program.operations
        direct: dict[str, str] = {}
        for array, value in self.program.outputs:
            producer = next((i for i, operation in enumerate(operations) if operation.slot == value), None)
            if producer is None or value in direct or (value, array) not in self.same_format:
                continue
            read_later = any(array in operation.operands for operation in operations[producer:])
            if not read_later and all(source != array for _, source in self.program.outputs):
                direct[value] = array
        return direct

    def _last_uses(self, record: Sequence[str]) -> dict[str, int]:
        uses: dict[str, int] = {}
        for index, operation in enumerate(self.program.operations):
            uses.update(dict.fromkeys((*operation.operands, operation.slot), index))
        kept = (*record, *(value for _, value in self.program.outputs))
        uses.update(dict.fromkeys(kept, len(self.program.operations)))
        return uses

    def _extremes(self, name: str) -> Step:
        low, high = self.arrays[f"{name} low"], self.arrays[f"{name} high"]
        return Step(
            codes.EXTREMES,
            "",
            -1,
            (0, 0, 0),
            (self.places[name] if name not in self.arrays else self.arrays[name], low, high),
        )

    def _is_row(self, name: str) -> bool:
        place = self.places[name]
        return place[2] == 0 and not name.startswith("scalar.") and place not in self._free

    def _row(self) -> Place:
        if self._free:
            return self._free.pop()
        self.rows += 1
        return (self.first_row + (self.rows - 1) * self.strip, 0, 0)


def check_runnable(program: Program) -> None:
    """Raise ``ValueError`` for a kind of operation that the machine does not take."""
    unknown: list[Operation] = [o for o in program.operations if o.kind not in RUNNABLE]
    if unknown:
        raise ValueError(
            f"{unknown[0].slot}: the CPU machine does not take operations of kind {unknown[0].kind!r}; "
            f"admissible: {', '.join(sorted(RUNNABLE))}"
        )
