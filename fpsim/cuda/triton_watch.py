"""A CUDA machine that keeps extremes, and says whether an event may have happened, in the kernel itself.

So a study need not record every slot of every step to learn that nothing happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fpsim.cuda.triton_machine import TritonMachine
from fpsim.cuda.triton_print import is_elementwise
from fpsim.program import Program


def watchable(program: Program, slots: Sequence[Any]) -> bool:
    """Whether the kernel of a program can watch it: elementwise, in formats with a sign. ``slots``: of each block."""
    return is_elementwise(program) and all(fmt.signed for of_block in slots for fmt, _ in of_block.values())


class WatchedMachine(TritonMachine):
    """See ``TritonMachine``; ``watchable`` says which programs it takes.

    Parameters
    ----------
    track : arrays and slots whose smallest and largest magnitudes are kept
    """

    tracked: tuple[str, ...] | None = ()

    def __init__(self, *given: Any, track: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*given, **more)
        self.tracked = tuple(track)
        shape = (*self.shape(self.program.inputs[0]), self.lanes)
        self._rare = torch.zeros(shape, dtype=torch.int32, device=self.device)
        self._ends = [torch.zeros(shape, dtype=torch.float64, device=self.device) for _ in range(2 * len(self.tracked))]

    def set_extremes(self, name: str, low: torch.Tensor, high: torch.Tensor) -> None:
        """Where the extremes of an array or slot begin, ``[*shape, lanes]``."""
        place = 2 * (self.tracked or ()).index(name)
        self._ends[place].copy_(low)
        self._ends[place + 1].copy_(high)

    def extremes(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and the largest magnitude, ``[*shape, lanes]``."""
        place = 2 * (self.tracked or ()).index(name)
        return self._ends[place], self._ends[place + 1]

    def try_run(self, steps: int, per_step_inputs: Any = None) -> bool:
        """Run some steps in one launch, or nothing at all.

        Returns
        -------
        bool : False where an underflow, an overflow or a result without a number may have happened; then state,
            extremes and step number are what they were
        """
        before = {name: self._held[name].clone() for name in self.program.state}
        ends, first = [end.clone() for end in self._ends], self.first_step
        given = {name: self._tensor(values) for name, values in (per_step_inputs or {}).items()}
        self.prepared(steps, given, {})()
        if not bool(self._rare.any()):
            self.first_step += steps
            return True
        self._held |= before
        self._ends, self.first_step = ends, first
        return False

    def _watching(self) -> tuple[torch.Tensor, ...]:
        return self._rare, *self._ends
