"""Regression with a known answer: targets are what a fixed network, the teacher, gives, and noise if asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from experiments.datasets import REGRESSION
from experiments.datasets.base import Samples
from experiments.problems.base import checked_integer, checked_real
from experiments.recipes import gaussian
from fpsim.random_bits import Key

EVALUATION = 1024
TEACHER = 0x54434852  # "TCHR"


def teacher(
    *, inputs: int = 16, hidden: int = 32, outputs: int = 1, samples: int = 4096, noise: float = 0.0, data_seed: int = 0
) -> Samples:
    """Normal inputs x in float32, targets B max(A x, 0) + noise in float32.

    The entries of A and B are normal with variance 2/inputs and 1/hidden. Sums are added in the order of their terms,
    one at a time, so the data have the same bits on every machine.

    Parameters
    ----------
    inputs, hidden, outputs : int, widths of the teacher
    samples : int, of the training part
    noise : float >= 0, standard deviation of the noise: ``floor`` is its square

    Examples
    --------
    >>> data = teacher(noise=0.5)
    >>> data.inputs, data.outputs, data.floor
    ((16,), 1, 0.25)
    """
    for name, value, most in (("inputs", inputs, 4096), ("hidden", hidden, 4096), ("outputs", outputs, 4096)):
        checked_integer(name, value, 1, most)
    checked_integer("samples", samples, 1, 1 << 22)
    noise = checked_real("noise", noise, 0.0)
    key, count = Key(checked_integer("data_seed", data_seed, 0, (1 << 63) - 1)).fold(TEACHER), samples + EVALUATION
    first = _normal(key.fold(0), hidden, inputs) * (2.0 / inputs) ** 0.5
    second = _normal(key.fold(1), outputs, hidden) * (1.0 / hidden) ** 0.5
    x = _normal(key.fold(2), count, inputs).astype(np.float32)
    y = _product(np.maximum(_product(x.astype(np.float64), first), 0.0), second)
    if noise:
        y = y + noise * _normal(key.fold(3), count, outputs)
    targets = y.astype(np.float32)
    train, rest = slice(EVALUATION, None), slice(0, EVALUATION)
    record = {"teacher": f"{inputs}-{hidden}-{outputs}", "noise": noise}
    parts = (x[train], targets[train]), (x[rest], targets[rest])
    return Samples("teacher", REGRESSION, *parts, outputs, record, floor=noise * noise)


def _normal(key: Key, *shape: int) -> npt.NDArray[np.float64]:
    out = np.empty((1, int(np.prod(shape)), 1))
    gaussian(key, range(1), out.shape[1], [0], 1.0, out)
    return out.reshape(shape)


def _product(x: npt.NDArray[np.float64], a: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """x a^T, each sum from the left."""
    total = np.zeros((len(x), len(a)))
    for k in range(a.shape[1]):
        total += x[:, k, None] * a[None, :, k]
    return total
