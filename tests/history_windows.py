"""Windows with a history, made from runs of the machine itself with given gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from window_fields import window_with

import fpsim
from fpsim.precision import Precision, scalar_values
from fpsim.program import Program
from fpsim.random_bits import Key
from theory.window import Window


def recorded(
    program: Program,
    precision: Precision,
    start: Mapping[str, np.ndarray],
    gradients: np.ndarray,
    *,
    also: Sequence[str] = (),
    seed: int = 0,
    first: int = 0,
    **fields: Any,
) -> Window:
    """Run a step with gradients [n, d, S]; the history holds the states, g and what ``also`` names, from step ``first``
    on. The window is the recorded part."""
    state = {name: np.broadcast_to(start[name], gradients.shape[1:]) for name in program.state}
    watched = tuple(dict.fromkeys((*program.state, "g", *also)))
    key, options = Key(seed), {"record": watched, "events": True}
    begun = fpsim.run(program, state, {"g": gradients[:first]}, precision, key, steps=first).state
    steps = len(gradients) - first
    result = fpsim.run(
        program, begun, {"g": gradients[first:]}, precision, key, steps=steps, first_step=first, **options
    )
    history = {name: result.records[name] for name in watched}
    history |= {name: np.concatenate([begun[name][np.newaxis], history[name]]) for name in program.state}
    columns = scalar_values(program, precision, range(1))
    slots = precision.resolve(program)
    counts = {
        kind: {slot: result.events[slot][kind] if slot in result.events else 0 for slot in slots}
        for kind in ("underflow", "overflow", "invalid")
    }
    d, seeds = gradients.shape[1:]
    values: dict[str, Any] = {
        "slots": slots,
        "scalars": {s.name: float(columns[s.name].flat[0]) for s in program.scalars if not program.varies(s)},
        "first_step": first,
        "steps": steps,
        "start": begun,
        "end": result.state,
        "min_abs": {name: np.min(np.abs(x), axis=0) for name, x in history.items()},
        "max_abs": {name: np.max(np.abs(x), axis=0) for name, x in history.items()},
        **counts,
        "history": history,
        "history_first": first,
    }
    return window_with(program, d, seeds, **{**values, **fields})
