"""Rounded products of matrices through ``fpsim.matmul``: every product and every sum rounded, in sequential order."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from experiments.cuda_bench.check import tensor
from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import Job, Row, Sizes, WrongResult, same
from fpsim import arrays, contractions
from fpsim.formats import format

# Format -> the most seconds of 4096^3: p = 11 and p = 24.
TARGETS = {"binary16": 0.25, "binary32": 0.5}
_SMALL = (67, 130, 45)  # rows, terms and columns of the product that is compared first
_ROWS = 2  # of the large product, compared with the CPU


def jobs(clock: Clock, sizes: Sizes) -> list[Job]:
    return [Job(f"matmul {name}", partial(_matmul, name, clock, sizes)) for name in TARGETS]


def _matmul(name: str, clock: Clock, sizes: Sizes) -> Row:
    fmt = format(name)
    rng = np.random.default_rng(8)

    def operand(*shape: int) -> Any:
        x = rng.standard_normal(shape, dtype=np.float32)
        return tensor(arrays.round(x, fmt), clock.device)

    rows, terms, columns = _SMALL
    _compare(f"matmul {name} {_SMALL}", name, operand(rows, terms), operand(terms, columns), rows)
    n = clock.fitting(sizes.matrix, sizes.matrix * (3 * 4 + 8), min(sizes.matrix, 256))
    a, b = operand(n, n), operand(n, n)
    found: list[Any] = []

    def product() -> None:
        found[:] = [contractions.matmul(a, b, name)]

    first = clock.first(product)
    seconds = clock.medians({"product": product}, max(1, sizes.repeats // 3))["product"]
    if bool(found[0].isnan().any()):
        raise WrongResult(f"matmul {name}: NaN in a product of finite numbers")
    same(f"matmul {name} {n}", found[0][:_ROWS], contractions.matmul(a[:_ROWS].cpu().numpy(), b.cpu().numpy(), name))
    target = TARGETS[name] if sizes.full and n == sizes.matrix else None
    return Row(
        value=seconds, unit="s", target=target, at_most=True, seconds=seconds, first_call=first, elements=n * n * n
    )


def _compare(title: str, name: str, a: Any, b: Any, rows: int) -> None:
    found = contractions.matmul(a, b, name)
    if found.device.type != a.device.type:
        raise WrongResult(f"{title}: tensors on {a.device} gave one on {found.device}")
    same(title, found, contractions.matmul(a.cpu().numpy(), b.cpu().numpy(), name))
