"""The classes that compute what torch.optim computes on a CPU: the same bits, unless another precision is chosen."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fpsim.optim import pytorch
from fpsim.optim.pytorch.kernels import Root
from fpsim.optim.pytorch.paths import Capability
from fpsim.optim.pytorch.plans import programs_of
from fpsim.optim.pytorch.simulate import FUNCTIONS
from fpsim.optim.torch_row import Face, Layout, Spot, uniform
from fpsim.precision import TORCH_DTYPES, Precision
from fpsim.program import Program

_BETAS = (0.9, 0.999)
# Arguments of torch.optim with their defaults, in its order.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "SGD": {
        "lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False,
    },
    "Adam": {
        "lr": 1e-3, "betas": _BETAS, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "maximize": False,
        "decoupled_weight_decay": False,
    },
    "AdamW": {
        "lr": 1e-3, "betas": _BETAS, "eps": 1e-8, "weight_decay": 1e-2, "amsgrad": False, "maximize": False,
        "decoupled_weight_decay": True,
    },
    "RMSprop": {
        "lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False,
        "maximize": False,
    },
    "Adagrad": {
        "lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10,
        "maximize": False,
    },
    "NAdam": {
        "lr": 2e-3, "betas": _BETAS, "eps": 1e-8, "weight_decay": 0.0, "momentum_decay": 4e-3,
        "decoupled_weight_decay": False, "maximize": False,
    },
}  # fmt: skip
_START: dict[str, dict[str, float | str]] = {
    "Adagrad": {"v": "initial_accumulator_value"},
    "NAdam": {"mu_product": 1.0},
}
_STEP: dict[str, Callable[..., Program]] = {
    "SGD": pytorch.sgd, "Adam": pytorch.adam, "AdamW": pytorch.adam, "RMSprop": pytorch.rmsprop,
    "Adagrad": pytorch.adagrad, "NAdam": pytorch.nadam,
}  # fmt: skip


def _program(name: str, options: Mapping[str, Any], spot: Spot) -> Program:
    if options.get("nesterov") and (options["momentum"] <= 0 or options["dampening"] != 0):
        raise ValueError(
            f"nesterov=True with momentum={options['momentum']} and dampening={options['dampening']}; "
            "admissible: momentum above 0, dampening 0"
        )
    stages = programs_of(name, options, _kernels("float32" if spot.chosen else spot.dtype, spot.chosen, spot.tail))
    return stages[min(spot.step, len(stages) - 1)]


class CapabilityWarning(UserWarning):
    """The processor is one on which the bits of PyTorch were not studied."""


@functools.cache
def _kernels(dtype: str, chosen: bool, tail: bool) -> pytorch.Kernels:
    """Those of the running PyTorch; with a precision of one's own those of one element, correctly rounded."""
    if chosen or dtype not in TORCH_DTYPES:
        return pytorch.Kernels()
    capability, root = _machine()
    return pytorch.kernels_of(dtype, tail=tail, capability=capability, root=root)


@functools.cache
def _machine() -> tuple[Capability, Root]:
    try:
        return pytorch.capability(), pytorch.root()
    except RuntimeError as error:
        warnings.warn(f"{error}. The bits are those of AVX2 with exact roots", CapabilityWarning, stacklevel=2)
        return "AVX2", "exact"


def _precision(dtype: str) -> Precision:
    return Precision.torch(dtype) if dtype in TORCH_DTYPES else uniform(dtype)


def _tails(shape: Layout, strides: tuple[Layout, ...], dtype: str) -> tuple[npt.NDArray[np.int64], bool]:
    import torch

    if dtype not in TORCH_DTYPES:
        return np.empty(0, dtype=np.int64), True
    return _tail_elements(shape, strides, dtype, torch.get_num_threads())


@functools.lru_cache(maxsize=256)
def _tail_elements(
    shape: Layout, strides: tuple[Layout, ...], dtype: str, threads: int
) -> tuple[npt.NDArray[np.int64], bool]:
    """The elements that scalar code computes, from where they are in memory; and whether that is known.

    Where parameter, gradient and states fill their memory in one order, ATen goes through them in that order, and what
    is left after the last full vector is a tail, of every thread's share. Found by experiment with torch 2.13.0. In two
    orders, or with gaps, the elements depend on the kernel, on which arrays it reads; here all are taken for a tail, as
    they are in kernels that read parameter and gradient. That matters in the 16-bit types: tails of float32 differ
    in the sign of a zero at most.
    """
    axes = sorted((axis for axis, length in enumerate(shape) if length > 1), key=lambda axis: strides[0][axis])
    filled, known = 1, True
    for axis in axes:
        if any(of[axis] != filled for of in strides[:2]):
            return np.arange(math.prod(shape)), dtype == "float32"
        known = known and all(of[axis] == filled for of in strides[2:])
        filled *= shape[axis]
    in_memory = pytorch.tail_of(filled, dtype, threads=threads)
    order = [*(axis for axis, length in enumerate(shape) if length == 1), *reversed(axes)]
    places = np.flatnonzero(in_memory.reshape([shape[axis] for axis in order]).transpose(np.argsort(order)))
    return places, known or dtype == "float32"


def _about(name: str) -> str:
    """What the program's documentation says, up to its examples."""
    text = inspect.cleandoc(_STEP[name].__doc__ or "")
    return text.partition("Parameters\n---")[0].partition("Examples\n---")[0].strip()


VARIANTS: dict[str, Face] = {
    name: Face(
        name=name,
        program=partial(_program, name),
        defaults=defaults,
        states={array: named for named, array in pytorch.STATES[name].items()},
        precision=_precision,
        stages=2 if name == "SGD" else 1,
        start=_START.get(name, {}),
        functions=FUNCTIONS,
        tails=_tails,
        about=_about(name),
    )
    for name, defaults in _DEFAULTS.items()
}
