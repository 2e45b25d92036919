"""Where results are kept: one Parquet file for each finished cell, and one merged file for the study.

A cell file is written under a temporary name and moved into place, so that it is whole or absent; a digest in its
metadata tells a damaged one. Nothing here ever deletes a result.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import secrets
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from experiments.cell import CELL_COLUMNS, Cell, code_version, package_version
from experiments.study import Study

Row = dict[str, Any]

_OF_TYPE = {"str": pl.String(), "int": pl.Int64(), "float": pl.Float64()}

# Every column with its type, so that a column of nulls keeps it and all cell files fit together.
SCHEMA: dict[str, pl.DataType] = {
    **{name: _OF_TYPE[kind.__name__] for name, kind in CELL_COLUMNS.items()},
    "key": pl.String(),
    "outcome": pl.String(),
    "stationary": pl.Boolean(),
    "window_steps": pl.Int64(),
    "rms_gradient": pl.Float64(),
    "rms_gradient_low": pl.Float64(),
    "rms_gradient_high": pl.Float64(),
    "rms_gradient_low999": pl.Float64(),
    "rms_gradient_high999": pl.Float64(),
    "loss_gap": pl.Float64(),
    "loss_gap_low": pl.Float64(),
    "loss_gap_high": pl.Float64(),
    "frozen_share": pl.Float64(),
    "theorem": pl.String(),
    "quantity": pl.String(),
    "measured": pl.Float64(),
    "bound": pl.Float64(),
    "bound_lower": pl.Float64(),
    "ratio": pl.Float64(),
    "verdict": pl.String(),
    "reason": pl.String(),
    "seeds_needed": pl.Int64(),
    "warnings": pl.String(),
    "seed_rms_gradient": pl.List(pl.Float64()),
    "seed_loss_gap": pl.List(pl.Float64()),
    "seed_frozen": pl.List(pl.Float64()),
    "trace_step": pl.List(pl.Int64()),
    "trace_rms_gradient": pl.List(pl.Float64()),
    "trace_loss_gap": pl.List(pl.Float64()),
    "diverged_at": pl.Int64(),
    "seconds": pl.Float64(),
}

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
)
_METADATA = "fpsim"
FAILED = "failed"


class StoreError(OSError):
    """The output folder cannot be used; one line that says why."""


def prepare(out: Path) -> None:
    """Create the folders of a study and prove that they can be written, before any work.

    Raises
    ------
    StoreError
        Names the folder and the reason; nothing that was there is touched.
    """
    if (out / "scan.parquet").is_dir():
        raise StoreError(f"{out / 'scan.parquet'} is a folder, where the table goes; name another folder")
    cells = out / "cells"
    try:
        cells.mkdir(parents=True, exist_ok=True)
        for folder in (out, cells):
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
                pass
    except OSError as error:
        raise StoreError(f"{out} cannot be written ({error.strerror or error}); name a folder that can") from error


def write_cell(out: Path, cell: Cell, row: Mapping[str, Any], traceback: str = "") -> Path:
    """Keep the result of one cell. Whole or absent: a reader never sees half of it."""
    frame = frame_of([row])
    config = msgspec.to_builtins(cell)
    facts = {"cell": config, "seed": cell.seed, "versions": versions(), "traceback": traceback}
    return _write(frame, out / "cells" / f"{cell.key}.parquet", facts)


def failed_row(cell: Cell, reason: str) -> Row:
    """The row of a cell that raised: its settings, the reason, and nulls."""
    return dict.fromkeys(SCHEMA) | cell.columns() | {"key": cell.key, "outcome": FAILED, "reason": reason}


def keep_cell(out: Path, cell: Cell, row: Row, traceback: str = "") -> Row:
    """Keep a row, or, where it does not fit the columns, a failed one that says so; returns what was kept."""
    try:
        write_cell(out, cell, row, traceback)
    except (ValueError, TypeError, pl.exceptions.PolarsError) as error:
        row = failed_row(cell, " ".join(f"{type(error).__name__}: {error}".split()))
        write_cell(out, cell, row)
    return row


def read_finished(out: Path, cells: Iterable[Cell]) -> tuple[dict[str, Row], list[str]]:
    """Rows of the cells that are finished, by key, and one line for each file that cannot be trusted.

    A failed cell is not finished: it is tried again. A damaged file is reported and its cell computed again.
    """
    rows, damaged = {}, []
    for cell in cells:
        path = out / "cells" / f"{cell.key}.parquet"
        if not path.exists():
            continue
        try:
            (row,) = _read_checked(path)
            if row["key"] != cell.key:
                raise ValueError("it holds another cell")
        except Exception as error:  # whatever Parquet or polars makes of damaged bytes
            detail = str(error).splitlines()[0] if str(error) else type(error).__name__
            damaged.append(f"{path} is damaged and its cell is computed again ({detail})")
        else:
            if row["outcome"] != FAILED:
                rows[cell.key] = row
    return rows, damaged


def write_scan(out: Path, study: Study, rows: Sequence[Mapping[str, Any]], cells: int) -> Path:
    """The merged result, ``OUT/scan.parquet``: the rows there are, of ``cells`` in all, with their study."""
    facts = {
        "study": msgspec.to_builtins(study),
        "seed": study.seed,
        "versions": versions(),
        "cells": cells,
        "finished": sum(row["outcome"] != FAILED for row in rows),
    }
    return _write(frame_of(rows), out / "scan.parquet", facts)


def read_rows(path: Path | str) -> list[Row]:
    """Rows of a result: of a Parquet file, or of ``scan.parquet`` in a folder."""
    path = Path(path)
    return pl.read_parquet(path / "scan.parquet" if path.is_dir() else path).to_dicts()


def read_facts(path: Path | str) -> dict[str, Any]:
    """Configuration, versions and seed that a result file carries."""
    facts: dict[str, Any] = json.loads(pl.read_parquet_metadata(Path(path))[_METADATA])
    return facts


@functools.cache
def versions() -> dict[str, str]:
    """What made a result: packages, interpreter, machine."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"code": code_version(), "python": platform.python_version(), "machine": platform.machine()}
    found |= {"system": platform.system(), "fpsim": package_version()}
    for name in PACKAGES[1:]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a table with every column's own type."""
    for row in rows:
        if set(row) != set(SCHEMA):
            raise ValueError(
                f"row of cell {row.get('key')}: columns {sorted(set(row) ^ set(SCHEMA))} are missing or unknown"
            )
    columns = {name: [_plain(row[name], dtype) for row in rows] for name, dtype in SCHEMA.items()}
    return pl.DataFrame(columns, schema=SCHEMA, strict=True)


def _plain(value: Any, dtype: pl.DataType) -> Any:
    """Python numbers and lists for NumPy ones; a whole number is a float in a column of floats."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return float(value) if dtype == pl.Float64() and isinstance(value, int) else value


def _write(frame: pl.DataFrame, path: Path, facts: Mapping[str, Any]) -> Path:
    metadata = {_METADATA: json.dumps(facts, sort_keys=True), "digest": _digest(frame)}
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.tmp")
    try:
        frame.write_parquet(temporary, metadata=metadata)
        os.replace(temporary, path)
    except (OSError, pl.exceptions.PolarsError) as error:
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise StoreError(f"{path} cannot be written ({reason})") from error
    return path


def _read_checked(path: Path) -> list[Row]:
    frame = pl.read_parquet(path)
    if frame.schema != pl.Schema(SCHEMA):
        raise ValueError("its columns are not those of this version")
    if pl.read_parquet_metadata(path).get("digest") != _digest(frame):
        raise ValueError("its digest does not match")
    return frame.to_dicts()


def _digest(frame: pl.DataFrame) -> str:
    # repr of a float is exact, and tells NaN and infinities from nulls.
    return hashlib.blake2b(repr(frame.rows()).encode(), digest_size=16).hexdigest()
