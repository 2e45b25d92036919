"""The programs that an optimizer of torch.optim stands for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fpsim.optim.pytorch.adagrad import adagrad
from fpsim.optim.pytorch.adam import adam
from fpsim.optim.pytorch.kernels import Kernels, Root
from fpsim.optim.pytorch.nadam import nadam
from fpsim.optim.pytorch.paths import Capability, kernels_of
from fpsim.optim.pytorch.rmsprop import rmsprop
from fpsim.optim.pytorch.sgd import sgd
from fpsim.program import Program

# class -> name of a state in PyTorch -> array of the program
STATES: dict[str, dict[str, str]] = {
    "SGD": {"momentum_buffer": "m"},
    "Adam": {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "v_max"},
    "AdamW": {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "v_max"},
    "RMSprop": {"square_avg": "v", "grad_avg": "g_mean", "momentum_buffer": "m"},
    "Adagrad": {"sum": "v"},
    "NAdam": {"exp_avg": "m", "exp_avg_sq": "v", "mu_product": "mu_product"},
}


def plan_of(
    optimizer: Any, *, group: int = 0, dtype: Any, capability: Capability, root: Root, tail: bool = False
) -> list[Program]:
    """The plan for ``simulate`` that computes what an optimizer of torch.optim does, its hyperparameters bound.

    Parameters
    ----------
    optimizer : SGD, Adam, AdamW, RMSprop, Adagrad or NAdam of torch.optim
    group : int, which of its ``param_groups``
    dtype, capability, root, tail : as for ``kernels_of``

    Returns
    -------
    list of Program : the program of every step; with momentum in SGD that of the first, and that of the others

    Raises
    ------
    ValueError
        Another class, or an implementation with kernels of its own (``fused``, ``capturable``, ``differentiable``), or
        a learning rate that is a tensor.

    Examples
    --------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(3)], lr=0.25, momentum=0.5)
    >>> first, others = plan_of(optimizer, dtype="float32", capability="AVX2", root="exact")
    >>> first.hyperparameters["lr"], others.state
    (0.25, ('w', 'm'))
    """
    name, options = type(optimizer).__name__, optimizer.param_groups[group]
    if name not in STATES or not type(optimizer).__module__.startswith("torch.optim"):
        raise ValueError(f"optimizer {type(optimizer).__qualname__}; admissible: {', '.join(STATES)} of torch.optim")
    for key in ("fused", "capturable", "differentiable"):
        if options.get(key):
            raise ValueError(f"{key}={options[key]}; admissible: False, for that implementation has kernels of its own")
    if not isinstance(options["lr"], (int, float)):
        raise ValueError(f"lr={options['lr']!r}; admissible: a number of Python")
    kernels = kernels_of(dtype, foreach=bool(options["foreach"]), tail=tail, capability=capability, root=root)
    return programs_of(name, options, kernels)


def programs_of(name: str, options: Mapping[str, Any], kernels: Kernels) -> list[Program]:
    """The plan of a class of ``STATES`` for the options of a param group, as they are called in PyTorch.

    Examples
    --------
    >>> options = {"lr": 0.1, "lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.0, "maximize": True}
    >>> [program.state for program in programs_of("Adagrad", options, Kernels())]
    [('w', 'v')]
    """
    return _PLANS[name](options, kernels)


@functools.lru_cache(maxsize=256)
def _traced(factory: Callable[..., Program], **flags: Any) -> Program:
    """A program depends on the flags only: a learning rate that changes every step is bound, not traced anew."""
    return factory(**flags)


def _decay(options: Mapping[str, Any]) -> bool:
    return bool(options["weight_decay"] != 0)


def _far(weight: float) -> bool:
    return bool(abs(np.float32(weight)) >= 0.5)


def _sgd(o: Mapping[str, Any], kernels: Kernels) -> list[Program]:
    flags = {"weight_decay": _decay(o), "maximize": o["maximize"], "kernels": kernels}
    declared = {name: o[name] for name in ("lr", "momentum", "dampening", "weight_decay")}
    if o["momentum"] == 0:
        return [_traced(sgd, **flags).bind(**declared)]
    flags |= {"momentum": True, "nesterov": o["nesterov"]}
    return [_traced(sgd, first=first, **flags).bind(**declared) for first in (True, False)]


def _adam(o: Mapping[str, Any], kernels: Kernels) -> list[Program]:
    beta1, beta2 = o["betas"]
    program = _traced(
        adam, amsgrad=o["amsgrad"], weight_decay=_decay(o), decoupled=o["decoupled_weight_decay"],
        maximize=o["maximize"], far_lerp=_far(1 - beta1), kernels=kernels,
    )  # fmt: skip
    return [program.bind(lr=o["lr"], beta1=beta1, beta2=beta2, eps=o["eps"], weight_decay=o["weight_decay"])]


def _rmsprop(o: Mapping[str, Any], kernels: Kernels) -> list[Program]:
    program = _traced(
        rmsprop, centered=o["centered"], momentum=o["momentum"] > 0, weight_decay=_decay(o), maximize=o["maximize"],
        far_lerp=_far(1 - o["alpha"]), kernels=kernels,
    )  # fmt: skip
    declared = {name: o[name] for name in ("lr", "eps", "momentum", "weight_decay")}
    return [program.bind(beta2=o["alpha"], **declared)]


def _adagrad(o: Mapping[str, Any], kernels: Kernels) -> list[Program]:
    program = _traced(adagrad, weight_decay=_decay(o), maximize=o["maximize"], kernels=kernels)
    return [program.bind(**{name: o[name] for name in ("lr", "lr_decay", "eps", "weight_decay")})]


def _nadam(o: Mapping[str, Any], kernels: Kernels) -> list[Program]:
    beta1, beta2 = o["betas"]
    program = _traced(
        nadam, weight_decay=_decay(o), decoupled=o["decoupled_weight_decay"], maximize=o["maximize"],
        far_lerp=_far(1 - beta1), kernels=kernels,
    )  # fmt: skip
    declared = {name: o[name] for name in ("lr", "eps", "weight_decay", "momentum_decay")}
    return [program.bind(beta1=beta1, beta2=beta2, **declared)]


_PLANS = {"SGD": _sgd, "Adam": _adam, "AdamW": _adam, "RMSprop": _rmsprop, "Adagrad": _adagrad, "NAdam": _nadam}
