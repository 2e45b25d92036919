"""Which batch checks what. A batch is a function of the seed and its number alone, on any machine, in any process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from experiments.selftest.outcome import Mismatch, Outcome, error_of

# Operation -> (batches in a cycle, cases in a batch). Elementary functions have a slow specification.
_PLAN = {
    **dict.fromkeys(("round", "add", "mul", "div", "fma"), (4, 512)),
    **dict.fromkeys(("sub", "sqrt", "rem", "rsqrt"), (2, 512)),
    **dict.fromkeys(("reciprocal", "min", "max", "abs", "neg"), (1, 512)),
    **dict.fromkeys(
        ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow"), (1, 256)
    ),
    "codes": (1, 512),
    "contractions": (4, 20),
    "programs": (3, 54),  # and more: as many as the program has operations
}
OPERATIONS = tuple(_PLAN)


@dataclass(frozen=True)
class Choice:
    """What the user chose. Empty names of formats: named and random ones."""

    seed: int = 0
    operations: tuple[str, ...] = OPERATIONS
    formats: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()  # as they print; empty: all


def planned(choice: Choice, cases: int) -> list[tuple[int, str]]:
    """The numbers and operations of the batches that hold at least ``cases`` cases together, operations in turns."""
    found: list[tuple[int, str]] = []
    cycle = _cycle(choice.operations)
    left = cases
    for number in count():
        if left <= 0:
            return found
        operation = cycle[number % len(cycle)]
        found.append((number, operation))
        left -= size_of(operation)
    raise AssertionError("count() does not end")


def size_of(operation: str) -> int:
    """Cases of a batch; of programs, the fewest."""
    return _PLAN[operation][1]


def _cycle(operations: Sequence[str]) -> list[str]:
    """Every operation as often as planned, evenly spread."""
    turns = [((i + 0.5) / _PLAN[name][0], place, name) for place, name in enumerate(operations)
             for i in range(_PLAN[name][0])]  # fmt: skip
    return [name for _, _, name in sorted(turns)]


def check(choice: Choice, number: int, operation: str) -> Outcome:
    """Compare the cases of one batch. An error that a kernel causes outside of what is compared is a mismatch, too."""
    call = f"experiments.selftest.batches.compared({choice!r}, {number}, {operation!r})"
    started = time.perf_counter()
    try:
        outcome = compared(choice, number, operation, call)
    except Exception as error:
        outcome = Outcome()
        outcome.failed(size_of(operation), Mismatch(operation, (), "", "", None, error_of(error), "no error", call))
    outcome.seconds = time.perf_counter() - started
    return outcome


def compared(choice: Choice, number: int, operation: str, call: str = "") -> Outcome:
    """The same, raising what is raised. ``call`` says how to repeat it."""
    from experiments.selftest import codes, contractions, operations, programs
    from experiments.selftest.formats import MODES, mode_of

    generator = np.random.default_rng([choice.seed, number])
    modes = tuple(mode for text in choice.modes for mode in mode_of(text)) or MODES
    if operation == "codes":
        return codes.check(generator, size_of(operation), choice.formats)
    if operation == "contractions":
        return contractions.check(generator, choice.formats, modes)
    if operation == "programs":
        return programs.check(generator, choice.formats, modes, call)
    each = min(operations.MODES, len(modes))
    return operations.check(operation, generator, -(-size_of(operation) // each), choice.formats, modes)
