"""Print the log that fpsim.audit(optimizer) took of a PyTorch training loop, say what theorems make of it, and draw it.
In the loop: log = fpsim.audit(optimizer, names=model.named_parameters()); after it: log.save("log.json")."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.cli import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", metavar="LOG.json", type=Path, help="what AuditLog.save wrote")
    parser.add_argument(
        "--deterministic", action="store_true", help="gradients are of the whole training set (T6 and T24 need it)"
    )
    parser.add_argument("--figure", metavar="FILE", type=Path, help="draw a figure: FILE.png, FILE.pdf or FILE.svg")
    parser.add_argument("--no-theorems", action="store_true", help="print the table only")


def run(args: argparse.Namespace) -> int:
    from fpsim.audit_log import AuditLog

    check_figure(args.figure)
    try:
        log = AuditLog.load(args.log)
    except (ValueError, OSError) as error:
        raise UsageError(f"fpsim audit: error: {error}") from error
    print(log)
    contradicted = False
    if not args.no_theorems:
        from theory.explain import explain

        found = explain(log, deterministic=args.deterministic)
        print(f"\n{found}")
        contradicted = bool(found.contradictions)
    if args.figure is not None:
        if not log.record["samples"]:
            raise UsageError("fpsim audit: error: --figure: no step was measured, there is nothing to draw")
        from paper_figures import audit

        (path,) = audit.build(log, args.figure.parent, args.figure.stem, (args.figure.suffix[1:],))
        print(f"\nwrote {path}")
    return 1 if contradicted else 0


def check_figure(file: Path | None) -> None:
    """Before any work."""
    from experiments.cli.record_file import check_file

    if file is None:
        return
    if file.suffix not in (".png", ".pdf", ".svg") or not file.stem:
        raise UsageError(f"fpsim audit: error: --figure: {str(file)!r}; admissible: names that end in .png, .pdf, .svg")
    check_file("audit", file, "--figure")
