"""Build the figures and tables of the gallery for a paper, each from stored results: list them, or build some or all.
Beside each: its caption and where it comes from. Tables are LaTeX (booktabs) and Markdown. Results that are missing
are computed first. Exit code 1 if the data of a figure do not bear out its caption, or its results are damaged."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from paper_figures.figure import PaperFigure
    from paper_figures.table import PaperTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "build"), metavar="list|build", help="what to do")
    parser.add_argument("names", metavar="NAME", nargs="*", help="figures and tables, or all (see fpsim figures list)")
    parser.add_argument("--style", metavar="S", default="neurips", help="journal: see list (default: neurips)")
    parser.add_argument("--format", metavar="F,F", default="pdf,png", help="of pdf, png, svg, pgf (default: pdf,png)")
    parser.add_argument("--profile", choices=("quick", "full"), default="quick", help="length of runs (default: quick)")
    parser.add_argument("--no-run", action="store_true", help="refuse to compute results that are missing")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("fpsim-figures"), help="default: fpsim-figures")


def run(args: argparse.Namespace) -> int:
    from paper_figures import style
    from paper_figures.build import FORMATS
    from paper_figures.gallery import figures
    from paper_figures.journals import JOURNALS
    from paper_figures.tables import tables

    known: dict[str, PaperFigure | PaperTable] = {**figures(), **tables()}
    if args.action == "list":
        if args.names:
            raise UsageError("fpsim figures: error: list takes no names")
        width = max(map(len, known))
        print("\n".join(f"{name:<{width}}  {figure.title}" for name, figure in known.items()))
        print(f"styles: {', '.join(JOURNALS)}\nfull profile:")
        print("\n".join(f"{name:<{width}}  {figure.full_cost}" for name, figure in known.items()))
        return 0
    formats = tuple(dict.fromkeys(args.format.split(",")))
    given: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("NAME", args.names, ("all", *known)),
        ("--style", [args.style], tuple(JOURNALS)),
        ("--format", formats, FORMATS),
    ]
    for what, words, admissible in given:
        for word in words:
            if word not in admissible:
                raise UsageError(
                    f"fpsim figures: error: {what}: {word!r} is unknown; admissible: {', '.join(admissible)}"
                )
    if "pgf" in formats and style.tex_system() is None:
        raise UsageError(
            f"fpsim figures: error: --format: pgf is made by TeX, and none of {', '.join(style.TEX)} is installed"
        )
    if "pgf" in formats:
        try:
            with style.journal_style(JOURNALS[args.style]):
                style.try_tex()
        except style.TexError as error:
            raise UsageError(f"fpsim figures: error: --format: {error}") from error
    if not args.names:
        raise UsageError(f"fpsim figures: error: build needs a NAME; admissible: all, {', '.join(known)}")
    chosen = [known[name] for name in (known if "all" in args.names else dict.fromkeys(args.names))]
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"fpsim figures: error: --out: {str(args.out)!r}: {error.strerror}") from error
    return _build(chosen, args, formats, JOURNALS[args.style])


def _build(
    chosen: Sequence[PaperFigure | PaperTable], args: argparse.Namespace, formats: Sequence[str], journal: Any
) -> int:
    from experiments.cli.progress import Progress, clock
    from paper_figures.build import build
    from paper_figures.figure import ClaimError
    from paper_figures.results import MissingResults, ResultsError

    started, code = time.monotonic(), 0
    with Progress(len(chosen), len(chosen) * 1000, "fpsim figures", "figures") as progress:
        for figure in chosen:
            reported = 0

            def report(share: float) -> None:
                nonlocal reported
                progress.advance(round(1000 * share) - reported)
                reported = round(1000 * share)

            try:
                built = build(
                    figure, journal, args.out, profile=args.profile, formats=formats, run=not args.no_run, report=report
                )
            except KeyboardInterrupt:
                progress.say("fpsim figures: interrupted; results that were finished are kept")
                return INTERRUPTED
            except (ClaimError, MissingResults, ResultsError) as error:
                progress.say(f"fpsim figures: {error}")
                code = 1
            else:
                progress.say(f"{figure.name}: {', '.join(str(path) for path in built.files)}")
            progress.advance(1000 - reported, 1)
    print(f"time: {clock(time.monotonic() - started)}", file=sys.stdout)
    return code
