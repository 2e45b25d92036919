"""The optimizers in NumPy, line by line from their papers and independent of the programs: weights after each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray
Path = Iterator[Array]


def sgd(w: Array, gradients: Array, lr: float) -> Path:
    for g in gradients:
        w = w - lr * g
        yield w


def momentum(w: Array, gradients: Array, lr: float, beta1: float) -> Path:
    average = 0.0 * w
    for g in gradients:
        average = average + (1 - beta1) * (g - average)
        w = w - lr * average
        yield w


def heavy_ball(w: Array, gradients: Array, lr: float, beta1: float) -> Path:
    """Polyak, 1964: x_{k+1} = x_k - alpha grad f(x_k) + beta (x_k - x_{k-1})."""
    before = w
    for g in gradients:
        w, before = w - lr * g + beta1 * (w - before), w
        yield w


def nesterov(w: Array, gradients: Array, lr: float, beta1: float) -> Path:
    """Sutskever et al., 2013: v' = mu v - eps grad f(theta + mu v), theta' = theta + v'; given is theta + mu v."""
    theta, v = w, 0.0 * w
    for g in gradients:
        v = beta1 * v - lr * g
        theta = theta + v
        yield theta + beta1 * v


def sign_sgd(w: Array, gradients: Array, lr: float) -> Path:
    for g in gradients:
        w = w - lr * np.sign(g)
        yield w


def signum(w: Array, gradients: Array, lr: float, beta1: float) -> Path:
    m = 0.0 * w
    for g in gradients:
        m = beta1 * m + (1 - beta1) * g
        w = w - lr * np.sign(m)
        yield w


def lion(w: Array, gradients: Array, lr: float, beta1: float, beta2: float, weight_decay: float) -> Path:
    """Chen et al., 2023, Program 1."""
    momentum = 0.0 * w
    for g in gradients:
        update = np.sign(beta1 * momentum + (1 - beta1) * g)
        momentum = beta2 * momentum + (1 - beta2) * g
        w = w - lr * (update + weight_decay * w)
        yield w


def adagrad(w: Array, gradients: Array, lr: float, eps: float) -> Path:
    """Duchi et al., 2011: the sum of all squares so far."""
    for k, g in enumerate(gradients):
        w = w - lr * g / (eps + np.linalg.norm(gradients[: k + 1], axis=0))
        yield w


def rmsprop(w: Array, gradients: Array, lr: float, beta2: float, eps: float) -> Path:
    mean_square = 0.0 * w
    for g in gradients:
        mean_square = beta2 * mean_square + (1 - beta2) * g**2
        w = w - lr * g / (np.sqrt(mean_square) + eps)
        yield w


def rmsprop_centered(w: Array, gradients: Array, lr: float, beta2: float, eps: float) -> Path:
    """Graves, 2013, equations (38)-(41), with eps outside the root and no momentum."""
    n, mean = 0.0 * w, 0.0 * w
    for gradient in gradients:
        n = beta2 * n + (1 - beta2) * gradient**2
        mean = beta2 * mean + (1 - beta2) * gradient
        w = w - lr * gradient / (np.sqrt(n - mean**2) + eps)
        yield w


def _moments(gradients: Array, beta1: float, beta2: float) -> Iterator[tuple[int, Array, Array]]:
    """t, and the sums that the averages are: (1 - beta) sum of beta^(t - i) g_i, and of its squares."""
    for t in range(1, len(gradients) + 1):
        one = (1 - beta1) * beta1 ** np.arange(t)[::-1]
        two = (1 - beta2) * beta2 ** np.arange(t)[::-1]
        yield t, np.tensordot(one, gradients[:t], 1), np.tensordot(two, gradients[:t] ** 2, 1)


def adam(w: Array, gradients: Array, lr: float, beta1: float, beta2: float, eps: float) -> Path:
    """Kingma and Ba, 2015, Algorithm 1."""
    for t, m, v in _moments(gradients, beta1, beta2):
        w = w - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        yield w


def adam_sums(w: Array, gradients: Array, lr: float, beta1: float, beta2: float, eps: float) -> Path:
    """Defossez et al., 2022: weighted sums, alpha_n = alpha (1 - beta1) sqrt((1 - beta2^n)/(1 - beta2))."""
    for n, m, v in _moments(gradients, beta1, beta2):
        alpha = lr * (1 - beta1) * np.sqrt((1 - beta2**n) / (1 - beta2))
        w = w - alpha * (m / (1 - beta1)) / np.sqrt(eps + v / (1 - beta2))
        yield w


def adamw(w: Array, gradients: Array, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> Path:
    """Loshchilov and Hutter, 2019, Algorithm 2, line 12, with eta_t = lr and alpha = 1."""
    for t, m, v in _moments(gradients, beta1, beta2):
        w = w - lr * ((m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * w)
        yield w


def amsgrad(w: Array, gradients: Array, lr: float, beta1: float, beta2: float, eps: float) -> Path:
    """Reddi et al., 2018, Algorithm 2, with eps."""
    largest = 0.0 * w
    for _, m, v in _moments(gradients, beta1, beta2):
        largest = np.maximum(largest, v)
        w = w - lr * m / (np.sqrt(largest) + eps)
        yield w


def nadam(w: Array, gradients: Array, lr: float, beta1: float, beta2: float, eps: float, momentum_decay: float) -> Path:
    """Dozat, 2016, Algorithm 2, with the product of all mu written out."""
    mu = [beta1 * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(1, len(gradients) + 2)]
    m = 0.0 * w
    for t, _, n in _moments(gradients, 0.0, beta2):
        g, now, following = gradients[t - 1], mu[t - 1], mu[t]
        m = now * m + (1 - now) * g
        ahead = following * m / (1 - np.prod(mu[: t + 1])) + (1 - now) * g / (1 - np.prod(mu[:t]))
        w = w - lr * ahead / (np.sqrt(n / (1 - beta2**t)) + eps)
        yield w


def adafactor(w: Array, gradients: Array, **settings: float) -> Path:
    """Shazeer and Stern, 2018, Algorithm 4."""
    R, C = np.zeros(w.shape[0]), np.zeros(w.shape[1])
    ones = np.ones(w.shape[1]), np.ones(w.shape[0])
    for t, g in enumerate(gradients, 1):
        beta = 1 - t ** -settings["decay"]
        R = beta * R + (1 - beta) * (g**2 + settings["eps1"]) @ ones[0]
        C = beta * C + (1 - beta) * ones[1] @ (g**2 + settings["eps1"])
        w = _relative(w, g / np.sqrt(np.outer(R, C) / (ones[1] @ R)), t, **settings)
        yield w


def adafactor_vector(w: Array, gradients: Array, **settings: float) -> Path:
    """Shazeer and Stern, 2018, Algorithm 5."""
    v = 0.0 * w
    for t, g in enumerate(gradients, 1):
        beta = 1 - t ** -settings["decay"]
        v = beta * v + (1 - beta) * (g**2 + settings["eps1"])
        w = _relative(w, g / np.sqrt(v), t, **settings)
        yield w


def _relative(w: Array, u: Array, t: int, lr: float, eps2: float, threshold: float, **_: Any) -> Array:
    def rms(x: Array) -> float:
        return float(np.sqrt(np.mean(x**2)))

    rho = min(lr, 1 / np.sqrt(t))
    return w - max(eps2, rms(w)) * rho * u / max(1.0, rms(u) / threshold)
