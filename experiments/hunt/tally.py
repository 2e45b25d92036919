"""What a hunt found, theorem by theorem and format by format."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fpsim.formats import NAMED
from fpsim.number_format import Format
from theory.window import Window

STATUSES = ("holds", "violated", "undecided", "met", "missed", "raised", "not applicable")
SILENT = ("raised", "not applicable")  # there the theorem says nothing of the runs
_NAMES = {fmt: name for name, fmt in reversed(NAMED.items())}


@dataclass(frozen=True)
class Finding:
    """One theorem on one cell."""

    theorem: str
    format: str
    status: str
    ratio: float
    runs: int
    seconds: float
    missed: str = ""  # the first hypothesis that failed


@dataclass(frozen=True)
class Trouble:
    """A bound that was exceeded, or an evaluation that failed, with all that makes the cell again.

    Attributes
    ----------
    kind : ``"violated"``; ``"missed"``, of laws; ``"chance"`` (either of them by the confidence interval of one set of
        seeds, and not by that of sixteen times as many others); ``"raised"``
    theorem, reason : its identifier, and what was said of it
    batch, cell : number of the batch, and the cell's configuration
    """

    kind: str
    theorem: str
    reason: str
    batch: int
    cell: dict[str, Any]


@dataclass
class Line:
    """The findings of one theorem in one format."""

    cells: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    ratios: list[float] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        self.cells[finding.status] += 1
        if finding.status == "not applicable":
            self.missed[finding.missed] += 1
        if finding.status in SILENT:
            return
        self.runs += finding.runs
        if not math.isnan(finding.ratio):
            self.ratios.append(finding.ratio)

    def __add__(self, other: Line) -> Line:
        cells, missed = self.cells + other.cells, self.missed + other.missed
        return Line(cells, self.runs + other.runs, self.ratios + other.ratios, missed)

    @property
    def applicable(self) -> int:
        """Cells that the theorem speaks of."""
        return self.cells.total() - sum(self.cells[status] for status in SILENT)

    def record(self) -> dict[str, Any]:
        """As JSON has it: runs and cells that the theorem speaks of, cells by status, and bound/measured over cells."""
        finite = [x for x in self.ratios if math.isfinite(x)]
        return {
            "runs": self.runs,
            "applicable": self.applicable,
            "cells": {status: self.cells[status] for status in STATUSES if self.cells[status]},
            "ratio_median": float(np.median(finite)) if finite else None,
            "ratio_smallest": min(finite, default=None),
            "ratio_worst": max(finite, default=None),
            "measured_zero": len(self.ratios) - len(finite),
            "missed": dict(self.missed),
        }


@dataclass
class Report:
    """Everything so far.

    Attributes
    ----------
    runs, cells, batches : done; a run is one seed of a cell
    lines : (theorem, format) -> Line
    troubles : in the order in which they came
    refused : why draws could not run and were drawn again, and how often
    seconds : theorem -> time of its evaluations
    """

    runs: int = 0
    cells: int = 0
    batches: int = 0
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        self.lines.setdefault((finding.theorem, finding.format), Line()).add(finding)
        self.seconds[finding.theorem] += finding.seconds  # type: ignore[assignment]

    @property
    def violations(self) -> list[Trouble]:
        """What stops a release."""
        return [trouble for trouble in self.troubles if trouble.kind != "chance"]

    def total(self, theorem: str) -> Line:
        """The findings of a theorem in all formats."""
        return sum((line for (name, _), line in sorted(self.lines.items()) if name == theorem), Line())

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        theorems: dict[str, dict[str, Any]] = {}
        for (theorem, fmt), line in sorted(self.lines.items()):
            theorems.setdefault(theorem, {})[fmt] = line.record()
        return {
            "runs": self.runs,
            "cells": self.cells,
            "batches": self.batches,
            "violations": len(self.violations),
            "seconds": {theorem: round(seconds, 1) for theorem, seconds in sorted(self.seconds.items())},
            "theorems": theorems,
            "troubles": [vars(trouble) for trouble in self.troubles],
            "refused": dict(self.refused),
        }


def format_name(window: Window) -> str:
    """The one format of every slot that computes: its name, ``"other"``, or ``"mixed"`` where there are several."""
    program = window.program
    data = [name for name in program.inputs if name not in program.state and name != "g"]
    formats: set[Format] = {
        fmt for slot, (fmt, _) in window.slots.items() if slot not in data and not slot.startswith("scalar.")
    }
    return _NAMES.get(formats.pop(), "other") if len(formats) == 1 else "mixed"
