"""Windows of which a test gives only what it is about."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fpsim.program import Program
from theory.window import Window


def window_with(program: Program, d: int, seeds: int, **fields: Any) -> Window:
    """A window of a program; every field that is not given is set to something harmless.

    ``slots``, ``scalars``, ``steps``, ``start``, ``end``, ``underflow``, ``max_abs`` and ``min_abs`` have to be given.
    """
    known = {field.name for field in dataclasses.fields(Window)}
    assert set(fields) <= known, set(fields) - known
    harmless: dict[str, Any] = {
        "optimizer": program.name,
        "hyperparameters": program.hyperparameters,
        "dimension": d,
        "smoothness": 1.0,
        "strong_convexity": 0.0,
        "curvature": None,
        "box": None,
        "gradient_inside": False,
        "gradient_error": np.zeros(d),
        "gradient_bound": np.full(d, np.inf),
        "noise": "none",
        "first_step": 0,
        "loss_start": np.zeros(seeds),
        "loss_end": np.zeros(seeds),
        "overflow": {},
        "invalid": {},
        "halted": np.zeros(seeds, dtype=np.bool_),
        "end_gradient": np.zeros((d, seeds)),
        "squared_gradient": np.zeros((1, seeds)),
    }
    return Window(program=program, **{**harmless, **fields})
