"""Where batches run. A backend takes batches and gives futures; the engine's loop is the same for all of them."""

from __future__ import annotations

import abc
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from experiments.fields import StudyError
from experiments.study import Cell, code_version

Row = dict[str, Any]
Runner = Callable[[Sequence[Cell], Callable[[int], None], Callable[[], bool]], list[Row]]

ENGINES = ("serial", "threads", "processes", "dask")
CONNECT_SECONDS = 10


class Backend(abc.ABC):
    """Takes batches, at most ``slots`` at a time, and returns a future of their rows."""

    slots: int
    abandons = False  # whether running batches cannot be told to stop, so that a stop leaves them behind

    def __init__(self, runner: Runner | None, advance: Callable[[int], None], stop: threading.Event) -> None:
        self.runner, self.advance, self.stop = runner, advance, stop

    @abc.abstractmethod
    def submit(self, cells: Sequence[Cell]) -> Future[list[Row]]: ...

    def poll(self) -> None:  # noqa: B027  (only processes have something to do here)
        """Called every tenth of a second: pass progress out of the workers, and a stop into them."""

    def restart(self) -> None:  # noqa: B027
        """Start afresh after a worker died."""

    def close(self) -> None:  # noqa: B027
        """Release the workers."""


class Serial(Backend):
    """In the calling thread, for debuggers and profilers."""

    slots = 1

    def submit(self, cells: Sequence[Cell]) -> Future[list[Row]]:
        future: Future[list[Row]] = Future()
        try:
            future.set_result(run_cells(self.runner, cells, self.advance, self.stop.is_set))
        except Exception as error:
            future.set_exception(error)
        return future


class Threads(Backend):
    """Threads of this process: the machine's kernels release the interpreter lock."""

    def __init__(
        self, workers: int, runner: Runner | None, advance: Callable[[int], None], stop: threading.Event
    ) -> None:
        super().__init__(runner, advance, stop)
        self.slots = workers
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="batch")

    def submit(self, cells: Sequence[Cell]) -> Future[list[Row]]:
        return self.pool.submit(run_cells, self.runner, cells, self.advance, self.stop.is_set)

    def close(self) -> None:
        self.pool.shutdown()


class Processes(Backend):
    """Processes of their own, one Numba thread each. They outlive neither the driver nor a stop."""

    def __init__(
        self, workers: int, runner: Runner | None, advance: Callable[[int], None], stop: threading.Event
    ) -> None:
        import multiprocessing

        super().__init__(runner, advance, stop)
        self.slots = workers
        self.context = multiprocessing.get_context("spawn")  # fork copies locks that threads of the driver hold
        self.done = self.context.Value("q", 0)
        self.told = self.context.Event()
        self.seen = 0
        self.pool = self._open()

    def _open(self) -> Executor:
        shared = (self.done, self.told)
        return ProcessPoolExecutor(self.slots, mp_context=self.context, initializer=_enter_worker, initargs=shared)

    def submit(self, cells: Sequence[Cell]) -> Future[list[Row]]:
        return self.pool.submit(_run_in_worker, self.runner, cells, code_version())

    def poll(self) -> None:
        if self.stop.is_set():
            self.told.set()
        done = self.done.value
        self.advance(done - self.seen)
        self.seen = done

    def restart(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = self._open()

    def close(self) -> None:
        self.poll()
        self.pool.shutdown()


class Dask(Backend):
    """Workers of a Dask cluster; the cluster itself reschedules what a lost worker had."""

    abandons = True

    def __init__(
        self,
        workers: int,
        scheduler: str | None,
        runner: Runner | None,
        advance: Callable[[int], None],
        stop: threading.Event,
    ) -> None:
        super().__init__(runner, advance, stop)
        distributed = _import_distributed()
        try:
            if scheduler is None:
                self.client = distributed.Client(
                    n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
                )
            else:
                self.client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise StudyError("scheduler", f"{scheduler} does not answer ({' '.join(str(error).split())})") from error
        # Twice as many batches as threads, so that no worker waits for the driver.
        self.slots = 2 * max(1, sum(self.client.nthreads().values()))
        self.pool = self.client.get_executor(pure=False)

    def submit(self, cells: Sequence[Cell]) -> Future[list[Row]]:
        future: Future[list[Row]] = self.pool.submit(_run_remotely, self.runner, cells, code_version())
        cost = sum(cell.cost for cell in cells)
        future.add_done_callback(lambda _: self.advance(cost))
        return future

    def close(self) -> None:
        self.pool.shutdown(wait=False)
        self.client.close()


def check_engine(engine: str, scheduler: str | None) -> None:
    """Refuse an engine that cannot work, before any work.

    Raises
    ------
    StudyError
        An unknown engine, a scheduler for an engine that has none, or Dask that is not installed.
    """
    if engine not in ENGINES:
        raise StudyError("engine", f"{engine!r} is unknown; admissible: {', '.join(ENGINES)}")
    if scheduler is not None and engine != "dask":
        raise StudyError("scheduler", f"{scheduler!r} needs --engine dask (the engine is {engine})")
    if engine == "dask":
        _import_distributed()


@contextlib.contextmanager
def open_backend(
    engine: str,
    workers: int,
    scheduler: str | None,
    runner: Runner | None,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> Iterator[Backend]:
    check_engine(engine, scheduler)
    backend: Backend
    if engine == "serial":
        backend = Serial(runner, advance, stop)
    elif engine == "threads":
        backend = Threads(workers, runner, advance, stop)
    elif engine == "processes":
        backend = Processes(workers, runner, advance, stop)
    else:
        backend = Dask(workers, scheduler, runner, advance, stop)
    try:
        yield backend
    finally:
        backend.close()


def run_cells(
    runner: Runner | None, cells: Sequence[Cell], report: Callable[[int], None], cancelled: Callable[[], bool]
) -> list[Row]:
    """Run one batch where it was sent, and check that every cell came back."""
    if runner is None:
        from experiments.simulate import run_batch

        runner = run_batch
    rows = runner(cells, report, cancelled)
    if [row["key"] for row in rows] != [cell.key for cell in cells]:
        raise RuntimeError(f"{len(cells)} cells were run, and other rows came back")
    return rows


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        reason = "'dask' needs Dask, which is not installed; install the extra: pip install 'fpsim[cluster]'"
        raise StudyError("engine", reason) from error
    return distributed


# What a worker process shares with the driver: element-steps done, and the wish to stop.
_shared: tuple[Any, Any] | None = None


def _enter_worker(done: Any, told: Any) -> None:
    global _shared
    _shared = (done, told)
    os.environ["NUMBA_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the driver passes it on
    threading.Thread(target=die_with_driver, daemon=True).start()


def die_with_driver() -> None:
    """Wait for the end of the driver, however it ends, and end this process. For a thread of a worker."""
    import multiprocessing

    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _run_in_worker(runner: Runner | None, cells: Sequence[Cell], code: str) -> list[Row]:
    _check_code(code)
    assert _shared is not None
    done, told = _shared

    def report(amount: int) -> None:
        with done.get_lock():
            done.value += amount

    return run_cells(runner, cells, report, told.is_set)


def _run_remotely(runner: Runner | None, cells: Sequence[Cell], code: str) -> list[Row]:
    _check_code(code)
    return run_cells(runner, cells, lambda _: None, lambda: False)


def _check_code(code: str) -> None:
    """A row made by other code than its key says would be a lie."""
    if code != code_version():
        raise RuntimeError(f"the worker has fpsim {code_version()}, the driver {code}: install the same code on both")
