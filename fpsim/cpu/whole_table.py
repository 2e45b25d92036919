"""The lines of one step of a program with shapes as the tables of numbers that ``whole`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fpsim.cpu import codes
from fpsim.cpu import whole_codes as w
from fpsim.cpu.lower import Decision, Draws
from fpsim.cpu.whole_views import NOWHERE, Place


@dataclass(frozen=True)
class Line:
    """One line of the table before it is numbers: ``name`` finds its decision and its draws."""

    kind: int
    name: str
    slot: int
    size: int
    destination: Place
    operands: tuple[Place, ...] = ()
    swamped: bool = False
    number: int = 0


def table_of(lines: Sequence[Line], draws: Draws, words: Mapping[int, tuple[int, int]]) -> npt.NDArray[np.int64]:
    """The table of operations. ``words``: number of a group -> (where its words begin, counters)."""
    table = np.zeros((len(lines), w.COLUMNS), dtype=np.int64)
    for number, (row, line) in enumerate(zip(table, lines, strict=True)):
        row[w.KIND], row[w.SLOT], row[w.SIZE], row[w.NUMBER] = line.kind, line.slot, line.size, line.number
        row[w.DESTINATION : w.DESTINATION + 2] = line.destination
        # Operands that an operation lacks repeat its first one.
        a, b, c = (*line.operands, *(line.operands[:1] * 3), *(NOWHERE,) * 3)[:3]
        for column, place in ((w.A, a), (w.B, b), (w.C, c)):
            row[column : column + 2] = place
        row[w.SWAMPED] = line.swamped
        if line.name not in draws.columns or line.kind not in _DRAWING:
            continue
        group, word, left, right = draws.columns[line.name]
        row[w.LEFT], row[w.RIGHT] = left, right
        if line.kind == w.REDUCE:  # behind the words of the product, if those are of another group
            product = draws.columns.get(lines[number - 1].name) if lines[number - 1].kind == w.PRODUCT else None
            row[w.WORD] = word if product is not None and product[0] == group else 4 + word
        elif line.kind == w.PRODUCT:
            row[w.WORD] = word
        else:
            begin, counters = words[group]
            row[w.WORD] = begin + word * counters
    return table


_DRAWING = {*range(codes.ROUND, codes.FMA + 1), codes.LOAD, w.PRODUCT, w.REDUCE, w.REMAINDER, *w.FUNCTIONS.values()}


def counters_of(lines: Sequence[Line], draws: Draws) -> dict[int, int]:
    """Number of a group -> how many counters the elementwise operations draw from."""
    sizes = dict.fromkeys(range(len(draws.groups)), 0)
    for line in lines:
        if line.name in draws.columns and line.kind in _DRAWING and line.kind not in (w.PRODUCT, w.REDUCE):
            group = draws.columns[line.name][0]
            sizes[group] = max(sizes[group], line.size)
    return sizes


def plan_of(lines: Sequence[Line], blocks: Sequence[Mapping[str, Decision]]) -> npt.NDArray[np.int64]:
    """The plan: [blocks, operations, (tier, mode, format row)]."""
    nothing = (codes.PLAIN, codes.NONE, 0)
    rows = [[block.get(line.name, nothing) for line in lines] for block in blocks]
    return np.array(rows, dtype=np.int64).reshape(len(blocks), len(lines), 3)
