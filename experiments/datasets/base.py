"""What a dataset is: batches that follow from a key and a step number, and a fixed batch to measure on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.datasets import TOKENS
from experiments.problems.base import checked_integer
from experiments.streams import indices
from fpsim.random_bits import Key, philox4x32

Batch = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Dataset(ABC):
    """Data that a network learns.

    Attributes
    ----------
    name : str
    kind : ``CLASSES``, ``REGRESSION`` or ``TOKENS`` of ``experiments.datasets``
    inputs : shape of the input of one sample
    outputs : number of classes, tokens or target coordinates
    floor : float or None, the mean loss (cross-entropy in nats, or mean squared error) that no network can go below on
        the law of the data, where it is known
    record : what names the data in a result: sizes, digests, versions
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: int
    floor: float | None = None
    record: Mapping[str, str | int | float]

    @abstractmethod
    def batch(self, key: Key, step: int, size: int) -> Batch:
        """Inputs ``[size, ..]`` and targets of a training step, counted from 0, drawn with ``key.fold(step)``."""

    @abstractmethod
    def evaluation(self, size: int) -> Batch:
        """The first ``size`` samples of the fixed evaluation data, or all of them if they are fewer."""


class Samples(Dataset):
    """Samples in memory, divided into a training and an evaluation part; a batch is drawn with replacement."""

    def __init__(
        self,
        name: str,
        kind: str,
        train: Batch,
        evaluation: Batch,
        outputs: int,
        record: Mapping[str, str | int | float],
        floor: float | None = None,
    ) -> None:
        self.name, self.kind, self.outputs, self.floor = name, kind, outputs, floor
        self._train, self._evaluation = train, evaluation
        self.inputs = tuple(train[0].shape[1:])
        self.record = {"train": len(train[0]), "evaluation": len(evaluation[0])} | dict(record)

    def batch(self, key: Key, step: int, size: int) -> Batch:
        chosen = drawn(key, step, size, len(self._train[0]))
        return self._train[0][chosen], self._train[1][chosen]

    def training(self) -> Batch:
        """All samples of the training part."""
        return self._train

    def evaluation(self, size: int) -> Batch:
        size = checked_integer("evaluation", size, 1, 1 << 24)
        return self._evaluation[0][:size], self._evaluation[1][:size]


class Windows(Dataset):
    """One long row of tokens, divided into a training and an evaluation part.

    A sample is ``length`` tokens that stand together and the tokens that follow each; a batch begins at places drawn
    with replacement, the evaluation data are windows side by side. All tokens are in 0..outputs-1.
    """

    kind = TOKENS

    def __init__(
        self,
        name: str,
        train: npt.NDArray[Any],
        evaluation: npt.NDArray[Any],
        outputs: int,
        length: int,
        record: Mapping[str, str | int | float],
    ) -> None:
        self.name, self.outputs, self.inputs = name, outputs, (checked_integer("length", length, 1, 1 << 16),)
        for part, tokens in (("training", train), ("evaluation", evaluation)):
            if len(tokens) <= length:
                raise ValueError(
                    f"length={length}: the {part} part of {name!r} has {len(tokens)} tokens; more are needed"
                )
        self._train, self._rest = train, evaluation
        self.record = {"train": len(train), "evaluation": len(evaluation)} | dict(record)

    def batch(self, key: Key, step: int, size: int) -> Batch:
        return self._windows(self._train, drawn(key, step, size, len(self._train) - self.inputs[0]))

    def evaluation(self, size: int) -> Batch:
        size, (length,) = checked_integer("evaluation", size, 1, 1 << 24), self.inputs
        return self._windows(self._rest, np.arange(0, len(self._rest) - length, length)[:size])

    def _windows(self, tokens: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> Batch:
        rows = tokens[starts[:, None] + np.arange(self.inputs[0] + 1)].astype(np.int64)
        return rows[:, :-1], rows[:, 1:]


def drawn(key: Key, step: int, size: int, count: int) -> npt.NDArray[np.int64]:
    """``size`` numbers in 0..count-1, independent and uniform, of one step: the same in every cell.

    Raises
    ------
    ValueError
        A size outside 1..65536: the words of larger batches would be those of others.
    """
    out = np.empty((checked_integer("batch", size, 1, 1 << 16), 1), np.int64)
    indices(key.fold(step), 0, [0], count, out)
    return out[:, 0]


def shuffled(key: Key, count: int) -> npt.NDArray[np.intp]:
    """The numbers 0..count-1 in the order of random words; of equal words the smaller number comes first."""
    high, low, _, _ = philox4x32(np.arange(count), 0, 0, 0, key)
    return np.argsort((high.astype(np.uint64) << np.uint64(32)) | low, kind="stable")
