"""A batch of cells on the machine: formats, hyperparameters and seeds in lockstep, gradients inside or beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments import networks, noise
from experiments.cell import Cell
from experiments.devices import runs_there
from experiments.fields import StudyError
from experiments.history import History
from experiments.overrides import apply, rounding_of
from experiments.problems.base import Moment, Problem
from experiments.registry import NOTHING, Own, bound, check_step, format_of, problem_of, step_of
from experiments.split_machine import SplitMachine
from fpsim.cpu.machine import Machine
from fpsim.number_format import Format
from fpsim.precision import Precision, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key
from fpsim.rounding import Rounding

Array = npt.NDArray[np.float64]

NOISE_ELEMENTS = 1 << 19  # of the noise made at a time: 4 MiB


def program_of(cell: Cell, problem: Problem, own: Own = NOTHING) -> Program:
    """The program of a cell: the optimizer's step, behind the problem's gradient where the machine computes that."""
    step = bound(step_of(cell.optimizer, own)[0], cell)
    if not gradient_inside(cell):
        return step
    gradient, _ = gradient_program(cell, problem)
    return gradient >> step


def gradient_program(cell: Cell, problem: Problem) -> tuple[Program, dict[str, Array]]:
    """The gradient as a program, with the noise of the cell, and its constants."""
    if cell.noise == "minibatch":
        program, constants = problem.minibatch_program(cell.batch)
        return program, dict(constants)
    assert problem.program is not None
    program = noise.with_noise(problem.program) if cell.noise == "gaussian" else problem.program
    return program, dict(problem.constants)


def gradient_inside(cell: Cell) -> bool:
    return cell.gradient == "rounded"


def precision_of(cell: Cell, program: Program) -> Precision:
    """Every operation and every array that the step computes in the cell's one format, but for its overrides.

    What only defines the problem (its constants, the noise) keeps binary64: every format then minimises the same
    function, whose minimiser is on none of the grids, and the operations that read it are rounded like all others.
    """
    uniform = Precision.uniform(format_of(cell), rounding_of(cell.rounding, cell.random_bits))
    data = [name for name in program.inputs if name not in program.state and name != "g"]
    precision = uniform.replace(dict.fromkeys(data, ("binary64", "nearest_even")))
    return apply(precision, program, cell.overrides, cell.random_bits)


def check_cell(cell: Cell, own: Own = NOTHING) -> Problem:
    """Make the problem and the program of a cell, and refuse what cannot run.

    Raises
    ------
    StudyError
        A step that a study cannot run, a gradient or noise that the problem cannot have, a minibatch larger than its
        data, an override that names no slot.
    ValueError
        The problem refuses its dimension or an option.
    """
    problem = problem_of(cell, own)
    check_step(cell.optimizer, step_of(cell.optimizer, own)[0])
    if cell.noise == "minibatch" and type(problem).minibatch_gradient is Problem.minibatch_gradient:
        reason = f"'minibatch' needs a problem with data, which {cell.problem} has not; admissible: none, gaussian"
        raise StudyError("noise", reason)
    data = getattr(problem, "rows", None)
    samples = len(data) if isinstance(data, (np.ndarray, Sequence)) else cell.batch
    if cell.noise == "minibatch" and cell.batch > samples:
        raise StudyError("batch", f"{cell.batch} is outside 1..{samples}, the samples of {cell.problem}")
    if gradient_inside(cell) and not _has_program(cell, problem):
        reason = f"'rounded' is not to be had with {cell.problem}, whose gradient is no program; admissible: exact"
        raise StudyError("gradient", reason)
    if problem.dimension != cell.dimension:
        raise StudyError("dimension", f"{cell.dimension}: {cell.problem} has {problem.dimension}")
    program = program_of(cell, problem, own)
    precision_of(cell, program).resolve(program)
    if program.opaque:
        matrix_of(cell, problem)
    return problem


def _has_program(cell: Cell, problem: Problem) -> bool:
    if cell.noise == "minibatch":
        return type(problem).minibatch_program is not Problem.minibatch_program
    return problem.program is not None


def matrix_of(cell: Cell, problem: Problem) -> tuple[int, int]:
    """(rows, columns) of the weights, for an optimizer that needs a matrix."""
    if problem.shape is None:
        reason = f"{cell.optimizer} needs weights that are a matrix: give the option rows of {cell.problem}"
        raise StudyError("options", reason)
    return problem.shape


def goes_to_device(cell: Cell, own: Own = NOTHING) -> bool:
    """Whether the steps of a cell run on a device that is asked for; all others run on the CPU, to the same bits."""
    return cell.problem not in networks.PROBLEMS and runs_there(program_of(cell, problem_of(cell, own), own))


class Trajectory:
    """Cells of one kin, run together; each is a block of ``seeds`` lanes.

    Parameters
    ----------
    cells : at least one; equal in everything but their widths, formats of overrides and hyperparameters' values
    problem : the problem of all of them
    own : what their study brings itself
    device : where the machine is, as ``experiments.devices.DEVICES`` lists them; results do not depend on it
    """

    def __init__(self, cells: Sequence[Cell], problem: Problem, own: Own = NOTHING, device: str = "cpu") -> None:
        first = cells[0]
        self.cell, self.problem, self.blocks = first, problem, len(cells)
        step = program_of(first, problem, own)
        self.programs = [bound(step, cell) for cell in cells]
        self.program = self.programs[0]
        self.inside = gradient_inside(first)
        self.precisions = [precision_of(cell, program) for cell, program in zip(cells, self.programs, strict=True)]
        self.key = Key(first.seed)
        self.runs = np.arange(first.seeds, dtype=np.uint64)  # a seed is a run number, the same in every format
        self.dimension = problem.dimension
        self.step = 0
        tracked = [*self.program.state, "g"]
        if self.program.state == ("w",):  # T6 bounds what underflow does by the sizes of the values on the way
            tracked += [o.slot for o in self.program.operations if o.slot.startswith("gradient.")]
        self.constants = gradient_program(first, problem)[1] if self.inside else {}
        lengths = {"d": self.dimension} | self.program.lengths(self.constants)
        if self.inside and first.noise == "minibatch":
            lengths |= self.program.lengths({"index": np.empty(first.batch)})
        make: Any = Machine
        if self.program.opaque:
            make = functools.partial(SplitMachine, matrix_of(first, problem))
        elif device != "cpu":
            from experiments.device_machine import DeviceMachine  # on first use: it loads torch

            if runs_there(self.program):
                make = functools.partial(DeviceMachine, device)
        self.machine: Machine | SplitMachine | DeviceMachine = make(
            self.program,
            self.precisions,
            first.seeds,
            lengths,
            self.key,
            np.tile(self.runs, self.blocks),
            track=tracked,
            events=("underflow", "overflow", "invalid", "divide_by_zero"),
            programs=self.programs,
        )
        start = problem.start(self.key, self.runs)
        state = {name: np.zeros((*self.machine.shape(name), first.seeds)) for name in self.program.state} | {"w": start}
        self.machine.load(
            {name: np.concatenate([x] * self.blocks, axis=-1) for name, x in state.items()}, self.constants
        )
        self._gradient = np.empty((1, self.dimension, self.blocks * first.seeds))
        self.history: History | None = None  # what keeps the next steps, where they are to be kept

    def state(self, name: str) -> Array:
        """A copy of a state, ``[d, lanes]``; lane = block * seeds + seed."""
        return self.machine.state(name)

    @property
    def bytes(self) -> int:
        """Memory of the machine's arrays, of the gradient and of the noise; it does not depend on the steps."""
        machines = self.machine.parts if isinstance(self.machine, SplitMachine) else (self.machine,)
        arrays = [x for m in machines for x in vars(m).values() if isinstance(x, np.ndarray) and x.base is None]
        there = getattr(self.machine, "bytes", 0)  # of a device
        noise = 8 * self.dimension * self.cell.seeds * self._noisy_steps if self.cell.noise == "gaussian" else 0
        return sum(x.nbytes for x in arrays) + self._gradient.nbytes + noise + there

    @property
    def _noisy_steps(self) -> int:
        """Steps whose noise, or samples, are drawn at a time."""
        return max(1, NOISE_ELEMENTS // (max(self.dimension, self.cell.batch) * self.cell.seeds))

    def advance(self, steps: int) -> None:
        """Run ``steps`` steps."""
        done, at_once = 0, self._noisy_steps if self.cell.noise != "none" else max(steps, 1)
        while done < steps:
            self._advance(min(at_once, steps - done))
            done += min(at_once, steps - done)

    def _advance(self, steps: int) -> None:
        if self.inside:
            inputs = {"noise": self._noise(steps)} if self.cell.noise == "gaussian" else {}
            if self.cell.noise == "minibatch":
                when = range(self.step, self.step + steps)
                inputs["index"] = self.problem.minibatch_indices(when, self.runs, self.key, self.cell.batch)
            self._run(steps, inputs)
            return
        extra = self._noise(steps) if self.cell.noise == "gaussian" else None
        for offset in range(steps):
            self.external_gradient(None if extra is None else extra[offset])
            self._run(1, {"g": self._gradient})

    def _run(self, steps: int, inputs: Mapping[str, Array]) -> None:
        """Run the machine; the steps that the history still misses are recorded, which changes no result."""
        done = 0
        while done < steps:
            kept = min(steps - done, self.history.missing, self.history.at_once) if self.history else 0
            count = kept or steps - done
            given = {name: x[done : done + count] for name, x in inputs.items()}
            values = self.machine.run(count, given, self.history.names if self.history and kept else None)
            if self.history and kept:
                self.history.add(values)
            done += count
            self.step += count

    def external_gradient(self, noise_now: Array | None) -> Array:
        """The stochastic gradient at the present weights, in binary64, ``[d, lanes]`` (a buffer that is used again)."""
        out = self._gradient[0]
        if not self.problem.objective:
            return self._given(self.runs, self.state, noise_now, out)
        w = np.ascontiguousarray(self.machine.values("w").transpose(1, 0, 2)).reshape(out.shape)
        return self._gradient_at(w, self.runs, noise_now, out)

    def stochastic_gradient(self, seeds: npt.NDArray[np.intp]) -> Array:
        """The gradient that the next step of some seeds uses before any rounding; changes nothing.

        ``[d, blocks * len(seeds)]``, columns as ``lanes_of`` gives them.
        """
        runs = self.runs[seeds]
        noise_now = self._noise(1, runs)[0] if self.cell.noise == "gaussian" else None
        lanes = self.lanes_of(seeds)
        if not self.problem.objective:
            out = np.empty((self.dimension, len(lanes)))
            return self._given(runs, lambda name: self.state(name)[:, lanes], noise_now, out)
        w = np.ascontiguousarray(self.state("w")[:, lanes])
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
        return self._with(noise_now, out)

    def _given(
        self, runs: npt.NDArray[np.uint64], state: Callable[[str], Array], noise_now: Array | None, out: Array
    ) -> Array:
        """The gradients of the next step, where there is no objective."""
        slots, scalars = self._stored
        return self._with(noise_now, self.problem.given(Moment(self.step, self.key, runs, slots, scalars, state), out))

    @functools.cached_property
    def _stored(self) -> tuple[list[Mapping[str, tuple[Format, Rounding]]], list[dict[str, float]]]:
        """Of each block, the slots and the scalars that do not change."""
        pairs = list(zip(self.programs, self.precisions, strict=True))
        scalars = [
            {s.name: float(values[s.name][0]) for s in program.scalars if not program.varies(s)}
            for program, values in ((x, scalar_values(x, precision, range(1))) for x, precision in pairs)
        ]
        return [precision.resolve(program) for program, precision in pairs], scalars

    def _with(self, noise_now: Array | None, out: Array) -> Array:
        if noise_now is not None:
            out += np.tile(noise_now, (1, self.blocks))
        return out

    def _noise(self, steps: int, runs: npt.NDArray[np.uint64] | None = None) -> Array:
        when = range(self.step, self.step + steps)
        return noise.gaussian(self.key, when, self.dimension, self.runs if runs is None else runs) * self.cell.sigma
