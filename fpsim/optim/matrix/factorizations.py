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


def inverse_root(m: Array, eps: float, order: int) -> Array:
    """(m + eps I)^(-1/order) of a symmetric matrix, from its eigenvalues.

    Where the least eigenvalue is below ``eps``, all are shifted so that it becomes ``eps``: rounding may have made
    ``m`` indefinite. Only the lower triangle is read.

    Examples
    --------
    >>> inverse_root(np.diag([16.0, 1.0]), 0.0, 4).tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    if not np.isfinite(m).all():
        return np.full(m.shape, np.nan)
    values, vectors = np.linalg.eigh(m + eps * np.eye(len(m)))
    if values[0] < eps:
        values = values - values[0] + eps
    with np.errstate(divide="ignore", invalid="ignore"):  # eps = 0 and a zero eigenvalue: an infinity, then NaN
        root: Array = (vectors * values ** (-1.0 / order)) @ vectors.T
    return root


def eigenbasis(m: Array) -> Array:
    """The eigenvectors of a symmetric matrix as columns, the largest eigenvalue first.

    Examples
    --------
    >>> np.abs(eigenbasis(np.diag([1.0, 5.0]))).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    if not np.isfinite(m).all():
        return np.full(m.shape, np.nan)
    return np.ascontiguousarray(np.linalg.eigh(m)[1][:, ::-1])


def power_basis(basis: Array, product: Array) -> tuple[Array, npt.NDArray[np.intp]]:
    """One step of orthogonal iteration from ``product`` = X basis: the new basis, and the order of its columns.

    The columns are sorted by the estimated eigenvalues, the diagonal of basis^T X basis, largest first (ties in their
    order), then orthonormalized (QR, with LAPACK's signs).

    Examples
    --------
    >>> basis, order = power_basis(np.eye(2), np.diag([1.0, 5.0]))
    >>> np.abs(basis).tolist(), order.tolist()
    ([[0.0, 1.0], [1.0, 0.0]], [1, 0])
    """
    if not (np.isfinite(basis).all() and np.isfinite(product).all()):
        return np.full(basis.shape, np.nan), np.arange(len(basis))
    order = np.argsort(-np.sum(basis * product, axis=0), kind="stable")
    return np.linalg.qr(product[:, order])[0], order


def solve_both(left: Array, x: Array, right: Array) -> Array:
    """left^-T x right^-1; NaN where a matrix is singular or not finite.

    Examples
    --------
    >>> solve_both(np.diag([2.0, 1.0]), np.ones((2, 1)), np.array([[4.0]])).tolist()
    [[0.125], [0.25]]
    """
    if not all(np.isfinite(m).all() for m in (left, x, right)):
        return np.full(x.shape, np.nan)
    try:
        return np.ascontiguousarray(np.linalg.solve(right.T, np.linalg.solve(left.T, x).T).T)
    except np.linalg.LinAlgError:
        return np.full(x.shape, np.nan)
