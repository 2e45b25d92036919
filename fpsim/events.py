"""What happened, counted per slot: seven events, each defined on one operation.

inexact         the exact result is finite and the rounded one is not that number
underflow       inexact, and the exact result is not zero and below the smallest normal number: IEEE 754-2019 section
                7.5 with default handling, tininess detected before rounding. An exact subnormal result is no underflow.
overflow        the exact result is finite, and rounded as if the exponent were unbounded it exceeds the largest finite
                number, whatever the format and the mode then make of it (section 7.4)
invalid         no operand is NaN, and: the exact result is no number (0 inf, inf - inf, 0/0, inf/inf, the square root
                of a negative number); or it is infinite, as an operand is, and the format turns that into NaN; or it
                is negative and the format unsigned (section 7.2)
divide_by_zero  the exact result is infinite and no operand is (section 7.3): x / 0, reciprocal and logarithm of 0
swamped         in add, sub and each partial sum of a sum, both operands finite: the result equals the rounding of one
                operand alone while the other is not zero. That operand is rounded in the same mode, with the same
                random bits; if it is on the grid it is compared itself. So to say: without the other the result were
                the same.
frozen          counted in the slot of a state, not of an operation: the element that is stored at the end of a step
                equals the old one, although the exact result of the operation that produces it is not the old one. With
                ``w.sub = w - u`` exactly: w did not change and u is not 0. What follows that operation, its own
                rounding and that of the storage, is what may freeze. Where the stored value comes from a sum of a whole
                array, an unrounded operation or another array, it is itself taken for the exact result.

Numbers are compared as numbers: -0 equals +0, and NaN equals nothing.

References: IEEE 754-2019 section 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fpsim import exact
from fpsim.exact import Exact
from fpsim.number_format import Format
from fpsim.program import Program
from fpsim.rounding import Rounding

NAMES = ("inexact", "underflow", "overflow", "invalid", "divide_by_zero", "swamped", "frozen")


@dataclass(frozen=True)
class Events(Mapping[str, Mapping[str, int]]):
    """Counts of events: slot -> name -> number over all elements, runs and steps.

    Prints as a table of the slots in which something happened.

    Examples
    --------
    >>> events = Events({"w.sub": dict.fromkeys(NAMES, 0) | {"inexact": 3, "swamped": 2}, "g": dict.fromkeys(NAMES, 0)})
    >>> events["w.sub"]["swamped"], events.total("inexact")
    (2, 3)
    >>> print(events)
    slot   inexact  underflow  overflow  invalid  divide_by_zero  swamped  frozen
    w.sub        3          0         0        0               0        2       0
    """

    counts: Mapping[str, Mapping[str, int]]

    def __getitem__(self, slot: str) -> Mapping[str, int]:
        return self.counts[slot]

    def __iter__(self) -> Iterator[str]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)

    def total(self, name: str) -> int:
        """How often the event happened in all slots together."""
        if name not in NAMES:
            raise ValueError(f"event {name!r}; admissible: {', '.join(NAMES)}")
        return sum(counts[name] for counts in self.counts.values())

    def __str__(self) -> str:
        rows = [(slot, counts) for slot, counts in self.counts.items() if any(counts.values())]
        width = max(len(slot) for slot in ("slot", *(slot for slot, _ in rows)))
        widths = [max(len(name), *(len(str(counts[name])) for _, counts in rows), 0) for name in NAMES]
        lines = ["slot".ljust(width) + "".join(f"  {name:>{w}}" for name, w in zip(NAMES, widths, strict=True))]
        for slot, counts in rows:
            numbers = (f"  {counts[name]:>{w}}" for name, w in zip(NAMES, widths, strict=True))
            lines.append(slot.ljust(width) + "".join(numbers))
        return "\n".join(lines)


class Tally:
    """Counts being made, for the slots of one program."""

    def __init__(self, program: Program) -> None:
        self._counts = {slot: dict.fromkeys(NAMES, 0) for slot in program.slots}

    def add(self, slot: str, happened: Iterable[str]) -> None:
        for name in happened:
            self._counts[slot][name] += 1

    def events(self) -> Events:
        return Events({slot: dict(counts) for slot, counts in self._counts.items()})


def of(
    kind: str,
    operands: Sequence[float],
    exactly: Exact,
    result: float,
    fmt: Format,
    rounding: Rounding,
    word: int | None = None,
) -> frozenset[str]:
    """The events of one operation.

    Parameters
    ----------
    kind, operands : the operation and its binary64 operands
    exactly : its exact result, ``fpsim.exact.value(kind, operands)``
    result : that rounded
    fmt, rounding, word : how it was rounded; ``word`` is the random integer of a stochastic mode

    Examples
    --------
    >>> three = Format(5, 2)
    >>> sorted(of("add", (8.0, 0.5), exact.value("add", (8.0, 0.5)), 8.0, three, "nearest_even"))
    ['inexact', 'swamped']
    """
    happened: set[str] = set()
    if exactly.kind == "finite":
        negative = not fmt.signed and exactly.negative and exactly.magnitude != 0
        if not equals(exactly, result):
            happened.add("inexact")
            if 0 < exactly.magnitude < Fraction(fmt.smallest_normal):
                happened.add("underflow")
        if negative:
            happened.add("invalid")
        elif exactly.magnitude:
            unbounded = exact.round_magnitude(exactly.magnitude, exactly.negative, fmt, rounding, word)
            if unbounded > Fraction(fmt.max):
                happened.add("overflow")
    elif not any(math.isnan(x) for x in operands):
        if exactly.kind == "infinite" and all(math.isfinite(x) for x in operands):
            happened.add("divide_by_zero")
        elif math.isnan(result):
            happened.add("invalid")
    if kind in ("add", "sub") and all(math.isfinite(x) for x in operands):
        a, b = operands[0], -operands[1] if kind == "sub" else operands[1]
        for alone, other in ((a, b), (b, a)):
            if other != 0.0 and exact.operation("round", (alone,), fmt, rounding, word) == result:
                happened.add("swamped")
    return frozenset(happened)


def is_frozen(old: float, new: float, exactly: Exact) -> bool:
    """Whether a stored element is the old one although the exact result is not."""
    return new == old and not equals(exactly, old)


def equals(exactly: Exact, x: float) -> bool:
    """Whether an exact result is the number x."""
    if math.isnan(x) or exactly.kind == "nan":
        return False
    if math.isinf(x):
        return exactly.kind == "infinite" and exactly.negative == (x < 0.0)
    return exactly.kind == "finite" and Fraction(x) == (-exactly.magnitude if exactly.negative else exactly.magnitude)
