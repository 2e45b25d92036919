"""A program of several shapes printed as the source text of one Triton kernel, stage by stage.

A thread block has a few lanes of one block and all their elements, so what an element needs of others is in its own
memory: values that are read across elements go through ``scratch``, with a barrier after every stage. See
``triton_stages`` for what a stage is, and ``triton_print`` for what does not depend on formats, lengths and lanes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fpsim.cuda.triton_print import Names, Text, call, rounding, scalar_line, wrapped
from fpsim.cuda.triton_stages import COMPUTE, GIVEN, NEW, RECORD, STORE, Node, Stage, new, plain, stages
from fpsim.program import REDUCTIONS, Operation
from fpsim.shapes import Dimension, Shape, axis_of, broadcast

_HEADER = '''\
"""{what}

Printed by fpsim.cuda.triton_print_stages; the name of this file holds the SHA-256 of its text. Not to be edited: a file
whose text is not what would be printed is written anew. A stage is a loop over the elements of one shape and ends with
a barrier; a slot is a line or a loop. Constants of the text: kind, tier, mode, random bits, and whether an infinity
becomes what an overflow becomes. f0, f1, ... are formats, read from the thread block's part of the table; at_... are
arrays, in_... the thread block's own memory; n_... are lengths.
"""

import triton
import triton.language as tl

from fpsim.cuda.triton_elements import *
from fpsim.cuda.triton_program_parts import *


@triton.jit(do_not_specialize=[{lengths}"key0", "key1", "first_step", "steps"])
def kernel(
    {arguments},
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):
    block = {block}
    left = tl.program_id(0) % tiles * COLUMNS  # the first of the thread block's lanes
    lanes = blocks * lanes_per_block
    zero = tl.full((BLOCK,), 0, tl.int64)
    own = scratch + tl.program_id(0).to(tl.int64) * ({region}) * COLUMNS
'''


class Staged:
    """The text of a kernel and what its caller needs to know.

    Attributes
    ----------
    stages : with the shapes that threads are shared out over
    dimensions : names whose lengths are arguments, in order
    kept : the shapes of what lies in a thread block's memory
    """

    def __init__(self, text: Text) -> None:
        self.text, self.program, self.names = text, text.program, Names(text)
        self.stages, self.layout = stages(text.program, text.per_step, text.record)
        self._memory: dict[str, Shape] = {}
        for stage in self.stages:
            self._memory |= {name: self.layout.memory[name] for name in stage.kept}
            for node in stage.nodes:
                operation = node.operation
                if operation and operation.kind == "sum" and dict(operation.attributes).get("order") == "pairwise":
                    self._memory[f"{operation.slot} tree"] = self.program.shape(operation.operands[0])
        self.kept = tuple(self._memory.values())
        shapes = [*self.layout.memory.values(), *self.kept, *(self.program.shape(name) for name in self.program.inputs)]
        found = dict.fromkeys(x for shape in shapes for x in shape if isinstance(x, str))
        self.dimensions = tuple(found)
        self._lengths: dict[str, str] = {}
        for name in found:
            length = "n_" + re.sub(r"\W", "_", name, flags=re.ASCII)
            while length in self._lengths.values():
                length += "_"
            self._lengths[name] = length

    def printed(self) -> str:
        """The source text of a module with one function, ``kernel``."""
        text, names = self.text, self.names
        arguments = [names.pointer(name) for name in (*text.arrays(), *text.per_step)]
        arguments += [f"record{i}" for i, _ in enumerate(text.record)]
        arguments += ["scratch", "table", "constants", "scalars", "runs", "members", "key0", "key1", "first_step"]
        arguments += ["steps", "tiles", "lanes_per_block", "blocks", *self._lengths.values()]
        body = []
        before = "0"
        for name, shape in self._memory.items():
            body.append(f"{self._in(name)} = own + ({before}) * COLUMNS")
            before = self._count(shape) if before == "0" else f"{before} + {self._count(shape)}"
        body += [f"f{row} = format_row(table, block * {text.rows} + {row})" for row in range(text.rows)]
        body += [scalar_line(text, names, name, "") for name in self._scalars(changing=False)]
        body.append("for k in range(steps):")
        body += ["    now = zero + k", "    step = now + first_step"]
        body += [f"    {scalar_line(text, names, name, 'k')}" for name in self._scalars(changing=True)]
        for number, stage in enumerate(self.stages):
            body += [f"    {line}" for line in _StageText(self, stage, number).lines()]
        operations = len(self.program.operations)
        what = f"One or more steps of the program {self.program.name!r}: {operations} operations a step, in stages."
        header = _HEADER.format(
            what=what, arguments=wrapped(arguments), block=text.block(), region=before,
            lengths="".join(f'"{name}", ' for name in self._lengths.values()),
        )  # fmt: skip
        return header + "".join(f"    {line}\n" for line in body)

    def _scalars(self, changing: bool) -> list[str]:
        """Those that are the same for every lane, and loaded once."""
        if self.text.wide[changing]:
            return []
        return [scalar.name for scalar in self.program.scalars if self.program.varies(scalar) == changing]

    def _in(self, name: str) -> str:
        return "in_" + self.name(name.removesuffix(" tree")) + ("_tree" if name.endswith(" tree") else "")

    def name(self, value: str) -> str:
        """The Python name of a value."""
        array = value.removesuffix(" new")
        return f"new_{self.names[array]}" if value == new(array) else self.names[value]

    def _length(self, dimension: Dimension) -> str:
        return self._lengths[dimension] if isinstance(dimension, str) else str(dimension)

    def _count(self, shape: Shape) -> str:
        return " * ".join(map(self._length, plain(shape))) or "1"

    def index(self, shape: Shape, held: Shape, element: str) -> str:
        """Where element number ``element`` of a shape reads numbers of the shape ``held``, which is broadcast to it."""
        if plain(held) == plain(shape):
            return element
        if not plain(held):
            return "nil"
        if held == shape[-len(held) :]:
            return f"{element} % ({self._count(held)})"
        parts = []
        for place in range(1, len(held) + 1):
            if held[-place] == 1:
                continue
            inner, stride = self._count(shape[len(shape) - place + 1 :]), self._count(held[len(held) - place + 1 :])
            part = element if inner == "1" else f"{element} // ({inner})"
            if plain(shape[: len(shape) - place]):
                part = f"{part} % {self._length(held[-place])}"
            parts.append(part if stride == "1" else f"{part} * ({stride})")
        return " + ".join(parts)

    def address(self, name: str, element: str) -> str:
        """Where an element of a value, of the shape it has in memory, lies."""
        element = element if element.isidentifier() else f"({element})"
        if name in self._memory:
            return f"{self._in(name)} + {element} * COLUMNS + spot"
        across, where = ("blocks", "block") if name in self.program.shared else ("lanes", "lane")
        return f"{self.names.pointer(name)} + {element}.to(tl.int64) * {across} + {where}"


class _StageText:
    """The lines of one stage."""

    def __init__(self, kernel: Staged, stage: Stage, number: int) -> None:
        self.kernel, self.stage, self.number = kernel, stage, number
        self.text, self.names, self.layout = kernel.text, kernel.names, kernel.layout
        self._registers: set[str] = set()

    def lines(self) -> list[str]:
        kernel, shape = self.kernel, self.stage.shape
        count = kernel._count(shape)
        title = f"[{', '.join(map(str, shape))}]" if plain(shape) else "one number"
        head = [
            f"# Stage {self.number + 1}: {title}",
            f"for start in range(0, {count} * COLUMNS, BLOCK):",
        ]
        body = [
            "element, spot, column, lane, inside, run, nil, nothing = places(",
            f"    start, {count}, left, lanes_per_block, block, runs, COLUMNS, BLOCK",
            ")",
        ]
        body += [scalar_line(self.text, self.names, name, step) for name, step in self._wide()]
        groups = {self.text.draws[slot][0] for slot in self._drawn()}
        body += [f"words{i} = {self._philox('element', i)}" for i in sorted(groups)]
        for node in self.stage.nodes:
            body += self._node(node)
        return [*head, *(f"    {line}" for line in body), "tl.debug_barrier()"]

    def _wide(self) -> Iterator[tuple[str, str]]:
        """The scalars with a value for every lane that are used here."""
        read = {name for node in self.stage.nodes for name in node.reads}
        for scalar in self.text.program.scalars:
            changing = self.text.program.varies(scalar)
            if scalar.name in read and self.text.wide[changing]:
                yield scalar.name, "k" if changing else ""

    def _drawn(self) -> Iterator[str]:
        """Slots that draw once for each element of the stage."""
        for node in self.stage.nodes:
            sums = node.operation is not None and node.operation.kind in REDUCTIONS
            line = self.text.lines.get(node.name)
            if node.what in (GIVEN, COMPUTE, NEW) and line is not None and line.bits and not sums:
                yield node.name

    def _philox(self, element: str, group: int) -> str:
        return f"philox({element}, step, run, {self.text.groups[group]} + ((step >> 32) << 16), key0, key1)"

    def _node(self, node: Node) -> list[str]:
        kernel, text = self.kernel, self.text
        if node.what == GIVEN:
            lanes = "lanes_per_block" if text.per_step[node.name] else "lanes"
            lane = "column" if text.per_step[node.name] else "lane"
            place = f"(now * ({kernel._count(node.shape)}) + element) * {lanes} + {lane}"
            lines = [f"given = load({self.names.pointer(node.name)} + {place}, inside)"]
            value = rounding("round", ("given",), text.lines[node.name], node.name, text)
        elif node.what == COMPUTE:
            assert node.operation is not None  # of every such node
            lines, value = self._operation(node.operation)
        else:
            lines, given = self._read(node.reads[0], node.shape)
            if node.what == STORE:
                return [*lines, f"store({kernel.address(node.name, 'element')}, {given}, inside)"]
            if node.what == RECORD:
                place = f"(now * ({kernel._count(node.shape)}) + element) * lanes + lane"
                return [*lines, f"store(record{node.name} + {place}, {given}, inside)"]
            line = text.lines.get(node.name)
            value = given if line is None else rounding("round", (given,), line, node.name, text)
        name = node.value
        assert name is not None  # of every node that is left
        self._registers.add(name)
        lines.append(f"{kernel.name(name)} = {value}")
        if name in self.stage.kept:
            lines.append(f"store({kernel.address(name, 'element')}, {kernel.name(name)}, inside)")
        return lines

    def _read(self, name: str, shape: Shape) -> tuple[list[str], str]:
        """Lines that load an operand, where it is in no register yet, and its Python name."""
        kernel, layout = self.kernel, self.layout
        source = layout.name(name)
        if name.startswith("scalar."):
            return [], self.names[name]
        if layout.is_own(name, shape):
            if source in self._registers:
                return [], kernel.name(source)
            self._registers.add(source)
            return [f"{kernel.name(source)} = load({kernel.address(source, 'element')}, inside)"], kernel.name(source)
        index = kernel.index(shape, layout.memory[name], "element")
        found = f"here_{self.names[name]}"
        return [f"{found} = load({kernel.address(source, index)}, inside)"], found

    def _operation(self, operation: Operation) -> tuple[list[str], str]:
        if operation.kind in REDUCTIONS:
            return self._reduction(operation)
        if operation.kind == "gather":
            return self._gather(operation)
        lines: list[str] = []
        operands = []
        for name in operation.operands:
            more, operand = self._read(name, self.layout.memory[operation.slot])
            lines += [line for line in more if line not in lines]
            operands.append(operand)
        return lines, call(operation, tuple(operands), self.text)

    def _gather(self, operation: Operation) -> tuple[list[str], str]:
        program, layout, kernel = self.text.program, self.layout, self.kernel
        array, index = operation.operands
        shape, picked = program.shape(array), program.shape(index)
        axis = axis_of(operation.slot, shape, dict(operation.attributes)["axis"])
        count, after = kernel._count(picked), kernel._count(shape[axis + 1 :])
        length, behind = kernel._length(shape[axis]), plain(shape[axis + 1 :])
        lines: list[str] = []
        element = f"element // ({after})" if behind else "element"
        if layout.is_own(index, layout.memory[operation.slot]):
            lines, row = self._read(index, layout.memory[operation.slot])
        else:
            place = f"{element} % ({count})" if plain(shape[:axis]) else element
            row = f"load({kernel.address(layout.name(index), place)}, inside)"
        lines.append(f"row = {row}.to(tl.int32)")
        place = f"({element} // ({count}) * {length} + row)" if plain(shape[:axis]) else "row"
        if behind:
            place = f"{place} * ({after}) + element % ({after})"
        lines.append(f"picked = {place}")
        where = kernel.index(shape, layout.memory[array], "picked")
        return lines, f"load({kernel.address(layout.name(array), where)}, inside)"

    def _reduction(self, operation: Operation) -> tuple[list[str], str]:
        """A loop over the terms, in the order of the definition (``fpsim.tracing.total``)."""
        program, kernel = self.text.program, self.kernel
        shapes = {name: program.shape(name) for name in operation.operands}
        shape, attributes = broadcast(operation.slot, shapes), dict(operation.attributes)
        if attributes.get("axis") is None:
            length, after, first = kernel._count(shape), "1", "nil"
        else:
            axis = axis_of(operation.slot, shape, attributes["axis"])
            length, after = kernel._length(shape[axis]), kernel._count(shape[axis + 1 :])
            first = f"element * {length}"
            if after != "1":
                first = f"element // ({after}) * ({length} * {after}) + element % ({after})"
        lines = [f"first = {first}", f"length = {length}"]
        if operation.kind == "dot":
            return self._dot(operation, shape, after, lines)
        (name,) = operation.operands
        where = kernel.index(shape, self.layout.memory[name], "{}")
        source = kernel.address(self.layout.name(name), where)

        def term(number: str, at: str = source) -> str:
            place = _place(number, after)
            return f"load({at.replace('{}', place if where == '{}' else f'({place})')}, inside)"

        def added(left: str, right: str, number: str) -> list[str]:
            return self._joined("add", operation.slot, (left, right), _place(number, after))

        order = attributes.get("order", "sequential")
        if order == "pairwise":
            tree = kernel.address(f"{operation.slot} tree", "{}")
            place = [tree.replace("{}", _place(number, after)) for number in ("j", "j + half")]
            return [
                *lines,
                "for j in range(0, length):",
                f"    store({place[0]}, {term('j')}, inside)",
                "half = left * 0 + 1",
                "while half < length:",
                "    tl.debug_barrier()",
                "    for j in range(0, length - half, 2 * half):",
                *(f"        {line}" for line in added(term("j", tree), term("j + half", tree), "j + half")),
                f"        store({place[0]}, joined, inside)",
                "    half = half * 2",
            ], term("0", tree)
        if order == "sequential":
            lines += [f"total = {term('0')}", "for j in range(1, length):"]
            lines += [f"    {line}" for line in added("total", term("j"), "j")]
            return [*lines, "    total = joined"], "total"
        size = attributes["block"]
        lines += ["total = load_nothing(run)", f"for low in range(0, length, {size}):"]
        lines += [f"    part = {term('low')}", f"    for j in range(low + 1, tl.minimum(low + {size}, length)):"]
        lines += [f"        {line}" for line in added("part", term("j"), "j")]
        lines += ["        part = joined", *(f"    {line}" for line in added("total", "part", "low"))]
        return [*lines, "    total = tl.where(low == 0, part, joined)"], "total"

    def _dot(self, operation: Operation, shape: Shape, after: str, lines: list[str]) -> tuple[list[str], str]:
        term, factors = f"({_place('j', after)})", []
        for name in operation.operands:
            where = self.kernel.index(shape, self.layout.memory[name], term)
            scalar = name.startswith("scalar.")
            address = self.kernel.address(self.layout.name(name), where) if not scalar else ""
            factors.append(self.names[name] if scalar else f"load({address}, inside)")
        joined = self._joined("fma", operation.slot, (*factors, "total"), _place("j", after))
        lines += ["total = load_nothing(run)", "for j in range(0, length):", *(f"    {line}" for line in joined)]
        return [*lines, "    total = joined"], "total"

    def _joined(self, kind: str, slot: str, operands: Sequence[str], element: str) -> list[str]:
        """One rounded operation within a sum, with the random bits of an element of its terms."""
        line = self.text.lines[slot]
        group = self.text.draws[slot][0] if line.bits else 0
        words = [f"term_words{group} = {self._philox(f'({element})', group)}"] if line.bits else []
        return [*words, f"joined = {rounding(kind, tuple(operands), line, slot, self.text, 'term_words')}"]


def _place(number: str, after: str) -> str:
    """The element of a term."""
    if number == "0":
        return "first"
    number = number if " " not in number else f"({number})"
    return f"first + {number}" if after == "1" else f"first + {number} * ({after})"
