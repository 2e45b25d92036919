"""What the store and the engine cost for each cell of a study of many: run, list, resume, table. The cells compute
nothing, so that all of it is overhead; beside it, plain files of the same bytes are written, renamed and read."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from msgspec.structs import replace

from experiments import engine, store
from experiments.bench.measure import Job, Row, Settings, WrongResult
from experiments.cli.scan_table import lists, summarize
from experiments.meter import Meter
from experiments.schema import SCHEMA
from experiments.study import Cell, Study
from experiments.worker import Runner

SIZES = (2000,)  # --size 100000 is the study that the target is about
TARGET = 5.0  # ms a cell, for everything a study does with it but computing it
SLOWER = 1.5  # the second half of the cells over the first
WORKERS = 2


def jobs(settings: Settings) -> list[Job]:
    return [Job(f"store of {size} cells", partial(_job, size)) for size in settings.sizes or SIZES]


def _job(size: int, settings: Settings) -> list[Row]:
    return measure(size)


def measure(size: int) -> list[Row]:
    """Rows of the bench for a study of ``size`` cells, in a folder of its own that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="fpsim-bench-") as folder:
        return _measure(Path(folder), many_cells(size))


def _measure(out: Path, cells: Sequence[Cell]) -> list[Row]:
    store.prepare(out)
    store.versions()
    keys = [cell.key for cell in cells]
    write, read = _plain_files(out, cells[0], min(len(cells), 5000))
    marks: list[float] = []
    run = _timed(lambda: run_all(out, cells, marks))
    first, second = halves(marks)
    looked = _timed(lambda: store.look(out, keys))
    resumed = _timed(lambda: run_all(out, cells, []))
    made = _timed(lambda: _table(out, keys))
    kept = store.look(out, keys)
    if len(kept.finished) != len(cells):
        raise WrongResult(f"{len(kept.finished)} of {len(cells)} cells are in the store")
    ms = {name: 1e3 * seconds / len(cells) for name, seconds in (("run", run), ("look", looked))}
    ms |= {"resume": 1e3 * resumed / len(cells), "table": 1e3 * made / len(cells)}
    whole = sum(ms.values())
    n = len(cells)
    return [
        Row("store", "run and keep", n, ms["run"], "ms", "write, rename", ms["run"] / write),
        Row("store", "list, every byte checked", n, ms["look"], "ms", "read", ms["look"] / read),
        Row("store", "resume with nothing to do", n, ms["resume"], "ms", "read", ms["resume"] / read),
        Row("store", "table of all", n, ms["table"], "ms", "read", ms["table"] / read),
        Row("store", "all of these, a cell", n, whole, "ms", target=TARGET, target_is_value=True),
        Row("store", "second half of the run", n, second, "ms", "first half", second / first, SLOWER),
    ]


def many_cells(size: int) -> list[Cell]:
    """Cells of one weight and one step, of all formats and as many root seeds as it takes."""
    formats = {"exponent": "2..11", "mantissa": "1..52"}
    study = Study.build({"optimizer": "sgd", "problem": "quadratic", "rounding": "up", "steps": 1} | formats)
    kinds = [replace(cell, dimension=1, seeds=2) for cell in study.cells()]
    found = (replace(cell, seed=seed) for seed in itertools.count() for cell in kinds)
    return list(itertools.islice(found, size))


def run_nothing(
    cells: Sequence[Cell], report: Callable[[int], None], cancelled: Callable[[], bool]
) -> list[dict[str, Any]]:
    """A runner whose rows cost nothing."""
    rows = []
    for cell in cells:
        floor = 2.0**-cell.mantissa_bits
        row = store.failed_row(cell, "") | {"outcome": "reached a floor", "verdict": "holds", "stationary": True}
        for name, dtype in SCHEMA.items():
            if row[name] is None:
                plain = {pl.Float64(): floor, pl.Int64(): 1, pl.String(): "", pl.List(pl.Int64()): [1] * cell.seeds}
                row[name] = plain.get(dtype, [floor] * cell.seeds)
        rows.append(row)
        report(cell.cost)
    return rows


def run_all(out: Path, cells: Sequence[Cell], marks: list[float], runner: Runner = run_nothing) -> None:
    """What ``fpsim scan`` does between header and table; ``marks`` gets the time at the start and of every cell."""
    marks.append(time.perf_counter())
    finished = store.look(out, (cell.key for cell in cells)).finished
    work = engine.batches([cell for cell in cells if cell.key not in finished], WORKERS)
    meter = Meter(WORKERS)

    def note(done: Sequence[Cell], rows: object, error: BaseException | None) -> None:
        marks.extend([time.perf_counter()] * len(done))
        meter.left()

    engine.execute(work, note, workers=WORKERS, out=out, runner=runner, meter=meter)


def _table(out: Path, keys: Sequence[str]) -> None:
    frame = store.read_cells(out, keys)
    store.write_scan(out, Study(), frame, len(keys))
    rows = frame.to_dicts()
    summarize(rows)
    lists(rows)


def _plain_files(out: Path, cell: Cell, count: int) -> tuple[float, float]:
    """Milliseconds to write and rename a file of a cell's bytes, and to read it."""
    path = store.write_cell(out, cell, run_nothing([cell], lambda _: None, lambda: False)[0])
    data = path.read_bytes()
    path.unlink()
    folder = out / "plain"
    folder.mkdir()
    names = [str(folder / str(i)) for i in range(count)]

    def write() -> None:
        for name in names:
            with open(f"{name}.tmp", "wb", buffering=0) as file:
                file.write(data)
            os.replace(f"{name}.tmp", name)

    def read() -> None:
        for name in names:
            with open(name, "rb") as file:
                file.read()

    return 1e3 * _timed(write) / count, 1e3 * _timed(read) / count


def halves(marks: Sequence[float]) -> tuple[float, float]:
    """Milliseconds a cell in the first and in the second half of a run."""
    middle = len(marks) // 2
    first, second = marks[middle] - marks[0], marks[-1] - marks[middle]
    return 1e3 * first / middle, 1e3 * second / (len(marks) - 1 - middle)


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
