"""Small networks, by name, and their training. A new network is a file with a module of torch and a factory, and a
line here.

Nothing is imported from torch before a network is made. ``experiments.networks.train`` trains one;
``experiments.networks.cells`` runs the cells of a study whose problem is a network and data.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.datasets import CLASSES, DATASETS, REGRESSION, TOKENS

if TYPE_CHECKING:
    import torch

    from experiments.datasets.base import Dataset
    from fpsim.random_bits import Key


@dataclass(frozen=True)
class Row:
    """Where a network is made, and the kinds of data that it learns."""

    module: str
    kinds: tuple[str, ...]


NETWORKS: dict[str, Row] = {
    "mlp": Row("mlp", (CLASSES, REGRESSION)),
    "cnn": Row("cnn", (CLASSES,)),
    "transformer": Row("transformer", (TOKENS,)),
    "logistic": Row("logistic", (CLASSES,)),
}

# Problems of a study: a network and data of a kind that it learns, such as ``mlp-digits``.
PROBLEMS: dict[str, tuple[str, str]] = {
    f"{network}-{dataset}": (network, dataset)
    for network, row in NETWORKS.items()
    for dataset, data in DATASETS.items()
    if data.kind in row.kinds
}

# Optimizers of matrices, those of ``fpsim.optim.matrix.METHODS`` that train networks only: Muon runs on other problems.
OPTIMIZERS = ("muon_polar", "shampoo", "soap", "scion", "scion_sign", "scion_column", "scion_row", "kron")


def factory(name: str) -> Callable[..., torch.nn.Module]:
    """What makes the network of a name: ``factory(inputs, outputs, key, **options)``.

    Raises
    ------
    ValueError
        There is none of this name.
    ImportError
        torch is not installed; one line that says so.
    """
    if name not in NETWORKS:
        raise ValueError(f"network={name!r}; admissible: {', '.join(NETWORKS)}")
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ImportError("networks are modules of PyTorch: pip install 'fpsim[networks]'") from error
    made: Callable[..., torch.nn.Module] = getattr(
        importlib.import_module(f"experiments.networks.{NETWORKS[name].module}"), name
    )
    return made


def make(name: str, data: Dataset, key: Key, **options: Any) -> torch.nn.Module:
    """A network for a dataset, in float32, with weights that follow from the key.

    Raises
    ------
    ValueError
        Data of a kind that the network does not learn, or an unknown option.
    """
    made = factory(name)
    if data.kind not in NETWORKS[name].kinds:
        kinds = ", ".join(NETWORKS[name].kinds)
        raise ValueError(f"network {name!r} with dataset {data.name!r}, whose kind is {data.kind}; admissible: {kinds}")
    known = list(inspect.signature(made).parameters)[3:]
    for option in options:
        if option not in known:
            raise ValueError(f"option {option!r} of network {name!r}; admissible: {', '.join(known) or 'none'}")
    return made(data.inputs, data.outputs, key, **options)


__all__ = ["NETWORKS", "OPTIMIZERS", "PROBLEMS", "Row", "factory", "make"]
