"""Fresh processes for work that holds the interpreter lock, and a Ctrl-C that ends them without a word."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any, TypeAlias

from experiments.worker import die_with_driver

Task: TypeAlias = "tuple[Any, ...]"
# Calls work(*task) for every task, and done(task, result) in this process as results come in.
Run: TypeAlias = "Callable[[Iterable[Task], Callable[..., Any], Callable[[Task, Any], None]], None]"


@contextlib.contextmanager
def workers(processes: int) -> Iterator[Run]:
    """Give a function that has tasks done by processes, which start with the first one; with one, all is done here.

    Tasks are made when they are sent, two for each process ahead. What does them is a function that can be imported,
    and what it raises is raised here.

    Examples
    --------
    >>> with workers(1) as run:
    ...     run([(2, 3), (3, 2)], pow, lambda task, result: print(task, result))
    (2, 3) 8
    (3, 2) 9
    """
    if processes == 1:
        yield _here
        return
    with _pool(processes) as pool:

        def run(tasks: Iterable[Task], work: Callable[..., Any], done: Callable[[Task, Any], None]) -> None:
            queue = iter(tasks)
            waiting: dict[Future[Any], Task] = {}
            while True:
                for task in islice(queue, 2 * processes - len(waiting)):
                    with _without_interrupts():  # the first one starts the processes
                        waiting[pool.submit(work, *task)] = task
                if not waiting:
                    return
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    done(waiting.pop(future), future.result())

        yield run


def _here(tasks: Iterable[Task], work: Callable[..., Any], done: Callable[[Task, Any], None]) -> None:
    for task in tasks:
        done(task, work(*task))


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
