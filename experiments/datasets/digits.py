"""Handwritten digits, 8 x 8 pixels with 17 grey levels: the set that scikit-learn carries."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from pathlib import Path

import numpy as np

from experiments.datasets import CLASSES
from experiments.datasets.base import Samples, shuffled
from experiments.datasets.files import digest
from experiments.problems.base import checked_integer
from fpsim.random_bits import Key

SAMPLES, EVALUATION = 1797, 360
SPLIT = 0x53504C54  # "SPLT"
LEVELS = 16.0  # a pixel is a whole number from 0 to this


def digits(*, data_seed: int = 0) -> Samples:
    """1437 digits to learn and 360 to measure on, float32 ``[1, 8, 8]`` in [0, 1], exact in five bits.

    The file is read where scikit-learn installed it; scikit-learn itself is not imported.

    Parameters
    ----------
    data_seed : int, of the division into the two parts

    Raises
    ------
    ModuleNotFoundError
        scikit-learn is not installed.

    Examples
    --------
    >>> digits().inputs, digits().outputs, digits().record["train"]
    ((1, 8, 8), 10, 1437)
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("digits are a part of scikit-learn: pip install 'fpsim[networks]'")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        table = np.array([list(map(float, line)) for line in csv.reader(file)])
    order = shuffled(Key(checked_integer("data_seed", data_seed, 0, (1 << 63) - 1)).fold(SPLIT), len(table))
    images = (table[order, :64] / LEVELS).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = table[order, 64].astype(np.int64)
    train, rest = slice(EVALUATION, None), slice(0, EVALUATION)
    return Samples(
        "digits", CLASSES, (images[train], labels[train]), (images[rest], labels[rest]), 10, {"digest": digest((path,))}
    )
