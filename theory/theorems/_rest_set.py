"""Where a run to nearest rests: the largest step that leaves a weight where it is."""

from __future__ import annotations

import numpy as np

from theory.rounding_model import gap_toward
from theory.window import FloatArray, Window


def half_gaps(window: Window) -> FloatArray:
    """[d, S]: the largest |a_i| that can leave w_i where it is, w.sub and the storing of w both rounding."""
    w, fine, coarse = window.end["w"], window.slots["w.sub"][0], window.slots["w"][0]
    if coarse.holds(fine):
        return gap_toward(w, -window.end_gradient, fine) / 2
    further = 2 * np.abs(w) + coarse.smallest_normal
    return gap_toward(w, -window.end_gradient, coarse) / 2 + gap_toward(further, further, fine) / 2
