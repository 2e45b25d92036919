"""What is being made in a folder, and by whom: ``OUT/study.json``, and ``OUT/drivers/HOST-PID.json`` for each process
that drives a study. Both are data, written whole; a driver renews its file every second and removes it at its end, so
that one whose process is gone was killed. Nothing depends on these files but ``fpsim status`` and the order in which
drivers that share a folder take their work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.whole_files import StoreError, sweep, write_whole

BEAT_SECONDS = 1.0
SILENT_SECONDS = 60.0  # a driver on another machine that was not heard of for so long counts as gone


@dataclass(frozen=True)
class Plan:
    """The study that was started last in a folder: its keys are the cells it consists of."""

    study: dict[str, Any]
    keys: list[str]

    @property
    def digest(self) -> str:
        return hashlib.blake2b("\n".join(self.keys).encode(), digest_size=8).hexdigest()


def write_plan(out: Path, plan: Plan) -> None:
    data = {"study": plan.study, "cells": len(plan.keys), "keys": plan.keys}
    write_whole(out / "study.json", json.dumps(data).encode())


def read_plan(out: Path) -> Plan | None:
    """The plan of a folder; ``None`` where no study was started.

    Raises
    ------
    StoreError
        It is there and cannot be read.
    """
    path = out / "study.json"
    try:
        data = json.loads(path.read_bytes())
        return Plan(dict(data["study"]), [str(key) for key in data["keys"]])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged; the next fpsim scan writes it anew") from error


@dataclass(frozen=True)
class Driver:
    """A process that drives, or drove, a study in a folder."""

    path: Path
    silent: float  # seconds since it was heard of
    facts: dict[str, Any]  # plan, host, pid, born, engine, workers, started, and what its meter says

    @property
    def alive(self) -> bool:
        if self.facts.get("host") == platform.node():
            return _born(self.facts.get("pid")) == self.facts.get("born") is not None
        return self.silent < SILENT_SECONDS


def drivers(out: Path) -> list[Driver]:
    """Every driver that left a file, alive or not."""
    found = []
    for path in sorted((out / "drivers").glob("*.json")):
        with contextlib.suppress(OSError, ValueError):  # it ended this moment
            facts = json.loads(path.read_bytes())
            silent = max(0.0, time.time() - path.stat().st_mtime)
            found.append(Driver(path, silent, dict(facts)))
    return found


class Heartbeat:
    """Says in a folder that this process is at work on it, for as long as the context lasts.

    Parameters
    ----------
    out : a prepared folder
    plan : what is being made
    how : engine and workers, in words that ``fpsim status`` repeats
    state : what the meter says now, called from a thread
    """

    def __init__(self, out: Path, plan: Plan, how: dict[str, Any], state: Callable[[], dict[str, Any]]) -> None:
        self.out, self.plan, self.state = out, plan, state
        born = _born(os.getpid())
        self.facts = {"plan": plan.digest, "host": platform.node(), "pid": os.getpid(), "born": born, **how}
        self.facts["started"] = time.time()
        self.path = out / "drivers" / f"{platform.node()}-{os.getpid()}.json"
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        try:
            self.path.parent.mkdir(exist_ok=True)
            sweep(self.path.parent)
        except OSError as error:
            raise StoreError(f"{self.path.parent} cannot be written ({error.strerror or error})") from error
        others = 0
        for driver in drivers(self.out):
            if not driver.alive:
                driver.path.unlink(missing_ok=True)
            elif driver.facts.get("plan") == self.plan.digest and driver.path != self.path:
                others += 1
        self.others = others  # drivers that were at work on the same study before this one
        write_plan(self.out, self.plan)
        self._write()
        self.thread.start()
        return self

    def _beat(self) -> None:
        while not self.ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a study does not end because nobody can watch it
                self._write()

    def _write(self) -> None:
        write_whole(self.path, json.dumps(self.facts | self.state()).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _born(pid: Any) -> int | None:
    """When a process of this machine started, in the kernel's ticks (0 where it does not tell); None: there is none."""
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, fields = text.rpartition(")")[2].split()[0], text.rpartition(")")[2].split()
        return None if state == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0
