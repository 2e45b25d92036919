"""Questions that the literature leaves open, each answered by a study that ships: run the studies, print the tables and
the findings, whose every number comes from the tables. Without arguments: all of them. Exit code 1 if what a finding
claims is not borne out by the numbers."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import INTERRUPTED, UsageError
from experiments.cli.record_file import check_file
from experiments.fields import one_line

if TYPE_CHECKING:
    from experiments.questions.question import Question, Rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="see --list (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names and the questions, and run nothing")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="also write rows and findings; of other questions, FILE keeps its own"
    )


def run(args: argparse.Namespace) -> int:
    from experiments.questions import questions

    known = questions()
    for name in args.names:
        if name not in known:
            raise UsageError(f"fpsim questions: error: NAME: {name!r} is unknown; admissible: {', '.join(known)}")
    chosen = [known[name] for name in dict.fromkeys(args.names or known)]
    if args.list:
        if args.json is not None:
            raise UsageError("fpsim questions: error: --json has no meaning with --list; leave it out")
        width = max(len(question.name) for question in chosen)
        print("\n".join(f"{question.name:<{width}}  {question.question}" for question in chosen))
        return 0
    check_file("questions", args.json)
    return _answer(chosen, args.json, _recorded(args.json))


def _answer(chosen: Sequence[Question], file: Path | None, record: dict[str, Any]) -> int:
    from experiments.cli.progress import clock

    started, code, answered = time.monotonic(), 0, 0
    for number, question in enumerate(chosen):
        try:
            rows = _rows(question, f"{number + 1} of {len(chosen)}")
        except KeyboardInterrupt:
            print(f"fpsim questions: interrupted; {answered} of {len(chosen)} were answered", file=sys.stderr)
            code = INTERRUPTED
            break
        except Exception as error:  # the other questions can still be answered
            reason = one_line(error)[:300]
            print(f"fpsim questions: {question.name} failed: {reason}", file=sys.stderr)
            code = 1
            continue
        answered += 1
        code = max(code, _told(question, rows))
        record[question.name] = {"question": question.question, "finding": question.finding(rows), "rows": rows}
    if file is not None and answered:
        _write(file, record)
        print(f"record: {file}")
    print(f"time: {clock(time.monotonic() - started)}")
    return code


def _rows(question: Question, place: str) -> list[dict[str, Any]]:
    """The rows of a question; meanwhile the terminal says which one is at work."""
    from rich.console import Console

    told = f"fpsim questions: {question.name} ({place})"
    console = Console(stderr=True)
    if not console.is_terminal:
        print(told, file=sys.stderr, flush=True)
    with console.status(told):
        return question.run(False)


def _told(question: Question, rows: Rows) -> int:
    """Print question, table and finding, and give 1 if a claim of the finding is not borne out."""
    import shutil
    import textwrap

    from experiments.cli.formats import align

    columns = [name for name, value in rows[0].items() if not isinstance(value, list)]
    table = align([columns, *([_cell(row[name]) for name in columns] for row in rows)])
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 100)
    print("\n".join([f"{question.name}: {question.question}", "", *table, ""]))
    print("\n".join([*textwrap.wrap(question.finding(rows), width), ""]), flush=True)
    wrong = [text for text, true in question.claims(rows) if not true]
    for text in wrong:
        print(f"NOT BORNE OUT: {text}")
    return 1 if wrong else 0


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _recorded(file: Path | None) -> dict[str, Any]:
    """What a record says already, so that questions may be answered one at a time."""
    import msgspec

    if file is None or not file.exists():
        return {}
    try:
        found = msgspec.json.decode(file.read_bytes())
    except (msgspec.DecodeError, OSError) as error:
        raise UsageError(f"fpsim questions: error: --json: {str(file)!r} cannot be read: {error}") from error
    kept = found.get("questions") if isinstance(found, dict) else None
    if not isinstance(kept, dict):
        raise UsageError(f"fpsim questions: error: --json: {str(file)!r} is there and no record of fpsim questions")
    return kept


def _write(file: Path, record: Mapping[str, Any]) -> None:
    import msgspec

    from experiments.cell import package_version
    from experiments.questions import questions
    from experiments.whole_files import write_whole

    content = {"version": package_version(), "questions": {x: record[x] for x in questions() if x in record}}
    write_whole(file, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
