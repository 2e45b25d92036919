"""What a study will cost: a few steps of its own batches, timed on this machine, and the bytes of their arrays."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from experiments import networks
from experiments.cell import Cell, kin
from experiments.registry import NOTHING, Own, problem_of

SECONDS = 0.2  # of timed steps, for all kinds of batches together
MOST_KINDS = 24  # that are timed each; the rest is taken to be like them
STEPS = 16  # timed at a time, if they are that quick
SHORT = 128  # steps of the run that shows what samples and bounds cost, and its element-steps at most
SHORT_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Estimate:
    """Expected CPU-seconds and wall-clock seconds, and bytes of arrays at a time."""

    seconds: float
    wall: float
    bytes: int


@dataclass(frozen=True)
class _Kind:
    """Batches whose element-steps cost the same."""

    batches: list[Sequence[Cell]]

    @property
    def cost(self) -> int:
        return sum(cell.cost for batch in self.batches for cell in batch)

    @property
    def middle(self) -> Sequence[Cell]:
        """Stands for all: what a step costs hardly depends on the number of lanes."""
        return sorted(self.batches, key=_lanes)[len(self.batches) // 2]


def estimate(batches: Sequence[Sequence[Cell]], workers: int, own: Own = NOTHING, device: str = "cpu") -> Estimate:
    """Time some steps of one batch of each kind, and one short run for each optimizer, and scale.

    Compilation, which happens once, is done before the clock starts. Two workers may slow each other down; that they do
    not is assumed.

    Parameters
    ----------
    batches : at least one; cells that share a call
    workers : batches at a time
    device : of the machine; on another than the CPU seconds are those of the clock, and one batch runs at a time
    """
    found: dict[bytes, list[Sequence[Cell]]] = defaultdict(list)
    for batch in batches:
        found[_kind(batch[0])].append(batch)
    kinds = sorted((_Kind(group) for group in found.values()), key=lambda kind: -kind.cost)
    timed = kinds[:MOST_KINDS]
    seconds, largest = 0.0, 0.0
    for kind in timed:
        rate, size = _time_steps(kind.middle, SECONDS / len(timed), own, device)
        seconds += rate * kind.cost
        largest = max(largest, *(size * _lanes(batch) / _lanes(kind.middle) for batch in kind.batches))
    seconds *= sum(kind.cost for kind in kinds) / sum(kind.cost for kind in timed)
    cells = [cell for batch in batches for cell in batch]
    for optimizer in dict.fromkeys(cell.optimizer for cell in cells):
        same = [cell for cell in cells if cell.optimizer == optimizer]
        seconds += len(same) * _time_rest(same[len(same) // 2], own, device)
    at_a_time = min(workers, len(batches)) if device == "cpu" else 1
    return Estimate(seconds, seconds / at_a_time, int(largest * at_a_time))


def _lanes(batch: Sequence[Cell]) -> int:
    return sum(cell.seeds * cell.dimension for cell in batch)


def _kind(cell: Cell) -> bytes:
    """What makes an element-step cheap or expensive."""
    if cell.problem in networks.PROBLEMS:  # the width is no part of it
        cell = msgspec.structs.replace(cell, mantissa_bits=7, hyperparameters={})
    return kin(msgspec.structs.replace(cell, seed=0, steps=1, sigma=0.0, window=1.0, options={}))


def _time_steps(cells: Sequence[Cell], seconds: float, own: Own, device: str) -> tuple[float, int]:
    """(seconds an element-step, bytes of arrays) of one batch."""
    from experiments.trajectory import Trajectory

    if cells[0].problem in networks.PROBLEMS:
        from experiments.networks.cells import seconds_of

        return seconds_of(cells[0], seconds)
    trajectory = Trajectory(cells, problem_of(cells[0], own), own, device)
    trajectory.advance(1)  # compiles, and fills caches
    one = _seconds(lambda: trajectory.advance(1), device)
    steps = max(1, min(STEPS, int(seconds / max(one, 1e-9))))
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < seconds:
        best = min(best, _seconds(lambda: trajectory.advance(steps), device))
    return best / (steps * _lanes(cells)), trajectory.bytes


def _time_rest(cell: Cell, own: Own, device: str) -> float:
    """Seconds of a cell besides its steps, roughly: those of a run that has hardly any."""
    from experiments.simulate import run_batch

    if cell.problem in networks.PROBLEMS:  # what is measured costs as much as a few of its many steps
        return 0.0

    def run(steps: int) -> None:
        run_batch([msgspec.structs.replace(cell, steps=min(cell.steps, steps))], own=own, device=device)

    run(1)  # imports, derivations
    return _seconds(lambda: run(max(1, min(SHORT, SHORT_ELEMENTS // _lanes([cell])))), device)


def _seconds(action: Callable[[], None], device: str) -> float:
    """CPU-seconds: what others do on the machine is not counted. What a device does takes the clock's."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    action()
    return clock() - began
