"""Factorizations in binary64 (NumPy's LAPACK): opaque operations, rounded once where their result is stored.

Their last bits depend on the LAPACK that NumPy was built with. A matrix that is not finite gives NaN everywhere: an
overflow of a format is a result of a run, not an error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def polar(m: Array) -> Array:
    """U V^T of the singular value decomposition m = U S V^T, over the singular values that are not negligible.

    Directions in which ``m`` vanishes (singular values up to max(shape) 2^-52 of the largest) stay zero, so that a zero
    gradient gives a zero step.

    Examples
    --------
    >>> polar(np.diag([3.0, -2.0, 0.0])).tolist() == np.diag([1.0, -1.0, 0.0]).tolist()
    True
    """
    if not np.isfinite(m).all():
        return np.full(m.shape, np.nan)
    top = np.abs(m).max()
    if top == 0.0:
        return np.zeros(m.shape)
    u, s, vt = np.linalg.svd(m / top, full_matrices=False)
    kept = s > s[0] * max(m.shape) * 2.0**-52
    factor: Array = u[:, kept] @ vt[kept]
    return factor
