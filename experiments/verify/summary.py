"""What came of a verification: counts and ratios for each theorem, and the lines that are printed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.cli.formats import align
from experiments.cli.scan_table import NUMBER, by_reason, short
from experiments.verify.evaluate import FAILING
from theory.theorem import Theorem

# One for each cell and theorem: the columns of the cell, and theorem, status, ratio, reason, seeds_needed.
Row = Mapping[str, Any]
Summary = dict[str, dict[str, dict[str, Any]]]

# Formats in groups, by the largest number of stored mantissa bits: float8, bfloat16, binary16, binary32, wider.
GROUPS = ((3, "m<=3"), (7, "m=4..7"), (10, "m=8..10"), (23, "m=11..23"), (math.inf, "m>=24"))
BOUNDS = ("holds", "violated", "undecided", "not applicable")
LAWS = ("met", "missed", "undecided", "not applicable")
QUANTILES = {"p05": 0.05, "median": 0.5, "p95": 0.95, "worst": 1.0}
WIDTH = 76  # of a reason, in columns
MOST_REASONS = 4  # that are printed for a theorem

NOTES = (
    "counts: cells; n/a: a hypothesis of the theorem fails there, see below; what it bounds: fpsim verify --list.",
    "ratio: proven bound / measured value of what it bounds, where it applies: quantiles over cells, and the largest.",
    "violated: the 99.9 % confidence interval lies above the bound, or, for bounds of every run, a run does.",
)


def summarize(rows: Iterable[Row]) -> Summary:
    """theorem -> group of formats, ``"all"`` first -> number of cells by status, and the ratio's distribution."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: {"all": []})
    for row in rows:
        own = next(name for most, name in GROUPS if row["mantissa_bits"] <= most)
        for name in ("all", own):
            groups[row["theorem"]].setdefault(name, []).append(row)
    return {x: {name: _counted(found[name]) for name in _ordered(found)} for x, found in groups.items()}


def _ordered(found: Iterable[str]) -> list[str]:
    return [name for name in ("all", *(name for _, name in GROUPS)) if name in found]


def _counted(rows: Sequence[Row]) -> dict[str, Any]:
    """Cells by status and quantiles of the ratio (nearest ranks, as exact texts)."""
    ratios = sorted(row["ratio"] for row in rows if not math.isnan(row["ratio"]))
    ranks = {name: max(math.ceil(share * len(ratios)) - 1, 0) for name, share in QUANTILES.items()}
    return dict(Counter(row["status"] for row in rows)) | (
        {x: ratios[n].hex() for x, n in ranks.items()} if ratios else {}
    )


def printed(theorems: Sequence[Theorem], rows: Sequence[Row]) -> list[str]:
    """The tables of bounds, laws and comparisons, what is not as it should be, and why what does not apply does not."""
    summary = summarize(rows)
    sections = (
        ("theorems", BOUNDS, [x for x in theorems if not x.comparison and x.tightness != "law"]),
        ("laws (the measured value lies on both sides within its confidence)", LAWS, [*filter(_is_law, theorems)]),
        ("bounds of the literature, for comparison", BOUNDS, [x for x in theorems if x.comparison]),
    )
    lines: list[str] = []
    for title, statuses, members in sections:
        if members:
            lines += [f"{title}:", *_table(members, summary, statuses), ""]
    lines += NOTES
    ours = {theorem.identifier for theorem in theorems if not theorem.comparison}
    for status in (*FAILING, "undecided"):
        chosen = [row for row in rows if row["status"] == status and (row["theorem"] in ours or status != "violated")]
        if chosen:
            title = status if status == "undecided" else status.upper()
            lines += ["", f"{title} ({len(chosen)}):", *(f"  {line}" for line in by_reason(chosen))]
    return [*lines, "", "not applicable:", *_reasons(theorems, rows)]


def failures(theorems: Sequence[Theorem], rows: Iterable[Row]) -> Counter[str]:
    """How many (cell, theorem) are violated, missed or in error; verdicts of comparisons do not count."""
    comparisons = {theorem.identifier for theorem in theorems if theorem.comparison}
    statuses = ((row["theorem"], row["status"]) for row in rows)
    return Counter(s for theorem, s in statuses if s in FAILING and (theorem not in comparisons or s == "error"))


def _is_law(theorem: Theorem) -> bool:
    return theorem.tightness == "law" and not theorem.comparison


def _table(theorems: Sequence[Theorem], summary: Summary, statuses: Sequence[str]) -> list[str]:
    short_names = {"not applicable": "n/a"}
    head = ["", "formats", *(short_names.get(s, s) for s in statuses), "5 %", "median", "95 %", "worst"]
    body = []
    for theorem in theorems:
        groups = summary.get(theorem.identifier, {"all": {}})
        shown = [name for name, found in groups.items() if name == "all" or "worst" in found]
        for name in shown if len(shown) > 2 else ["all"]:
            found = groups[name]
            ratios = [short(float.fromhex(found[x]), 3) if x in found else "-" for x in QUANTILES]
            counts = [str(found.get(status, 0)) for status in statuses]
            body.append([theorem.identifier if name == "all" else "", name, *counts, *ratios])
    return [f"  {line}" for line in align([head, *body], left=2)]


def _reasons(theorems: Sequence[Theorem], rows: Iterable[Row]) -> list[str]:
    """Such as ``T6 276: one subtraction updates the only state w: adam (and 2 more)``, the most frequent first."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["status"] == "not applicable":
            groups[row["theorem"]][_kind(row["reason"])].append(row)
    lines = []
    for theorem in theorems:
        ordered = sorted(groups[theorem.identifier].values(), key=len, reverse=True)
        for group in ordered[:MOST_REASONS]:
            reasons = list(dict.fromkeys(row["reason"] for row in group))
            more = f" (and {len(reasons) - 1} like it)" if len(reasons) > 1 else ""
            lines.append(f"  {theorem.identifier:<4} {len(group):>5}: {_cut(reasons[0])}{more}")
        rest = sum(len(group) for group in ordered[MOST_REASONS:])
        lines += [f"  {theorem.identifier:<4} {rest:>5}: for other reasons"] * (rest > 0)
    return lines


def _kind(reason: str) -> str:
    """What reasons share that are counted together: the hypothesis, whatever its numbers and names are."""
    return NUMBER.sub("#", reason.partition(":")[0])


def _cut(reason: str) -> str:
    return reason if len(reason) <= WIDTH else f"{reason[: WIDTH - 3]}..."
