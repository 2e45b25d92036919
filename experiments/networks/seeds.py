"""The same training several times over, and where each run settles on the training data.

A network's loss of its training data is what a step descends on, so its floor is that of the arithmetic; on other data
the floor would be that of generalization. With ``whole`` every step takes all training samples: nothing but rounding is
left that could keep the gradient from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from experiments.datasets.base import Batch, Dataset, Samples
from experiments.networks.measures import one_thread
from experiments.networks.training import Run, Training
from fpsim.random_bits import Key

AtEnd: TypeAlias = Callable[[Run, dict[str, Any]], float]


class Learned(Dataset):
    """Data that are measured on their training part, and with ``whole`` learned in one batch that has all of it."""

    def __init__(self, data: Samples, whole: bool) -> None:
        self._data, self._whole = data, whole
        self.name, self.kind, self.inputs, self.outputs = data.name, data.kind, data.inputs, data.outputs
        self.floor, self.record = data.floor, data.record

    def batch(self, key: Key, step: int, size: int) -> Batch:
        return self._data.training() if self._whole else self._data.batch(key, step, size)

    def evaluation(self, size: int) -> Batch:
        return self._data.training()


@dataclass(frozen=True)
class Floors:
    """Where the runs of a training settle.

    Attributes
    ----------
    loss, gradient : of each run, root mean square over the window of the true training loss and of its gradient's norm
    ends : what ``at_end`` gave of each run
    """

    loss: tuple[float, ...]
    gradient: tuple[float, ...]
    ends: tuple[float, ...]


def floors(
    training: Training,
    runs: int,
    *,
    whole: bool = False,
    window: float = 0.25,
    samples: int = 16,
    at_end: AtEnd = lambda run, start: math.nan,
) -> Floors:
    """Train with runs 0 .. ``runs - 1``: starting weights, batches and random bits of their own, the same for every
    precision and optimizer, so that two trainings are compared run by run.

    Parameters
    ----------
    training : of data in memory (``experiments.datasets.base.Samples``)
    whole : all training samples in each step
    window : in (0, 1], the last share of the steps, in which ``samples`` measures are taken
    at_end : (run at its end, its ``state`` where the window began) -> a number

    Raises
    ------
    ValueError
        Data that are not in memory.
    FloatingPointError
        A loss or weight that is not a finite number.

    Examples
    --------
    >>> from experiments.networks.optimizers import Optimizer
    >>> found = floors(Training("logistic", "digits", Optimizer("sgd"), None, steps=8), 2, whole=True)
    >>> found.loss[0] == found.loss[1]  # no batches are drawn, and all weights start from 0
    True
    """
    with one_thread():
        found = [_floor(replace(training, run=number), whole, window, samples, at_end) for number in range(runs)]
    loss, gradient, ends = zip(*found, strict=True)
    return Floors(loss, gradient, ends)


def started(training: Training, whole: bool) -> Run:
    """A run at its start that is measured on its training data.

    Raises
    ------
    ValueError
        Data that are not in memory.
    """
    run = Run(training)
    if not isinstance(run.data, Samples):
        raise ValueError(f"dataset={training.dataset!r}; admissible: data of samples in memory, such as digits")
    run.data = Learned(run.data, whole)
    return run


def _floor(
    training: Training,
    whole: bool,
    window: float,
    samples: int,
    at_end: AtEnd,
) -> tuple[float, float, float]:
    run = started(training, whole)
    first = training.steps - max(1, round(window * training.steps))
    measured = set(np.linspace(first + 1, training.steps, samples).round().astype(int).tolist())
    squares: list[tuple[float, float]] = []
    start: dict[str, Any] = {}
    while run.step < training.steps:
        if run.step == first:
            start = run.state()
        run.advance()
        if not run.finite():
            raise FloatingPointError(f"{training.network}-{training.dataset}: not finite after step {run.step}")
        if run.step in measured:
            measure = run.measure()
            squares.append((measure.loss**2, measure.gradient**2))
    loss, gradient = np.sqrt(np.mean(squares, axis=0)).tolist()
    return loss, gradient, at_end(run, start)


__all__ = ["Floors", "Learned", "floors", "started"]
