"""Run the programs of this package: a first step of its own, and the square root of MKL between two parts of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpsim.optim.pytorch.mkl_sqrt import mkl_sqrt
from fpsim.precision import Precision
from fpsim.program import Operation, Program
from fpsim.random_bits import Key
from fpsim.run import RunResult, run

Array: TypeAlias = npt.NDArray[np.float64]


def torch_sqrt(x: Array) -> Array:
    """The square root of float32 values as the running PyTorch computes it.

    Examples
    --------
    >>> torch_sqrt(np.array([4.0])).tolist()
    [2.0]
    """
    import torch

    root: Array = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).sqrt().double().numpy()
    return root


FUNCTIONS: dict[str, Callable[[Array], Array]] = {"mkl_sqrt": mkl_sqrt, "torch_sqrt": torch_sqrt}


def simulate(
    plan: Program | Sequence[Program],
    state: Mapping[str, npt.ArrayLike],
    inputs: Mapping[str, npt.ArrayLike],
    precision: Precision,
    key: Key | None = None,
    *,
    steps: int = 1,
    first_step: int = 0,
    record: Sequence[str] = (),
) -> RunResult:
    """``fpsim.run`` for a plan of programs that may hold the opaque operations ``mkl_sqrt`` and ``torch_sqrt``.

    Parameters
    ----------
    plan : the program of every step; or several: that of the first step (number 0), of the second, ..., of all others
    state, inputs, precision, key, steps, first_step, record : as for ``fpsim.run``

    Returns
    -------
    RunResult : as of ``fpsim.run``, without events; the header is that of the last stretch of one program

    Raises
    ------
    ValueError
        As ``fpsim.run``, but NaN only in the state of step 0; or an opaque operation of another name.

    Examples
    --------
    >>> from fpsim.optim.pytorch import sgd
    >>> plan = [sgd(momentum=True, first=True), sgd(momentum=True)]
    >>> simulate(plan, {"w": [1.0], "m": [0.0]}, {"g": [0.5]}, Precision.torch("float32"), steps=2).state
    {'w': array([[0.99855]]), 'm': array([[0.94999999]])}
    """
    programs = [plan] if isinstance(plan, Program) else list(plan)
    now: Mapping[str, npt.ArrayLike] = state
    given = {name: np.asarray(x, dtype=np.float64) for name, x in inputs.items()}
    for name, x in given.items():
        if _per_step(programs[-1], name, x) and len(x) != steps:
            raise ValueError(f"array {name!r} has {len(x)} steps; admissible: {steps}")
    rows: dict[str, list[Array]] = {name: [] for name in record}
    done = 0
    while True:
        number = first_step + done
        program = programs[min(number, len(programs) - 1)]
        count = steps - done if number >= len(programs) - 1 else min(1, steps - done)
        part = {k: x[done : done + count] if _per_step(program, k, x) else x for k, x in given.items()}
        result = _advance(program, now, part, precision, key, count, number, record)
        now, done = result.state, done + count
        for name in rows:
            rows[name].append(result.records[name])
        if done >= steps:
            return replace(result, records={name: np.concatenate(parts) for name, parts in rows.items()})


def _per_step(program: Program, name: str, x: Array) -> bool:
    return name in program.inputs and x.ndim == len(program.shape(name)) + 2


def _advance(
    program: Program,
    state: Mapping[str, npt.ArrayLike],
    given: dict[str, Array],
    precision: Precision,
    key: Key | None,
    steps: int,
    first_step: int,
    record: Sequence[str],
) -> RunResult:
    held = {name: np.asarray(x, dtype=np.float64) for name, x in state.items()}
    lost = {name: np.isnan(x) for name, x in held.items() if first_step > 0 and np.isnan(x).any()}
    if not program.opaque and not lost:
        return run(program, state, given, precision, key, steps=steps, first_step=first_step, record=record)
    from fpsim.cpu.machine import Machine  # on first use: it loads the compiler

    pieces = _parts(program)
    wanted = {name for _, name in program.outputs}.union(record, *(part.inputs for part, _ in pieces))
    wanted |= {cut.operands[0] for _, cut in pieces if cut is not None}
    sound = {name: np.where(lost[name], 0.0, x) if name in lost else x for name, x in held.items()}
    started = _started(program, sound, given, precision, key, first_step, record)
    for name, where in lost.items():  # a run that is continued goes on with them, as PyTorch does
        started.state[name][where.reshape(started.state[name].shape)] = np.nan
    if steps == 0:
        return started
    values: dict[str, Any] = dict(started.state)
    columns = {name: x if x.ndim > len(program.shape(name)) else x[..., np.newaxis] for name, x in given.items()}
    runs = max(x.shape[-1] for x in (*values.values(), *columns.values()))
    one = {name: x[0] if _per_step(program, name, x) else x for name, x in columns.items()} | values
    sizes = program.lengths({name: x[..., 0] for name, x in one.items()})
    machines = [Machine(part, [precision], runs, sizes, key, np.arange(runs, dtype=np.uint64)) for part, _ in pieces]
    for machine in machines:
        machine.first_step = first_step
    records = {name: np.empty((steps, *x.shape[1:])) for name, x in started.records.items()}
    for step in range(steps):
        for name, x in columns.items():
            row = x[step] if _per_step(program, name, x) else x
            values[name] = np.broadcast_to(row, (*row.shape[:-1], runs))
        for machine, (part, cut) in zip(machines, pieces, strict=True):
            made = [o.slot for o in part.operations if o.slot in wanted]
            results = machine.run(1, {name: values[name][np.newaxis] for name in part.inputs}, made)
            values |= {name: results[name][0, 0] for name in made}
            if cut is not None:
                values[cut.slot] = FUNCTIONS[str(dict(cut.attributes)["function"])](values[cut.operands[0]])
        values |= {array: values[name] for array, name in program.outputs}
        for name, x in records.items():
            x[step] = values[name]
    return replace(started, state={name: values[name] for name in program.state}, records=records)


def _started(
    program: Program,
    state: Mapping[str, npt.ArrayLike],
    given: dict[str, Array],
    precision: Precision,
    key: Key | None,
    first_step: int,
    record: Sequence[str],
) -> RunResult:
    """No step of the program: what is given is checked, and the start state rounded to its formats."""
    operations = tuple(replace(o, kind="round", attributes=()) if o.kind == "opaque" else o for o in program.operations)
    none = {name: x[:0] if _per_step(program, name, x) else x for name, x in given.items()}
    plain = replace(program, operations=operations)
    return run(plain, state, none, precision, key, steps=0, first_step=first_step, record=record)


def _parts(program: Program) -> list[tuple[Program, Operation | None]]:
    """Programs of the operations between opaque ones, each with the opaque operation that follows it."""
    cuts = [o for o in program.operations if o.kind == "opaque"]
    for cut in cuts:
        if dict(cut.attributes).get("function") not in FUNCTIONS:
            raise ValueError(f"{cut.slot}: {dict(cut.attributes)}; admissible functions: {', '.join(FUNCTIONS)}")
    bounds = [-1, *(program.operations.index(cut) for cut in cuts), len(program.operations)]
    scalars = {scalar.name: scalar for scalar in program.scalars}
    parts: list[tuple[Program, Operation | None]] = []
    for begin, end in pairwise(bounds):
        operations = program.operations[begin + 1 : end]
        own = {o.slot for o in operations}
        read = dict.fromkeys(name for o in operations for name in o.operands)
        inputs = tuple(name for name in read if name not in own and name not in scalars)
        part = replace(
            program,
            name=f"{program.name} {len(parts) + 1}",
            inputs=inputs,
            outputs=(),
            scalars=tuple(scalar for name, scalar in scalars.items() if name in read),
            operations=operations,
            shapes={name: program.shape(name) for name in inputs},
            part_of=(*program.slots, *(name for name in inputs if name not in program.slots)),
        )
        parts.append((part, cuts[len(parts)] if end < len(program.operations) else None))
    return parts
