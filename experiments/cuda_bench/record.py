"""The record of one call: what ran where, and a row for each job; written anew after every row."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import threading
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.cuda_bench.rows import Row

# Never timed on a card: compilation is half a second for a kernel on one core, the scan and the copies are seconds.
_ESTIMATE = {"full": "about 4 minutes", "quick": "about 1 minute", "tiny": "about 1 minute"}


class Record:
    """Rows as they come, from several threads."""

    def __init__(self, device: str, sizes: str, path: Path | None) -> None:
        self.rows: list[Row] = []
        self.path, self._begin, self._lock = path, time.monotonic(), threading.Lock()
        self.machine = _machine(device) | {"sizes": sizes}
        self._write(False)

    def title(self) -> str:
        """What runs where, in one line."""
        found = self.machine
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        return (
            f"{found['device']}; Python {found['python']}, {versions}; {found['sizes']} sizes: "
            f"{_ESTIMATE[found['sizes']]} (an estimate)"
        )

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self._begin:6.1f} s] {text}", flush=True)

    def add(self, row: Row) -> None:
        """Keep a row, show it and write the record."""
        with self._lock:
            self.rows.append(row)
            self.say(row.line())
            self._write(False)

    def finish(self) -> int:
        """The last lines; the exit status."""
        self._write(True)
        failed = [row for row in self.rows if row.error]
        missed = [row.case for row in self.rows if row.met is False]
        self.say(
            f"{len(self.rows)} rows, {len(failed)} failed, {len(missed)} targets missed: {', '.join(missed) or '-'}"
        )
        if self.path is not None:
            print(f"record: {self.path}")
        return 1 if failed else 0

    def _write(self, finished: bool) -> None:
        if self.path is None:
            return
        rows = [asdict(row) | {"met": row.met} for row in self.rows]
        seconds = round(time.monotonic() - self._begin, 1)
        text = json.dumps(self.machine | {"finished": finished, "seconds": seconds, "rows": rows}, indent=1) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, self.path)


def _machine(device: str) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "device": "cpu"}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name, "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count, "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
        }  # fmt: skip
    versions = {name: metadata.version(name) for name in ("torch", "triton", "numpy", "numba")}
    return found | {
        "system": platform.platform(), "processors": os.cpu_count(), "python": platform.python_version(),
        "versions": versions,
    }  # fmt: skip
