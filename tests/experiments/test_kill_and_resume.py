"""A scan that is killed without warning, ten times at random moments, then resumed: the table is that of an undisturbed
one, no finished cell is made again, none is missing. Likewise when its workers are killed, and with two drivers."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import store
from experiments.drivers import _born, read_plan
from experiments.store import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")]
needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs fpsim[cluster]")
ENGINES = ["threads", "processes", pytest.param("dask", marks=needs_dask)]
KILLS = 10
ARGUMENTS = [
    "scan",
    "--optimizer=sgd,rmsprop",
    "--problem=quadratic,rational",
    "--mantissa=3..8",
    "--rounding=nearest_even,up,down,toward_zero,to_odd,stochastic",
    "--steps=4000",
    "--seeds=32",
    "--workers=2",
]
CELLS = 144


def start(out, engine):
    command = [sys.executable, "-m", "experiments.cli", *ARGUMENTS, f"--engine={engine}", f"--out={out}"]
    # a group of its own, so that a kill can reach the workers too
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def table(out):
    """Every value but the time it took, as its exact text: a NaN is itself."""
    rows = [{name: repr(value) for name, value in row.items() if name != "seconds"} for row in read_rows(out)]
    return sorted(rows, key=lambda row: row["key"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    process = start(out, "threads")
    complaint = process.communicate(timeout=300)[1]
    assert process.returncode == 0, complaint
    rows = table(out)
    assert len(rows) == CELLS
    return rows


class Watched:
    """A folder whose finished cells must stay as they are."""

    def __init__(self, out):
        self.out, self.kept = out, {}

    def look(self):
        """Check every byte of what is there, that nothing finished was made again, and return how many cells are."""
        plan = read_plan(self.out) if (self.out / "study.json").exists() else None
        found = store.look(self.out, plan.keys if plan else [])
        assert found.damaged == []
        for path, stamp in self.kept.items():
            assert self.stamp(path) == stamp, f"{path} was made again"
        self.kept |= {path: self.stamp(path) for path in (store.cell_path(self.out, key) for key in found.finished)}
        return len(found.finished)

    def stamp(self, path):
        return path.stat().st_mtime_ns, path.stat().st_ino

    def count(self):
        return len(list((self.out / "cells").glob("*.parquet"))) if (self.out / "cells").is_dir() else 0


def family(pid):
    """The processes below one, with their command lines."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            words = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = (int(fields[1]), words)
    found, grown = {pid}, True
    while grown:
        more = {child for child, (parent, _) in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return {child: parents[child][1] for child in found - {pid} if child in parents}


def finish(process, watched, undisturbed, engine):
    """Let a study come to its end, resume it if a killed worker left failed cells, and compare the tables."""
    complaint = process.communicate(timeout=300)[1]
    watched.look()
    if process.returncode:
        assert "the worker process died" in complaint or "KilledWorker" in complaint, complaint
        process = start(watched.out, engine)
        complaint = process.communicate(timeout=300)[1]
    assert process.returncode == 0, complaint
    assert watched.look() == CELLS
    pairs = zip(table(watched.out), undisturbed, strict=True)
    assert [(a["key"], name, a[name], b[name]) for a, b in pairs for name in a if a[name] != b[name]] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_drivers_that_are_killed(tmp_path, undisturbed, engine):
    luck = random.Random(engine)
    watched = Watched(tmp_path / "out")
    moments = []
    # The moments are spread over the study by counting cells; where in a second they fall is luck.
    for wanted in sorted(luck.sample(range(CELLS - 6), KILLS)):
        process = start(watched.out, engine)
        deadline = time.monotonic() + 240
        while process.poll() is None and watched.count() < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(luck.uniform(0, 0.3))
        assert process.poll() is None, process.communicate()[1]
        workers = family(process.pid)
        if luck.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:  # the driver alone: its workers must not go on without it
            os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while any(_born(pid) is not None for pid in workers):
            assert time.monotonic() < deadline, "workers outlive their driver"
            time.sleep(0.05)
        moments.append(watched.look())
    assert any(0 < found < CELLS for found in moments)
    finish(start(watched.out, engine), watched, undisturbed, engine)


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_workers_that_are_killed(tmp_path, undisturbed, engine):
    luck = random.Random(engine + " workers")
    watched = Watched(tmp_path / "out")
    process = start(watched.out, engine)
    killed = 0
    for wanted in sorted(luck.sample(range(CELLS // 2), KILLS)):
        while process.poll() is None and watched.count() < wanted:
            time.sleep(0.005)
        deadline = time.monotonic() + luck.uniform(0, 0.3)
        workers = []
        while process.poll() is None and (not workers or time.monotonic() < deadline):
            workers = [pid for pid, words in family(process.pid).items() if "spawn_main" in words]
        if workers:
            os.kill(luck.choice(workers), signal.SIGKILL)
            killed += 1
        watched.look()
    assert killed == KILLS
    finish(process, watched, undisturbed, engine)


def test_two_drivers_on_one_store(tmp_path, undisturbed):
    out = tmp_path / "out"
    first, second = start(out, "threads"), start(out, "processes")
    watched = Watched(out)
    while first.poll() is None or second.poll() is None:
        time.sleep(0.2)
        found = store.look(out, [path.stem for path in (out / "cells").glob("*.parquet")])
        assert found.damaged == []
    assert (first.communicate()[1], first.returncode) == ("", 0) or first.returncode == 0
    finish(second, watched, undisturbed, "processes")
    assert not list(out.glob("cells/.*"))
    assert not list(out.glob("drivers/*"))
