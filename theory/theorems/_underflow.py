"""The absolute part that composition leaves where something underflowed, as a number for one window."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import sympy as sp
from flint import arb

from theory.composition import eta, model_values
from theory.enclosure import Ball, evaluate
from theory.window import Window


def absolute_part(window: Window, absolute: sp.Expr, underflow_slots: Collection[str]) -> Ball:
    """``absolute`` of a ``Factor`` or ``Composed`` with the measured sizes; 0 where nothing underflowed.

    Parameters
    ----------
    underflow_slots : slots whose eta may occur in it

    Returns
    -------
    ball; infinite where a size that it needs was not recorded
    """
    # a slot without a count may have underflowed
    happened = [slot for slot in underflow_slots if window.underflow.get(slot, 1)]
    expression = absolute.subs({eta(slot): 0 for slot in underflow_slots if slot not in happened})
    names = {str(unknown).partition("[")[2].removesuffix("]") for unknown in expression.free_symbols}
    values: dict[sp.Symbol, Ball] = dict(model_values(window.slots, {name for name in names if name in window.slots}))
    for unknown in sorted(expression.free_symbols - set(values), key=str):
        kind, _, name = str(unknown).rstrip("]").partition("[")
        if str(unknown).startswith("scalar."):
            if str(unknown) not in window.scalars:
                return arb.pos_inf()
            values[unknown] = window.scalars[str(unknown)]
        elif name in window.max_abs:
            values[unknown] = np.max(window.max_abs[name]) if kind == "size" else np.min(window.min_abs[name])
        else:
            return arb.pos_inf()
    return evaluate(expression, values)
