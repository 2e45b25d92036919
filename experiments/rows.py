"""The row of a result: a cell, where it settled, and what the theory says of its window."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.cell import Cell
from experiments.floors import Floor
from experiments.schema import NETWORK, RECORD
from experiments.windows import Watched, window_of
from fpsim.optim import STEPS
from fpsim.precision import scalar_report
from theory.record import pack
from theory.theorem import Bound, Theorem
from theory.theorems import theorem, theorems
from theory.verdict import verdict
from theory.window import Window


def row_of(cell: Cell, index: int, watched: Watched, seconds: float) -> dict[str, Any]:
    """The row of one cell of a batch."""
    record, trajectory = watched.record, watched.trajectory
    floor = watched.floor(index)
    window = window_of(cell, index, watched, floor)
    row: dict[str, Any] = dict.fromkeys(NETWORK) | cell.columns() | {"key": cell.key}
    row |= _floor_columns(floor) | _verdict_columns(window) | watched.trace.columns(index)
    reports = scalar_report(trajectory.programs[index], trajectory.precisions[index], 0, cell.steps - 1)
    row["warnings"] = "; ".join(report.warning for report in reports if report.warning)
    row["window_steps"] = watched.steps
    row["diverged_at"] = record.diverged_at[index] if floor.outcome in ("diverged", "not finite") else None
    row["seconds"] = seconds
    row[RECORD] = pack(window)
    return row


def floor_bound(window: Window) -> tuple[Theorem, Bound] | None:
    """The theorem that says most about where a run settles, and its bound: the smallest one that applies.

    Where none applies, the one that comes closest (``_closeness``), among those about steps that store the same state;
    if there is none of them either, for Adam's state T5, which bounds a single step, and else None.
    """
    found = [(x, x.evaluate(window)) for x in theorems().values() if x.floor and not x.comparison]
    applicable = [pair for pair in found if pair[1].applicable]
    if applicable:
        return min(applicable, key=lambda pair: pair[1].upper)
    state = set(window.program.state)
    alike = [pair for pair in found if any(set(STEPS[name].state) == state for name in pair[0].optimizers)]
    if alike:
        return max(alike, key=lambda pair: _closeness(*pair, window))
    if {"m", "v"} <= state:
        other = theorem("T5")
        return other, other.evaluate(window)
    return None


def _closeness(theorem: Theorem, bound: Bound, window: Window) -> tuple[bool, bool, int]:
    """About this optimizer, not about another rounding mode, and the number of hypotheses before the first that fails.

    Theorems list what they ask of the step first and what they ask of the record of the run last.
    """
    held = next(number for number, hypothesis in enumerate(bound.hypotheses) if not hypothesis.ok)
    other_mode = bound.hypotheses[held].name.startswith(("round to nearest", "stochastic rounding"))
    return window.optimizer in theorem.optimizers, not other_mode, held


def _floor_columns(floor: Floor) -> dict[str, Any]:
    columns: dict[str, Any] = {"outcome": floor.outcome, "stationary": floor.stationary, "frozen_share": floor.frozen}
    for name, (value, low, high) in (("rms_gradient", floor.gradient), ("loss_gap", floor.loss)):
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    columns |= {"rms_gradient_low999": floor.gradient999[1], "rms_gradient_high999": floor.gradient999[2]}
    columns["seed_rms_gradient"] = floor.seed_gradient.tolist()
    columns["seed_loss_gap"] = floor.seed_loss.tolist()
    columns["seed_frozen"] = floor.seed_frozen.tolist()
    return columns


def _verdict_columns(window: Window) -> dict[str, Any]:
    columns: dict[str, Any] = dict.fromkeys(("theorem", "quantity", "measured", "bound", "bound_lower", "ratio"))
    nothing = columns | {"verdict": "not applicable", "seeds_needed": None}
    if window.outcome in ("not finite", "diverged"):
        return nothing | {"reason": f"the run is {window.outcome}"}
    closest = floor_bound(window)
    if closest is None:
        return nothing | {"reason": f"no theorem about {window.optimizer} in this version"}
    theorem, bound = closest
    samples = theorem.measured(window)
    found = verdict(samples, bound)
    columns |= {"theorem": theorem.identifier, "quantity": theorem.quantity}
    columns |= {"verdict": found.status, "reason": found.reason, "seeds_needed": found.seeds_needed}
    covered = samples if bound.per_seed is None else samples[~np.isnan(bound.per_seed)]
    columns["measured"] = float(np.sqrt(np.mean(covered ** (2 // bound.exponent))))
    if bound.applicable:
        columns |= {"bound": bound.upper, "bound_lower": bound.lower, "ratio": found.ratio}
    return columns
