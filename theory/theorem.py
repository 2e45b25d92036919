"""What a theorem is and what evaluating it on a run gives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from theory.derivation import Claim, Derivation
from theory.enclosure import working_precision
from theory.window import FloatArray, Window

Tightness: TypeAlias = Literal["law", "exact", "sharp", "upper"]


@dataclass(frozen=True)
class Hypothesis:
    """A hypothesis of a theorem, held against a run: its name, whether it holds, and the numbers that say so."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class Bound:
    """A theorem's number for one run.

    Attributes
    ----------
    theorem : identifier, ``"T6"``
    quantity : what is bounded, in words; the theorem's ``measured`` gives the samples of the same quantity
    hypotheses : each with its verdict; the bound is applicable iff all hold
    lower, upper : ends of the enclosure of the bound's value, rounded outward; NaN if not applicable
    per_seed : [S] upper end of each seed's own bound (NaN: this seed is not covered), for theorems that hold for every
        single run; ``upper`` is then the root mean square over the covered seeds. None for expectations.
    exponent : 2 if ``measured`` gives samples of the square of the bounded quantity (an expectation of squares is
        bounded, its root is reported), else 1
    two_sided : the theorem is a law: the quantity lies between ``lower`` and ``upper``, not only below
    note : what a reader of the number must know (seeds not covered, say)
    """

    theorem: str
    quantity: str
    hypotheses: tuple[Hypothesis, ...]
    lower: float = float("nan")
    upper: float = float("nan")
    per_seed: FloatArray | None = None
    exponent: int = 1
    two_sided: bool = False
    note: str = ""

    @property
    def applicable(self) -> bool:
        return all(hypothesis.ok for hypothesis in self.hypotheses)

    @property
    def reason(self) -> str:
        """The first hypothesis that fails, with its numbers; empty if the bound applies."""
        return next((f"{h.name}: {h.detail}" if h.detail else h.name for h in self.hypotheses if not h.ok), "")


@dataclass(frozen=True)
class Theorem:
    """A theorem: statement, checked derivations, and its evaluation on a run.

    Attributes
    ----------
    identifier, title : ``"T6"`` and a line of prose
    quantity : what ``evaluate`` bounds and ``measured`` measures
    tightness : ``law`` (two-sided), ``exact``, ``sharp`` (attained up to a small factor), ``upper``
    source : where it comes from, or ``"derived here"``
    statement : the final claim of the main derivation
    derivations : all of them are checked by the tests; the first one ends with ``statement``
    evaluate : Window -> Bound; never raises on a run that misses a hypothesis, but says which; not applicable where an
        array's format has no sign or no zero
    measured : Window -> [S], the samples that the verdict compares with the bound
    optimizers : the optimizers that this theorem is about, for the reader
    floor : whether it bounds where a run settles (the gradient norm): a study's table shows the smallest such bound
    comparison : a bound of the literature, evaluated beside ours; it is not ours to defend, its verdicts do not count
    """

    identifier: str
    title: str
    quantity: str
    tightness: Tightness
    source: str
    statement: Claim
    derivations: tuple[Derivation, ...]
    evaluate: Callable[[Window], Bound] = field(repr=False)
    measured: Callable[[Window], FloatArray] = field(repr=False)
    optimizers: tuple[str, ...] = ()
    floor: bool = False
    comparison: bool = False

    def __post_init__(self) -> None:
        evaluate = self.evaluate

        @functools.wraps(evaluate)
        def precisely(window: Window) -> Bound:
            modelled = _modelled(window)
            if not modelled.ok:
                return Bound(self.identifier, self.quantity, (modelled,))
            with working_precision():
                return evaluate(window)

        object.__setattr__(self, "evaluate", precisely)


def _modelled(window: Window) -> Hypothesis:
    """What ``rounding_model`` says, every theorem uses: a negative result in an unsigned format, or a zero in a format
    without one, is off by any amount, and no event counts it. Constants count as they are stored."""
    arrays = {slot: fmt for slot, (fmt, _) in window.slots.items() if not slot.startswith("scalar.")}
    other = [slot for slot, fmt in arrays.items() if not (fmt.signed and fmt.has_zero)]
    listed = ", ".join(f"{slot} in {window.slots[slot][0].name}" for slot in other)
    return Hypothesis("formats with a sign and a zero", not other, listed)


def no_events(window: Window, slots: Iterable[str] = ()) -> tuple[Hypothesis, Hypothesis]:
    """Two hypotheses: no overflow and no invalid operation anywhere, no underflow in the named slots."""
    spoiled = {s: n for events in (window.overflow, window.invalid) for s, n in events.items() if n}
    tiny = {s: n for s in slots if (n := window.underflow.get(s, "not counted"))}
    return (
        Hypothesis("no overflow or invalid operation", not spoiled, _listed(spoiled)),
        Hypothesis("no underflow", not tiny, _listed(tiny)),
    )


def one_subtraction(window: Window, *, momentum: bool = False) -> Hypothesis:
    """w.sub takes a step from w, and w is what it gives; w is the only state, but for m with ``momentum``."""
    program = window.program
    operation = next((o for o in program.operations if o.slot == "w.sub"), None)
    subtracts = operation is not None and operation.kind == "sub" and operation.operands[0] == "w"
    states = {"w", "m"} if momentum else {"w"}
    ok = subtracts and set(program.state) == states and dict(program.outputs)["w"] == "w.sub"
    name = "updates w, and m is the only other state" if momentum else "updates the only state w"
    return Hypothesis(f"one subtraction {name}", ok, "" if ok else window.optimizer)


def stored_scalar(window: Window, name: str) -> str:
    """What is known of a stored scalar, for the detail of a hypothesis about its constant value."""
    known = window.scalars.get(f"scalar.{name}")
    if known is not None:
        return f"stored {name} = {known:g}"
    schedule = window.program.schedules.get(name)
    if schedule is not None:
        return f"{name} = {schedule.bare(schedule)} changes from step to step"
    return f"the step has no constant scalar.{name}"


def one_format_of_weights(window: Window) -> Hypothesis:
    """w.sub and w hold the same values: what is stored is the sum as it was rounded, and starts on that grid too."""
    stored, summed = window.slots["w"][0], window.slots["w.sub"][0]
    same = stored.holds(summed) and summed.holds(stored)
    return Hypothesis("w is stored in the format of w.sub", same, f"{stored.name}, and w.sub in {summed.name}")


def not_flushed(window: Window, slots: Iterable[str]) -> Hypothesis:
    """No tiny result of the named slots was flushed to zero: that can be off by more than the gap that holds it."""
    flushed = {s: n for s in slots if window.slots[s][0].tiny == "flush" and (n := window.underflow.get(s, 0))}
    return Hypothesis("tiny results are rounded, not flushed", not flushed, _listed(flushed))


def _listed(counts: Mapping[str, int | str]) -> str:
    return ", ".join(f"{count} in {slot}" for slot, count in counts.items())


def root_mean_square(x: FloatArray) -> float:
    """sqrt(mean(x^2)) of at least one nonnegative number; no square overflows or underflows to 0.

    Examples
    --------
    >>> root_mean_square(np.array([3e200, 4e200])) == 3e200 * root_mean_square(np.array([1.0, 4 / 3]))
    True
    """
    largest = float(np.max(x))
    if not math.isfinite(largest) or largest == 0:
        return largest
    scale = math.ldexp(1.0, math.frexp(largest)[1] - 1)  # a power of two: no bit of a usual result changes
    return scale * float(np.sqrt(np.mean((x / scale) ** 2)))
