"""The model of a tensor core beside the card's own matrix instructions, by ``experiments.tensor_core``."""

from __future__ import annotations

from functools import partial

from experiments.cuda_bench.clock import Clock
from experiments.cuda_bench.rows import Job, Row, Sizes, Skipped, WrongResult
from experiments.tensor_core import card, compare
from experiments.tensor_core.rows import ROWS
from experiments.tensor_core.rows import Row as Asked


def jobs(clock: Clock, sizes: Sizes) -> list[Job]:
    return [Job(f"tensor core {row.name}", partial(_compared, row, clock)) for row in ROWS]


def _compared(row: Asked, clock: Clock) -> Row:
    """Results of one instruction; those of several, whose order is the library's own, are counted only."""
    product: compare.Card = compare.model  # without a card: the model beside itself
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
