"""Runs of RMSprop without noise on the toy machine, with their windows, for the tests of its theorems."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from rmsprop_runs import silent

from fpsim.formats import BINARY64
from fpsim.number_format import Format
from fpsim.optim import rmsprop
from fpsim.precision import Precision
from fpsim.program import Program
from fpsim.rounding import Rounding
from theory.window import Window


def train(
    machine: Any,
    fmt: Format,
    rounding: Rounding,
    *,
    program: Program = rmsprop,
    weights: Rounding = "nearest_even",
    lr: float = 2.0**-6,
    beta2: float = 0.9,
    eps: float = 1e-4,
    v: float = 0.0,
    steps: int = 300,
    error: float = 0.0,
    seed: int = 0,
) -> Window:
    """A separable quadratic; its gradient in the machine, or (error > 0) in binary64 with an adversarial error."""
    d, seeds = 4, 3
    generator = np.random.default_rng(seed)
    curvature, center = np.geomspace(0.2, 1.0, d), np.resize([4 / 3, -5 / 3], d)[:, None]
    h = curvature[:, None]
    given = program.bind(lr=lr, beta2=beta2, eps=eps)
    constants: dict[str, np.ndarray] = {}
    if not error:
        given = silent >> given
        constants = {"center": np.tile(center, seeds), "curvature": np.tile(h, seeds)}
    precision = Precision.uniform(fmt, rounding).replace(dict.fromkeys(constants, BINARY64))
    precision = precision.replace(dict.fromkeys((dict(given.outputs)["w"], "w"), (fmt, weights)))

    def feed(k: int, state: Any) -> dict[str, np.ndarray]:
        z = h * (state["w"] - center)
        return {"g": z - error * np.sign(z)} if error else {}

    start = {"w": center + generator.uniform(-0.4, 0.4, (d, seeds)), "v": np.full((d, seeds), v)}
    result = machine.run(given, precision, start, constants, steps, every_step=feed, seed=seed)
    visited = [state["w"] - center for state in result.history]
    moves = [np.sum((y - x) ** 2, axis=0) for x, y in itertools.pairwise(visited)]
    return machine.window(
        result, optimizer=program.name, curvature=curvature, smoothness=1.0, gradient_inside=not error,
        exact_constants=tuple(constants), gradient_error=np.full(d, 1.0001 * error),
        loss_start=np.sum(h * visited[0] ** 2 / 2, axis=0), loss_end=np.sum(h * visited[-1] ** 2 / 2, axis=0),
        squared_gradient=np.array([np.sum((h * z) ** 2, axis=0) for z in visited[:-1]]),
        samples={"squared_move": np.array(moves)},
    )  # fmt: skip


def one_coordinate(window: Window) -> Window:
    """The first coordinate alone."""
    kept = ("start", "end", "min_abs", "max_abs")
    return dataclasses.replace(
        window, dimension=1, curvature=window.curvature[:1], gradient_error=window.gradient_error[:1],
        gradient_bound=window.gradient_bound[:1],
        **{n: {k: x[:1] for k, x in getattr(window, n).items()} for n in kept},
    )  # fmt: skip
