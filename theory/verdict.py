"""A bound held against a measurement: holds, violated, undecided or not applicable.

* violated: the lower 99.9 % confidence limit of the measured side exceeds the upper end of the bound's enclosure;
* holds: the upper limit does not exceed it;
* undecided: anything else, with the number of seeds that would decide if mean and spread stay what they are.

A law (``Bound.two_sided``) is *met* if the confidence interval reaches into the bound's enclosure, *missed* otherwise;
laws take no part in holds and violated.

A theorem that holds for every single run has a bound for every seed; each measured value is then compared with its own
bound, and there is no confidence interval.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from theory.theorem import Bound, root_mean_square
from theory.window import FloatArray

Status: TypeAlias = Literal["holds", "violated", "undecided", "not applicable", "met", "missed"]

CONFIDENCE = 0.999
_MOST_SEEDS = 10**9


@dataclass(frozen=True)
class Verdict:
    """What came of the comparison.

    Attributes
    ----------
    status : holds | violated | undecided | not applicable; of laws: met | missed
    ratio : bound / measured in the bound's own quantity (1 if both are 0, inf if only the measured value is, NaN if not
        applicable)
    low, high : confidence limits of the measured side in the same quantity; for per-seed bounds its extremes
    seeds_needed : for ``undecided``, the number of seeds that would decide; None if no number up to 10^9 does
    reason : the failed hypothesis, the seeds that violate, or what a reader must know
    """

    status: Status
    ratio: float
    low: float
    high: float
    seeds_needed: int | None = None
    reason: str = ""


def confidence_interval(samples: npt.ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided Student t interval of the mean.

    Equal samples give a point; one sample alone gives (-inf, inf).

    Examples
    --------
    >>> confidence_interval([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    x = np.asarray(samples, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"samples of shape {x.shape}: at least one value a seed is needed")
    if not np.all(np.isfinite(x)):
        raise ValueError("samples: every value must be finite")
    if x.size == 1:
        return -math.inf, math.inf
    mean, deviation = float(np.mean(x)), float(np.std(x, ddof=1))
    if np.all(x == x[0]):
        return float(x[0]), float(x[0])
    half = _quantile(confidence, x.size) * deviation / math.sqrt(x.size)
    return mean - half, mean + half


def verdict(samples: npt.ArrayLike, bound: Bound) -> Verdict:
    """Hold samples ([S], what the theorem's ``measured`` gives) against its bound."""
    if not bound.applicable:
        return Verdict("not applicable", math.nan, math.nan, math.nan, reason=bound.reason)
    x = np.asarray(samples, dtype=np.float64)
    if bound.per_seed is not None:
        return _each_seed(x, bound, bound.per_seed)
    if not np.all(np.isfinite(x)):
        return Verdict("undecided", math.nan, math.nan, math.nan, reason="a measured value is not finite")
    low, high = (_root(limit, bound.exponent) for limit in confidence_interval(x))
    measured = _root(float(np.mean(x)), bound.exponent)
    ratio = _ratio(bound.upper, measured)
    if bound.two_sided:
        met = low <= bound.upper and high >= bound.lower
        reason = bound.note if met else f"{low:.6g}..{high:.6g} is outside {bound.lower:.6g}..{bound.upper:.6g}"
        return Verdict("met" if met else "missed", ratio, low, high, reason=reason)
    if low > bound.upper:
        return Verdict("violated", ratio, low, high, reason=f"{low:.6g} > {bound.upper:.6g}")
    if high <= bound.upper:
        return Verdict("holds", ratio, low, high, reason=bound.note)
    needed = _seeds_needed(x, bound.upper**bound.exponent)
    return Verdict("undecided", ratio, low, high, needed, f"the interval {low:.6g}..{high:.6g} holds {bound.upper:.6g}")


def _each_seed(x: FloatArray, bound: Bound, limits: FloatArray) -> Verdict:
    covered = ~np.isnan(limits)
    if not covered.any() or np.any(np.isnan(x[covered])):
        return Verdict("undecided", math.nan, math.nan, math.nan, reason="no covered seed has a measured value")
    over = np.flatnonzero(covered & (x > limits))
    low, high = float(np.min(x[covered])), float(np.max(x[covered]))
    measured = root_mean_square(x[covered])
    ratio = _ratio(bound.upper, measured)
    if over.size:
        first = int(over[0])
        reason = f"seed {first}: {x[first]:.17g} > {limits[first]:.17g}; {over.size} seeds in all"
        return Verdict("violated", ratio, low, high, reason=reason)
    return Verdict("holds", ratio, low, high, reason=bound.note)


def _seeds_needed(x: FloatArray, limit: float) -> int | None:
    """Seeds for which the interval leaves out the limit, mean and standard deviation unchanged."""
    if x.size < 2:
        return None
    distance, deviation = abs(limit - float(np.mean(x))), float(np.std(x, ddof=1))
    low, high = x.size, 2 * x.size
    while _quantile(CONFIDENCE, high) * deviation > distance * math.sqrt(high):
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if _quantile(CONFIDENCE, middle) * deviation > distance * math.sqrt(middle):
            low = middle
        else:
            high = middle
    return high


@functools.lru_cache(maxsize=1 << 12)
def _quantile(confidence: float, count: int) -> float:
    from scipy.special import stdtrit  # imported where needed: it costs a tenth of a second at start-up

    return float(stdtrit(count - 1, 0.5 + confidence / 2))


def _ratio(upper: float, measured: float) -> float:
    if measured > 0:
        return upper / measured
    return 1.0 if upper == 0 == measured else math.inf


def _root(x: float, exponent: int) -> float:
    return x if exponent == 1 else math.copysign(abs(x) ** (1 / exponent), x)
