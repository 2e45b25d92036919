"""What is measured of a network outside the emulation: binary64, on a fixed batch, at the weights that are stored."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from experiments.datasets import REGRESSION
from experiments.datasets.base import Dataset
from experiments.networks.losses import WithLoss, loss_of


@dataclass(frozen=True)
class Measure:
    """The state of a network after ``step`` steps.

    Attributes
    ----------
    step : int >= 0, steps done
    loss : mean loss of the evaluation batch
    gradient : Euclidean norm of its gradient in all parameters
    accuracy : share of samples, or tokens, whose highest score is the right one; None for a regression
    """

    step: int
    loss: float
    gradient: float
    accuracy: float | None


class Ruler:
    """A copy of a network in binary64 that takes over its weights and measures there.

    Parameters
    ----------
    module : the network with its loss
    data : what it learns;  size : samples of the evaluation batch
    """

    def __init__(self, module: WithLoss, data: Dataset, size: int) -> None:
        self._copy = copy.deepcopy(module).double()
        x, y = (torch.from_numpy(part) for part in data.evaluation(size))
        self._x = x.double() if x.is_floating_point() else x
        self._y = y.double() if data.kind == REGRESSION else y

    def measure(self, module: torch.nn.Module, step: int) -> Measure:
        """Loss, gradient norm and accuracy at the weights of ``module``."""
        with torch.no_grad():
            for mine, given in zip(self._copy.parameters(), module.parameters(), strict=True):
                mine.copy_(given)
                mine.grad = None
        scores = self._copy.network(self._x)
        loss = loss_of(scores, self._y, self._copy.kind)
        loss.backward()
        squares = [float((p.grad**2).sum()) for p in self._copy.parameters() if p.grad is not None]
        right = None if self._copy.kind == REGRESSION else float((scores.argmax(-1) == self._y).double().mean())
        return Measure(step, float(loss.detach()), sum(squares) ** 0.5, right)


_threads = threading.Lock()
_inside, _before = 0, 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread: how its matrix products add depends on their number, and a run's bits must not.

    Runs may overlap in several threads of a process; the last one that ends gives PyTorch its number back.
    """
    global _inside, _before
    with _threads:
        if _inside == 0:
            _before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _threads:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_before)
