"""The reference scan of ``experiments.bench.scan`` on the card: Adam on a diagonal quadratic, three roundings.

24 widths (0..23) of 8-bit exponents x 8 seeds x three roundings x 10^5 steps, d = 64: 5.9e10 rounded operations. It is
written anew here, as what is imported there needs more libraries; a test holds both to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import Job, Row, Sizes, same
from experiments.streams import START, folded, uniform
from fpsim.cpu.machine import Machine
from fpsim.formats import format
from fpsim.number_format import Format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.random_bits import Key
from fpsim.rounding import Rounding, Stochastic
from fpsim.tracing import slot, step

KEY = Key(1)
ROUNDINGS: tuple[Rounding, ...] = ("nearest_even", "toward_zero", Stochastic(16))
EXPONENT, DIMENSION, SEEDS = 8, 64, 8
TARGET = 0.5  # seconds, of all roundings
_SAMPLE = (7,)  # widths that the CPU repeats to the last step


@step(name="quadratic")
def gradient(w: Any, center: Any, curvature: Any) -> Any:
    """g = h (w - c)."""
    return {"g": slot("scale", curvature * slot("difference", w - center))}


@cache
def program() -> Any:
    return gradient >> STEPS["adam"]


def format_of(width: int) -> Format:
    """``e8mY``, and what continues that family to no mantissa bits (``experiments.registry.format_of_widths``)."""
    if width:
        return format(f"e{EXPONENT}m{width}")
    return Format(EXPONENT, 0, bias=(1 << (EXPONENT - 1)) - 1, specials="p3109_extended")


def start() -> dict[str, Any]:
    """Start of the state, ``[d, seeds]``."""
    w = 0.125 * uniform(folded(KEY, START), DIMENSION, np.arange(SEEDS))
    return {"w": w, "m": np.zeros_like(w), "v": np.zeros_like(w)}


def constants() -> dict[str, Any]:
    """Minimiser and curvature, ``[d]``: eigenvalues 1 to 1/10, equidistant."""
    from fractions import Fraction

    last = DIMENSION - 1
    curvature = [float(1 - (1 - Fraction(1, 10)) * Fraction(i, last)) for i in range(DIMENSION)]
    return {"center": np.resize([4 / 3, -5 / 3, 5 / 3, -4 / 3], DIMENSION), "curvature": np.array(curvature)}


def machine_of(kind: Any, mode: Rounding, widths: Sequence[int], **more: Any) -> Any:
    """A machine of a kind (``Machine`` or ``TritonMachine``), loaded; one block for each width."""
    precisions = [Precision.uniform(format_of(width), mode) for width in widths]
    runs = np.tile(np.arange(SEEDS, dtype=np.uint64), len(widths))
    machine = kind(program(), precisions, SEEDS, DIMENSION, KEY, runs, **more)
    reload(machine, len(widths))
    return machine


def reload(machine: Any, widths: int) -> None:
    """Begin anew."""
    machine.load({name: np.tile(values, (1, widths)) for name, values in start().items()}, constants())
    machine.first_step = 0


def jobs(clock: Clock, sizes: Sizes) -> list[Job]:
    seconds: dict[Rounding, float] = {}
    listed = [Job(f"scan {mode}", partial(_scan, mode, clock, sizes, seconds)) for mode in ROUNDINGS]
    return [*listed, Job("scan, all roundings", partial(_total, sizes, seconds))]


def _scan(mode: Rounding, clock: Clock, sizes: Sizes, seconds: dict[Rounding, float]) -> Row:
    """By the wall clock, scalars of every step and launches included; compiled and checked before."""
    from fpsim.cuda.triton_machine import TritonMachine

    widths = sizes.widths
    machine = machine_of(TritonMachine, mode, widths, device=clock.device)
    first = clock.first(lambda: machine.run(sizes.steps_checked))
    _compare(f"scan {mode} after {sizes.steps_checked} steps", machine, mode, widths, widths, sizes.steps_checked)
    reload(machine, len(widths))
    clock.first(lambda: machine.run(sizes.steps))  # scalars of every step are known from here on
    reload(machine, len(widths))
    seconds[mode] = clock.first(lambda: machine.run(sizes.steps))
    _compare(f"scan {mode} after {sizes.steps} steps", machine, mode, widths, _SAMPLE, sizes.steps)
    operations = len(widths) * SEEDS * DIMENSION * sizes.steps * len(program().operations)
    return Row(value=seconds[mode], unit="s", seconds=seconds[mode], first_call=first, elements=operations)


def _compare(
    title: str, machine: Any, mode: Rounding, widths: Sequence[int], compared: Sequence[int], steps: int
) -> None:
    reference = machine_of(Machine, mode, compared)
    reference.run(steps)
    lanes = [SEEDS * widths.index(width) + seed for width in compared for seed in range(SEEDS)]
    for name in ("w", "m", "v"):
        same(f"{title}: {name}", machine.state(name)[:, lanes], reference.state(name))


def _total(sizes: Sizes, seconds: dict[Rounding, float]) -> Row:
    if len(seconds) < len(ROUNDINGS):
        raise RuntimeError(f"{len(ROUNDINGS) - len(seconds)} of {len(ROUNDINGS)} roundings gave no time")
    target = TARGET if sizes.full else None
    return Row(value=sum(seconds.values()), unit="s", target=target, at_most=True, seconds=sum(seconds.values()))
