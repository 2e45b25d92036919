"""SOAP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fpsim.optim.matrix import factorizations
from fpsim.optim.matrix.arithmetic import Arithmetic, Array
from fpsim.optim.matrix.method import LEFT, MATRIX, RIGHT, MatrixMethod, State, check_count
from fpsim.scalars import STEP, ScalarExpression

_OPERATIONS = (
    "rotate.g_left", "rotate.g", "m.decay", "m.inject", "m.add", "v.decay", "v.square", "v.inject", "v.add",
    "rotate.m_left", "rotate.m", "update.sqrt", "update.eps", "update.div", "back.left", "back.right", "update.scale",
    "w.sub", "w.decay", "left.decay", "left.gram", "left.inject", "left.add", "right.decay", "right.gram",
    "right.inject", "right.add", "left.power", "left.basis", "right.power", "right.basis",
)  # fmt: skip
_PRODUCTS = (
    "rotate.g_left", "rotate.g", "rotate.m_left", "rotate.m", "back.left", "back.right",
    "left.gram", "right.gram", "left.power", "right.power",
)  # fmt: skip


def soap(*, frequency: int = 10) -> MatrixMethod:
    """SOAP: Adam in the eigenbasis of Shampoo's factors.

    Symbols
    -------
    w ``[rows, columns]`` weights, g gradient, m its average, v second moment in the rotated basis, left ``[rows,
    rows]`` and right ``[columns, columns]`` second moments of rows and columns (all zero at first), left_basis and
    right_basis their approximate eigenvectors as columns (identity at first);  lr >= 0 the unit of w;
    0 <= beta1, beta2 < 1;  eps >= 0, unit of g;  decay >= 0 decoupled weight decay, one over the unit of lr. Option
    ``frequency`` >= 1: steps between refreshed bases. s = t - 1 counts updates of w.

    Update, in evaluation order
    ---------------------------
    t = 1 only sets up: left <- beta2 left + (1 - beta2) g g^T, right <- beta2 right + (1 - beta2) g^T g, left_basis
    and right_basis <- their eigenvectors, largest eigenvalue first; w, m and v stay. Then, for s = 1, 2, ...:
    G = (left_basis^T g) right_basis;  m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) G G (elementwise);
    M = (left_basis^T m) right_basis;  N = M / (sqrt(v) + eps);  U = (left_basis N) right_basis^T;
    w <- w - (lr sqrt(1 - beta2^s) / (1 - beta1^s)) U;  w <- (1 - lr decay) w;  left, right as for t = 1;
    where s is a multiple of ``frequency``: Y = left left_basis; its columns sorted by diag(left_basis^T Y), largest
    first, v's rows with them; left_basis <- Q of Y = Q R; right_basis and v's columns likewise.

    Every elementwise operation is rounded in its slot; all products but those inside factorizations go through the
    emulated matmul. The eigenvectors, and the sorting with the QR of the rounded Y (slots left.power, right.power),
    are opaque operations in binary64 (NumPy's eigh and qr), rounded once where they are stored, the slots left.basis
    and right.basis. The step size is one scalar, rounded once.

    Which variant
    -------------
    The author's code (nikhilvyas/SOAP) as pytorch_optimizer 4.1.0 has it, with its defaults: no update in the first
    call, eps before bias correction, which Algorithm 3 of the paper leaves out. m is kept unrotated as in the paper;
    versions of the code that keep it in the rotated basis, and turn it with the basis, differ by rounding only. While
    left or right is rank-deficient its null-space eigenvectors are arbitrary, and differ between LAPACKs. No merging of
    dimensions, no limit on their size.

    Raises
    ------
    ValueError
        ``frequency`` is no integer of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fpsim import Precision
    >>> method, precision = soap().bind(lr=0.5, decay=0), Precision.uniform("bfloat16")
    >>> state = method.start(np.zeros((2, 2)), precision)
    >>> for step in range(2):
    ...     state = method.step(state, np.diag([4.0, 0.25]), precision, step=step)
    >>> state["w"].diagonal().tolist()
    [-0.5, -0.5]

    Reference: Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", arXiv:2409.11321, Algorithm 3.
    """
    check_count("frequency", frequency)
    lr, beta1, beta2, eps, decay, t = map(ScalarExpression.symbol, ("lr", "beta1", "beta2", "eps", "decay", STEP))
    updates = ScalarExpression("max", left=t - 1, right=ScalarExpression.of(1))
    return MatrixMethod(
        name="soap",
        state={"w": MATRIX, "m": MATRIX, "v": MATRIX, "left": LEFT, "right": RIGHT,
               "left_basis": LEFT, "right_basis": RIGHT},
        operations=_OPERATIONS,
        products=_PRODUCTS,
        scalars={
            "beta1": beta1, "one_minus_beta1": 1 - beta1, "beta2": beta2, "one_minus_beta2": 1 - beta2, "eps": eps,
            "step_size": lr * ScalarExpression("sqrt", left=1 - beta2**updates) / (1 - beta1**updates),
            "keep": 1 - lr * decay,
        },
        hyperparameters={"lr": 3e-3, "beta1": 0.95, "beta2": 0.95, "eps": 1e-8, "decay": 0.01},
        body=partial(_step, frequency=frequency),
        identities=("left_basis", "right_basis"),
    )  # fmt: skip


def _step(ops: Arithmetic, state: State, g: Array, draws: Mapping[str, Array], *, frequency: int) -> State:
    updates = ops.t - 1
    after = _updated(ops, state, g) if updates else dict(state)
    for side, a, b in (("left", g, g.T), ("right", g.T, g)):
        decay = ops.mul(f"{side}.decay", ops.scalar("beta2"), state[side])
        inject = ops.mul(f"{side}.inject", ops.scalar("one_minus_beta2"), ops.matmul(f"{side}.gram", a, b))
        after[side] = ops.add(f"{side}.add", decay, inject)
        if not updates:
            after[f"{side}_basis"] = ops.round(f"{side}.basis", factorizations.eigenbasis(after[side]))
        elif updates % frequency == 0:
            product = ops.matmul(f"{side}.power", after[side], state[f"{side}_basis"])
            basis, order = factorizations.power_basis(state[f"{side}_basis"], product)
            after[f"{side}_basis"] = ops.round(f"{side}.basis", basis)
            after["v"] = np.take(after["v"], order, axis=0 if side == "left" else 1)
    return after


def _updated(ops: Arithmetic, state: State, g: Array) -> State:
    """Adam in the rotated basis."""
    left, right = state["left_basis"], state["right_basis"]
    rotated = ops.matmul("rotate.g", ops.matmul("rotate.g_left", left.T, g), right)
    decay = ops.mul("m.decay", ops.scalar("beta1"), state["m"])
    m = ops.add("m.add", decay, ops.mul("m.inject", ops.scalar("one_minus_beta1"), g))
    decay = ops.mul("v.decay", ops.scalar("beta2"), state["v"])
    inject = ops.mul("v.inject", ops.scalar("one_minus_beta2"), ops.mul("v.square", rotated, rotated))
    v = ops.add("v.add", decay, inject)
    first = ops.matmul("rotate.m", ops.matmul("rotate.m_left", left.T, m), right)
    n = ops.div("update.div", first, ops.add("update.eps", ops.sqrt("update.sqrt", v), ops.scalar("eps")))
    u = ops.matmul("back.right", ops.matmul("back.left", left, n), right.T)
    w = ops.sub("w.sub", state["w"], ops.mul("update.scale", ops.scalar("step_size"), u))
    return {**state, "w": ops.mul("w.decay", ops.scalar("keep"), w), "m": m, "v": v}
