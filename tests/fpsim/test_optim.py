"""The steps against torch.optim, where that computes the same numbers up to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fpsim import exact_run
from fpsim.optim import STEPS, adam, momentum, rmsprop, sgd
from fpsim.precision import Precision

STEPS_TAKEN, DIMENSION = 60, 3
START = np.array([0.5, -1.0, 2.0])
GRADIENTS = np.random.default_rng(0).standard_normal((STEPS_TAKEN, DIMENSION, 1))


def ours(program: Any, **state: Any) -> np.ndarray:
    given = {name: np.zeros(DIMENSION) for name in program.state} | {"w": START} | state
    final, _ = exact_run.run(program, given, {"g": GRADIENTS}, Precision.uniform("binary64"), steps=STEPS_TAKEN)
    return final["w"][:, 0]


def theirs(optimizer: Any, **options: Any) -> np.ndarray:
    w = torch.tensor(START, requires_grad=True)
    stepper = optimizer([w], **options)
    for gradient in GRADIENTS:
        w.grad = torch.from_numpy(gradient[:, 0].copy())
        stepper.step()
    return w.detach().numpy()


def test_adam() -> None:
    expected = theirs(torch.optim.Adam, lr=0.01, betas=(0.8, 0.95), eps=1e-3)
    np.testing.assert_allclose(ours(adam.bind(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3)), expected, rtol=1e-12)


def test_rmsprop() -> None:
    expected = theirs(torch.optim.RMSprop, lr=0.01, alpha=0.9, eps=1e-3)
    np.testing.assert_allclose(ours(rmsprop.bind(lr=0.01, beta2=0.9, eps=1e-3)), expected, rtol=1e-12)


def test_sgd() -> None:
    np.testing.assert_allclose(ours(sgd.bind(lr=0.05)), theirs(torch.optim.SGD, lr=0.05), rtol=1e-14)


def test_momentum() -> None:
    """Torch with dampening = momentum starts its buffer at the first gradient: ours does if it starts there too."""
    expected = theirs(torch.optim.SGD, lr=0.05, momentum=0.8, dampening=0.8)
    np.testing.assert_allclose(ours(momentum.bind(lr=0.05, beta1=0.8), m=GRADIENTS[0]), expected, rtol=1e-12)
    polyak = theirs(torch.optim.SGD, lr=0.01, momentum=0.8)
    np.testing.assert_allclose(ours(momentum.bind(lr=0.05, beta1=0.8)), polyak, rtol=1e-12)


@pytest.mark.parametrize("name", STEPS)
def test_declared_defaults(name: str) -> None:
    expected = {
        "sgd": {"lr": 0.1},
        "momentum": {"lr": 0.1, "beta1": 0.9},
        "signum": {"lr": 1e-3, "beta1": 0.9},
        "rmsprop": {"lr": 0.01, "beta2": 0.99, "eps": 1e-8},
        "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    }
    assert STEPS[name].hyperparameters == expected[name]
    assert STEPS[name].name == name
