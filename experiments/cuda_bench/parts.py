"""The parts in the order of their work. A part is a function of a clock and sizes that gives its jobs: one more is one
more line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from experiments.cuda_bench import check, memory_bound, prepare, products, scan, tensor_cores
from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import Job, Sizes

FIRST = "prepare"  # before everything else
SHARED = (FIRST, "check")  # measure no time: they are shared out to several processes
PARTS: Mapping[str, Callable[[Clock, Sizes], list[Job]]] = {
    FIRST: prepare.jobs,
    "check": check.jobs,
    "memory": memory_bound.jobs,
    "scan": scan.jobs,
    "matmul": products.jobs,
    "tensor": tensor_cores.jobs,
}
