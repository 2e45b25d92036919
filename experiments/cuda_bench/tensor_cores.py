"""The model of a tensor core beside the card's own matrix instructions, by ``experiments.tensor_core``."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import Job, Row, Sizes, Skipped, WrongResult


def jobs(clock: Clock, sizes: Sizes) -> list[Job]:
    if find_spec("experiments.tensor_core") is None:
        return [Job("tensor core", _absent)]
    from experiments.tensor_core.rows import ROWS

    return [Job(f"tensor core {row.name}", partial(_compared, row, clock)) for row in ROWS]


def _absent() -> Row:
    raise Skipped("experiments.tensor_core is not in this checkout")


def _compared(row: Any, clock: Clock) -> Row:
    """Results of one instruction; those of several, whose order is the library's own, are counted only."""
    from experiments.tensor_core import card, compare

    product = compare.model  # without a card: the model beside itself
    if clock.device == "cuda":
        try:
            card.facts()
        except ValueError as reason:
            raise Skipped(str(reason)) from None
        product = card.product
    records = compare.compared(product, [row])
    verdict = compare.settled(records)[row.name]
    if not verdict.startswith("agrees"):
        found = [f"{r['kind']}: {r.get('error') or r['differ']}" for r in records]
        raise WrongResult(f"{row.name} {verdict} ({'; '.join(found)})")
    count = sum(r["results"] for r in records)
    chained = [r.get("error") or min(r["differ"].values()) for r in records if r["kind"].startswith("chained")]
    return Row(value=count, unit=f"results, {verdict}; chained kinds differ in {chained}", elements=count)
