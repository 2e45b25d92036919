"""Where results are kept: one Parquet file for each finished cell, and one merged file for the study.

``OUT/cells/KEY.parquet`` is one row, named by its configuration and the code that made it; the files of a folder read
as one table. The record of the run's window is a column of that row, which is read only when asked for.
``OUT/scan.parquet`` is the table of the study that ended last. Every file is whole or absent, a digest tells a damaged
one, and nothing here ever deletes a result; so several processes may work on one folder: at worst they make the same
cell twice, with the same bits. Who is at work is in ``experiments.drivers``.
"""

from __future__ import annotations

import functools
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from experiments.schema import CELL_SCHEMA, FAILED, RECORD, SCHEMA, Row, failed_row, frame_of
from experiments.study import Cell, Study, code_version, package_version
from experiments.whole_files import StoreError, facts_of, read_facts, sweep, to_parquet, write_whole

__all__ = [
    "CELL_SCHEMA",
    "FAILED",
    "SCHEMA",
    "Kept",
    "Row",
    "StoreError",
    "failed_row",
    "keep_cells",
    "look",
    "prepare",
    "read_cells",
    "read_facts",
    "read_rows",
    "read_record",
    "versions",
    "write_cell",
    "write_scan",
]

PACKAGES = (
    "fpsim",
    "numpy",
    "numba",
    "llvmlite",
    "polars",
    "msgspec",
    "sympy",
    "mpmath",
    "python-flint",
    "scipy",
    "scikit-learn",
    "torch",
)
MERGED = "scan.parquet"
AT_ONCE = 500  # files that are read together: more are no faster, and each takes 50 kB of memory until all are read


def prepare(out: Path) -> None:
    """Create the folders of a study, prove that they can be written, and sweep up what a crash left in them.

    Raises
    ------
    StoreError
        Names the folder and the reason; no result that was there is touched.
    """
    if (out / MERGED).is_dir():
        raise StoreError(f"{out / MERGED} is a folder, where the table goes; name another folder")
    cells = out / "cells"
    try:
        cells.mkdir(parents=True, exist_ok=True)
        for folder in (out, cells):
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-", suffix=".tmp") as file:
                file.write(b"\0" * 4096)  # a full disk still makes empty files
                file.flush()
            sweep(folder)
    except OSError as error:
        raise StoreError(f"{out} cannot be written ({error.strerror or error}); name a folder that can") from error


def cell_path(out: Path, key: str) -> Path:
    return out / "cells" / f"{key}.parquet"


def write_cell(out: Path, cell: Cell, row: Mapping[str, Any], traceback: str = "") -> Path:
    """Keep the result of one cell. Whole or absent: a reader never sees half of it."""
    return _write_one(out, cell, frame_of([row], CELL_SCHEMA), traceback)


def keep_cells(out: Path, cells: Sequence[Cell], rows: Sequence[Row], traceback: str = "") -> list[Row]:
    """Keep a row for each cell, or, where it does not fit the columns, a failed one that says so.

    Returns
    -------
    list of dict
        The rows that were kept.
    """
    try:
        frame = frame_of(rows, CELL_SCHEMA)
    except (ValueError, TypeError, pl.exceptions.PolarsError) as error:
        if len(rows) > 1:
            return [kept for cell, row in zip(cells, rows, strict=True) for kept in keep_cells(out, [cell], [row])]
        rows = [failed_row(cells[0], " ".join(f"{type(error).__name__}: {error}".split()))]
        frame = frame_of(rows, CELL_SCHEMA)
    for i, cell in enumerate(cells):
        _write_one(out, cell, frame.slice(i, 1), traceback)
    return list(rows)


def _write_one(out: Path, cell: Cell, frame: pl.DataFrame, traceback: str) -> Path:
    facts = {"cell": msgspec.to_builtins(cell), "key": cell.key, "seed": cell.seed, "versions": versions()}
    facts |= {"outcome": frame.item(0, "outcome"), "traceback": traceback}
    return write_whole(cell_path(out, cell.key), to_parquet(frame, facts, "uncompressed"))


@dataclass
class Kept:
    """What a folder holds of some cells."""

    finished: set[str] = field(default_factory=set)  # keys
    failed: set[str] = field(default_factory=set)  # keys: kept with their error, and tried again by the next run
    damaged: list[str] = field(default_factory=list)  # one line for each file that cannot be trusted


def look(out: Path, keys: Iterable[str]) -> Kept:
    """What is there of some cells. Every byte of their files is checked; a damaged cell counts as missing."""
    kept = Kept()
    for key in keys:
        path = cell_path(out, key)
        try:
            facts = facts_of(path.read_bytes())
            if facts["key"] != key:
                raise ValueError("it holds another cell")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError) as error:
            detail = " ".join(str(getattr(error, "strerror", None) or error).split())
            kept.damaged.append(f"{path} is damaged and its cell is computed again ({detail})")
        else:
            (kept.failed if facts["outcome"] == FAILED else kept.finished).add(key)
    return kept


def read_cells(out: Path, keys: Sequence[str]) -> pl.DataFrame:
    """The rows of cells that are there, as ``look`` found them, in the order of ``keys``."""
    if not keys:
        return frame_of([])
    parts = []
    try:
        for i in range(0, len(keys), AT_ONCE):
            paths = [cell_path(out, key) for key in keys[i : i + AT_ONCE]]
            parts.append(pl.read_parquet(paths, columns=list(SCHEMA), glob=False, hive_partitioning=False))
        frame = pl.concat(parts, rechunk=True)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{out / 'cells'} cannot be read ({str(error).splitlines()[0]})") from error
    if frame.schema != pl.Schema(SCHEMA) or frame["key"].to_list() != list(keys):
        raise StoreError(f"{out / 'cells'}: a file changed while it was read")
    return frame


def write_scan(out: Path, study: Study, rows: pl.DataFrame | Sequence[Mapping[str, Any]], cells: int) -> Path:
    """The merged result, ``OUT/scan.parquet``: the rows there are, of ``cells`` in all, with their study."""
    frame = rows if isinstance(rows, pl.DataFrame) else frame_of(rows)
    facts = {
        "study": msgspec.to_builtins(study),
        "seed": study.seed,
        "versions": versions(),
        "cells": cells,
        "finished": int((frame["outcome"] != FAILED).sum()),
    }
    return write_whole(out / MERGED, to_parquet(frame, facts, "zstd"))


def read_rows(path: Path | str) -> list[Row]:
    """Rows of a result: of a Parquet file, or of ``scan.parquet`` in a folder."""
    path = Path(path)
    return pl.read_parquet(path / MERGED if path.is_dir() else path, columns=list(SCHEMA)).to_dicts()


def read_record(out: Path, key: str) -> tuple[dict[str, Any], bytes | None]:
    """The facts and the record of the window that the file of a cell holds, every byte of it checked.

    Raises
    ------
    StoreError
        The file is not there or damaged; one line that says so.
    """
    path = cell_path(out, key)
    try:
        data = path.read_bytes()
        facts = facts_of(data)
        frame = pl.read_parquet(data)
        return facts, frame.item(0, RECORD) if RECORD in frame.columns else None
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error


@functools.cache
def versions() -> dict[str, str]:
    """What made a result: packages, interpreter, machine."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"code": code_version(), "python": platform.python_version(), "machine": platform.machine()}
    found |= {"system": platform.system(), "host": platform.node(), "fpsim": package_version()}
    for name in PACKAGES[1:]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
