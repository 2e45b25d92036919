"""A scan that is killed without warning, then resumed: the table is that of an undisturbed one, nothing is lost."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.store import read_rows

ARGUMENTS = [
    "scan",
    "--optimizer=sgd,rmsprop",
    "--problem=quadratic,rational",
    "--mantissa=3..8",
    "--steps=12000",
    "--seeds=4",
    "--workers=2",
]


def start(out, engine):
    command = [sys.executable, "-m", "experiments.cli", *ARGUMENTS, f"--engine={engine}", f"--out={out}"]
    # a group of its own, so that the kill reaches the workers too
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def table(out):
    rows = read_rows(out)
    return sorted(({k: v for k, v in row.items() if k != "seconds"} for row in rows), key=lambda row: row["key"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_kill_and_resume(tmp_path, engine):
    undisturbed = tmp_path / "undisturbed"
    assert start(undisturbed, engine).wait(timeout=240) == 0
    disturbed = tmp_path / "disturbed"
    cells = disturbed / "cells"
    kept = {}
    for wanted in (1, 8, 15):
        process = start(disturbed, engine)
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if cells.is_dir() and len(list(cells.glob("*.parquet"))) >= wanted:
                break
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path, written in kept.items():
            assert path.stat().st_mtime_ns == written  # a finished cell is not computed again
        kept = {path: path.stat().st_mtime_ns for path in cells.glob("*.parquet")}
    assert kept
    assert start(disturbed, engine).wait(timeout=240) == 0
    pairs = zip(table(disturbed), table(undisturbed), strict=True)
    assert [(a["key"], name, a[name], b[name]) for a, b in pairs for name in a if a[name] != b[name]] == []
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
