"""The columns of a result: every field of a cell, then what was measured and what the theory says of it.

The file of a cell has one column more, ``record``: the window that theorems read (``theory.record``), for
``fpsim verify``. Tables leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import polars as pl

from experiments.cell import CELL_COLUMNS, Cell

Row = dict[str, Any]

FAILED = "failed"  # the outcome of a cell that raised

_OF_TYPE = {str: pl.String(), int: pl.Int64(), float: pl.Float64()}

# Every column with its type, so that a column of nulls keeps it and all cell files fit together.
SCHEMA: dict[str, pl.DataType] = {
    **{name: _OF_TYPE[kind] for name, kind in CELL_COLUMNS.items()},
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
    "loss": pl.Float64(),
    "loss_low": pl.Float64(),
    "loss_high": pl.Float64(),
    "loss_floor": pl.Float64(),
    "accuracy": pl.Float64(),
    "seed_loss": pl.List(pl.Float64()),
    "seed_accuracy": pl.List(pl.Float64()),
    "trace_loss": pl.List(pl.Float64()),
    "trace_accuracy": pl.List(pl.Float64()),
    "not_finite_step": pl.Int64(),
    "not_finite_slot": pl.String(),
}
# Columns that only cells of networks have; the others leave them null.
NETWORK = tuple(SCHEMA)[tuple(SCHEMA).index("loss") :]
RECORD = "record"
CELL_SCHEMA: dict[str, pl.DataType] = SCHEMA | {RECORD: pl.Binary()}


def failed_row(cell: Cell, reason: str) -> Row:
    """The row of a cell that raised: its settings, the reason, and nulls."""
    return dict.fromkeys(SCHEMA) | cell.columns() | {"key": cell.key, "outcome": FAILED, "reason": reason}


def frame_of(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, pl.DataType] = SCHEMA) -> pl.DataFrame:
    """Rows as a frame of exactly the columns of a schema: that of tables, or of the files of cells.

    A row may carry the record of its window or lack it, whichever the schema is.

    Raises
    ------
    ValueError, TypeError, polars.exceptions.PolarsError
        A column is missing or unknown, or a value does not fit its column.
    """
    for row in rows:
        wrong = sorted((set(row) ^ set(SCHEMA)) - {RECORD})
        if wrong:
            raise ValueError(f"row of cell {row.get('key')}: columns {wrong} are missing or unknown")
    columns = {name: [_plain(row.get(name), dtype) for row in rows] for name, dtype in schema.items()}
    return pl.DataFrame(columns, schema=dict(schema), strict=True)


def _plain(value: Any, dtype: pl.DataType) -> Any:
    """Python numbers and lists for NumPy ones, a float for a whole number, JSON for what is no text."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, int) and dtype == pl.Float64():
        return float(value)
    if isinstance(value, (Mapping, tuple, msgspec.Struct)) and dtype == pl.String():
        return msgspec.json.encode(value, order="deterministic").decode()
    return value
