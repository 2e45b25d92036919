"""Rounding into a preallocated array, beside a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from experiments.bench.cases import CACHED, KEY, LARGE, MODES, check, holds, spread_of, values
from experiments.bench.measure import Job, Row, Settings, interleaved
from fpsim import arrays
from fpsim.formats import format as named_format

# Largest admissible multiple of the copy.
TARGETS: dict[int, dict[str, dict[str, float]]] = {
    LARGE: {
        "float64": dict.fromkeys(MODES, 1.25) | {"stochastic16": 1.6, "stochastic32": 2.0},
        "float32": dict.fromkeys(MODES, 1.25) | {"stochastic16": 2.0, "stochastic32": 2.6},
    },
    CACHED: {
        "float64": dict.fromkeys(MODES, 2.0) | {"up": 3.0, "stochastic16": 6.0, "stochastic32": 6.0},
        "float32": dict.fromkeys(MODES, 2.0) | {"up": 3.0, "stochastic16": 9.0, "stochastic32": 9.0},
    },
}


def jobs(settings: Settings) -> list[Job]:
    return [
        Job(f"round {fmt} {dtype} {size}", partial(_run, fmt, dtype, size))
        for size in settings.sizes or (LARGE, CACHED)
        for dtype in ("float64", "float32")
        for fmt in settings.formats
    ]


def _run(fmt: str, dtype: str, size: int, settings: Settings) -> list[Row]:
    if not holds(dtype, fmt):
        return [Row("round", f"{fmt} {dtype}", size, None, skipped="the dtype cannot hold the format")]
    x = values(size, dtype, *spread_of(named_format(fmt), dtype))
    out = np.empty_like(x)
    calls: dict[str, Callable[[], object]] = {"copy": partial(np.copyto, out, x)}
    for name, mode in MODES.items():
        calls[name] = partial(arrays.round, x, fmt, mode, KEY, out=out)
        calls[name]()
        check("round", [x], fmt, mode, out)
    seconds = interleaved(calls, settings.repeats)
    copy = seconds.pop("copy")
    rows = [Row("round", f"copy {dtype}", size, copy / size * 1e9, reference="copy", ratio=1.0)]
    for name, found in seconds.items():
        target = TARGETS.get(size, {}).get(dtype, {}).get(name)
        case = f"{fmt} {dtype} {name}"
        rows.append(Row("round", case, size, found / size * 1e9, reference="copy", ratio=found / copy, target=target))
    return rows
