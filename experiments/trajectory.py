"""A batch of cells on the machine: many formats and seeds in lockstep, gradients inside or beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from experiments import noise
from experiments.problems.base import Problem
from experiments.study import Cell
from fpsim.cpu.machine import Machine
from fpsim.formats import format as named_format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic

Array = npt.NDArray[np.float64]


def program_of(cell: Cell, problem: Problem) -> Program:
    """The program of a cell: the optimizer's step, behind the problem's gradient where that is a program too."""
    step = STEPS[cell.optimizer]
    step = step.bind(**{name: getattr(cell, name) for name in step.hyperparameters})
    if not gradient_inside(cell, problem):
        return step
    assert problem.program is not None
    gradient = noise.with_noise(problem.program) if cell.noise == "gaussian" else problem.program
    return gradient >> step


def gradient_inside(cell: Cell, problem: Problem) -> bool:
    return problem.program is not None and problem.program_default and cell.noise != "minibatch"


def precision_of(cell: Cell, program: Program) -> Precision:
    """Every operation and every array that the step computes in the cell's one format.

    What only defines the problem (its constants, the noise) keeps binary64: every format then minimises the same
    function, whose minimiser is on none of the grids, and the operations that read it are rounded like all others.
    """
    rounding: Rounding = Stochastic(cell.random_bits) if cell.rounding == "stochastic" else cell.rounding
    uniform = Precision.uniform(named_format(f"e{cell.exponent_bits}m{cell.mantissa_bits}"), rounding)
    data = [name for name in program.inputs if name not in program.state and name != "g"]
    return uniform.replace(dict.fromkeys(data, ("binary64", "nearest_even")))


class Trajectory:
    """Cells that differ only in their format, run together; each is a block of ``seeds`` lanes.

    Parameters
    ----------
    cells : at least one; equal in everything but exponent_bits and mantissa_bits
    problem : the problem of all of them
    """

    def __init__(self, cells: Sequence[Cell], problem: Problem) -> None:
        first = cells[0]
        self.cell, self.problem, self.blocks = first, problem, len(cells)
        self.program = program_of(first, problem)
        self.inside = gradient_inside(first, problem)
        self.precisions = [precision_of(cell, self.program) for cell in cells]
        self.key = Key(first.seed)
        self.runs = np.arange(first.seeds, dtype=np.uint64)  # a seed is a run number, the same in every format
        self.dimension = problem.dimension
        self.step = 0
        tracked = [*self.program.state, "g"]
        if first.optimizer == "sgd":  # T6 bounds what underflow does by the sizes of the values on the way
            tracked += [o.slot for o in self.program.operations if o.slot.startswith("gradient.")]
        constants = dict(problem.constants) if self.inside else {}
        self.machine = Machine(
            self.program,
            self.precisions,
            first.seeds,
            {"d": self.dimension} | self.program.lengths(constants),
            self.key,
            np.tile(self.runs, self.blocks),
            track=tracked,
            events=("underflow", "overflow", "invalid", "divide_by_zero"),
        )
        start = problem.start(self.key, self.runs)
        state = {name: np.zeros_like(start) for name in self.program.state} | {"w": start}
        self.machine.load({name: np.tile(x, (1, self.blocks)) for name, x in state.items()}, constants)
        self._gradient = np.empty((1, self.dimension, self.blocks * first.seeds))

    def state(self, name: str) -> Array:
        """A copy of a state, ``[d, lanes]``; lane = block * seeds + seed."""
        return self.machine.state(name)

    def advance(self, steps: int) -> None:
        """Run ``steps`` steps."""
        if steps == 0:
            return
        if self.inside:
            inputs = {"noise": self._noise(steps)} if self.cell.noise == "gaussian" else {}
            self.machine.run(steps, inputs)
            self.step += steps
            return
        extra = self._noise(steps) if self.cell.noise == "gaussian" else None
        for offset in range(steps):
            self.external_gradient(None if extra is None else extra[offset])
            self.machine.run(1, {"g": self._gradient})
            self.step += 1

    def external_gradient(self, noise_now: Array | None) -> Array:
        """The stochastic gradient at the present weights, in binary64, ``[d, lanes]`` (a buffer that is used again)."""
        out = self._gradient[0]
        w = np.ascontiguousarray(self.machine.values("w").transpose(1, 0, 2)).reshape(out.shape)
        return self._gradient_at(w, self.runs, noise_now, out)

    def stochastic_gradient(self, seeds: npt.NDArray[np.intp]) -> Array:
        """The gradient that the next step of some seeds uses before any rounding; changes nothing.

        ``[d, blocks * len(seeds)]``, columns as ``lanes_of`` gives them.
        """
        runs = self.runs[seeds]
        noise_now = self._noise(1, runs)[0] if self.cell.noise == "gaussian" else None
        w = np.ascontiguousarray(self.state("w")[:, self.lanes_of(seeds)])
        return self._gradient_at(w, runs, noise_now, np.empty_like(w))

    def lanes_of(self, seeds: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The lanes of some seeds, block by block."""
        return (np.arange(self.blocks)[:, None] * self.cell.seeds + seeds).reshape(-1)

    def _gradient_at(self, w: Array, runs: npt.NDArray[np.uint64], noise_now: Array | None, out: Array) -> Array:
        if self.cell.noise == "minibatch":
            everyone = np.tile(runs, self.blocks)
            self.problem.minibatch_gradient(w, self.step, everyone, self.key, self.cell.batch, out=out)
        else:
            self.problem.gradient(w, out=out)
        if noise_now is not None:
            out += np.tile(noise_now, (1, self.blocks))
        return out

    def _noise(self, steps: int, runs: npt.NDArray[np.uint64] | None = None) -> Array:
        when = range(self.step, self.step + steps)
        return noise.gaussian(self.key, when, self.dimension, self.runs if runs is None else runs) * self.cell.sigma
