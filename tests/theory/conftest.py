"""A narrow machine in a few lines of NumPy, independent of fpsim's machines, and windows made from its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from window_fields import window_with

from fpsim.number_format import Format
from fpsim.precision import Precision, scalar_values
from fpsim.program import Program
from fpsim.rounding import Rounding, Stochastic
from theory.window import Window

OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "sqrt": np.sqrt,
    "round": np.positive,
    "neg": np.negative,
    "abs": np.abs,
    "max": np.maximum,
    "min": np.minimum,
}

RULES: dict[str, Callable[..., Any]] = {
    "nearest_even": np.rint,
    "toward_zero": np.trunc,
    "up": np.ceil,
    "down": np.floor,
}


def rounded(x: np.ndarray, fmt: Format, mode: Rounding, draw: np.random.Generator) -> np.ndarray:
    """Round binary64 values; exact for results of one operation on operands of at most 25 bits, to nearest."""
    _, exponent = np.frexp(x)
    quantum = np.ldexp(1.0, np.maximum(exponent - 1, fmt.emin) - fmt.mantissa_bits)
    scaled = x / quantum
    if isinstance(mode, Stochastic):
        magnitude = np.abs(scaled)
        whole = np.floor(magnitude)
        words = draw.integers(0, 1 << mode.bits, size=x.shape)
        share = (magnitude - whole) * (1 << mode.bits)
        chosen = {"A": np.floor(share), "B": np.floor(share + 0.5), "C": np.rint(share)}[mode.variant]
        away = chosen + words >= 1 << mode.bits
        return np.copysign((whole + away) * quantum, x)
    return RULES[mode](scaled) * quantum


def run(
    program: Program,
    precision: Precision,
    state: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray],
    steps: int,
    *,
    every_step: Callable[[int, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] | None = None,
    seed: int = 0,
) -> SimpleNamespace:
    """Run a program. Arrays are [d, S]; ``every_step(k, state)`` gives the per-step inputs.

    Returns start, end and previous states, scalars, extremes, underflow counts and the list of states after each step.
    """
    slots, draw = precision.resolve(program), np.random.default_rng(seed)
    scalars = scalar_values(program, precision, range(steps))
    underflow = dict.fromkeys(program.slots, 0)
    largest: dict[str, np.ndarray] = {}
    smallest: dict[str, np.ndarray] = {}

    def store(name: str, x: np.ndarray) -> np.ndarray:
        fmt, mode = slots[name]
        underflow[name] += int(np.count_nonzero((x != 0) & (np.abs(x) < fmt.smallest_normal)))
        return rounded(x, fmt, mode, draw)

    def watch(name: str, x: np.ndarray) -> None:
        size = np.abs(x)
        largest[name] = np.maximum(largest.get(name, 0.0), size)
        smallest[name] = np.minimum(smallest.get(name, np.inf), size)

    values = {name: store(name, np.array(x)) for name, x in {**state, **constants}.items()}
    start = {name: values[name] for name in state}
    history = [start]
    for name in start:
        watch(name, start[name])
    for k in range(steps):
        now = dict(values)
        for name, x in (every_step(k, values) if every_step else {}).items():
            now[name] = store(name, x)
        now |= {name: column[k if len(column) > 1 else 0] for name, column in scalars.items()}
        for o in program.operations:
            exact = OPERATIONS[o.kind](*(now[name] for name in o.operands))
            now[o.slot] = store(o.slot, exact) if o.rounded else exact
        for name, x in now.items():
            if not name.startswith("scalar."):
                watch(name, x)
        values |= {name: store(name, now[value]) for name, value in program.outputs}
        history.append({name: values[name] for name in state})
    constant = {s.name: float(scalars[s.name].flat[0]) for s in program.scalars if not s.per_step}
    return SimpleNamespace(
        program=program,
        slots=slots,
        scalars=constant,
        start=start,
        end=history[-1],
        history=history,
        underflow=underflow,
        max_abs=largest,
        min_abs=smallest,
        values=now,
    )


def window(result: SimpleNamespace, **fields: Any) -> Window:
    """A window over the whole run, with every field that a test does not give set to something harmless."""
    d, seeds = next(iter(result.end.values())).shape
    steps = len(result.history) - 1
    halted = np.all([np.all(result.history[-1][k] == result.history[-2][k], axis=0) for k in result.end], axis=0)
    taken = ("slots", "scalars", "start", "end", "underflow", "max_abs", "min_abs")
    found = {"steps": steps, "halted": halted, **{name: getattr(result, name) for name in taken}}
    program = fields.pop("program", result.program)
    return window_with(program, d, seeds, **{**found, **fields})


@pytest.fixture
def machine() -> SimpleNamespace:
    return SimpleNamespace(run=run, window=window, rounded=rounded)
