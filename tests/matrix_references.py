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


def _inverse_root(x: np.ndarray, eps: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(x + eps * np.eye(len(x)))
    if values[0] < eps:
        values = values - values[0] + eps
    return vectors @ np.diag(values**-0.25) @ vectors.T


def shampoo(frequency: int) -> Reference:
    def step(state: State, g: np.ndarray, t: int, p: dict[str, Any], draws: State) -> State:
        b1, b2, eps = p["beta1"], p["beta2"], p["eps"]
        left = b2 * state["left"] + (1 - b2) * g @ g.T
        right = b2 * state["right"] + (1 - b2) * g.T @ g
        v = b2 * state["v"] + (1 - b2) * g**2
        m = b1 * state["m"] + (1 - b1) * g
        roots = state["left_root"], state["right_root"]
        if t % frequency == 0:
            roots = _inverse_root(left / (1 - b2**t), eps), _inverse_root(right / (1 - b2**t), eps)
        m_hat = m / (1 - b1**t)
        u = m_hat / (np.sqrt(v / (1 - b2**t)) + eps)
        if t >= frequency:
            z = roots[0] @ m_hat @ roots[1]
            u = z * np.linalg.norm(u) / (np.linalg.norm(z) + p["tiny"])
        w = state["w"] - p["lr"] * (u + p["decay"] * state["w"])
        return {"w": w, "m": m, "v": v, "left": left, "right": right, "left_root": roots[0], "right_root": roots[1]}

    return step


def soap(frequency: int) -> Reference:
    def step(state: State, g: np.ndarray, t: int, p: dict[str, Any], draws: State) -> State:
        b1, b2, s = p["beta1"], p["beta2"], t - 1
        w, m, v = state["w"], state["m"], state["v"]
        bases = [state["left_basis"], state["right_basis"]]
        if s:
            rotated = bases[0].T @ g @ bases[1]
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * rotated**2
            normalized = (bases[0].T @ m @ bases[1]) / (np.sqrt(v) + p["eps"])
            w = w - p["lr"] * np.sqrt(1 - b2**s) / (1 - b1**s) * (bases[0] @ normalized @ bases[1].T)
            w = w * (1 - p["lr"] * p["decay"])
        factors = [b2 * state["left"] + (1 - b2) * g @ g.T, b2 * state["right"] + (1 - b2) * g.T @ g]
        for axis, factor in enumerate(factors):
            if not s:
                bases[axis] = np.linalg.eigh(factor)[1][:, ::-1]
            elif s % frequency == 0:
                estimates = np.diag(bases[axis].T @ factor @ bases[axis])
                order = np.argsort(-estimates)
                v = np.take(v, order, axis)
                bases[axis] = np.linalg.qr(factor @ bases[axis][:, order])[0]
        return {
            "w": w, "m": m, "v": v, "left": factors[0], "right": factors[1],
            "left_basis": bases[0], "right_basis": bases[1],
        }  # fmt: skip

    return step


def _spectral(d: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    return newton_schulz(d, p) * np.sqrt(d.shape[0] / d.shape[1])


LMO: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "spectral": _spectral,
    "sign": lambda d, p: np.sign(d) / d.shape[1],
    "column": lambda d, p: d / (np.sqrt(np.mean(d**2, axis=0, keepdims=True)) + p["eps"]),
    "row": lambda d, p: d / (np.linalg.norm(d, axis=1, keepdims=True) * np.sqrt(d.shape[1]) + p["eps"]),
}


def scion(norm: str, constrained: bool = False) -> Reference:
    def step(state: State, g: np.ndarray, t: int, p: dict[str, Any], draws: State) -> State:
        d = (1 - p["alpha"]) * state["d"] + p["alpha"] * g
        w = (1 - p["lr"]) * state["w"] if constrained else state["w"]
        return {"w": w - p["lr"] * p["radius"] * LMO[norm](d, p), "d": d}

    return step


def _bound(x: np.ndarray) -> float:
    top = np.abs(x).max()
    x = x / top
    c = x[:, np.argmax(np.sum(x**2, axis=0))] @ x
    return float(top * np.linalg.norm(x @ (c / np.linalg.norm(c))))


def kron(balance: float) -> Reference:
    """With an update of the factors in every step: t <= 501."""

    def step(state: State, g: np.ndarray, t: int, p: dict[str, Any], draws: State) -> State:
        m = p["beta1"] * state["m"] + (1 - p["beta1"]) * g
        m_hat = m / (1 - p["beta1"] ** t)
        q1, q2 = state["left"], state["right"]
        if draws["balance"] <= balance:
            tops = np.abs(q1).max(), np.abs(q2).max()
            q1, q2 = (q * np.sqrt(tops[0] * tops[1]) / top for q, top in zip((q1, q2), tops, strict=True))
        a = q1 @ m_hat @ q2.T
        b = np.linalg.inv(q1).T @ draws["noise"] @ np.linalg.inv(q2)
        new = []
        for q, x, y in ((q1, a @ a.T, b @ b.T), (q2, a.T @ a, b.T @ b)):
            new.append(q - np.triu(p["factor_lr"] * (x - y)) / (_bound(x + y) + p["tiny"]) @ q)
        q1, q2 = new
        u = q1.T @ q1 @ m_hat @ q2.T @ q2
        u = u * min(1.0, p["clip"] / (np.sqrt(np.mean(u**2)) + p["clip_eps"]))
        w = state["w"] - p["lr"] * (u + p["decay"] * state["w"])
        return {"w": w, "m": m, "left": q1, "right": q2}

    return step
