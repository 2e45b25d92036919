"""From cells to rows: run a batch, watch its window, evaluate the bound, keep the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import fpsim
from experiments.cell import Cell, kin
from experiments.floors import DIVERGED, Floor, measure
from experiments.problems.linear import column_sums
from experiments.registry import NOTHING, Own, check_same, problem_of
from experiments.schedules import at_step
from experiments.trace import Trace
from experiments.trajectory import Trajectory
from fpsim.precision import scalar_report, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key, philox4x32
from fpsim.rounding import Stochastic
from theory.theorem import Theorem
from theory.theorems import theorem
from theory.verdict import verdict
from theory.window import Window

Array = npt.NDArray[np.float64]
Events: TypeAlias = Mapping[str, Mapping[str, npt.NDArray[np.int64]]]

# Samples of the window. Each is taken at a random step of its stratum, so that their mean is unbiased for the average
# over all steps, which is what the theorems bound; every seed has steps of its own, so that the spread over the seeds
# shows the error of the sampling too.
SAMPLES = 64
EARLY = 64  # steps that are all looked at: the moments' ratio is largest while they fill
NEVER_REACHED = 2**40  # a step number
SAMPLING = 0x53414D50  # "SAMP": the key of the random steps


class Cancelled(Exception):
    """The caller asked to stop."""


@dataclass
class _Record:
    """What is kept of a batch while it runs; arrays are ``[.., blocks, seeds]``."""

    squared: list[Array] = field(default_factory=list)
    loss: list[Array] = field(default_factory=list)
    frozen: list[Array] = field(default_factory=list)
    step_ratio: Array | None = None
    diverged_at: list[int | None] = field(default_factory=list)


def run_batch(
    cells: Sequence[Cell],
    report: Callable[[int], None] = lambda done: None,
    cancelled: Callable[[], bool] = lambda: False,
    own: Own = NOTHING,
) -> list[dict[str, Any]]:
    """Run cells of one kin (``experiments.cell.kin``) in lockstep.

    Parameters
    ----------
    cells : at least one; they differ in their widths, formats of overrides and hyperparameters' values only
    report : called with the element-steps done since its last call
    cancelled : asked between strata
    own : programs and problems that their study brings itself

    Returns
    -------
    list of dict : one row a cell, with the columns of ``experiments.store.SCHEMA``

    Raises
    ------
    Cancelled
    """
    began = time.perf_counter()
    cell = cells[0]
    if len({kin(x) for x in cells}) > 1:
        raise ValueError(f"{len(cells)} cells of different kin: they cannot share a call")
    check_same(cell, own)
    problem = problem_of(cell, own)
    trajectory = Trajectory(cells, problem, own)
    trace = Trace(trajectory, cells)
    stride = max(1, round(cell.steps * cell.window) // SAMPLES)
    window_steps = min(cell.steps, SAMPLES * stride)
    first_step = cell.steps - window_steps
    cost = cell.dimension * cell.seeds * len(cells)

    first_loss = _lanes(problem.loss_gap(trajectory.state("w")), cells)
    record = _Record(diverged_at=[None] * len(cells))
    while trajectory.step < first_step:
        if cancelled():
            raise Cancelled
        part = 1 if trajectory.step < EARLY else min(stride, first_step - trajectory.step)
        trace.advance(part)
        _note_ratio(trajectory, cells, record)
        if trajectory.step >= EARLY:
            with np.errstate(over="ignore", invalid="ignore"):
                loss = problem.loss_gap(trajectory.state("w"))
            _note_divergence(trajectory, record, _lanes(loss, cells), first_loss)
        report(part * cost)
    _forget_spoiled(trajectory, record)
    trajectory.machine.reset_extremes()
    trajectory.machine.reset_events()
    start = {name: trajectory.state(name) for name in trajectory.program.state}
    for stratum in range(window_steps // stride):
        if cancelled():
            raise Cancelled
        _sample(trace, cells, _offsets(cell, stratum, stride), stride, record)
        _note_divergence(trajectory, record, record.loss[-1], first_loss)
        report(stride * cost)
    end = {name: trajectory.state(name) for name in trajectory.program.state}
    extremes, events = trajectory.machine.extremes(), trajectory.machine.events()
    halted = _halts(trajectory, end)
    watched = _Watched(
        trajectory, trace, first_step, window_steps, start, end, record, extremes, events, halted, first_loss
    )
    seconds = (time.perf_counter() - began) / len(cells)
    return [_row(cell, index, watched, seconds) for index, cell in enumerate(cells)]


@dataclass(frozen=True)
class _Watched:
    """A finished batch, before it is cut into cells."""

    trajectory: Trajectory
    trace: Trace
    first_step: int
    steps: int
    start: Mapping[str, Array]
    end: Mapping[str, Array]
    record: _Record
    extremes: Mapping[str, tuple[Array, Array]]
    events: Events
    halted: npt.NDArray[np.bool_]
    first_loss: Array


def _sample(trace: Trace, cells: Sequence[Cell], offsets: npt.NDArray[np.int64], stride: int, record: _Record) -> None:
    """Advance one stratum and look at each seed at its own step."""
    trajectory = trace.trajectory
    problem = trajectory.problem
    squared, loss, share = (np.empty((len(cells), cells[0].seeds)) for _ in range(3))
    done = 0
    for offset in np.unique(offsets):
        trace.advance(int(offset) - done)
        seeds = np.flatnonzero(offsets == offset)
        lanes = trajectory.lanes_of(seeds)
        before = {name: trajectory.state(name)[:, lanes] for name in trajectory.program.state if name in ("w", "m")}
        w = np.ascontiguousarray(before["w"])
        with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is an outcome, not a warning
            gradient = trajectory.stochastic_gradient(seeds)
            direction = gradient
            if "m" in before and "beta1" in trajectory.program.hyperparameters:
                # the exact new momentum, which is what the weight would move by
                beta1 = _momentum_decay(trajectory.step, cells, len(seeds))
                direction = beta1 * before["m"] + (1.0 - beta1) * gradient
            squared[:, seeds] = column_sums(problem.gradient(w) ** 2).reshape(len(cells), -1)
            loss[:, seeds] = problem.loss_gap(w).reshape(len(cells), -1)
        trace.advance(1)
        frozen = (trajectory.state("w")[:, lanes] == w) & (direction != 0.0)
        share[:, seeds] = frozen.mean(axis=0).reshape(len(cells), -1)
        _note_ratio(trajectory, cells, record)
        done = int(offset) + 1
    trace.advance(stride - done)
    record.squared.append(squared)
    record.loss.append(loss)
    record.frozen.append(share)


def _momentum_decay(step: int, cells: Sequence[Cell], seeds: int) -> Array:
    """The declared beta1 of each lane in a step, block by block."""
    return np.repeat([at_step(cell.hyperparameters["beta1"], cell.steps, step) for cell in cells], seeds)


def _note_ratio(trajectory: Trajectory, cells: Sequence[Cell], record: _Record) -> None:
    """Keep the largest |m| / sqrt(v) of the stored states, over coordinates and the steps looked at; 0/0 counts 0."""
    if not {"m", "v"} <= set(trajectory.program.state):
        return
    m, v = np.abs(trajectory.state("m")), trajectory.state("v")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(m == 0.0, 0.0, m / np.sqrt(v))
    worst = _lanes(ratio.max(axis=0), cells)
    record.step_ratio = worst if record.step_ratio is None else np.maximum(record.step_ratio, worst)


def _note_divergence(trajectory: Trajectory, record: _Record, loss: Array, first_loss: Array) -> None:
    """Keep the first step, of those looked at, by which a seed of a cell had diverged."""
    for block in np.flatnonzero(np.any(~(loss <= DIVERGED * first_loss), axis=1)):
        if record.diverged_at[block] is None:
            record.diverged_at[block] = trajectory.step


def _forget_spoiled(trajectory: Trajectory, record: _Record) -> None:
    """Drop the ratios seen before the window of every cell in which an operation on the moments underflowed or failed.

    What is said about the ratio holds for operations without such events, and those of the window are counted apart.
    """
    if record.step_ratio is None:
        return
    spoiled = np.zeros(trajectory.blocks, dtype=np.bool_)
    moments = _made_of(trajectory.program, ("m", "v"))
    for slot, counts in trajectory.machine.events().items():
        tiny = counts["underflow"] if slot in moments else 0
        spoiled |= (tiny + counts["overflow"] + counts["invalid"] + counts["divide_by_zero"]) > 0
    record.step_ratio[spoiled] = 0.0


def _made_of(program: Program, states: Sequence[str]) -> set[str]:
    """The slots of what is stored in some states, back to ``g`` and the arrays before the step."""
    operations, outputs = {o.slot: o.operands for o in program.operations}, dict(program.outputs)
    found, waiting = set(states), [outputs[name] for name in states]
    while waiting:
        slot = waiting.pop()
        if slot in operations and slot != "g" and slot not in found:
            found.add(slot)
            waiting += operations[slot]
    return found


def _halts(trajectory: Trajectory, end: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """[blocks, seeds]: whether a deterministic run has reached a fixed point, shown by one more step."""
    cell = trajectory.cell
    if cell.noise != "none" or _random(trajectory):
        return np.zeros((trajectory.blocks, cell.seeds), dtype=np.bool_)
    trajectory.advance(1)
    same = np.all([np.all(trajectory.state(name) == x, axis=0) for name, x in end.items()], axis=0)
    return same.reshape(trajectory.blocks, cell.seeds) & _settled(trajectory)[:, None]


def _random(trajectory: Trajectory) -> bool:
    """Whether a slot that is rounded in every step rounds stochastically; the modes are those of every block."""
    slots = trajectory.precisions[0].resolve(trajectory.program)
    return any(isinstance(mode, Stochastic) for name, (_, mode) in slots.items() if not name.startswith("scalar."))


def _settled(trajectory: Trajectory) -> npt.NDArray[np.bool_]:
    """[blocks]: whether every scalar that changes from step to step has reached its last value.

    Bias corrections do; of a schedule, which may rise again, nothing is claimed.
    """
    settled = np.ones(trajectory.blocks, dtype=np.bool_)
    for block, (program, precision) in enumerate(zip(trajectory.programs, trajectory.precisions, strict=True)):
        changing = [scalar.name for scalar in program.scalars if program.varies(scalar)]
        if program.schedules:
            settled[block] = False
        elif changing:
            now, last = (
                scalar_values(program, precision, range(t, t + 1)) for t in (trajectory.step - 1, NEVER_REACHED)
            )
            settled[block] = all(np.array_equal(now[name], last[name]) for name in changing)
    return settled


def _offsets(cell: Cell, stratum: int, stride: int) -> npt.NDArray[np.int64]:
    """A uniform step of a stratum for every seed; words that would favour the small ones are drawn again."""
    key, runs = Key(cell.seed).fold(SAMPLING), np.arange(cell.seeds)
    words = np.zeros(cell.seeds, dtype=np.int64)
    waiting, attempt = runs, 0
    while waiting.size:
        words[waiting] = philox4x32(stratum, attempt, waiting, 0, key)[0]
        waiting = waiting[words[waiting] >= (1 << 32) // stride * stride]
        attempt += 1
    return words % stride


def _lanes(values: Array, cells: Sequence[Cell]) -> Array:
    return values.reshape(len(cells), cells[0].seeds)


def _row(cell: Cell, index: int, watched: _Watched, seconds: float) -> dict[str, Any]:
    record, trajectory = watched.record, watched.trajectory
    squared, loss, frozen = (
        np.array([x[index] for x in rows]) for rows in (record.squared, record.loss, record.frozen)
    )
    floor = measure(squared, loss, frozen, watched.first_loss[index], watched.halted[index])
    window = _window(cell, index, watched, floor, squared)
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


def _window(cell: Cell, index: int, watched: _Watched, floor: Floor, squared: Array) -> Window:
    trajectory, problem = watched.trajectory, watched.trajectory.problem
    of = slice(index * cell.seeds, (index + 1) * cell.seeds)
    program, precision = trajectory.programs[index], trajectory.precisions[index]
    extremes = {name: (low[index], high[index]) for name, (low, high) in watched.extremes.items()}
    if trajectory.inside:  # constants are stored in binary64, as they are
        for name, given in trajectory.constants.items():
            if given.shape != (problem.dimension,):
                continue
            extremes[name] = (np.tile(np.abs(given)[:, None], cell.seeds),) * 2
    widest = extremes["w"][1].max(axis=1)
    scalars = scalar_values(program, precision, range(1))
    per_step = {scalar.name for scalar in program.scalars if program.varies(scalar)}
    kinds = {"underflow": ("underflow",), "overflow": ("overflow",), "invalid": ("invalid", "divide_by_zero")}
    counts = {
        name: {slot: sum(int(events[kind][index]) for kind in counted) for slot, events in watched.events.items()}
        for name, counted in kinds.items()
    }
    end = np.ascontiguousarray(watched.end["w"][:, of])
    with np.errstate(over="ignore", invalid="ignore"):  # weights that are not finite
        error = np.zeros(problem.dimension) if trajectory.inside else problem.gradient_error(widest)
        steepest = problem.gradient_bound(widest)
    return Window(
        optimizer=cell.optimizer,
        program=program,
        slots=precision.resolve(program),
        scalars={name: float(column[0]) for name, column in scalars.items() if name not in per_step},
        hyperparameters=dict(program.hyperparameters) | {"sigma": cell.sigma},
        dimension=problem.dimension,
        smoothness=problem.smoothness,
        strong_convexity=problem.strong_convexity,
        curvature=problem.curvature,
        box=problem.box,
        gradient_inside=trajectory.inside,
        gradient_error=error,
        gradient_bound=steepest,
        noise=cell.noise,
        first_step=watched.first_step,
        steps=watched.steps,
        start={name: x[:, of] for name, x in watched.start.items()},
        end={name: x[:, of] for name, x in watched.end.items()},
        loss_start=problem.loss_gap(np.ascontiguousarray(watched.start["w"][:, of])),
        loss_end=problem.loss_gap(end),
        min_abs={name: low for name, (low, _) in extremes.items()},
        max_abs={name: high for name, (_, high) in extremes.items()},
        **counts,
        halted=watched.halted[index],
        end_gradient=problem.gradient(end),
        squared_gradient=squared,
        step_ratio=None if watched.record.step_ratio is None else watched.record.step_ratio[index],
        stationary=floor.stationary,
        outcome=floor.outcome,
        exact_constants=_exact_constants(trajectory, index),
        hessian_diagonal=problem.hessian_diagonal,
    )


def _exact_constants(trajectory: Trajectory, index: int) -> tuple[str, ...]:
    """Constants of the gradient that the cell's format holds as they are."""
    if not trajectory.inside:
        return ()
    slots = trajectory.precisions[index].resolve(trajectory.program)
    return tuple(
        name
        for name, given in trajectory.constants.items()
        if np.array_equal(fpsim.round(given, slots[name][0], "nearest_even"), given)
    )


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
