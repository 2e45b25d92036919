"""What a hunt prints: a line for each theorem, over all formats, and what was exceeded, with the cells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from experiments.cli.formats import align
from experiments.cli.scan_table import short
from experiments.hunt.tally import STATUSES, Report
from theory.theorems import theorems

SHOWN = 5  # troubles of one theorem that are printed
NOTES = (
    "runs: those that the theorem speaks of; the other columns count cells, settings that were run with many seeds.",
    "n/a: a hypothesis of the theorem fails there (--json keeps which one, how often, and all of this by format).",
    "ratio: proven bound / measured value over the cells it applies to; smallest: where the bound is tightest.",
)


def lines(report: Report) -> Iterator[str]:
    """The table, its legend, the formats that were drawn, what was exceeded, and the summary in one line."""
    names = sorted({name for name, _ in report.lines}, key=lambda name: (name[0], int(name[1:])))
    others = [name for name in names if name in comparisons()]
    yield from _table(report, names)
    yield ""
    yield from NOTES
    if others:
        yield f"{', '.join(others)}: bounds of the literature, for comparison; not counted below."
    yield ""
    yield from _troubles(report)
    yield summary(report)


def summary(report: Report) -> str:
    """Such as ``1536 runs of 12 cells, 29 theorems: 60 verdicts, none violated``."""
    ours = {name for name, _ in report.lines} - comparisons()
    spoken = sum(report.total(name).applicable for name in ours)
    wrong = Counter(trouble.kind for trouble in report.violations)
    told = ", ".join(f"{count} {kind.upper()}" for kind, count in wrong.items()) or "none violated"
    return f"{report.runs} runs of {report.cells} cells, {len(ours)} theorems: {spoken} verdicts, {told}"


def comparisons() -> set[str]:
    """Bounds of the literature: their verdicts do not count."""
    return {x.identifier for x in theorems().values() if x.comparison}


def _table(report: Report, names: list[str]) -> Iterator[str]:
    """Counts of cells by status, and of the ratio over them."""
    found = {name: report.total(name) for name in names}
    statuses = [x for x in STATUSES if x not in ("missed", "raised") or any(line.cells[x] for line in found.values())]
    short_names = {"not applicable": "n/a"}
    head = ["theorem", "runs", *(short_names.get(x, x) for x in statuses), "smallest", "median", "largest ratio"]
    rows = []
    for name, line in found.items():
        record = line.record()
        ratios = (record[f"ratio_{x}"] for x in ("smallest", "median", "worst"))
        numbers = ["-" if x is None else short(x, 3) for x in ratios]
        rows.append([name, str(line.runs), *(str(line.cells[x]) for x in statuses), *numbers])
    yield from align([head, *rows])


def _troubles(report: Report) -> Iterator[str]:
    shown: Counter[tuple[str, str]] = Counter()
    for trouble in report.violations:
        shown[trouble.kind, trouble.theorem] += 1
        if shown[trouble.kind, trouble.theorem] <= SHOWN:
            yield f"{trouble.kind.upper()} {trouble.theorem}, batch {trouble.batch}: {trouble.reason}"
            yield f"  {json.dumps(trouble.cell)}"
    for (kind, theorem), count in shown.items():
        if count > SHOWN:
            yield f"{count} times {kind} in all: {theorem}"
    if chance := len(report.troubles) - len(report.violations):
        yield f"{chance} verdicts of one set of seeds were chance: with 16 times as many others the statement holds"
