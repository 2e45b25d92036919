"""Timing: interleaved repeats on one core, their medians, and what was measured on which machine."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHORTEST_SAMPLE = 2e-3  # seconds; shorter calls are timed many at a time

# What keeps the libraries that are measured from starting threads of their own. They read it when they are imported.
_ONE_THREAD = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WrongResult(Exception):
    """What was about to be timed does not compute what it should."""


@dataclass(frozen=True)
class Settings:
    """What the user chose. ``sizes`` is None for each bench's own, which the targets are about."""

    formats: Sequence[str] = ("bfloat16",)
    sizes: Sequence[int] | None = None
    repeats: int = 7


@dataclass(frozen=True)
class Row:
    """One line of the table.

    value, unit : the median; None where the case was skipped, and then ``skipped`` says why
    reference : what ``ratio`` = value / (the reference's value) compares with
    target : the largest admissible ratio, or value where ``target_is_value``
    """

    bench: str
    case: str
    size: int
    value: float | None
    unit: str = "ns"
    reference: str = ""
    ratio: float | None = None
    target: float | None = None
    target_is_value: bool = False
    skipped: str = ""

    @property
    def met(self) -> bool | None:
        measured = self.value if self.target_is_value else self.ratio
        return None if measured is None or self.target is None else measured <= self.target

    def record(self) -> dict[str, Any]:
        return {**vars(self), "met": self.met}


@dataclass(frozen=True)
class Job:
    """Rows that are measured together. ``run`` makes its arrays itself, so that only one job's are in memory."""

    title: str
    run: Callable[[Settings], list[Row]] = field(compare=False)


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each call. The calls take turns, so that a slow moment of the machine meets them all.

    Everything is called twice before: the first call may compile. With ``time.process_time`` as ``clock`` these are CPU
    seconds of this process, from which others on the same processor take less.
    """
    inner: dict[str, int] = {}
    for name, call in calls.items():
        call()
        started = clock()
        call()
        once = clock() - started
        inner[name] = max(1, min(100_000, math.ceil(SHORTEST_SAMPLE / max(once, 1e-7))))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with _no_garbage_collection():
        for _ in range(repeats):
            for name, call in calls.items():
                turns = range(inner[name])
                started = clock()
                for _ in turns:
                    call()
                samples[name].append((clock() - started) / len(turns))
    return {name: statistics.median(found) for name, found in samples.items()}


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def one_core() -> Iterator[str]:
    """Keep this process on one processor while the context lasts; yields what was done, in words."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update({name: "1" for name in _ONE_THREAD if name != "NUMBA_NUM_THREADS" or "numba" not in sys.modules})
    allowed: set[int] = set()
    try:
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(allowed)})  # the first one serves most interrupts
        said = f"one core: pinned to processor {max(allowed)}"
    except (AttributeError, OSError):  # not on Linux, or not allowed
        allowed = set()
        said = "not pinned to one core: this system does not offer it"
    try:
        yield said
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def machine() -> dict[str, Any]:
    """The machine, the versions and the date of a measurement."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("fpsim", "numpy", "numba", "torch", "ml_dtypes", "gfloat", "qtorch", "pychop"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
