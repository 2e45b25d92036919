"""List the named number formats, or print the properties of one: a name of the list, eXmY (IEEE-like,
X exponent and Y mantissa bits) or p3109_kKpPse (signed or unsigned, extended or finite: se, sf, ue, uf)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.cli import UsageError

if TYPE_CHECKING:
    from fpsim.number_format import Format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a format; without it, all named formats are listed")
    parser.add_argument(
        "--line", metavar="SCALE", nargs="?", const="auto", help="draw its number line: linear, log, or what suits it"
    )
    parser.add_argument("--zoom", metavar="X", help="show the number line up to X only")


def run(args: argparse.Namespace) -> int:
    from fpsim import formats

    if args.name is None:
        if args.line is not None or args.zoom is not None:
            raise UsageError("fpsim formats: error: --line and --zoom need a NAME")
        head = ("name", "bits", "e", "m", "max", "smallest normal", "smallest", "eps")
        rows = [(name, *_summary(fmt)) for name, fmt in formats.NAMED.items()]
        print("\n".join(align([head, *rows])))
        print("\nalso: eXmY (IEEE-like, as e8m10), p3109_k{width}p{precision}se, ...sf, ...ue, ...uf (as p3109_k8p4se)")
        return 0
    try:
        fmt = formats.format(args.name)
    except (ValueError, TypeError) as error:
        raise UsageError(f"fpsim formats: error: {error}") from error
    line = _line(fmt, args) if args.line is not None or args.zoom is not None else ""
    print(fmt.table(args.name) + line)
    return 0


def _line(fmt: Format, args: argparse.Namespace) -> str:
    import shutil

    from fpsim.number_line import number_line

    try:
        high = None if args.zoom is None else float(args.zoom)
    except ValueError as error:
        raise UsageError(f"fpsim formats: error: --zoom: {args.zoom!r} is no number") from error
    scale = None if args.line in (None, "auto") else args.line
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 20), 100)
    try:
        return "\n\n" + number_line(fmt, scale, high=high, width=width)
    except ValueError as error:
        flag = "--line" if "scale" in str(error) else "--zoom"
        raise UsageError(f"fpsim formats: error: {flag}: {error}") from error


def align(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines with columns two spaces apart: the first ``left`` columns to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _summary(fmt: Format) -> tuple[str, ...]:
    sizes = (str(fmt.bits), str(fmt.exponent_bits), str(fmt.mantissa_bits))
    return (*sizes, *(f"{v:.6g}" for v in (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal, fmt.eps)))
