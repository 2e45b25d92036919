"""``fpsim verify --random``: what it prints and records of a hunt through random cells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.cli import INTERRUPTED
from experiments.cli.record_file import write_file

MOST_RUNS = 10**9


def random_cells(runs: int, seed: int, names: Sequence[str] | None, processes: int, file: Path | None) -> int:
    """Hunt, print what was found even if it was interrupted, and give the exit code."""
    from experiments.bench.measure import machine
    from experiments.cell import code_version
    from experiments.cli.progress import Progress, clock
    from experiments.fields import one_line
    from experiments.hunt import Report, hunt
    from experiments.hunt.draw import BLOCKS
    from experiments.hunt.printing import comparisons, lines
    from experiments.hunt.run import SEEDS, Part, batches

    started = time.monotonic()
    facts = machine() | {"code": code_version()}
    count = batches(runs)
    processes = min(processes, count)
    print(
        f"fpsim verify: {count} batches of {BLOCKS} random cells with {SEEDS} runs each, "
        f"seed {seed}, processes: {processes}",
        flush=True,
    )
    report, stopped = Report(), ""
    with Progress(count, runs, "fpsim verify", "batches") as progress:

        def finished(part: Part) -> None:
            progress.advance(part.runs, cells=1)

        try:
            hunt(runs, seed, report, processes, names=names, finished=finished)
        except KeyboardInterrupt:
            stopped = "interrupted"
        except Exception as error:
            stopped = f"stopped: {one_line(error)[:300]}"
        if stopped:
            progress.say(f"fpsim verify: {stopped}; {report.runs} runs were done, {len(report.violations)} violations")
    seconds = time.monotonic() - started
    if report.runs:
        print("\n" + "\n".join(lines(report)))
    if file is not None:
        asked: dict[str, Any] = {"asked": runs, "seed": seed, "selection": names, "processes": processes}
        asked["comparisons"] = sorted(comparisons())  # theorems whose verdicts do not count
        done = {"finished": not stopped, "elapsed": round(seconds, 1)}
        write_file(file, facts | asked | done | report.record())
        print(f"record: {file}")
    print(f"time: {clock(seconds)}")
    if stopped:
        return INTERRUPTED if stopped == "interrupted" else 1
    return 1 if report.violations else 0
