"""Hold every theorem against every cell of a study and write a certificate, or check a certificate again without the
runs, or hunt for a violation in random cells, or list theorems, or write them with their derivations as LaTeX. Without
arguments: the results in fpsim-results/scan, which fpsim scan makes first if there are none. Exit code 1 if a bound is
violated, a law missed or a certificate wrong."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import UsageError
from experiments.cli.record_file import check_file
from experiments.cli.verify_random import MOST_RUNS, random_cells

if TYPE_CHECKING:
    from experiments.verify.run import Report
    from theory.theorem import Theorem

DEFAULT = Path("fpsim-results/scan")
MOST_FAULTS = 50  # that are printed
# What may stand beside the flag that says what to do; without one, results are verified.
BESIDE = {
    "--list": {"--theorem"},
    "--latex": {"--theorem", "--out"},
    "--check": set(),
    "--random": {"--theorem", "--seed", "--json"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", metavar="RESULTS", nargs="?", type=Path, help=f"what --out of fpsim scan was (default: {DEFAULT})"
    )
    parser.add_argument("--theorem", metavar="NAMES", help="such as T12 or T6,T8 (default: all)")
    parser.add_argument("--list", action="store_true", help="print title, class, quantity and source of the theorems")
    parser.add_argument("--check", metavar="FILE", type=Path, help="a certificate to check again, without the results")
    parser.add_argument(
        "--random", metavar="N", help="hold the theorems against N runs, at least, of random cells, such as 1e5"
    )
    parser.add_argument("--seed", metavar="N", help="of --random: names its cells (default: 0)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="of --random: also write counts, versions and date")
    parser.add_argument("--latex", action="store_true", help="write statement, hypotheses and derivation as LaTeX")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="where the certificate goes (default: verify.json beside the results; .json.gz compresses), or the LaTeX "
        "(default: stdout)",
    )
    parser.add_argument("--processes", metavar="N", help="processes at a time (default: one for each processor)")


def run(args: argparse.Namespace) -> int:
    from experiments.engine import available_workers
    from experiments.fields import StudyError, count, integer

    _fit_together(args)
    try:
        given = available_workers() if args.processes is None else args.processes
        processes = integer(1, 4096)("processes", given)
        seed = integer(0, (1 << 63) - 1)("seed", args.seed or 0)
        runs = None if args.random is None else count(MOST_RUNS)("random", args.random)
    except StudyError as error:
        raise UsageError(f"fpsim verify: error: --{error}") from error
    check_file("verify", args.out, "--out")
    check_file("verify", args.json)
    if args.check is not None:
        return _check(args.check, processes)
    chosen = _chosen(args.theorem)
    if args.latex:
        return _latex(chosen, args.out)
    if args.list:
        return _list(chosen)
    if runs is not None:
        names = None if args.theorem is None else [x.identifier for x in chosen]
        return random_cells(runs, seed, names, processes, args.json)
    return _verify(args, chosen, processes)


def _fit_together(args: argparse.Namespace) -> None:
    flags = ("theorem", "list", "check", "random", "seed", "json", "latex", "out")
    given = {f"--{name}" for name in flags if getattr(args, name) not in (None, False)}
    given |= {"RESULTS"} if args.results is not None else set()
    what = next((flag for flag in BESIDE if flag in given), None)
    if what is not None:
        for other in sorted(given - BESIDE[what] - {what}):
            raise UsageError(f"fpsim verify: error: {other} has no meaning with {what}; leave it out")
    for other in sorted(given & {"--seed", "--json"} if what is None else ()):
        raise UsageError(f"fpsim verify: error: {other} has no meaning without --random")


def _chosen(names: str | None) -> Sequence[Theorem]:
    from theory.theorems import theorem, theorems

    try:
        if names is None:
            return list(theorems().values())
        given = dict.fromkeys(name.strip().upper() for name in names.split(","))
        return [theorem(name) for name in given]
    except ValueError as error:
        raise UsageError(f"fpsim verify: error: --theorem: {error} (fpsim verify --list says what they are)") from error


def _verify(args: argparse.Namespace, chosen: Sequence[Theorem], processes: int) -> int:
    from experiments.verify import certificate, results, run
    from experiments.whole_files import StoreError

    folder = DEFAULT if args.results is None else args.results
    if args.results is None and not results.started(folder):
        print(f"fpsim verify: there are no results in {folder}; running the default study first\n", flush=True)
        code = _scan()
        if code:
            return code
        print()
    try:
        found = results.open_results(folder)
    except results.ResultsError as error:
        raise UsageError(f"fpsim verify: error: {error}") from error
    selection = None if args.theorem is None else [x.identifier for x in chosen]
    out = args.out or folder / f"{'-'.join(['verify', *(selection or ())])}.json"
    check_file("verify", out, "--out")
    for line in found.damaged:
        print(f"fpsim verify: {line}", file=sys.stderr)
    print(
        f"fpsim verify: {len(found.keys)} of {len(found.planned)} cells in {folder}, {len(chosen)} theorems", flush=True
    )
    started = time.monotonic()
    try:
        with _progress(chosen, len(found.keys)) as progress:
            report = run.verify(folder, found.keys, chosen, processes, lambda n: progress.advance(n, cells=n))
    except (results.ResultsError, StoreError, RuntimeError, ValueError) as error:
        print(f"fpsim verify: stopped: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    for line in report.unknown:
        print(f"fpsim verify: a cell cannot be verified here: {line}", file=sys.stderr)
    if not report.lines:
        raise UsageError(f"fpsim verify: error: no cell in {folder} can be verified here")
    try:
        certificate.write(out, found, selection, report)
    except StoreError as error:
        print(f"fpsim verify: stopped: {error}", file=sys.stderr)
        return 1
    code = _told(report)
    print(f"certificate: {out} (fpsim verify --check {out} checks it again)")
    return _timed(started, code)


def _check(file: Path, processes: int) -> int:
    from experiments.verify import certificate, check, run

    try:
        found = certificate.read(file)
    except certificate.CertificateError as error:
        raise UsageError(f"fpsim verify: error: --check: {error}") from error
    versions, chosen = found["versions"], check.known_theorems(found)
    exact = "to the last bit" if check.same_versions(found) else "numbers to one part in 10^9: made elsewhere"
    print(f"fpsim verify: {file}, made {found.get('made')} by {versions.get('code')}; compared {exact}", flush=True)
    print(f"{len(found['cells'])} of {len(found['keys'])} cells, {len(found['theorems'])} theorems", flush=True)
    started = time.monotonic()
    with _progress(chosen, len(found["cells"])) as progress:
        report = run.check_again(found, processes, lambda n: progress.advance(n, cells=n))
    code = _told(report)
    print(f"certificate: {'WRONG, see above' if report.faults else 'everything in it is as it says'}")
    return _timed(started, code)


def _progress(chosen: Sequence[Theorem], cells: int) -> Any:
    from experiments.cli.progress import Progress
    from experiments.verify.run import size

    count = size(chosen, cells)
    return Progress(count, count, "fpsim verify", "cells and derivations")


def _told(report: Report) -> int:
    """Print what came of it and give the exit code."""
    from experiments.verify.summary import failures, printed

    print("\n" + "\n".join(printed(report.theorems, report.rows)) + "\n", flush=True)
    for fault in report.faults[:MOST_FAULTS]:
        print(f"WRONG: {fault}")
    if len(report.faults) > MOST_FAULTS:
        print(f"WRONG: .. and {len(report.faults) - MOST_FAULTS} more")
    failed = failures(report.theorems, report.rows)
    for status, count in failed.items():
        print(f"fpsim verify: {count} verdicts are '{status}', which is a bug: please report it", file=sys.stderr)
    return 1 if failed or report.faults else 0


def _timed(started: float, code: int) -> int:
    from experiments.cli.progress import clock

    print(f"time: {clock(time.monotonic() - started)}")
    return code


def _scan() -> int:
    from experiments.cli import Parser, scan

    parser = Parser(prog="fpsim scan")
    scan.add_arguments(parser)
    return scan.run(parser.parse_args([]))


def _list(chosen: Sequence[Theorem]) -> int:
    import shutil

    from experiments.verify.listing import listed

    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 120)
    print("\n".join(listed(chosen, width)))
    return 0


def _latex(chosen: Sequence[Theorem], out: Path | None) -> int:
    from experiments.whole_files import StoreError, write_whole
    from theory.latex import document

    text = document(chosen)
    if out is None:
        print(text, end="")
        return 0
    try:
        write_whole(out, text.encode())
    except StoreError as error:
        print(f"fpsim verify: stopped: {error}", file=sys.stderr)
        return 1
    print(f"LaTeX: {out}")
    return 0
