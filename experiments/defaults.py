"""The constants of the default study: one setting for each optimizer and problem.

Every one is printed in the header of a scan and can be set by a flag or a key of a study file. Step sizes are powers of
two, so that storing them in a narrow format changes nothing and the formats are compared at the same step.
"""

from __future__ import annotations

from typing import Any

# d = 32 coordinates carry a spread of curvatures; the logistic problem has the 30 features of its data.
DIMENSION = {"logistic": 30}

# Steps: enough for the slowest coordinate to reach binary32's floor (SGD) or for the noise to become stationary.
STEPS = {"sgd": 6_000, "momentum": 6_000, "rmsprop": 16_000, "adam": 16_000}
MINIBATCH_STEPS = 6_000

# alpha * L = 1/16 for SGD (L = 1 for quadratic and rational).
LEARNING_RATE = {"sgd": 2.0**-4, "momentum": 2.0**-4, "rmsprop": 2.0**-7, "adam": 2.0**-7}

HYPERPARAMETERS: dict[str, dict[str, float]] = {
    "sgd": {},
    "momentum": {"beta1": 0.9},
    "rmsprop": {"beta2": 0.99, "eps": 1e-8},
    "adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
}

# Standard deviation of the additive gradient noise, a coordinate.
SIGMA = 0.1
BATCH = 16
# The last half of the steps is measured.
WINDOW = 0.5


def setting(optimizer: str, problem: str) -> dict[str, Any]:
    """The default setting of a cell: noise, sigma, batch, dimension, steps, lr, window and the hyperparameters it has.

    SGD runs without noise, so that what is left at the end is the format's doing alone; RMSprop and Adam run with
    additive Gaussian noise, on data with minibatches.
    """
    noise = "none" if optimizer in ("sgd", "momentum") else "minibatch" if problem == "logistic" else "gaussian"
    scale = 2.0**-9 if problem == "rosenbrock" else 1.0  # L = 4702 there
    return {
        "noise": noise,
        "sigma": SIGMA if noise == "gaussian" else 0.0,
        "batch": BATCH if noise == "minibatch" else 0,
        "dimension": DIMENSION.get(problem, 32),
        "steps": MINIBATCH_STEPS if noise == "minibatch" else STEPS.get(optimizer, 16_000),
        "lr": LEARNING_RATE.get(optimizer, 2.0**-7) * (scale if noise == "none" else 1.0),
        "window": WINDOW,
        **HYPERPARAMETERS.get(optimizer, {}),
    }
