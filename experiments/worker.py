"""What happens where a batch runs: its cells are carried out and their rows kept, on one core."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.study import Cell, code_version

Row = dict[str, Any]
Runner = Callable[[Sequence[Cell], Callable[[int], None], Callable[[], bool]], list[Row]]
# A worker has one core: whatever would start threads of its own in it is told so.
ONE_CORE = dict.fromkeys(
    ("FPSIM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Task:
    """What a worker needs to know beside its cells."""

    runner: Runner | None
    out: Path | None  # the folder that it keeps rows in; None: rows go back
    code: str
    proof: str = ""  # a file of the folder: a worker on another machine that does not find it does not see the folder


@dataclass(frozen=True)
class Result:
    """What a worker says of a batch: a row for each cell, of those that it has kept only key, outcome and reason."""

    rows: list[Row]
    kept: bool
    seconds: float | None  # of work, without loading and compiling; None if part of it was found done


def run_cells(
    task: Task, cells: Sequence[Cell], report: Callable[[int], None], cancelled: Callable[[], bool]
) -> Result:
    """Run one batch where it was sent, check that every cell came back, and keep the rows."""
    runner = task.runner
    if runner is None:
        from experiments.simulate import run_batch

        runner = run_batch
    watch = _Stopwatch(report)
    if task.out is None:
        return Result(_run(runner, cells, watch.report, cancelled), False, watch.seconds())

    from experiments import store

    there = store.look(task.out, [cell.key for cell in cells]).finished  # another driver was quicker
    missing = [cell for cell in cells if cell.key not in there]
    report(sum(cell.cost for cell in cells) - sum(cell.cost for cell in missing))
    rows = store.keep_cells(task.out, missing, _run(runner, missing, watch.report, cancelled)) if missing else []
    said = {row["key"]: {name: row[name] for name in ("key", "outcome", "reason")} for row in rows}
    elsewhere = {"outcome": None, "reason": "another process made it"}
    seconds = None if there else watch.seconds()
    return Result([said.get(cell.key, {"key": cell.key, **elsewhere}) for cell in cells], True, seconds)


class _Stopwatch:
    """What a batch takes, without what comes before its first report: loading code, and compiling it the first time."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self.pass_on = report
        self.began = self.first_at = self.last_at = time.perf_counter()
        self.first = self.done = 0

    def report(self, amount: int) -> None:
        self.last_at = time.perf_counter()
        if not self.done:
            self.first, self.first_at = amount, self.last_at
        self.done += amount
        self.pass_on(amount)

    def seconds(self) -> float:
        now, later = time.perf_counter(), self.done - self.first
        if not later:
            return now - self.began
        return now - self.first_at + self.first * (self.last_at - self.first_at) / later


def _run(
    runner: Runner, cells: Sequence[Cell], report: Callable[[int], None], cancelled: Callable[[], bool]
) -> list[Row]:
    rows = runner(cells, report, cancelled)
    if [row["key"] for row in rows] != [cell.key for cell in cells]:
        raise RuntimeError(f"{len(cells)} cells were run, and other rows came back")
    return rows


# What a worker process shares with the driver: element-steps done by each slot, and the wish to stop.
_shared: tuple[Any, Any] | None = None


def enter_process(done: Any, told: Any) -> None:
    global _shared
    _shared = (done, told)
    os.environ.update(ONE_CORE)  # before NumPy, Numba and polars are imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the driver passes it on
    threading.Thread(target=die_with_driver, daemon=True).start()


def die_with_driver() -> None:
    """Wait for the end of the driver, however it ends, and end this process. For a thread of a worker."""
    import multiprocessing

    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def run_in_process(task: Task, cells: Sequence[Cell], slot: int) -> Result:
    _check_code(task.code)
    assert _shared is not None
    done, told = _shared

    def report(amount: int) -> None:
        done[slot] += amount  # nobody else writes here

    return run_cells(task, cells, report, told.is_set)


def run_remotely(task: Task, cells: Sequence[Cell]) -> Result:
    from fpsim.cpu.threads import set_threads, threads

    _check_code(task.code)
    if threads() != 1:  # Dask gives each batch one of the worker's threads
        set_threads(1)
    if task.out is not None and not (task.out / task.proof).exists():
        task = replace(task, out=None)
    return run_cells(task, cells, lambda _: None, lambda: False)


def _check_code(code: str) -> None:
    """A row made by other code than its key says would be a lie."""
    if code != code_version():
        raise RuntimeError(f"the worker has fpsim {code_version()}, the driver {code}: install the same code on both")
