"""Compare the model of a tensor core with the card's own matrix instructions, bit for bit, and print what differs.

``python -m experiments.tensor_core --json FILE`` also writes the records. Without a card of compute capability 9.0 it
says so in one line and exits with 1; with differences outside the chained kinds it exits with 1 as well. What runs
without a card is tested; the part that asks a card (``card``) is not: no record of such a run exists so far.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.tensor_core import card
from experiments.tensor_core.compare import compared, lines, settled
from experiments.tensor_core.rows import NOT_ASKED

ORDER = (
    "Chained kinds have two instructions' terms. Where there are more terms than one instruction adds, the order of "
    "the instructions is the library's own: what differs there is no fault of the model of one instruction."
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.tensor_core", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records to FILE")
    parser.add_argument("--seed", type=int, default=0, help="of the random operands")
    given = parser.parse_args(arguments)
    try:
        facts = card.facts()
    except ValueError as error:
        print(f"experiments.tensor_core: {error}", file=sys.stderr)
        return 1
    records = compared(card.product, seed=given.seed)
    print(f"{facts['card']}, torch {facts['torch']}, CUDA {facts['cuda']}")
    print("\n".join([*lines(records), f"Not asked: {'; '.join(NOT_ASKED)}.", ORDER]))
    if given.json:
        date = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
        record = {"date": date, **facts, "seed": given.seed, "settled": settled(records), "records": records}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(what.startswith("agrees") for what in settled(records).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
