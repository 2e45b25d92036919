"""Print BibTeX for the formats, rounding modes, optimizers and theorems that a study used, and for fpsim itself; above
each entry a comment says what it is cited for. STUDY is a study file, DIR what --out of fpsim scan was; theorems are
known once there are results. Without either: fpsim, and the formats given."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cli import UsageError

if TYPE_CHECKING:
    from paper_figures.bibliography import Used


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY|DIR", nargs="?", type=Path, help="a study file, or a results folder")
    parser.add_argument("--format", metavar="NAME", nargs="+", default=[], help="formats to cite as well")
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=Path("fpsim-results/scan"),
        help="where the results of a study file are, for the theorems (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from paper_figures.bibliography import Used, bibtex

    used = Used() if args.study is None else _used(args.study, args.results)
    try:
        text = bibtex(replace(used, formats=tuple(dict.fromkeys((*used.formats, *args.format)))))
    except ValueError as error:
        raise UsageError(f"fpsim cite: error: --format: {' '.join(str(error).split())}") from error
    print(text, end="")
    return 0


def _used(study: Path, results: Path) -> Used:
    from paper_figures.bibliography import used_by
    from paper_figures.report.results import NoResults, ResultsError, open_results, study_cells

    try:
        found = open_results(study, results)
        versions = found.versions.get("code", [])
        return used_by(found.cells, (row["theorem"] for row in found.rows), versions)
    except NoResults as error:
        if study.is_dir():
            raise UsageError(f"fpsim cite: error: {error}") from error
        print(f"fpsim cite: {error}; theorems are left out", file=sys.stderr)
        return used_by(study_cells(study))
    except ResultsError as error:
        raise UsageError(f"fpsim cite: error: {error}") from error
