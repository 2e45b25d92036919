"""Runs cells: groups them into batches and hands those to threads, processes, a Dask cluster or nobody (serial).

Results come back to the driver, which alone writes them: no shared file system is needed, and a result depends neither
on the engine nor on how cells were grouped.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

from experiments.backends import Backend, Runner, open_backend
from experiments.cell import Cell, kin

Row = dict[str, Any]
# What the driver does with a finished batch: its cells, their rows (None if it failed) and the failure.
Finished = Callable[[Sequence[Cell], list[Row] | None, BaseException | None], None]

BATCHES_PER_WORKER = 6  # enough that workers end together, few enough that every batch stays wide
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Batch:
    """Cells that run in one launch: of one kin (``experiments.cell.kin``)."""

    cells: tuple[Cell, ...]
    suspect: bool = False  # was in flight when a worker process died: runs alone, so that the culprit is known

    @property
    def cost(self) -> int:
        return sum(cell.cost for cell in self.cells)


def batches(cells: Sequence[Cell], workers: int) -> list[Batch]:
    """Cells grouped into batches of similar cost, the most expensive first so that workers finish together."""
    if not cells:
        return []
    largest = max(sum(cell.cost for cell in cells) / (BATCHES_PER_WORKER * workers), 1.0)
    found = []
    for _, group in groupby(sorted(cells, key=kin), key=kin):
        members = list(group)
        pieces = min(len(members), math.ceil(sum(cell.cost for cell in members) / largest))
        cuts = [round(i * len(members) / pieces) for i in range(pieces + 1)]
        found += [Batch(tuple(members[a:b])) for a, b in pairwise(cuts)]
    return sorted(found, key=lambda batch: -batch.cost)


@dataclass
class Stop:
    """Set once somebody asks to stop; running batches see it through ``cancelled()``."""

    event: threading.Event = field(default_factory=threading.Event)
    signal: int | None = None
    noticed: Callable[[], None] = lambda: None  # called once, when the driver sees it


@contextlib.contextmanager
def stop_on_signals(stop: Stop) -> Iterator[Stop]:
    """The first SIGINT or SIGTERM asks to stop; a second one ends the process at once."""

    def handle(number: int, _: object) -> None:
        stop.signal = number
        stop.event.set()
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may install handlers
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def execute(
    work: Sequence[Batch],
    finished: Finished,
    *,
    engine: str = "threads",
    workers: int = 1,
    scheduler: str | None = None,
    runner: Runner | None = None,
    advance: Callable[[int], None] = lambda _: None,
    stop: Stop | None = None,
) -> None:
    """Run every batch; returns when all are finished, or when ``stop`` is set and the running ones have noticed.

    Parameters
    ----------
    work : batches, run in this order
    finished : called in this thread for every finished batch
    engine : "serial", "threads", "processes" or "dask"
    workers : int, batches at a time (a cluster named by ``scheduler`` has its own number)
    scheduler : address of a running Dask scheduler, for "dask" only
    runner : what runs a batch, ``experiments.simulate.run_batch`` unless given
    advance : called with element-steps as they are done
    stop : asks to stop from outside

    Notes
    -----
    A batch that raises is split, so that one bad cell does not take its neighbours with it; a single cell that raises
    is handed to ``finished`` with the exception. Likewise when a worker process dies.
    """
    stop = stop or Stop()
    queue = deque(work)
    with open_backend(engine, workers, scheduler, runner, advance, stop.event) as backend:
        try:
            _drive(backend, queue, finished, stop)
        except BaseException:
            stop.event.set()  # or closing the backend would wait for batches that nobody wants any more
            backend.poll()
            raise


def _drive(backend: Backend, queue: deque[Batch], finished: Finished, stop: Stop) -> None:
    pending: dict[Future[list[Row]], Batch] = {}
    noticed = False
    while pending or (queue and not stop.event.is_set()):
        _fill(backend, queue, pending, stop.event)
        done, _ = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        backend.poll()
        if stop.event.is_set() and not noticed:
            noticed = True
            stop.noticed()
        for future in done:
            _settle(future, pending.pop(future), queue, finished, backend, stop.event)
        if stop.event.is_set() and backend.abandons:
            for future in pending:
                future.cancel()
            return


def _fill(
    backend: Backend, queue: deque[Batch], pending: dict[Future[list[Row]], Batch], stop: threading.Event
) -> None:
    """Keep as many batches in flight as the backend takes; a suspect flies alone."""
    while queue and not stop.is_set() and len(pending) < backend.slots:
        if any(batch.suspect for batch in pending.values()) or (queue[0].suspect and pending):
            return
        batch = queue.popleft()
        try:
            pending[backend.submit(batch.cells)] = batch
        except BrokenExecutor:  # a worker died since the last look
            queue.appendleft(batch)
            if not pending:
                backend.restart()
            return


def _settle(
    future: Future[list[Row]],
    batch: Batch,
    queue: deque[Batch],
    finished: Finished,
    backend: Backend,
    stop: threading.Event,
) -> None:
    """Hand over what a batch gave, or decide what becomes of a batch that failed."""
    # Only a scheduler that goes away cancels a batch that nobody gave up.
    error = ConnectionError("the scheduler dropped the batch") if future.cancelled() else future.exception()
    if error is None:
        finished(batch.cells, future.result(), None)
        return
    if stop.is_set():
        return  # cancelled: its cells are simply not finished
    if isinstance(error, BrokenExecutor):
        backend.restart()
        if not batch.suspect:
            queue.appendleft(Batch(batch.cells, suspect=True))
            return
    if len(batch.cells) == 1:
        finished(batch.cells, None, error)
    else:
        queue.extendleft(Batch((cell,), batch.suspect) for cell in reversed(batch.cells))


def available_workers() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe(error: BaseException) -> tuple[str, str]:
    """One line and the full traceback of a failure."""
    if isinstance(error, BrokenExecutor):
        return "the worker process died (out of memory?)", ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500], "".join(traceback.format_exception(error))
