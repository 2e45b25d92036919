"""Other norms of gradients and momenta, for methods that do not move by the Euclidean one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from experiments.problems.linear import column_sums

Array = npt.NDArray[np.float64]


def lengths(shape: tuple[int, int] | None) -> dict[str, Callable[[Array], Array]]:
    """Name -> norm of each column of [d, n]: the sum of the moduli, and of the singular values where there is a matrix.

    Examples
    --------
    >>> {name: float(norm(np.array([[3.0], [0.0], [0.0], [4.0]]))[0]) for name, norm in lengths((2, 2)).items()}
    {'l1': 7.0, 'nuclear': 7.0}
    """
    found: dict[str, Callable[[Array], Array]] = {"l1": lambda x: column_sums(np.abs(x))}
    if shape is not None:
        found["nuclear"] = lambda x: _nuclear(x, shape)
    return found


def _nuclear(x: Array, shape: tuple[int, int]) -> Array:
    """[n]; NaN where a column is not finite."""
    sums = np.full(x.shape[1], np.nan)
    good = np.isfinite(x).all(axis=0)
    matrices = x[:, good].T.reshape(-1, *shape)
    with np.errstate(over="ignore"):  # of a run that diverges
        sums[good] = np.linalg.svd(matrices, compute_uv=False).sum(axis=1)
    return sums
