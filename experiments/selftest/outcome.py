"""What a batch gives: how much was compared, and what was not equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

KEPT = 3  # mismatches that a batch describes; all are counted


@dataclass(frozen=True)
class Mismatch:
    """A result that is not the specification's, or a call that raised.

    call : Python that gives ``got`` again;  expected : what the specification says, as a hexadecimal float
    """

    operation: str
    operands: tuple[str, ...]
    format: str
    rounding: str
    word: int | None
    got: str
    expected: str
    call: str


@dataclass
class Outcome:
    """The sum of one batch, or of many."""

    cases: int = 0
    wrong: int = 0
    seconds: float = 0.0
    mismatches: list[Mismatch] = field(default_factory=list)

    def compare(
        self, got: npt.ArrayLike, expected: npt.ArrayLike, describe: Callable[[int], Mismatch], cases: int | None = None
    ) -> None:
        """Bit for bit, after which ``describe`` is asked about the first few flat positions that differ.

        ``cases``: how many of them are different cases; default: all.
        NaN is one value, also in its bits: whatever leaves fpsim is the one quiet NaN.
        """
        seen, right = bits(got), bits(expected)
        self.cases += right.size if cases is None else cases
        wrong = np.flatnonzero(seen != right)
        self.wrong += len(wrong)
        self.mismatches += [describe(int(i)) for i in wrong[:KEPT]]

    def failed(self, cases: int, mismatch: Mismatch) -> None:
        """A call for ``cases`` results raised an error."""
        self.cases += cases
        self.wrong += cases
        self.mismatches.append(mismatch)

    def add(self, other: Outcome) -> None:
        self.cases += other.cases
        self.wrong += other.wrong
        self.seconds += other.seconds
        self.mismatches += other.mismatches


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(x, dtype=np.float64).reshape(-1).view(np.uint64)


def shown(values: Sequence[float]) -> tuple[str, ...]:
    """As hexadecimal floats; ``float.fromhex`` reads them."""
    return tuple(float(x).hex() for x in values)


def literal(value: Any) -> str:
    """A Python expression, given ``import fpsim`` and ``import numpy as np``."""
    if isinstance(value, float):
        return f"float.fromhex({value.hex()!r})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(literal(x) for x in value)}]"
    return repr(value) if isinstance(value, (str, int)) or value is None else f"fpsim.{value!r}"


def error_of(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
