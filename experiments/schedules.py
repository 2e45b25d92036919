"""What the schedules of a cell are: texts in the step t (1 in the first one) and the cell's number of steps T.

Behind its last step a schedule keeps its last value: it is looked at there, to see whether a run has come to rest.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from fractions import Fraction

from experiments.fields import StudyError
from fpsim.scalars import STEP, Number, ScalarExpression, evaluate
from fpsim.schedule_text import parse_schedule

LENGTH = "T"


@functools.lru_cache(maxsize=1024)
def declared(value: float | str, steps: int) -> Number | ScalarExpression:
    """What a program's hyperparameter is bound to: a number, or an expression in ``t``.

    Examples
    --------
    >>> print(declared("0.1/sqrt(t)", 100), declared("1 - 1/T", 4))
    (0.1 / sqrt(min(t, 100))) 3/4
    """
    if not isinstance(value, str):
        return value
    step = ScalarExpression.symbol(STEP)
    last = ScalarExpression("min", left=step, right=ScalarExpression.of(steps))
    expression = parse_schedule(value, (STEP, LENGTH)).substitute({STEP: last, LENGTH: steps})
    return expression if expression.symbols() else evaluate(expression, {})


def at_step(value: float | str, steps: int, step: int) -> float:
    """The value in a step, counted from 0, as the nearest binary64 number."""
    meant = declared(value, steps)
    return float(evaluate(meant, {STEP: step + 1}) if isinstance(meant, ScalarExpression) else meant)


def check(key: str, value: float | str, steps: int, interval: str) -> None:
    """Refuse a schedule that leaves an interval, whose ends count as inside where they are finite and not 1.

    Looked at are the first steps, the last ones, and a few on a logarithmic scale between them.
    """
    if not isinstance(value, str):
        return
    low, high = (float(end) for end in interval[1:-1].split(","))
    for step in _looked_at(steps):
        try:
            now = at_step(value, steps, step)
        except (ValueError, OverflowError) as error:
            raise StudyError(key, f"{value} with T = {steps}: {error}") from None
        if not low <= now <= high or now == high == 1.0:
            shown = f"[{interval[1:]}"
            raise StudyError(key, f"{value} is {now:g} at t = {step + 1} of T = {steps}, outside {shown}")


def _looked_at(steps: int) -> Iterator[int]:
    places = {0, 1, 2, steps - 3, steps - 2, steps - 1, *(1 << k for k in range(steps.bit_length()))}
    return (place for place in sorted(places) if 0 <= place < steps)


def width(key: str, value: int | str, steps: int, low: int, high: int) -> int:
    """A width that is given as a number, or as a function of the number of steps.

    Examples
    --------
    >>> width("mantissa", "ceil(4 + log2(T))", 1024, 0, 52)
    14
    """
    if isinstance(value, int):
        return value
    expression = parse_schedule(value, (LENGTH,)).substitute({LENGTH: steps})
    try:
        found: Fraction = evaluate(expression, {})
    except ValueError as error:
        raise StudyError(key, f"{value} with T = {steps}: {error}") from None
    if found.denominator != 1:
        raise StudyError(key, f"{value} is {float(found):g} with T = {steps}, no whole number; use ceil or floor")
    if not low <= found <= high:
        raise StudyError(key, f"{value} is {int(found)} with T = {steps}, outside {low}..{high}")
    return int(found)
