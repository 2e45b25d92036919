"""Runs cells: groups them into batches and hands those to threads, processes, a Dask cluster or nobody (serial).

A worker keeps the rows of its batch in the store and says so; the driver learns keys. A worker that does not see the
folder, on another machine, sends the rows and the driver keeps them. A result depends neither on the engine nor on how
cells were grouped.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from experiments.backends import Backend, Where, open_backend
from experiments.cell import Cell, kin
from experiments.meter import Meter, telling, words
from experiments.whole_files import StoreError
from experiments.worker import Result, Runner

Row = dict[str, Any]
# What the driver does with a finished batch: its cells, their rows (None if it failed) and the failure. Of rows that a
# worker has kept it gets key, outcome and reason only.
Finished = Callable[[Sequence[Cell], list[Row] | None, BaseException | None], None]

BATCHES_PER_WORKER = 6  # enough that workers end together, few enough that every batch stays wide
WIDE = 128  # lanes: a call as wide as this is carried out at full speed
WIDEST = 1024  # lanes: above, a call only takes longer to be finished and kept
ELEMENTS = 1 << 24  # of one array of a call: 128 MiB
ORDER_SECONDS = 1.0  # how often the batches that wait are put in order of the time that they will take
PROBE = 0.05  # of the work: what is run first to learn how long the rest takes
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Batch:
    """Cells that run in one launch: equal in everything but their format's widths."""

    cells: tuple[Cell, ...]
    suspect: bool = False  # was in flight when a worker process died: runs alone, so that the culprit is known

    @property
    def cost(self) -> int:
        return sum(cell.cost for cell in self.cells)


def batches(cells: Sequence[Cell], workers: int) -> list[Batch]:
    """Cells grouped into batches, the most expensive first so that workers end together.

    A batch has at least ``WIDE`` lanes if its kin are as many and no worker is left without work for that. Before all
    others run a few that may be narrower, from which follows how long the others take.
    """
    if not cells:
        return []
    kinds = [list(group) for _, group in groupby(sorted(cells, key=kin), key=kin)]
    total = sum(cell.cost for cell in cells)
    first = [Batch(tuple(members)) for members in _probes(kinds, total)]
    largest = max(total / (BATCHES_PER_WORKER * workers), 1.0)
    wide = WIDE
    while True:
        found = [Batch(tuple(part)) for members in kinds if members for part in _parts(members, wide, largest)]
        if len(found) >= workers or wide <= 1:
            return first + sorted(found, key=lambda batch: -batch.cost)
        wide //= 2


def _probes(kinds: Sequence[list[Cell]], total: int) -> list[list[Cell]]:
    """Take from each telling kin what is worth its share of ``PROBE`` of all, so that a wide batch is left, or all."""
    chosen = {words(cell) for cell in telling([members[0] for members in kinds])}
    share = PROBE * total / len(chosen)
    found = []
    for members in kinds if len(chosen) > 1 else []:
        if words(members[0]) in chosen:
            chosen.remove(words(members[0]))
            wide = math.ceil(WIDE / members[0].seeds)
            worth = max(int(share / members[0].cost), wide if len(members) >= 2 * wide else 1)
            left = len(members) - wide
            count = len(members) if worth >= len(members) or left <= 0 else min(worth, left)
            count = min(count, _widest(members[0]))
            found.append(members[:count])
            del members[:count]
    return found


def _parts(members: Sequence[Cell], wide: int, largest: float) -> list[Sequence[Cell]]:
    """Kin cut into parts of at most ``largest`` cost, but at least ``wide`` lanes, and no wider than memory allows."""
    narrowest = math.ceil(wide / members[0].seeds)
    pieces = math.ceil(sum(cell.cost for cell in members) / largest)
    pieces = min(pieces, max(len(members) // narrowest, 1))
    pieces = max(pieces, math.ceil(len(members) / _widest(members[0])))
    cuts = [round(i * len(members) / pieces) for i in range(pieces + 1)]
    return [members[a:b] for a, b in pairwise(cuts)]


def _widest(cell: Cell) -> int:
    """The number of cells like this one that a batch may have."""
    return max(1, min(WIDEST // cell.seeds, ELEMENTS // (cell.seeds * cell.dimension)))


def shares(queue: Sequence[Batch], others: int) -> list[Batch]:
    """Where a driver begins that finds ``others`` at work on the same list: in the middle, then at quarters, and so on.

    Each goes round the whole list and passes over what it finds finished; so they share the work, and what one of them
    leaves undone when it is killed the others still do.
    """
    fraction, step = 0.0, 0.5
    while others:
        fraction += step * (others & 1)
        others, step = others >> 1, step / 2
    start = int(fraction * len(queue))
    return [*queue[start:], *queue[:start]]


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
    cluster: str | None = None,
    out: Path | None = None,
    runner: Runner | None = None,
    advance: Callable[[int], None] = lambda _: None,
    meter: Meter | None = None,
    stop: Stop | None = None,
    others: int = 0,
) -> None:
    """Run every batch; returns when all are finished, or when ``stop`` is set and the running ones have noticed.

    Parameters
    ----------
    work : batches, run in this order
    finished : called in this thread for every finished batch
    engine : "serial", "threads", "processes" or "dask"
    workers : int, batches at a time (a cluster named by ``scheduler`` has its own number)
    scheduler : address of a running Dask scheduler, for "dask" only
    cluster : kind of a batch system to start Dask workers with, such as "slurm", for "dask" only
    out : the prepared folder that rows are kept in; ``None``: ``finished`` gets them whole
    runner : what runs a batch, ``experiments.simulate.run_batch`` unless given
    advance : called with element-steps as they are done
    meter : told what is to be done, what runs and what is done
    stop : asks to stop from outside
    others : drivers that are at work on the same list already: this one begins elsewhere in it

    Raises
    ------
    StoreError
        A row could not be kept: the disk is full, say. What was kept before stays.

    Notes
    -----
    A batch that raises is split, so that one bad cell does not take its neighbours with it; a single cell that raises
    is kept as a failed one and handed to ``finished`` with the exception. Likewise when a worker process dies.
    """
    stop, meter = stop or Stop(), meter or Meter(workers)
    meter.add(work)
    folder = None if out is None else out.resolve()  # workers may have another working directory

    def note(number: int, amount: int) -> None:
        meter.advance(number, amount)
        advance(amount)

    where = Where(engine, workers, scheduler, cluster)
    with open_backend(where, runner, folder, note, stop.event) as backend:
        drive = _Drive(backend, deque(shares(work, others)), finished, stop, meter, folder, others > 0)
        try:
            drive.run()
        except BaseException:
            stop.event.set()  # or closing the backend would wait for batches that nobody wants any more
            backend.poll()
            raise


@dataclass
class _Drive:
    """The driver's loop, the same for every backend."""

    backend: Backend
    queue: deque[Batch]
    finished: Finished
    stop: Stop
    meter: Meter
    out: Path | None
    shared: bool
    pending: dict[Future[Result], tuple[int, Batch]] = field(default_factory=dict)
    count: int = 0  # batches handed over so far, which numbers them
    ordered: float = -math.inf

    def run(self) -> None:
        stop, noticed = self.stop.event, False
        while self.pending or (self.queue and not stop.is_set()):
            self._fill()
            done, _ = wait(self.pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            self.backend.poll()
            self.meter.workers = self.backend.workers
            if stop.is_set() and not noticed:
                noticed = True
                self.stop.noticed()
            for future in done:
                self._settle(future, *self.pending.pop(future))
            self._order()
            if stop.is_set() and self.backend.abandons:
                for future in self.pending:
                    future.cancel()
                return

    def _order(self) -> None:
        """Put the batches that wait in order of the time that they take, the longest first, once that can be told."""
        if time.monotonic() - self.ordered >= ORDER_SECONDS and len(self.queue) > 1 and not self.shared:
            order = self.meter.order(self.queue)
            self.queue = self.queue if order is None else deque(order)
            self.ordered = time.monotonic()

    def _fill(self) -> None:
        """Keep as many batches in flight as the backend takes; a suspect flies alone."""
        queue, pending = self.queue, self.pending
        while queue and not self.stop.event.is_set() and len(pending) < self.backend.slots:
            if any(batch.suspect for _, batch in pending.values()) or (queue[0].suspect and pending):
                return
            batch, number = queue.popleft(), self.count
            self.meter.begin(number, batch)
            try:
                future = self.backend.submit(number, batch.cells)
            except BrokenExecutor:  # a worker died since the last look
                self._again(number, [batch])
                if not pending:
                    self.backend.restart()
                return
            pending[future] = (number, batch)
            self.count += 1

    def _settle(self, future: Future[Result], number: int, batch: Batch) -> None:
        """Keep what a batch gave, or decide what becomes of a batch that failed."""
        # Only a scheduler that goes away cancels a batch that nobody gave up.
        error = ConnectionError("the scheduler dropped the batch") if future.cancelled() else future.exception()
        if isinstance(error, StoreError):
            raise error
        if error is None:
            self._keep(future.result(), number, batch)
        elif self.stop.event.is_set():
            self.meter.end(number, None)  # cancelled: its cells are simply not finished
        elif isinstance(error, BrokenExecutor) and not batch.suspect:
            self.backend.restart()
            self._again(number, [Batch(batch.cells, suspect=True)])
        else:
            if isinstance(error, BrokenExecutor):
                self.backend.restart()
            if len(batch.cells) == 1:
                self._fail(error, number, batch)
            else:
                self._again(number, [Batch((cell,), batch.suspect) for cell in batch.cells])

    def _again(self, number: int, parts: Sequence[Batch]) -> None:
        self.meter.end(number, None)
        self.meter.add(parts, count=False)
        self.queue.extendleft(reversed(parts))

    def _keep(self, result: Result, number: int, batch: Batch) -> None:
        from experiments import schema, store

        rows = result.rows
        if self.out is not None and not result.kept:  # the worker does not see the folder
            rows = store.keep_cells(self.out, batch.cells, rows)
        failed = sum(row["outcome"] == schema.FAILED for row in rows)
        self.meter.end(number, result.seconds, len(batch.cells), failed)
        self.finished(batch.cells, rows, None)

    def _fail(self, error: BaseException, number: int, batch: Batch) -> None:
        from experiments import schema, store

        if self.out is not None:
            reason, trace = describe(error)
            store.keep_cells(self.out, batch.cells, [schema.failed_row(batch.cells[0], reason)], trace)
        self.meter.end(number, None, 1, 1)
        self.finished(batch.cells, None, error)


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
