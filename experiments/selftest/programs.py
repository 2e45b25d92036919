"""A batch of programs on the machine against the exact reader: optimizers, and random lists of operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import fpsim
from experiments.selftest.formats import drawn_format, drawn_modes
from experiments.selftest.outcome import Mismatch, Outcome, error_of
from fpsim import optim
from fpsim.precision import Precision
from fpsim.program import KINDS, RUNNABLE, Operation, Program
from fpsim.random_bits import Key
from fpsim.rounding import Rounding

ELEMENTS, RUNS, STEPS = 3, 2, 3
OPTIMIZERS = tuple(program for program in optim.STEPS.values() if program.uniform)


def check(generator: np.random.Generator, formats: Sequence[str], modes: Sequence[Rounding], call: str) -> Outcome:
    """One program: every operation in every step, and the states after the last. ``call`` repeats the batch."""
    program = drawn_program(generator)
    precision = drawn_precision(generator, program, formats, modes)
    key = Key(int(generator.integers(0, 1 << 63)))
    size = np.exp2(generator.integers(-6, 7, (ELEMENTS, 1)))
    state = {name: np.abs(generator.standard_normal((ELEMENTS, RUNS))) * size for name in program.state}
    state["w"] = generator.standard_normal((ELEMENTS, RUNS)) * size
    inputs = {
        name: generator.standard_normal((STEPS, ELEMENTS, RUNS)) * size
        for name in program.inputs
        if name not in program.state
    }
    first = int(generator.choice([0, 1, 1000]))
    record = [operation.slot for operation in program.operations]
    outcome = Outcome()

    def run(device: str) -> dict[str, np.ndarray]:
        result = fpsim.run(
            program, state, inputs, precision, key, steps=STEPS, first_step=first, record=record, device=device
        )
        return {**result.records, **{f"state {name}": values for name, values in result.state.items()}}

    expected = run("exact")
    places = [(name, int(i)) for name, values in expected.items() for i in range(values.size)]

    def describe(place: int, got: str) -> Mismatch:
        name, i = places[place]
        fmt, mode = precision.resolve(program).get(name.removeprefix("state "), ("exact", ""))
        shown = fmt if isinstance(fmt, str) else fmt.name
        operands = (f"{program.name}: {name}[{i}]",)
        right = float(expected[name].flat[i]).hex()
        return Mismatch("programs", operands, shown, str(mode), None, got, right, call)

    try:
        found = run("cpu")
    except Exception as error:
        outcome.failed(len(places), describe(0, error_of(error)))
        return outcome
    got = np.concatenate([found[name].ravel() for name in expected])
    right = np.concatenate([values.ravel() for values in expected.values()])
    outcome.compare(got, right, lambda i: describe(i, float(got[i]).hex()))
    return outcome


def drawn_program(generator: np.random.Generator) -> Program:
    if generator.integers(2):
        return OPTIMIZERS[generator.integers(len(OPTIMIZERS))]
    names = ["w", "u", "g", "c"]
    operations = []
    kinds = sorted(RUNNABLE - {"dot", "gather", "expand"})  # what needs axes is drawn in the tests
    for number in range(int(generator.integers(3, 11))):
        kind = kinds[generator.integers(len(kinds))]
        # Half of the operands are recent results, so that programs are deep.
        operands = tuple(
            names[-1 - int(generator.integers(min(3, len(names))))]
            if generator.integers(2)
            else names[generator.integers(len(names))]
            for _ in range(KINDS[kind][0])
        )
        operations.append(Operation(kind, f"{kind}_{number}", operands))
        names.append(f"{kind}_{number}")
    outputs = (("w", names[-1]), ("u", names[int(generator.integers(len(names)))]))
    return Program("random program", ("w", "u", "g", "c"), outputs, (), tuple(operations))


def drawn_precision(
    generator: np.random.Generator, program: Program, formats: Sequence[str], modes: Sequence[Rounding]
) -> Precision:
    """One format and mode for all, and others for some of the slots."""

    def drawn() -> tuple[fpsim.Format, Rounding]:
        return drawn_format(generator, formats), drawn_modes(generator, modes, 1)[0]

    precision = Precision.uniform(*drawn())
    others = {slot: drawn() for slot in program.slots if generator.integers(4) == 0}
    return precision.replace(others) if others else precision
