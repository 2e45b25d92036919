"""One rounded Adam step over many parameters whose state is in memory, beside a copy of as many bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from experiments.bench.cases import KEY, values
from experiments.bench.measure import Job, Row, Settings, WrongResult, interleaved
from fpsim import exact_run
from fpsim.cpu.machine import Machine
from fpsim.optim import STEPS as OPTIMIZERS
from fpsim.precision import Precision
from fpsim.rounding import Rounding, Stochastic

SIZE = 1 << 22
# ns for one parameter.
TARGETS: tuple[tuple[Rounding, float | None], ...] = (
    ("nearest_even", 3.0), ("toward_zero", None), (Stochastic(16), 8.0),
)  # fmt: skip
MOVED = 7 * 8 // 2  # a step reads w, m, v and g and writes w, m and v; a copy reads and writes each byte
_CHECKED = 64


def jobs(settings: Settings) -> list[Job]:
    return [
        Job(f"adam {fmt} {size}", partial(_run, fmt, size))
        for size in settings.sizes or (SIZE,)
        for fmt in settings.formats
    ]


def _run(fmt: str, size: int, settings: Settings) -> list[Row]:
    source = np.zeros(size * MOVED // 8)
    calls: dict[str, Callable[[], object]] = {"copy": partial(np.copyto, np.empty_like(source), source)}
    for mode, _ in TARGETS:
        machine = _machine(fmt, mode, size)
        _check(fmt, mode, machine, size)
        calls[str(mode)] = partial(machine.run, 1)
    seconds = interleaved(calls, settings.repeats, time.process_time)
    per = {name: found / size * 1e9 for name, found in seconds.items()}
    rows = [Row("adam", f"copy of {2 * MOVED} bytes", size, per["copy"], reference="copy", ratio=1.0)]
    for mode, target in TARGETS:
        ns = per[str(mode)]
        rows.append(
            Row("adam", f"{fmt} {mode}", size, ns, reference="copy", ratio=ns / per["copy"],
                target=target if size == SIZE else None, target_is_value=True)
        )  # fmt: skip
    return rows


def _machine(fmt: str, mode: Rounding, size: int) -> Machine:
    machine = Machine(OPTIMIZERS["adam"], [Precision.uniform(fmt, mode)], 1, size, KEY, np.zeros(1, dtype=np.uint64))
    w, g = (values(size, "float64", -4, 0, seed) for seed in (1, 2))
    machine.load({"w": w, "m": np.zeros(size), "v": np.zeros(size)}, {"g": g})
    return machine


def _check(fmt: str, mode: Rounding, machine: Machine, size: int) -> None:
    """The first step of the first parameters against the specification.

    Raises
    ------
    WrongResult
    """
    count = min(size, _CHECKED)
    before = {name: machine.state(name)[:count] for name in ("w", "m", "v", "g")}
    given = {"g": before.pop("g")}
    expected, _ = exact_run.run(machine.program, before, given, machine.precisions[0], KEY)
    machine.run(1)
    for name, wanted in expected.items():
        if machine.state(name)[:count].tobytes() != np.ascontiguousarray(wanted).tobytes():
            raise WrongResult(f"adam {fmt} {mode}: {name} is not what the exact reader gives")
