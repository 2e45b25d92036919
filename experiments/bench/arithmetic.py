"""Exactly rounded sums, products and quotients of cached arrays, beside the unrounded operation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.bench.cases import CACHED, KEY, check, holds, values
from experiments.bench.measure import Job, Row, Settings, interleaved
from fpsim import arrays
from fpsim.formats import format as named_format

UNROUNDED: dict[str, Any] = {"add": np.add, "mul": np.multiply, "div": np.divide}
_ROUNDED = {"add": arrays.add, "mul": arrays.mul, "div": arrays.div}

# Mode, declared operands, whether the declaration is checked, and the largest admissible multiple.
CASES = (
    ("nearest_even", True, False, 2.0),
    ("nearest_even", True, True, None),
    ("nearest_even", False, True, 3.0),
    ("up", True, False, 5.0),
    ("up", False, True, 5.0),
)


def jobs(settings: Settings) -> list[Job]:
    return [
        Job(f"{kind} {fmt} {dtype} {size}", partial(_run, kind, fmt, dtype, size))
        for size in settings.sizes or (CACHED,)
        for fmt in settings.formats
        for dtype in ("float64", "float32")
        for kind in UNROUNDED
    ]


def _run(kind: str, fmt: str, dtype: str, size: int, settings: Settings) -> list[Row]:
    if not holds(dtype, fmt):
        return [Row("arithmetic", f"{kind} {fmt} {dtype}", size, None, skipped="the dtype cannot hold the format")]
    # Undeclared operands have all the bits of their dtype; declared ones are numbers of the format.
    reach = min(20.0, named_format(fmt).emax / 2)
    full = [values(size, dtype, -reach, reach, seed) for seed in (1, 2)]
    short = [arrays.round(x, fmt) for x in full]
    short[1][short[1] == 0] = 1.0  # a divisor that was rounded away
    out = np.empty_like(full[0])
    reference = f"np.{UNROUNDED[kind].__name__}"
    calls: dict[str, Callable[[], object]] = {reference: partial(UNROUNDED[kind], *full, out=out)}
    targets = {}
    for mode, declared, checked, target in CASES:
        name = f"{mode} {('declared, checked' if checked else 'declared') if declared else 'undeclared'}"
        given = {"operands": fmt, "check": checked} if declared else {}
        operands = short if declared else full
        calls[name] = partial(_ROUNDED[kind], *operands, fmt, mode, KEY, out=out, **given)
        calls[name]()
        check(kind, operands, fmt, mode, out)
        targets[name] = target if size == CACHED else None
    seconds = interleaved(calls, settings.repeats)
    plain = seconds.pop(reference)
    rows = [
        Row("arithmetic", f"{kind} {dtype} unrounded", size, plain / size * 1e9, reference=reference, ratio=1.0),
    ]
    for name, found in seconds.items():
        case = f"{kind} {fmt} {dtype} {name}"
        value, ratio = found / size * 1e9, found / plain
        rows.append(Row("arithmetic", case, size, value, reference=reference, ratio=ratio, target=targets[name]))
    return rows
