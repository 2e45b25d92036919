"""The page: its sections in order, of results and verdicts. The same results give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.scan_table import NOTES, bounded, by_reason, lists, short, variants
from experiments.cli.scan_table import summarize as floors_of
from experiments.floors import OUTCOMES
from experiments.schema import FAILED
from experiments.verify.listing import CLASSES
from experiments.verify.summary import BOUNDS, QUANTILES, summarize
from paper_figures.bibliography import bibtex, used_by
from paper_figures.report.drawings import drawings
from paper_figures.report.html import Cell, Html, Number, element, joined, table, text
from paper_figures.report.results import Results
from theory.theorems import theorems

Row = Mapping[str, Any]

_HERE = Path(__file__).parent
_STATUSES = (*BOUNDS[:3], "met", "missed", "error", BOUNDS[3])
_VERSIONS = ("machine", "system", "host")


def page(results: Results, verdicts: Sequence[Row], how: str) -> str:
    """The whole page.

    Parameters
    ----------
    verdicts : one for each cell and theorem, as ``experiments.verify`` or the rows tell: columns of a cell, and
        ``theorem``, ``status``, ``ratio``, ``reason``
    how : says where the verdicts come from
    """
    sections = [
        ("summary", "Summary", _summary(results, verdicts)),
        ("figures", "Figures", _figures(results, verdicts)),
        ("floors", "Floors", _floors(results)),
        ("verdicts", "Verdicts of theorems", _verdicts(verdicts, how)),
        ("remarks", "Outcomes and warnings", _remarks(results)),
        ("cells", "All cells", _cells(results)),
        ("provenance", "Provenance", _provenance(results)),
        ("references", "References", _references(results)),
    ]
    links = [element("li", element("a", title, href=f"#{name}")) for name, title, _ in sections]
    bodies = [
        element("section", element("h2", title, id=f"{name}-title"), body, id=name, aria_labelledby=f"{name}-title")
        for name, title, body in sections
    ]
    top = element(
        "header",
        element("h1", f"Study {results.name}"),
        element("p", _lead(results), class_="lead"),
        element("nav", element("ul", joined(links)), aria_label="Sections"),
    )
    foot = element("footer", element("p", "Written by fpsim report. The page loads nothing from anywhere."))
    return _document(f"{results.name}: fpsim report", joined([top, element("main", joined(bodies)), foot]))


def _document(title: str, body: Html) -> str:
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = "\n".join(
        [
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            element("title", title),
            f"<style>{style}</style>",
        ]
    )
    inner = f"<head>\n{head}\n</head>\n<body>\n{body}\n<script>{script}</script>\n</body>"
    return f'<!DOCTYPE html>\n<html lang="en">\n{inner}\n</html>\n'


def _lead(results: Results) -> str:
    rows = results.rows
    names = {key: ", ".join(dict.fromkeys(row[key] for row in rows)) for key in ("optimizer", "problem", "rounding")}
    first, last = results.made
    when = first if first == last else f"{first} to {last}"
    return f"{names['optimizer']} on {names['problem']}; {names['rounding']}; files of results of {when}."


def _summary(results: Results, verdicts: Sequence[Row]) -> Html:
    rows = results.rows
    failed, missing = sum(row["outcome"] == FAILED for row in rows), results.planned - len(rows)
    ours = {name for name, x in theorems().items() if not x.comparison}
    wrong = Counter(x["status"] for x in verdicts if x["theorem"] in ours and x["status"] in ("violated", "missed"))
    counts = Counter(row["verdict"] for row in rows)
    alerts = [
        *(f"Verdicts '{status}': {n}. That is a bug of fpsim: please report it." for status, n in wrong.items()),
        *([f"Failed cells: {failed}; All cells says why."] if failed else []),
        *([f"Missing cells: {missing}; the study is not complete."] if missing else []),
        *results.damaged,
    ]
    facts = [
        ("cells", f"{len(rows)} of {results.planned}, {rows[0]['seeds']} seeds each"),
        ("outcomes", _counted(Counter(row["outcome"] for row in rows))),
        ("bounds on the floor", _counted(counts, BOUNDS)),
        ("seed", str(rows[0]["seed"])),
        ("made by", ", ".join(results.versions.get("code", ["unknown"]))),
    ]
    return joined([*(element("p", x, class_="alert") for x in alerts), _pairs(facts)])


def _counted(counts: Mapping[Any, int], order: Iterable[Any] = ()) -> str:
    """Such as ``63 floor, 13 stagnated``."""
    names = [*(x for x in order if x in counts), *(x for x in counts if x not in set(order))]
    return ", ".join(f"{counts[name]} {name or 'without a verdict'}" for name in names)


def _pairs(facts: Iterable[tuple[str, str]]) -> Html:
    return element("dl", joined([x for name, told in facts for x in (element("dt", name), element("dd", told))]))


def _figures(results: Results, verdicts: Sequence[Row]) -> Html:
    found = [
        element("figure", element("div", x.svg), element("figcaption", x.caption))
        for x in drawings(results.rows, verdicts)
    ]
    return joined(found) if found else element("p", "No cell has a floor or a course to draw.", class_="note")


def _floors(results: Results) -> Html:
    head, body = floors_of([dict(row) for row in results.rows])
    names = head.index("stops")
    rows: list[list[Cell]] = [[*row[:names], *(_parsed(x) for x in row[names:-1]), row[-1]] for row in body]
    caption = "Where each optimizer stops improving, how low it gets, and how close the bound is"
    notes = [*NOTES, *bounded([dict(row) for row in results.rows])]
    return joined([table("table-floors", caption, head, rows), _list(notes)])


def _parsed(told: str) -> Number:
    """A number of the table of a scan: ``1.2e-3*``, ``>14``, ``-``, or the outcome where there is none."""
    try:
        return Number(told, float(told.strip("*>")))
    except ValueError:
        return Number(told, None)


def _verdicts(verdicts: Sequence[Row], how: str) -> Html:
    known, summary = theorems(), summarize(verdicts)
    statuses = [x for x in _STATUSES if any(x in found for groups in summary.values() for found in groups.values())]
    short_names = {"not applicable": "n/a"}
    head = ["theorem", "formats", *(short_names.get(x, x) for x in statuses)]
    head += [f"ratio {x}" for x in ("5 %", "median", "95 %", "worst")]
    rows: list[list[Cell]] = []
    names = sorted(summary, key=[*known].index)
    for name in names:
        groups = summary[name]
        shown = [x for x in groups if x == "all" or "worst" in groups[x]]
        for group in shown if len(shown) > 2 else ["all"]:
            found = groups[group]
            counts = [Number(str(found.get(x, 0)), found.get(x, 0)) for x in statuses]
            ratios = [_number(float.fromhex(found[x]) if x in found else None) for x in QUANTILES]
            rows.append([name, group, *counts, *ratios])
    classes = "; ".join(f"{name}: {meaning}" for name, meaning in CLASSES.items())
    notes = [how, "n/a: a hypothesis of the theorem fails there. Ratio: proven bound over measured value, over cells."]
    if not rows:
        return _list(notes[:1])
    caption = "Cells by verdict, for each theorem and group of formats"
    chosen = [known[name] for name in names]
    said = [[x.identifier, x.tightness + ", for comparison" * x.comparison, x.title, x.quantity] for x in chosen]
    explained = table("table-theorems", "What the theorems say", ["theorem", "class", "title", "bounds"], said)
    return joined(
        [_list(notes), table("table-verdicts", caption, head, rows), explained, _list([f"Classes: {classes}."])]
    )


def _remarks(results: Results) -> Html:
    rows = [dict(row) for row in results.rows]
    outcomes = Counter(row["outcome"] for row in rows).most_common()
    listed: list[list[Cell]] = [
        [x, Number(str(n), n), OUTCOMES.get(x, "the cell raised an error")] for x, n in outcomes
    ]
    parts = [table("table-outcomes", "Outcomes of the runs", ["outcome", "cells", "meaning"], listed)]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for warning in filter(None, (row["warnings"] or "").split("; ")):
            groups.setdefault(warning, []).append(row)
    warned: list[list[Cell]] = [[x, Number(str(len(found)), len(found)), _where(found)] for x, found in groups.items()]
    if warned:
        caption = "Scalars that a format turns into something else"
        parts.append(table("table-warnings", caption, ["warning", "cells", "where"], warned))
    else:
        parts.append(element("p", "No format changed a scalar of a step.", class_="note"))
    for title, column, value in (
        ("Violated bounds", "verdict", "violated"),
        ("Failed cells", "outcome", FAILED),
        ("Undecided bounds", "verdict", "undecided"),
        ("Bounds that do not apply", "verdict", "not applicable"),
    ):
        chosen = [row for row in rows if row[column] == value]
        if chosen:
            title = f"{title} ({len(chosen)} cells)"
            parts.append(element("details", element("summary", title), _list(by_reason(chosen)), open="open"))
    learned = [line.strip() for line in lists(rows) if ": loss " in line]
    if learned:
        parts.append(
            element("details", element("summary", "Networks, means over the window"), _list(learned), open="open")
        )
    return joined(parts)


def _where(rows: Sequence[Row]) -> str:
    from experiments.cli.scan_header import spans

    widths: dict[tuple[str, int], set[int]] = {}
    for row in rows:
        widths.setdefault((row["optimizer"], row["exponent_bits"]), set()).add(row["mantissa_bits"])
    return ", ".join(f"{name} e{exponent}m{spans(found)}" for (name, exponent), found in widths.items())


def _list(lines: Iterable[str]) -> Html:
    return element("ul", joined([element("li", line) for line in lines]), class_="note")


def _cells(results: Results) -> Html:
    labels = variants([dict(row) for row in results.rows])
    several = any(labels)
    head = ["optimizer", "problem", "rounding", *(["variant"] * several), "e", "m", "outcome", "floor", "95 %"]
    head += ["loss gap", "frozen", "theorem", "measured", "bound", "ratio", "verdict"]
    rows: list[list[Cell]] = []
    for row, label in zip(results.rows, labels, strict=True):
        rows.append(
            [
                row["optimizer"], row["problem"], _mode(row), *([label or "-"] * several),
                *(Number(str(row[x]), row[x]) for x in ("exponent_bits", "mantissa_bits")), _outcome(row),
                _number(row["rms_gradient"]), _interval(row), _number(row["loss_gap"]), _number(row["frozen_share"]),
                row["theorem"] or "", *(_number(row[x]) for x in ("measured", "bound", "ratio")),
                element("span", row["verdict"] or "", class_=(row["verdict"] or "none").replace(" ", "-")),
            ]
        )  # fmt: skip
    caption = "Every cell: floor (root-mean-square gradient norm), 95 % interval over seeds, frozen share, bound"
    return table("table-cells", caption, head, rows)


def _outcome(row: Row) -> Html:
    if row["outcome"] == FAILED:
        return element("span", f"failed: {row['reason']}", class_="failed")
    return text(row["outcome"])


def _interval(row: Row) -> Number:
    """Sorted by its upper end."""
    low, high = (_number(row[f"rms_gradient_{end}"]) for end in ("low", "high"))
    return Number(f"{low.text}..{high.text}" if low.text and high.text else "", high.value)


def _mode(row: Row) -> str:
    return f"stochastic-{row['random_bits']}" if row["rounding"] == "stochastic" else row["rounding"]


def _number(value: float | None) -> Number:
    if value is None or math.isnan(value):
        return Number("", None)
    told = ("-" if value < 0 else "") + short(abs(value), 3) if math.isfinite(value) else str(value)
    return Number(told, value)


def _provenance(results: Results) -> Html:
    first, last = results.made
    versions = results.versions
    facts = [
        ("study, SHA-256", results.study_hash),
        ("results, SHA-256", results.data_hash),
        ("seed", str(results.settings.get("seed", results.rows[0]["seed"]))),
        ("files of results", f"written {first}" if first == last else f"written {first} to {last} (UTC)"),
        ("machine", "; ".join(f"{name} {', '.join(versions.get(name, ['unknown']))}" for name in _VERSIONS)),
        *((name, ", ".join(found)) for name, found in versions.items() if name not in _VERSIONS),
    ]
    settings = json.dumps(results.settings, indent=1)
    parts = [_pairs(facts), element("h3", "The study"), element("pre", results.text)]
    if settings != results.text:
        parts.append(element("details", element("summary", "All its settings"), element("pre", settings)))
    return joined(parts)


def _references(results: Results) -> Html:
    used = used_by(results.cells, (row["theorem"] for row in results.rows), results.versions.get("code", []))
    intro = "BibTeX of what the study used, as fpsim cite prints it."
    return joined([element("p", intro), element("details", element("summary", "BibTeX"), element("pre", bibtex(used)))])
