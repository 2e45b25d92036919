"""Where batches run. A backend takes batches and gives futures; the engine's loop is the same for all of them."""

from __future__ import annotations

import abc
import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.fields import StudyError
from experiments.study import Cell, code_version
from experiments.worker import ONE_CORE, Result, Runner, Task, enter_process, run_cells, run_in_process, run_remotely

# Called with the number of a batch and the element-steps that it has done since the last call.
Advance = Callable[[int, int], None]

ENGINES = ("serial", "threads", "processes", "dask")
# Batch systems that workers can be started with: their classes in dask_jobqueue, and the command that submits a job.
CLUSTERS = {
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "sge": ("SGECluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
    "oar": ("OARCluster", "oarsub"),
    "moab": ("MoabCluster", "msub"),
    "htcondor": ("HTCondorCluster", "condor_submit"),
}
CONNECT_SECONDS = 10
LOOK_SECONDS = 2.0  # how often a cluster is asked how many workers it has


@dataclass(frozen=True)
class Where:
    """The engine and what belongs to it."""

    engine: str = "threads"
    workers: int = 1
    scheduler: str | None = None
    cluster: str | None = None


class Backend(abc.ABC):
    """Takes batches, at most ``slots`` at a time, of which ``workers`` run, and returns a future of their result."""

    slots: int
    abandons = False  # whether running batches cannot be told to stop, so that a stop leaves them behind

    def __init__(self, task: Task, workers: int, advance: Advance, stop: threading.Event) -> None:
        self.task, self.advance, self.stop = task, advance, stop
        self.workers = self.slots = workers

    @abc.abstractmethod
    def submit(self, number: int, cells: Sequence[Cell]) -> Future[Result]: ...

    def poll(self) -> None:  # noqa: B027  (threads have nothing to do here)
        """Called every tenth of a second: pass progress out of the workers, and a stop into them."""

    def restart(self) -> None:  # noqa: B027
        """Start afresh after a worker died."""

    def close(self) -> None:  # noqa: B027
        """Release the workers."""


class Serial(Backend):
    """In the calling thread, for debuggers and profilers."""

    def __init__(self, task: Task, advance: Advance, stop: threading.Event) -> None:
        super().__init__(task, 1, advance, stop)

    def submit(self, number: int, cells: Sequence[Cell]) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            report = _numbered(self.advance, number)
            future.set_result(run_cells(self.task, cells, report, self.stop.is_set))
        except Exception as error:
            future.set_exception(error)
        return future


class Threads(Backend):
    """Threads of this process: the machine's kernels release the interpreter lock. Each uses one core."""

    def __init__(self, task: Task, workers: int, advance: Advance, stop: threading.Event) -> None:
        from fpsim.cpu.threads import set_threads, threads

        super().__init__(task, workers, advance, stop)
        self.before = threads()
        set_threads(1)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="batch")

    def submit(self, number: int, cells: Sequence[Cell]) -> Future[Result]:
        return self.pool.submit(run_cells, self.task, cells, _numbered(self.advance, number), self.stop.is_set)

    def close(self) -> None:
        from fpsim.cpu.threads import set_threads

        self.pool.shutdown()
        set_threads(self.before)


@dataclass
class _Flight:
    number: int
    future: Future[Result]
    seen: int = 0  # element-steps that were passed on


class Processes(Backend):
    """Processes of their own, one core each. They outlive neither the driver nor a stop."""

    def __init__(self, task: Task, workers: int, advance: Advance, stop: threading.Event) -> None:
        import multiprocessing

        super().__init__(task, workers, advance, stop)
        self.context = multiprocessing.get_context("spawn")  # fork copies locks that threads of the driver hold
        # Each batch in flight has a slot, in which its worker counts element-steps.
        self.done = self.context.Array("q", workers, lock=False)
        self.told = self.context.Event()
        self.flights: list[_Flight | None] = [None] * workers
        self.pool = self._open()

    def _open(self) -> Executor:
        shared = (self.done, self.told)
        return ProcessPoolExecutor(self.slots, mp_context=self.context, initializer=enter_process, initargs=shared)

    def submit(self, number: int, cells: Sequence[Cell]) -> Future[Result]:
        self.poll()
        slot = next(i for i, flight in enumerate(self.flights) if flight is None or flight.future.done())
        self.done[slot] = 0
        future = self.pool.submit(run_in_process, self.task, cells, slot)
        self.flights[slot] = _Flight(number, future)
        return future

    def poll(self) -> None:
        if self.stop.is_set():
            self.told.set()
        for flight, done in zip(self.flights, self.done, strict=True):
            if flight is not None and done > flight.seen:
                self.advance(flight.number, done - flight.seen)
                flight.seen = done

    def restart(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = self._open()

    def close(self) -> None:
        self.poll()
        self.pool.shutdown()


class Dask(Backend):
    """Workers of a Dask cluster; the cluster itself reschedules what a lost worker had."""

    abandons = True

    def __init__(self, task: Task, where: Where, advance: Advance, stop: threading.Event) -> None:
        super().__init__(task, where.workers, advance, stop)
        self.cluster: Any = None
        self.client = self._connect(where)
        self.looked = -LOOK_SECONDS
        self.poll()
        self.proof: Path | None = None
        if task.out is not None:  # swept up like any temporary file, should this process be killed
            self.proof = task.out / f".probe-{secrets.token_hex(8)}.tmp"
            self.proof.write_bytes(b"")
            self.task = replace(task, proof=self.proof.name)
        self.pool = self.client.get_executor(pure=False)

    def _connect(self, where: Where) -> Any:
        distributed = _import_distributed()
        try:
            if where.cluster is not None:  # whose options are in Dask's own configuration
                self.cluster = getattr(_import_jobqueue(), CLUSTERS[where.cluster][0])()
                self.cluster.scale(where.workers)
                return distributed.Client(self.cluster)
            if where.scheduler is not None:
                return distributed.Client(where.scheduler, timeout=CONNECT_SECONDS)
            return distributed.Client(
                n_workers=where.workers,
                threads_per_worker=1,
                dashboard_address=":0",  # any free port: the usual one may be taken
                silence_logs="CRITICAL",
                env=ONE_CORE,
            )
        except (OSError, RuntimeError, ValueError) as error:
            detail = " ".join(str(error).split())
            if where.cluster is not None:
                raise StudyError("cluster", f"{where.cluster!r} cannot be started ({detail})") from error
            raise StudyError("scheduler", f"{where.scheduler} does not answer ({detail})") from error

    def submit(self, number: int, cells: Sequence[Cell]) -> Future[Result]:
        future: Future[Result] = self.pool.submit(run_remotely, self.task, cells)
        cost = sum(cell.cost for cell in cells)
        future.add_done_callback(lambda _: self.advance(number, cost))
        return future

    def poll(self) -> None:
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        self.workers = max(1, sum(self.client.nthreads().values()))
        self.slots = 2 * self.workers  # so that no worker waits for the driver

    def close(self) -> None:
        self.pool.shutdown(wait=False)
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()
        if self.proof is not None:
            self.proof.unlink(missing_ok=True)


def check_engine(engine: str, scheduler: str | None = None, cluster: str | None = None) -> None:
    """Refuse an engine that cannot work, before any work.

    Raises
    ------
    StudyError
        An unknown engine or cluster, a scheduler or cluster for an engine that has none, or a package that is missing.
    """
    if engine not in ENGINES:
        raise StudyError("engine", f"{engine!r} is unknown; admissible: {', '.join(ENGINES)}")
    for name, value in (("scheduler", scheduler), ("cluster", cluster)):
        if value is not None and engine != "dask":
            raise StudyError(name, f"{value!r} needs --engine dask (the engine is {engine})")
    if engine == "dask":
        _import_distributed()
    if cluster is not None:
        if cluster not in CLUSTERS:
            raise StudyError("cluster", f"{cluster!r} is unknown; admissible: {', '.join(CLUSTERS)}")
        if scheduler is not None:
            raise StudyError("cluster", f"{cluster!r} starts a scheduler of its own; leave out --scheduler")
        _import_jobqueue()
        command = CLUSTERS[cluster][1]
        if shutil.which(command) is None:
            raise StudyError("cluster", f"{cluster!r} needs the command {command}, which is not here")


@contextlib.contextmanager
def open_backend(
    where: Where, runner: Runner | None, out: Path | None, advance: Advance, stop: threading.Event
) -> Iterator[Backend]:
    check_engine(where.engine, where.scheduler, where.cluster)
    task = Task(runner, out, code_version())
    backend: Backend
    if where.engine == "serial":
        backend = Serial(task, advance, stop)
    elif where.engine == "threads":
        backend = Threads(task, where.workers, advance, stop)
    elif where.engine == "processes":
        backend = Processes(task, where.workers, advance, stop)
    else:
        backend = Dask(task, where, advance, stop)
    try:
        yield backend
    finally:
        backend.close()


def _numbered(advance: Advance, number: int) -> Callable[[int], None]:
    return lambda amount: advance(number, amount)


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        reason = "'dask' needs Dask, which is not installed; install the extra: pip install 'fpsim[cluster]'"
        raise StudyError("engine", reason) from error
    return distributed


def _import_jobqueue() -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        reason = "needs dask-jobqueue, which is not installed; install the extra: pip install 'fpsim[jobqueue]'"
        raise StudyError("cluster", reason) from error
    return dask_jobqueue
