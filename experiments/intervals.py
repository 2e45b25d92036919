"""What can be said of the mean over runs: Student's intervals of 99.9 %. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from theory.verdict import CONFIDENCE, confidence_interval


def mean(samples: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): Student's interval of 99.9 % for the mean over runs.

    Examples
    --------
    >>> [round(x, 2) for x in mean([1.0, 2.0, 3.0])]
    [2.0, -16.24, 20.24]
    """
    return float(np.mean(samples)), *confidence_interval(samples, CONFIDENCE)


def ratio(samples: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """(geometric mean, low, high) of a quotient run by run, both positive: an interval of 99.9 % for the logarithm.

    Examples
    --------
    >>> ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0])
    (2.0, 2.0, 2.0)
    """
    value, low, high = mean(np.log2(np.asarray(samples) / np.asarray(base)).tolist())
    return float(np.exp2(value)), float(np.exp2(low)), float(np.exp2(high))


__all__ = ["mean", "ratio"]
