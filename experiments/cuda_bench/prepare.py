"""The CPU machine's kernels are compiled before anything is compared with it: once, not by every process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from experiments.cuda_bench.check import COUNTS
from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import KEY, Job, Row, Sizes
from fpsim import arrays, contractions
from fpsim.formats import format
from fpsim.optim import STEPS
from fpsim.precision import Precision
from fpsim.run import run

_X = np.linspace(-2.0, 3.0, 64)


def jobs(clock: Clock, sizes: Sizes) -> list[Job]:
    calls: dict[str, Callable[[], object]] = {"programs": _program, "sums and products": _product}
    calls |= {kind: partial(_function, kind, sizes) for kind in COUNTS}
    return [Job(f"CPU kernels: {name}", partial(_row, call, clock)) for name, call in calls.items()]


def _row(call: Callable[[], object], clock: Clock) -> Row:
    return Row(value=clock.first(call), unit="s")


def _program() -> None:
    state = {name: np.ones((8, 1)) for name in STEPS["adam"].state}
    run(STEPS["adam"], state, {"g": np.ones((1, 8, 1))}, Precision.uniform("bfloat16"), KEY, steps=1)


def _product() -> None:
    contractions.matmul(_X.reshape(8, 8), _X.reshape(8, 8), "bfloat16")
    contractions.sum(_X, "bfloat16")


def _function(kind: str, sizes: Sizes) -> None:
    for name in sizes.formats:
        for mode in sizes.modes:
            getattr(arrays, kind)(*[_X] * COUNTS[kind], format(name), mode, KEY)
