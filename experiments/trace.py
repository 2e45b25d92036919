"""The course of a run on a logarithmic scale: loss gap and gradient norm at a few steps of each decade.

What is kept does not grow with the steps but with their logarithm; what is bounded and printed does not read it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from experiments.cell import Cell
from experiments.problems.linear import column_sums
from experiments.trajectory import Trajectory

PER_DECADE = 8


class Trace:
    """Watches a trajectory: what it runs is the same as without, step for step.

    Parameters
    ----------
    trajectory : not yet started
    cells : its cells
    """

    def __init__(self, trajectory: Trajectory, cells: Sequence[Cell]) -> None:
        self.trajectory, self.shape = trajectory, (len(cells), cells[0].seeds)
        self.steps = places(cells[0].steps)
        self.rms_gradient: list[list[float | None]] = [[] for _ in cells]
        self.loss_gap: list[list[float | None]] = [[] for _ in cells]
        self._next = 0
        self._look()

    def advance(self, steps: int) -> None:
        """Run ``steps`` steps, and look at those of them that are on the scale."""
        end = self.trajectory.step + steps
        while self._next < len(self.steps) and self.steps[self._next] <= end:
            self.trajectory.advance(self.steps[self._next] - self.trajectory.step)
            self._look()
        self.trajectory.advance(end - self.trajectory.step)

    def _look(self) -> None:
        self._next += 1
        problem, w = self.trajectory.problem, self.trajectory.state("w")
        with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is an outcome, not a warning
            squared = column_sums(problem.gradient(w) ** 2).reshape(self.shape).mean(axis=1)
            loss = problem.loss_gap(w).reshape(self.shape).mean(axis=1)
        for block, (g, f) in enumerate(zip(np.sqrt(squared), loss, strict=True)):
            self.rms_gradient[block].append(_finite(g))
            self.loss_gap[block].append(_finite(f))

    def columns(self, block: int) -> dict[str, list[int] | list[float | None]]:
        """Of one cell: the numbers of steps done, and the means over its seeds; None where they are not finite."""
        return {
            "trace_step": self.steps,
            "trace_rms_gradient": self.rms_gradient[block],
            "trace_loss_gap": self.loss_gap[block],
        }


def places(steps: int) -> list[int]:
    """0, the whole numbers next to the powers of 10^(1/8), and the last step.

    Examples
    --------
    >>> places(20)
    [0, 1, 2, 3, 4, 6, 7, 10, 13, 18, 20]
    """
    found = {0, steps}
    power = 0
    while (place := round(10.0 ** (power / PER_DECADE))) < steps:
        found.add(place)
        power += 1
    return sorted(found)


def _finite(value: np.floating[npt.NBitBase] | float) -> float | None:
    return float(value) if np.isfinite(value) else None
