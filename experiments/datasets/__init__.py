"""The data that networks learn, by name. A new one is a file with a ``Dataset`` and a factory, and a line here.

Options of a factory are its keyword arguments. Nothing here needs torch: batches are NumPy arrays. The names alone are
known without importing anything else.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.datasets.base import Dataset

# Kinds of data: inputs and targets of a sample.
CLASSES = "classes"  # float32 [*inputs] and a class, int64
REGRESSION = "regression"  # float32 [*inputs] and float32 [outputs]
TOKENS = "tokens"  # int64 [length] and the tokens that follow, int64 [length]


@dataclass(frozen=True)
class Row:
    """Where a dataset is made, and what kind of data it is: known without reading any."""

    module: str
    kind: str
    file: bool = False  # whether it reads the file or folder of the option ``path``


DATASETS: dict[str, Row] = {
    "digits": Row("digits", CLASSES),
    "teacher": Row("teacher", REGRESSION),
    "text": Row("text", TOKENS),
    "markov": Row("markov", TOKENS),
    "cifar10": Row("cifar10", CLASSES, file=True),
    "tokens": Row("tokens", TOKENS, file=True),
}


def factory(name: str) -> Callable[..., Dataset]:
    """What makes the dataset of a name.

    Raises
    ------
    ValueError
        There is none of this name.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset={name!r}; admissible: {', '.join(DATASETS)}")
    made: Callable[..., Dataset] = getattr(
        importlib.import_module(f"experiments.datasets.{DATASETS[name].module}"), name
    )
    return made


def make(name: str, **options: Any) -> Dataset:
    """The dataset of a name; those of equal options are read once.

    Raises
    ------
    ValueError
        An unknown name or option, or a value outside its interval.
    OSError
        A file that cannot be read.
    """
    known = inspect.signature(factory(name)).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"option {option!r} of dataset {name!r}; admissible: {', '.join(known) or 'none'}")
    return _made(name, tuple(sorted(options.items())))


@functools.lru_cache(maxsize=16)
def _made(name: str, options: tuple[tuple[str, Any], ...]) -> Dataset:
    return factory(name)(**dict(options))


def forget() -> None:
    """Read data anew when they are asked for next."""
    _made.cache_clear()


__all__ = ["CLASSES", "DATASETS", "REGRESSION", "TOKENS", "Row", "factory", "forget", "make"]
