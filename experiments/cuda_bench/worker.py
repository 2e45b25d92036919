"""The process that does the jobs of one part: what it finds goes to the standard output, a line of JSON each.

A job that fails gives a row that says how, and the next one follows. An error that takes the card's context with it
ends the process, with status ``LOST``: whoever started it starts another one after that job.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.parts import PARTS
from experiments.cuda_bench.rows import FULL, QUICK, TINY, Job, Row, Sizes, Skipped

LOST = 3
SIZES = {sizes.name: sizes for sizes in (FULL, QUICK, TINY)}
_LONGEST = 600  # characters of an error


def work(
    part: str, clock: Clock, sizes: Sizes, share: int, shares: int, first: int, say: Callable[[dict[str, Any]], None]
) -> int:
    """Every ``shares``-th job of a part, from the one with the number ``first`` on; the exit status."""
    listed = PARTS[part](clock, sizes)[share::shares]
    for number, job in enumerate(listed[first:], start=first):
        say({"job": number, "case": job.case})
        row = outcome(job)
        row.part, row.case = part, job.case
        say({"row": asdict(row)})
        gc.collect()  # what a job held on the device
        try:
            clock.wait()
        except Exception:
            return LOST
    return 0


def outcome(job: Job) -> Row:
    """The job's row, or one that says why there is none."""
    try:
        return job.row()
    except Skipped as reason:
        return Row(skipped=str(reason))
    except Exception as error:
        # Errors of a compiler are long: how they begin, and how they end.
        text = f"{type(error).__name__}: {error}"
        half = _LONGEST // 2
        return Row(error=text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}")


def main(argv: list[str]) -> int:
    part, device, sizes, share, shares, first = argv
    return work(
        part, Clock(device), SIZES[sizes], int(share), int(shares), int(first),
        lambda event: print(json.dumps(event), flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
