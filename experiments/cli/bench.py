"""Measure how fast the emulator is, beside a memory copy or the unrounded operation on the same bytes in the same run.
One core, medians of interleaved repeats, results checked before the clock starts, compilation excluded."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import INTERRUPTED, UsageError
from experiments.cli.record_file import check_file, write_file
from experiments.fields import one_line

if TYPE_CHECKING:
    from experiments.bench.measure import Row

BENCHES = ("round", "arithmetic", "matmul", "adam", "scan", "reductions", "peers", "startup", "store", "network")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = ", ".join(BENCHES)
    parser.add_argument("bench", metavar="BENCH", nargs="?", default="all", help=f"{what} or all (default: all)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every number, the machine and the date")
    sizes = "elements of an array (scan, network: steps): numbers or powers, comma-separated, such as 2^15,1000"
    parser.add_argument("--size", metavar="N", help=sizes)
    parser.add_argument("--repeats", metavar="N", default="7", help="repeats that the median is of (default: 7)")
    parser.add_argument("--format", metavar="NAMES", default="bfloat16", help="formats to round to (default: bfloat16)")


def run(args: argparse.Namespace) -> int:
    from experiments.bench.measure import one_core

    chosen = _benches(args.bench)
    sizes = _sizes(args.size)
    repeats = _integer("--repeats", args.repeats, 1, 1000)
    check_file("bench", args.json)
    with one_core() as pinned:  # before NumPy and Numba are imported, which count the processors
        settings = _settings(args.format, sizes, repeats)
        return _measure(chosen, settings, args.json, pinned)


def _measure(chosen: Sequence[str], settings: Any, file: Path | None, pinned: str) -> int:
    from experiments.bench.measure import machine
    from experiments.cli.progress import Progress, clock

    started = time.monotonic()
    jobs = [job for name in chosen for job in importlib.import_module(f"experiments.bench.{name}").jobs(settings)]
    facts = machine() | {"pinned": pinned, "repeats": settings.repeats}
    print(f"{facts['processor']}, {pinned}, {settings.repeats} repeats, load {facts['load']}", flush=True)
    rows: list[Row] = []
    code = 0
    with Progress(len(jobs), len(jobs), "fpsim bench") as progress:
        for job in jobs:
            try:
                rows += job.run(settings)
            except KeyboardInterrupt:
                done = "the table holds what was finished" if rows else "no bench was finished"
                progress.say(f"fpsim bench: interrupted; {done}")
                code = INTERRUPTED
                break
            except Exception as error:  # the other jobs can still be measured
                progress.say(f"fpsim bench: {job.title} failed: {_reason(error)}")
                code = 1
            progress.advance(1, cells=1)
    if rows:
        _print_table(rows)
    if file is not None:
        facts |= {"finished": code == 0, "seconds": round(time.monotonic() - started, 1)}
        write_file(file, facts | {"rows": [row.record() for row in rows]})
        print(f"record: {file}")
    print(f"time: {clock(time.monotonic() - started)}")
    return code


def _reason(error: Exception) -> str:
    from experiments.bench.measure import WrongResult

    if isinstance(error, WrongResult):
        return f"a result is wrong, which is a bug: please report it: {error}"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is; choose a smaller --size"
    return one_line(error)[:300]


def _print_table(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table(box=None, pad_edge=False)
    for title in ("bench", "case", "size"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for title in ("time", "x", "of", "target", "met"):
        table.add_column(title, justify="left" if title == "of" else "right", no_wrap=True)
    for row in rows:
        if not row.skipped:
            table.add_row(*_cells(row), style="bold" if row.met is False else None)
    if table.rows:
        console.print(table)
    for line in dict.fromkeys(f"skipped: {row.bench} {row.case}: {row.skipped}" for row in rows if row.skipped):
        console.print(line, markup=False, soft_wrap=True)
    decided = [row.met for row in rows if row.met is not None]
    if decided:
        print(f"{sum(decided)} of {len(decided)} targets met")
    each = "matmul: a multiply-add; scan, reductions: a rounded operation"
    print(f"time: ns an element ({each}); x: multiple of the time of what 'of' names")


def _cells(row: Row) -> tuple[str, ...]:
    size = f"2^{row.size.bit_length() - 1}" if row.size > 1 and row.size & (row.size - 1) == 0 else str(row.size)
    value = f"{row.value:.3g} {row.unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    target = "" if row.target is None else f"<= {row.target:.3g}{' ' + row.unit if row.target_is_value else ''}"
    met = {None: "", True: "yes", False: "NO"}[row.met]
    return row.bench, row.case, size, value, ratio, row.reference if row.ratio is not None else "", target, met


def _benches(name: str) -> Sequence[str]:
    if name == "all":
        return BENCHES
    if name not in BENCHES:
        raise UsageError(f"fpsim bench: error: BENCH: {name!r} is unknown; admissible: {', '.join(BENCHES)}, all")
    return (name,)


def _settings(formats: str, sizes: tuple[int, ...] | None, repeats: int) -> Any:
    from experiments.bench.measure import Settings
    from fpsim.formats import format as named_format

    names = tuple(dict.fromkeys(name.strip() for name in formats.split(",")))
    for name in names:
        try:
            named_format(name)
        except ValueError as error:
            raise UsageError(f"fpsim bench: error: --format: {error}") from error
    return Settings(names, sizes, repeats)


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sizes = []
    for word in text.split(","):
        base, power, exponent = word.strip().partition("^")
        if power and (base != "2" or not exponent.isdecimal() or int(exponent) > 32):
            raise UsageError(f"fpsim bench: error: --size: {word!r} is no number and no power 2^k with k in 0..32")
        sizes.append(1 << int(exponent) if power else _integer("--size", word, 1, 1 << 32))
    return tuple(dict.fromkeys(sizes))


def _integer(flag: str, text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise UsageError(f"fpsim bench: error: {flag}: {text!r} is no integer") from error
    if not low <= value <= high:
        raise UsageError(f"fpsim bench: error: {flag}: {value} is outside {low}..{high}")
    return value
