"""Write one self-contained HTML page of a study's results: figures, sortable tables, verdicts of theorems, outcomes,
warnings and provenance. STUDY is a study file, DIR what --out of fpsim scan was. The page loads nothing from anywhere,
and the same results give the same bytes."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import UsageError
from experiments.cli.record_file import check_file

if TYPE_CHECKING:
    from paper_figures.report.results import Results

MOST_VERIFIED = 500  # cells against which every theorem is held
OF_ROWS = (
    "The verdict of the theorem that says most about the floor of each cell, as the study found it; fpsim verify holds "
    "every theorem against every cell."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY|DIR", type=Path, help="a study file, or a results folder")
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=Path("fpsim-results/scan"),
        help="where the results of a study file are (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", type=Path, help="the page (default: report.html beside the results)")
    parser.add_argument(
        "--no-verify", action="store_true",
        help=f"take verdicts from the rows, not from all theorems; always so beyond {MOST_VERIFIED} cells",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from experiments.cli.progress import clock
    from experiments.whole_files import StoreError, write_whole
    from paper_figures.report.results import ResultsError, open_results

    started = time.monotonic()
    folder = args.study if args.study.is_dir() else args.results
    out = args.out or folder / "report.html"
    try:
        with contextlib.ExitStack() as stack:
            results = open_results(args.study, args.results, _reading(stack))
    except ResultsError as error:
        raise UsageError(f"fpsim report: error: {error}") from error
    check_file("report", out, "--out")
    print(f"fpsim report: {len(results.rows)} of {results.planned} cells in {results.folder}", flush=True)
    verdicts, why = (None, "--no-verify") if args.no_verify else _verified(results)
    if verdicts is None:
        verdicts, how = _of_rows(results), OF_ROWS
        print(f"verdicts: those of the rows ({why})", flush=True)
    else:
        how = f"Every theorem was held against {why}, as fpsim verify does."
        print(f"verdicts: every theorem was held against {why}", flush=True)

    from paper_figures.report.page import page

    content = page(results, verdicts, how)
    try:
        write_whole(out, content.encode())
    except StoreError as error:
        raise UsageError(f"fpsim report: error: --out: {error}") from error
    print(f"page: {out} ({len(content.encode()) / 1024:.0f} KiB; open it in a browser)")
    print(f"time: {clock(time.monotonic() - started)}")
    return 0


def _reading(stack: contextlib.ExitStack) -> Callable[[int], None]:
    """Shows how many of the cells were read, from the moment that their number is known."""
    from experiments.cli.progress import Progress

    shown: list[Progress] = []

    def advance(cells: int) -> None:
        if not shown:
            shown.append(stack.enter_context(Progress(cells, cells, "fpsim report: reading")))
        else:
            shown[0].advance(1, 1)

    return advance


def _verified(results: Results) -> tuple[Sequence[Mapping[str, Any]] | None, str]:
    """What ``fpsim verify`` finds and in how many cells, or None and why that is left out."""
    from experiments import networks
    from experiments.cell import code_version
    from experiments.cli.progress import Progress
    from experiments.engine import available_workers
    from experiments.verify import run
    from experiments.verify.results import ResultsError
    from experiments.whole_files import StoreError
    from theory.theorems import theorems

    trained = {row["key"] for row in results.rows if row["problem"] in networks.PROBLEMS}
    keys = [key for key in results.kept if key not in trained]
    if len(keys) > MOST_VERIFIED:
        return None, f"more than {MOST_VERIFIED} cells: fpsim verify {results.folder} holds every theorem against them"
    if not keys:
        return None, "there are no theorems about networks" if trained else "no cell has a file of its own"
    if results.versions.get("code") != [code_version()]:
        return None, "another version of the code made the results, which alone can read their records"
    chosen = list(theorems().values())
    count = run.size(chosen, len(keys))
    try:
        with Progress(count, count, "fpsim report", "cells and derivations") as progress:
            report = run.verify(
                results.folder, keys, chosen, available_workers(), lambda n: progress.advance(n, cells=n)
            )
    except (ResultsError, StoreError, RuntimeError, ValueError) as error:
        return None, " ".join(str(error).split())
    if not report.rows:
        return None, report.unknown[0]
    return report.rows, f"{len(report.keys)} of {len(results.rows)} cells"


def _of_rows(results: Results) -> list[dict[str, Any]]:
    nan = float("nan")
    return [
        {**row, "status": row["verdict"], "ratio": nan if row["ratio"] is None else row["ratio"]}
        for row in results.rows
        if row["theorem"] and row["verdict"]
    ]
