"""Gradients with sums: every product and every addition rounded, for many runs at a time. ns for a rounded operation.

The constants of a problem keep binary64, as in studies, so that products are of 53 bits and those of the format. The
step after the gradient is that of SGD. A smaller instance is held against the exact reader before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.bench.cases import KEY
from experiments.bench.measure import Job, Row, Settings, WrongResult, interleaved
from experiments.problems import PROBLEMS
from experiments.problems.base import Problem
from fpsim.program import Program
from fpsim.rounding import Rounding, Stochastic

TARGET = 1.0  # ns, to nearest: 1e9 operations each second
BATCH = 16
LANES = (8, 128)  # runs of one format; so many of 8 that there are 32 lanes at least
MODES: dict[str, Rounding] = {"nearest_even": "nearest_even", "stochastic16": Stochastic(16)}
_WORK = 2_000_000  # operations of one call


@dataclass(frozen=True)
class Case:
    """A problem and its gradient program. ``per_step``: (steps, runs) -> inputs of every step."""

    name: str
    problem: Problem
    program: Program
    constants: Mapping[str, npt.NDArray[np.float64]]
    per_step: Callable[[int, npt.NDArray[np.int64]], Mapping[str, npt.NDArray[np.float64]]]

    def joined(self) -> Program:
        from fpsim.optim.sgd import sgd

        return self.program >> sgd.bind(lr=2.0**-7)


def jobs(settings: Settings) -> list[Job]:
    names = ("dense quadratic", "logistic", "logistic minibatch", "rosenbrock")
    return [Job(f"reductions {name} {fmt}", partial(_run, name, fmt)) for name in names for fmt in settings.formats]


def _case(name: str, small: bool) -> Case:
    if name == "logistic minibatch":
        problem = PROBLEMS["logistic"](dimension=3 if small else 30)
        batch = 5 if small else BATCH
        program, constants = problem.minibatch_program(batch)
        return Case(name, problem, program, constants, lambda steps, runs: {
            "index": problem.minibatch_indices(range(steps), runs, KEY, batch)
        })  # fmt: skip
    if name == "logistic":
        problem = PROBLEMS["logistic"](dimension=3 if small else 30)
        constants = dict(problem.constants)
        if small:  # some of the rows
            constants |= {"rows": constants["rows"][:21], "columns": constants["columns"][:, :21].copy()}
    else:
        problem = PROBLEMS[name.replace(" ", "_")](dimension=12 if small else 64)
        constants = dict(problem.constants)
    assert problem.program is not None
    return Case(name, problem, problem.program, constants, lambda steps, runs: {})


def rounded_operations(program: Program, lengths: Mapping[str, int]) -> int:
    """Of one step and run: a sum along an axis of n terms has n - 1 additions for each of its results."""
    from fpsim.shapes import Sizes

    sizes, count = Sizes(lengths), 0
    for operation in program.operations:
        if operation.rounded:
            own = sizes.count(program.shape(operation.slot))
            terms = sizes.count(program.shape(operation.operands[0])) if operation.kind == "sum" else 0
            count += terms - own if operation.kind == "sum" else own
    return count


def _precision(case: Case, program: Program, fmt: str, mode: Rounding) -> Any:
    from fpsim.precision import Precision

    data = [name for name in program.inputs if name not in program.state]
    return Precision.uniform(fmt, mode).replace(dict.fromkeys(data, ("binary64", "nearest_even")))


def _run(name: str, fmt: str, settings: Settings) -> list[Row]:
    from fpsim.cpu.machine import Machine

    for mode in MODES.values():
        _check(_case(name, small=True), fmt, mode)
    case = _case(name, small=False)
    program, calls, work = case.joined(), {}, {}
    for lanes in LANES:
        blocks = max(1, 32 // lanes)
        runs = np.arange(lanes * blocks)
        given = case.per_step(1, runs)
        alone = {array: values[0, ..., 0] for array, values in given.items()}
        lengths = program.lengths({**case.constants, **alone, "w": np.zeros(case.problem.dimension)})
        operations = rounded_operations(program, lengths)
        steps = max(2, _WORK // (operations * len(runs)))
        given = case.per_step(steps, runs)
        for title, mode in MODES.items():
            precisions = [_precision(case, program, fmt, mode)] * blocks
            machine = Machine(program, precisions, lanes, lengths, KEY, runs)
            machine.load({"w": case.problem.start(KEY, runs)}, case.constants)
            calls[f"{title}, {lanes} lanes"] = partial(machine.run, steps, given)
            work[f"{title}, {lanes} lanes"] = operations * len(runs) * steps, operations
    seconds = interleaved(calls, settings.repeats)
    rows = []
    for title, found in seconds.items():
        total, operations = work[title]
        target = TARGET if title.startswith("nearest_even") else None
        row = Row("reductions", f"{name} {fmt} {title}", operations, found / total * 1e9)
        rows.append(replace(row, target=target, target_is_value=True))
    return rows


def _check(case: Case, fmt: str, mode: Rounding) -> None:
    """Two steps of two runs against the exact reader."""
    from fpsim.run import run

    program, runs = case.joined(), np.array([0, 5])
    start, given = {"w": case.problem.start(KEY, runs)}, {**case.constants, **case.per_step(2, runs)}
    precision = _precision(case, program, fmt, mode)
    got, expected = (
        run(program, start, given, precision, KEY, steps=2, runs=runs, device=device).state["w"]
        for device in ("cpu", "exact")
    )
    if got.tobytes() != expected.tobytes():
        i, j = np.argwhere(got.view(np.uint64) != expected.view(np.uint64))[0]
        raise WrongResult(f"{case.name} {fmt} {mode}: w[{i}] of run {j} is {got[i, j]!r}, not {expected[i, j]!r}")
