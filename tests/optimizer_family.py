"""The optimizers as rows, and what their tests share: a new optimizer is one row of ``FAMILY``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import optimizer_formulas as formulas
import torch
from tiers import slow_but

from fpsim.optim import STEPS, clip_by_norm, error_feedback, kahan
from fpsim.program import Program

Array = np.ndarray
State = dict[str, Array]


@dataclass(frozen=True)
class Row:
    """An optimizer and what its suite needs.

    defaults : what the step declares: the published values, or where these are open torch's
    settings : hyperparameters of all tests but those of descent
    formula : a generator of weights, in NumPy, from the published formulas
    torch : the optimizer of torch.optim that computes the same up to roundings, and its arguments
    parabola, rosenbrock : step sizes of the descents
    """

    defaults: dict[str, float]
    settings: dict[str, float]
    formula: Callable[..., Iterator[Array]]
    parabola: float
    rosenbrock: float
    torch: tuple[Any, dict[str, Any]] | None = None


BETAS = {"beta1": 0.8, "beta2": 0.95}
ADAPTIVE = {"lr": 0.01, **BETAS, "eps": 1e-3}
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
RELATIVE = {"lr": 0.01, "decay": 0.8, "eps1": 1e-30, "eps2": 1e-3, "threshold": 1.0}
MOVING = {"lr": 0.05, "beta1": 0.8}
RMSPROP = {"lr": 0.01, "beta2": 0.99, "eps": 1e-8}
SCALED = {"lr": 0.01, "beta2": 0.95, "eps": 1e-3}
EPS = {"lr": 0.1, "eps": 1e-3}
PAIR = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3}
RELATED = {"lr": 0.02, "decay": 0.7, "eps1": 1e-30, "eps2": 1e-2, "threshold": 1.0625}
ADAFACTOR = (torch.optim.Adafactor, {"lr": 0.02, "beta2_decay": -0.7, "eps": (1e-30, 1e-2), "d": 1.0625})
FAMILY = {
    "sgd": Row({"lr": 0.1}, {"lr": 0.05}, formulas.sgd, 0.1, 1e-3, (torch.optim.SGD, {"lr": 0.05})),
    "momentum": Row({"lr": 0.1, "beta1": 0.9}, MOVING, formulas.momentum, 0.1, 1e-3),
    "heavy_ball": Row(
        {"lr": 0.01, "beta1": 0.9},
        MOVING,
        formulas.heavy_ball,
        0.02,
        2e-4,
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.8}),
    ),
    "nesterov": Row(
        {"lr": 0.01, "beta1": 0.9},
        MOVING,
        formulas.nesterov,
        0.02,
        2e-4,
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    ),
    "sign_sgd": Row({"lr": 1e-3}, {"lr": 0.05}, formulas.sign_sgd, 0.01, 0.01),
    "signum": Row({"lr": 1e-3, "beta1": 0.9}, MOVING, formulas.signum, 0.01, 0.01),
    "lion": Row(
        {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0},
        {"lr": 0.05, **BETAS, "weight_decay": 0.1},
        formulas.lion,
        0.01,
        0.01,
    ),
    "adagrad": Row({"lr": 0.01, "eps": 1e-10}, EPS, formulas.adagrad, 0.3, 0.1, (torch.optim.Adagrad, EPS)),
    "rmsprop": Row(
        RMSPROP,
        SCALED,
        formulas.rmsprop,
        0.01,
        5e-3,
        (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.95, "eps": 1e-3}),
    ),
    "rmsprop_centered": Row(
        RMSPROP,
        SCALED,
        formulas.rmsprop_centered,
        0.005,
        2e-3,
        (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.95, "eps": 1e-3, "centered": True}),
    ),
    "adam": Row(ADAM, ADAPTIVE, formulas.adam, 0.02, 0.02, (torch.optim.Adam, PAIR)),
    "adam_sums": Row(ADAM, ADAPTIVE, formulas.adam_sums, 0.02, 0.02),
    "adamw": Row(
        ADAM | {"weight_decay": 0.01},
        {**ADAPTIVE, "weight_decay": 0.1},
        formulas.adamw,
        0.02,
        0.02,
        (torch.optim.AdamW, {**PAIR, "weight_decay": 0.1}),
    ),
    "amsgrad": Row(ADAM, ADAPTIVE, formulas.amsgrad, 0.01, 0.02),
    "nadam": Row(
        ADAM | {"lr": 2e-3, "momentum_decay": 0.004}, {**ADAPTIVE, "momentum_decay": 0.01}, formulas.nadam, 0.02, 0.02
    ),
    "adafactor": Row(RELATIVE, RELATED, formulas.adafactor, 0.05, 0.02, ADAFACTOR),
    "adafactor_vector": Row(RELATIVE, RELATED, formulas.adafactor_vector, 0.05, 0.02, ADAFACTOR),
}
WRAPPERS: dict[str, Callable[[Program], Program]] = {
    "kahan": kahan,
    "error_feedback": error_feedback,
    "clip": lambda program: clip_by_norm(0.75, shape=program.shape("g")) >> program,
}
BARE = [(name, "") for name in FAMILY]
WRAPPED = [(name, wrapper) for name in FAMILY for wrapper in WRAPPERS]
EVERY = slow_but(BARE + WRAPPED, *BARE, *(case for case in WRAPPED if case[0] in ("sgd", "adam", "adafactor")))
TALL = {"n": 2, "k": 2, "d": 4}


def of(name: str, wrapper: str = "", **values: Any) -> Program:
    program = STEPS[name].bind(**(FAMILY[name].settings | values))
    return WRAPPERS[wrapper](program) if wrapper else program


def start_of(program: Program, lengths: dict[str, int], runs: int, seed: int = 0) -> State:
    """Weights at random, and everything else as an optimizer starts."""
    draw = np.random.default_rng(seed)
    shapes = {name: tuple(lengths[str(d)] for d in program.shape(name)) for name in program.state}
    return {name: np.zeros((*shape, runs)) for name, shape in shapes.items()} | {
        "w": draw.standard_normal((*shapes["w"], runs))
    }


def gradients(program: Program, lengths: dict[str, int], steps: int, runs: int, seed: int = 1) -> Array:
    shape = tuple(lengths[str(d)] for d in program.shape("g"))
    return np.random.default_rng(seed).standard_normal((steps, *shape, runs))


def bits(x: Array) -> Array:
    return np.ascontiguousarray(x, dtype=np.float64).view(np.uint64)


def same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        np.testing.assert_array_equal(bits(x), bits(other[name]), err_msg=name)
