"""Runs of Adam on the toy machine, with their windows, for the tests of its theorems."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fpsim.number_format import Format
from fpsim.precision import Precision
from fpsim.rounding import Rounding
from fpsim.tracing import slot, sqrt, step
from theory.theorem import Theorem
from theory.verdict import verdict
from theory.window import Window


@step(name="plain")
def plain(
    w: Any, m: Any, v: Any, g: Any, *, lr: Any = 1e-3, beta1: Any = 0.9, beta2: Any = 0.999, eps: Any = 1e-8
) -> Any:
    """Adam without bias corrections."""
    m = slot("m.add", slot("m.decay", beta1 * m) + slot("m.inject", (1 - beta1) * g))
    v = slot("v.add", slot("v.decay", beta2 * v) + slot("v.inject", (1 - beta2) * slot("v.square", g * g)))
    below = slot("update.eps", slot("update.sqrt", sqrt(v)) + eps)
    return {"w": slot("w.sub", w - slot("update.scale", lr * slot("update.div", m / below))), "m": m, "v": v}


def gradient(w: np.ndarray, h: np.ndarray, c: np.ndarray, bent: bool) -> np.ndarray:
    z = w - c
    return h * z / (1 + z * z) ** 2 if bent else h * z


def loss(w: np.ndarray, h: np.ndarray, c: np.ndarray, bent: bool) -> np.ndarray:
    z = w - c
    return np.sum(h / 2 * z * z / (1 + z * z) if bent else h * z * z / 2, axis=0)


def train(
    machine: Any,
    fmt: Format,
    rounding: Rounding,
    *,
    bent: bool = False,
    noise: str = "gaussian",
    sigma: float = 0.1,
    d: int = 4,
    seeds: int = 6,
    steps: int = 1200,
    seed: int = 0,
    declare: bool = True,
    separable: bool = True,
    store: dict[str, Any] | None = None,
    **hyperparameters: float,
) -> SimpleNamespace:
    """Adam without corrections; the second half of the run as a window, with its history and gradients."""
    generator = np.random.default_rng(seed)
    h, c = np.geomspace(0.2, 1.0, d)[:, None], np.resize([4 / 3, -5 / 3, 5 / 3, -4 / 3], d)[:, None]
    data = generator.standard_t(5, (d, 12))
    data -= data.mean(axis=1, keepdims=True)
    used: list[np.ndarray] = []

    def feed(k: int, state: Any) -> dict[str, np.ndarray]:
        g = gradient(state["w"], h, c, bent)
        if noise == "gaussian":
            g = g + sigma * generator.normal(size=(d, seeds))
        if noise == "minibatch":
            g = g + sigma * data[:, generator.integers(0, 12, (2, seeds))].mean(axis=1)
        used.append(g)
        return {"g": g}

    program = plain.bind(**{"lr": 2.0**-7, "beta2": 0.99, **hyperparameters})
    precision = Precision.uniform(fmt, rounding).replace(store or {})
    start = {"w": c + generator.uniform(-0.3, 0.3, (d, seeds)), "m": np.zeros((d, seeds)), "v": np.zeros((d, seeds))}
    first = machine.run(program, precision, start, {}, steps // 2, every_step=feed, seed=seed)
    used.clear()
    result = machine.run(program, precision, first.end, {}, steps // 2, every_step=feed, seed=seed + 1)
    visited = [state["w"] for state in result.history]
    widest = np.max(result.max_abs["w"], axis=1)
    window = machine.window(
        result,
        optimizer="adam",
        hyperparameters={**program.hyperparameters, **({"sigma": sigma} if declare else {})},
        noise=noise,
        curvature=h[:, 0] if separable else None,
        smoothness=1.0,
        gradient_error=np.full(d, 2.0**-50),
        gradient_bound=h[:, 0] * np.minimum(widest + np.abs(c[:, 0]), 0.3247596 if bent else np.inf),
        loss_start=loss(visited[0], h, c, bent),
        loss_end=loss(visited[-1], h, c, bent),
        end_gradient=gradient(visited[-1], h, c, bent),
        squared_gradient=np.array([np.sum(gradient(w, h, c, bent) ** 2, axis=0) for w in visited[:-1]]),
    )
    return SimpleNamespace(window=window, history=result.history, g=np.array(used), h=h, c=c, bent=bent)


CASES: dict[str, dict[str, Any]] = {
    "quadratic": {},
    "bent": {"bent": True},
    "coupled": {"separable": False},
    "no momentum": {"beta1": 0.0},
    "much momentum": {"beta1": 0.97},
    "long steps": {"lr": 2.0**-3},
    "large eps": {"eps": 0.1},
    "one coordinate": {"d": 1, "seeds": 12},
}


def check_floor(theorem: Theorem, window: Window, *, applies: bool) -> None:
    """The bound is not violated where it applies, which it has to do if ``applies``."""
    bound = theorem.evaluate(window)
    if bound.applicable:
        assert verdict(theorem.measured(window), bound).status != "violated"
    else:
        assert not applies, bound.reason
