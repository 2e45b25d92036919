"""Where a run to nearest rests: the largest step that leaves a weight where it is, and what underflow adds to it."""

from __future__ import annotations

import numpy as np
import sympy as sp
from flint import arb

from theory.composition import eta, model_values
from theory.enclosure import Ball, evaluate
from theory.rounding_model import gap_toward
from theory.window import FloatArray, Window


def absolute_part(window: Window, absolute: sp.Expr, underflow_slots: tuple[str, ...]) -> Ball:
    """The underflow part of a composed value, with the measured sizes; 0 where nothing underflowed."""
    # a slot without a count may have underflowed
    happened = [slot for slot in underflow_slots if window.underflow.get(slot, 1)]
    expression = absolute.subs({eta(slot): 0 for slot in underflow_slots if slot not in happened})
    names = {str(unknown).partition("[")[2].removesuffix("]") for unknown in expression.free_symbols}
    values: dict[sp.Symbol, Ball] = dict(model_values(window.slots, {n for n in names if n in window.slots}))
    for unknown in sorted(expression.free_symbols - set(values), key=str):
        kind, _, name = str(unknown).rstrip("]").partition("[")
        if str(unknown).startswith("scalar."):
            values[unknown] = window.scalars[str(unknown)]
        elif name in window.max_abs:
            values[unknown] = np.max(window.max_abs[name]) if kind == "size" else np.min(window.min_abs[name])
        else:
            return arb.pos_inf()
    return evaluate(expression, values)


def half_gaps(window: Window) -> FloatArray:
    """[d, S]: the largest |a_i| that can leave w_i where it is, w.sub and the storing of w both rounding."""
    w, fine, coarse = window.end["w"], window.slots["w.sub"][0], window.slots["w"][0]
    if coarse.holds(fine):
        return gap_toward(w, -window.end_gradient, fine) / 2
    further = 2 * np.abs(w) + coarse.smallest_normal
    return gap_toward(w, -window.end_gradient, coarse) / 2 + gap_toward(further, further, fine) / 2
