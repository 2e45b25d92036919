"""All batches of a self-test, in this process or in several, and what they add up to."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from experiments.selftest.batches import Choice, check
from experiments.selftest.outcome import Outcome
from experiments.worker import die_with_driver

GROUP = 8  # batches that are sent to a process together
SHOWN = 5  # mismatches that are described in the end


@dataclass
class Report:
    """What was checked so far, by operation."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    batches: int = 0

    def add(self, operation: str, outcome: Outcome) -> None:
        found = self.outcomes.setdefault(operation, Outcome())
        found.add(outcome)
        del found.mismatches[SHOWN:]
        self.batches += 1

    @property
    def cases(self) -> int:
        return sum(outcome.cases for outcome in self.outcomes.values())

    @property
    def wrong(self) -> int:
        return sum(outcome.wrong for outcome in self.outcomes.values())


Plan = Sequence[tuple[int, str]]


def execute(choice: Choice, plan: Plan, processes: int, report: Report, finished: Callable[[Outcome], None]) -> None:
    """Check all batches and add them to ``report``; ``finished`` is called for each.

    With one process all is done in this one.
    """
    if processes == 1:
        for number, operation in plan:
            outcome = check(choice, number, operation)
            report.add(operation, outcome)
            finished(outcome)
        return
    groups = iter([plan[i : i + GROUP] for i in range(0, len(plan), GROUP)])
    with _pool(processes) as pool:
        waiting: dict[Future[list[Outcome]], Plan] = {}
        for group in groups:
            with _without_interrupts():  # the first one starts the processes
                waiting[pool.submit(_check_all, choice, group)] = group
            if len(waiting) < 2 * processes:
                continue
            _collect(waiting, report, finished)
        while waiting:
            _collect(waiting, report, finished)


def _collect(waiting: dict[Future[list[Outcome]], Plan], report: Report, finished: Callable[[Outcome], None]) -> None:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        for (_, operation), outcome in zip(waiting.pop(future), future.result(), strict=True):
            report.add(operation, outcome)
            finished(outcome)


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[Any]:
    """Fresh interpreters, each with one thread; abandoned where an exception leaves the context."""
    import multiprocessing

    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _enter)
    try:
        yield pool
    except BaseException:
        workers = list((pool._processes or {}).values())  # there is no public way before Python 3.14
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        raise
    pool.shutdown()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits, and processes started meanwhile never see it: the terminal sends it to all, and one that is still
    being set up would print a traceback. The driver ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _enter() -> None:
    os.environ["NUMBA_NUM_THREADS"] = os.environ["FPSIM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=die_with_driver, daemon=True).start()


def _check_all(choice: Choice, group: Plan) -> list[Outcome]:
    return [check(choice, number, operation) for number, operation in group]
