"""Gradients that are given: functions of step, coordinate and run, or of an adversary who sees the state. No objective.

Theorems about single steps and about every gradient sequence are held against them; where a run settles means nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from experiments import recipes
from experiments.problems.adversary import pushed
from experiments.problems.base import Array, Moment, Problem, checked_integer, checked_real
from experiments.streams import folded, run_numbers, uniform
from fpsim.random_bits import Key, philox4x32

SEQUENCE = 0x53455155  # "SEQU", the key of what these gradients draw


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Sequence(Problem):
    """See ``sequence``."""

    kind: str
    scale: float
    ratio: float
    period: int

    def given(self, moment: Moment, out: Array) -> Array:
        KINDS[self.kind](self, moment, out)
        return out

    def gradient(self, w: Array, out: Array | None = None) -> Array:
        """NaN: there is no objective."""
        out = self._arrays(w, out)
        out[:] = np.nan
        return out

    def gradient_error(self, w_abs_max: Array) -> Array:
        return np.zeros(self.dimension)

    def gradient_bound(self, w_abs_max: Array) -> Array:
        return np.full(self.dimension, np.inf)

    def loss_gap(self, w: Array) -> Array:
        return np.full(w.shape[1], np.nan)

    def sizes(self, moment: Moment) -> Array:
        """[d, n]: scale times a number in (1, 2) of the coordinate and the run, of changing sign."""
        size = self.scale * (1.5 + 0.5 * uniform(folded(moment.key, SEQUENCE), self.dimension, moment.runs))
        size[1::2] *= -1.0
        return size

    def normal(self, moment: Moment) -> Array:
        """[d, n], scale times independent normal variates."""
        out = np.empty((1, self.dimension, len(moment.runs)))
        steps = range(moment.step, moment.step + 1)
        recipes.gaussian(folded(moment.key, SEQUENCE), steps, self.dimension, moment.runs, self.scale, out)
        return out[0]

    def shares(self, moment: Moment) -> Array:
        """[d, n], independent uniform numbers in (0, 1), 32 bits each."""
        element, runs = np.arange(self.dimension)[:, None], run_numbers(moment.runs)[None, :]
        step = np.uint64(moment.step)
        word = philox4x32(element, step & 0xFFFFFFFF, runs, step >> np.uint64(32), _second(moment.key))[0]
        return np.asarray((word + 0.5) * 2.0**-32)


@functools.lru_cache(maxsize=64)
def _second(key: Key) -> Key:
    return folded(key, SEQUENCE).fold(1)


def _spread(moment: Moment, of_block: Array, out: Array) -> None:
    """The same in every block."""
    out[:] = np.tile(of_block, (1, moment.blocks))


def _constant(of: Sequence, moment: Moment, out: Array) -> None:
    _spread(moment, of.sizes(moment), out)


def _alternating(of: Sequence, moment: Moment, out: Array) -> None:
    _spread(moment, of.sizes(moment) * (-1.0) ** (moment.step % 2), out)


def _normal(of: Sequence, moment: Moment, out: Array) -> None:
    _spread(moment, of.normal(moment), out)


def _heavy(of: Sequence, moment: Moment, out: Array) -> None:
    """Normal over the root of a uniform number: tails fall as the inverse square."""
    _spread(moment, of.normal(moment) / np.sqrt(of.shares(moment)), out)


def _sparse(of: Sequence, moment: Moment, out: Array) -> None:
    """Normal in one step of ``period`` on average, else 0."""
    _spread(moment, np.where(of.shares(moment) * of.period < 1.0, of.normal(moment), 0.0), out)


def _stop(of: Sequence, moment: Moment, out: Array) -> None:
    """Normal for ``period`` steps, then 0 for ever: what is stored decays, or does not."""
    _spread(moment, of.normal(moment) if moment.step < of.period else np.zeros((of.dimension, len(moment.runs))), out)


def _tiny(of: Sequence, moment: Moment, out: Array) -> None:
    """Normal, of the size whose square is the smallest normal number of v.square's format or of g's."""
    for block, slots in enumerate(moment.slots):
        fmt = slots.get("v.square", slots["g"])[0]
        border = float(fmt.smallest_normal)
        size = np.sqrt(border) if "v.square" in slots else border
        moment.of(block, out)[:] = size * of.normal(moment)


def _geometric(of: Sequence, moment: Moment, out: Array) -> None:
    """Powers of the ratio that fall to the first over a period and begin again: a ratio below 1 gives growth.

    With the ratio beta1/beta2 of the stored values it is what makes |m|/sqrt(v) largest.
    """
    for block in range(moment.blocks):
        ratio = of.ratio or stored_ratio(moment, block)
        power = _powers(ratio, of.period)[of.period - 1 - moment.step % of.period]
        moment.of(block, out)[:] = power * of.sizes(moment)


def stored_ratio(moment: Moment, block: int) -> float:
    """beta1/beta2 of the values stored in a block; 1/2 for a step that has not both."""
    scalars = moment.scalars[block]
    below = scalars.get("scalar.beta2", 0.0)
    return scalars.get("scalar.beta1", 0.0) / below or 0.5 if below else 0.5


@functools.lru_cache(maxsize=64)
def _powers(ratio: float, count: int) -> Array:
    """1, ratio, ratio^2, ..: each the rounded product of the one before."""
    return np.multiply.accumulate(np.concatenate([[1.0], np.full(count - 1, ratio)]))


def _push(sign: int, of: Sequence, moment: Moment, out: Array) -> None:
    """Of a few sizes within a factor of 2, the one that rounding errs most upwards or downwards with."""
    size, shares = of.sizes(moment), of.shares(moment)
    pushed(moment, np.sign(size) * of.scale, shares, sign, out)


KINDS: dict[str, Callable[[Sequence, Moment, Array], None]] = {
    "constant": _constant,
    "alternating": _alternating,
    "normal": _normal,
    "heavy": _heavy,
    "sparse": _sparse,
    "stop": _stop,
    "tiny": _tiny,
    "geometric": _geometric,
    "up": functools.partial(_push, 1),
    "down": functools.partial(_push, -1),
}


def sequence(
    dimension: int = 32,
    *,
    kind: str = "normal",
    scale: float = 1.0,
    ratio: float = 0.0,
    period: int = 64,
    start: float = 0.125,
) -> Sequence:
    """A gradient sequence.

    Parameters
    ----------
    dimension : 1..2^16
    kind : ``constant``, ``alternating`` (in sign), ``normal``, ``heavy`` (tails as the inverse square), ``sparse``
        (one step in ``period``), ``stop`` (normal, and 0 from step ``period`` on), ``tiny`` (at the border of
        underflow), ``geometric``, ``up``, ``down`` (each gradient chosen so that the step's roundings err upwards or
        downwards most)
    scale : 2^-100..2^100, the size of the gradients
    ratio : of ``geometric``, the quotient of a gradient and the next; 0: the stored beta1/beta2
    period : 1..2^20, steps
    start : weights start uniform in (-start, start)

    Raises
    ------
    ValueError
        Naming the option, its value and the admissible interval.

    Examples
    --------
    >>> problem = sequence(3, kind="constant")
    >>> problem.objective, problem.smoothness
    (False, inf)
    """
    d = checked_integer("sequence dimension", dimension, 1, 1 << 16)
    if kind not in KINDS:
        raise ValueError(f"sequence kind={kind!r}; admissible: {', '.join(KINDS)}")
    length = checked_integer("sequence period", period, 1, 1 << 20)
    quotient = checked_real("sequence ratio", ratio, 0.0, 2.0**10)
    if quotient and abs(math.log2(quotient)) * (length - 1) > 900:
        raise ValueError(f"sequence ratio={ratio!r} over {length} steps leaves 2^-900..2^900")
    return Sequence(
        name="sequence",
        dimension=d,
        objective=False,
        smoothness=np.inf,
        strong_convexity=0.0,
        start_scale=checked_real("sequence start", start, 2.0**-100, 2.0**100),
        kind=kind,
        scale=checked_real("sequence scale", scale, 2.0**-100, 2.0**100),
        ratio=quotient,
        period=length,
    )
