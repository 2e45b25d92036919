"""Print the log that fpsim.audit(optimizer) took of a PyTorch training loop, say what theorems make of it, and draw it.
In the loop: log = fpsim.audit(optimizer, names=model.named_parameters()); after it: log.save("log.json")."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cli import UsageError

if TYPE_CHECKING:
    from fpsim.audit_log import AuditLog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="LOG.json", nargs="?", type=Path, help="what AuditLog.save wrote")
    parser.add_argument(
        "--deterministic", action="store_true", help="gradients are of the whole training set (T6 and T24 need it)"
    )
    parser.add_argument("--figure", metavar="FILE", type=Path, help="draw a figure: FILE.png, FILE.pdf or FILE.svg")
    parser.add_argument("--no-theorems", action="store_true", help="print the table only")
    parser.add_argument("--cost", action="store_true", help="measure what auditing costs here, without a log")
    parser.add_argument("--rounds", metavar="N", type=int, default=9, help="of --cost (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    from fpsim.audit_log import AuditLog

    if args.cost:
        return _cost(args)
    if args.log is None:
        raise UsageError("fpsim audit: error: LOG.json is missing; admissible: what AuditLog.save wrote, or --cost")
    check_figure(args.figure)
    try:
        log = AuditLog.load(args.log)
    except (ValueError, OSError) as error:
        raise UsageError(f"fpsim audit: error: {error}") from error
    if args.figure is not None and not log.record["samples"]:
        raise UsageError("fpsim audit: error: --figure: no step was measured, there is nothing to draw")
    try:
        return _say(log, args)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        damage = f"{type(error).__name__} {error}"
        raise UsageError(f"fpsim audit: error: {str(args.log)!r} is a damaged log of an audit: {damage}") from error


def _say(log: AuditLog, args: argparse.Namespace) -> int:
    """Table, theorems, figure; 1 where a theorem is contradicted."""
    print(log)
    contradicted = False
    if not args.no_theorems:
        from theory.explain import explain

        found = explain(log, deterministic=args.deterministic)
        print(f"\n{found}")
        contradicted = bool(found.contradictions)
    if args.figure is not None:
        from paper_figures import audit

        (path,) = audit.build(log, args.figure.parent, args.figure.stem, (args.figure.suffix[1:],))
        print(f"\nwrote {path}")
    return 1 if contradicted else 0


def _cost(args: argparse.Namespace) -> int:
    from experiments import audit_cost

    if args.log is not None or args.figure is not None:
        raise UsageError("fpsim audit: error: --cost measures without a log: no LOG.json and no --figure")
    if args.rounds < 1:
        raise UsageError(f"fpsim audit: error: --rounds: {args.rounds}; admissible: whole numbers from 1")
    try:
        for line in audit_cost.lines(audit_cost.measure(args.rounds)):
            print(line, flush=True)
    except ImportError as error:
        raise UsageError(f"fpsim audit: error: --cost: {error}; pip install 'fpsim[torch]'") from error
    return 0


def check_figure(file: Path | None) -> None:
    """Before any work."""
    from experiments.cli.record_file import check_file

    if file is None:
        return
    if file.suffix not in (".png", ".pdf", ".svg") or not file.stem:
        raise UsageError(f"fpsim audit: error: --figure: {str(file)!r}; admissible: names that end in .png, .pdf, .svg")
    check_file("audit", file, "--figure")
