"""From cells to rows: run a batch, watch its window, evaluate the bound, keep the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments import networks
from experiments.cell import Cell, kin
from experiments.floors import DIVERGED
from experiments.history import GIVEN_SEEDS, GIVEN_STEPS, STEPS, History
from experiments.norms import lengths
from experiments.problems.linear import column_sums
from experiments.registry import NOTHING, Own, check_same, problem_of
from experiments.rows import row_of
from experiments.schedules import at_step
from experiments.trace import Trace
from experiments.trajectory import Trajectory
from experiments.windows import Record, Watched, window_of
from fpsim.precision import scalar_values
from fpsim.random_bits import Key, philox4x32
from fpsim.rounding import Stochastic
from theory.roles import upstream
from theory.window import Window

Array = npt.NDArray[np.float64]

# Samples of the window. Each is taken at a random step of its stratum, so that their mean is unbiased for the average
# over all steps, which is what the theorems bound; every seed has steps of its own, so that the spread over the seeds
# shows the error of the sampling too.
SAMPLES = 64
EARLY = 64  # steps that are all looked at: the moments' ratio is largest while they fill
NEVER_REACHED = 2**40  # a step number
SAMPLING = 0x53414D50  # "SAMP": the key of the random steps


class Cancelled(Exception):
    """The caller asked to stop."""


def run_batch(
    cells: Sequence[Cell],
    report: Callable[[int], None] = lambda done: None,
    cancelled: Callable[[], bool] = lambda: False,
    own: Own = NOTHING,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Run cells of one kin (``experiments.cell.kin``) in lockstep.

    Parameters
    ----------
    cells : at least one; they differ in their widths, formats of overrides and hyperparameters' values only
    report : called with the element-steps done since its last call
    cancelled : asked between strata
    own : programs and problems that their study brings itself
    device : ``"cpu"``, ``"cuda"`` or ``"torch"`` (the portable twin of the card's machine): the rows are the same

    Returns
    -------
    list of dict : one row a cell, with the columns of ``experiments.store.CELL_SCHEMA``

    Raises
    ------
    Cancelled
    """
    if cells[0].problem in networks.PROBLEMS:
        from experiments.networks.cells import run_cells

        return run_cells(cells, report, cancelled)
    began = time.perf_counter()
    watched = watch(cells, report, cancelled, own, device)
    seconds = (time.perf_counter() - began) / len(cells)
    return [row_of(cell, index, watched, seconds) for index, cell in enumerate(cells)]


def windows(cells: Sequence[Cell], own: Own = NOTHING) -> list[Window]:
    """Run cells of one kin and give the windows that theorems read, one a cell."""
    watched = watch(cells, own=own)
    return [window_of(cell, index, watched, watched.floor(index)) for index, cell in enumerate(cells)]


def watch(
    cells: Sequence[Cell],
    report: Callable[[int], None] = lambda done: None,
    cancelled: Callable[[], bool] = lambda: False,
    own: Own = NOTHING,
    device: str = "cpu",
) -> Watched:
    """Run a batch to its end and keep what was seen of it; arguments as for ``run_batch``."""
    cell = cells[0]
    if len({kin(x) for x in cells}) > 1:
        raise ValueError(f"{len(cells)} cells of different kin: they cannot share a call")
    check_same(cell, own)
    problem = problem_of(cell, own)
    trajectory = Trajectory(cells, problem, own, device)
    trace = Trace(trajectory, cells)
    stride = max(1, round(cell.steps * cell.window) // SAMPLES)
    window_steps = min(cell.steps, SAMPLES * stride)
    first_step = cell.steps - window_steps
    cost = cell.dimension * cell.seeds * len(cells)

    first_loss = _lanes(problem.loss_gap(trajectory.state("w")), cells)
    record = Record(diverged_at=[None] * len(cells))
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
    history = trajectory.history = _history(trajectory, window_steps)
    for stratum in range(window_steps // stride):
        if cancelled():
            raise Cancelled
        _sample(trace, cells, random_offsets(cell, stratum, stride), stride, record)
        _note_divergence(trajectory, record, record.loss[-1], first_loss)
        report(stride * cost)
    end = {name: trajectory.state(name) for name in trajectory.program.state}
    extremes, events = trajectory.machine.extremes(), trajectory.machine.events()
    halted = _halts(trajectory, end)
    return Watched(
        trajectory, trace, first_step, window_steps, start, end, record, extremes, events, halted, first_loss, history
    )


def _history(trajectory: Trajectory, steps: int) -> History:
    """Of given gradients it is what the run is for, and theorems about averages need many seeds."""
    if trajectory.problem.objective:
        return History(trajectory, min(STEPS, steps))
    return History(trajectory, min(GIVEN_STEPS, steps), seeds=GIVEN_SEEDS)


def _sample(trace: Trace, cells: Sequence[Cell], offsets: npt.NDArray[np.int64], stride: int, record: Record) -> None:
    """Advance one stratum and look at each seed at its own step."""
    trajectory = trace.trajectory
    problem = trajectory.problem
    squared, loss, share = (np.empty((len(cells), cells[0].seeds)) for _ in range(3))
    samples: dict[str, Array] = {}

    def keep(name: str, values: Array) -> None:
        samples.setdefault(name, np.empty_like(squared))[:, seeds] = values.reshape(len(cells), -1)

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
            slope = problem.gradient(w)
            squared[:, seeds] = column_sums(slope**2).reshape(len(cells), -1)
            loss[:, seeds] = problem.loss_gap(w).reshape(len(cells), -1)
            if problem.minimizer is not None:
                keep("squared_distance", column_sums((w - problem.minimizer[:, None]) ** 2))
        for norm, of in lengths(problem.shape).items():
            keep(f"{norm}_gradient", of(slope))
        trace.advance(1)
        if "m" in before:
            after = trajectory.state("m")[:, lanes]
            for norm, of in lengths(problem.shape).items():
                keep(f"{norm}_m", of(after))
        moved = trajectory.state("w")[:, lanes]
        with np.errstate(over="ignore", invalid="ignore"):
            keep("squared_move", column_sums((moved - w) ** 2))
        frozen = (moved == w) & (direction != 0.0)
        share[:, seeds] = frozen.mean(axis=0).reshape(len(cells), -1)
        _note_ratio(trajectory, cells, record)
        done = int(offset) + 1
    trace.advance(stride - done)
    record.squared.append(squared)
    record.loss.append(loss)
    record.frozen.append(share)
    for name, values in samples.items():
        record.samples.setdefault(name, []).append(values)


def _momentum_decay(step: int, cells: Sequence[Cell], seeds: int) -> Array:
    """The declared beta1 of each lane in a step, block by block."""
    return np.repeat([at_step(cell.hyperparameters["beta1"], cell.steps, step) for cell in cells], seeds)


def _note_ratio(trajectory: Trajectory, cells: Sequence[Cell], record: Record) -> None:
    """Keep the largest |m| / sqrt(v) of the stored states, over coordinates and the steps looked at; 0/0 counts 0."""
    if not {"m", "v"} <= set(trajectory.program.state):
        return
    m, v = np.abs(trajectory.state("m")), trajectory.state("v")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(m == 0.0, 0.0, m / np.sqrt(v))
    worst = _lanes(ratio.max(axis=0), cells)
    record.step_ratio = worst if record.step_ratio is None else np.maximum(record.step_ratio, worst)


def _note_divergence(trajectory: Trajectory, record: Record, loss: Array, first_loss: Array) -> None:
    """Keep the first step, of those looked at, by which a seed of a cell had diverged."""
    if not trajectory.problem.objective:
        return
    for block in np.flatnonzero(np.any(~(loss <= DIVERGED * first_loss), axis=1)):
        if record.diverged_at[block] is None:
            record.diverged_at[block] = trajectory.step


def _forget_spoiled(trajectory: Trajectory, record: Record) -> None:
    """Drop the ratios seen before the window of every cell in which an operation on the moments underflowed or failed.

    What is said about the ratio holds for operations without such events, and those of the window are counted apart.
    """
    if record.step_ratio is None:
        return
    spoiled = np.zeros(trajectory.blocks, dtype=np.bool_)
    moments = {"m", "v", *(o.slot for o in upstream(trajectory.program, ["m ->", "v ->"]))}
    for slot, counts in trajectory.machine.events().items():
        tiny = counts["underflow"] if slot in moments else 0
        spoiled |= (tiny + counts["overflow"] + counts["invalid"] + counts["divide_by_zero"]) > 0
    record.step_ratio[spoiled] = 0.0


def _halts(trajectory: Trajectory, end: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """[blocks, seeds]: whether a deterministic run has reached a fixed point, shown by one more step."""
    cell = trajectory.cell
    if cell.noise != "none" or not trajectory.problem.objective or _random(trajectory):
        return np.zeros((trajectory.blocks, cell.seeds), dtype=np.bool_)
    trajectory.advance(1)
    unmoved = [np.all(trajectory.state(name) == x, axis=tuple(range(x.ndim - 1))) for name, x in end.items()]
    same: npt.NDArray[np.bool_] = np.all(unmoved, axis=0)
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


def random_offsets(cell: Cell, stratum: int, stride: int) -> npt.NDArray[np.int64]:
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
