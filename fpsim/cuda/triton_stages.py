"""A program of several shapes as stages: what threads compute side by side, one element each, between two barriers.

A stage has one shape, and within it the operations of a program that need nothing of another element but what earlier
stages have left in memory. Sums and dot products are loops inside a stage, one thread for each result; so their order
is that of the definition. ``expand`` computes nothing: it is another shape of the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fpsim.program import Operation, Program
from fpsim.shapes import Shape, axis_of

GIVEN, COMPUTE, NEW, STORE, RECORD = "given", "compute", "new", "store", "record"


@dataclass(frozen=True)
class Node:
    """One thing to do for every element of a shape.

    Attributes
    ----------
    what : load and round an input of this step; carry out an operation; round what is to be stored; store it; record it
    name : of the input, slot or array; of a record its number
    shape : of the results
    reads : names of values; ``own``: those of which only the thread's own element is read
    operation : of ``COMPUTE``
    """

    what: str
    name: str
    shape: Shape
    reads: tuple[str, ...]
    own: frozenset[str]
    operation: Operation | None = None

    @property
    def value(self) -> str | None:
        """The name of what it makes."""
        if self.what in (GIVEN, COMPUTE):
            return self.name
        return new(self.name) if self.what == NEW else None


@dataclass
class Stage:
    """Nodes of one shape, in order; ``kept``: values that later stages, or other elements, read from memory."""

    shape: Shape
    nodes: list[Node] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def new(array: str) -> str:
    """The name of what is stored in an array at the end of a step."""
    return f"{array} new"


def plain(shape: Shape) -> Shape:
    """Without dimensions of 1: shapes that are equal so have their elements in the same order."""
    return tuple(dimension for dimension in shape if dimension != 1)


class Layout:
    """Where the values of a program are found and what shape their numbers have.

    Attributes
    ----------
    source : name -> the name whose numbers it has: an expanded value those of its operand
    memory : name -> the shape of the numbers themselves: () for a sum of everything, which counts for every element
    """

    def __init__(self, program: Program) -> None:
        self.source: dict[str, str] = {}
        self.memory: dict[str, Shape] = {name: program.shape(name) for name in program.inputs}
        self.memory |= {scalar.name: () for scalar in program.scalars}
        for operation in program.operations:
            slot, attributes = operation.slot, dict(operation.attributes)
            shape = program.shape(slot)
            if operation.kind == "expand":
                operand = operation.operands[0]
                self.source[slot] = self.name(operand)
                held = self.memory[operand]
                if held:
                    axis = axis_of(slot, (*held, 1), attributes["axis"])
                    held = (*held[:axis], 1, *held[axis:])
                self.memory[slot] = held
            else:
                whole = operation.kind == "sum" and attributes.get("axis") is None
                self.memory[slot] = () if whole else shape
        for array, _ in program.outputs:
            shape = program.shape(array)
            self.memory.setdefault(array, shape)
            self.memory[new(array)] = shape

    def name(self, name: str) -> str:
        return self.source.get(name, name)

    def is_own(self, name: str, shape: Shape) -> bool:
        """Whether a thread of a stage of this shape reads the element that has its own number."""
        return plain(self.memory[name]) == plain(shape)


def stages(program: Program, per_step: Iterable[str], records: Sequence[str]) -> tuple[list[Stage], Layout]:
    """The stages of a program, few of them: of all shapes that have something to do, the one with the least goes first.

    Parameters
    ----------
    per_step : inputs that change with the step
    records : what is recorded after every step

    Examples
    --------
    >>> from fpsim.optim import STEPS
    >>> found, _ = stages(STEPS["nadam"], ["g"], [])
    >>> [(stage.shape, len(stage.nodes)) for stage in found]
    [((), 6), (('d',), 24)]
    """
    layout = Layout(program)
    nodes = _nodes(program, layout, tuple(per_step), records)
    makers = {node.value: i for i, node in enumerate(nodes) if node.value is not None}
    old = {name for name in program.inputs if name not in makers}
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        for name in node.reads:
            readers.setdefault(layout.name(name), []).append(i)
    done: dict[int, int] = {}
    found: list[Stage] = []
    while len(done) < len(nodes):
        best: list[int] = []
        for shape in dict.fromkeys(plain(node.shape) for i, node in enumerate(nodes) if i not in done):
            chosen = _ready(nodes, shape, done, makers, readers, old, layout)
            if chosen and (not best or len(chosen) < len(best)):
                best = chosen
        stage = Stage(nodes[best[0]].shape)
        for i in best:
            done[i] = len(found)
            stage.nodes.append(nodes[i])
        found.append(stage)
    for value, maker in makers.items():
        used = readers.get(value, [])
        if any(done[i] != done[maker] or not _reads_own(nodes[i], value, layout) for i in used):
            found[done[maker]].kept.append(value)
    return found, layout


def _nodes(program: Program, layout: Layout, per_step: tuple[str, ...], records: Sequence[str]) -> list[Node]:
    nodes = [Node(GIVEN, name, program.shape(name), (), frozenset()) for name in per_step]
    for operation in program.operations:
        if operation.kind == "expand":
            continue
        shape = layout.memory[operation.slot]
        elsewhere = operation.kind in ("sum", "dot")
        reads = tuple(dict.fromkeys(operation.operands))
        own = frozenset(name for name in reads if not elsewhere and layout.is_own(name, shape))
        if operation.kind == "gather":
            own -= {operation.operands[0]}
        nodes.append(Node(COMPUTE, operation.slot, shape, reads, own, operation))
    changed = [(array, value) for array, value in program.outputs if array != value]
    for what in (NEW, STORE):
        for array, value in changed:
            shape, read = program.shape(array), value if what == NEW else new(array)
            own = frozenset([read] if layout.is_own(read, shape) else [])
            nodes.append(Node(what, array, shape, (read,), own))
    stored = dict(changed)
    for i, name in enumerate(records):
        read, shape = new(name) if name in stored else name, program.shape(name)
        nodes.append(Node(RECORD, str(i), shape, (read,), frozenset([read] if layout.is_own(read, shape) else [])))
    return nodes


def _ready(
    nodes: Sequence[Node],
    shape: Shape,
    done: Mapping[int, int],
    makers: Mapping[str, int],
    readers: Mapping[str, Sequence[int]],
    old: set[str],
    layout: Layout,
) -> list[int]:
    """What a stage of this shape could do now, in order."""
    chosen: list[int] = []

    def reached(i: int, name: str) -> bool:
        """Whether a node may read a value: it is made in an earlier stage, or is the thread's own of this one."""
        maker = makers.get(layout.name(name))
        return maker is None or maker in done or (maker in chosen and name in nodes[i].own)

    def free(i: int) -> bool:
        """Whether nobody needs any more what an array holds that is to be overwritten."""
        array = nodes[i].name
        if array not in old:
            return True
        return all(
            j in done or (j in chosen and _reads_own(nodes[j], array, layout)) for j in readers.get(array, []) if j != i
        )

    for i, node in enumerate(nodes):
        if i in done or plain(node.shape) != shape or not all(reached(i, name) for name in node.reads):
            continue
        if node.what != STORE or free(i):
            chosen.append(i)
    return chosen


def _reads_own(node: Node, source: str, layout: Layout) -> bool:
    return all(name in node.own for name in node.reads if layout.name(name) == source)
