"""The record that a run is expected to leave, so that theorems can be asked before there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.advise.machine import Machine
from fpsim.precision import scalar_values
from theory.window import Window

Array = npt.NDArray[np.float64]

SETTLED = 1 << 20  # a step in which bias corrections are 1


def window(machine: Machine, w: Array, states: Mapping[str, Array], g: Array, **more: Any) -> Window:
    """A window of one weight and S runs in which nothing but what is given is known.

    Parameters
    ----------
    w, g, states : [S] each: the weights, |g|, and the other states at the start and at the end
    more : fields of the window that differ: steps, noise, curvature, extremes, history
    """
    program, slots = machine.program, machine.slots
    rows = {"w": w, **{name: states.get(name, np.zeros_like(w)) for name in program.state if name != "w"}, "g": g}
    rows = {name: x.reshape(1, -1) for name, x in rows.items()}
    seeds, steps, first = rows["w"].shape[1], more.get("steps", 1), more.get("first_step", SETTLED)
    curvature = float(more.pop("curvature", 1.0))
    state = {name: rows[name] for name in program.state}
    varying = [s.name for s in program.scalars if program.varies(s)]
    known = scalar_values(program, machine.precision, range(first - 1, first + steps)) if varying else {}
    fields: dict[str, Any] = {
        "optimizer": machine.setting.optimizer,
        "program": program,
        "slots": slots,
        "scalars": {x.name: x.effective for x in machine.scalars if x.name not in varying},
        "hyperparameters": dict(program.hyperparameters),
        "dimension": 1,
        "smoothness": curvature,
        "strong_convexity": curvature,
        "curvature": np.array([curvature]),
        "hessian": np.array([curvature]),
        "hessian_diagonal": np.array([curvature]),
        "box": None,
        "gradient_inside": False,
        "gradient_error": np.zeros(1),
        "gradient_bound": np.array([float(np.max(g))]),
        "noise": "sequence",
        "first_step": first,
        "steps": steps,
        "start": state,
        "end": state,
        "loss_start": np.zeros(seeds),
        "loss_end": np.zeros(seeds),
        "min_abs": {name: np.abs(x) for name, x in rows.items()},
        "max_abs": {name: np.abs(x) for name, x in rows.items()},
        **{kind: dict.fromkeys(slots, 0) for kind in ("underflow", "overflow", "invalid")},
        "halted": np.zeros(seeds, dtype=np.bool_),
        "end_gradient": np.zeros((1, seeds)),
        "squared_gradient": np.zeros((1, seeds)),
        "step_ratio": np.zeros(seeds),
        "stationary": True,
        "changing": {name: known[name] for name in varying},
    }
    return Window(**(fields | more))


def steady(machine: Machine, w: Array, m: Array, v: Array, g: Array) -> Window:
    """One step, its moments before and after it recorded."""
    states = {"m": m, "v": v}
    history = {name: np.tile(x.reshape(1, 1, -1), (2, 1, 1)) for name, x in states.items()}
    history = {name: x for name, x in history.items() if name in machine.program.state}
    history["g"] = g.reshape(1, 1, -1)
    return window(machine, w, states, g, history=history, history_first=SETTLED)
