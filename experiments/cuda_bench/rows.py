"""What a job gives, and how much work there is: sizes for a card, for a quick look, and for the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic

KEY = Key(seed=7)
MODES: tuple[Rounding, ...] = (
    "nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd",
    Stochastic(16), Stochastic(32), Stochastic(16, "B"), Stochastic(24, "C"),
)  # fmt: skip
FORMATS = ("bfloat16", "float8_e4m3fn", "e5m10", "e8m23", "e11m45")  # each tier is some operation's


class WrongResult(Exception):
    """The card and the CPU machine differ."""


class Skipped(Exception):
    """Nothing can be said here, and why."""


@dataclass(frozen=True)
class Sizes:
    """How much is checked and timed; targets are about the full sizes only."""

    name: str
    elements: int  # float32 numbers that are rounded
    parameters: int  # of an Adam step
    steps: int  # of the scan
    steps_checked: int
    matrix: int
    repeats: int
    checked: int  # results of one array function
    modes: tuple[Rounding, ...] = MODES
    formats: tuple[str, ...] = FORMATS
    widths: tuple[int, ...] = tuple(range(24))  # mantissa bits of the scan
    least: int = 1 << 20  # elements: with fewer a time says nothing

    @property
    def full(self) -> bool:
        return self.name == "full"


FULL = Sizes("full", 1 << 28, 1 << 26, 100_000, 1000, 4096, 15, 1 << 14)
QUICK = Sizes(
    "quick", 1 << 24, 1 << 22, 2000, 200, 512, 5, 1 << 12, (MODES[0], MODES[3], MODES[6], MODES[9]), FORMATS[::4]
)
TINY = Sizes("tiny", 1 << 10, 1 << 9, 3, 2, 12, 1, 64, (MODES[0], MODES[6]), FORMATS[:1], (7, 23), 1)


@dataclass(kw_only=True)
class Row:
    """One line of the record.

    seconds : median of one call; first_call : of the first one, with its compilation
    value, unit, target, at_most : what is wanted of the case, and whether more or less is better
    error, skipped : why there is no value
    """

    part: str = ""
    case: str = ""
    value: float | None = None
    unit: str = ""
    target: float | None = None
    at_most: bool = False
    seconds: float | None = None
    first_call: float | None = None
    elements: int | None = None
    error: str = ""
    skipped: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or no value."""
        if self.target is None or self.value is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self) -> str:
        """The row as one line of text."""
        if self.error or self.skipped:
            return f"{self.case}: {'FAILED: ' + self.error if self.error else 'skipped: ' + self.skipped}"
        value = self.value or 0.0
        shown = f"{value:.1%} {self.unit}" if self.unit == "of the copy" else f"{value:.6g} {self.unit}"
        if self.seconds is not None and self.unit != "s":
            shown += f", {self.seconds * 1e3:.4g} ms"
        if self.target is not None:
            sign = "<=" if self.at_most else ">="
            shown += f" (wanted {sign} {self.target:g}: {'met' if self.met else 'MISSED'})"
        if self.first_call is not None:
            shown += f", first call {self.first_call:.2f} s"
        return f"{self.case}: {shown}"


@dataclass(frozen=True)
class Job:
    """A case, and what gives its row."""

    case: str
    row: Callable[[], Row]


def bits_that_differ(found: Any, wanted: Any) -> int:
    """How many numbers of a tensor or an array have other bits than those of an array of the same dtype.

    Raises
    ------
    WrongResult
        The shape or the dtype is another.
    """
    import numpy as np

    ours = np.ascontiguousarray(found.cpu().numpy() if hasattr(found, "cpu") else found)
    theirs = np.ascontiguousarray(wanted)
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise WrongResult(f"{ours.dtype} of shape {ours.shape}; the CPU gives {theirs.dtype} of shape {theirs.shape}")
    unsigned = f"u{ours.dtype.itemsize}"
    return int((ours.view(unsigned) != theirs.view(unsigned)).sum())


def same(title: str, found: Any, wanted: Any) -> int:
    """The number of results compared.

    Raises
    ------
    WrongResult
        Some differ.
    """
    wrong = bits_that_differ(found, wanted)
    if wrong:
        raise WrongResult(f"{title}: {wrong} of {wanted.size} results are not those of the CPU machine")
    return int(wanted.size)
