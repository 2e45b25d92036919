"""Fresh processes for work that holds the interpreter lock, and a Ctrl-C that ends them without a word."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any

from experiments.worker import die_with_driver


def run_tasks(
    processes: int,
    tasks: Iterable[tuple[Any, ...]],
    work: Callable[..., Any],
    done: Callable[[tuple[Any, ...], Any], None],
) -> None:
    """Call ``work(*task)`` for every task, and ``done(task, result)`` here as results come in.

    Parameters
    ----------
    processes : how many at a time; with one, all is done in this process
    tasks : made when they are sent, two for each process ahead
    work : a function that can be imported; what it raises is raised here
    """
    if processes == 1:
        for task in tasks:
            done(task, work(*task))
        return
    queue = iter(tasks)
    with _pool(processes) as pool:
        waiting: dict[Future[Any], tuple[Any, ...]] = {}
        while True:
            for task in islice(queue, 2 * processes - len(waiting)):
                with _without_interrupts():  # the first one starts the processes
                    waiting[pool.submit(work, *task)] = task
            if not waiting:
                return
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                done(waiting.pop(future), future.result())


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
