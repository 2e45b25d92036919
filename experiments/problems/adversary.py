"""An adversary who sees the state and picks each gradient so that the roundings of the step err in one direction.

What is picked feeds a run, so it is computed in binary64 + - * and roundings of our own alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

import fpsim
from experiments.problems.base import Array, Moment, quiet
from fpsim.number_format import Format
from fpsim.rounding import Rounding, Stochastic

Slots: TypeAlias = Mapping[str, tuple[Format, Rounding]]

CHOICES = 12


@quiet
def pushed(moment: Moment, size: Array, shares: Array, sign: int, out: Array) -> None:
    """The gradients of one step.

    Parameters
    ----------
    size : [d, n], smallest modulus and sign of each gradient; it may double
    shares : [d, n] in (0, 1), where the choices begin
    sign : 1 to push what is stored up, -1 down
    out : [d, blocks * n]

    Notes
    -----
    Of a second moment, the rounded sum and the decay of the next step count together; of a first moment the same,
    away from zero; of weights alone, the step that is taken.
    """
    step = (1.0 + (shares[..., None] + np.arange(CHOICES)) / CHOICES) * size[..., None]
    for block, slots in enumerate(moment.slots):
        scalars, read = moment.scalars[block], lambda name, b=block: moment.of(b, moment.state(name))[..., None]
        if {"v.decay", "v.square", "v.inject", "v.add"} <= set(slots) and "scalar.beta2" in scalars:
            score = _moment_error(read("v"), step, slots, scalars, "v", "beta2")
        elif {"m.decay", "m.inject", "m.add"} <= set(slots) and "scalar.beta1" in scalars:
            score = _moment_error(read("m"), step, slots, scalars, "m", "beta1") * np.sign(read("m"))
        elif {"update.scale", "w.sub"} <= set(slots) and "scalar.lr" in scalars:
            score = _step_error(read("w"), step, slots, scalars["scalar.lr"])
        else:
            score = shares[..., None] * np.zeros(CHOICES)
        best = np.argmax(np.where(np.isnan(score), -np.inf, sign * score), axis=-1)
        moment.of(block, out)[:] = np.take_along_axis(step, best[..., None], axis=-1)[..., 0]


def _moment_error(old: Array, g: Array, slots: Slots, scalars: Mapping[str, float], of: str, beta: str) -> Array:
    """Relative error of the new moment, plus that of its decay in the next step."""
    keep, add = scalars[f"scalar.{beta}"], scalars[f"scalar.one_minus_{beta}"]
    given = _round(g, slots["g"])
    decayed, square = _round(keep * old, slots[f"{of}.decay"]), given * given if of == "v" else given
    stored = _round(square, slots["v.square"]) if of == "v" else square
    new = _round(decayed + _round(add * stored, slots[f"{of}.inject"]), slots[f"{of}.add"])
    exact, after = keep * old + add * square, keep * new
    return np.asarray((new - exact) / np.abs(exact) + (_round(after, slots[f"{of}.decay"]) - after) / np.abs(after))


def _step_error(w: Array, g: Array, slots: Slots, lr: float) -> Array:
    moved = _round(lr * _round(g, slots["g"]), slots["update.scale"])
    return np.asarray(_round(w - moved, slots["w.sub"]) - (w - lr * g))


def _round(x: Array, slot: tuple[Format, Rounding]) -> Array:
    """To the slot's format; to nearest where it rounds stochastically: the adversary does not see the random bits."""
    fmt, mode = slot
    return np.asarray(fpsim.round(x, fmt, "nearest_even" if isinstance(mode, Stochastic) else mode))
