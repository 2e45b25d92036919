"""Matrix products with every product and every sum rounded, beside the unrounded product."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from experiments.bench.cases import values
from experiments.bench.measure import Job, Row, Settings, WrongResult, interleaved

SIDE = 512
TARGET = 1 / 1.5  # ns for one multiply-add: 1.5e9 each second


def jobs(settings: Settings) -> list[Job]:
    sides = [math.isqrt(size) for size in settings.sizes] if settings.sizes else [SIDE]
    return [
        Job(f"matmul {fmt} {side}^3", partial(_run, fmt, side))
        for side in dict.fromkeys(sides)
        for fmt in settings.formats
    ]


def _run(fmt: str, side: int, settings: Settings) -> list[Row]:
    try:
        from fpsim.accumulator import Accumulator
        from fpsim.contractions import matmul
    except ImportError as error:
        return [Row("matmul", f"{fmt} {side}^3", side**3, None, skipped=f"not in this version: {error}")]
    from fpsim import arrays

    a, b = (arrays.round(values(side * side, "float64", -4, 4, seed), fmt).reshape(side, side) for seed in (3, 4))
    how = Accumulator.uniform(fmt)
    call = partial(matmul, a, b, how)
    _check(a, b, how, call())
    seconds = interleaved({"np.matmul": partial(np.matmul, a, b), "rounded": call}, settings.repeats)
    per = {name: found / side**3 * 1e9 for name, found in seconds.items()}
    target = TARGET if side == SIDE and fmt == "bfloat16" else None
    return [
        Row("matmul", f"float64 {side}^3 unrounded", side**3, per["np.matmul"], reference="np.matmul", ratio=1.0),
        Row(
            "matmul",
            f"{fmt} {side}^3 product and sum",
            side**3,
            per["rounded"],
            reference="np.matmul",
            ratio=per["rounded"] / per["np.matmul"],
            target=target,
            target_is_value=True,
        ),
    ]


def _check(a: np.ndarray, b: np.ndarray, how: object, got: np.ndarray) -> None:
    """Two elements against the specification."""
    from fpsim.exact import operation

    side, target, mode = len(a), how.sum, "nearest_even"  # type: ignore[attr-defined]
    for i, j in ((0, 0), (side - 1, side // 2)):
        total = 0.0
        for x, y in zip(a[i].tolist(), b[:, j].tolist(), strict=True):
            total = operation("add", (total, operation("mul", (x, y), target, mode)), target, mode)
        if np.float64(got[i, j]).tobytes() != np.float64(total).tobytes():
            raise WrongResult(f"matmul {target.name}: element {(i, j)} is {float(got[i, j])!r}, not {total!r}")
