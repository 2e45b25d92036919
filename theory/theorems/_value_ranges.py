"""Where the values that a program computes lie, from the extremes of its inputs: for sizes that no run records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from flint import arb

from theory.composition import NoEnclosure
from theory.enclosure import Ball, ball
from theory.rounding_model import low_high, underflow_unit
from theory.window import Window

Range: TypeAlias = tuple[Ball, Ball]


def value_ranges(window: Window, wanted: str) -> dict[str, Range]:
    """(lower, upper) of every computed value that ``wanted`` is made of, itself included.

    An input lies between minus and plus its largest recorded size; each operation maps intervals to intervals, each
    rounding widens them by its factor and its underflow.

    Raises
    ------
    NoEnclosure
        An input was not recorded, a quotient's denominator may vanish, or there is no rule for the operation.
    """
    found: dict[str, Range] = {}

    def visit(name: str) -> Range:
        if name not in found:
            found[name] = _known(window, name) or _computed(window, name, visit)
        return found[name]

    visit(wanted)
    return found


def _known(window: Window, name: str) -> Range | None:
    if name in window.scalars:
        return ball(window.scalars[name]), ball(window.scalars[name])
    if name in window.max_abs:
        most = ball(float(np.max(window.max_abs[name])))
        return -most, most
    if name in window.program.inputs or name.startswith("scalar."):
        raise NoEnclosure(name, "its size was not recorded")
    return None


def _computed(window: Window, name: str, visit: Callable[[str], Range]) -> Range:
    o = window.program.operation(name)
    parts = [visit(operand) for operand in o.operands]
    low, high = parts[0]
    if o.kind in ("add", "sub"):
        a, b = parts[1] if o.kind == "add" else (-parts[1][1], -parts[1][0])
        low, high = low + a, high + b
    elif o.kind == "mul" and o.operands[0] == o.operands[1]:
        least = arb(0).max(low).max(-high)
        most = abs(low).max(abs(high))
        low, high = least * least, most * most
    elif o.kind in ("mul", "div"):
        a, b = parts[1]
        if o.kind == "div":
            if not (a > 0 or b < 0):
                raise NoEnclosure(name, "its denominator may vanish")
            a, b = 1 / b, 1 / a
        corners = [x * y for x in (low, high) for y in (a, b)]
        low, high = corners[0], corners[0]
        for x in corners[1:]:
            low, high = low.min(x), high.max(x)
    elif o.kind == "neg":
        low, high = -high, -low
    elif o.kind != "round":
        raise NoEnclosure(name, f"no range for {o.kind}")
    if name not in window.slots:
        return low, high
    fmt, mode = window.slots[name]
    wider, unit = ball(low_high(fmt, mode)[1] - 1), ball(underflow_unit(fmt, mode))
    return low - abs(low) * wider - unit, high + abs(high) * wider + unit
