"""Gradient sequences for a moving average: random ones, and ones that make each rounding err to one side."""

from __future__ import annotations

import numpy as np

import fpsim
from fpsim.number_format import Format


def random_gradients(kind: str, steps: int, d: int, seeds: int) -> np.ndarray:
    """``normal``, ``lognormal``, ``constant`` sizes, ``falling`` or ``rising`` by a factor of 16; [steps, d, seeds]."""
    draw = np.random.default_rng(0)
    g = draw.normal(size=(steps, d, seeds))
    if kind == "lognormal":
        g = np.clip(g * np.exp(draw.normal(size=g.shape)), -16, 16)  # its square is a number of every format
    elif kind == "constant":
        g = np.sign(g) * np.exp2(draw.uniform(-1, 1, size=(1, d, seeds)))
    elif kind in ("falling", "rising"):
        g *= np.geomspace(4, 0.25, steps)[:: 1 if kind == "falling" else -1, None, None]
    return g


def adversarial_gradients(
    fmt: Format, decay: float, inject: float, power: int, sign: float, steps: int, d: int, seed: int = 0
) -> np.ndarray:
    """Greedy: of many candidates each step takes the gradient after which the error, relative to the exact moving
    average, is largest in the direction ``sign``. To nearest, product and sum rounded one by one. [steps, d, 1]."""
    draw = np.random.default_rng(seed)
    x, r = np.zeros(d), np.zeros(d)
    chosen = np.empty((steps, d, 1))
    spread = 0.02 * 75.0 ** np.linspace(0, 1, 1024)  # octaves: near ones keep v in its binade, far ones change it
    for k in range(steps):
        candidates = fpsim.round(4 * np.exp2(spread * draw.uniform(-1, 1, size=(d, 1024))), fmt)
        q = candidates if power == 1 else fpsim.mul(candidates, candidates, fmt)
        kept = fpsim.mul(np.broadcast_to(x[:, None], q.shape), decay, fmt)
        following = fpsim.add(kept, fpsim.mul(q, inject, fmt), fmt)
        exact = decay * r[:, None] + inject * candidates**power
        best = np.argmax(sign * (following - exact) / exact, axis=1)
        rows = np.arange(d)
        chosen[k, :, 0], x, r = candidates[rows, best], following[rows, best], exact[rows, best]
    return chosen
