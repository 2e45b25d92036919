"""The runs that are compared: optimizers, options, gradients."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = ("float32", "bfloat16", "float16")
IMPLEMENTATIONS = ("single", "foreach")
CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")
SIZES = (1003, 67, 9, 1)  # elements of the parameters: every one leaves a vector tail, the last is only tail

# class of torch.optim -> options of it
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.3, "weight_decay": 0.013, "maximize": True},
        {"lr": 0.05, "momentum": 0.9},
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
        {"lr": 0.02, "momentum": 0.7, "nesterov": True},
        {"lr": 0.02, "momentum": 0.95, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ],
    "Adam": [
        {},
        {"lr": 0.01, "betas": (0.8, 0.99), "amsgrad": True},
        {"lr": 0.01, "weight_decay": 0.02, "maximize": True, "eps": 1e-3},
        {"lr": 0.1, "betas": (0.3, 0.9), "weight_decay": 0.1, "amsgrad": True, "maximize": True},
        {"lr": 0.01, "betas": (0.0, 0.95)},
    ],
    "AdamW": [{}, {"lr": 0.02, "weight_decay": 0.3, "amsgrad": True, "maximize": True}],
    "RMSprop": [
        {},
        {"centered": True, "eps": 1e-4},
        {"momentum": 0.9, "weight_decay": 0.01, "alpha": 0.9},
        {"centered": True, "momentum": 0.5, "weight_decay": 0.05, "maximize": True, "alpha": 0.4},
    ],
    "Adagrad": [
        {},
        {"lr_decay": 0.01, "weight_decay": 0.02, "initial_accumulator_value": 0.1},
        {"lr": 0.1, "lr_decay": 1e-4, "maximize": True, "eps": 1e-3},
    ],
    "NAdam": [
        {},
        {"lr": 0.01, "weight_decay": 0.02, "momentum_decay": 0.01},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True, "betas": (0.4, 0.9)},
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One run: what it is made of names it."""

    optimizer: str
    options: int
    dtype: str
    implementation: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the class of torch.optim is called with, beside the parameters."""
        fused = {"fused": True} if self.implementation == "fused" else {}
        return {**OPTIONS[self.optimizer][self.options], "foreach": self.implementation == "foreach", **fused}


def cases(optimizers: Iterable[str] = tuple(OPTIONS), dtypes: Iterable[str] = DTYPES) -> list[Case]:
    """All that must agree.

    Examples
    --------
    >>> len(cases(["Adagrad"]))
    18
    """
    return [
        Case(name, number, dtype, implementation)
        for dtype in dtypes  # outermost: gradients are made once
        for name in optimizers
        for number in range(len(OPTIONS[name]))
        for implementation in IMPLEMENTATIONS
    ]


# What is exempt, and the ATen operation that differs: one kernel for the whole step instead of those of ``Kernels``.
FUSED = {
    "SGD": "_fused_sgd_: 16-bit types stay in binary32 from decay to update; in 2.13 full vectors of them do not move",
    "Adam": "_fused_adam_: moments are sums of two products, not lerp and addcmul; its square root is not MKL's",
    "AdamW": "_fused_adamw_: as _fused_adam_",
    "Adagrad": "_fused_adagrad_: 16-bit types stay in binary32 from square to update; its square root is not MKL's",
}


def fused_cases() -> list[Case]:
    """One for each optimizer that has a fused implementation, in every dtype.

    Examples
    --------
    >>> [case.optimizer for case in fused_cases()[::3]]
    ['SGD', 'Adam', 'AdamW', 'Adagrad']
    """
    return [Case(name, 0, dtype, "fused") for name in FUSED for dtype in DTYPES]


def start(dtype: str) -> npt.NDArray[np.float64]:
    """Parameters: all magnitudes around 1, and zeros of both signs, small and large ones. ``[sum(SIZES)]``"""
    rng = np.random.default_rng(20)
    elements = sum(SIZES)
    w = rng.normal(size=elements) * 2.0 ** rng.integers(-6, 7, elements)
    low, high, _ = _RANGES[dtype]
    odd = np.array([0.0, -0.0, 2.0**low, -(2.0 ** (low + 3)), 2.0 ** (high - 2), 1.0])
    return np.where(rng.random(elements) < 0.1, rng.choice(odd, elements), w)


# dtype -> exponents of the smallest subnormal and of the largest number, bits of a significand
_RANGES = {"float32": (-149, 127, 24), "bfloat16": (-133, 127, 8), "float16": (-24, 15, 11)}


@functools.lru_cache(maxsize=1)
def gradients(dtype: str, steps: int) -> npt.NDArray[np.float64]:
    """Gradients ``[steps, sum(SIZES)]``; the kind of an element's gradients changes from element to element.

    Kinds: normal ones; normal ones of a scale that changes slowly; every exponent of the dtype, subnormals and those
    near overflow among them; zeros of both signs; a constant; a constant of changing sign; mostly zero; few bits, so
    that ties are frequent; subnormal ones; ones whose squares are subnormal; large ones. They are rounded to the dtype
    where they are used.
    """
    rng = np.random.default_rng(21)
    low, high, bits = _RANGES[dtype]
    shape = (steps, sum(SIZES))
    normal = rng.normal(size=shape)
    scale = np.exp2(rng.uniform(-8, 4, shape[1]) + 3 * np.sin(np.arange(steps)[:, np.newaxis] / 50))
    some = np.exp2(rng.uniform(-6, 3, shape[1]))
    signs = rng.choice([-1.0, 1.0], shape)
    kinds = [
        normal,
        normal * scale,
        signs * np.exp2(rng.uniform(low, high, shape)),
        0.0 * signs,
        np.broadcast_to(some, shape),
        some * (-1.0) ** np.arange(steps)[:, np.newaxis],
        np.where(rng.random(shape) < 0.05, normal, 0.0 * signs),
        signs * rng.integers(0, 8, shape) * np.exp2(rng.integers(-6, 2, shape)),
        signs * np.exp2(rng.uniform(low, low + bits, shape)),
        normal * 2.0 ** (low / 2),
        normal * 2.0 ** (high / 2 - 3),
    ]
    kind = np.arange(shape[1]) % len(kinds)
    return np.choose(kind, kinds)
