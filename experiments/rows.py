"""The row of a result: a cell, where it settled, and what the theory says of its window."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.cell import Cell
from experiments.floors import Floor
from experiments.windows import Watched, window_of
from fpsim.precision import scalar_report
from fpsim.rounding import Stochastic
from theory.theorem import Theorem
from theory.theorems import theorem
from theory.verdict import verdict
from theory.window import Window


def row_of(cell: Cell, index: int, watched: Watched, seconds: float) -> dict[str, Any]:
    """The row of one cell of a batch."""
    record, trajectory = watched.record, watched.trajectory
    floor = watched.floor(index)
    window = window_of(cell, index, watched, floor)
    row: dict[str, Any] = cell.columns() | {"key": cell.key}
    row |= _floor_columns(floor) | _verdict_columns(theorem_for(window), window) | watched.trace.columns(index)
    reports = scalar_report(trajectory.programs[index], trajectory.precisions[index])
    row["warnings"] = "; ".join(report.warning for report in reports if report.warning)
    row["window_steps"] = watched.steps
    row["diverged_at"] = record.diverged_at[index] if floor.outcome in ("diverged", "not finite") else None
    row["seconds"] = seconds
    return row


def theorem_for(window: Window) -> Theorem | None:
    """The theorem that speaks about a run, by what its step stores: its hypotheses then read the step itself."""
    state = set(window.program.state)
    if state == {"w"}:
        random = any(
            isinstance(mode, Stochastic) for slot, (_, mode) in window.slots.items() if not slot.startswith("scalar.")
        )
        return theorem("T8" if random else "T6")
    if state == {"w", "v"}:
        return theorem("T12")
    return theorem("T5") if {"m", "v"} <= state else None


def _floor_columns(floor: Floor) -> dict[str, Any]:
    columns: dict[str, Any] = {"outcome": floor.outcome, "stationary": floor.stationary, "frozen_share": floor.frozen}
    for name, (value, low, high) in (("rms_gradient", floor.gradient), ("loss_gap", floor.loss)):
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    columns |= {"rms_gradient_low999": floor.gradient999[1], "rms_gradient_high999": floor.gradient999[2]}
    columns["seed_rms_gradient"] = floor.seed_gradient.tolist()
    columns["seed_loss_gap"] = floor.seed_loss.tolist()
    columns["seed_frozen"] = floor.seed_frozen.tolist()
    return columns


def _verdict_columns(theorem: Theorem | None, window: Window) -> dict[str, Any]:
    columns: dict[str, Any] = dict.fromkeys(("theorem", "quantity", "measured", "bound", "bound_lower", "ratio"))
    if theorem is None:
        reason = f"no theorem about {window.optimizer} in this version"
        return columns | {"verdict": "not applicable", "reason": reason, "seeds_needed": None}
    columns |= {"theorem": theorem.identifier, "quantity": theorem.quantity}
    if window.outcome in ("not finite", "diverged"):
        return columns | {"verdict": "not applicable", "reason": f"the run is {window.outcome}", "seeds_needed": None}
    bound = theorem.evaluate(window)
    samples = theorem.measured(window)
    found = verdict(samples, bound)
    columns |= {"verdict": found.status, "reason": found.reason, "seeds_needed": found.seeds_needed}
    covered = samples if bound.per_seed is None else samples[~np.isnan(bound.per_seed)]
    columns["measured"] = float(np.sqrt(np.mean(covered ** (2 // bound.exponent))))
    if bound.applicable:
        columns |= {"bound": bound.upper, "bound_lower": bound.lower, "ratio": found.ratio}
    return columns
