"""A matrix times many columns, summed in one fixed order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from experiments.jit import kernel

Array = npt.NDArray[np.float64]

# Lanes at a time, copied together: they stay in cache while all rows of the matrix pass over them.
_STRIP = 64


@kernel
def multiply(a: Array, x: Array, out: Array) -> None:
    """out[i, l] = ((a[i, 0] x[0, l] + a[i, 1] x[1, l]) + a[i, 2] x[2, l]) + ..: products rounded, added from the left.

    The error is at most gamma(k) * sum_j |a[i, j]| |x[j, l]|, k the number of terms.
    """
    terms = a.shape[1]
    whole = terms - terms % 4
    strip = np.zeros((terms, _STRIP))
    sums = np.empty(_STRIP)
    for start in range(0, x.shape[1], _STRIP):
        width = min(_STRIP, x.shape[1] - start)
        for j in range(terms):
            strip[j, :width] = x[j, start : start + width]
        for i in range(a.shape[0]):
            for lane in range(_STRIP):
                sums[lane] = 0.0
            for j in range(0, whole, 4):  # four terms a pass: the same order with a quarter of the stores
                a0, a1, a2, a3 = a[i, j], a[i, j + 1], a[i, j + 2], a[i, j + 3]
                for lane in range(_STRIP):
                    s = sums[lane] + a0 * strip[j, lane]
                    s = s + a1 * strip[j + 1, lane]
                    s = s + a2 * strip[j + 2, lane]
                    sums[lane] = s + a3 * strip[j + 3, lane]
            for j in range(whole, terms):
                a0 = a[i, j]
                for lane in range(_STRIP):
                    sums[lane] += a0 * strip[j, lane]
            out[i, start : start + width] = sums[:width]


def column_sums(x: Array) -> Array:
    """The sum of each column, from the top; a column's sum does not depend on how many columns there are."""
    total = np.empty((1, x.shape[1]))
    multiply(np.ones((1, x.shape[0])), np.ascontiguousarray(x), total)
    return total[0]
