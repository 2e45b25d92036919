"""Where eps stands in Adam of sums, as its docstring says: beside averages it counts as eps (1 - b2)/(1 - b2^t)."""

import numpy as np

import fpsim
from fpsim.optim import adam_sums


def test_sums_are_averages_with_another_eps() -> None:
    lr, beta1, beta2, eps, steps = 1e-3, 0.9, 0.99, 1e-3, 60
    gradients = 0.05 * np.random.default_rng(0).standard_normal((steps, 4, 1))
    program = adam_sums.bind(lr=lr, beta1=beta1, beta2=beta2, eps=eps)
    start = {name: np.zeros(4) for name in program.state}
    ran = fpsim.run(program, start, {"g": gradients}, fpsim.Precision.uniform("binary64"), steps=steps)
    w, m, v = np.zeros((3, 4))
    for t, g in enumerate(gradients[:, :, 0], start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        corrected = 1 - beta2**t
        w = w - lr * m / np.sqrt(v / corrected + eps * (1 - beta2) / corrected)
    np.testing.assert_allclose(ran.state["w"][:, 0], w, rtol=1e-12)
