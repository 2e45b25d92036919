"""Where a run to nearest rests: the largest step that leaves a weight where it is, and the gradient norm there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from theory.enclosure import Ball, ball, ends
from theory.rounding_model import gap_toward
from theory.theorem import Bound, Hypothesis
from theory.window import BoolArray, FloatArray, Window


def half_gaps(window: Window) -> FloatArray:
    """[d, S]: the largest |a_i| that can leave w_i where it is, w.sub and the storing of w both rounding."""
    w, fine, coarse = window.end["w"], window.slots["w.sub"][0], window.slots["w"][0]
    if coarse.holds(fine):
        return gap_toward(w, -window.end_gradient, fine) / 2
    further = 2 * np.abs(w) + coarse.smallest_normal
    return gap_toward(w, -window.end_gradient, coarse) / 2 + gap_toward(further, further, fine) / 2


def bound_at_rest(
    theorem: str, quantity: str, checks: Sequence[Hypothesis], squares: Sequence[Ball], covered: BoolArray
) -> Bound:
    """The bound of the seeds that rest.

    Parameters
    ----------
    squares : of the bound of every seed's gradient norm
    covered : [S], the seeds that rest, at least one
    """
    per_seed = np.array([ends(s.sqrt())[1] if ok else math.nan for s, ok in zip(squares, covered, strict=True)])
    mean = sum((s for s, ok in zip(squares, covered, strict=True) if ok), ball(0)) / int(covered.sum())
    lower, upper = ends(mean.sqrt())
    note = "" if covered.all() else f"{covered.sum()} of {len(covered)} seeds halted; the others are not covered"
    return Bound(theorem, quantity, tuple(checks), lower, upper, per_seed=per_seed, note=note)


def end_norm(window: Window) -> FloatArray:
    """Norm of the true gradient at the end of the window, [S]."""
    return np.asarray(np.sqrt(np.sum(window.end_gradient**2, axis=0)), dtype=np.float64)
