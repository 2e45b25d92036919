"""Starts the processes that do the work and takes down what they find, whatever becomes of them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cuda_bench.rows import Row

Command = Callable[[int], Sequence[str]]  # what does the jobs from a number on
Add = Callable[[Row], None]
ROOT = Path(__file__).parents[2]


def environment(device: str, caches: Path) -> dict[str, str]:
    """Compiled kernels go to a folder that is empty at first, so that every first call compiles."""
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    env |= {"TRITON_CACHE_DIR": str(caches / "triton"), "FPSIM_CACHE_DIR": str(caches / "fpsim")}
    env["TRITON_INTERPRET"] = "0" if device == "cuda" else "1"
    return env


def attend(part: str, command: Command, env: Mapping[str, str], limit: float, add: Add) -> None:
    """Run the jobs of one process to their end; after a job that ends the process or takes ``limit`` seconds, in
    another process from the next job on."""
    first: int | None = 0
    while first is not None:
        first = _Process(part, command(first), env, limit).follow(add)


class _Process:
    def __init__(self, part: str, command: Sequence[str], env: Mapping[str, str], limit: float) -> None:
        self.part, self.limit = part, limit
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._child = subprocess.Popen(
            command, env=dict(env), stdout=subprocess.PIPE, stderr=self._said, text=True, errors="replace"
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._child.stdout is not None  # it is a pipe
        with self._child.stdout as pipe:
            for line in pipe:
                self._lines.put(line)
        self._lines.put(None)

    def follow(self, add: Add) -> int | None:
        """Rows until the process ends; the number of the job to go on with, or None."""
        begun: tuple[int, str] | None = None  # a job without a row
        following: int | None = None  # the job after the last one that has a row
        since = time.monotonic()
        try:
            while True:
                try:
                    line = self._lines.get(timeout=max(0.0, since + self.limit - time.monotonic()))
                except queue.Empty:
                    return self._given_up(f"no result within {self.limit:g} s", begun, add)
                if line is None:
                    break
                event = _event(line)
                if "job" in event:
                    begun, since = (event["job"], event["case"]), time.monotonic()
                elif "row" in event and begun is not None:
                    add(Row(**event["row"]))
                    begun, following, since = None, begun[0] + 1, time.monotonic()
            status = self._child.wait()
            if status == 0:
                return None
            if begun is None and following is not None:
                return following
            return self._given_up(f"the process ended with status {status}: {self._end()}", begun, add)
        finally:
            if self._child.poll() is None:
                self._child.kill()
                self._child.wait()
                self._drain()
            self._said.close()

    def _drain(self) -> None:
        """Until the pipe is closed; a compiler that the process started may hold it for a while."""
        with contextlib.suppress(queue.Empty):
            while self._lines.get(timeout=10.0) is not None:
                pass

    def _given_up(self, error: str, begun: tuple[int, str] | None, add: Add) -> int | None:
        add(Row(part=self.part, case=begun[1] if begun else f"{self.part}: before its first job", error=error))
        return begun[0] + 1 if begun else None

    def _end(self) -> str:
        """How what was said on the standard error ends."""
        self._said.seek(0)
        return " | ".join(self._said.read().strip().splitlines()[-3:])[-600:]


def _event(line: str) -> dict[str, Any]:
    """What a line reports; nothing, where a library printed it."""
    if not line.startswith('{"'):
        return {}
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def command_of(part: str, device: str, sizes: str, share: int, shares: int) -> Command:
    """The command of a worker."""
    return lambda first: (
        sys.executable, "-m", "experiments.cuda_bench.worker",
        part, device, sizes, str(share), str(shares), str(first),
    )  # fmt: skip
