"""Walks through a program, each done once: what one finds depends on how formats relate, not on how wide they are.

A study asks the same of the same program at every width, theorem after theorem. A walk reads of the formats only what
``_relation`` tells of two of them, of a scalar only what ``_trait`` tells, and nothing of the rounding modes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from fpsim.number_format import Format
from theory.factors import Composed, NoEnclosure
from theory.walk import Question, Undecided, Walk, unit_of_grid


def walked(question: Question, value: str) -> Composed:
    """``Walk(question).value(value)``, remembered.

    Raises
    ------
    NoEnclosure
        As a walk does.
    """
    found = _answer(_Asked(_kind(question), value, question))
    if isinstance(found, Composed):
        return found
    slot, reason, outcomes = found
    raise NoEnclosure(slot, reason) if outcomes is None else Undecided(slot, outcomes)


@dataclass(frozen=True)
class _Asked:
    """A question about a value; equal to all those that walks answer alike."""

    kind: Hashable
    value: str
    question: Question = field(compare=False)


@functools.lru_cache(maxsize=1 << 10)
def _answer(asked: _Asked) -> Composed | tuple[str, str, tuple[int, ...] | None]:
    """What is composed, or slot, reason and outcomes of a failure: an exception would keep its frames alive."""
    try:
        return Walk(asked.question).value(asked.value)
    except NoEnclosure as none:
        return none.slot, none.reason, none.outcomes if isinstance(none, Undecided) else None


def _kind(question: Question) -> Hashable:
    program, formats = question.program, {name: fmt for name, (fmt, _) in question.slots.items()}
    places = {fmt: place for place, fmt in enumerate(dict.fromkeys(formats.values()))}
    exponents = {o.operands[1] for o in program.operations if o.kind == "pow"}
    return (
        (program.inputs, program.outputs, program.operations, tuple(sorted(program.shapes.items())), program.shared),
        tuple((name, places[fmt]) for name, fmt in formats.items()),
        _relations(tuple(places)),
        tuple(sorted((name, x if name in exponents else _trait(x)) for name, x in question.scalars.items())),
        (question.exact, question.nonnegative, question.absolute),
        tuple(tuple(sorted(x.items())) for x in (question.lengths, question.outcomes)),
        tuple(question.axioms.items()),
    )


def _trait(scalar: float) -> float:
    """The sign of a stored scalar, and whether it is a power of two: multiplying by it is then exact."""
    shifts = math.isfinite(scalar) and math.frexp(scalar)[0] == 0.5
    return 2.0 if shifts else -1.0 if scalar < 0 else 1.0


@functools.lru_cache(maxsize=1 << 12)
def _relations(formats: tuple[Format, ...]) -> Hashable:
    edges = tuple((fmt.subnormals, fmt.tiny) for fmt in formats)
    return edges, tuple(_relation(one, other) for one in formats for other in formats)


def _relation(one: Format, other: Format) -> tuple[bool, bool, bool]:
    """Whether ``one`` holds ``other``, has as many bits, and its smallest number divides every one of ``other``."""
    aligned = one.subnormals and unit_of_grid(other) >= one.smallest_subnormal
    return one.holds(other), one.precision >= other.precision, aligned
