"""Where a run settles: is it stationary, at what gradient norm and loss, and how many weights no longer move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.verdict import confidence_interval

Array = npt.NDArray[np.float64]

# A run is called stationary if the root-mean-square gradient norm of the window's second half is within 10 % of the
# first half's, or cannot be told from it at 99 % confidence over the seeds (one seed alone has no such confidence).
DRIFT = 0.10
DRIFT_CONFIDENCE = 0.99
# A loss gap this many times the starting one, or a value that is not finite, counts as diverged.
DIVERGED = 1e3

OUTCOMES = {
    "floor": "reached a floor",
    "stagnated": "stagnated: no weight moves any more",
    "moving": "not yet stationary: more steps are needed",
    "diverged": "diverged: the loss gap grew a thousandfold",
    "not finite": "not finite: an overflow or an invalid operation",
    "given": "given gradients: there is no objective, and no floor",
}


@dataclass(frozen=True)
class Floor:
    """The floor of one cell.

    Attributes
    ----------
    outcome : a key of ``OUTCOMES``
    stationary : whether the window passed the test above
    gradient, loss : (value, low, high), root-mean-square true gradient norm and mean loss gap, 95 % over seeds
    gradient999 : the same interval at 99.9 %
    frozen : mean share of weights stored unchanged although the exact update is not zero, in 0..1
    seed_gradient, seed_loss, seed_frozen : ``[seeds]``, of each seed
    """

    outcome: str
    stationary: bool
    gradient: tuple[float, float, float]
    gradient999: tuple[float, float, float]
    loss: tuple[float, float, float]
    frozen: float
    seed_gradient: Array
    seed_loss: Array
    seed_frozen: Array


def measure(squared: Array, loss: Array, frozen: Array, first_loss: Array, halted: npt.NDArray[np.bool_]) -> Floor:
    """The floor from samples of the window.

    Parameters
    ----------
    squared, loss, frozen : ``[n, seeds]``, squared true gradient norm, loss gap and share of frozen weights at n steps
    first_loss : ``[seeds]``, loss gap of the start
    halted : ``[seeds]``, whether the run can never move again
    """
    seed_squared, seed_loss, seed_frozen = squared.mean(axis=0), loss.mean(axis=0), frozen.mean(axis=0)
    finite = bool(np.isfinite(squared).all() and np.isfinite(loss).all())
    still = finite and is_stationary(squared)
    if not finite:
        outcome = "not finite"
    elif np.any(loss[-1] > DIVERGED * first_loss):
        outcome = "diverged"
    elif halted.all():
        outcome = "stagnated"
    else:
        outcome = "floor" if still else "moving"
    return Floor(
        outcome=outcome,
        stationary=still or (finite and bool(halted.all())),
        gradient=_root(_interval(seed_squared, 0.95)),
        gradient999=_root(_interval(seed_squared, 0.999)),
        loss=_interval(seed_loss, 0.95),
        frozen=float(seed_frozen.mean()),
        seed_gradient=np.sqrt(seed_squared),
        seed_loss=seed_loss,
        seed_frozen=seed_frozen,
    )


def no_floor(seeds: int) -> Floor:
    """Of runs whose gradients are given."""
    unknown = (float("nan"),) * 3
    each = np.full(seeds, np.nan)
    return Floor("given", False, unknown, unknown, unknown, float("nan"), each, each, each)


def is_stationary(squared: Array) -> bool:
    """Whether the two halves of the window agree: ``squared`` is ``[n, seeds]``; one sample alone cannot tell."""
    half = len(squared) // 2
    if half == 0:
        return False
    first, second = squared[:half].mean(axis=0), squared[half:].mean(axis=0)
    if not (np.all(first > 0) and np.all(second > 0)):
        return bool(np.array_equal(first, second))
    log_ratio = 0.5 * np.log(second / first)
    mean, low, high = _interval(log_ratio, DRIFT_CONFIDENCE)
    return bool(abs(mean) <= np.log1p(DRIFT) or (np.isfinite(low) and low <= 0.0 <= high))


def _interval(samples: Array, confidence: float) -> tuple[float, float, float]:
    """Mean and confidence limits of one value a seed; NaN where a value is not finite."""
    if not np.isfinite(samples).all():
        return (float("nan"),) * 3
    low, high = confidence_interval(samples, confidence)
    return float(samples.mean()), low, high


def _root(interval: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = (float(np.sqrt(max(x, 0.0))) if not np.isnan(x) else float("nan") for x in interval)
    return value, low, high
