"""A program printed as the source text of one Triton kernel.

The kernel loads the state once, keeps every slot of every step in registers, and stores the state once. Mode, tier and
random bits of a slot are written into the text; its format is a row of a table that the thread block picks. So the text
depends on the program and its modes and tiers only, not on formats, lengths, lanes or steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fpsim.cpu import codes
from fpsim.cuda.triton_single_tiers import Single
from fpsim.program import Operation, Program

ROUNDED = ("round", "add", "sub", "mul", "div", "sqrt", "fma")
UNROUNDED = ("neg", "abs", "sign", "max", "min", "less", "where")
PRINTED = (*ROUNDED, *UNROUNDED, "sum", "dot", "expand", "gather")
_TIERS = {codes.PLAIN: "PLAIN", codes.ODD: "ODD", codes.GUARDED: "GUARDED", codes.EXACT: "EXACT"}
_MODES = {
    getattr(codes, name): name
    for name in (
        "NEAREST_EVEN", "NEAREST_AWAY", "TOWARD_ZERO", "UP", "DOWN", "TO_ODD", "STOCHASTIC", "STOCHASTIC_B",
        "STOCHASTIC_C", "BINARY64",
    )
}  # fmt: skip

_HEADER = '''\
"""{what}

Printed by fpsim.cuda.triton_print; the name of this file holds the SHA-256 of its text. Not to be edited: a file whose
text is not what would be printed is written anew. A slot is one line. Constants of the text: kind, tier, mode, random
bits, and whether an infinity becomes what an overflow becomes. f0, f1, ... are formats, read from the thread block's
part of the table.
"""

import triton
import triton.language as tl

from fpsim.cuda.triton_elements import *
from fpsim.cuda.triton_program_parts import *
from fpsim.cuda.triton_single import *


@triton.jit(do_not_specialize=["key0", "key1", "first_step", "steps"])
def kernel(
    {arguments}, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = {block}
    tile = tl.program_id(0) % tiles
    if WIDE:  # places are beyond 32 bits, in which the card divides faster
        tile = tile.to(tl.int64)
    place = tile * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    element, column = (place // lanes_per_block).to(tl.int64), (place % lanes_per_block).to(tl.int64)
    lane = block * lanes_per_block + column
    lanes = blocks * lanes_per_block
    at = element * lanes + lane
    run = tl.load(runs + lane, mask=inside, other=0)
    nothing, zero = tl.full((BLOCK,), 0, tl.uint32), tl.full((BLOCK,), 0, tl.int64)
'''


@dataclass(frozen=True)
class Line:
    """How a slot is rounded.

    tier, mode, bits : as in ``fpsim.cpu.codes``, and random bits;  row : which of the block's formats
    alike : whether infinities become what an overflow becomes;  single : how it is computed in binary32, if it is
    """

    tier: int
    mode: int
    bits: int
    row: int
    alike: bool
    single: Single | None = None


@dataclass(frozen=True)
class Text:
    """What is printed.

    Attributes
    ----------
    lines : slot, output that is not stored as it is, or input that changes with the step -> how its value is rounded;
        a rounded slot that is missing holds what its operand holds
    draws : slot -> (which of ``groups``, word, shift to the left), and ``groups`` of random words
    rows : formats that one block has
    per_step : input -> whether all blocks share it, for the inputs that change with the step
    wide : whether a scalar has a value for every lane, of the constant ones and of those that change
    record : what is kept of every step
    some : whether the kernel works on some of the machine's blocks only, those that ``members`` lists
    tracked : arrays and slots whose smallest and largest magnitudes are kept; if not None, it is noted too where an
        event may have happened (``triton_watch``)
    narrow : arrays in registers of binary32, which holds their formats; others are in those of binary64
    """

    program: Program
    lines: Mapping[str, Line]
    draws: Mapping[str, tuple[int, int, int]]
    groups: Sequence[int]
    rows: int
    per_step: Mapping[str, bool]
    wide: tuple[bool, bool]
    record: Sequence[str]
    some: bool = False
    tracked: Sequence[str] | None = None
    narrow: frozenset[str] = frozenset()

    def block(self) -> str:
        """Which of the machine's blocks a thread block works on."""
        group = "tl.program_id(0) // tiles"
        return f"tl.load(members + {group})" if self.some else f"({group}).to(tl.int64)"

    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that are held from step to step, in the order of the kernel's arguments."""
        extra = tuple(array for array, _ in self.program.outputs if array not in self.program.inputs)
        return tuple(name for name in self.program.inputs if name not in self.per_step) + extra


def check_printable(program: Program) -> None:
    """Raise ``ValueError`` for a kind of operation that no kernel takes, naming the slot."""
    for operation in program.operations:
        if operation.kind not in PRINTED:
            raise ValueError(
                f"{operation.slot}: a Triton kernel does not take operations of kind {operation.kind!r}; "
                f"admissible: {', '.join(PRINTED)}"
            )


def is_elementwise(program: Program) -> bool:
    """Whether all arrays have one shape, each run its own, and an element needs no other: state stays in registers."""
    shapes = {program.shape(name) for name in program.inputs}
    for operation in program.operations:
        if any(not name.startswith("scalar.") for name in operation.operands):
            shapes.add(program.shape(operation.slot))
    kinds = all(operation.kind in ROUNDED + UNROUNDED for operation in program.operations)
    return kinds and len(shapes) == 1 and not program.shared


def printed(text: Text) -> str:
    """The source text of a module with one function, ``kernel``."""
    names = Names(text)
    program = text.program
    arguments = [f"{names.pointer(name)}" for name in (*text.arrays(), *text.per_step)]
    arguments += [f"record{i}" for i, _ in enumerate(text.record)]
    ends = [f"{end}{i}" for i, _ in enumerate(text.tracked or ()) for end in ("low", "high")]
    arguments += ["events", *(f"at_{end}" for end in ends)] if text.tracked is not None else []
    arguments += ["table", "constants", "scalars", "runs", "members", "key0", "key1", "first_step", "steps"]
    arguments += ["tiles", "size", "lanes_per_block", "blocks"]
    body = [f"    f{row} = format_row(table, block * {text.rows} + {row})" for row in range(text.rows)]
    body += [
        f"    {names[name]} = load({names.pointer(name)} + at, inside{', SINGLE' * (name in text.narrow)})"
        for name in text.arrays()
    ]
    fixed, moving = ([s.name for s in program.scalars if program.varies(s) == changing] for changing in (False, True))
    body += [f"    {scalar_line(text, names, name, '')}" for name in fixed]
    if text.tracked is not None:
        body += ["    rare = inside & (inside == 0)", *(f"    {end} = load(at_{end} + at, inside)" for end in ends)]
    # What changes is loaded one step before it is needed, so that no step waits for it.
    body += [f"    next_{scalar_line(text, names, name, '0')}" for name in moving]
    body += ["    for k in range(steps):", "        now = zero + k", "        step = now + first_step"]
    body += [f"        {names[name]} = next_{names[name]}" for name in moving]
    if moving:
        body += ["        following = tl.minimum(k + 1, steps - 1)"]
    body += [f"        next_{scalar_line(text, names, name, 'following')}" for name in moving]
    body += [f"        {line}" for line in _step(text, names)]
    body += [
        f"    store({names.pointer(name)} + at, {names[name]}, inside)"
        for name in text.arrays()
        if name in dict(program.outputs)
    ]
    if text.tracked is not None:
        body += ["    tl.store(events + at, rare.to(tl.int32), mask=inside)"]
        body += [f"    store(at_{end} + at, {end}, inside)" for end in ends]
    what = f"One or more steps of the program {program.name!r}, fused: {len(program.operations)} operations a step."
    return _HEADER.format(what=what, arguments=wrapped(arguments), block=text.block()) + "\n".join(body) + "\n"


def scalar_line(text: Text, names: Names, name: str, step: str) -> str:
    """The line that loads a scalar; ``step``: which of the launch's steps, of those that change, else empty."""
    program = text.program
    (scalar,) = (scalar for scalar in program.scalars if scalar.name == name)
    alike = [other.name for other in program.scalars if program.varies(other) == program.varies(scalar)]
    where, table = f"block * {len(alike)} + {alike.index(name)}", "scalars" if step else "constants"
    if step:
        where = f"({where}) * steps + {step}"
    if text.wide[bool(step)]:
        return f"{names[name]} = load({table} + ({where}) * lanes_per_block + column, inside)"
    return f"{names[name]} = tl.broadcast_to(tl.load({table} + {where}), (BLOCK,))"


def _step(text: Text, names: Names) -> list[str]:
    program = text.program
    lines = [
        f"words{i} = philox(element, step, run, {group} + ((step >> 32) << 16), key0, key1)"
        for i, group in enumerate(text.groups)
    ]
    for name, shared in text.per_step.items():
        place = "now * size + place" if shared else "now * size * blocks + at"
        lines.append(f"given = load({names.pointer(name)} + {place}, inside)")
        lines.append(f"{names[name]} = {rounding('round', ('given',), text.lines[name], name, text)}")
        lines += _noted("round", names[name], ("given",), name, text)
    for operation in program.operations:
        operands = tuple(names[name] for name in operation.operands)
        lines.append(f"{names[operation.slot]} = {call(operation, operands, text)}")
        lines += _noted(operation.kind, names[operation.slot], operands, operation.slot, text)
    stored = {array: f"new_{names[array]}" for array, value in program.outputs if array != value}
    for array, value in program.outputs:
        if array in stored and array in text.lines:
            lines.append(f"{stored[array]} = {rounding('round', (names[value],), text.lines[array], array, text)}")
            lines += _noted("round", stored[array], (names[value],), array, text)
        elif array in stored:
            lines.append(f"{stored[array]} = {names[value]}")
    lines += [
        f"{names[array]} = {'single' if array in text.narrow else 'double'}({new})" for array, new in stored.items()
    ]
    for i, name in enumerate(text.tracked or ()):
        lines.append(f"low{i}, high{i} = widened(low{i}, high{i}, {names[name]})")
    for i, name in enumerate(text.record):
        lines.append(f"store(record{i} + now * size * blocks + at, {names[name]}, inside)")
    return lines


def _noted(kind: str, result: str, operands: tuple[str, ...], slot: str, text: Text) -> list[str]:
    """The line that notes whether an event may have happened, where that is asked for."""
    if text.tracked is None or slot not in text.lines:
        return []
    a, b, c = (*operands, *operands[:1] * 3)[:3]
    return [f"rare |= suspicious({kind.upper()}, {result}, {a}, {b}, {c}, f{text.lines[slot].row})"]


def call(operation: Operation, operands: tuple[str, ...], text: Text) -> str:
    """The expression of an elementwise operation."""
    if operation.slot not in text.lines:
        return operands[0] if operation.rounded else f"{operation.kind}_of({', '.join(operands)})"
    return rounding(operation.kind, operands, text.lines[operation.slot], operation.slot, text)


def rounding(kind: str, operands: tuple[str, ...], line: Line, slot: str, text: Text, words: str = "words") -> str:
    """The expression of one rounded operation; ``words``: the name of the random words, before the group's number."""
    draw = "nothing"
    if line.bits:
        group, word, left = text.draws[slot]
        draw = f"draw_of({words}{group}[{word}], {left}, {32 - line.bits})"
    a, b, c = (*operands, *operands[:1] * 3)[:3]
    mode = _MODES[line.mode]
    if line.tier == codes.EXACT:
        row = f"table, block * {text.rows} + {line.row}"
        return f"operate({kind.upper()}, {mode}, {line.bits}, {a}, {b}, {c}, {draw}, {row})"
    if line.single is not None:
        how = f"{line.single}, {mode}, {line.bits}, {line.alike}"
        return f"single_operation({kind.upper()}, {how}, {a}, {b}, {c}, {draw}, f{line.row})"
    how = f"{kind.upper()}, {_TIERS[line.tier]}, {mode}, {line.bits}, {line.alike}"
    return f"operation({how}, {a}, {b}, {c}, {draw}, f{line.row})"


class Names:
    """Python names for arrays, scalars and slots, each its own."""

    def __init__(self, text: Text) -> None:
        program = text.program
        known = [*program.inputs, *(scalar.name for scalar in program.scalars)]
        known += [operation.slot for operation in program.operations]
        known += [array for array, _ in program.outputs if array not in known]
        self._of: dict[str, str] = {}
        for name in known:
            plain = "v_" + re.sub(r"\W", "_", name, flags=re.ASCII)
            while plain in self._of.values():
                plain += "_"
            self._of[name] = plain

    def __getitem__(self, name: str) -> str:
        return self._of[name]

    def pointer(self, name: str) -> str:
        return f"at_{self._of[name]}"


def wrapped(arguments: Sequence[str]) -> str:
    """Arguments, eight to a line."""
    rows = [", ".join(arguments[i : i + 8]) for i in range(0, len(arguments), 8)]
    return ",\n    ".join(rows)
