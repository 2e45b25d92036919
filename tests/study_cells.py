"""Cells of small studies, for tests that run them."""

from __future__ import annotations

from typing import Any

from experiments.defaults import GRADIENT_INSIDE
from experiments.study import Cell

SETTING: dict[str, Any] = {
    "optimizer": "sgd", "problem": "quadratic", "noise": "none", "sigma": 0.0, "batch": 0, "rounding": "nearest_even",
    "random_bits": 16, "exponent_bits": 8, "mantissa_bits": 7, "dimension": 8, "seeds": 4, "seed": 0, "steps": 256,
    "lr": 2.0**-4, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "window": 0.5,
}  # fmt: skip
HYPERPARAMETERS = {"sgd": ("lr",), "rmsprop": ("lr", "beta2", "eps"), "adam": ("lr", "beta1", "beta2", "eps")}


def cell(**changed: Any) -> Cell:
    fields = {**SETTING, **changed}
    known = {name: fields.pop(name) for name in HYPERPARAMETERS["adam"]}
    hyperparameters = {name: known[name] for name in HYPERPARAMETERS[fields["optimizer"]]}
    inside = fields["problem"] in GRADIENT_INSIDE and fields["noise"] != "minibatch"
    return Cell(**{"gradient": "rounded" if inside else "exact", "hyperparameters": hyperparameters, **fields})
