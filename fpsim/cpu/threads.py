"""The threads of the array functions: a few, shared, asleep when there is nothing to do.

A call is cut into pieces that whichever thread is free takes next, the calling thread among them. So a thread that the
system has put aside holds up one piece, not a fixed share of the array. Which thread computes a piece changes no bit:
random bits depend on the place in the array alone.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

MOST = 4  # by default: four cores saturate the memory that rounding waits for
_pool: ThreadPoolExecutor | None = None
_count: int | None = None
_lock = threading.Lock()


def threads() -> int:
    """The number of threads that the array functions use above a size where that pays.

    The last ``set_threads``, else the environment variable FPSIM_THREADS, else the cores that this process may use, at
    most 4.

    Raises
    ------
    ValueError
        FPSIM_THREADS is no positive integer.

    Examples
    --------
    >>> threads() >= 1
    True
    """
    global _count
    if _count is None:
        given = os.environ.get("FPSIM_THREADS", "")
        if given and not (given.isdecimal() and int(given) >= 1):
            raise ValueError(f"FPSIM_THREADS={given!r}; admissible: an integer of at least 1")
        _count = int(given) if given else min(_cores(), MOST)
    return _count


def set_threads(count: int | None) -> None:
    """Use ``count`` threads in the array functions; ``None``: the default again. No result depends on it.

    Parameters
    ----------
    count : int >= 1 or None;  1: the calling thread alone

    Raises
    ------
    ValueError
        ``count`` is not admissible.

    Examples
    --------
    >>> set_threads(2)
    >>> threads()
    2
    >>> set_threads(None)
    """
    global _count
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ValueError(f"count={count!r}; admissible: an integer of at least 1, or None")
    _count = count
    _forget()


def in_pieces(work: Callable[[int, int], None], size: int, piece: int) -> None:
    """Call ``work(start, stop)`` for all pieces of ``range(size)``, in several threads if there are several."""
    count = min(threads(), -(-size // piece))
    if count == 1:
        work(0, size)
        return
    numbers = itertools.count()

    def take() -> None:
        while (start := next(numbers) * piece) < size:
            work(start, min(start + piece, size))

    with _lock:  # or set_threads in another thread might shut the executor down in between
        others = [_executor().submit(take) for _ in range(count - 1)]
    try:
        take()
    finally:
        for other in others:
            if not other.cancel():  # one that has not begun will find nothing left
                other.result()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="fpsim")
    return _pool


def _forget() -> None:
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.shutdown(wait=False)


def _after_fork() -> None:
    """A child has none of its parent's threads: it makes its own when it needs them."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
