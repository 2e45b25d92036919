"""Consecutive steps of a few coordinates and seeds, kept as they were: what theorems about single steps read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from experiments.trajectory import Trajectory

Array = npt.NDArray[np.float64]

# Of a floor study, little: a theorem about single steps needs few of them to be held against the machine.
STEPS, COORDINATES, SEEDS = 64, 4, 2
GIVEN_STEPS, GIVEN_SEEDS = 256, 32
_AT_ONCE = 1 << 18  # numbers recorded at a time: 2 MiB


class History:
    """Keeps every state, ``g`` and every slot of the optimizer's step that is elementwise.

    Parameters
    ----------
    trajectory : at the first step to be kept
    steps, coordinates, seeds : how many; of the coordinates those that divide 0..d-1 evenly, of the seeds the first
    """

    def __init__(self, trajectory: Trajectory, steps: int, coordinates: int = COORDINATES, seeds: int = SEEDS) -> None:
        machine, program = trajectory.machine, trajectory.program
        own = (trajectory.dimension,)
        slots = [o.slot for o in program.operations if not o.slot.startswith("gradient.")]
        names = dict.fromkeys((*program.state, "g", *slots))
        self.names = tuple(x for x in names if machine.shape(x) == own and x not in program.shared)
        self.coordinates = np.unique(np.linspace(0, trajectory.dimension - 1, coordinates).round().astype(np.intp))
        self.seeds = min(seeds, trajectory.cell.seeds)
        self.first, self.missing = trajectory.step, steps
        self.at_once = max(1, _AT_ONCE // (trajectory.dimension * machine.lanes * len(self.names)))
        before = {name: machine.values(name)[np.newaxis] for name in self.names if name in program.state}
        self._parts = {name: [self._cut(before[name])] if name in before else [] for name in self.names}

    def add(self, values: Mapping[str, Array]) -> None:
        """Keep some more steps, as ``Machine.run`` records them: [steps, blocks, d, lanes_per_block]."""
        for name, x in values.items():
            self._parts[name].append(self._cut(x))
        self.missing -= len(x)

    def of(self, block: int) -> dict[str, Array]:
        """The history of one cell: [steps + 1, d', S'] of a state, [steps, d', S'] of everything else."""
        return {name: np.concatenate([x[:, block] for x in parts]) for name, parts in self._parts.items()}

    def _cut(self, values: Array) -> Array:
        return values[:, :, self.coordinates, : self.seeds].copy()
