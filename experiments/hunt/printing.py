"""The table of a hunt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from experiments.hunt.tally import STATUSES, Report

SHOWN = 5  # troubles of one theorem that are printed


def lines(report: Report) -> Iterator[str]:
    """A line for each theorem and format, then what was exceeded, with the cells."""
    yield f"{report.runs} runs, {report.cells} cells, {report.batches} batches"
    short = {"not applicable": "n/a"}
    heads = "".join(f"{short.get(status, status):>10}" for status in STATUSES)
    yield f"{'theorem':<8}{'format':<20}{'runs':>9}{heads}{'smallest':>11}{'median':>11}{'worst':>11}"
    for (theorem, fmt), line in sorted(report.lines.items()):
        record = line.record()
        counts = "".join(f"{line.cells[status]:>10}" for status in STATUSES)
        ratios = (record[f"ratio_{name}"] for name in ("smallest", "median", "worst"))
        numbers = "".join(f"{'' if x is None else f'{x:.3f}' if x < 1e5 else f'{x:.1e}':>11}" for x in ratios)
        yield f"{theorem:<8}{fmt:<20}{line.runs:>9}{counts}{numbers}"
    for theorem in dict.fromkeys(theorem for theorem, _ in sorted(report.lines)):
        missed: Counter[str] = sum((x.missed for (name, _), x in report.lines.items() if name == theorem), Counter())
        if missed:
            yield f"{theorem} did not apply: " + "; ".join(f"{n} {reason}" for reason, n in missed.most_common(6))
    total = sum(report.seconds.values())
    slow = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.most_common(5))
    yield f"evaluation of theorems: {total:.1f} s; most: {slow}"
    for reason, count in report.refused.items():
        yield f"drawn again {count} times: {reason}"
    shown: dict[tuple[str, str], int] = {}
    for trouble in report.troubles:
        key = (trouble.kind, trouble.theorem)
        shown[key] = shown.get(key, 0) + 1
        if shown[key] <= SHOWN:
            yield f"{trouble.kind.upper()} {trouble.theorem}, batch {trouble.batch}: {trouble.reason}"
            yield f"  {json.dumps(trouble.cell)}"
    for (kind, theorem), count in shown.items():
        if count > SHOWN:
            yield f"{count} times {kind} in all: {theorem}"
