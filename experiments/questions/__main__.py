"""``python -m experiments.questions [NAME ..] [--json FILE]``: run the studies, print what was found."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from experiments.cell import package_version
from experiments.questions import questions
from experiments.questions.question import Rows


def main(words: list[str] | None = None) -> int:
    known = questions()
    parser = argparse.ArgumentParser(prog="python -m experiments.questions", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write rows and findings; others that it holds stay"
    )
    given = parser.parse_args(words)
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"NAME {unknown[0]!r} is unknown; admissible: {', '.join(known)}")
    console, record, failed = Console(), {}, 0
    for name in given.names or known:
        question = known[name]
        with console.status(f"{name}: {question.question}"):
            rows = question.run(False)
        console.print(f"[bold]{name}[/bold]: {question.question}")
        console.print(_table(rows))
        finding = question.finding(rows)
        console.print(finding)
        wrong = [text for text, true in question.claims(rows) if not true]
        failed += len(wrong)
        for text in wrong:
            console.print(f"NOT BORNE OUT: {text}")
        record[name] = {"question": question.question, "finding": finding, "rows": rows}
    if given.json is not None:
        old = msgspec.json.decode(given.json.read_bytes())["questions"] if given.json.exists() else {}
        ordered = {name: (old | record)[name] for name in known if name in old or name in record}
        content = {"version": package_version(), "questions": ordered}
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
        console.print(f"wrote {given.json}")
    return 1 if failed else 0


def _table(rows: Rows) -> Table:
    table = Table(*(name for name, value in rows[0].items() if not isinstance(value, list)))
    for row in rows:
        table.add_row(
            *(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values() if not isinstance(x, list))
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
