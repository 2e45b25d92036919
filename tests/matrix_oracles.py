"""Matrix optimizers of the package pytorch_optimizer, and what they computed: the table matrix_oracles.json.

``python tests/matrix_oracles.py`` writes the table anew. It needs ``pip install pytorch-optimizer==4.1.0``, which no
test does. Weights and gradients are seeded normal numbers in float64; so is the noise of Kron, in place of its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fpsim.optim import matrix
from fpsim.optim.matrix import MatrixMethod

TABLE = Path(__file__).with_name("matrix_oracles.json")
VERSION = "4.1.0"
SHAPE, STEPS = (5, 5), 20


@dataclass(frozen=True)
class Oracle:
    """Our method, theirs with the same numbers, how far apart the weights may be after ``STEPS`` steps, our numbers."""

    ours: MatrixMethod
    theirs: str
    options: dict[str, Any]
    tolerance: float
    values: dict[str, Any]


# SOAP's QR and Kron's triangular solves are in float32 there.
SCION = {"lr": 0.01, "scale": 3.0}
OURS = {"lr": 0.01, "radius": 3}
BALANCED = {"lr": 0.01, "weight_decay": 0.1, "balance_prob": 0.3, "precondition_dtype": "float64"}
ORACLES = {
    "soap": Oracle(matrix.soap(frequency=4), "SOAP", {"lr": 0.01, "precondition_frequency": 4}, 2e-7, {"lr": 0.01}),
    "kron": Oracle(matrix.kron(balance=0.3), "Kron", BALANCED, 2e-7, {"lr": 0.01, "decay": 0.1}),
    "scion_sign": Oracle(
        matrix.scion(norm="sign", constrained=True), "SCION", {**SCION, "norm_type": 4, "constraint": True}, 1e-14, OURS
    ),
    "scion_column": Oracle(matrix.scion(norm="column"), "SCION", {**SCION, "norm_type": 6}, 1e-14, OURS),
    "scion_row": Oracle(matrix.scion(norm="row"), "SCION", {**SCION, "norm_type": 7}, 1e-14, OURS),
}


def start() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE)


def step_inputs(step: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The gradient of a step, and the draws of Kron."""
    random = np.random.default_rng(1 + step)
    gradient, noise = random.standard_normal((2, *SHAPE))
    return gradient, {"noise": noise, "balance": np.asarray(random.random())}


@contextlib.contextmanager
def _drawn(draws: dict[str, np.ndarray]) -> Iterator[None]:
    """Their draws are ours."""
    import torch

    def noise(x: Any, dtype: Any = None) -> Any:
        return torch.tensor(draws["noise"]).to(dtype or x.dtype)

    with (
        mock.patch("torch.randn_like", noise),
        mock.patch("numpy.random.random", return_value=float(draws["balance"])),
    ):
        yield


def theirs(name: str) -> np.ndarray:
    """The weights after ``STEPS`` steps of the library."""
    import pytorch_optimizer
    import torch

    oracle = ORACLES[name]
    options = {key: getattr(torch, x) if key.endswith("dtype") else x for key, x in oracle.options.items()}
    w = torch.tensor(start(), requires_grad=True)
    optimizer = getattr(pytorch_optimizer, oracle.theirs)([w], **options)
    for step in range(STEPS):
        gradient, draws = step_inputs(step)
        w.grad = torch.tensor(gradient)
        with _drawn(draws):
            optimizer.step()
    return w.detach().numpy()


def main() -> None:
    rows = {name: [[float(f"{x:.17g}") for x in row] for row in theirs(name).tolist()] for name in ORACLES}
    about = f"weights after {STEPS} steps of pytorch-optimizer {VERSION} in float64; see matrix_oracles.py"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    TABLE.write_text(f'{{\n  "about": {json.dumps(about)},\n{lines}\n}}\n')


if __name__ == "__main__":
    main()
