"""Matrix optimizers in plain NumPy float64, written from their formulas: what the methods compute in binary64.

A reference is a function (state, gradient, t, hyperparameters, draws) -> state, with t from 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

State = dict[str, np.ndarray]
Reference = Callable[[State, np.ndarray, int, dict[str, Any], State], State]


def newton_schulz(u: np.ndarray, p: dict[str, Any], steps: int = 5) -> np.ndarray:
    tall = u.shape[0] > u.shape[1]
    x = (u.T if tall else u) / (np.linalg.norm(u) + p["eps"])
    for _ in range(steps):
        gram = x @ x.T
        x = p["ns_a"] * x + (p["ns_b"] * gram + p["ns_c"] * gram @ gram) @ x
    return x.T if tall else x


def polar(u: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    left, s, right = np.linalg.svd(u, full_matrices=False)
    return left @ right if s[0] > 0 else np.zeros(u.shape)


def muon(direction: Callable[[np.ndarray, dict[str, Any]], np.ndarray]) -> Reference:
    def step(state: State, g: np.ndarray, t: int, p: dict[str, Any], draws: State) -> State:
        m = p["beta1"] * state["m"] + (1 - p["beta1"]) * g
        u = (1 - p["beta1"]) * g + p["beta1"] * m
        rows, columns = g.shape
        update = np.sqrt(max(1, rows / columns)) * direction(u, p)
        return {"w": (1 - p["lr"] * p["decay"]) * state["w"] - p["lr"] * update, "m": m}

    return step
