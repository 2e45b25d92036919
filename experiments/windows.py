"""What is kept of a batch while it runs, and the windows that theorems read, cut from it cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

import fpsim
from experiments.cell import Cell
from experiments.floors import Floor, measure, no_floor
from experiments.history import History
from experiments.trace import Trace
from experiments.trajectory import Trajectory
from fpsim.precision import Precision, scalar_values
from fpsim.program import Program
from theory.window import Window

Array = npt.NDArray[np.float64]
Events: TypeAlias = Mapping[str, Mapping[str, npt.NDArray[np.int64]]]


@dataclass
class Record:
    """What is kept of a batch while it runs; arrays are ``[.., blocks, seeds]``."""

    squared: list[Array] = field(default_factory=list)
    loss: list[Array] = field(default_factory=list)
    frozen: list[Array] = field(default_factory=list)
    samples: dict[str, list[Array]] = field(default_factory=dict)
    step_ratio: Array | None = None
    diverged_at: list[int | None] = field(default_factory=list)


@dataclass(frozen=True)
class Watched:
    """A finished batch, before it is cut into cells."""

    trajectory: Trajectory
    trace: Trace
    first_step: int
    steps: int
    start: Mapping[str, Array]
    end: Mapping[str, Array]
    record: Record
    extremes: Mapping[str, tuple[Array, Array]]
    events: Events
    halted: npt.NDArray[np.bool_]
    first_loss: Array
    history: History

    def floor(self, index: int) -> Floor:
        """Where one cell of the batch settled."""
        if not self.trajectory.problem.objective:
            return no_floor(self.trajectory.cell.seeds)
        squared, loss, frozen = (
            np.array([x[index] for x in rows]) for rows in (self.record.squared, self.record.loss, self.record.frozen)
        )
        return measure(squared, loss, frozen, self.first_loss[index], self.halted[index])


def window_of(cell: Cell, index: int, watched: Watched, floor: Floor) -> Window:
    """The window of one cell of a batch."""
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
        noise=cell.noise if problem.objective else "sequence",
        first_step=watched.first_step,
        steps=watched.steps,
        start={name: x[..., of] for name, x in watched.start.items()},
        end={name: x[..., of] for name, x in watched.end.items()},
        loss_start=problem.loss_gap(np.ascontiguousarray(watched.start["w"][:, of])),
        loss_end=problem.loss_gap(end),
        min_abs={name: low for name, (low, _) in extremes.items()},
        max_abs={name: high for name, (_, high) in extremes.items()},
        **counts,
        halted=watched.halted[index],
        end_gradient=problem.gradient(end),
        squared_gradient=np.array([x[index] for x in watched.record.squared]),
        step_ratio=None if watched.record.step_ratio is None else watched.record.step_ratio[index],
        stationary=floor.stationary,
        outcome=floor.outcome,
        exact_constants=_exact_constants(trajectory, index),
        hessian_diagonal=problem.hessian_diagonal,
        history=watched.history.of(index),
        history_first=watched.history.first,
        samples={name: np.array([x[index] for x in rows]) for name, rows in watched.record.samples.items()},
        minimizer=problem.minimizer,
        shape=problem.shape,
        spectral_smoothness=problem.spectral_smoothness,
        hessian=problem.hessian,
        changing=_changing(program, precision, watched) if per_step else {},
    )


def _changing(program: Program, precision: Precision, watched: Watched) -> dict[str, Array]:
    """The stored scalars that change, in the step before the window and in each of its steps."""
    steps = range(watched.first_step - 1, watched.first_step + watched.steps)
    known = scalar_values(program, precision, range(max(steps.start, 0), steps.stop))
    names = [scalar.name for scalar in program.scalars if program.varies(scalar)]
    return {name: np.concatenate([known[name][:1]] * (steps.start < 0) + [known[name]]) for name in names}


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
