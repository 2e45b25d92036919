"""Run a hunt: batch after batch, in this process or in several."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from experiments import simulate
from experiments.cell import Cell
from experiments.fields import one_line
from experiments.hunt.draw import BLOCKS, batch
from experiments.hunt.tally import Finding, Report, Trouble, format_name
from experiments.pool import workers as processes
from experiments.trajectory import check_cell
from theory.theorem import Theorem
from theory.theorems import theorems
from theory.verdict import Verdict, verdict
from theory.window import Window

SEEDS = 128  # runs of a cell
ATTEMPTS = 20
MORE = 16  # times as many seeds decide whether it was chance
_OTHER_SEED = 0x5EED


@dataclass
class Part:
    """What one batch gives."""

    number: int
    runs: int = 0
    cells: int = 0
    findings: list[Finding] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def hunt(
    runs: int,
    seed: int = 0,
    report: Report | None = None,
    workers: int = 1,
    *,
    seeds: int = SEEDS,
    names: Sequence[str] | None = None,
    finished: Callable[[Part], None] = lambda part: None,
) -> Report:
    """Draw cells until so many runs are done and hold theorems against each of them.

    Parameters
    ----------
    runs : at least so many; a run is one seed of a cell
    seed : the batches are a function of it and of their number
    report : added to, batch by batch, so that an interrupted hunt is not lost
    workers : processes
    seeds : runs of one cell
    names : identifiers of theorems; all without
    finished : called after each batch

    Examples
    --------
    >>> found = hunt(12, seeds=2)
    >>> found.runs, found.violations
    (12, [])
    """
    report = Report() if report is None else report

    def add(task: tuple[Any, ...], part: Part) -> None:
        report.runs += part.runs
        report.cells += part.cells
        report.batches += 1
        report.troubles += part.troubles
        report.refused.update(part.refused)
        for finding in part.findings:
            report.add(finding)
        finished(part)

    done, first = 0, 0
    with processes(min(workers, batches(runs, seeds))) as run:
        while done < runs:  # again only after a batch of which no draw could run
            before, count = report.runs, batches(runs - done, seeds)
            run(((seed, number, seeds, names) for number in range(first, first + count)), check, add)
            if report.runs == before:
                raise RuntimeError(f"no draw of batches {first}..{first + count - 1} could run")
            done, first = done + report.runs - before, first + count
    return report


def batches(runs: int, seeds: int = SEEDS) -> int:
    """How many make so many runs."""
    return -(-runs // (seeds * BLOCKS))


def check(seed: int, number: int, seeds: int, names: Sequence[str] | None = None) -> Part:
    """One batch: its cells run together, every theorem, or those named, evaluated on every window."""
    chosen = {x: theorem for x, theorem in theorems().items() if names is None or x in names}
    part = Part(number)
    cells = _that_run(seed, number, seeds, part)
    for cell, window in zip(cells, simulate.windows(cells) if cells else (), strict=True):
        part.runs += cell.seeds
        part.cells += 1
        name = format_name(window)
        for identifier, theorem in chosen.items():
            began = time.perf_counter()
            status, ratio, missed = "raised", math.nan, ""
            try:
                found = _decided(theorem, cell, window, part)
                status, ratio, missed = found.status, found.ratio, _missed(found)
            except Exception as error:
                reason = one_line(error)[:300]
                part.troubles.append(_trouble("raised", identifier, reason, part, cell))
            seconds = time.perf_counter() - began
            part.findings.append(Finding(identifier, name, status, ratio, cell.seeds, seconds, missed))
    return part


def _that_run(seed: int, number: int, seeds: int, part: Part) -> list[Cell]:
    """Cells that an optimizer and a problem take together, and the reasons why others were not to be had."""
    for attempt in range(ATTEMPTS):
        cells = batch(seed, number, seeds, attempt)
        try:
            for cell in cells:
                check_cell(cell)
        except ValueError as error:
            part.refused.append(one_line(error)[:200])
        else:
            return cells
    return []


def held(theorem: Theorem, window: Window) -> Verdict:
    """The verdict on a window; a warning of NumPy is an error of the theorem."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bound = theorem.evaluate(window)
        if not bound.applicable:
            return Verdict("not applicable", math.nan, math.nan, math.nan, reason=bound.reason)
        return verdict(theorem.measured(window), bound)


def _decided(theorem: Theorem, cell: Cell, window: Window, part: Part) -> Verdict:
    """The verdict. An expectation exceeded at 99.9 % confidence is looked at again: of thousands, some are chance."""
    found = held(theorem, window)
    if found.status not in ("violated", "missed") or theorem.comparison:
        return found
    kind = "missed" if found.status == "missed" else "violated"
    if theorem.evaluate(window).per_seed is None:
        more = msgspec.structs.replace(cell, seeds=min(MORE * cell.seeds, 65536), seed=cell.seed ^ _OTHER_SEED)
        (again,) = simulate.windows([more])
        if (second := held(theorem, again)).status not in ("violated", "missed"):
            kind, found = "chance", second
    part.troubles.append(_trouble(kind, theorem.identifier, found.reason, part, cell))
    return found


def _missed(found: Verdict) -> str:
    """The hypothesis that failed, without its numbers."""
    return found.reason.partition(":")[0] if found.status == "not applicable" else ""


def _trouble(kind: str, identifier: str, reason: str, part: Part, cell: Cell) -> Trouble:
    return Trouble(kind, identifier, reason, part.number, msgspec.to_builtins(cell))


def again(cell: dict[str, Any]) -> Window:
    """The window of a cell of a report, for whoever looks into it."""
    (window,) = simulate.windows([msgspec.convert(cell, Cell)])
    return window
