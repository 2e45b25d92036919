"""Are the bits right here? Compare the fast kernels of this machine with the specification in rational arithmetic, bit
for bit: random and hard operands, named and random formats, all rounding modes. Exit code 1 if a result is wrong."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import INTERRUPTED, UsageError
from experiments.cli.record_file import check_file, write_file

if TYPE_CHECKING:
    from experiments.selftest.batches import Choice
    from experiments.selftest.run import Report

MOST_CASES = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", metavar="N", default="1e5", help="how many, at least (default: 1e5)")
    parser.add_argument("--operation", metavar="NAMES", default="all", help="add, mul, exp, ...; all (default)")
    parser.add_argument("--format", metavar="NAMES", help="formats of results (default: many named and random ones)")
    parser.add_argument(
        "--rounding", metavar="MODES", help="such as nearest_even,stochastic8B; stochastic: all of those (default: all)"
    )
    parser.add_argument("--seed", metavar="N", default="0", help="names the cases (default: 0)")
    parser.add_argument("--processes", metavar="N", help="processes at a time (default: one for each processor)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the counts, the machine and the date")


def run(args: argparse.Namespace) -> int:
    from experiments.engine import available_workers
    from experiments.fields import StudyError, count, integer

    try:
        cases = count(MOST_CASES)("cases", args.cases)
        seed = integer(0, (1 << 63) - 1)("seed", args.seed)
        given = available_workers() if args.processes is None else args.processes
        processes = integer(1, 4096)("processes", given)
        choice = _choice(args, seed)
    except StudyError as error:
        raise UsageError(f"fpsim selftest: error: --{error}") from error
    check_file("selftest", args.json)
    return _check(choice, cases, processes, args.json)


def _check(choice: Choice, cases: int, processes: int, file: Path | None) -> int:
    from experiments.bench.measure import machine
    from experiments.cli.progress import Progress, clock
    from experiments.fields import one_line
    from experiments.selftest import run as selftest
    from experiments.selftest.batches import planned, size_of

    started = time.monotonic()
    plan = planned(choice, cases)
    processes = min(processes, len(plan))
    facts = machine()
    print(f"{facts['processor']}, processes: {processes}, seed {choice.seed}", flush=True)
    report = selftest.Report()
    stopped = ""
    total = sum(size_of(operation) for _, operation in plan)
    with Progress(len(plan), total, "fpsim selftest", "batches") as progress:
        try:
            selftest.execute(choice, plan, processes, report, lambda outcome: progress.advance(outcome.cases, cells=1))
        except KeyboardInterrupt:
            stopped = "interrupted"
        except Exception as error:
            stopped = f"stopped: {one_line(error)[:300]}"
        if stopped:
            progress.say(f"fpsim selftest: {stopped}; {report.cases} cases were checked, {report.wrong} were wrong")
    if report.outcomes:
        _print(report)
    if file is not None:
        seconds = round(time.monotonic() - started, 1)
        write_file(file, facts | _record(choice, report, processes) | {"finished": not stopped, "seconds": seconds})
        print(f"record: {file}")
    print(f"time: {clock(time.monotonic() - started)}")
    if stopped:
        return INTERRUPTED if stopped == "interrupted" else 1
    return 1 if report.wrong else 0


def _print(report: Report) -> None:
    for mismatch in _first(report):
        word = "" if mismatch.word is None else f", random word {mismatch.word}"
        print(f"WRONG: {mismatch.operation}({', '.join(mismatch.operands)})")
        print(f"  {mismatch.format}, {mismatch.rounding}{word}: got {mismatch.got}, right is {mismatch.expected}")
        print(f"  {mismatch.call}")
    print(f"{'operation':<14}{'cases':>12}{'seconds':>10}{'wrong':>8}")
    for name, outcome in report.outcomes.items():
        print(f"{name:<14}{outcome.cases:>12}{outcome.seconds:>10.1f}{outcome.wrong:>8}")
    seconds = sum(outcome.seconds for outcome in report.outcomes.values())
    print(f"{'all':<14}{report.cases:>12}{seconds:>10.1f}{report.wrong:>8}")
    if report.wrong:
        print("results are wrong, which is a bug: please report it with the lines above")
    print("seconds: added up over processes, the specification and compilation included")


def _first(report: Report) -> list[Any]:
    """A few mismatches of every operation first, none of them twice as often as another."""
    from itertools import chain, zip_longest

    from experiments.selftest.run import SHOWN

    turns = zip_longest(*(outcome.mismatches for outcome in report.outcomes.values()))
    return [mismatch for mismatch in chain.from_iterable(turns) if mismatch is not None][:SHOWN]


def _record(choice: Choice, report: Report, processes: int) -> dict[str, Any]:
    return {
        "seed": choice.seed,
        "formats": list(choice.formats) or "named and random",
        "modes": list(choice.modes) or "all",
        "processes": processes,
        "cases": report.cases,
        "wrong": report.wrong,
        "operations": {
            name: {"cases": outcome.cases, "seconds": round(outcome.seconds, 1), "wrong": outcome.wrong}
            for name, outcome in report.outcomes.items()
        },
        "mismatches": [vars(mismatch) for mismatch in _first(report)],
    }


def _choice(args: argparse.Namespace, seed: int) -> Choice:
    from experiments.fields import StudyError, names
    from experiments.selftest.batches import OPERATIONS, Choice

    operations: Sequence[str] = OPERATIONS
    if args.operation != "all":
        operations = names(lambda: OPERATIONS)("operation", args.operation)
    formats = tuple(dict.fromkeys(_words(args.format)))
    modes = tuple(dict.fromkeys(_words(args.rounding)))
    from experiments.selftest.formats import mode_of
    from fpsim.formats import format as named_format

    for name, given, read in (("format", formats, named_format), ("rounding", modes, mode_of)):
        for word in given:
            try:
                read(word)
            except ValueError as error:
                raise StudyError(name, str(error)) from error
    return Choice(seed, tuple(operations), formats, modes)


def _words(text: str | None) -> list[str]:
    return [] if text is None else [word.strip() for word in text.split(",")]
