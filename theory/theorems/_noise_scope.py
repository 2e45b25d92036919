"""Hypotheses that the theorems about stochastic gradients share."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fpsim.rounding import is_nearest
from theory.rounding_model import shrinks
from theory.theorem import Hypothesis, stored_scalar
from theory.window import Window


def nearest_or_shrinking(window: Window, slots: Iterable[str]) -> Hypothesis:
    """The named slots round to nearest, or stochastically so that the mean is never too large."""
    modes = {s: window.slots[s][1] for s in slots}
    other = [f"{s}: {mode}" for s, mode in modes.items() if not (is_nearest(mode) or shrinks(mode))]
    return Hypothesis("round to nearest or stochastic, variant A", not other, ", ".join(other))


def preconditioner_scalars(window: Window) -> tuple[Hypothesis, ...]:
    """beta2, 1 - beta2, eps and lr as they are stored."""
    kept, injection, eps, lr = (
        window.scalars.get(f"scalar.{name}", math.nan) for name in ("beta2", "one_minus_beta2", "eps", "lr")
    )
    return (
        Hypothesis("0 < stored beta2 <= 1", 0 < kept <= 1, stored_scalar(window, "beta2")),
        Hypothesis("stored 1 - beta2 > 0", injection > 0, stored_scalar(window, "one_minus_beta2")),
        Hypothesis(
            "constant eps >= 0 and lr > 0",
            eps >= 0 and 0 < lr < math.inf,
            f"{stored_scalar(window, 'eps')}, {stored_scalar(window, 'lr')}",
        ),
    )


def mean_zero(window: Window) -> tuple[Hypothesis, Hypothesis]:
    """The noise has the mean zero, given the weights."""
    return (
        Hypothesis("noise of mean zero", window.noise in ("none", "gaussian", "minibatch"), window.noise),
        Hypothesis(
            "minibatches are drawn outside the program", window.noise != "minibatch" or not window.gradient_inside
        ),
    )
