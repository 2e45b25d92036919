"""The constants of the default study: one setting for each optimizer and problem.

Every one is printed in the header of a scan and can be set by a flag or a key of a study file. Step sizes are powers of
two, so that storing them in a narrow format changes nothing and the formats are compared at the same step.
"""

from __future__ import annotations

from typing import Any

from experiments import networks
from experiments.network_settings import setting as network_setting

# d = 32 coordinates carry a spread of curvatures; the logistic problem has the 30 features of its data.
DIMENSION = {"logistic": 30}

# Steps: enough for the slowest coordinate to reach binary32's floor (SGD) or for the noise to become stationary.
NOISELESS = ("sgd", "momentum", "heavy_ball", "nesterov", "sign_sgd", "signum", "lion", "muon")
STEPS = dict.fromkeys(NOISELESS, 6_000)  # all others: OTHER_STEPS
OTHER_STEPS = 16_000
MINIBATCH_STEPS = 6_000

# alpha * L = 1/16 for SGD (L = 1 for quadratic and rational).
HYPERPARAMETERS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 2.0**-4},
    "momentum": {"lr": 2.0**-4, "beta1": 0.9},
    "heavy_ball": {"lr": 2.0**-7, "beta1": 0.9},
    "nesterov": {"lr": 2.0**-7, "beta1": 0.9},
    "sign_sgd": {"lr": 2.0**-7},
    "signum": {"lr": 2.0**-7, "beta1": 0.9},
    "lion": {"lr": 2.0**-7, "beta1": 0.9, "beta2": 0.99},
    "muon": {"lr": 2.0**-4, "beta1": 0.9},
    "rmsprop": {"lr": 2.0**-7, "beta2": 0.99, "eps": 1e-8},
    "rmsprop_centered": {"lr": 2.0**-7, "beta2": 0.99, "eps": 1e-8},
    "adagrad": {"lr": 2.0**-3},
    "adafactor_vector": {"lr": 2.0**-7},
    **{
        name: {"lr": 2.0**-7, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
        for name in ("adam", "adam_sums", "adamw", "amsgrad", "nadam")
    },
}

# Standard deviation of the additive gradient noise, a coordinate.
SIGMA = 0.1
BATCH = 16
# The last half of the steps is measured.
WINDOW = 0.5

# Problems whose gradient the machine computes unless it is told otherwise, or the noise is that of minibatches.
GRADIENT_INSIDE = ("quadratic", "rational")


# Rows of the weights of an optimizer of matrices, in problems that have the option.
ROWS = {"muon": {"quadratic": 4, "dense_quadratic": 4, "rational": 4}}


def setting(optimizer: str, problem: str) -> dict[str, Any]:
    """The default setting of a cell: noise, sigma, batch, gradient, dimension, steps, window and ``hyperparameters``;
    ``asks`` are options of the problem that the optimizer needs.

    SGD, its momenta, sign descent and Muon run without noise: what is left at the end is the format's doing, and the
    step's; RMSprop, Adam and their kin run with additive Gaussian noise, on data with minibatches. An optimizer that is
    not fpsim's own has the noise and steps of Adam. Hyperparameters that do not stand here are those that its author
    declared.
    """
    if problem in networks.PROBLEMS:
        return network_setting(optimizer, problem)
    none = optimizer in NOISELESS or problem == "sequence"
    noise = "none" if none else "minibatch" if problem == "logistic" else "gaussian"
    hyperparameters = dict(HYPERPARAMETERS.get(optimizer, {}))
    if problem == "rosenbrock" and noise == "none":
        hyperparameters["lr"] *= 2.0**-9  # L = 4702 there
    return {
        "noise": noise,
        "sigma": SIGMA if noise == "gaussian" else 0.0,
        "batch": BATCH if noise == "minibatch" else 0,
        "gradient": "rounded" if problem in GRADIENT_INSIDE and noise != "minibatch" else "exact",
        "dimension": DIMENSION.get(problem, 32),
        "steps": MINIBATCH_STEPS if noise == "minibatch" else STEPS.get(optimizer, OTHER_STEPS),
        "window": WINDOW,
        "hyperparameters": hyperparameters,
        "asks": {"rows": rows} if (rows := ROWS.get(optimizer, {}).get(problem)) else {},
    }
