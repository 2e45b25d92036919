"""What a study will cost: a few steps of its own batches, timed on this machine, and the bytes of their arrays."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.cell import Cell, kin
from experiments.registry import NOTHING, Own, problem_of

SECONDS = 0.2  # for all kinds of batches together
MOST_KINDS = 24  # that are timed each; the rest is taken to be like them


@dataclass(frozen=True)
class Estimate:
    """Expected CPU-seconds and wall-clock seconds, bytes of arrays at a time, and the seconds that were timed."""

    seconds: float
    wall: float
    bytes: int
    measured: float


def estimate(batches: Sequence[Sequence[Cell]], workers: int, own: Own = NOTHING) -> Estimate:
    """Time some steps of one batch of each kind, and scale.

    The samples of the window and the bounds, some tenths of a second a batch, are not in it; nor is compilation, which
    happens once and is done before the clock starts.

    Parameters
    ----------
    batches : cells that share a call
    workers : batches at a time
    """
    kinds: dict[bytes, list[Sequence[Cell]]] = defaultdict(list)
    for batch in batches:
        kinds[_kind(batch[0])].append(batch)
    chosen = sorted(kinds.values(), key=lambda group: -sum(map(_cost, group)))
    rates, sizes, timed = [], [], 0.0
    for group in chosen[:MOST_KINDS]:
        # the batch in the middle stands for its group: what a step costs hardly depends on the number of lanes
        rate, size, spent = _time(
            sorted(group, key=_cost)[len(group) // 2], SECONDS / min(len(chosen), MOST_KINDS), own
        )
        rates.append(rate)
        sizes.append(max(size * _lanes(batch) / _lanes(sorted(group, key=_cost)[len(group) // 2]) for batch in group))
        timed += spent
    known = sum(rate * sum(map(_cost, group)) for rate, group in zip(rates, chosen, strict=False))
    cost = sum(sum(map(_cost, group)) for group in chosen[:MOST_KINDS])
    seconds = known * sum(sum(map(_cost, group)) for group in chosen) / cost
    at_a_time = min(workers, len(batches))
    return Estimate(seconds, seconds / at_a_time, int(max(sizes) * at_a_time), timed)


def _cost(batch: Sequence[Cell]) -> int:
    return sum(cell.cost for cell in batch)


def _lanes(batch: Sequence[Cell]) -> int:
    return sum(cell.seeds * cell.dimension for cell in batch)


def _kind(cell: Cell) -> bytes:
    """What makes an element-step cheap or expensive."""
    import msgspec

    same = {"seed": 0, "steps": 1, "sigma": 0.0, "window": 1.0, "options": {}, "batch": cell.batch}
    return kin(msgspec.structs.replace(cell, **same))


def _time(cells: Sequence[Cell], seconds: float, own: Own) -> tuple[float, int, float]:
    """(seconds an element-step, bytes of arrays, seconds spent) of one batch."""
    from experiments.trajectory import Trajectory

    trajectory = Trajectory(cells, problem_of(cells[0], own), own)
    trajectory.advance(2)  # compiles, and fills caches
    steps, began, spent = 0, time.perf_counter(), 0.0
    while spent < seconds or steps == 0:
        trajectory.advance(16)
        steps += 16
        spent = time.perf_counter() - began
    return spent / (steps * _lanes(cells)), trajectory.bytes, spent
