"""Build a figure or a table: data, claims, what is shown, caption and provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.whole_files import write_whole
from paper_figures import style, table
from paper_figures.figure import PaperFigure, Report, Source, check
from paper_figures.journals import Journal
from paper_figures.results import path_of, results_of
from paper_figures.table import PaperTable

FORMATS = ("pdf", "png", "svg", "pgf")


@dataclass(frozen=True)
class Built:
    """files : what was written, the drawings or the table first;  caption : text."""

    files: list[Path]
    caption: str


def build(
    figure: PaperFigure | PaperTable,
    journal: Journal,
    out: Path,
    *,
    profile: str = "quick",
    formats: Sequence[str] = ("pdf", "png"),
    run: bool = True,
    report: Report = lambda share: None,
) -> Built:
    """Write ``NAME.pdf`` and its like, ``NAME.txt`` (the caption) and ``NAME.json`` (where it comes from) into ``out``.

    A table is ``NAME.tex`` and ``NAME.md``, whatever ``formats`` says. The same data give the same bytes.

    Raises
    ------
    ClaimError
        The data do not bear out the caption; nothing is drawn.
    ResultsError, MissingResults
        As ``paper_figures.results.results_of``.
    """
    results = results_of(figure, profile, out, run, report)
    data = results["data"]
    check(figure, data)
    caption = figure.caption(data)
    if profile == "quick":
        caption += " (Quick profile: shorter runs or fewer seeds than in the full one.)" if _shortened(figure) else ""
    if isinstance(figure, PaperTable):
        files = table.save(figure, data, out, caption)
    else:
        with style.journal_style(journal):
            files = style.save(figure.draw(data, journal), out, figure.name, formats)
    provenance = {
        "figure": figure.name, "title": figure.title, "profile": profile, "style": journal.name,
        "results": path_of(figure, profile, out).name, "sha256 of the data": results["sha256"],
        **{name: results[name] for name in ("parameters", "study", "seed", "code", "versions")},
        "claims": [text for text, _ in figure.claims(data)], "caption": caption,
        "command": f"fpsim figures build {figure.name} --style {journal.name} --profile {profile}",
    }  # fmt: skip
    for suffix, text in (("txt", caption), ("json", json.dumps(provenance, indent=1))):
        path = out / f"{figure.name}.{suffix}"
        write_whole(path, text.encode() + b"\n")
        files.append(path)
    return Built(files, caption)


def _shortened(figure: Source) -> bool:
    return dict(figure.parameters["quick"]) != dict(figure.parameters["full"])
