"""A scan over mantissa widths: Adam on a diagonal quadratic, every operation rounded, beside hand-written strips.

24 widths (0..23) of 8-bit exponents x 8 seeds x three roundings x 10^5 steps, d = 64, the gradient inside: 16 rounded
operations for each parameter and step, 5.9e10 in all. ``--size`` is the number of steps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

from experiments.bench.cases import KEY
from experiments.bench.measure import Job, Row, Settings, WrongResult, interleaved
from experiments.bench.strips import OPERATIONS, ROWS, STRIP, steps_on_a_strip, words_of
from experiments.problems.quadratic import quadratic
from experiments.registry import format_of_widths
from fpsim import exact_run
from fpsim.cpu.machine import Machine
from fpsim.optim import STEPS as OPTIMIZERS
from fpsim.precision import Precision, scalar_values
from fpsim.rounding import Rounding, Stochastic

STEPS = 100_000
EXPONENT, DIMENSION, SEEDS, WIDTHS = 8, 64, 8, range(24)
ROUNDINGS: tuple[Rounding, ...] = ("nearest_even", "toward_zero", Stochastic(16))
CPU_SECONDS, WALL_SECONDS, RATIO = 30.0, 10.0, 1.3
CORES = 4  # of the wall clock's target
# Rounding, widths, and the largest admissible ns of an operation: 5, 1.7 and 1.3 thousand million in a second.
GROUPS: tuple[tuple[Rounding, range, float | None], ...] = (
    ("nearest_even", range(24), 1 / 5),
    ("toward_zero", range(24), None),
    (Stochastic(16), range(18), 1 / 1.7),
    (Stochastic(16), range(18, 24), 1 / 1.3),
)
_TIMED = 256  # steps of one sample
_FIRST = 1024  # where samples begin


@dataclass
class _Found:
    """What one job leaves for the next: the strips' ns of an operation by group, and the scan's CPU seconds."""

    strips: dict[int, float] = field(default_factory=dict)
    seconds: dict[Rounding, float] = field(default_factory=dict)


def jobs(settings: Settings) -> list[Job]:
    listed = []
    for steps in settings.sizes or (STEPS,):
        found = _Found()
        listed += [Job(f"scan {_name(*group[:2])}", partial(_rate, i, found)) for i, group in enumerate(GROUPS)]
        listed.append(Job("scan growth", _growth))
        listed += [Job(f"whole scan {mode}", partial(_whole, mode, steps, found)) for mode in ROUNDINGS]
        listed += [
            Job("whole scan", partial(_total, steps, found)),
            Job("whole scan in threads", partial(_wall, steps)),
        ]
    return listed


@cache
def program() -> Any:
    problem = quadratic(DIMENSION)
    assert problem.program is not None
    return problem.program >> OPTIMIZERS["adam"]


def machine_of(mode: Rounding, widths: Sequence[int], seeds: int = SEEDS, dimension: int = DIMENSION) -> Machine:
    """One block for each width; every slot has its format, the problem's constants too."""
    precisions = [Precision.uniform(format_of_widths(EXPONENT, m), mode) for m in widths]
    runs = np.tile(np.arange(seeds, dtype=np.uint64), len(precisions))
    machine = Machine(program(), precisions, seeds, dimension, KEY, runs)
    problem = quadratic(dimension)
    start = np.tile(problem.start(KEY, np.arange(seeds)), (1, len(precisions)))
    state = {name: np.zeros_like(start) for name in machine.program.state} | {"w": start}
    machine.load(state, dict(problem.constants))
    return machine


def _name(mode: Rounding, widths: range) -> str:
    return f"{mode} m {widths[0]}..{widths[-1]}"


def _rate(index: int, found: _Found, settings: Settings) -> list[Row]:
    """One group of widths, and the strips of its widest format, in turns."""
    mode, widths, target = GROUPS[index]
    _check(mode, widths[0])
    _check(mode, widths[-1])
    machine = machine_of(mode, widths)
    strips = _Strips(mode, widths[-1])
    strips.check()
    turns = len(widths) * DIMENSION * SEEDS // STRIP

    def scan() -> None:
        machine.first_step = _FIRST  # the scalars of these steps are known from the first call on
        machine.run(_TIMED)

    seconds = interleaved(
        {"scan": scan, "strips": partial(strips.run, _FIRST, _TIMED * turns)}, settings.repeats, time.process_time
    )
    operations = len(widths) * DIMENSION * SEEDS * _TIMED * OPERATIONS
    ns = {name: each / operations * 1e9 for name, each in seconds.items()}
    found.strips[index] = ns["strips"]
    name = _name(mode, widths)
    return [
        Row("scan", f"{name} strips", _TIMED, ns["strips"], reference="strips", ratio=1.0),
        Row("scan", f"{name} ({1 / ns['scan']:.2f}e9/s)", _TIMED, ns["scan"], reference="strips",
            ratio=ns["scan"] / ns["strips"], target=target if _wide_vectors() else RATIO,
            target_is_value=target is not None and _wide_vectors()),
    ]  # fmt: skip


def _growth(settings: Settings) -> list[Row]:
    """Eight times the formats, lanes of a format, dimension and steps, each alone: ns of one operation."""
    sizes = {"blocks": (4, 64, 8, 64), "8 x formats": (32, 64, 8, 64), "8 x lanes": (4, 64, 64, 64),
             "8 x d": (4, 512, 8, 64), "8 x steps": (4, 64, 8, 512)}  # fmt: skip
    calls: dict[str, Callable[[], object]] = {}
    for name, (blocks, dimension, seeds, steps) in sizes.items():
        calls[name] = partial(_advance, machine_of("nearest_even", [7] * blocks, seeds, dimension), steps)
    seconds = interleaved(calls, settings.repeats, time.process_time)
    per = {name: found / (np.prod(sizes[name]) * OPERATIONS) * 1e9 for name, found in seconds.items()}
    base = per.pop("blocks")
    rows = [Row("scan", "growth: 4 formats, 8 lanes, d 64, 64 steps", 1, base, reference="that", ratio=1.0)]
    return rows + [Row("scan", f"growth: {name}", 8, ns, reference="that", ratio=ns / base) for name, ns in per.items()]


def _advance(machine: Machine, steps: int) -> None:
    machine.first_step = _FIRST
    machine.run(steps)


def _whole(mode: Rounding, steps: int, found: _Found, settings: Settings) -> list[Row]:
    machine = machine_of(mode, WIDTHS)
    started = time.process_time()
    machine.run(steps)
    found.seconds[mode] = time.process_time() - started
    return [Row("scan", f"whole, {mode}: CPU seconds", steps, found.seconds[mode], "s")]


def _total(steps: int, found: _Found, settings: Settings) -> list[Row]:
    """The whole scan on one core beside what the strips predict."""
    if len(found.seconds) < len(ROUNDINGS) or len(found.strips) < len(GROUPS):
        return [Row("scan", "whole", steps, None, skipped="a part of it failed")]
    seconds = sum(found.seconds.values())
    each = DIMENSION * SEEDS * steps * OPERATIONS * 1e-9
    predicted = sum(each * len(GROUPS[i][1]) * ns for i, ns in found.strips.items())
    strict = _wide_vectors() and steps == STEPS
    return [
        Row("scan", "whole, as the strips predict", steps, predicted, "s", "strips", 1.0),
        Row("scan", "whole: CPU seconds", steps, seconds, "s", "strips", seconds / predicted,
            CPU_SECONDS if strict else RATIO, strict),
    ]  # fmt: skip


def _wall(steps: int, settings: Settings) -> list[Row]:
    """The same on four cores: widths are dealt out to threads, each of which may run anywhere."""
    cores = os.cpu_count() or 1
    if cores < CORES or not hasattr(os, "sched_setaffinity"):
        return [Row("scan", "whole on four cores", steps, None, skipped=f"{cores} cores, or threads cannot be moved")]

    def work(task: tuple[Rounding, Sequence[int]]) -> None:
        os.sched_setaffinity(0, range(cores))  # this thread only
        machine_of(*task).run(steps)

    load = os.getloadavg()[0]  # this process counts as one
    tasks = [(mode, list(WIDTHS[part::CORES])) for mode in reversed(ROUNDINGS) for part in range(CORES)]
    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        for done in pool.map(work, tasks):
            assert done is None
    seconds = time.perf_counter() - started
    idle = load < CORES / 2
    target = WALL_SECONDS if _wide_vectors() and steps == STEPS and idle else None
    name = f"whole on {CORES} cores: wall{'' if idle else f' (busy: load {load:.1f})'}"
    return [Row("scan", name, steps, seconds, "s", target=target, target_is_value=True)]


def _check(mode: Rounding, mantissa: int) -> None:
    """Two steps of two runs against the specification.

    Raises
    ------
    WrongResult
    """
    machine = machine_of(mode, [mantissa], 2, 8)
    machine.run(2)
    problem = quadratic(8)
    start = {"w": problem.start(KEY, np.arange(2)), "m": np.zeros(8), "v": np.zeros(8)}
    precision = Precision.uniform(format_of_widths(EXPONENT, mantissa), mode)
    state, _ = exact_run.run(program(), start, problem.constants, precision, KEY, steps=2, runs=[0, 1])
    for name, expected in state.items():
        if machine.state(name).tobytes() != np.ascontiguousarray(expected).tobytes():
            raise WrongResult(f"scan {mode} m={mantissa}: {name} is not what the exact reader gives")


class _Strips:
    """The hand-written strips with operands of the scan: four runs of 64 parameters."""

    def __init__(self, mode: Rounding, mantissa: int) -> None:
        self.mode, self.mantissa = mode, mantissa
        self.machine = machine_of(mode, [mantissa], STRIP // DIMENSION)
        self.machine.run(8)  # what a run looks like under way
        now = scalar_values(program(), Precision.uniform(format_of_widths(EXPONENT, mantissa), mode), range(8, 9))
        arrays = [self.machine.state(name).reshape(-1) for name in ("w", "m", "v", "center", "curvature")]
        names = ("beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "correction1", "correction2", "eps", "lr")
        self.rows = np.zeros((ROWS, STRIP))
        self.rows[:5] = arrays
        self.rows[5:13] = np.array([now[f"scalar.{name}"][0] for name in names])[:, None]
        self._flat, self._words = self.rows.reshape(-1), words_of(mode)
        self._elements = np.repeat(np.arange(DIMENSION, dtype=np.uint64), STRIP // DIMENSION)
        self._runs = np.tile(np.arange(STRIP // DIMENSION, dtype=np.uint64), DIMENSION)
        self._kernel = steps_on_a_strip(format_of_widths(EXPONENT, mantissa), mode)

    def run(self, first_step: int, steps: int) -> None:
        keys = np.uint64(KEY.k0), np.uint64(KEY.k1)
        self._kernel(self._flat, self._words, self._elements, self._runs, *keys, first_step, steps)

    def check(self) -> None:
        """One step equals one of the machine's.

        Raises
        ------
        WrongResult
        """
        self.run(8, 1)
        self.machine.run(1)
        for row, name in enumerate(("w", "m", "v")):
            if self.rows[row].tobytes() != self.machine.state(name).tobytes():
                raise WrongResult(f"strips {self.mode} m={self.mantissa}: {name} is not what the machine gives")


@cache
def _wide_vectors() -> bool:
    """Whether this processor has AVX-512, which the targets in seconds are about."""
    from llvmlite.binding import get_host_cpu_features

    return bool(get_host_cpu_features().get("avx512f", False))
