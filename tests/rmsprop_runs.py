"""Runs of RMSprop with noise on the toy machine, with their windows, for the tests of its theorems."""

from __future__ import annotations

from typing import Any

import numpy as np

from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.optim import rmsprop
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import Rounding
from fpsim.tracing import slot, step
from theory.window import Window


@step(name="quadratic")
def quadratic(w: Any, center: Any, curvature: Any, noise: Any) -> Any:
    return {"g": slot("noisy", slot("scale", curvature * slot("difference", w - center)) + noise)}


@step(name="rational")
def rational(w: Any, center: Any, curvature: Any, noise: Any) -> Any:
    z = slot("difference", w - center)
    one_plus = slot("one_plus", slot("square", z * z) + 1)
    denominator = slot("denominator", one_plus * one_plus)
    return {"g": slot("noisy", slot("ratio", slot("numerator", curvature * z) / denominator) + noise)}


@step(name="silent")
def silent(w: Any, center: Any, curvature: Any) -> Any:
    return {"g": slot("scale", curvature * slot("difference", w - center))}


def train(
    machine: Any,
    fmt: Format,
    rounding: Rounding,
    *,
    problem: Program | None = quadratic,
    noise: str = "gaussian",
    sigma: float = 0.1,
    lr: float = 2.0**-7,
    beta2: float = 0.99,
    eps: float = 1e-8,
    d: int = 8,
    seeds: int = 6,
    steps: int = 1500,
    seed: int = 0,
    declare: bool = True,
) -> Window:
    """RMSprop, every operation rounded; the second half of the run as a window.

    ``problem`` None: the quadratic's gradient in binary64, with the mean of two heavy-tailed draws as minibatch noise.
    """
    generator = np.random.default_rng(seed)
    curvature = np.geomspace(0.1, 1.0, d)
    h = curvature[:, None]
    center = np.resize([4 / 3, -5 / 3, 5 / 3, -4 / 3], d)[:, None]
    data = generator.standard_t(5, (d, 12))
    data -= data.mean(axis=1, keepdims=True)

    def gradient(w: np.ndarray) -> np.ndarray:
        z = w - center
        return h * z / (1 + z * z) ** 2 if problem is rational else h * z

    def loss(w: np.ndarray) -> np.ndarray:
        z = w - center
        return np.sum(h / 2 * z * z / (1 + z * z) if problem is rational else h * z * z / 2, axis=0)

    def feed(k: int, state: Any) -> dict[str, np.ndarray]:
        if problem is silent:
            return {}
        if problem is not None:
            return {"noise": sigma * generator.normal(size=(d, seeds))}
        if noise == "gaussian":
            return {"g": gradient(state["w"]) + sigma * generator.normal(size=(d, seeds))}
        rows = generator.integers(0, data.shape[1], (2, seeds))
        return {"g": gradient(state["w"]) + sigma * data[:, rows].mean(axis=1)}

    program = rmsprop.bind(lr=lr, beta2=beta2, eps=eps)
    precision, constants = Precision.uniform(fmt, rounding), {}
    if problem is not None:
        program = problem >> program
        precision = precision.replace({"center": BINARY64, "curvature": BINARY64})
        constants = {"center": np.tile(center, seeds), "curvature": np.tile(h, seeds)}
    start = {"w": center + generator.uniform(-0.3, 0.3, (d, seeds)), "v": np.zeros((d, seeds))}
    first = machine.run(program, precision, start, constants, steps // 2, every_step=feed, seed=seed)
    result = machine.run(program, precision, first.end, constants, steps // 2, every_step=feed, seed=seed + 1)
    visited = [state["w"] for state in result.history]
    widest = np.max(result.max_abs["w"], axis=1)
    bound = curvature * (widest + np.abs(center[:, 0]))
    return machine.window(
        result,
        optimizer="rmsprop",
        hyperparameters={**program.hyperparameters, **({"sigma": sigma} if declare else {})},
        gradient_inside=problem is not None,
        noise=noise,
        curvature=curvature,
        smoothness=1.0,
        exact_constants=tuple(constants),
        gradient_error=np.full(d, 0.0 if problem is not None else 2.0**-50),
        gradient_bound=np.minimum(bound, 0.3247596 * curvature) if problem is rational else bound,
        loss_start=loss(visited[0]),
        loss_end=loss(visited[-1]),
        squared_gradient=np.array([np.sum(gradient(w) ** 2, axis=0) for w in visited[:-1]]),
        outcome="floor",
    )


CASES: dict[str, dict[str, Any]] = {
    "quadratic": {},
    "rational": {"problem": rational},
    "no sigma": {"declare": False},
    "outside": {"problem": None},
    "minibatch": {"problem": None, "noise": "minibatch"},
    "silent": {"problem": silent, "noise": "none"},
    "long memory": {"beta2": 0.999},
    "short memory": {"beta2": 0.75, "lr": 2.0**-5},
    "large eps": {"eps": 0.1},
    "one coordinate": {"d": 1, "seeds": 12},
}
